"""Why a seller has no part of a route, and what a request that found none would have to allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.report.units import seconds
from shoestring.swarm.ledger.amounts import credits_text
from shoestring.swarm.market.board import NANOSECONDS
from shoestring.swarm.market.routes import Route
from shoestring.swarm.market.view import Market, limits_of, weights_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.swarm.market.board import Board, Seller
    from shoestring.swarm.market.requests import Request
    from shoestring.swarm.market.routes import Limit, Need, NoRoute
    from shoestring.swarm.market.ways import Ways

OPTIONS: Final[dict[Limit, str]] = {
    "max_price": "--max-price",
    "max_tpot_s": "--max-tpot",
    "max_ttft_s": "--max-ttft",
}
WORDS: Final = ("too dear", "too slow", "too slow to begin")
NEARLY: Final = 1e-9


def why_not(
    board: Board,
    request: Request,
    route: Route | NoRoute,
    *,
    now_s: float,
    ways: Ways | None = None,
    name: Callable[[str], str] = str,
) -> dict[str, str]:
    """Return a line for each seller on the board that has no part of the route, by its id.

    Args:
        board: as it was routed over.
        request: likewise.
        route: what was found.
        now_s: seconds since 1970.
        ways: as it was routed with.
        name: shows a peer id.
    """
    slots = board.slots()
    taken = {hop.id for hop in route.hops} if isinstance(route, Route) else set()
    usable = set(board.usable(request, now_s).tolist())
    found = {
        seller_id: _unusable(board.seller(slot), int(board.column("free")[slot]), request, now_s)
        for seller_id, slot in slots.items()
        if slot not in usable
    }
    market = Market(board, request, now_s, None, ways)
    close = _too_much(market, request)
    scores = _scores(market, request, route)
    for seller_id, slot in slots.items():
        if slot in usable and seller_id not in taken:
            found[seller_id] = (
                close.get(slot)
                or _dominated(board, slot, taken, ways, name)
                or scores.get(slot)
                or "not needed: the route is as good without it"
            )
    return found


def limit_text(limit: Limit, value: float) -> str:
    """Return a limit as its option takes it, rounded so that it is enough."""
    if limit == "max_price":
        return credits_text(int(value))
    return f"{np.ceil(value * 1e6) / 1e6:.6f}".rstrip("0").rstrip(".")


def no_route_text(found: NoRoute) -> str:
    """Return one line: why there is no route, and what would help."""
    if found.why == "uncovered":
        if found.layers:
            which = ", ".join(map(str, found.layers[:8])) + (", ..." if found.layers[8:] else "")
            return f"nobody sells layers {which}: import more quotes, or ask for less trust"
        return "all sellers together serve fewer layers than are bought: import more quotes"
    helps = [_need_text(need) for need in found.needs if need.least is not None]
    begin = (
        "no route keeps all limits"
        if found.why == "limits"
        else "no route within the limits was found"
    )
    if not helps:
        if all(need.proven for need in found.needs):
            return f"{begin}: no single limit helps, ease two"
        return f"{begin}: none was found with any one limit eased either, ease two"
    return f"{begin}: {'; or '.join(helps)}"


def _need_text(need: Need) -> str:
    assert need.least is not None, "it helps"
    which = {
        "max_price": ("the cheapest route", f"costs {credits_text(int(need.least))} credits"),
        "max_tpot_s": ("the fastest", f"takes {seconds(need.least)} a token"),
        "max_ttft_s": ("the soonest", f"begins after {seconds(need.least)}"),
    }
    best, does = which[need.limit]
    what = f"{best if need.proven else 'a route'} {does}"
    return f"{what}, raise {OPTIONS[need.limit]} to {limit_text(need.limit, need.least)}"


def _unusable(seller: Seller, free: int, request: Request, now_s: float) -> str:
    slowest_s = max(
        seller.prompt_layer_s * request.prompt_tokens, seller.rtt_s * request.trips_to_first
    )
    owners = request.owners
    reasons = (
        (seller.until_s <= now_s, "expired: its quote holds no more"),
        (
            seller.end <= request.first,
            f"privacy: it serves layers below {seller.end} alone, and those stay here",
        ),
        (seller.first >= request.end, f"no layers left: it begins at layer {seller.first}"),
        (
            seller.trust < request.least_trust,
            f"no trust: {seller.trust:.2f}, and {request.least_trust:g} is asked for",
        ),
        (free <= 0, "busy: no session is free"),
        (
            owners is not None and seller.owner not in owners,
            "wrong owner: it is not linked here to anybody whose nodes may serve",
        ),
        (True, f"too slow to begin: {seconds(slowest_s)} for a layer of such a prompt, or its way"),
    )
    return next(text for is_so, text in reasons if is_so)


def _too_much(market: Market, request: Request) -> dict[int, str]:
    """Return who cannot be on any route within one of the limits alone."""
    limits = limits_of(request)
    found: dict[int, str] = {}
    for which in np.flatnonzero(np.isfinite(limits)).tolist():
        limit = limits[which] / (1 if which == 0 else NANOSECONDS)
        for slot, least in market.least_with_each(np.eye(3)[which]).items():
            if least > limit * (1 + NEARLY) + NEARLY:
                shown = (
                    f"{credits_text(int(np.ceil(least - NEARLY)))} credits"
                    if which == 0
                    else seconds(least)
                )
                found.setdefault(slot, f"{WORDS[which]}: at least {shown} on any route with it")
    return found


def _dominated(
    board: Board, slot: int, taken: set[str], ways: Ways | None, name: Callable[[str], str]
) -> str | None:
    """Return who of the route does the same, cheaper and faster; in a chain places matter, too."""
    if ways is not None:
        return None
    its = {column: board.column(column)[slot] for column in BETTER_BELOW + BETTER_ABOVE}
    for seller_id in sorted(taken):
        other = board.slot(seller_id)
        assert other is not None, "who is on the route is on the board"
        if all(board.column(one)[other] <= its[one] for one in BETTER_BELOW) and all(
            board.column(one)[other] >= its[one] for one in BETTER_ABOVE
        ):
            return f"dominated by {name(seller_id)}: as cheap, as fast, and as many layers"
    return None


BETTER_BELOW: Final = ("first", "price_in", "price_out", "layer_ns", "prompt_layer_ns", "rtt_ns")
BETTER_ABOVE: Final = ("end", "most")


def _scores(market: Market, request: Request, route: Route | NoRoute) -> Mapping[int, str]:
    """Return who makes every route within the limits worse, and by how much at least."""
    if not isinstance(route, Route):
        return {}
    weights, limits = weights_of(request), limits_of(request)
    best = float(weights @ np.array([route.price, route.tpot_s - request.home_tpot_s, 0]))
    what = "dearer" if request.prefer == "price" else "slower"
    return {
        slot: f"{what}: any route with it is at least {100 * (least / best - 1):.2g} % {what}"
        for slot, least in market.least_with_each(weights, limits).items()
        if best > 0 and least > best * (1 + 1e-4)
    }
