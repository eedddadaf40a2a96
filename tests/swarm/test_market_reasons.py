"""Every node that has no part of a route has its reason, and each reason is true."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from shoestring.hardware.devices import Device
from shoestring.models.outline import outline_of_shape
from shoestring.plan.speed_constants import load_constants
from shoestring.swarm.identity import load_identity
from shoestring.swarm.market.board import Board, Seller
from shoestring.swarm.market.measured import Mean, Record
from shoestring.swarm.market.quotes import Quote
from shoestring.swarm.market.reasons import no_route_text, why_not
from shoestring.swarm.market.requests import Request
from shoestring.swarm.market.routes import EXHAUSTIVE, NoRoute, Route
from shoestring.swarm.market.routing import find_route
from shoestring.swarm.market.sellers import LayerTimes, predict_home, predict_layers, sellers_of
from tests.swarm.markets import MODEL, all_routes, board_of, costs, requests, sellers

NOW = 1_800_000_000
ONE = Seller(id="one", first=0, end=4, most_layers=4, price_in=1000, price_out=1000,
             layer_s=1e-3, prompt_layer_s=1e-4, rtt_s=0.01)  # fmt: skip
WANTED = Request(model=MODEL, first=1, end=4, prompt_tokens=600, output_tokens=300)


def reason(request=WANTED, *, free=1, now_s=0.0, **changes):
    """Return why a seller has no part beside one that does all."""
    board = Board(MODEL, 8)
    board.put(ONE)
    board.set_free(board.put(replace(ONE, id="other", **changes)), free)
    route = find_route(board, request, now_s=now_s)
    return why_not(board, request, route, now_s=now_s).get("other")


@pytest.mark.parametrize(
    ("found", "begin"),
    [
        (lambda: reason(until_s=5.0, now_s=9.0), "expired"),
        (lambda: reason(end=1, most_layers=1), "privacy: it serves layers below 1 alone"),
        (lambda: reason(first=5, end=8), "no layers left: it begins at layer 5"),
        (lambda: reason(replace(WANTED, least_trust=0.5), trust=0.4), "no trust: 0.40"),
        (lambda: reason(free=0), "busy"),
        (
            lambda: reason(replace(WANTED, owners=frozenset({"me"})), owner="you"),
            "wrong owner: it is not linked here",
        ),
        (
            lambda: reason(replace(WANTED, prompt_tokens=1 << 24), prompt_layer_s=1e3),
            "too slow to begin: ",
        ),
        (lambda: reason(price_in=2000), "dominated by one"),
        (lambda: reason(price_in=9_000_000, price_out=9_000_000, layer_s=1e-4), "dearer"),
        (
            lambda: reason(
                replace(WANTED, max_price=9), price_in=9_000_000, price_out=9_000_000, layer_s=1e-4
            ),
            "too dear: at least",
        ),
        (lambda: reason(replace(WANTED, max_tpot_s=0.1), rtt_s=0.2, price_in=1), "too slow:"),
        (lambda: reason(replace(WANTED, max_ttft_s=1), rtt_s=1, price_in=1), "too slow to begin"),
    ],
)
def test_each_reason_has_its_words(found, begin):
    """One way to be left out, one line."""
    assert found().startswith(begin)


@given(sellers(), requests())
@settings(max_examples=150, deadline=None)
def test_who_is_too_dear_or_too_slow_is_on_no_route_within_the_limit(found, request):
    """Of all routes that there are; and everybody without a part has a reason."""
    board = board_of(found)
    route = find_route(board, request, effort=EXHAUSTIVE)
    reasons = why_not(board, request, route, now_s=0.0)
    taken = {hop.id for hop in route.hops} if isinstance(route, Route) else set()
    assert reasons.keys() | taken == {one.id for one in found}
    assert not reasons.keys() & taken
    for steps in all_routes(found, request):
        price, tpot_s, ttft_s = costs(steps, request)
        for one, _ in steps:
            said = reasons.get(one.id, "").split(":")[0]
            assert said != "too dear" or price > request.max_price
            assert said != "too slow" or tpot_s > request.max_tpot_s - 1e-7
            assert said != "too slow to begin" or ttft_s > request.max_ttft_s - 1e-7


def test_layers_that_nobody_sells_are_named():
    """By their numbers in the model."""
    board = Board(MODEL, 8)
    board.put(ONE)
    found = find_route(board, replace(WANTED, end=8))
    assert found == NoRoute("uncovered", (4, 5, 6, 7))
    assert no_route_text(found).startswith("nobody sells layers 4, 5, 6, 7")


@pytest.fixture(scope="module")
def quote(tmp_path_factory):
    """Return what a node sells."""
    node = load_identity(tmp_path_factory.mktemp("node") / "identity.key").id
    return Quote(
        node=node, number=1, model=MODEL, first=0, end=8, most_layers=4, price_in=1, price_out=2,
        layer_s=0.002, made_s=NOW, until_s=NOW + 60,
    )  # fmt: skip


def test_what_was_measured_goes_before_what_is_said_and_of_that_the_longer(quote):
    """Each time by itself: a claim that the device could not keep wins nothing."""
    predicted = {quote.node: LayerTimes(0.003, 0.0003)}
    rtt = Mean(0.01, 1.0, NOW)
    seen = {quote.node: Record(quote.node, rtt_s=rtt, good=1.0, judged_s=NOW)}
    [one], left = sellers_of([quote], MODEL, 8, seen, now_s=NOW, predicted=predicted)
    assert not left
    assert (one.rtt_s, one.layer_s, one.prompt_layer_s) == (0.01, 0.003, 0.0003)
    [slow], _ = sellers_of(
        [replace(quote, layer_s=0.007)], MODEL, 8, seen, now_s=NOW, predicted=predicted
    )
    assert slow.layer_s == 0.007
    assert one.trust == pytest.approx(2 / 3)
    seen = {quote.node: replace(seen[quote.node], layer_s={MODEL: Mean(0.005, 1.0, NOW)})}
    [one], _ = sellers_of([quote], MODEL, 8, seen, now_s=NOW, predicted=predicted)
    assert one.layer_s == 0.005
    fast = {quote.node: replace(seen[quote.node], layer_s={MODEL: Mean(0.001, 1.0, NOW)})}
    [one], _ = sellers_of([quote], MODEL, 8, fast, now_s=NOW, predicted=predicted)
    assert one.layer_s == 0.001


def test_an_owner_is_whom_a_node_is_linked_to_whatever_it_says(quote):
    """A quote's owner is a claim, and counts for nothing."""
    seen = {quote.node: Record(quote.node, rtt_s=Mean(0.01, 1.0, NOW))}
    spoken = replace(quote, owner=quote.node, prompt_layer_s=1e-4)
    [one], _ = sellers_of([spoken], MODEL, 8, seen, now_s=NOW)
    assert one.owner is None
    [one], _ = sellers_of([spoken], MODEL, 8, seen, now_s=NOW, owners={quote.node: "an owner"})
    assert one.owner == "an owner"


@pytest.mark.parametrize(
    ("changes", "given", "begin"),
    [
        ({"model": "shape:b:q4"}, {}, "wrong model: it sells shape:b:q4"),
        ({"end": 9}, {}, "wrong model: it quotes 9 layers"),
        ({"until_s": NOW + 5}, {"now_s": NOW + 9}, "expired"),
        ({}, {"measured": {}}, "unknown distance"),
        ({}, {"free": {}}, "silent"),
        ({}, {"excluded": True}, "excluded: found to cheat"),
        ({}, {"why_not": "its owner pauses"}, "closed: its owner pauses"),
        ({}, {"free": {}, "why_not": "it is too slow"}, "closed: it is too slow"),
        ({"layer_s": None}, {}, "unknown speed"),
    ],
)
def test_who_is_not_on_the_board_has_a_reason(quote, changes, given, begin):
    """Before any route is looked for."""
    rtt = {quote.node: Record(quote.node, rtt_s=Mean(0.01, 1.0, NOW))}
    found, left = sellers_of(
        [replace(quote, **changes)], MODEL, 8, given.get("measured", rtt),
        now_s=given.get("now_s", NOW), free=given.get("free"),
        excluded={quote.node} if "excluded" in given else (),
        why_not={quote.node: given["why_not"]} if "why_not" in given else None,
    )  # fmt: skip
    assert not found
    assert [one.why.startswith(begin) for one in left] == [True]


def test_the_planner_predicts_layers_where_it_knows_the_bandwidth():
    """More layers at home take longer there; an unknown device has no prediction."""
    device = Device(
        name="peer:a", kind="peer", title="a card", memory_bytes=1 << 34,
        bandwidth_bytes_per_s=3e11, compute_flops=1e13, generation="ampere",
        link_latency_s=0.01, link_bytes_per_s=None, source="a test", total_bytes=None,
    )  # fmt: skip
    outline, constants = outline_of_shape("llama-3.2-1b:q4_k_m"), load_constants()
    times = predict_layers(outline, device, constants)
    assert 0 < times.prompt_layer_s < times.layer_s < 0.01
    unknown = replace(device, bandwidth_bytes_per_s=None)
    assert predict_layers(outline, unknown, constants) is None
    few, more = (
        predict_home(outline, device, constants, layers=count, prompt_tokens=100)
        for count in (0, 4)
    )
    assert more.tpot_s - few.tpot_s == pytest.approx(4 * times.layer_s, rel=0.3)
    assert more.ttft_s > few.ttft_s > 0
