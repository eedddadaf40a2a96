"""Small markets at random, and every route that there is on them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from shoestring.swarm.ledger.amounts import amount
from shoestring.swarm.market.board import Board, Seller
from shoestring.swarm.market.requests import WORTH, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODEL = "shape:a:q4"
LAYERS = 5
Steps = tuple[tuple[Seller, int], ...]


@st.composite
def sellers(draw: st.DrawFn) -> list[Seller]:
    """Draw up to four sellers of five layers; many have the same prices and times."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, LAYERS - 1))
        end = draw(st.integers(first + 1, LAYERS))
        found.append(
            Seller(
                id=f"node {number}",
                first=draw(st.sampled_from((0, first))),
                end=draw(st.sampled_from((LAYERS, end))),
                most_layers=draw(st.integers(1, LAYERS)),
                price_in=draw(st.integers(0, 9)) * 1000,
                price_out=draw(st.integers(0, 9)) * 1000,
                layer_s=draw(st.integers(0, 9)) * 1e-3,
                prompt_layer_s=draw(st.integers(0, 9)) * 1e-4,
                rtt_s=draw(st.integers(0, 40)) * 1e-3,
            )
        )
    return found


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Draw what is wanted, some of it impossible."""
    first = draw(st.integers(0, 2))
    return Request(
        model=MODEL,
        first=first,
        end=draw(st.integers(first + 1, LAYERS)),
        prompt_tokens=draw(st.sampled_from((1, 100, 600))),
        output_tokens=draw(st.sampled_from((1, 300))),
        max_price=draw(st.none() | st.integers(0, 40)),
        max_tpot_s=draw(st.none() | st.integers(0, 120).map(lambda ms: ms / 1e3)),
        max_ttft_s=draw(st.none() | st.integers(0, 900).map(lambda ms: ms / 1e3)),
        prefer=draw(st.sampled_from(("price", "latency"))),
        home_tpot_s=draw(st.sampled_from((0.0, 0.01))),
    )


def board_of(found: list[Seller]) -> Board:
    """Put sellers on a board, each at the slot of its place."""
    board = Board(MODEL, LAYERS)
    for one in found:
        board.put(one)
    return board


def all_routes(found: list[Seller], request: Request) -> Iterator[Steps]:
    """Yield every way to cover the layers, each seller once."""

    def after(steps: Steps, at: int) -> Iterator[Steps]:
        if at == request.end:
            yield steps
        for one in found:
            if one.first <= at and one not in [used for used, _ in steps]:
                for end in range(at + 1, min(one.end, at + one.most_layers, request.end) + 1):
                    yield from after((*steps, (one, end - at)), end)

    yield from after((), request.first)


def costs(
    steps: Steps, request: Request, rtt_s: Mapping[frozenset[str], float] | None = None
) -> tuple[int, float, float]:
    """Return price, seconds a token and to the first, by the definition alone."""
    price = sum(
        amount(
            request.prompt_tokens, request.output_tokens, layers,
            price_in=one.price_in, price_out=one.price_out,
        )
        for one, layers in steps
    )  # fmt: skip
    ways = [steps[0][0].rtt_s / 2, steps[-1][0].rtt_s / 2]
    for (one, _), (other, _) in itertools.pairwise(steps):
        through_client = one.rtt_s / 2 + other.rtt_s / 2
        direct = (rtt_s or {}).get(frozenset((one.id, other.id)))
        ways.append(through_client if direct is None else min(direct / 2, through_client))
    tpot_s = sum(ways) + sum(layers * one.layer_s for one, layers in steps)
    ttft_s = sum(ways) * max(1, request.prompt_tokens / 512) + sum(
        layers * one.prompt_layer_s * request.prompt_tokens for one, layers in steps
    )
    return price, request.home_tpot_s + tpot_s, request.home_ttft_s + ttft_s


def best_score(
    found: list[Seller],
    request: Request,
    rtt_s: Mapping[frozenset[str], float] | None = None,
    *,
    near_s: float = 1e-7,
) -> float | None:
    """Return the score of the best of all routes; None: none keeps the limits.

    Args:
        found: sellers.
        request: with its limits.
        rtt_s: between sellers.
        near_s: by so much a time may be above its limit, which nanoseconds are rounded to.
    """
    scores = []
    for steps in all_routes(found, request):
        price, tpot_s, ttft_s = costs(steps, request, rtt_s)
        if (
            (request.max_price is None or price <= request.max_price)
            and (request.max_tpot_s is None or tpot_s <= request.max_tpot_s + near_s)
            and (request.max_ttft_s is None or ttft_s <= request.max_ttft_s + near_s)
        ):
            scores.append(score(price, tpot_s, request))
    return min(scores, default=None)


def score(price: int, tpot_s: float, request: Request) -> float:
    """Return what the best route has least of, as the request prefers."""
    return price + WORTH[request.prefer] * (tpot_s - request.home_tpot_s)
