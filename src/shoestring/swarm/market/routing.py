"""The best route for a request: which sellers compute which layers of an answer.

For who routes, once or a hundred thousand times::

    from shoestring.swarm.market.board import Board, Seller
    from shoestring.swarm.market.requests import Request
    from shoestring.swarm.market.routes import NoRoute, Route
    from shoestring.swarm.market.routing import find_route, front
    from shoestring.swarm.market.shortlist import Shortlist

    board = Board(model, layers)
    slot = board.put(Seller(id=..., first=0, end=80, ...))
    board.set_free(slot, 0); board.set_price(slot, 3, 9); board.remove(id)
    request = Request(model=..., first=0, end=80, prompt_tokens=..., ...)

    found = find_route(board, request, now_s=...)       # Route, or NoRoute and why
    found = find_route(board, request, rtt_ns=region_rtt_ns)    # as seen by another client
    points = front(board, request)                      # cheapest ... fastest

    quick = Shortlist(board, request, rtt_ns=...)       # one a region and kind of request
    found = quick.route()                               # a heuristic, below 1 ms

``rtt_ns`` holds a round trip in nanoseconds for each slot (``len(board)``); without it the board's
own count. Costs are those of the planner's law (:mod:`shoestring.plan.speed`)::

    seconds a token = home + sum over nodes (round trip + layers * seconds a layer)
    first token     = home + sum over nodes (round trips of the prompt's batches
                                             + layers * prompt tokens * seconds a layer)
    price           = sum over nodes of :func:`shoestring.swarm.ledger.amounts.amount`

In a chain (``ways``) activations go from node to node where that was measured and is shorter than
by way of the client; a way that nobody measured costs half a round trip of either end, which is
what the star costs. A chain's search begins with the star's route, so it is never worse, and there
is one wherever there is a star.

The search is exact where it says so: ``Route.above`` is a proven bound on how far a better route
could be below, as a share of what is preferred, and 0 of the best there is. A chain is seldom
proven the best but with ``EXHAUSTIVE``, which is for few sellers. How it is done is told in
:mod:`shoestring.swarm.market.bounds`, :mod:`shoestring.swarm.market.labels` and
:mod:`shoestring.swarm.market.chains`. Nothing has to be warmed up: the first call of a process
takes what each takes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.beginnings import UNITS
from shoestring.swarm.market.board import NANOSECONDS
from shoestring.swarm.market.routes import LIMITS, USUAL, Need, NoRoute, Route
from shoestring.swarm.market.view import Market, limits_of, weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoestring.swarm.market.board import Board
    from shoestring.swarm.market.requests import Request
    from shoestring.swarm.market.routes import Effort
    from shoestring.swarm.market.ways import Ways

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

TRACE: Final = 1e-9
PROVEN: Final = 1e-6
"""A share that nobody reads as anything but nothing."""
SHORTER: Final = 4
"""What would help is sought with so many times fewer beginnings of routes, three times at most."""


def find_route(
    board: Board,
    request: Request,
    *,
    now_s: float = 0.0,
    rtt_ns: Ints | None = None,
    ways: Ways | None = None,
    effort: Effort = USUAL,
) -> Route | NoRoute:
    """Return the best route within the limits of a request, or why there is none.

    Args:
        board: sellers of its model.
        request: what is to be bought.
        now_s: seconds since 1970; who expires by then sells nothing.
        rtt_ns: round trips by slot, in nanoseconds; None: the board's.
        ways: measured between sellers: a chain; None: a star.
        effort: how long is searched.

    Raises:
        BadValueError: the board is of another model, or of fewer layers.
    """
    market = Market(board, request, now_s, rtt_ns, ways)
    limits = limits_of(request)
    found = market.route(weights_of(request), limits, effort)
    if isinstance(found, Route) or found.why == "uncovered":
        return found
    shorter = replace(
        effort, labels=-(-effort.labels // SHORTER), chains=-(-effort.chains // SHORTER)
    )
    needs = tuple(
        _need(market, limits, which, shorter)
        for which in np.flatnonzero(np.isfinite(limits)).tolist()
    )
    return replace(found, needs=needs)


def _need(market: Market, limits: Floats, which: int, effort: Effort) -> Need:
    """Return what one limit had to be, the others as they are."""
    eased = limits.copy()
    eased[which] = np.inf
    # Of routes that need as little, any: a trace of the others keeps the search short, and weighs
    # so little within their limits that it hides nothing.
    scale = limits / UNITS
    traced = np.isfinite(eased) & (eased > 0)
    weights = np.where(traced, TRACE * max(0.0, scale[which]) / np.where(traced, scale, 1.0), 0.0)
    weights[which] = 1.0
    best = market.route(weights, eased, effort)
    if isinstance(best, NoRoute):
        return Need(LIMITS[which], None, best.why == "limits")
    least = (best.price, best.tpot_s, best.ttft_s)[which]
    return Need(LIMITS[which], least, best.above is not None and best.above < PROVEN)


def front(
    board: Board,
    request: Request,
    *,
    now_s: float = 0.0,
    rtt_ns: Ints | None = None,
    ways: Ways | None = None,
    effort: Effort = USUAL,
    points: int = 8,
) -> tuple[Route, ...]:
    """Return routes from the cheapest to the fastest, each the cheapest that is so fast.

    The times between are evenly spaced by their ratio, so this shows the front and is not all of
    it. All routes keep the limits of the request.

    Args:
        board: sellers of its model.
        request: what is to be bought; what it prefers does not matter.
        now_s: seconds since 1970.
        rtt_ns: round trips by slot; None: the board's.
        ways: measured between sellers: a chain; None: a star.
        effort: how long is searched for each.
        points: at most.
    """
    market = Market(board, request, now_s, rtt_ns, ways)
    limits = limits_of(request)
    fastest = market.route(weights_of(replace(request, prefer="latency")), limits, effort)
    weights = weights_of(replace(request, prefer="price"))
    cheapest = market.route(weights, limits, effort)
    if isinstance(fastest, NoRoute) or isinstance(cheapest, NoRoute):
        return ()
    found = [cheapest]
    home_s = request.home_tpot_s
    for limit_s in np.geomspace(cheapest.tpot_s, fastest.tpot_s, points)[1:-1].tolist():
        limits[1] = (limit_s - home_s) * NANOSECONDS
        between = market.route(weights, limits, effort)
        if isinstance(between, Route):
            found.append(between)
    return _undominated([*found, fastest])


def _undominated(routes: Sequence[Route]) -> tuple[Route, ...]:
    kept: list[Route] = []
    for route in sorted(routes, key=lambda one: (one.price, one.tpot_s)):
        if not kept or route.tpot_s < kept[-1].tpot_s:
            kept.append(route)
    return tuple(kept)
