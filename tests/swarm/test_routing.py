"""The route that is found is the best of all routes, and says why where there is none."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.market.beginnings import UNITS
from shoestring.swarm.market.board import MOST_PRICE, Board, Seller
from shoestring.swarm.market.bounds import Relaxation
from shoestring.swarm.market.chains import least_score
from shoestring.swarm.market.costs import costs_of
from shoestring.swarm.market.reasons import no_route_text
from shoestring.swarm.market.requests import Request
from shoestring.swarm.market.routes import EXHAUSTIVE, Effort, Need, NoRoute, Route
from shoestring.swarm.market.routing import find_route, front
from shoestring.swarm.market.shortlist import Shortlist
from shoestring.swarm.market.view import limits_of, weights_of
from shoestring.swarm.market.ways import Ways
from tests.swarm.markets import (
    MODEL,
    all_routes,
    best_score,
    board_of,
    costs,
    requests,
    score,
    sellers,
)


def near(value):
    """Compare as nanoseconds allow."""
    return pytest.approx(value, rel=1e-6, abs=1e-6)


def ways_of(board, known):
    """Put what is known of pairs of ids into slots."""
    slots = board.slots()
    return Ways({tuple(slots[name] for name in pair): time for pair, time in known.items()})


@st.composite
def known_ways(draw, found):
    """Draw round trips of some pairs, in seconds by ids."""
    pairs = [frozenset((a.id, b.id)) for a in found for b in found if a.id < b.id]
    return {pair: draw(st.integers(0, 40)) * 1e-3 for pair in pairs if draw(st.booleans())}


def check_like_all(found, request, *, known=None, effort=EXHAUSTIVE):
    """Compare the route that is found with all that there are."""
    board = board_of(found)
    ways = None if known is None else ways_of(board, known)
    route = find_route(board, request, ways=ways, effort=effort)
    best = best_score(found, request, known)
    if isinstance(route, NoRoute):
        assert best is None
        assert route.why != "unproven"
        return route
    by_id = {one.id: one for one in found}
    steps = tuple((by_id[hop.id], hop.end - hop.first) for hop in route.hops)
    assert [hop.first for hop in route.hops] == [request.first, *(h.end for h in route.hops[:-1])]
    assert steps in set(all_routes(found, request))
    price, tpot_s, ttft_s = costs(steps, request, known)
    assert (route.price, route.tpot_s, route.ttft_s) == (price, near(tpot_s), near(ttft_s))
    assert sum(hop.price for hop in route.hops) == price
    assert score(price, tpot_s, request) == near(best)
    assert route.above == pytest.approx(0, abs=1e-9)
    return route


@given(sellers(), requests())
@settings(max_examples=400, deadline=None)
def test_the_route_of_a_star_is_the_best_of_all(found, request):
    """No limit is broken, and nothing within the limits is better, by the definition alone."""
    check_like_all(found, request)


@given(st.data(), sellers(), requests())
@settings(max_examples=300, deadline=None)
def test_the_route_of_a_chain_is_the_best_of_all(data, found, request):
    """Likewise where some ways between nodes are known."""
    check_like_all(found, request, known=data.draw(known_ways(found)))


EFFORTS = st.builds(
    Effort,
    nodes=st.integers(1, 4), labels=st.integers(1, 6), first_labels=st.just(1),
    chains=st.integers(1, 3), chain_labels=st.sampled_from((0, 1, 4)),
)  # fmt: skip


@given(st.data(), sellers(), requests(), EFFORTS)
@settings(max_examples=400, deadline=None)
def test_a_chain_is_never_worse_than_the_star(data, found, request, effort):
    """Ways between nodes only shorten: where a star has a route, a chain has one as good."""
    board, known = board_of(found), data.draw(known_ways(found))
    star = find_route(board, request, effort=effort)
    chain = find_route(board, request, ways=ways_of(board, known), effort=effort)
    if isinstance(star, Route):
        assert isinstance(chain, Route)
        scores = [score(one.price, one.tpot_s, request) for one in (chain, star)]
        assert scores[0] <= scores[1] * (1 + 1e-9) + 1e-6


@given(st.data(), sellers(), requests(), EFFORTS)
@settings(max_examples=400, deadline=None)
def test_a_short_search_of_chains_never_claims_more_than_it_proved(data, found, request, effort):
    """Its route is what it says it is, and the best of all routes is not below the bound."""
    board, known = board_of(found), data.draw(known_ways(found))
    route = find_route(board, request, ways=ways_of(board, known), effort=effort)
    best = best_score(found, request, known)
    if isinstance(route, NoRoute):
        assert (best is None) or route.why == "unproven"
        return
    by_id = {one.id: one for one in found}
    steps = tuple((by_id[hop.id], hop.end - hop.first) for hop in route.hops)
    assert steps in set(all_routes(found, request))
    price, tpot_s, ttft_s = costs(steps, request, known)
    assert (route.price, route.tpot_s, route.ttft_s) == (price, near(tpot_s), near(ttft_s))
    its = score(price, tpot_s, request)
    assert best >= its * (1 - route.above) * (1 - 1e-6) - 1e-6


@given(st.data(), sellers(), requests(), st.floats(0, 50))
@settings(max_examples=300, deadline=None)
def test_no_chain_scores_less_than_its_bound(data, found, request, dearest):
    """Whatever a layer may cost at most."""
    free = replace(request, max_price=None, max_tpot_s=None, max_ttft_s=None, prefer="price")
    board, known = board_of(found), data.draw(known_ways(found))
    best = best_score(found, free, known)
    if best is not None:
        slots = board.usable(free, 0)
        costs_there = costs_of(board, free, slots, ways=ways_of(board, known))
        assert least_score(costs_there, free.layers, weights_of(free), dearest) <= best + 1e-6


@given(sellers(), requests())
@settings(max_examples=200, deadline=None)
def test_no_route_within_the_limits_scores_below_their_bounds(found, request):
    """Nor takes it less of all limits together than is said, nor more than the whole."""
    best, limits = best_score(found, request), limits_of(request) / UNITS
    if best is None or not np.isfinite(limits).any():
        return
    board = board_of(found)
    relaxation = Relaxation(costs_of(board, request, board.usable(request, 0)), request.layers)
    assert not relaxation.hopeless(limits)
    assert relaxation.strain(limits).floor <= 1 + 1e-9
    for aim in (1.0, 0.5):
        bounds = relaxation.bounds(weights_of(request), limits, aim=aim)
        assert bounds.floor <= best + 1e-6 * max(1.0, best)


def test_far_nodes_near_to_each_other_make_a_chain():
    """All are far from here, but in one room a token goes from one to the next in no time."""
    board = board_of_many(40)
    rooms = [board.put(
        Seller(id=f"room {number}", first=0, end=24, most_layers=4, price_in=900, price_out=2900,
               layer_s=1e-3, prompt_layer_s=1e-4)
    ) for number in range(6)]  # fmt: skip
    request, rtt_ns = request_of(prefer="latency", first=0), np.full(len(board), 100_000_000)
    ways = Ways(dict.fromkeys(itertools.combinations(rooms, 2), 1e-3))
    chain = find_route(board, request, ways=ways, rtt_ns=rtt_ns)
    assert {hop.slot for hop in chain.hops} == set(rooms)
    assert chain.tpot_s == near(0.1 + 5 * 0.5e-3 + 24e-3)
    # Who is the first and who the last matters: the way home is from them.
    rtt_ns[[rooms[0], rooms[3]]] = 80_000_000
    chain = find_route(board, request, ways=ways, rtt_ns=rtt_ns)
    assert {chain.hops[0].slot, chain.hops[-1].slot} == {rooms[0], rooms[3]}


def board_of_many(count, *, layers=24):
    """Put sellers on a board whose prices and speeds follow their number."""
    board = Board(MODEL, layers)
    for number in range(count):
        first = 0 if number % 2 else number * 7 % (layers - 4)
        board.put(
            Seller(
                id=f"node {number}", first=first, end=min(layers, first + 12 + number % 13),
                most_layers=3 + number * 5 % 9, price_in=1000 + number * 37 % 997,
                price_out=3000 + number * 91 % 2999, layer_s=1e-3 * (1 + number * 13 % 17 / 5),
                prompt_layer_s=1e-4, rtt_s=1e-3 * (2 + number * 29 % 61),
            )
        )  # fmt: skip
    return board


def request_of(**changes):
    """Return a request for all layers but the first."""
    whole = {"model": MODEL, "first": 1, "end": 24, "prompt_tokens": 600, "output_tokens": 300}
    return Request(**{**whole, **changes})


@given(sellers(), requests(), st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_a_short_search_never_claims_more_than_it_proved(found, request, nodes, labels):
    """The best of all routes is not below the bound, and no route is found where there is none."""
    route = find_route(board_of(found), request, effort=Effort(nodes, labels, 1))
    best = best_score(found, request)
    if isinstance(route, NoRoute):
        assert (best is None) or route.why == "unproven"
    else:
        its = score(route.price, route.tpot_s, request)
        assert best is not None
        assert best >= its * (1 - route.above) * (1 - 1e-6) - 1e-6
        assert its >= best * (1 - 1e-6) - 1e-6


@given(sellers(), requests())
@settings(max_examples=150, deadline=None)
def test_what_is_said_to_help_helps(found, request):
    """A request whose limit is raised to what was said has a route, and with less has none."""
    board = board_of(found)
    refused = find_route(board, request, effort=EXHAUSTIVE)
    if isinstance(refused, Route):
        return
    for need in refused.needs:
        if need.least is not None:
            eased = replace(request, **{need.limit: need.least})
            assert isinstance(find_route(board, eased, effort=EXHAUSTIVE), Route)
            if need.least > 1e-3:
                less = need.least - (1 if need.limit == "max_price" else 1e-5)
                again = replace(request, **{need.limit: less})
                assert isinstance(find_route(board, again, effort=EXHAUSTIVE), NoRoute)


def test_the_front_goes_from_the_cheapest_to_the_fastest_and_nothing_beats_it():
    """Each point is dearer and faster than the one before; both ends are the best of their kind."""
    board, request = board_of_many(60), request_of(max_ttft_s=5.0)
    points = front(board, request)
    assert len(points) > 2
    assert all(a.price < b.price and a.tpot_s > b.tpot_s
               for a, b in itertools.pairwise(points))  # fmt: skip
    assert points[0].price == find_route(board, request).price
    fastest = find_route(board, replace(request, prefer="latency"))
    assert points[-1].tpot_s == fastest.tpot_s


def test_the_same_board_gives_the_same_route():
    """Nothing is drawn by chance."""
    routes = {find_route(board_of_many(80), request_of(max_tpot_s=0.1)) for _ in range(3)}
    assert len(routes) == 1


def test_near_nodes_are_taken_only_where_they_are_faster():
    """Five on one network, five far away: near ones first, but not a slow one that is near."""
    board = Board(MODEL, 24)
    for number in range(10):
        near_by = number < 5
        board.put(
            Seller(
                id=f"{'near' if near_by else 'far'} {number}", first=0, end=24, most_layers=6,
                price_in=1000, price_out=1000, layer_s=0.05 if number == 0 else 1e-3,
                prompt_layer_s=1e-4, rtt_s=1e-3 if near_by else 0.04,
            )
        )  # fmt: skip
    route = find_route(board, request_of(first=0, prefer="latency"))
    assert sorted(hop.id for hop in route.hops) == ["near 1", "near 2", "near 3", "near 4"]
    route = find_route(board, request_of(first=0, prefer="latency", end=24, max_tpot_s=1))
    assert "near 0" not in {hop.id for hop in route.hops}


def test_a_board_changes_one_seller_at_a_time():
    """Who is busy, dearer, gone, or back is seen by the next route."""
    board = Board(MODEL, 4)
    one = Seller(id="one", first=0, end=4, most_layers=4, price_in=1, price_out=1, layer_s=1e-3,
                 prompt_layer_s=1e-4)  # fmt: skip
    slots = [board.put(replace(one, id=name)) for name in ("one", "two")]
    board.set_price(slots[1], 5_000, 5_000)
    request = request_of(first=0, end=4)

    def taken():
        return [hop.id for hop in find_route(board, request).hops]

    assert taken() == ["one"]
    board.set_free(slots[0], 0)
    assert taken() == ["two"]
    board.set_free(slots[0], 1)
    board.set_price(slots[0], 50_000, 50_000)
    assert taken() == ["two"]
    board.remove("two")
    assert taken() == ["one"]
    assert board.put(replace(one, id="three")) == slots[1]
    assert taken() == ["three"]
    assert board.slots() == {"one": 0, "three": 1}
    board.remove("nobody")
    assert taken() == ["three"]


def test_a_board_grows_without_end_and_keeps_its_slots():
    """More sellers than there was room for at first."""
    board = board_of_many(500)
    assert [board.seller(slot).id for slot in (0, 63, 64, 499)] == [
        "node 0", "node 63", "node 64", "node 499",
    ]  # fmt: skip
    assert len(board.column("price_in")) == 500


@pytest.mark.parametrize("changes", [{"prompt_layer_s": 1_000.0}, {"rtt_s": 1_000.0}])
@pytest.mark.parametrize("tokens", [131_072, 1 << 24])
def test_no_time_is_so_long_that_it_counts_as_none(changes, tokens):
    """Eighty layers at the slowest there can be break any limit, and are refused without one."""
    slow = Seller(id="slow", first=0, end=80, most_layers=80, price_in=1, price_out=1,
                  layer_s=1e-3, prompt_layer_s=1e-6)  # fmt: skip
    board = Board(MODEL, 80)
    board.put(replace(slow, **changes))
    request = request_of(first=0, end=80, prompt_tokens=tokens, output_tokens=1)
    assert isinstance(find_route(board, replace(request, max_ttft_s=86_400.0)), NoRoute)
    board.put(replace(slow, id="fast"))
    found = find_route(board, replace(request, max_ttft_s=86_400.0))
    assert [hop.id for hop in found.hops] == ["fast"]
    assert found.ttft_s == near(80 * 1e-6 * tokens)


@given(st.lists(st.sampled_from((0.0, 1e-9, 1.0, 64.0, 1_000.0)), min_size=9, max_size=9))
@settings(max_examples=100, deadline=None)
def test_sums_of_extremes_are_the_true_ones(times):
    """Of the dearest, slowest and furthest sellers, of the largest model and request."""
    layers = 1_024
    board = Board(MODEL, layers)
    for number in range(3):
        layer_s, prompt_layer_s, rtt_s = times[3 * number : 3 * number + 3]
        board.put(Seller(
            id=f"{number}", first=0, end=layers, most_layers=400, price_in=MOST_PRICE,
            price_out=MOST_PRICE, layer_s=layer_s, prompt_layer_s=prompt_layer_s, rtt_s=rtt_s,
        ))  # fmt: skip
    request = request_of(first=0, end=layers, prompt_tokens=1 << 24, output_tokens=1 << 24)
    found = find_route(board, request)
    if isinstance(found, NoRoute):
        return
    sold = [(board.seller(hop.slot), hop.end - hop.first) for hop in found.hops]
    assert found.price == layers * 2 * (1 << 24) * MOST_PRICE // 1_000_000 > 0
    assert found.tpot_s == near(sum(one.rtt_s + count * one.layer_s for one, count in sold))
    assert found.ttft_s == near(sum(
        one.rtt_s * (1 << 15) + count * one.prompt_layer_s * (1 << 24) for one, count in sold
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"end": 9}, "layers 0 to 9"), ({"most_layers": 0}, "most_layers"),
     ({"price_in": -1}, "price_in"), ({"layer_s": float("nan")}, "layer_s"),
     ({"trust": 2.0}, "trust")],
)  # fmt: skip
def test_a_seller_that_cannot_be_is_refused(changes, why):
    """The board stays as it was; the message names the seller and the value."""
    one = Seller(id="one", first=0, end=4, most_layers=4, price_in=1, price_out=1, layer_s=1e-3,
                 prompt_layer_s=1e-4)  # fmt: skip
    board = Board(MODEL, 4)
    with pytest.raises(BadValueError, match=why):
        board.put(replace(one, **changes))
    assert len(board) == 0


@pytest.mark.parametrize(
    "changes",
    [{"end": 1}, {"prompt_tokens": 0}, {"max_price": -1}, {"max_tpot_s": float("nan")},
     {"least_trust": 2}, {"prefer": "luck"}],
)  # fmt: skip
def test_a_request_that_cannot_be_is_refused(changes):
    """Each in one line."""
    with pytest.raises(BadValueError):
        request_of(**changes)


def test_a_board_of_another_model_is_not_routed_over():
    """Layers of one model are none of another's."""
    with pytest.raises(BadValueError, match="this board is of"):
        find_route(board_of_many(3), request_of(model="shape:b:q4"))


@given(sellers(), requests())
@settings(max_examples=150, deadline=None)
def test_a_shortlist_gives_routes_within_the_limits(found, request):
    """Whatever it finds could be had, and is not better than the best."""
    board = board_of(found)
    route = Shortlist(board, request).route()
    if isinstance(route, Route):
        by_id = {one.id: one for one in found}
        steps = tuple((by_id[hop.id], hop.end - hop.first) for hop in route.hops)
        assert steps in set(all_routes(found, request))
        price, tpot_s, ttft_s = costs(steps, request)
        assert (route.price, route.tpot_s, route.ttft_s) == (price, near(tpot_s), near(ttft_s))
        best = best_score(found, request)
        assert best is not None
        assert score(price, tpot_s, request) >= best * (1 - 1e-6) - 1e-6
        assert route.above is None


def test_a_shortlist_takes_others_when_its_best_are_busy():
    """Who is free is asked of the board each time."""
    board = board_of_many(80)
    listed = Shortlist(board, request_of())
    first = listed.route()
    for hop in first.hops:
        board.set_free(hop.slot, 0)
    second = listed.route()
    assert isinstance(second, Route)
    assert not {hop.id for hop in first.hops} & {hop.id for hop in second.hops}


def test_a_shortlist_knows_whom_it_lists_whoever_has_their_slot():
    """Who left is not taken, nor is who came to that place, with other layers and prices."""
    board = Board(MODEL, 24)
    cheap = Seller(id="cheap", first=0, end=24, most_layers=24, price_in=1, price_out=1,
                   layer_s=1e-3, prompt_layer_s=1e-4)  # fmt: skip
    slot = board.put(cheap)
    board.put(replace(cheap, id="dear", price_in=9_000, price_out=9_000))
    listed = Shortlist(board, request_of())
    assert [hop.id for hop in listed.route().hops] == ["cheap"]
    board.remove("cheap")
    assert board.put(replace(cheap, id="newcomer", end=2, most_layers=1)) == slot
    assert [hop.id for hop in listed.route().hops] == ["dear"]


def test_what_would_help_is_only_called_the_least_where_that_is_proven():
    """Else a route would do that was found; and what was not found may be there all the same."""
    hopeless = request_of(max_price=1, max_tpot_s=1e-6)
    found = find_route(board_of_many(12), hopeless, effort=EXHAUSTIVE)
    assert [(one.least, one.proven) for one in found.needs] == [(None, True)] * 2
    assert no_route_text(found).endswith("no single limit helps, ease two")
    need = Need("max_price", 7, proven=False)
    told = no_route_text(NoRoute("limits", needs=(need,)))
    assert "a route costs 0.000007 credits, raise --max-price to 0.000007" in told
    told = no_route_text(NoRoute("limits", needs=(replace(need, proven=True),)))
    assert "the cheapest route costs" in told
    told = no_route_text(NoRoute("limits", needs=(replace(need, least=None),)))
    assert "none was found with any one limit eased" in told


@given(sellers(), requests(), EFFORTS)
@settings(max_examples=200, deadline=None)
def test_a_need_is_proven_only_where_it_is_so(found, request, effort):
    """However short the search was: nothing less helps, or nothing at all."""
    board = board_of(found)
    refused = find_route(board, request, effort=effort)
    if isinstance(refused, Route):
        return
    for need in (one for one in refused.needs if one.proven):
        if need.least is None:
            assert best_score(found, replace(request, **{need.limit: None})) is None
        elif need.least > 1e-3:
            less = need.least * (1 - 1e-5) - (1 if need.limit == "max_price" else 1e-5)
            assert less < 0 or best_score(found, replace(request, **{need.limit: less})) is None


def test_round_trips_are_those_of_who_asks():
    """The same board seen from two places gives two routes."""
    board = board_of_many(40)
    far = board.column("rtt_ns").copy()
    nearest = find_route(board, request_of(prefer="latency"))
    far[[hop.slot for hop in nearest.hops]] = 900_000_000
    other = find_route(board, request_of(prefer="latency"), rtt_ns=far)
    assert not {hop.id for hop in nearest.hops} & {hop.id for hop in other.hops}
