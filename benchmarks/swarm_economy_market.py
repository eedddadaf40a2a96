"""A market of a few dozen sellers: signed quotes, what there is between cheapest and fastest, why.

Sellers are drawn by a seed: their quotes are signed by keys of their own and read as those of other
nodes are; round trips are drawn, too, and stand where measured ones would. The search is the
product's. Routes at random show what there is to choose from.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger.amounts import amount
from shoestring.swarm.market.board import Board, Seller
from shoestring.swarm.market.measured import Measured
from shoestring.swarm.market.quotes import LONGEST_S, Quote, read_quote, sign_quote
from shoestring.swarm.market.reasons import no_route_text, why_not
from shoestring.swarm.market.requests import Request
from shoestring.swarm.market.routes import Effort, Route
from shoestring.swarm.market.routing import find_route, front
from shoestring.swarm.market.sellers import sellers_of

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.swarm.identity import Identity

MODEL: Final = "shape:llama-3.1-8b:q4_k_m"
LAYERS: Final = 32
NOW_S: Final = 1_800_000_000
PROMPT_TOKENS: Final = 512
OUTPUT_TOKENS: Final = 256
RANDOM_ROUTES: Final = 400
POINTS: Final = 32
EFFORT: Final = Effort(nodes=1 << 30, labels=4_096, first_labels=64)
"""More than usual: the market is small."""


def trade(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Quote, ask, and show what there is; all of it follows from the seed.

    Args:
        folder: for keys and what was measured.
        count: of sellers.
        seed: of all that is drawn.
    """
    draws = random.Random(seed)
    keys = [load_identity(folder / f"seller{number}" / "identity.key") for number in range(count)]
    texts = [sign_quote(key, drawn_quote(key, draws)).encode() for key in keys]
    names = {key.id: f"n{number:02d}" for number, key in enumerate(keys, start=1)}
    measured = Measured(folder / "measured.json", now=lambda: NOW_S)
    for key in keys:
        rtt_s = round(draws.lognormvariate(-3.6, 0.9), 6)
        measured.saw(key.id, times=[("rtt_s", rtt_s)], good=draws.randrange(20))
    quotes = [read_quote(text, now_s=NOW_S).quote for text in texts]
    sellers, left = sellers_of(quotes, MODEL, LAYERS, measured.all(), now_s=NOW_S)
    assert not left, "each has a distance and says how fast it is"
    board = Board(MODEL, LAYERS)
    for one in sellers:
        board.put(one)
    request = Request(
        model=MODEL, first=0, end=LAYERS, prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS
    )
    routes = front(board, request, now_s=NOW_S, effort=EFFORT, points=POINTS)
    return {
        "seed": seed, "model": MODEL, "layers": LAYERS, "prompt_tokens": PROMPT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "sellers": [told_seller(one, names) for one in sellers],
        "front": [told_route(one, names) for one in routes],
        "at_random": random_routes(sellers, request, draws),
        "asked": ask(board, request, routes, names),
        "quotes_refused": refuse(keys[0], quotes[0]),
    }  # fmt: skip


def drawn_quote(key: Identity, draws: random.Random) -> Quote:
    """Draw what a node sells: who is faster asks more, more or less."""
    layer_s = draws.lognormvariate(-6.2, 0.6)
    dear = 0.004 / layer_s * draws.lognormvariate(0.0, 0.45)
    most = draws.randint(6, 20)
    first = draws.choice([0, 0, 0, draws.randrange(LAYERS - most)])
    return Quote(
        node=key.id, number=1, model=MODEL, first=first,
        end=draws.choice([LAYERS, LAYERS, first + most]), most_layers=most,
        price_in=round(25_000 * dear), price_out=round(100_000 * dear),
        layer_s=round(layer_s, 7), prompt_layer_s=round(layer_s / 12, 8),
        made_s=NOW_S, until_s=NOW_S + LONGEST_S,
    )  # fmt: skip


def random_routes(
    sellers: list[Seller], request: Request, draws: random.Random
) -> list[dict[str, Any]]:
    """Draw routes: whoever may come next, as many layers as it takes."""
    found: list[dict[str, Any]] = []
    while len(found) < RANDOM_ROUTES:
        at, steps = request.first, list[tuple[Seller, int]]()
        while at < request.end:
            used = {one.id for one, _ in steps}
            able = [one for one in sellers if one.first <= at < one.end and one.id not in used]
            if not able:
                break
            one = draws.choice(able)
            end = min(one.end, at + one.most_layers, request.end)
            steps.append((one, end - at))
            at = end
        if at == request.end:
            found.append({"micro": price_of(steps, request), "tpot_s": time_of(steps)})
    return found


def price_of(steps: list[tuple[Seller, int]], request: Request) -> int:
    """Return what a route costs, by the definition."""
    return sum(
        amount(request.prompt_tokens, request.output_tokens, layers, price_in=one.price_in,
               price_out=one.price_out)
        for one, layers in steps
    )  # fmt: skip


def time_of(steps: list[tuple[Seller, int]]) -> float:
    """Return seconds a token in a star, by the definition."""
    return round(sum(one.rtt_s + layers * one.layer_s for one, layers in steps), 6)


def ask(
    board: Board, request: Request, routes: tuple[Route, ...], names: dict[str, str]
) -> list[dict[str, Any]]:
    """Ask with limits between those of the front's ends, and beyond them."""
    cheapest, fastest = routes[0], routes[-1]
    between_s = round(math.sqrt(cheapest.tpot_s * fastest.tpot_s), 3)
    between = round(math.sqrt(cheapest.price * fastest.price))
    asked = {
        "cheapest": request,
        "fastest": replace(request, prefer="latency"),
        "cheapest within a time per token": replace(request, max_tpot_s=between_s),
        "fastest within a price": replace(request, prefer="latency", max_price=between),
        "cheapest from trusted nodes": replace(request, least_trust=0.8),
        "both limits too tight": replace(
            request, max_price=cheapest.price, max_tpot_s=fastest.tpot_s
        ),
    }
    return [told_answer(name, board, one, names) for name, one in asked.items()]


def told_answer(name: str, board: Board, request: Request, names: dict[str, str]) -> dict[str, Any]:
    """Return what became of one request."""
    found = find_route(board, request, now_s=NOW_S, effort=EFFORT)
    route = found if isinstance(found, Route) else None
    reasons = why_not(board, request, found, now_s=NOW_S, name=lambda peer: names[peer])
    return {
        "asked": name, "max_micro": request.max_price, "max_tpot_s": request.max_tpot_s,
        "least_trust": request.least_trust, "prefer": request.prefer,
        "route": None if route is None else told_route(route, names),
        "none_because": None if isinstance(found, Route) else no_route_text(found),
        "not_taken": {names[peer]: why for peer, why in reasons.items()},
    }  # fmt: skip


def told_route(route: Route, names: dict[str, str]) -> dict[str, Any]:
    """Return a route for JSON."""
    return {
        "micro": route.price, "tpot_s": route.tpot_s, "ttft_s": route.ttft_s,
        "above": route.above,
        "hops": [{"node": names[hop.id], "layers": hop.end - hop.first, "micro": hop.price}
                 for hop in route.hops],
    }  # fmt: skip


def told_seller(one: Seller, names: dict[str, str]) -> dict[str, Any]:
    """Return a seller for JSON."""
    return {
        "node": names[one.id], "first": one.first, "end": one.end, "most_layers": one.most_layers,
        "price_in": one.price_in, "price_out": one.price_out, "layer_s": one.layer_s,
        "rtt_s": one.rtt_s, "trust": one.trust,
    }  # fmt: skip


def refuse(key: Identity, quote: Quote) -> list[dict[str, Any]]:
    """Change a signed quote, and read it too late, too early, and as another's."""
    text = sign_quote(key, quote)
    cheaper = text.replace(f'"price_out": {quote.price_out}', '"price_out": 1')
    tries = {
        "the price changed after it was signed": (cheaper, NOW_S),
        "read after it ran out": (text, quote.until_s),
        "made in the future": (text, quote.made_s - 3_600),
    }
    found: list[dict[str, Any]] = []
    for what, (tried, now_s) in tries.items():
        try:
            read_quote(tried.encode(), now_s=now_s)
        except BadValueError as error:
            found.append({"what": what, "reason": str(error)})
        else:
            found.append({"what": what, "reason": None})
    return found
