"""Many like requests from one place: the few sellers that matter, and a route over who is free.

The close look is taken once: Lagrange's multipliers of :mod:`shoestring.swarm.market.bounds` turn
price and times into one score, and the sellers of the best scores a layer are kept. Each request
then takes, layer by layer, whoever is free and has the best score a layer. Nothing is proven:
benchmarks/swarm_routing.py says how far above the best its routes are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.routes import NoRoute, Route
from shoestring.swarm.market.view import Market, limits_of, weights_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.board import Board
    from shoestring.swarm.market.requests import Request
    from shoestring.swarm.market.view import Ranked

SELLERS: Final = 64
AIMS: Final = (1.0, 0.85, 0.7, 0.5)
"""Shares of the limits that sellers are ranked for, in turn, until a route keeps the limits."""


class Shortlist:
    """The sellers that matter to one kind of request from one place.

    Layers, prices and times are those of when it was made; who is free, and who left the board, is
    asked of it each time. Make another when prices changed, or when too often no route is
    found: it takes milliseconds.

    Args:
        board: sellers of the model.
        request: the kind: layers, tokens, limits, preference.
        now_s: seconds since 1970; who expires by then is left out.
        rtt_ns: round trips by slot, in nanoseconds; None: the board's.
        sellers: how many are kept; each layer has some, if any serve it.
    """

    def __init__(
        self,
        board: Board,
        request: Request,
        *,
        now_s: float = 0.0,
        rtt_ns: NDArray[np.int64] | None = None,
        sellers: int = SELLERS,
    ) -> None:
        self._board, self._layers = board, request.layers
        self._market = Market(board, request, now_s, rtt_ns, None)
        self._limits = limits_of(request)
        weights = weights_of(request)
        aims = AIMS if bool(np.isfinite(self._limits).any()) else AIMS[:1]
        self._rankings = [
            self._market.ranked(weights, self._limits, sellers, aim=aim) for aim in aims
        ]

    def route(self) -> Route | NoRoute:
        """Return a route over who is free now, within the limits; a heuristic."""
        board, free = self._board, self._board.column("free")
        found: Route | NoRoute = NoRoute("unproven")
        for ranking in self._rankings:
            # Who left the board may have left its slot to another.
            steps = self._steps([
                one for one in ranking if free[one.slot] > 0 and board.slot(one.id) == one.slot
            ])  # fmt: skip
            if steps:
                found = self._market.priced(steps, self._limits)
            if isinstance(found, Route):
                break
        return found

    def _steps(self, sellers: list[Ranked]) -> list[tuple[int, int]]:
        """Return places and layers by the best score a layer; none: some layer has nobody free."""
        steps: list[tuple[int, int]] = []
        at = 0
        while at < self._layers:
            best, best_rate, best_layers = None, math.inf, 0
            for one in sellers:
                layers = min(one.most, one.end - at)
                if layers > 0 and one.first <= at:
                    rate = one.layer + one.visit / layers
                    if rate < best_rate:
                        best, best_rate, best_layers = one, rate, layers
            if best is None:
                return []
            sellers.remove(best)
            steps.append((best.place, best_layers))
            at += best_layers
        return steps
