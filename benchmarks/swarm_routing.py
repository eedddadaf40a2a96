"""How long does a route take over ten thousand sellers, and how far is it from the best?

A board of 10,000 sellers of 80 layers, drawn from a seed: prices follow speeds with luck, round
trips spread over continents, half of the sellers serve any layers and half a run of them. Requests
are of several kinds: the cheapest and the fastest, within no limit, one, two or three, placed
between what the cheapest and the fastest routes take. Each is routed as a star and, where nodes on
one network know their distances, as a chain. Each request is new: nothing is kept between two. One
kind cannot be met: the cheapest price and the shortest times there are, together, so that no route
keeps them and what would help is sought, too. Of another nothing is found, and hardly proven: a
price 3 % below the best that was found within a time per token.

    python benchmarks/swarm_routing.py [--sellers 10000] [--layers 80] [--requests 40] [--seed 1]
                                       [--json-out FILE]

Wall and processor seconds are of one request, board and limits being there; to make the board is
timed apart. The bar is of processor seconds, since other work may share the cores; where nothing
does, both are the same. ``above`` is the proven bound of each route, and ``over_longer_search`` how
far it lies above what a search of sixteen times the labels, and of four times the tries of a
chain, found. ``below_star`` is by which share a chain is better than the star, of requests that
have one (``star_without_route``: how many have none). ``without_route`` counts those for which
nothing was found, ``proven_none`` those of them for which it is proven that nothing could be. A
shortlist (for simulators) is timed apart, of the kinds that can be met.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from results import write_result
from shoestring.swarm.market.board import Board, Seller
from shoestring.swarm.market.requests import WORTH, Request
from shoestring.swarm.market.routes import USUAL, NoRoute, Route
from shoestring.swarm.market.routing import find_route
from shoestring.swarm.market.shortlist import Shortlist
from shoestring.swarm.market.ways import Ways

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL: Final = "benchmark"
BAR_S: Final = 0.05
NETWORK: Final = 5
"""Sellers on one local network."""
IMPOSSIBLE: Final = "cheapest within all three, which no route keeps"
TIGHT: Final = "cheapest within a time per token and a price just below what that costs"
BELOW: Final = 0.97
"""Of the price that was found within a time, where the price is limited to less."""
ROOM: Final = 1.02
"""Above the cheapest price and the fastest times, of limits that no route keeps together."""
KINDS: Final[dict[str, dict[str, Any]]] = {
    "cheapest": {"prefer": "price"},
    "fastest": {"prefer": "latency"},
    "cheapest within a time per token": {"prefer": "price", "limits": ("max_tpot_s",)},
    "cheapest within both times": {"prefer": "price", "limits": ("max_tpot_s", "max_ttft_s")},
    "fastest within a price": {"prefer": "latency", "limits": ("max_price",)},
    "fastest within a price and a time to the first token": {
        "prefer": "latency", "limits": ("max_price", "max_ttft_s"),
    },
    "cheapest within all three": {
        "prefer": "price", "limits": ("max_price", "max_tpot_s", "max_ttft_s"),
    },
    IMPOSSIBLE: {"prefer": "price", "limits": ("max_price", "max_tpot_s", "max_ttft_s")},
    TIGHT: {"prefer": "price", "limits": ("max_tpot_s",)},
}  # fmt: skip


def main() -> None:
    """Draw the board, route all kinds both ways, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sellers", type=int, default=10_000)
    arguments.add_argument("--layers", type=int, default=80)
    arguments.add_argument("--requests", type=int, default=40, help="of each kind and way")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-routing.json")
    )
    given = arguments.parse_args()
    if min(given.sellers, given.requests) < 1 or not 8 <= given.layers <= 1024:
        arguments.error("--sellers, --requests: at least 1; --layers: 8 to 1024")
    rng = random.Random(given.seed)
    begun_s = time.perf_counter()
    board = draw_board(rng, given.sellers, given.layers)
    made_s = time.perf_counter() - begun_s
    ways = draw_ways(rng, board)
    rows = []
    for shape, known in (("star", None), ("chain", ways)):
        for kind in KINDS:
            print(f"{shape}: {kind}", file=sys.stderr)
            rows.append(route_kind(rng, board, shape, kind, known, given.requests))
    figures = {
        "how": {"sellers": given.sellers, "layers": given.layers, "seed": given.seed,
                "requests_of_each_kind": given.requests, "labels": USUAL.labels,
                "nodes_looked_at_closely": USUAL.nodes, "tries_of_a_chain": USUAL.chains,
                "board_made_s": made_s},
        "bars": judge(rows), "kinds": rows, "shortlist": time_shortlist(rng, board),
    }  # fmt: skip
    write_result(given.json_out, "swarm-routing", figures)


def draw_board(rng: random.Random, sellers: int, layers: int) -> Board:
    """Return sellers as a public swarm may have them; none of them is measured."""
    board = Board(MODEL, layers)
    for number in range(sellers):
        first, end = 0, layers
        if number % 2:
            size = rng.randint(4, layers // 2)
            first = rng.randint(0, layers - size)
            end = first + size
        speed = rng.lognormvariate(0, 0.7)
        price = int(4_000 * speed**0.6 * rng.lognormvariate(0, 0.4))
        board.put(Seller(
            id=f"seller {number}", first=first, end=end,
            most_layers=min(end - first, rng.randint(3, 30)),
            price_in=price, price_out=3 * price,
            layer_s=5e-4 / speed, prompt_layer_s=2.5e-5 / speed,
            rtt_s=rng.lognormvariate(math.log(0.04), 0.8),
        ))  # fmt: skip
    return board


def draw_ways(rng: random.Random, board: Board) -> Ways:
    """Return distances of neighbours on one network: each five after another."""
    return Ways({
        (one, other): rng.uniform(2e-4, 2e-3)
        for base in range(0, len(board) - NETWORK + 1, NETWORK)
        for one in range(base, base + NETWORK)
        for other in range(one + 1, base + NETWORK)
    })  # fmt: skip


def route_kind(
    rng: random.Random, board: Board, shape: str, kind: str, ways: Ways | None, count: int
) -> dict[str, Any]:
    """Route so many requests of one kind, and say what that took and how good it is."""
    wall_s, processor_s, above, over, hops, below = [], [], [], [], [], []
    unfound = proven_none = starless = 0
    for number in range(count):
        request = draw_request(rng, board, kind, ways)
        found, wall, processor = timed(partial(find_route, board, request, ways=ways))
        wall_s.append(wall)
        processor_s.append(processor)
        if isinstance(found, NoRoute):
            unfound += 1
            proven_none += found.why != "unproven"
            continue
        assert found.above is not None
        above.append(found.above)
        hops.append(len(found.hops))
        if number % 8 == 0:
            over.append(over_longer_search(board, request, ways, found))
        if ways is not None:
            star = find_route(board, request)
            starless += isinstance(star, NoRoute)
            if isinstance(star, Route):
                below.append(1 - score(found, request) / score(star, request))
    return {
        "way": shape, "kind": kind, "requests": count, "without_route": unfound,
        "proven_none": proven_none, "wall_s": spread(wall_s), "processor_s": spread(processor_s),
        "above": spread(above), "proven_best": sum(one < 1e-9 for one in above),
        "over_longer_search": spread(over), "hops": spread(hops), "below_star": spread(below),
        "star_without_route": starless if ways is not None else None,
    }  # fmt: skip


def draw_request(rng: random.Random, board: Board, kind: str, ways: Ways | None) -> Request:
    """Return a request whose limits lie between what the cheapest and the fastest routes take."""
    request = Request(
        model=MODEL, first=rng.randint(0, 4), end=board.layers,
        prompt_tokens=rng.randint(50, 4000), output_tokens=rng.randint(50, 1500),
        prefer=KINDS[kind]["prefer"],
    )  # fmt: skip
    limits = KINDS[kind].get("limits", ())
    if not limits:
        return request
    ends = [find_route(board, replace(request, prefer=one), ways=ways) for one in WORTH]
    cheap, fast = (one for one in ends if isinstance(one, Route))
    if kind == IMPOSSIBLE:
        return replace(
            request, max_price=int(cheap.price * ROOM) + 1, max_tpot_s=fast.tpot_s * ROOM,
            max_ttft_s=fast.ttft_s * ROOM,
        )  # fmt: skip
    share = rng.uniform(0.2, 0.7)
    between = {
        # Along the front the price rises as the times fall, so the third limit has some room.
        "max_price": int(cheap.price ** (1 - share) * fast.price**share * 1.5) + 1,
        "max_tpot_s": cheap.tpot_s ** (1 - share) * fast.tpot_s**share,
        "max_ttft_s": cheap.ttft_s ** (1 - share) * fast.ttft_s**share,
    }
    limited = replace(request, **{limit: between[limit] for limit in limits})
    if kind == TIGHT:
        best = find_route(board, limited, ways=ways)
        assert isinstance(best, Route)
        limited = replace(limited, max_price=int(BELOW * best.price))
    return limited


def over_longer_search(board: Board, request: Request, ways: Ways | None, found: Route) -> float:
    """Return by which share a route's score lies above what a much longer search finds."""
    longer = replace(
        USUAL, labels=16 * USUAL.labels, first_labels=4 * USUAL.first_labels,
        chains=4 * USUAL.chains,
    )  # fmt: skip
    best = find_route(board, request, ways=ways, effort=longer)
    scores = [score(one, request) for one in (found, best)]
    return scores[0] / min(scores) - 1


def score(found: Route | NoRoute, request: Request) -> float:
    """Return what the best route has least of; no route: without end."""
    if isinstance(found, NoRoute):
        return math.inf
    return found.price + WORTH[request.prefer] * found.tpot_s


def time_shortlist(rng: random.Random, board: Board) -> dict[str, Any]:
    """Say what a shortlist costs once, what each route of it does, and how far it is from best."""
    made_s, route_s, over = [], [], []
    unfound = 0
    kinds = [kind for kind in KINDS if kind not in (IMPOSSIBLE, TIGHT)]
    for kind in kinds:
        request = draw_request(rng, board, kind, None)
        listed, _, processor = timed(partial(Shortlist, board, request))
        made_s.append(processor)
        found, _, processor = timed(listed.route)
        route_s.append(processor)
        best = find_route(board, request)
        if isinstance(found, NoRoute) or isinstance(best, NoRoute):
            unfound += 1
            continue
        over.append(score(found, request) / score(best, request) - 1)
    return {"kinds": len(kinds), "without_route": unfound, "made_processor_s": spread(made_s),
            "route_processor_s": spread(route_s), "over_find_route": spread(over)}  # fmt: skip


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what work gives, and its wall and processor seconds."""
    wall_s, processor_s = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall_s, time.process_time() - processor_s


def spread(values: list[float] | list[int]) -> dict[str, float | None]:
    """Return median and highest, the worst of most; None: there are none."""
    if not values:
        return {"median": None, "worst": None}
    return {"median": median(values), "worst": max(values)}


def judge(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say whether each kind keeps the bar, by median and worst; one thread does the work."""
    return [
        {"bar": f"{row['way']}, {row['kind']}: processor seconds a request, {which}",
         "value": row["processor_s"][which], "sense": "below", "limit": BAR_S,
         "met": row["processor_s"][which] <= BAR_S}
        for row in rows for which in ("median", "worst")
    ]  # fmt: skip


if __name__ == "__main__":
    main()
