"""Frames of RPC that no engine sent, for tests and fuzzing: tensors, sessions, mutations, a judge.

The judge (:func:`stray`) is written for itself, with whole numbers and ggml's own formula, so that
it does not share a mistake with the firewall that it judges.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shoestring.swarm.firewall import Firewall, Rules
from shoestring.swarm.tensors import NUMBER_OF_OP, NUMBER_OF_TYPE, TENSOR, TYPES, read_graph
from shoestring.swarm.wire import (
    ALLOC,
    GRAPH_LEAST_BYTES,
    HEAD_BYTES,
    SETTLE_BYTES,
    TENSOR_BYTES,
    TWO_U64,
    U64,
    WITH_BODY,
    Command,
    Frame,
    request,
    set_tensor_start,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

MIB = 1 << 20
COMPUTE = 16
"""Of ``ggml_tensor_flag``: must be computed."""
BUFFER_BYTES = MIB
RULES = Rules(memory_bytes=8 * MIB, device_memory_bytes=64 * MIB)
HELLO_ANSWER = bytes((7, 0, 0, 0)) + bytes(24)
POINTER, BASE = 0x7F3A_0000_1000, 0x7F3B_0000_0000
"""Of the first buffer of a worker that is not there; the next ones lie 2^32 further."""
IDS = itertools.count(0x5555_0000_1000, 0x170)


def address(buffer: int, offset: int = 0) -> int:
    """Return the client's address of a byte of a buffer."""
    return (buffer << 40) + offset if buffer else 0


def strides(kind: str, ne: Sequence[int]) -> list[int]:
    """Return the strides of a tensor whose numbers lie side by side."""
    _, block, size = TYPES[NUMBER_OF_TYPE[kind]]
    steps = [size, size * (ne[0] // block)]
    steps += [steps[1] * ne[1], steps[1] * ne[1] * ne[2]]
    return steps


def tensor(
    *ne: int,
    kind: str = "F32",
    buffer: int = 1,
    offset: int = 0,
    nb: Sequence[int] | None = None,
    op: str = "NONE",
    src: Sequence[bytes] = (),
    params: Sequence[int] = (),
    view: bytes | None = None,
    **fields: Any,
) -> bytes:
    """Word a tensor; ``fields`` are those of :data:`TENSOR` and come last."""
    record = np.zeros((), TENSOR)
    sides = [*ne, 1, 1, 1, 1][:4]
    record["id"] = next(IDS)
    record["type"], record["op"] = NUMBER_OF_TYPE[kind], NUMBER_OF_OP[op]
    record["ne"], record["nb"] = sides, strides(kind, sides) if nb is None else nb
    record["buffer"], record["data"] = buffer, address(buffer, offset)
    record["op_params"][: len(params)] = params
    record["flags"] = COMPUTE
    record["src"][: len(src)] = [tensor_id(source) for source in src]
    record["name"] = op.lower().encode()
    if view is not None:
        record["view_src"] = tensor_id(view)
    for name, value in fields.items():
        record[name] = value
    return record.tobytes()


def tensor_id(record: bytes) -> int:
    """Return a tensor's id."""
    return int(U64.unpack_from(record)[0])


def changed(record: bytes, **fields: Any) -> bytes:
    """Return a tensor with other fields."""
    copy = np.frombuffer(record, TENSOR).copy()
    for name, value in fields.items():
        copy[name] = value
    return copy.tobytes()


def graph(*records: bytes, device: int = 0, nodes: Sequence[int] | None = None) -> Frame:
    """Word a graph; nodes are the tensors that have an operation, if not given."""
    if nodes is None:
        nodes = [tensor_id(record) for record in records if record[52:56] != bytes(4)]
    payload = struct.pack(f"<II{len(nodes)}QI", device, len(nodes), *nodes, len(records))
    return frame(Command.GRAPH_COMPUTE, payload + b"".join(records))


def frame(command: int, head: bytes = b"", *, body: int = 0) -> Frame:
    """Word a frame of which a body of so many bytes follows."""
    return Frame(command, len(head) + body, bytearray(head))


def setting(record: bytes, *, offset: int = 0, body: int = 4) -> Frame:
    """Word a SET_TENSOR."""
    return frame(Command.SET_TENSOR, set_tensor_start(record, offset, body)[9:], body=body)


def getting(
    record: bytes, *, offset: int = 0, size: int = 4, command: int = Command.GET_TENSOR
) -> Frame:
    """Word a GET_TENSOR, or another whose tensor is followed by offset and size."""
    extra = {Command.MEMSET_TENSOR: 1, Command.TAKE: 32, Command.GET_PUSH: 8, Command.SET_PUSHED: 8}
    rest = bytes(extra.get(Command(command), 0))
    return frame(command, record + TWO_U64.pack(offset, size) + rest)


@dataclass
class Worker:
    """What a worker that is not there says of its buffers.

    Attributes:
        buffers: pointer, base and size of those that are there.
    """

    buffers: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def add(self, firewall: Firewall, size: int = BUFFER_BYTES) -> int:
        """Have a buffer made and found; return its number."""
        firewall.request(frame(Command.ALLOC_BUFFER, ALLOC.pack(0, size)))
        pointer = POINTER + (len(self.buffers) << 32)
        said = firewall.answer(Command.ALLOC_BUFFER, TWO_U64.pack(pointer, size))
        number = int(TWO_U64.unpack(said)[0])
        firewall.request(frame(Command.BUFFER_GET_BASE, U64.pack(number)))
        base = BASE + (len(self.buffers) << 32)
        firewall.answer(Command.BUFFER_GET_BASE, U64.pack(base))
        self.buffers[number] = (pointer, base, size)
        return number


def open_session(rules: Rules = RULES, *, buffers: int = 2) -> tuple[Firewall, Worker]:
    """Return a session that has said HELLO and has the first buffers."""
    firewall, worker = Firewall(rules), Worker()
    firewall.request(frame(Command.HELLO, bytes(24)))
    firewall.answer(Command.HELLO, HELLO_ANSWER)
    for _ in range(buffers):
        worker.add(firewall)
    return firewall, worker


def tensors_of(passed: Frame) -> list[bytes]:
    """Return the tensors of a frame."""
    if passed.command == Command.GRAPH_COMPUTE:
        return [record.tobytes() for record in read_graph(passed.head).tensors]
    at, count = {
        Command.COPY_TENSOR: (0, 2),
        Command.GET_ALLOC_SIZE: (4, 11),
        Command.SETTLE: (0, 0),
    }.get(Command(passed.command), (0, int(len(passed.head) >= TENSOR_BYTES)))
    return [
        bytes(passed.head[at + i * TENSOR_BYTES : at + (i + 1) * TENSOR_BYTES])
        for i in range(count)
    ]


def stray(passed: Frame, places: Sequence[tuple[int, int, int]]) -> str | None:
    """Say what in a frame that passed points outside of the session's buffers, or None.

    Args:
        passed: with the worker's addresses.
        places: pointer, base and size of each buffer.
    """
    for raw in tensors_of(passed):
        record = np.frombuffer(raw, TENSOR)[0]
        buffer, data, end = int(record["buffer"]), int(record["data"]), 0
        if not buffer and not data:
            continue
        kind = TYPES.get(int(record["type"]))
        if kind is None:
            return f"type {record['type']}"
        ne, nb = [int(n) for n in record["ne"]], [int(n) for n in record["nb"]]
        if all(ne):
            end = sum((n - 1) * step for n, step in zip(ne[1:], nb[1:], strict=True))
            inner = (ne[0] - 1) * nb[0] + kind.size if kind.block == 1 else 0
            end += max(inner, -(-ne[0] // kind.block) * kind.size)
        if not any(
            pointer == buffer and base <= data and data + end <= base + size
            for pointer, base, size in places
        ):
            return f"{end} bytes at {data:#x} of buffer {buffer:#x}"
    return None


def mutate(rng: random.Random, given: Frame) -> Frame:
    """Return a frame of which some bits, words, fields, its size or its command are others."""
    head = bytearray(given.head)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if head:
            rng.choice(CHANGES)(rng, head)
    command = given.command
    if rng.random() < RARELY:
        command = rng.choice((*range(18), *range(0x80, 0x86), *UNKNOWN))
    # As long as a splitter hands it out.
    head = head.ljust(GRAPH_LEAST_BYTES, b"\1")
    if command == Command.SETTLE:
        least, most = SETTLE_BYTES
        head = head[:most].ljust(least, b"\1")
    size = HEAD_BYTES.get(command, len(head))
    head = head[:size].ljust(size, b"\1")
    body = given.size - len(given.head)
    if rng.random() < RARELY:
        body = rng.choice((0, 1, 4, 2**31, 2**40))
    said = size + (body if command in WITH_BODY else 0)
    return Frame(command, min(said, MOST_SAID), head)


MOST_SAID = 2**64 - 1
RARELY = 0.1
UNKNOWN = (18, 0x7F, 0x86, 0xFF)
"""Of the commands nobody has: the next ones, and the ends."""
FIELDS = (
    *(8, 12, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 116, 120, 124, 132),
    *(140, 204, 212, 220, 291),
)
"""Where fields of a tensor begin."""


def _flip(rng: random.Random, head: bytearray) -> None:
    head[rng.randrange(len(head))] ^= 1 << rng.randrange(8)


def _set_byte(rng: random.Random, head: bytearray) -> None:
    head[rng.randrange(len(head))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))


def _set_word(rng: random.Random, head: bytearray) -> None:
    if len(head) >= U64.size:
        at = min(rng.randrange(len(head)) & ~3, len(head) - U64.size)
        values = (0, 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1, rng.getrandbits(64))
        U64.pack_into(head, at, rng.choice(values))


def _set_field(rng: random.Random, head: bytearray) -> None:
    """Put a number into a field of a tensor."""
    if (at := _field(rng, head)) is not None:
        value = rng.choice((0, 1, 2, 3, 31, 32, 4096, 2**31 - 1, 2**32 - 1, rng.getrandbits(32)))
        head[at : at + 4] = value.to_bytes(4, "little")


def _copy_field(rng: random.Random, head: bytearray) -> None:
    """Put what stands in one field of a tensor into another."""
    at, other = _field(rng, head), _field(rng, head)
    if at is not None and other is not None:
        head[at : at + 4] = head[other : other + 4]


def _field(rng: random.Random, head: bytearray) -> int | None:
    """Return where some field of some tensor of a frame begins, or None where there is none."""
    first = len(head) % TENSOR_BYTES if len(head) > 2 * TENSOR_BYTES else 0
    whole = (len(head) - first) // TENSOR_BYTES
    return first + TENSOR_BYTES * rng.randrange(whole) + rng.choice(FIELDS) if whole else None


CHANGES = (_flip, _set_byte, _set_word, _set_field, _set_field, _copy_field)


def words(given: Frame) -> bytes:
    """Return a frame as it goes over the wire, with a body of zeros."""
    return request(given.command, bytes(given.head) + bytes(given.size - len(given.head)))
