"""What llama.cpp's RPC 7.0 says, and the commands that are ours: numbers, sizes, layouts.

A request is ``u8 command | u64 size | payload``, an answer ``u64 size | payload``, answers come in
the order of their requests, and all is little endian. What a connection says first is HELLO.

Source: ``ggml/src/ggml-rpc/ggml-rpc.cpp`` and ``ggml/include/ggml-rpc.h`` of llama.cpp 0c1e57098,
as held by the source distribution of llama-cpp-python 0.3.36. Commands from 0x80 on are ours
(docs/decisions/0006), and no worker ever sees them.

A frame's *head* is what must be read to know what it does: the whole payload, but for SET_TENSOR
and SET_PACKED only what stands before the data. The data are its *body*; they pass as they come.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from shoestring.errors import ShoestringError

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = (7, 0)
"""Major and minor of the protocol; the patch number counts operations and is not compared."""
TENSOR_BYTES = 296
TENSORS_OF_SIZE = 11
"""GET_ALLOC_SIZE sends a tensor and its ten sources."""
GRAPH_TENSORS = 65_536
BULK_BYTES = 1 << 40

HEADER = struct.Struct("<BQ")
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
TWO_U64 = struct.Struct("<QQ")
ALLOC = struct.Struct("<IQ")
GRAPH = struct.Struct("<II")
GRAPH_LEAST_BYTES = GRAPH.size + U32.size

BUFFER_AT = 12
OP_AT = 52
NAME_AT = 228
DATA_AT = 220
NAME_BYTES = 64
OFFSET_AT = TENSOR_BYTES
"""Where the offset follows the tensor; SET_TENSOR has a flag between them."""


class Command(IntEnum):
    """What a request asks for."""

    ALLOC_BUFFER = 0
    GET_ALIGNMENT = 1
    GET_MAX_SIZE = 2
    BUFFER_GET_BASE = 3
    FREE_BUFFER = 4
    BUFFER_CLEAR = 5
    SET_TENSOR = 6
    SET_TENSOR_HASH = 7
    GET_TENSOR = 8
    COPY_TENSOR = 9
    GRAPH_COMPUTE = 10
    GET_DEVICE_MEMORY = 11
    INIT_TENSOR = 12
    GET_ALLOC_SIZE = 13
    HELLO = 14
    DEVICE_COUNT = 15
    GRAPH_RECOMPUTE = 16
    MEMSET_TENSOR = 17
    TAKE = 0x80
    SET_PACKED = 0x81
    GET_PUSH = 0x82
    SET_PUSHED = 0x83
    PING = 0x84
    SETTLE = 0x85


HEAD_BYTES: dict[int, int] = {
    Command.ALLOC_BUFFER: 12,
    Command.GET_ALIGNMENT: 4,
    Command.GET_MAX_SIZE: 4,
    Command.BUFFER_GET_BASE: 8,
    Command.FREE_BUFFER: 8,
    Command.BUFFER_CLEAR: 9,
    Command.SET_TENSOR: TENSOR_BYTES + 9,
    Command.SET_TENSOR_HASH: TENSOR_BYTES + 16,
    Command.GET_TENSOR: TENSOR_BYTES + 16,
    Command.COPY_TENSOR: 2 * TENSOR_BYTES,
    Command.GET_DEVICE_MEMORY: 4,
    Command.INIT_TENSOR: TENSOR_BYTES,
    Command.GET_ALLOC_SIZE: 4 + TENSORS_OF_SIZE * TENSOR_BYTES,
    Command.HELLO: 24,
    Command.DEVICE_COUNT: 0,
    Command.GRAPH_RECOMPUTE: 4,
    Command.MEMSET_TENSOR: TENSOR_BYTES + 17,
    Command.TAKE: TENSOR_BYTES + 48,
    Command.SET_PACKED: TENSOR_BYTES + 16,
    Command.GET_PUSH: TENSOR_BYTES + 24,
    Command.SET_PUSHED: TENSOR_BYTES + 24,
    Command.PING: 8,
}
"""Bytes of each command's head; those of GRAPH_COMPUTE and SETTLE are as long as their payload."""
SETTLE_BYTES = (66, 8_192)
"""Least and most of a receipt's body with a signature of 64 bytes."""
WITH_BODY = frozenset({int(Command.SET_TENSOR), int(Command.SET_PACKED)})

ANSWER_BYTES: dict[int, int] = {
    Command.ALLOC_BUFFER: 16,
    Command.GET_ALIGNMENT: 8,
    Command.GET_MAX_SIZE: 8,
    Command.BUFFER_GET_BASE: 8,
    Command.SET_TENSOR_HASH: 1,
    Command.COPY_TENSOR: 1,
    Command.GET_DEVICE_MEMORY: 16,
    Command.GET_ALLOC_SIZE: 8,
    Command.HELLO: 28,
    Command.DEVICE_COUNT: 4,
    Command.TAKE: 1,
    Command.PING: 8,
}
"""Bytes of each answer whose size does not depend on the request."""
WITH_DATA = frozenset({int(Command.GET_TENSOR), int(Command.GET_PUSH)})
"""Their answer is as long as was asked for, and passes in parts."""
COMPUTES = frozenset({int(Command.GRAPH_COMPUTE), int(Command.GRAPH_RECOMPUTE)})
SETTLE_ANSWER_BYTES = 1 << 20
"""Of the answer to SETTLE at most: a signature, or what is not agreed on (``proof/earning.py``)."""
ANSWERED = frozenset({*map(int, ANSWER_BYTES), *WITH_DATA, int(Command.SETTLE)})


class BadFrameError(ShoestringError):
    """What came is no frame of this wire; the connection cannot go on.

    Attributes:
        reason: a short word to count by.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Frame(NamedTuple):
    """A request whose head is here; its body, if it has one, comes after it.

    Attributes:
        command: its number; one of :class:`Command`.
        size: bytes of the whole payload.
        head: may be changed in place.
    """

    command: int
    size: int
    head: bytearray

    def start(self) -> bytes:
        """Return the header and the head as they go over the wire; the body follows them."""
        return HEADER.pack(self.command, self.size) + self.head


class Answer(NamedTuple):
    """An answer; of WITH_DATA the data come after it in parts, of others they are the payload."""

    command: int
    size: int
    payload: bytes

    def start(self) -> bytes:
        """Return the size and the payload as they go over the wire; data follow them."""
        return U64.pack(self.size) + self.payload


def answer_bytes(frame: Frame) -> int:
    """Return how long the answer to a frame of ANSWERED is; of SETTLE, at most."""
    if frame.command in WITH_DATA:
        return int(U64.unpack_from(frame.head, OFFSET_AT + 8)[0])
    if frame.command == Command.SETTLE:
        return SETTLE_ANSWER_BYTES
    return ANSWER_BYTES[frame.command]


def request(command: int, payload: bytes = b"") -> bytes:
    """Word a request."""
    return HEADER.pack(command, len(payload)) + payload


def set_tensor_start(tensor: bytes, offset: int, size: int) -> bytes:
    """Word a SET_TENSOR up to its data, of which ``size`` bytes follow."""
    head = tensor + b"\0" + U64.pack(offset)
    return HEADER.pack(Command.SET_TENSOR, len(head) + size) + head


def get_tensor(tensor: bytes, offset: int, size: int) -> bytes:
    """Word a GET_TENSOR."""
    return request(Command.GET_TENSOR, tensor + TWO_U64.pack(offset, size))


def graph_compute(device: int, nodes: Sequence[int], tensors: Sequence[bytes]) -> bytes:
    """Word a GRAPH_COMPUTE of tensors, of which those with the given ids are computed in turn."""
    payload = GRAPH.pack(device, len(nodes)) + struct.pack(f"<{len(nodes)}Q", *nodes)
    return request(Command.GRAPH_COMPUTE, payload + U32.pack(len(tensors)) + b"".join(tensors))


def tensor_name(head: bytes | bytearray, at: int = 0) -> str:
    """Return the name of the tensor that begins at ``at``."""
    raw = bytes(head[at + NAME_AT : at + NAME_AT + NAME_BYTES])
    return raw.partition(b"\0")[0].decode(errors="replace")
