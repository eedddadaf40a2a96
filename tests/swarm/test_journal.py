"""What a stage keeps: its journal, the copy of the caches, and answers put together."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.swarm.boundaries import Carried
from shoestring.swarm.caches import Caches
from shoestring.swarm.gathering import Gatherer
from shoestring.swarm.journal import SPLITS, Entry, Journal, Reply
from shoestring.swarm.kept_bytes import MOST_RANGES, KeptBytes
from shoestring.swarm.tensors import NUMBER_OF_OP, NUMBER_OF_TYPE, TENSOR
from shoestring.swarm.weights import LEAST_BYTES, Weight
from shoestring.swarm.wire import (
    ALLOC,
    HEADER,
    TWO_U64,
    U32,
    U64,
    BadFrameError,
    Command,
    Frame,
    get_tensor,
    graph_compute,
    request,
    set_tensor_start,
)

ROW_BYTES, ROWS = 64, 32
BUFFER = 1
CACHE_AT, ROWS_AT, INPUT_AT = (BUFFER << 40) + 4096, (BUFFER << 40) + 64, (BUFFER << 40) + 128


def tensor(number, name, *, op="NONE", kind="F16", ne=(32, 32), data=0, src=(), view=0, offset=0):
    """Word a tensor."""
    size = {"F16": 2, "I64": 8, "F32": 4}[kind]
    made = np.zeros(1, TENSOR)
    made["id"], made["name"], made["op"] = number, name.encode(), NUMBER_OF_OP[op]
    made["type"], made["buffer"], made["data"] = NUMBER_OF_TYPE[kind], BUFFER, data
    made["ne"] = (*ne, 1, 1)
    made["nb"] = (size, size * ne[0], size * ne[0] * ne[1], size * ne[0] * ne[1])
    made["src"][0, : len(src)] = src
    made["view_src"], made["view_offs"] = view, offset
    return made.tobytes()


CACHE = tensor(1, "cache_k_l0", data=CACHE_AT)
READ = tensor(2, "cache_k_l0 (view)", op="VIEW", ne=(32, 8), data=CACHE_AT, src=(1,), view=1)
NUMBERS = tensor(3, "rows", kind="I64", ne=(2, 1), data=ROWS_AT)
WRITE = tensor(4, "w", op="SET_ROWS", data=CACHE_AT, src=(5, 3, 1), view=1)
INPUT = tensor(5, "in", ne=(32, 2), data=INPUT_AT)
GRAPH = graph_compute(0, [2, 4], [CACHE, READ, NUMBERS, WRITE, INPUT])


def set_rows(*numbers):
    """Say which rows are written."""
    body = np.array(numbers, "<i8").tobytes()
    return set_tensor_start(NUMBERS, 0, len(body)) + body


def set_input(fill):
    """Give the rows' content."""
    return set_tensor_start(INPUT, 0, 128) + bytes([fill]) * 128


class NoWeights:
    """A model without any."""

    def find(self, name, size):
        """Find none."""


class OneWeight:
    """A model with one weight of any name."""

    def __init__(self, data):
        """Hold it."""
        self.weight = Weight(memoryview(data))

    def find(self, _name, size):
        """Find it if the size is right."""
        return self.weight if size == len(self.weight.data) else None


def entries_of(data, weights=None, step=None):
    """Return the entries of a stream that comes in pieces."""
    gatherer = Gatherer(weights or NoWeights())
    pieces = [data[at : at + (step or len(data))] for at in range(0, len(data), step or len(data))]
    return [entry for piece in pieces for entry in gatherer.feed(piece, 0.0)]


def journal_of(data):
    """Return a journal of a stream."""
    journal = Journal()
    for entry in entries_of(data):
        journal.add(entry)
    return journal


def told(journal):
    """Return the commands that a fresh worker would be told."""
    return [Command(entry.frame.command).name for entry in journal.entries()]


def copied(caches, content):
    """Copy what is lacking; return what was asked for."""
    pieces = caches.pieces()
    caches.take(pieces, [content[one.start : one.start + one.size] for one in pieces])
    return [(one.start, one.size) for one in pieces]


def test_only_what_is_read_and_changed_is_copied():
    """Eight rows are read; afterwards, the rows that are written."""
    journal = journal_of(set_rows(0, 1) + GRAPH)
    caches = journal.caches
    content = bytes(range(256)) * 8
    assert copied(caches, content) == [(0, 8 * ROW_BYTES)]
    assert copied(caches, content) == []
    for entry in entries_of(set_rows(2, 3) + request(Command.GRAPH_RECOMPUTE, U32.pack(0))):
        journal.add(entry)
    assert copied(caches, bytes(2048)) == [(2 * ROW_BYTES, 2 * ROW_BYTES)]
    ((frame, body),) = caches.frames()
    assert body == content[:128] + bytes(128) + content[256:512]
    assert frame.start().endswith(CACHE + b"\0" + U64.pack(0))


def test_the_copy_tells_only_what_is_there_now():
    """What was never copied, or written since, it does not know; what is no cache neither."""
    caches = journal_of(set_rows(0, 1) + GRAPH).caches
    content = bytes(range(256)) * 8
    assert caches.include(CACHE_AT, 2048)
    assert not caches.include(CACHE_AT, 2049)
    assert caches.current(CACHE_AT, ROW_BYTES) is None
    copied(caches, content)
    assert caches.current(CACHE_AT + 100, 200) == content[100:300]
    assert caches.current(CACHE_AT, 8 * ROW_BYTES + 1) is None
    for entry in entries_of(set_rows(2, 3) + request(Command.GRAPH_RECOMPUTE, U32.pack(0))):
        caches.see(entry.frame, entry.body)
    assert caches.current(CACHE_AT, 2 * ROW_BYTES) == content[: 2 * ROW_BYTES]
    assert caches.current(CACHE_AT, 2 * ROW_BYTES + 1) is None
    assert caches.current(INPUT_AT, 4) is None


def test_rows_are_known_also_where_they_are_set_before_a_new_graph():
    """llama-server sets the inputs first, and their places change with the graph."""
    journal = journal_of(set_rows(0, 1) + GRAPH)
    copied(journal.caches, bytes(2048))
    elsewhere = tensor(3, "rows", kind="I64", ne=(1, 1), data=ROWS_AT + 16)
    data = set_tensor_start(elsewhere, 0, 8) + np.array([6], "<i8").tobytes()
    for entry in entries_of(
        data + graph_compute(0, [2, 4], [CACHE, READ, elsewhere, WRITE, INPUT])
    ):
        journal.add(entry)
    assert copied(journal.caches, bytes(2048)) == [(6 * ROW_BYTES, ROW_BYTES)]


def test_a_copy_outlives_a_graph_that_uses_the_cache_otherwise():
    """How often a graph uses a tensor is in its wording; what was copied is the same."""
    journal = journal_of(set_rows(0, 1) + GRAPH)
    copied(journal.caches, b"\1" * 2048)
    once = np.frombuffer(CACHE, TENSOR).copy()
    once["use_count"] = 7
    other = graph_compute(0, [2, 4], [once.tobytes(), READ, NUMBERS, WRITE, INPUT])
    journal.add(*entries_of(other))
    journal.condense(journal.mark)
    assert [body for _, body in journal.caches.frames()] == [b"\1" * 8 * ROW_BYTES]


def test_states_are_found_whatever_they_are_called():
    """What is written in place is copied whole."""
    state = tensor(1, "dsv4_state_kv_l3", data=CACHE_AT)
    view = tensor(2, "v", op="VIEW", data=CACHE_AT, src=(1,), view=1)
    step = tensor(6, "new", op="CPY", data=CACHE_AT, src=(5, 2), view=1)
    journal = journal_of(graph_compute(0, [2, 6], [state, view, step, INPUT]))
    assert copied(journal.caches, bytes(2048)) == [(0, 2048)]
    journal.add(*entries_of(request(Command.GRAPH_RECOMPUTE, U32.pack(0))))
    assert copied(journal.caches, bytes(2048)) == [(0, 2048)]


def test_inputs_of_former_graphs_are_forgotten():
    """Masks grow with the answer, and lie elsewhere in each graph."""
    grown = b"".join(
        set_tensor_start(tensor(9, "CPU#mask#0", ne=(size, 1), data=INPUT_AT + size), 0, size * 2)
        + bytes(size * 2)
        + GRAPH
        for size in range(32, 96)
    )
    journal = journal_of(set_rows(0, 1) + grown)
    copied(journal.caches, bytes(2048))
    journal.condense(journal.mark)
    masks = [one for one in journal.entries() if one.frame.head[228:237] == b"CPU#mask#"]
    assert len(masks) <= SPLITS + 1
    assert len(masks[-1].body) == 190


def test_two_inputs_of_one_name_are_two():
    """Caches of two kinds have rows of their own, and llama.cpp calls them alike."""
    rows = [tensor(3, "CPU#rows#0", kind="I64", ne=(2, 1), data=ROWS_AT + 16 * at) for at in (0, 1)]
    data = b"".join(set_tensor_start(one, 0, 16) + bytes(16) for one in rows)
    journal = journal_of(data + GRAPH)
    journal.condense(journal.mark)
    assert told(journal) == ["SET_TENSOR", "SET_TENSOR", "GRAPH_COMPUTE"]


def test_a_read_that_is_told_late_has_no_body():
    """Also where some of what it reads has come already."""
    carried = Carried((0, "l_out-1", b""), None, None, 1, 128, 1)
    (entry,) = entries_of(get_tensor(INPUT, 0, 128))
    carried.reply = entry.reply
    entry.reply.kept = bytearray(50)
    assert replace(entry, carried=carried).data == b""


def test_a_copy_that_did_not_come_is_asked_for_again():
    """Whoever was asked is lost."""
    caches = journal_of(set_rows(0, 1) + GRAPH).caches
    content = bytes(2048)
    copied(caches, content)
    for entry in entries_of(set_rows(5, 5) + GRAPH):
        caches.see(entry.frame, entry.body)
    lost = caches.pieces()
    caches.forget(lost)
    assert caches.pieces() == lost


@pytest.mark.parametrize(
    "data",
    [
        request(Command.BUFFER_CLEAR, U64.pack(BUFFER) + b"\0"),
        request(Command.MEMSET_TENSOR, CACHE + TWO_U64.pack(0, 2048) + b"\0"),
        set_tensor_start(CACHE, 0, 2048) + bytes(2048),
        graph_compute(
            0, [2, 4], [CACHE, READ, tensor(4, "shift", op="ROPE", data=CACHE_AT, src=(2,), view=1)]
        ),
    ],
    ids=["clear", "memset", "set", "in place"],
)
def test_what_changes_all_of_a_cache_is_copied_whole(data):
    """As far as it is read."""
    journal = journal_of(set_rows(0, 1) + GRAPH)
    copied(journal.caches, bytes(2048))
    for entry in entries_of(data):
        journal.add(entry)
    assert copied(journal.caches, bytes(2048)) == [(0, 8 * ROW_BYTES)]


def test_a_freed_cache_is_forgotten():
    """There is nothing to copy and nothing to set."""
    journal = journal_of(set_rows(0, 1) + GRAPH)
    copied(journal.caches, bytes(2048))
    journal.add(*entries_of(request(Command.FREE_BUFFER, U64.pack(BUFFER))))
    assert (journal.caches.pieces(), list(journal.caches.frames())) == ([], [])


def test_after_a_copy_only_what_lasts_is_told():
    """Buffers, the last of each input, the last graph, the copy, and what came after."""
    start = request(Command.HELLO, bytes(24)) + request(
        Command.ALLOC_BUFFER, ALLOC.pack(0, 1 << 20)
    )
    steps = b"".join(set_input(fill) + set_rows(fill, fill) + GRAPH for fill in range(5))
    journal = journal_of(start + steps)
    for entry in journal.entries():
        if entry.reply is not None:
            entry.reply.payload = bytes(entry.reply.size)
    mark = journal.mark
    copied(journal.caches, bytes(2048))
    for entry in entries_of(set_input(9) + request(Command.GRAPH_RECOMPUTE, U32.pack(0))):
        journal.add(entry)
    journal.condense(mark)
    before = ["HELLO", "ALLOC_BUFFER", "SET_TENSOR", "SET_TENSOR", "GRAPH_COMPUTE"]
    assert told(journal) == [*before, "SET_TENSOR", "SET_TENSOR", "GRAPH_RECOMPUTE"]
    inputs = [one.body[:1] for one in journal.entries() if len(one.body) == 128]
    assert inputs == [b"\4", b"\x09"]


def test_a_graph_is_told_after_the_last_inputs():
    """A worker that computed it on what happens to lie there could die of a row's number."""
    again = set_input(2) + set_rows(1, 1) + request(Command.GRAPH_RECOMPUTE, U32.pack(0))
    journal = journal_of(set_input(1) + set_rows(0, 0) + GRAPH + again)
    journal.condense(journal.mark)
    assert told(journal) == ["SET_TENSOR", "SET_TENSOR", "GRAPH_COMPUTE"]
    assert journal.entries()[0].body[:1] == b"\2"


def test_a_graph_that_the_worker_forgot_is_not_told_again():
    """A freed buffer clears them, and what was set in it went with it."""
    data = set_input(1) + set_rows(0, 1) + GRAPH + request(Command.FREE_BUFFER, U64.pack(BUFFER))
    journal = journal_of(data)
    journal.condense(journal.mark)
    assert told(journal) == ["FREE_BUFFER"]


def test_what_a_cache_was_copied_into_another_is_in_the_copy_for_a_recruit():
    """No graph has read it yet; from where it came may hold something else by then."""
    there = tensor(1, "cache_k_l0 (view)", ne=(32, 4), data=CACHE_AT + 16 * ROW_BYTES, view=1)
    journal = journal_of(set_rows(0, 1) + GRAPH + request(Command.COPY_TENSOR, READ + there))
    content = bytes(range(256)) * 5
    assert copied(journal.caches, content) == [(0, 20 * ROW_BYTES)]
    journal.condense(journal.mark)
    assert b"".join(entry.body for entry in journal.entries()).endswith(content)


def test_a_question_is_told_again_only_while_its_answer_is_owed():
    """It changes nothing."""
    journal = journal_of(set_input(1) + get_tensor(INPUT, 0, 128))
    assert told(journal) == ["SET_TENSOR", "GET_TENSOR"]
    reply = journal.entries()[-1].reply
    reply.payload = b""
    reply.fresh(0, bytes(128))
    assert told(journal) == ["SET_TENSOR"]


@given(st.data())
def test_an_answer_is_given_once_whoever_is_ahead(data):
    """Two say the same bytes in pieces of their own."""
    whole = bytes(range(200))
    frame = Frame(int(Command.GET_TENSOR), 312, bytearray(get_tensor(INPUT, 0, 200)[HEADER.size :]))
    reply = Reply(frame, 0.0)
    reply.payload = b""
    at, given_out = [0, 0], b""
    while min(at) < 200:
        who = data.draw(st.sampled_from([one for one in (0, 1) if at[one] < 200]))
        size = data.draw(st.integers(min(40, 200 - at[who]), 200 - at[who]))
        given_out += reply.fresh(at[who], whole[at[who] : at[who] + size])
        at[who] += size
        assert given_out == whole[: max(at)]
    assert reply.complete


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 50)), max_size=40))
def test_changed_bytes_are_never_missed(ranges):
    """However many ranges there are."""
    cache = KeptBytes()
    for start, size in ranges:
        cache.change(start, start + size)
        assert len(cache.changed) <= MOST_RANGES
    covered = {at for start, end in cache.changed for at in range(start, end)}
    assert covered >= {at for start, size in ranges for at in range(start, start + size)}


@given(st.integers(1, 5000))
def test_a_weight_of_the_file_is_not_kept(step):
    """What differs from the file in one byte is."""
    content = bytes(range(256)) * (LEAST_BYTES // 256)
    other = content[:-1] + b"\0"
    for body, is_weight in ((content, True), (other, False)):
        data = set_tensor_start(CACHE, 0, len(body)) + body + set_input(1)
        first, second = entries_of(data, OneWeight(content), step)
        assert (first.weight is not None, first.body) == (is_weight, b"" if is_weight else body)
        assert second.body == b"\1" * 128


def test_an_unknown_command_of_llama_server_is_an_error():
    """It is not the version that we know."""
    with pytest.raises(BadFrameError, match="unknown"):
        entries_of(request(99))


def test_entries_are_themselves_alone():
    """Two that say the same are two: a mark is one of them."""
    first, second = (Entry(Frame(int(Command.PING), 0, bytearray())) for _ in range(2))
    assert first != second


def test_no_caches_no_pieces():
    """Nothing was computed yet."""
    assert Caches().pieces() == []
