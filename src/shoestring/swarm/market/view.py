"""Sellers as one request sees them: the bound first, then the few that may matter, then routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shoestring.errors import BadValueError
from shoestring.swarm.ledger.amounts import PER_TOKENS
from shoestring.swarm.market.beginnings import UNITS, Found, Goal
from shoestring.swarm.market.board import NANOSECONDS
from shoestring.swarm.market.bounds import Relaxation
from shoestring.swarm.market.costs import costs_of
from shoestring.swarm.market.finding import Finder
from shoestring.swarm.market.pools import pool
from shoestring.swarm.market.requests import WORTH
from shoestring.swarm.market.routes import Hop, NoRoute, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoestring.swarm.market.board import Board
    from shoestring.swarm.market.requests import Request
    from shoestring.swarm.market.routes import Effort
    from shoestring.swarm.market.ways import Ways

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]


def limits_of(request: Request) -> Floats:
    """Return what sellers may cost and take at most: micro-credits, nanoseconds twice (3,)."""
    tpot_s, ttft_s = request.max_tpot_s, request.max_ttft_s
    return np.array([
        np.inf if request.max_price is None else request.max_price,
        np.inf if tpot_s is None else np.floor((tpot_s - request.home_tpot_s) * NANOSECONDS + 0.5),
        np.inf if ttft_s is None else np.floor((ttft_s - request.home_ttft_s) * NANOSECONDS + 0.5),
    ])  # fmt: skip


def weights_of(request: Request) -> Floats:
    """Return what a micro-credit and a second of either kind count (3,)."""
    return np.array([1.0, WORTH[request.prefer], 0.0])


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """A seller and its scores under the limits of a request.

    Attributes:
        place: among the sellers of the market.
        id: its peer id.
        slot: on the board.
        first: its first layer, counted from the first that is bought.
        end: the one after its last.
        most: layers.
        visit: score of taking it at all.
        layer: score of each layer.
    """

    place: int
    id: str
    slot: int
    first: int
    end: int
    most: int
    visit: float
    layer: float


class Market:
    """Sellers as one request sees them.

    Args:
        board: sellers of its model.
        request: what is to be bought.
        now_s: seconds since 1970.
        rtt_ns: round trips by slot; None: the board's.
        ways: measured between sellers: a chain; None: a star.

    Raises:
        BadValueError: the board is of another model, or of fewer layers.
    """

    def __init__(
        self, board: Board, request: Request, now_s: float, rtt_ns: Ints | None, ways: Ways | None
    ) -> None:
        if board.model != request.model or request.end > board.layers:
            raise BadValueError(
                f"this board is of {board.layers} layers of {board.model}: "
                f"it has not layers {request.first} to {request.end} of {request.model}"
            )
        self._board, self._request, self._ways = board, request, ways
        self._rtt_ns = board.column("rtt_ns") if rtt_ns is None else rtt_ns
        slots = board.usable(request, now_s, self._rtt_ns)
        self._costs = costs_of(board, request, slots, rtt_ns=self._rtt_ns, ways=ways)
        self._missing = tuple(
            request.first + layer for layer in self._costs.uncovered(request.layers)
        )
        self._enough = not self._missing and int(self._costs.most.sum()) >= request.layers
        self._relaxation = Relaxation(self._costs, request.layers) if self._enough else None

    def route(self, weights: Floats, limits: Floats, effort: Effort) -> Route | NoRoute:
        """Return the best route: of micro-credits and nanoseconds, limits; of seconds, weights."""
        layers = self._request.layers
        if self._relaxation is None:
            return NoRoute("uncovered", self._missing)
        finder = Finder(
            self._relaxation, Goal(layers, weights, limits), effort,
            rtt_ns=self._rtt_ns, ways=self._ways,
        )  # fmt: skip
        found, floor = finder.best()
        if not found.steps:
            return NoRoute("limits" if floor == np.inf else "unproven")
        above = max(0.0, 1 - floor / found.score) if found.score > 0 else 0.0
        return self._described(found, above)

    def ranked(
        self, weights: Floats, limits: Floats, most: int, *, aim: float
    ) -> tuple[Ranked, ...]:
        """Return the sellers that matter, the best score a layer first; none: too few layers."""
        if self._relaxation is None:
            return ()
        bounds = self._relaxation.bounds(weights, limits / UNITS, aim=aim)
        places, _ = pool(self._costs, bounds, self._request.layers, most)
        costs = self._costs.take(places)
        scores = bounds.multipliers
        ids = [self._board.seller(slot).id for slot in costs.slots.tolist()]
        columns = (costs.slots, costs.first, costs.end, costs.most,
                   scores @ costs.alpha(), scores @ costs.beta())  # fmt: skip
        rows = zip(places.tolist(), ids, *(column.tolist() for column in columns), strict=True)
        return tuple(Ranked(*row) for row in rows)

    def least_with_each(self, weights: Floats, limits: Floats | None = None) -> dict[int, float]:
        """Return by slot what no route with that seller scores less than.

        Args:
            weights: of a micro-credit, and of seconds.
            limits: of micro-credits and nanoseconds, that routes keep; None: none.
        """
        if self._relaxation is None:
            return {}
        given = np.full(3, np.inf) if limits is None else limits / UNITS
        bounds = self._relaxation.bounds(weights, given)
        least = bounds.floor + bounds.excess
        return dict(zip(self._costs.slots.tolist(), least.tolist(), strict=True))

    def priced(self, steps: Sequence[tuple[int, int]], limits: Floats) -> Route | NoRoute:
        """Return the route of some steps in a star, if it is within limits."""
        places, layers = np.array(steps).T
        sums = self._costs.sums(places, layers, np.zeros(0, dtype=np.int64))
        if np.any(sums > limits):
            return NoRoute("unproven")
        return self._described(Found(0.0, tuple(steps), *sums.tolist()), None)

    def _described(self, found: Found, above: float | None) -> Route:
        request, board = self._request, self._board
        hops, at = [], request.first
        for place, layers in found.steps:
            slot = int(self._costs.slots[place])
            price = int(-(-layers * self._costs.unit[place] // PER_TOKENS))
            hops.append(Hop(board.seller(slot).id, slot, at, at + layers, price))
            at += layers
        return Route(
            hops=tuple(hops),
            price=found.price,
            tpot_s=request.home_tpot_s + found.token_ns / NANOSECONDS,
            ttft_s=request.home_ttft_s + found.first_token_ns / NANOSECONDS,
            above=above,
        )
