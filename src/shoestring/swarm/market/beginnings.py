"""Beginnings of routes, many at once: arrays of the same length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.board import NANOSECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.costs import Costs

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Bits = NDArray[np.uint64]


UNITS: Final = np.array([1, NANOSECONDS, NANOSECONDS])
"""Of costs and limits by those of weights."""


@dataclass(frozen=True)
class Goal:
    """What is wanted of a route.

    Attributes:
        layers: to be covered.
        weights: scores of a micro-credit, a second a token, a second to the first token (3,).
        limits: micro-credits, nanoseconds a token and to the first (3,); infinite: none.
    """

    layers: int
    weights: Floats
    limits: Floats

    def score(self, costs: Ints) -> float:
        """Return what micro-credits and nanoseconds a token and to the first (3,) count."""
        return float(costs / UNITS @ self.weights)


@dataclass(frozen=True)
class Found:
    """The best route that was built.

    Attributes:
        score: of it; infinite: none was built.
        steps: places among all sellers, and how many layers each takes.
        price: micro-credits.
        token_ns: of the sellers alone.
        first_token_ns: likewise.
    """

    score: float = np.inf
    steps: tuple[tuple[int, int], ...] = ()
    price: int = 0
    token_ns: int = 0
    first_token_ns: int = 0


@dataclass(frozen=True)
class Labels:
    """Beginnings, by their place in these arrays."""

    at: Ints
    costs: Ints  # (n, 3)
    excess: Floats
    used: Bools  # (n, pool)
    users: Bits  # one number for the set of those used
    last: Ints  # -1: nobody yet
    taken: Ints  # layers, by the last


@dataclass(frozen=True)
class Longer:
    """What one seller more makes of labels, by their place in these arrays."""

    parent: Ints
    seller: Ints
    layers: Ints
    at: Ints
    costs: Ints  # (n, 3)
    excess: Floats
    users: Bits

    def take(self, places: Ints) -> Longer:
        """Return some of them."""
        return Longer(**{name: column[places] for name, column in vars(self).items()})


def lowest(excess: Floats, places: Ints, count: int) -> tuple[Ints, float]:
    """Return so many places of the lowest excess, and the lowest of the others."""
    if len(places) <= count:
        return places, np.inf
    order = np.argpartition(excess[places], count)
    return places[order[:count]], float(excess[places[order[count]]])


def least_of_rest(costs: Costs, layers: int) -> Floats:
    """Return the least of each cost for so many layers more (3, layers + 1), in whole units."""
    rates = (costs.beta() + costs.alpha() / costs.most) * UNITS[:, None]
    found = np.full((3, layers + 1), np.inf)
    found[:, 0] = 0
    for which in range(3):
        order = np.argsort(rates[which])
        spread = np.repeat(rates[which][order], costs.most[order])[:layers]
        found[which, 1 : len(spread) + 1] = np.cumsum(spread)
    return found
