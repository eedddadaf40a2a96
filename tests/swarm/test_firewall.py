"""The firewall of a session: what passes, with which addresses, and every attack that is known."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.swarm.buffers import ForbiddenFrameError
from shoestring.swarm.firewall import Firewall, Rules
from shoestring.swarm.firewall_shapes import RULES as SHAPES
from shoestring.swarm.tensors import TENSOR, read_graph
from shoestring.swarm.wire import (
    ALLOC,
    GRAPH_LEAST_BYTES,
    HEAD_BYTES,
    TENSOR_BYTES,
    TWO_U64,
    U32,
    U64,
    BadFrameError,
    Command,
    Frame,
)
from shoestring.testing.rpc_frames import (
    BASE,
    BUFFER_BYTES,
    HELLO_ANSWER,
    IDS,
    MIB,
    POINTER,
    RULES,
    Worker,
    address,
    changed,
    frame,
    getting,
    graph,
    mutate,
    open_session,
    setting,
    stray,
    tensor,
    tensor_id,
)

A = tensor(64, 8)
LAST = tensor(64, offset=BUFFER_BYTES - 256)
END = BUFFER_BYTES - 4


def refused(firewall, asked):
    """The word by which a frame is refused."""
    with pytest.raises(ForbiddenFrameError) as caught:
        firewall.request(asked)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def free(number):
    """A FREE_BUFFER."""
    return frame(Command.FREE_BUFFER, U64.pack(number))


def alloc(size, device=0):
    """An ALLOC_BUFFER."""
    return frame(Command.ALLOC_BUFFER, ALLOC.pack(device, size))


def recompute(device=0):
    """A GRAPH_RECOMPUTE."""
    return frame(Command.GRAPH_RECOMPUTE, U32.pack(device))


def room(record, *sources):
    """A GET_ALLOC_SIZE."""
    records = b"".join([record, *sources]).ljust(11 * TENSOR_BYTES, b"\0")
    return frame(Command.GET_ALLOC_SIZE, bytes(4) + records)


# What passes


def test_addresses_become_the_workers():
    """Number and offset of the client, pointer and address of the worker."""
    firewall, _ = open_session()
    asked = setting(tensor(64, buffer=2, offset=512), offset=8, body=16)
    assert firewall.request(asked).to == "worker"
    record = np.frombuffer(bytes(asked.head[:TENSOR_BYTES]), TENSOR)[0]
    assert record["buffer"] == POINTER + (1 << 32)
    assert record["data"] == BASE + (1 << 32) + 512


def test_the_client_learns_numbers_only():
    """Neither the pointer nor the address of a buffer goes back."""
    firewall, _ = open_session(buffers=0)
    firewall.request(alloc(4096))
    assert firewall.waits
    said = firewall.answer(Command.ALLOC_BUFFER, TWO_U64.pack(POINTER, 4096))
    assert TWO_U64.unpack(said) == (1, 4096)
    asked = frame(Command.BUFFER_GET_BASE, U64.pack(1))
    firewall.request(asked)
    assert bytes(asked.head) == U64.pack(POINTER)
    said = firewall.answer(Command.BUFFER_GET_BASE, U64.pack(BASE))
    assert said == U64.pack(1 << 40)
    assert not firewall.waits


def test_the_last_byte_of_a_buffer_can_be_used():
    """Bounds are neither a byte too narrow nor too wide."""
    firewall, _ = open_session()
    assert firewall.request(getting(LAST, offset=252, size=4)).to == "worker"
    assert refused(firewall, getting(LAST, offset=253, size=4)) == "bounds"
    assert refused(firewall, getting(tensor(65, offset=BUFFER_BYTES - 256))) == "bounds"


def test_a_graph_passes_with_all_its_addresses_changed():
    """Sources, views and results of what a layer is made of."""
    firewall, worker = open_session()
    weights, x = tensor(64, 8, kind="Q8_0"), tensor(64, 2, offset=4096)
    product = tensor(8, 2, buffer=2, op="MUL_MAT", src=(weights, x))
    half = tensor(4, 2, buffer=2, offset=16, nb=(4, 32, 64, 64), op="VIEW", src=(product,),
                  view=product, view_offs=16)  # fmt: skip
    packed = tensor(4, 2, buffer=2, offset=512, op="CONT", src=(half,))
    asked = graph(weights, x, product, half, packed)
    firewall.request(asked)
    assert stray(asked, list(worker.buffers.values())) is None
    pointers = read_graph(asked.head).tensors["buffer"].tolist()
    assert pointers == [POINTER, POINTER, *[POINTER + (1 << 32)] * 3]
    assert firewall.request(recompute()).to == "worker"


def test_a_tensor_that_nothing_reads_may_lie_in_no_buffer():
    """So llama.cpp words what belongs to another server."""
    firewall, worker = open_session()
    elsewhere = tensor(64, buffer=0)
    asked = graph(elsewhere, A, tensor(64, 8, buffer=2, op="SQR", src=(A,)))
    firewall.request(asked)
    assert stray(asked, list(worker.buffers.values())) is None


def test_the_room_of_a_tensor_is_asked_without_addresses():
    """Its sources may lie on another server, under a number that is another buffer's here."""
    firewall, _ = open_session()
    other = tensor(2**20, buffer=2)
    asked = room(tensor(8, 2, buffer=0, op="MUL_MAT"), tensor(64, 8, kind="Q4_0"), other)
    firewall.request(asked)
    records = np.frombuffer(bytes(asked.head[4:]), TENSOR)
    assert not records["buffer"].any()
    assert not records["data"].any()


def test_a_hash_is_answered_here_with_no():
    """What a weight is, SHA-256 says; the worker's file cache is never asked."""
    firewall, _ = open_session()
    asked = frame(Command.SET_TENSOR_HASH, A + bytes(16))
    assert firewall.request(asked) == ("client", b"\0")


def test_the_worker_is_never_asked_to_keep_a_file():
    """The flag of SET_TENSOR by which it would write to its cache is taken away."""
    firewall, _ = open_session()
    asked = setting(A)
    asked.head[TENSOR_BYTES] = 1
    firewall.request(asked)
    assert asked.head[TENSOR_BYTES] == 0


@pytest.mark.parametrize("command", [Command.TAKE, Command.GET_PUSH, Command.SET_PUSHED])
def test_our_own_commands_are_checked_as_the_workers(command):
    """Their tensor is rewritten too; the rest is the agent's."""
    firewall, worker = open_session()
    asked = getting(A, offset=8, size=64, command=command)
    assert firewall.request(asked).to == "agent"
    assert stray(asked, list(worker.buffers.values())) is None
    assert refused(firewall, getting(A, offset=8, size=2**64 - 4, command=command)) == "bounds"


def test_packed_data_are_no_longer_than_unpacked():
    """A little more is what zstd may need."""
    firewall, _ = open_session()
    head = A + TWO_U64.pack(0, 2048)
    assert firewall.request(frame(Command.SET_PACKED, head, body=2100)).to == "agent"
    assert refused(firewall, frame(Command.SET_PACKED, head, body=2**20)) == "size"


def test_a_ping_comes_back():
    """Without the worker."""
    firewall, _ = open_session()
    assert firewall.request(frame(Command.PING, b"pingpong")) == ("client", b"pingpong")


# Order, versions, devices, quotas


def test_hello_comes_first_and_once():
    """As the worker has it, which else ends the connection."""
    assert refused(Firewall(RULES), frame(Command.DEVICE_COUNT)) == "hello"
    firewall, _ = open_session()
    assert refused(firewall, frame(Command.HELLO, bytes(24))) == "hello"


def test_no_way_around_the_agent_is_offered():
    """RDMA would pass it by: what both say of it is taken away."""
    firewall = Firewall(RULES)
    hello = frame(Command.HELLO, b"\7" * 24)
    firewall.request(hello)
    assert bytes(hello.head) == bytes(24)
    assert firewall.answer(Command.HELLO, HELLO_ANSWER[:4] + b"\7" * 24) == HELLO_ANSWER


@pytest.mark.parametrize("version", [(6, 0), (7, 1), (8, 0)])
def test_a_worker_of_another_version_is_refused(version):
    """Numbers of commands and operations may be others there."""
    firewall, _ = open_session(buffers=0)
    with pytest.raises(ForbiddenFrameError, match=f"RPC {version[0]}.{version[1]}"):
        firewall.answer(Command.HELLO, bytes((*version, 0, 0)) + bytes(24))


@pytest.mark.parametrize(
    "asked",
    [
        alloc(64, device=1),
        frame(Command.GET_ALIGNMENT, U32.pack(1)),
        frame(Command.GET_MAX_SIZE, U32.pack(2**32 - 1)),
        frame(Command.GET_DEVICE_MEMORY, U32.pack(1)),
        recompute(device=1),
        graph(A, tensor(64, 8, op="SQR", src=(A,)), device=1),
        frame(Command.GET_ALLOC_SIZE, U32.pack(1) + A.ljust(11 * TENSOR_BYTES, b"\0")),
    ],
)
def test_a_device_that_is_not_there_is_refused(asked):
    """In every command that names one."""
    firewall, _ = open_session()
    assert refused(firewall, asked) == "device"


def test_a_session_has_its_quota_and_no_more():
    """What is freed can be had again, what the worker could not give is given back."""
    firewall, worker = open_session(buffers=1)
    assert refused(firewall, alloc(8 * MIB)) == "memory"
    firewall.request(alloc(7 * MIB))
    assert refused(firewall, alloc(1)) == "memory"
    assert firewall.answer(Command.ALLOC_BUFFER, TWO_U64.pack(0, 0)) == bytes(16)
    firewall.request(free(1))
    worker.buffers.clear()
    assert worker.add(firewall, 8 * MIB) == 3


def test_numbers_are_never_given_again():
    """A frame for a buffer that is gone can never mean another one."""
    firewall, worker = open_session(buffers=1)
    firewall.request(free(1))
    assert worker.add(firewall) == 2


@pytest.mark.parametrize("size", [0, 2**40, 2**64 - 1])
def test_impossible_buffers_are_refused(size):
    """Of nothing, or longer than the step between two buffers."""
    firewall, _ = open_session(Rules(memory_bytes=2**63, device_memory_bytes=2**63))
    assert refused(firewall, alloc(size)) == "size"


def test_buffers_are_counted():
    """Many small ones cost the worker too."""
    firewall, _ = open_session(
        Rules(memory_bytes=MIB, device_memory_bytes=MIB, buffers=2), buffers=0
    )
    firewall.request(alloc(1))
    firewall.request(alloc(1))
    assert refused(firewall, alloc(1)) == "buffers"


def test_a_device_shows_what_the_session_may_have():
    """Never more than the rules say, and what is used is used."""
    firewall, _ = open_session(buffers=1)
    said = firewall.answer(Command.GET_DEVICE_MEMORY, TWO_U64.pack(2**40, 2**41))
    assert TWO_U64.unpack(said) == (7 * MIB, 64 * MIB)
    said = firewall.answer(Command.GET_DEVICE_MEMORY, TWO_U64.pack(MIB, 2 * MIB))
    assert TWO_U64.unpack(said) == (MIB, 2 * MIB)
    assert firewall.answer(Command.GET_MAX_SIZE, b"\xff" * 8) == U64.pack(8 * MIB)
    assert firewall.answer(Command.DEVICE_COUNT, U32.pack(9)) == U32.pack(1)


@pytest.mark.parametrize(
    ("command", "payload"),
    [
        (Command.ALLOC_BUFFER, TWO_U64.pack(POINTER, 10)),
        (Command.ALLOC_BUFFER, TWO_U64.pack(POINTER, 2**41)),
        (Command.BUFFER_GET_BASE, U64.pack(0)),
        (Command.BUFFER_GET_BASE, U64.pack(BASE + 1)),
        (Command.BUFFER_GET_BASE, U64.pack(2**64 - 64)),
    ],
)
def test_a_worker_that_says_what_cannot_be_is_not_believed(command, payload):
    """Its answers decide over addresses; the last frame before may have broken it."""
    firewall, _ = open_session(buffers=1)
    firewall.request(alloc(64))
    firewall.request(frame(Command.BUFFER_GET_BASE, U64.pack(1)))
    with pytest.raises(ForbiddenFrameError) as caught:
        firewall.answer(command, payload)
    assert caught.value.reason == "worker"


def test_one_buffer_is_not_given_twice():
    """Else a client would reach by one number what it freed by another."""
    firewall, _ = open_session(buffers=1)
    firewall.request(alloc(64))
    with pytest.raises(ForbiddenFrameError, match="twice"):
        firewall.answer(Command.ALLOC_BUFFER, TWO_U64.pack(POINTER, 64))


def test_a_buffer_is_used_after_the_worker_answered():
    """Before that nobody knows where it is."""
    firewall, _ = open_session(buffers=0)
    firewall.request(alloc(4096))
    assert refused(firewall, setting(tensor(4))) == "early"
    assert refused(firewall, free(1)) == "early"
    firewall.answer(Command.ALLOC_BUFFER, TWO_U64.pack(POINTER, 4096))
    assert refused(firewall, setting(tensor(4))) == "early"


# Attacks on one tensor

SQUARE = tensor(16, 16, kind="Q4_K", nb=(144, 144, 144, 144), ne=(256, 16, 1, 1))
BAD_TENSORS = {
    "data before the buffer": (changed(A, data=address(1) - 4), "bounds"),
    "data after the buffer": (changed(A, data=address(1, BUFFER_BYTES)), "bounds"),
    "data over the end": (changed(A, data=address(1, BUFFER_BYTES - 2047)), "bounds"),
    "data that wrap around": (changed(A, data=2**64 - 8), "bounds"),
    "data of another buffer": (changed(A, data=address(2)), "bounds"),
    "the worker's own pointer": (changed(A, buffer=POINTER, data=BASE), "buffer"),
    "no buffer": (changed(A, buffer=0, data=0), "buffer"),
    "no buffer but an address": (changed(A, buffer=0), "buffer"),
    "a buffer that is not there": (changed(A, buffer=3, data=address(3)), "buffer"),
    "a type that ggml does not have": (changed(A, type=43), "type"),
    "a type of blocks of 0": (changed(A, type=4), "type"),
    "the largest type": (changed(A, type=2**32 - 1), "type"),
    "an operation that ggml does not have": (changed(A, op=101), "tensor"),
    "flags that ggml does not have": (changed(A, flags=32), "tensor"),
    "a name without an end": (changed(A, name=b"x" * 64), "tensor"),
    "too long a side": (changed(A, ne=(2**31, 1, 1, 1)), "shape"),
    "rows that overflow an int": (changed(A, ne=(1, 2**16, 2**16, 1), nb=(4, 4, 4, 4)), "shape"),
    "numbers that overflow 2^63": (changed(A, ne=(2**31 - 1, 2**31 - 1, 1, 1)), "shape"),
    "numbers that overflow, none of them there": (changed(A, ne=(2**31, 2**32 - 1, 2, 0)), "shape"),
    "strides over 2^40": (changed(A, ne=(2, 2**20, 1, 1), nb=(4, 2**24, 4, 4)), "shape"),
    "strides of 0": (changed(A, nb=(0, 0, 0, 0)), "strides"),
    "strides within a number": (changed(A, nb=(4, 255, 2048, 2048)), "strides"),
    "strides within a block": (changed(SQUARE, nb=(288, 288, 288, 288)), "strides"),
    "half a block": (changed(SQUARE, ne=(128, 1, 1, 1)), "shape"),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
@pytest.mark.parametrize(
    "asked",
    [
        setting,
        getting,
        lambda record: getting(record, command=Command.MEMSET_TENSOR),
        lambda record: frame(Command.SET_TENSOR_HASH, record + bytes(16)),
        lambda record: frame(Command.INIT_TENSOR, record),
        lambda record: frame(Command.COPY_TENSOR, record + A),
        lambda record: frame(Command.COPY_TENSOR, A + record),
        lambda record: getting(record, command=Command.TAKE),
    ],
    ids=["set", "get", "memset", "hash", "init", "copy from", "copy to", "take"],
)
def test_a_bad_tensor_is_refused_wherever_it_stands(name, asked):
    """The same in every command about tensors, and a good one passes in each."""
    record, reason = BAD_TENSORS[name]
    firewall, _ = open_session()
    if name in {"no buffer", "no buffer but an address"}:
        assert refused(firewall, asked(record)) in {"buffer", "copy"}
    else:
        assert refused(firewall, asked(record)) in {reason, "copy"}
    firewall.request(asked(A))


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_a_bad_tensor_is_refused_in_a_graph(name):
    """By the columns of a graph as by the fields of a frame."""
    record, reason = BAD_TENSORS[name]
    result = tensor(4, buffer=2, op="SUM", src=(record,))
    firewall, _ = open_session()
    expected = {"tensor": {"tensor", "op"}, "buffer": {"buffer", "bounds"}}.get(reason, {reason})
    assert refused(firewall, graph(record, result)) in expected


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 2049), (2048, 1), (2**64 - 1, 1), (1, 2**64 - 1), (2**63, 2**63)]
)
def test_a_region_lies_in_its_tensor(offset, size):
    """Also where offset and size overflow together."""
    firewall, _ = open_session()
    assert refused(firewall, getting(A, offset=offset, size=size)) == "bounds"
    memset = getting(A, offset=offset, size=size, command=Command.MEMSET_TENSOR)
    assert refused(firewall, memset) == "bounds"
    if size < 2**62:
        assert refused(firewall, setting(A, offset=offset, body=size)) == "bounds"


def test_a_copy_is_of_one_length_and_not_onto_itself():
    """The heap overflow of 2025: the worker copied as much as the source has."""
    firewall, _ = open_session()
    short = tensor(4, buffer=2, offset=END - 12)
    assert refused(firewall, frame(Command.COPY_TENSOR, A + short)) == "copy"
    shifted = tensor(64, 8, offset=64)
    assert refused(firewall, frame(Command.COPY_TENSOR, A + shifted)) == "copy"
    assert firewall.request(frame(Command.COPY_TENSOR, A + tensor(64, 8, buffer=2)))


def test_a_flag_has_two_values():
    """What is neither is of another protocol."""
    firewall, _ = open_session()
    asked = setting(A)
    asked.head[TENSOR_BYTES] = 2
    assert refused(firewall, asked) == "flag"


def test_rows_are_padded_in_their_buffer():
    """A CUDA worker clears behind a quantised tensor, as far as its rows are padded."""
    record = tensor(32, kind="Q8_0", offset=BUFFER_BYTES - 64)
    firewall, _ = open_session()
    firewall.request(frame(Command.INIT_TENSOR, record))
    padded = Rules(memory_bytes=8 * MIB, device_memory_bytes=8 * MIB, row_padding=512)
    firewall, _ = open_session(padded)
    assert refused(firewall, frame(Command.INIT_TENSOR, record)) == "bounds"
    firewall.request(frame(Command.INIT_TENSOR, tensor(32, kind="Q8_0", offset=END - 572)))


def test_a_room_is_asked_for_operations_with_their_sources():
    """A worker reads the types of sources that are not there."""
    firewall, _ = open_session()
    assert refused(firewall, room(tensor(8, op="FLASH_ATTN_EXT"), A, A)) == "op"
    assert refused(firewall, room(tensor(8, op="CUSTOM"))) == "op"
    assert refused(firewall, room(tensor(8, op="MUL_MAT"), changed(A, type=5), A)) == "type"
    gap = [A, bytes(TENSOR_BYTES), A]
    assert refused(firewall, room(tensor(8, op="MUL_MAT_ID"), *gap)) == "op"
    assert firewall.request(room(tensor(8)))


# Use after free


def test_a_freed_buffer_is_gone():
    """For tensors, for itself, and a second time."""
    firewall, _ = open_session()
    firewall.request(free(1))
    assert refused(firewall, setting(A)) == "buffer"
    assert refused(firewall, getting(A)) == "buffer"
    assert refused(firewall, free(1)) == "buffer"
    assert refused(firewall, frame(Command.BUFFER_CLEAR, U64.pack(1) + b"\0")) == "buffer"
    assert refused(firewall, frame(Command.BUFFER_GET_BASE, U64.pack(1))) == "buffer"
    assert refused(firewall, graph(A, tensor(64, 8, buffer=2, op="SQR", src=(A,)))) == "buffer"


def test_a_stored_graph_ends_with_any_buffer():
    """The use after free of 2026: a graph that was computed again over freed buffers."""
    firewall, _ = open_session()
    assert refused(firewall, recompute()) == "graph"
    firewall.request(graph(A, tensor(64, 8, buffer=2, op="SQR", src=(A,))))
    firewall.request(recompute())
    firewall.request(free(2))
    assert refused(firewall, recompute()) == "graph"


def test_a_refused_graph_is_not_stored():
    """What is refused has changed nothing."""
    firewall, _ = open_session()
    assert refused(firewall, graph(A, tensor(64, 8, op="CUSTOM", src=(A,)))) == "op"
    assert refused(firewall, recompute()) == "graph"


# Attacks on a graph

B = tensor(64, 8, offset=4096)
SQR = tensor(64, 8, buffer=2, op="SQR", src=(A,))
NEXT_ID = next(IDS)
LOOSE = [tensor(4, id=10_000 + i, **({"view_src": 9_999 + i} if i else {})) for i in range(600)]
BAD_GRAPHS = {
    "MAP_CUSTOM1": (graph(A, tensor(64, 8, buffer=2, op="MAP_CUSTOM1", src=(A,))), "op"),
    "MAP_CUSTOM2": (graph(A, tensor(64, 8, buffer=2, op="MAP_CUSTOM2", src=(A, A))), "op"),
    "MAP_CUSTOM3": (graph(A, tensor(64, 8, buffer=2, op="MAP_CUSTOM3", src=(A, A, A))), "op"),
    "CUSTOM": (graph(A, tensor(64, 8, buffer=2, op="CUSTOM", src=(A,))), "op"),
    "CUSTOM beside the nodes": (graph(changed(A, op=95), SQR, nodes=[tensor_id(SQR)]), "op"),
    "an operation past the last": (graph(A, changed(SQR, op=101)), "op"),
    "training": (graph(A, tensor(64, 8, buffer=2, op="OPT_STEP_SGD", src=(A, A, A))), "op"),
    "a node without an id": (graph(A, SQR, nodes=[0]), "id"),
    "a tensor without an id": (graph(changed(A, id=0), B, nodes=[tensor_id(B)]), "id"),
    "two tensors of one id": (graph(A, A, SQR), "id"),
    "a node twice": (graph(A, SQR, nodes=[tensor_id(SQR)] * 2), "order"),
    "a node twice among others": (graph(A, B, SQR, nodes=[tensor_id(SQR)] * 2), "order"),
    "a node that is not there": (graph(A, SQR, nodes=[77]), "link"),
    "a source that is not there": (graph(A, changed(SQR, src=[77] + 9 * [0])), "link"),
    "a view of what is not there": (graph(A, changed(SQR, view_src=77)), "link"),
    "a source of itself": (graph(A, changed(SQR, src=[tensor_id(SQR)] + 9 * [0])), "order"),
    "a view of itself": (graph(A, changed(SQR, view_src=tensor_id(SQR))), "order"),
    "a circle": (graph(changed(A, src=[tensor_id(SQR)] + 9 * [0]), SQR), "order"),
    "a source that comes later": (graph(SQR, A), "order"),
    "no nodes": (graph(A, nodes=[]), "graph"),
    "no source": (graph(A, changed(SQR, src=10 * [0])), "source"),
    "deep recursion": (graph(*LOOSE, A, SQR), "depth"),
    "a source in no buffer": (graph(changed(A, buffer=0, data=0), SQR), "buffer"),
    "a source in no buffer but at an address": (graph(changed(A, buffer=0), SQR), "bounds"),
    "a result in no buffer": (graph(A, changed(SQR, buffer=0, data=0)), "buffer"),
    "a result at the worker's address": (graph(A, changed(SQR, data=BASE)), "bounds"),
    "a view that lies elsewhere": (
        graph(A, tensor(4, buffer=2, offset=64, op="VIEW", src=(A,), view=A)), "view"
    ),
    "a view with another offset": (
        graph(A, tensor(4, offset=64, op="VIEW", src=(A,), view=A, view_offs=2**63)), "view"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_a_bad_graph_is_refused(name):
    """And in the same session a good one passes after it."""
    asked, reason = BAD_GRAPHS[name]
    firewall, _ = open_session()
    before = bytes(asked.head)
    assert refused(firewall, asked) == reason
    assert bytes(asked.head) == before
    firewall.request(graph(A, SQR))


def test_graphs_have_a_bound():
    """Every tensor costs the worker some hundred bytes."""
    firewall, _ = open_session(
        Rules(memory_bytes=8 * MIB, device_memory_bytes=MIB, graph_tensors=2)
    )
    firewall.request(graph(A, SQR))
    assert refused(firewall, graph(A, B, SQR)) == "graph"


F16 = tensor(64, 8, kind="F16")
IDS_I32 = tensor(3, kind="I32", offset=65_536)
MASK = tensor(32, 4, kind="F16", offset=8192)
Q, K, V = tensor(16, 4, 2), tensor(16, 32, 2, kind="F16"), tensor(16, 32, 2, kind="F16")
POSITIONS = tensor(4, kind="I32", offset=65_536)
ROPED = tensor(64, 2, 4)
ROPE = [0, 64, 2, 0, 4096, *8 * [0], 0, 0, 0]
Q8 = tensor(64, 8, kind="Q8_0")
EXPERTS = tensor(64, 8, 4, kind="Q8_0")


def one(op, *src, out, params=(), **fields):
    """A graph of one operation, with its result in the second buffer."""
    ne, kind = out if isinstance(out, tuple) else (out, "F32")
    node = tensor(*ne, kind=kind, buffer=2, op=op, src=src, params=params, **fields)
    return graph(*{tensor_id(record): record for record in src}.values(), node)


STATE = tensor(4, 4, 2, 3)
HEADS = tensor(4, 2, 6, 3)
TOKENS = tensor(8, 2, 6)
RIGHT_SHAPES = {
    **{op: one(op, A, tensor(64, 1), out=[64, 8]) for op in ("ADD", "SUB", "MUL", "DIV")},
    **{op: one(op, A, out=[64, 8]) for op in ("SQR", "SQRT", "LOG", "SIN", "COS", "UNARY")},
    **{op: one(op, A, out=[64, 8]) for op in ("NORM", "RMS_NORM", "L2_NORM", "CUMSUM")},
    **{op: one(op, A, out=[64, 8]) for op in ("SCALE", "CLAMP", "FILL", "CONT")},
    **{op: one(op, A, out=[1, 8]) for op in ("SUM_ROWS", "MEAN")},
    **{op: one(op, ROPED, POSITIONS, out=[64, 2, 4], params=ROPE) for op in ("ROPE", "ROPE_BACK")},
    "ADD_ID": one("ADD_ID", tensor(64, 3), A, IDS_I32, out=[64, 3]),
    "SUM": one("SUM", A, out=[1]),
    "ARGMAX": one("ARGMAX", A, out=([8], "I32")),
    "REPEAT": one("REPEAT", A, out=[128, 16]),
    "TRI": one("TRI", tensor(8, 8), out=[8, 8]),
    "ARGSORT": one("ARGSORT", A, out=([64, 8], "I32")),
    "TOP_K": one("TOP_K", A, out=([4, 8], "I32")),
    "ARANGE": one("ARANGE", out=[4], params=[0, 0x40800000, 0x3F800000]),
    "MUL_MAT": one("MUL_MAT", Q8, tensor(64, 3), out=[8, 3]),
    "MUL_MAT_ID": one("MUL_MAT_ID", EXPERTS, tensor(64, 1, 1), IDS_I32, out=[8, 3, 1]),
    "GET_ROWS": one("GET_ROWS", Q8, IDS_I32, out=[64, 3]),
    "SET_ROWS": one("SET_ROWS", tensor(64, 3), IDS_I32, tensor(64, 8), out=[64, 8]),
    "FLASH_ATTN_EXT": one("FLASH_ATTN_EXT", Q, K, V, MASK, out=[16, 2, 4]),
    "SOFT_MAX": one("SOFT_MAX", tensor(32, 4), MASK, out=[32, 4]),
    "CPY": one("CPY", A, Q8, out=([64, 8], "Q8_0")),
    "CPY of packed rows": one("CPY", Q8, A, out=[64, 8]),
    "CPY of turned rows": one("CPY", tensor(8, 64, nb=(256, 4, 2048, 2048)), A, out=[64, 8]),
    "GLU": one("GLU", A, B, out=[64, 8], params=[2]),
    "GLU of one": one("GLU", A, out=[32, 8], params=[2]),
    "SET": one("SET", A, tensor(4), out=[64, 8], params=[256, 2048, 2048, 1024, 1]),
    "PAD": one("PAD", A, out=[66, 8], params=[1, 1]),
    "CONCAT": one("CONCAT", A, B, out=[64, 16], params=[1]),
    "SSM_CONV": one("SSM_CONV", tensor(7, 8, 2), tensor(4, 8), out=[8, 4, 2]),
    "SSM_SCAN": one(
        "SSM_SCAN",
        STATE,
        HEADS,
        tensor(2, 6, 3),
        tensor(1, 2),
        tensor(4, 1, 6, 3),
        tensor(4, 1, 6, 3),
        IDS_I32,
        out=[144 + 96],
        params=[1],
    ),
    "RWKV_WKV6": one(
        "RWKV_WKV6", *3 * [TOKENS], tensor(8, 2), TOKENS, tensor(128, 3), out=[16, 30]
    ),
    "RWKV_WKV7": one("RWKV_WKV7", *6 * [TOKENS], tensor(128, 3), out=[16, 30]),
    "GATED_LINEAR_ATTN": one("GATED_LINEAR_ATTN", *4 * [TOKENS], tensor(128, 3), out=[16, 30]),
    "SOLVE_TRI": one("SOLVE_TRI", tensor(8, 8), tensor(3, 8), out=[3, 8]),
    "GATED_DELTA_NET": one(
        "GATED_DELTA_NET",
        *3 * [HEADS],
        tensor(1, 2, 6, 3),
        tensor(1, 2, 6, 3),
        STATE,
        out=[8, 18 + 12],
        params=[1],
    ),
    "LIGHTNING_INDEXER": one(
        "LIGHTNING_INDEXER",
        tensor(16, 2, 4),
        tensor(16, 1, 32),
        tensor(2, 4),
        MASK,
        out=[32, 4],
    ),
    "DSV4_HC_COMB": one(
        "DSV4_HC_COMB", tensor(24, 3), tensor(3), tensor(24), out=[4, 4, 3], params=[0, 1]
    ),
    "DSV4_HC_PRE": one("DSV4_HC_PRE", tensor(8, 4, 3), tensor(4, 3), out=[8, 3]),
    "DSV4_HC_POST": one(
        "DSV4_HC_POST",
        tensor(8, 3),
        tensor(8, 4, 3),
        tensor(4, 3),
        tensor(4, 4, 3),
        out=[8, 4, 3],
    ),
}
WRONG_SHAPES = {
    "ADD onto less": one("ADD", tensor(64, 4), A, out=[64, 4]),
    "ADD into more": one("ADD", A, A, out=[64, 16]),
    "MUL_MAT into more": one("MUL_MAT", Q8, tensor(64, 3), out=[8, 4]),
    "MUL_MAT of shorter rows": one("MUL_MAT", Q8, tensor(32, 3), out=[8, 3]),
    "MUL_MAT of a type without a kernel": one(
        "MUL_MAT", tensor(64, 8, kind="I32"), tensor(64, 3), out=[8, 3]
    ),
    "MUL_MAT by a Hadamard matrix that is not square": one(
        "MUL_MAT", Q8, tensor(64, 3), out=[8, 3], params=[0, 1]
    ),
    "MUL_MAT_ID with more experts' numbers than tokens": one(
        "MUL_MAT_ID", EXPERTS, tensor(64, 1, 1), tensor(3, 2, kind="I32"), out=[8, 3, 1]
    ),
    "GET_ROWS into fewer": one("GET_ROWS", Q8, IDS_I32, out=[64, 2]),
    "GET_ROWS by numbers that are none": one("GET_ROWS", Q8, tensor(3), out=[64, 3]),
    "ROPE of dimensions below 0": one(
        "ROPE", ROPED, POSITIONS, out=[64, 2, 4], params=[0, -4, *ROPE[2:]]
    ),
    "ROPE of odd rows": one(
        "ROPE", tensor(65, 2, 4), POSITIONS, out=[65, 2, 4], params=ROPE
    ),
    "ROPE without enough positions": one(
        "ROPE", ROPED, tensor(3, kind="I32"), out=[64, 2, 4], params=ROPE
    ),
    "ROPE in sections of none": one(
        "ROPE", ROPED, tensor(16, kind="I32"), out=[64, 2, 4], params=[0, 64, 8, *13 * [0]]
    ),
    "FLASH_ATTN_EXT with fewer values than keys": one(
        "FLASH_ATTN_EXT", Q, K, tensor(16, 31, 2, kind="F16"), MASK, out=[16, 2, 4]
    ),
    "FLASH_ATTN_EXT with too short a mask": one(
        "FLASH_ATTN_EXT", Q, K, V, tensor(31, 4, kind="F16"), out=[16, 2, 4]
    ),
    "FLASH_ATTN_EXT with too few rows of the mask": one(
        "FLASH_ATTN_EXT", Q, K, V, tensor(32, 3, kind="F16"), out=[16, 2, 4]
    ),
    "FLASH_ATTN_EXT of queries that are halves": one(
        "FLASH_ATTN_EXT", tensor(16, 4, 2, kind="F16"), K, V, MASK, out=[16, 2, 4]
    ),
    "SOFT_MAX with too short a mask": one(
        "SOFT_MAX", tensor(64, 4), MASK, out=[64, 4]
    ),
    "CPY of long rows into short packed ones": one(
        "CPY", tensor(512, 1), Q8, out=([64, 8], "Q8_0")
    ),
    "CPY onto what is not the second source": one("CPY", A, B, out=[64, 4]),
    "CONT into less": one("CONT", A, out=[64, 4]),
    "SCALE over rows that lie far apart": one(
        "SCALE", tensor(64, 1, 8), out=[64, 1, 8], nb=(4, 2**30, 256, 2048)
    ),
    "CLAMP over rows that lie far apart": one(
        "CLAMP", tensor(64, 1, 8), out=[64, 1, 8], nb=(4, 2**30, 256, 2048)
    ),
    "GLU of a kind that ggml does not have": one("GLU", A, out=[32, 8], params=[7]),
    "UNARY of a kind that ggml does not have": one("UNARY", A, out=[64, 8], params=[22]),
    "UNARY below 0": one("UNARY", A, out=[64, 8], params=[-1]),
    "SET below 0": one("SET", A, tensor(4), out=[64, 8], params=[256, 2048, 2048, -4, 1]),
    "SET over the end": one("SET", A, tensor(4), out=[64, 8], params=[256, 2048, 2048, 2036, 1]),
    "PAD around": one("PAD", A, out=[66, 8], params=[1, 1, *6 * [0], 1]),
    "PAD by less than the result is wider": one("PAD", A, out=[80, 8], params=[1, 1]),
    "CONCAT into more": one("CONCAT", A, B, out=[64, 17], params=[1]),
    "CONCAT along a fifth side": one("CONCAT", A, B, out=[64, 16], params=[4]),
    "TOP_K of more than there are": one("TOP_K", A, out=([65, 8], "I32")),
    "ARGSORT of another shape": one("ARGSORT", A, out=([64, 9], "I32")),
    "REPEAT of what is wider": one("REPEAT", A, out=[32, 8]),
    "RMS_NORM into rows that are not packed": one(
        "RMS_NORM", A, out=[64, 8], nb=(8, 512, 4096, 4096)
    ),
    "NORM below 0": one("NORM", A, out=[64, 8], params=[-1]),
    "ADD of types that no kernel adds": one("ADD", A, F16, out=[64, 8]),
    "ARANGE of another length": one("ARANGE", out=[5], params=[0, 0x40800000, 0x3F800000]),
    "SUM into more": one("SUM", A, out=[2]),
    "SSM_CONV of more channels than weights": one(
        "SSM_CONV", tensor(7, 8, 1), tensor(4, 4), out=[8, 4]
    ),
    "RWKV_WKV6 with too few first weights": one(
        "RWKV_WKV6", *4 * [tensor(8, 2, 3)], tensor(8, 2, 3), tensor(128), out=[16, 11]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT_SHAPES)
def test_right_shapes_pass(name):
    """The neighbours of those that are refused."""
    firewall, worker = open_session()
    asked = RIGHT_SHAPES[name]._replace(head=bytearray(RIGHT_SHAPES[name].head))
    firewall.request(asked)
    assert stray(asked, list(worker.buffers.values())) is None


def test_every_operation_has_a_right_shape():
    """A rule that nothing meets would refuse a model."""
    assert {name.split()[0] for name in RIGHT_SHAPES} == set(SHAPES)


@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_wrong_shapes_are_refused(name):
    """Kernels would leave their tensors, or the worker would die of an assertion."""
    firewall, _ = open_session()
    assert refused(firewall, WRONG_SHAPES[name]) == "shape"


# Any frame at all

SEEDS = (
    setting(A, offset=64, body=256),
    getting(B, offset=4, size=100),
    getting(A, command=Command.MEMSET_TENSOR),
    getting(A, command=Command.TAKE),
    frame(Command.COPY_TENSOR, A + tensor(64, 8, buffer=2)),
    frame(Command.INIT_TENSOR, Q8),
    room(tensor(8, 2, op="MUL_MAT"), Q8, A),
    alloc(4096),
    free(2),
    recompute(),
    graph(A, SQR),
    *RIGHT_SHAPES.values(),
)


def judged(asked):
    """What in a frame points outside of a session's buffers; None also where it was refused."""
    firewall, worker = open_session()
    try:
        verdict = firewall.request(asked)
    except BadFrameError:
        return None
    return stray(asked, list(worker.buffers.values())) if verdict.to != "client" else None


@given(st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_a_changed_frame_stays_inside_or_is_refused(seed, number):
    """Whatever is changed: addresses inside of the session's buffers, or a reason, nothing else."""
    assert judged(mutate(random.Random(number), seed)) is None


@given(st.integers(0, 255), st.binary(max_size=700))
def test_any_head_is_judged(command, head):
    """Bytes that were never a frame are refused, or harmless; the splitter sees to their sizes."""
    size = HEAD_BYTES.get(command, max(len(head), GRAPH_LEAST_BYTES))
    assert judged(Frame(command, size, bytearray(head[:size].ljust(size, b"\1")))) is None


def test_the_judge_sees_what_leaves_a_buffer():
    """Else the tests above would say nothing."""
    worker = Worker({1: (POINTER, BASE, 4096)})
    places = list(worker.buffers.values())
    inside = changed(tensor(64, 16), buffer=POINTER, data=BASE)
    assert stray(getting(inside), places) is None
    assert stray(getting(changed(inside, data=BASE + 4)), places)
    assert stray(getting(changed(inside, data=BASE - 4)), places)
    assert stray(getting(changed(inside, buffer=1)), places)
    assert stray(getting(changed(inside, nb=(4, 260, 4096, 4096))), places)
