"""Streams of RPC cut into frames, wherever the network cuts them."""

import itertools

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.swarm.splitting import Answers, Splitter
from shoestring.swarm.tensors import NUMBER_OF_OP, OPS, TENSOR, TYPES, read_graph
from shoestring.swarm.wire import (
    ANSWERED,
    HEAD_BYTES,
    HEADER,
    TENSOR_BYTES,
    U64,
    WITH_DATA,
    Answer,
    BadFrameError,
    Command,
    Frame,
    get_tensor,
    graph_compute,
    request,
    set_tensor_start,
    tensor_name,
)
from shoestring.testing.rpc_frames import tensor, tensor_id

RECORD = tensor(8, 2, name=b"blk.0.attn_q")
ALL_SMALL = [request(command, bytes(size)) for command, size in HEAD_BYTES.items()]
STREAM = b"".join(
    [
        request(Command.HELLO, bytes(24)),
        set_tensor_start(RECORD, 0, 64) + bytes(range(64)),
        request(Command.SET_PACKED, RECORD + bytes(16) + b"zstd"),
        graph_compute(0, [tensor_id(RECORD)], [RECORD, RECORD]),
        get_tensor(RECORD, 0, 64),
        request(Command.DEVICE_COUNT),
        set_tensor_start(RECORD, 0, 0),
        request(Command.GRAPH_RECOMPUTE, bytes(4)),
    ]
)


def joined(pieces):
    """The frames of a stream, each with the whole of its body."""
    frames = []
    for piece in pieces:
        if isinstance(piece, bytes):
            frames[-1][1] += piece
        else:
            frames.append([piece, b""])
    return [(frame.command, frame.size, bytes(frame.head), body) for frame, body in frames]


def in_cuts(feed, stream, cuts):
    """What comes of a stream that arrives in pieces."""
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = []
    for begin, end in itertools.pairwise(edges):
        pieces += feed(stream[begin:end])
    return pieces


@given(st.lists(st.integers(0, 10_000), max_size=30))
def test_the_same_frames_come_of_any_cuts(cuts):
    """Where the network cuts a stream changes nothing."""
    splitter = Splitter()
    assert joined(in_cuts(splitter.feed, STREAM, cuts)) == joined(Splitter().feed(STREAM))
    assert splitter.whole


def test_bytes_one_by_one_give_the_same_frames():
    """The slowest network of all."""
    one_by_one = in_cuts(Splitter().feed, STREAM, range(len(STREAM)))
    assert joined(one_by_one) == joined(Splitter().feed(STREAM))


def test_what_is_split_makes_the_stream_again():
    """Nothing is lost and nothing added."""
    pieces = Splitter().feed(STREAM)
    assert b"".join(p if isinstance(p, bytes) else p.start() for p in pieces) == STREAM


def test_a_body_is_handed_out_as_it_was_read():
    """Data of a large tensor are neither collected nor copied."""
    splitter = Splitter()
    splitter.feed(set_tensor_start(RECORD, 0, 1000))
    chunk = bytes(500)
    assert splitter.feed(chunk)[0] is chunk
    assert not splitter.whole


def test_every_command_has_a_size_and_those_that_are_answered_an_answer():
    """The tables have no gap."""
    assert set(HEAD_BYTES) == set(Command) - {Command.GRAPH_COMPUTE, Command.SETTLE}
    silent = {"FREE_BUFFER", "BUFFER_CLEAR", "SET_TENSOR", "GRAPH_COMPUTE", "INIT_TENSOR",
              "GRAPH_RECOMPUTE", "MEMSET_TENSOR", "SET_PACKED", "SET_PUSHED"}  # fmt: skip
    assert {command.name for command in Command if command not in ANSWERED} == silent


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (HEADER.pack(18, 0), "command"),
        (HEADER.pack(0x7F, 8), "command"),
        (HEADER.pack(0x86, 8), "command"),
        (HEADER.pack(Command.SET_TENSOR, 2**64 - 1), "size"),
        (HEADER.pack(Command.SET_TENSOR, 304), "size"),
        (HEADER.pack(Command.GRAPH_COMPUTE, 11), "size"),
        (HEADER.pack(Command.GRAPH_COMPUTE, 2**40), "size"),
        (HEADER.pack(Command.GET_TENSOR, 313), "size"),
        (HEADER.pack(Command.SETTLE, 65), "size"),
        (HEADER.pack(Command.SETTLE, 8_193), "size"),
        (HEADER.pack(Command.HELLO, 2**63), "size"),
    ],
)
def test_an_impossible_frame_is_refused_by_its_header(header, reason):
    """A length of 2^64 - 1, which kills a bare worker, is seen before anything is kept."""
    with pytest.raises(BadFrameError) as caught:
        Splitter(bulk_bytes=1000).feed(header)
    assert caught.value.reason == reason
    with pytest.raises(BadFrameError):
        in_cuts(Splitter(bulk_bytes=1000).feed, header, [3, 7])


def test_bodies_have_a_bound():
    """The largest body passes, one byte more does not."""
    assert Splitter(bulk_bytes=1000).feed(set_tensor_start(RECORD, 0, 1000))
    with pytest.raises(BadFrameError, match="SET_TENSOR of 1306 bytes"):
        Splitter(bulk_bytes=1000).feed(set_tensor_start(RECORD, 0, 1001))


def asked(*requests):
    """Answers that wait for some requests, and a stream that answers them."""
    answers, stream = Answers(), b""
    for words in requests:
        (frame,) = Splitter().feed(words)
        answers.expect(frame)
        if frame.command in ANSWERED:
            size = 64 if frame.command in WITH_DATA else len(answer_payload(frame.command))
            stream += U64.pack(size) + answer_payload(frame.command)
    return answers, stream


def answer_payload(command):
    """Some answer of the right size."""
    sizes = {Command.GET_TENSOR: 64, Command.HELLO: 28, Command.ALLOC_BUFFER: 16}
    return bytes(range(sizes[command]))


REQUESTS = (
    request(Command.HELLO, bytes(24)),
    get_tensor(RECORD, 0, 64),
    request(Command.GRAPH_RECOMPUTE, bytes(4)),
    request(Command.ALLOC_BUFFER, bytes(12)),
    get_tensor(RECORD, 0, 64),
)


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_the_same_answers_come_of_any_cuts(cuts):
    """Data of GET_TENSOR come in parts, all other answers whole."""
    answers, stream = asked(*REQUESTS)
    pieces = in_cuts(answers.feed, stream, cuts)
    assert b"".join(p if isinstance(p, bytes) else p.start() for p in pieces) == stream
    assert [p.command for p in pieces if isinstance(p, Answer)] == [14, 8, 0, 8]
    assert answers.pending == 0


def test_an_answer_made_here_waits_for_its_turn():
    """It comes after the data that were asked for before it, and before what comes later."""
    answers, stream = asked(get_tensor(RECORD, 0, 64))
    assert answers.place(Command.SET_TENSOR_HASH, b"\0") == []
    assert answers.feed(stream[:20]) == [Answer(Command.GET_TENSOR, 64, b""), stream[8:20]]
    assert answers.feed(stream[20:]) == [stream[20:], Answer(Command.SET_TENSOR_HASH, 1, b"\0")]
    assert answers.place(Command.PING, bytes(8)) == [Answer(Command.PING, 8, bytes(8))]


@pytest.mark.parametrize("size", [0, 63, 65, 2**64 - 1])
def test_an_answer_of_another_size_is_refused(size):
    """A worker that says more or less than it was asked for is broken."""
    answers, _ = asked(get_tensor(RECORD, 0, 64))
    with pytest.raises(BadFrameError) as caught:
        answers.feed(U64.pack(size))
    assert caught.value.reason == "answer"


def test_an_answer_that_nobody_asked_for_is_refused():
    """A worker speaks when it was asked."""
    with pytest.raises(BadFrameError) as caught:
        Answers().feed(b"\1")
    assert caught.value.reason == "unasked"


def test_types_are_those_of_gguf():
    """Numbers, blocks and bytes agree with the package of ggml's authors."""
    known = {int(kind): (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGML_QUANT_SIZES}
    ours = {number: tuple(kind) for number, kind in TYPES.items()}
    # gguf still has the Q8_1 of two floats; in ggml-common.h they are two halves.
    shared = (known.keys() & ours.keys()) - {9}
    assert len(shared) > 30
    assert {n: ours[n] for n in shared} == {n: known[n] for n in shared}


def test_operations_have_ggmls_numbers():
    """Read in ``ggml.h``; a list that has lost or won a name shifts all that follow."""
    assert len(OPS) == 101
    assert [NUMBER_OF_OP[name] for name in ("MUL_MAT", "ROPE", "CUSTOM", "GLU")] == [
        29,
        48,
        95,
        100,
    ]


def test_a_tensor_has_the_workers_layout():
    """As ``struct rpc_tensor`` lies in memory."""
    assert TENSOR.itemsize == TENSOR_BYTES
    fields = {name: TENSOR.fields[name][1] for name in ("buffer", "op", "src", "data", "name")}
    assert fields == {"buffer": 12, "op": 52, "src": 124, "data": 220, "name": 228}
    assert tensor_name(RECORD) == "blk.0.attn_q"
    assert tensor_name(b"xx" + RECORD, 2) == "blk.0.attn_q"


def test_a_graph_is_read_where_it_lies():
    """What is written to its tensors stands in the frame."""
    (frame,) = Splitter().feed(graph_compute(3, [tensor_id(RECORD)], [RECORD]))
    graph = read_graph(frame.head)
    assert (graph.device, graph.nodes.tolist()) == (3, [tensor_id(RECORD)])
    graph.tensors["data"] = 77
    assert read_graph(frame.head).tensors["data"].tolist() == [77]


@given(st.binary(min_size=12, max_size=2000))
def test_any_bytes_are_a_graph_or_refused(payload):
    """Counts that do not fit the length are no reason to fail otherwise."""
    try:
        graph = read_graph(bytearray(payload))
    except BadFrameError:
        return
    assert len(payload) == 12 + 8 * len(graph.nodes) + 296 * len(graph.tensors)


def test_a_graph_shorter_than_its_counts_is_refused():
    """2^32 - 1 nodes in 12 bytes."""
    with pytest.raises(BadFrameError, match="a graph of 4294967295 nodes in 12 bytes"):
        read_graph(bytearray(bytes(4) + b"\xff" * 4 + bytes(4)))


def test_frames_of_all_commands_pass():
    """One after the other, each of its size."""
    frames = [piece for piece in Splitter().feed(b"".join(ALL_SMALL)) if isinstance(piece, Frame)]
    assert [frame.command for frame in frames] == list(HEAD_BYTES)
