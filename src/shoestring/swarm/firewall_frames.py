"""Frames about tensors: checked whole, then given the worker's addresses, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.swarm.buffers import ForbiddenFrameError
from shoestring.swarm.firewall_graph import place_columns, read_columns
from shoestring.swarm.firewall_shapes import RULES, check_nodes
from shoestring.swarm.firewall_tensors import see_tensor
from shoestring.swarm.tensors import EMPTY_OPS, OPS
from shoestring.swarm.wire import (
    BUFFER_AT,
    DATA_AT,
    OP_AT,
    TENSOR_BYTES,
    TENSORS_OF_SIZE,
    U32,
    U64,
)

if TYPE_CHECKING:
    from shoestring.swarm.buffers import Buffers
    from shoestring.swarm.tensors import Graph


def rewrite_region(head: bytearray, buffers: Buffers, offset: int, size: int) -> None:
    """See that ``size`` bytes lie in the tensor at the head's begin, and it in its buffer."""
    seen = see_tensor(head)
    pointer, address = buffers.holding(seen.buffer, seen.data, seen.extent)
    if offset + size > seen.extent or not seen.extent:
        raise ForbiddenFrameError("bounds", f"{size} bytes from {offset} on, of {seen.extent}")
    U64.pack_into(head, BUFFER_AT, pointer)
    U64.pack_into(head, DATA_AT, address)


def rewrite_new(head: bytearray, buffers: Buffers, row_padding: int) -> None:
    """See that the tensor of INIT_TENSOR lies in its buffer with the padding that is cleared."""
    seen = see_tensor(head)
    extent = seen.extent
    if row_padding and seen.kind.block > 1:
        extent += -seen.row % row_padding // seen.kind.block * seen.kind.size
    pointer, address = buffers.holding(seen.buffer, seen.data, extent)
    U64.pack_into(head, BUFFER_AT, pointer)
    U64.pack_into(head, DATA_AT, address)


def rewrite_copy(head: bytearray, buffers: Buffers) -> None:
    """See that both tensors are of one length and do not overlap: they are copied by memcpy."""
    source, target = see_tensor(head), see_tensor(head, TENSOR_BYTES)
    if source.extent != target.extent:
        raise ForbiddenFrameError("copy", f"{source.extent} bytes into {target.extent}")
    if source.data != target.data and abs(source.data - target.data) < source.extent:
        raise ForbiddenFrameError("copy", "a copy onto a part of itself")
    places = [buffers.holding(seen.buffer, seen.data, seen.extent) for seen in (source, target)]
    for number, (pointer, address) in enumerate(places):
        U64.pack_into(head, number * TENSOR_BYTES + BUFFER_AT, pointer)
        U64.pack_into(head, number * TENSOR_BYTES + DATA_AT, address)


def strip_places(head: bytearray) -> None:
    """See that the tensors of GET_ALLOC_SIZE may exist, and take their addresses away.

    llama.cpp asks it of tensors that lie nowhere yet, and of sources that lie in a buffer of
    another server; the worker needs neither to know how much room a result takes.
    """
    sources = 0
    for number in range(TENSORS_OF_SIZE):
        at = U32.size + number * TENSOR_BYTES
        if not number or U64.unpack_from(head, at)[0]:
            see_tensor(head, at)
            sources += bool(number) and sources == number - 1
        U64.pack_into(head, at + BUFFER_AT, 0)
        U64.pack_into(head, at + DATA_AT, 0)
    name = OPS[U32.unpack_from(head, U32.size + OP_AT)[0]]
    if name not in EMPTY_OPS and (name not in RULES or sources < RULES[name].sources):
        raise ForbiddenFrameError("op", f"the room of {name} with {sources} sources")


def rewrite_graph(graph: Graph, buffers: Buffers, most: int) -> None:
    """See that a graph is one of llama.cpp's, and lies in buffers of this session."""
    nodes, tensors = len(graph.nodes), len(graph.tensors)
    if not 0 < nodes <= tensors <= most:
        raise ForbiddenFrameError("graph", f"{nodes} nodes of {tensors} tensors; at most {most}")
    columns, computed = read_columns(graph)
    pointers, addresses = place_columns(columns, buffers)
    check_nodes(columns, computed, pointers != 0)
    graph.tensors["buffer"] = pointers
    graph.tensors["data"] = addresses
