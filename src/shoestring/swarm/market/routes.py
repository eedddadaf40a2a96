"""What a route is, and what is said where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Limit = Literal["max_price", "max_ttft_s", "max_tpot_s"]
LIMITS: Final[tuple[Limit, ...]] = ("max_price", "max_tpot_s", "max_ttft_s")


@dataclass(frozen=True)
class Effort:
    """How long is searched before a route is taken with a bound, instead of with a proof.

    Attributes:
        nodes: so many are looked at closely.
        labels: so many beginnings of routes are kept of each length.
        first_labels: likewise in the first, quick look.
        chains: so many times chains are sought, with limits at other prices.
        chain_labels: so many beginnings of chains are kept of each length, to prove more; 0: none.
    """

    nodes: int = 96
    labels: int = 128
    first_labels: int = 16
    chains: int = 2
    chain_labels: int = 0


USUAL: Final = Effort()
EXHAUSTIVE: Final = Effort(nodes=1 << 30, labels=1 << 30, chain_labels=1 << 30)
"""Exact whatever it takes; for few sellers."""


@dataclass(frozen=True, slots=True)
class Hop:
    """What one node computes.

    Attributes:
        id: its peer id.
        slot: on the board.
        first: its first layer.
        end: the one after its last.
        price: micro-credits, at most.
    """

    id: str
    slot: int
    first: int
    end: int
    price: int


@dataclass(frozen=True, slots=True)
class Route:
    """Who computes what, and what it is predicted to cost and to take.

    Attributes:
        hops: in the order of their layers.
        price: micro-credits for the whole answer, at most.
        tpot_s: seconds a token.
        ttft_s: seconds to the first token.
        above: by at most this share of itself what is preferred could be less on another route
            within the limits; 0: this is the best. None: unknown, by a heuristic.
    """

    hops: tuple[Hop, ...]
    price: int
    tpot_s: float
    ttft_s: float
    above: float | None


@dataclass(frozen=True, slots=True)
class Need:
    """What one limit had to be, the others as they are.

    Attributes:
        limit: a field of the request.
        least: micro-credits, or seconds, of a route that was found; None: none was.
        proven: nothing less would do; without a least: it alone helps nothing, whatever it is.
    """

    limit: Limit
    least: float | None
    proven: bool


@dataclass(frozen=True, slots=True)
class NoRoute:
    """Why there is none.

    Attributes:
        why: ``limits``: there are routes, none within them; ``uncovered``: some layers are sold by
            nobody, or by too few together; ``unproven``: none was found, but there may be one.
        layers: those that nobody sells; empty: each is sold by somebody.
        needs: of the limits that were given.
    """

    why: Literal["limits", "uncovered", "unproven"]
    layers: tuple[int, ...] = ()
    needs: tuple[Need, ...] = ()
