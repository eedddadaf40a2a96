"""What a session's frames come to: steps, tokens and layers, whatever a client calls them."""

import hashlib
import struct
from collections import OrderedDict

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.swarm.proof import graphs
from shoestring.swarm.proof.agreeing import FREE
from shoestring.swarm.proof.figures import Layers
from shoestring.swarm.proof.graphs import Seen, see_graph
from shoestring.swarm.proof.receipts import amount
from shoestring.swarm.proof.steps import MOST_PARTS
from shoestring.swarm.proof.tally import Tally
from shoestring.swarm.wire import Command, request, set_tensor_start
from tests.swarm.receipts import (
    AGAIN,
    PRICE,
    Drawing,
    Link,
    frame_of,
    graph,
    layers_of,
    parties_in,
    positions,
    read,
    tensor,
)

PROMPT = 512


@pytest.fixture(scope="module")
def parties(tmp_path_factory):
    """Client, node, and another."""
    return parties_in(tmp_path_factory.mktemp("parties"))


def counted(*frames):
    """Return figures and layers that frames come to."""
    tally = Tally()
    for said in frames:
        frame, body = frame_of(said)
        record = tally.note(frame)
        if body and record is not None:
            record.add(body)
            record.end()
    window = tally.window(tally.open_frames)
    return window.figures, window.layers


def tokens(*frames):
    """Return tokens in and out that frames come to."""
    figures, _ = counted(*frames)
    return figures.tokens_in, figures.tokens_out


def quietly(count):
    """Word positions so that nobody takes them for those of a step."""
    data = bytes(4 * count)
    return set_tensor_start(tensor("positions", kind="I32", ne=(count, 1, 1, 1)), 0, 4 * count) + (
        data
    )


def seen(drawing):
    """Return what a graph is seen to do."""
    return see_graph(frame_of(drawing.said())[0].head)


def test_one_position_of_a_step_is_output_and_the_others_are_input():
    """However many graphs a step takes."""
    prompt = positions(5), layers_of(0, 1, 5), layers_of(2, 3, 5)
    token = positions(1), layers_of(0, 1), layers_of(2, 3)
    assert tokens(*prompt, *token) == (4, 2)


def test_what_is_put_beside_a_position_costs_more(parties):
    """Nobody gains by a dummy, nor by taking the slots of several answers apart."""

    @given(st.lists(st.integers(1, 64), min_size=1, max_size=4), st.integers(0, 3))
    @settings(max_examples=60, deadline=None)
    def check(steps, which):
        def cost(counts):
            link = Link(*parties[:2], window_steps=32)
            for count in counts:
                link.tell(positions(count))
                link.tell(layers_of(0, 1, count))
            link.settle()
            return amount(link.here[-1].receipt)

        which %= len(steps)
        padded = [count + (at == which) for at, count in enumerate(steps)]
        assert cost(padded) >= cost(steps)
        apart = [*steps[:which], steps[which] - 1, 1, *steps[which + 1 :]]
        assert cost([count for count in apart if count]) >= cost(steps)

    check()


def test_a_graph_that_is_computed_again_is_a_step_whatever_was_set():
    """Positions by the name that counts are set once, and then by others."""
    again = [said for _ in range(64) for said in (quietly(PROMPT), AGAIN)]
    figures, _ = counted(positions(1), layers_of(0, 1, PROMPT), *again)
    assert figures.steps == 65
    assert (figures.tokens_in, figures.tokens_out) == (65 * (PROMPT - 1), 65)


def test_also_what_shows_no_weights_is_a_step_when_it_is_computed_again():
    """It has those positions that it rotates."""
    again = [quietly(PROMPT), AGAIN] * 3
    figures, _ = counted(positions(1), graph([0], rotates=PROMPT), *again)
    assert (figures.steps, figures.tokens_in) == (4, 4 * (PROMPT - 1))


@pytest.mark.parametrize("name", ["blk.{}", "w"])
def test_weights_that_are_used_again_make_a_step_whatever_was_set(name):
    """As a new graph instead of the same one again."""
    graphs = [quietly(PROMPT), layers_of(0, 1, PROMPT, name=name)] * 8
    figures, _ = counted(positions(1), *graphs)
    assert figures.steps == 8
    assert figures.tokens_in == 8 * (PROMPT - 1)


def test_a_later_graph_of_a_step_cannot_have_more_positions_for_nothing():
    """Other weights: the step is the same, and what it has more is paid."""
    assert tokens(positions(1), layers_of(0, 1), layers_of(2, 3, PROMPT)) == (PROMPT - 1, 1)


def test_graphs_without_an_end_are_steps():
    """Also those that show nothing."""
    figures, _ = counted(positions(1), *[graph([])] * (MOST_PARTS + 2))
    assert figures.steps == 2


def test_each_device_computes_its_own_graph_again():
    """A small graph on one does not hide a large one on another."""
    large, small = Drawing().layer(0, PROMPT), Drawing().layer(1, 1)
    again = request(Command.GRAPH_RECOMPUTE, bytes(4))
    assert tokens(positions(1), large.said(0), small.said(1), again) == (2 * (PROMPT - 1), 2)


def test_caches_that_are_moved_are_no_step():
    """What shifts the positions of a cache turns it in place and multiplies nothing."""
    shift = Drawing()
    shift.store("cache_k_l0", 1_010)
    shift.add("floats", op="CPY")
    shift.add("turned", op="ROPE", ne=(8, 4, 4096, 1))
    step = positions(1), layers_of(0, 1)
    assert tokens(*step, shift.said(), *step) == (0, 2)


@pytest.mark.parametrize("ops", [("MUL", "SUM_ROWS"), ("MUL", "ADD"), ("SSM_SCAN",)])
def test_a_pass_without_one_multiplication_of_matrices_is_a_step_too(ops):
    """Products can be worded as rows that are multiplied and summed; caches are written anew."""
    drawn = Drawing()
    for op in ops:
        drawn.add("worked", op=op, ne=(32, 32, 1, 1))
    drawn.add("turned", op="ROPE", ne=(8, 4, 9, 1))
    drawn.store("cache_k_l0", 1_010)
    figures, _ = counted(positions(1), layers_of(0, 1), *[drawn.said()] * 8)
    assert figures.steps == 9
    assert figures.tokens_in == 8 * (9 - 1)


def test_a_later_graph_without_matrices_has_its_positions_counted():
    """It writes nothing that was written: the step is the same, and what it has more is paid."""
    drawn = Drawing()
    drawn.add("worked", op="MUL")
    drawn.add("turned", op="ROPE", ne=(8, 4, PROMPT, 1))
    assert tokens(positions(1), layers_of(0, 1), drawn.said()) == (PROMPT - 1, 1)


def test_what_a_graph_does_is_believed_before_its_names(parties):
    """A client that calls a prompt one position pays for the prompt."""
    link = Link(*parties[:2])
    link.tell(positions(1))
    link.tell(graph([0, 1], rotates=PROMPT))
    link.settle()
    receipt = link.here[-1].receipt
    assert (receipt.figures.tokens_in, receipt.figures.tokens_out) == (PROMPT - 1, 1)
    assert receipt.layers == Layers(0, 1, computed=1)
    exact = (PROMPT - 1) * PRICE.price_in + PRICE.price_out
    assert amount(receipt) == -(-exact * 2 // 1_000_000)


@pytest.mark.parametrize("name", ["blk.{}", "blk.3", "w.3", ""])
def test_layers_are_those_that_are_computed(parties, name):
    """All under one name, or under none: each is paid."""
    link = Link(*parties[:2])
    link.tell(positions(1))
    link.tell(layers_of(0, 17, name=name))
    link.settle()
    receipt = link.here[-1].receipt
    assert receipt.layers.count == 18
    assert amount(receipt) == -(-18 * PRICE.price_out // 1_000_000)


def test_layers_of_one_step_are_counted_together_and_of_two_steps_are_not():
    """A step in several graphs goes through all of them."""
    halves = [layers_of(0, 3, name="w"), layers_of(4, 8, name="w")]
    assert counted(positions(1), *halves)[1].count == 9
    assert counted(positions(1), halves[0], positions(1), halves[1])[1].count == 5


@pytest.mark.parametrize(
    ("ops", "caches", "turns"),
    [
        (("FLASH_ATTN_EXT",), 2, 2),
        (("SOFT_MAX",), 2, 2),
        (("FLASH_ATTN_EXT", "SSM_CONV", "SSM_SCAN"), 4, 2),
        (("FLASH_ATTN_EXT", "LIGHTNING_INDEXER"), 2, 4),
        (("FLASH_ATTN_EXT", "FLASH_ATTN_EXT"), 2, 0),
        (("GATED_DELTA_NET",), 2, 0),
    ],
)
def test_no_model_is_taken_for_a_deeper_one(ops, caches, turns):
    """Dense, with states, with an index, with two attentions a layer, without rotations."""
    drawn = Drawing()
    for number in range(5):
        for part in range(13):
            drawn.multiply(f"blk.{number}.{part}.weight", 1_000 * (number + 1) + part, 1)
        for part in range(caches):
            drawn.store(f"cache_{part}_l{number}", 1_000 * (number + 1) + 100 + part)
        for _ in range(turns):
            drawn.add("turned", op="ROPE", ne=(8, 4, 1, 1))
        for op in ops:
            drawn.add("done", op=op)
    assert seen(drawn).depth <= 5
    assert counted(positions(1), drawn.said())[1].count == 5


def test_one_rotation_that_is_short_hides_no_prompt():
    """What most of the work has counts, where nothing is declared of it."""
    drawn = Drawing()
    drawn.add("turned", op="ROPE", ne=(8, 4, 1, 1))
    drawn.multiply("w", 7, PROMPT)
    assert tokens(positions(1), drawn.said()) == (PROMPT - 1, 1)


def test_heads_that_are_turned_by_a_small_matrix_are_no_positions():
    """As llama.cpp does where caches are quantised; nor is an output for fewer positions."""
    drawn = Drawing().layer(0, 9)
    drawn.multiply("output.weight", 900, 1, ne=(32, 48, 1, 1))
    drawn.multiply("turn", 901, 9 * 16, ne=(4, 4, 1, 1))
    assert seen(drawn).positions == 9


def test_a_products_positions_are_those_of_one_matrix():
    """Experts of a token are not, nor are heads with matrices of their own."""
    cases = [
        ({"op": "MUL_MAT_ID", "ne": (32, 32, 64, 1), "out": (32, 8, 9, 1)}, 9),
        ({"op": "MUL_MAT_ID", "ne": (32, 32, 64, 1), "out": (32, PROMPT, 1, 1)}, PROMPT // 32),
        ({"ne": (32, 32, 4, 1), "out": (32, 9, 4, 1)}, 9),
        ({"ne": (32, 32, 1, 1), "out": (32, 3, 3, 2)}, 18),
    ]
    for more, expected in cases:
        drawn = Drawing()
        drawn.multiply("w", 7, 0, **more)
        assert seen(drawn).positions == expected


def test_what_is_written_is_no_weight():
    """Keys are multiplied with, too: they are caches."""
    drawn = Drawing()
    cache = drawn.add("cache_k_l0", kind="F16", ne=(32, 64, 1, 1), data=5)
    drawn.add("stored", op="SET_ROWS", view=cache)
    keys = drawn.add("keys", op="PERMUTE", ne=(32, 64, 1, 1), view=cache)
    drawn.add("scores", op="MUL_MAT", ne=(64, 9, 8, 1), src=(keys,))
    assert seen(drawn) == Seen(caches=frozenset({5}), computes=True, multiplications=1)


@given(st.binary(max_size=900))
@settings(max_examples=150, deadline=None)
def test_a_graph_of_any_tensors_is_counted(said):
    """Whatever they say of each other; the firewall refuses most of them."""
    whole = bytes(said) * 3
    tensors = [whole[at : at + 296] for at in range(0, len(whole) - 295, 296)]
    drawn = Drawing()
    drawn.tensors = tensors
    what = seen(drawn)
    assert what.positions >= 0
    assert what.depth >= 0


def test_weights_and_caches_are_not_metered(parties):
    """However they come, the figures are the same."""
    link = Link(*parties[:2], price=FREE)
    link.tell(graph([3]))
    link.step()
    before = link.payer._frames
    link.tell(set_tensor_start(tensor("blk.3.attn_q.weight"), 0, 64) + bytes(64))
    link.tell(set_tensor_start(tensor("cache_k_l3"), 0, 64) + bytes(64))
    link.tell(request(Command.TAKE, tensor("blk.3.ffn_up.weight") + bytes(48)))
    link.tell(read("cache_k_l3", 64), answer=bytes(64))
    assert link.payer._frames == before


def test_what_a_graph_does_is_found_once_while_it_is_among_the_last(monkeypatch):
    """One that comes again stays; the one that was not seen for longest is forgotten."""
    looked = []
    real = graphs._see
    monkeypatch.setattr(graphs, "_kept", OrderedDict())
    monkeypatch.setattr(graphs, "_see", lambda one: looked.append(bytes(one)) or real(one))
    words = [frame_of(graph([layer]))[0].head for layer in range(graphs.KEPT + 1)]
    first = see_graph(words[0])
    for payload in [*words[1:-1], words[0], words[-1]]:
        see_graph(payload)
    assert len(looked) == graphs.KEPT + 1
    assert see_graph(words[0]) == first == real(words[0])
    assert len(looked) == graphs.KEPT + 1, "it was seen again before another was forgotten"
    see_graph(words[1])
    assert len(looked) == graphs.KEPT + 2


def test_a_leaf_is_of_the_head_and_of_what_its_data_hash_to():
    """``SHA-256(u8 command | u64 size | head | BLAKE3(data))``; of a graph all are data."""
    one, _ = frame_of(graph([3]))
    its = hashlib.sha256(struct.pack("<BQ", one.command, one.size) + blake3(one.head).digest())
    assert Tally().note(one).leaf == its.digest()

    one, body = frame_of(positions(2))
    words = struct.pack("<BQ", one.command, one.size) + one.head + blake3(body).digest()
    record = Tally().note(one)
    record.add(body)
    record.end()
    assert record.leaf == hashlib.sha256(words).digest()
