"""One tensor of a frame: may it exist, and which bytes does it reach?

The worker believes type, shape and strides, and computes from them where a tensor ends
(``ggml_nbytes``). So they are bound here such that nothing overflows there, and that what it
computes is never less than what its kernels touch.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from shoestring.swarm.buffers import SPAN_BYTES, ForbiddenFrameError
from shoestring.swarm.tensors import OPS, TYPE_COUNT, TYPES
from shoestring.swarm.wire import tensor_name

if TYPE_CHECKING:
    from shoestring.swarm.tensors import Type

# Fields: type, buffer, ne[4], nb[4], op, flags, data, last byte of the name.
FIELDS = struct.Struct("<8xIQ4I4II64xI96xQ63xB4x")
KINDS: tuple[Type | None, ...] = tuple(TYPES.get(number) for number in range(TYPE_COUNT))
SIDE = (1 << 31) - 1
"""Longest side, and most rows: kernels count both in ``int``."""
ELEMENTS = 1 << 43
"""Most numbers of a tensor: a span of 1-bit ones; ``ggml_new_tensor`` dies at 2^63."""
ALL_FLAGS = 31


class Seen(NamedTuple):
    """What one tensor of a frame says.

    Attributes:
        buffer: the client's number of it, or 0.
        data: the client's address.
        extent: bytes from the first to the last that it reaches.
        kind: how its numbers are stored.
        row: how many numbers a row has.
    """

    buffer: int
    data: int
    extent: int
    kind: Type
    row: int


def see_tensor(head: bytearray, at: int = 0) -> Seen:
    """Check the tensor that begins at ``at``, apart from where it lies.

    Raises:
        ForbiddenFrameError: of no type, shape or strides that llama.cpp could have sent.
    """
    fields = FIELDS.unpack_from(head, at)
    number, buffer, ne0, ne1, ne2, ne3, nb0, nb1, nb2, nb3, op, flags, data, last = fields
    kind = KINDS[number] if number < TYPE_COUNT else None
    if kind is None:
        raise ForbiddenFrameError("type", f"tensor {tensor_name(head, at)!r} of type {number}")
    if op >= len(OPS) or flags > ALL_FLAGS or last:
        raise ForbiddenFrameError("tensor", f"operation {op}, flags {flags:#x}, or an endless name")
    _, block, size = kind
    rows = (ne1 or 1) * (ne2 or 1) * (ne3 or 1)
    if ne0 > SIDE or rows > SIDE or (ne0 or 1) * rows > ELEMENTS or ne0 % block:
        raise ForbiddenFrameError("shape", f"a tensor of {ne0} x {ne1} x {ne2} x {ne3}")
    if nb0 < size or nb0 % size or nb1 % size or nb2 % size or nb3 % size:
        raise ForbiddenFrameError("strides", f"strides {nb0}, {nb1}, {nb2}, {nb3} of {size} bytes")
    if block > 1 and nb0 != size:
        raise ForbiddenFrameError("strides", f"a stride of {nb0} bytes within blocks of {size}")
    if not (ne0 and ne1 and ne2 and ne3):
        return Seen(buffer, data, 0, kind, ne0)
    extent = (ne0 // block - 1) * nb0 + size + (ne1 - 1) * nb1 + (ne2 - 1) * nb2 + (ne3 - 1) * nb3
    if extent >= SPAN_BYTES:
        raise ForbiddenFrameError("shape", f"a tensor over {extent} bytes")
    return Seen(buffer, data, extent, kind, ne0)
