"""A graph of tensors: is it one that llama.cpp could have sent, and where does all of it lie?

llama.cpp sends the tensors in the order in which it walks to them, sources first. So it is enough
to ask that each names only such that stand before it: nothing is missing, there is no circle, and
the worker, which builds them by recursion, needs little stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shoestring.swarm.buffers import BUFFER_BITS, OFFSET_MASK, SPAN_BYTES, ForbiddenFrameError
from shoestring.swarm.firewall_tensors import ALL_FLAGS, ELEMENTS, SIDE
from shoestring.swarm.tensors import NUMBER_OF_OP, OPS, TYPE_COUNT, TYPES

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from shoestring.swarm.buffers import Buffers
    from shoestring.swarm.tensors import Graph

DEPTH = 512
"""Of tensors that are not computed themselves, one made from another; views are one deep."""
BLOCKS = np.array([TYPES[i].block if i in TYPES else 0 for i in range(TYPE_COUNT)], np.int64)
SIZES = np.array([TYPES[i].size if i in TYPES else 0 for i in range(TYPE_COUNT)], np.int64)
CPY = NUMBER_OF_OP["CPY"]


class Columns(NamedTuple):
    """The tensors of a graph, by column; one row each.

    Attributes:
        tensors: as they came.
        ne: numbers along each side.
        nb: bytes from one to the next along each side.
        kind: type's number.
        block: how many numbers of that type are stored together.
        size: bytes of such a block.
        extent: bytes that a tensor reaches.
        src: row of each source, or -1.
        view: row of the tensor that it is a view of, or -1.
    """

    tensors: NDArray[Any]
    ne: NDArray[np.int64]
    nb: NDArray[np.int64]
    kind: NDArray[np.int64]
    block: NDArray[np.int64]
    size: NDArray[np.int64]
    extent: NDArray[np.int64]
    src: NDArray[np.int64]
    view: NDArray[np.int64]


def read_columns(graph: Graph) -> tuple[Columns, NDArray[np.int64]]:
    """Check all tensors of a graph and how they hang together, apart from where they lie.

    Returns:
        The tensors, and the rows of those that are computed, in their order.

    Raises:
        ForbiddenFrameError: it is none that llama.cpp could have sent.
    """
    tensors = graph.tensors
    kind = tensors["type"].astype(np.int64)
    _all(kind < TYPE_COUNT, "type", "a type that ggml does not have")
    block, size = BLOCKS[kind], SIZES[kind]
    _all(block > 0, "type", "a type that ggml removed")
    _all(tensors["op"] < len(OPS), "op", "an operation that ggml does not have")
    _all((tensors["flags"] & ~ALL_FLAGS) == 0, "tensor", "a flag that ggml does not have")
    names = np.ascontiguousarray(tensors["name"]).view(np.uint8).reshape(len(tensors), -1)
    _all(names[:, -1] == 0, "tensor", "a name without an end")
    ne, nb = tensors["ne"].astype(np.int64), tensors["nb"].astype(np.int64)
    extent = _extents(ne, nb, block, size)
    src, view, nodes = _links(graph)
    columns = Columns(tensors, ne, nb, kind, block, size, extent, src, view)
    _check_depth(columns, nodes)
    return columns, nodes


def _extents(
    ne: NDArray[np.int64],
    nb: NDArray[np.int64],
    block: NDArray[np.int64],
    size: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return which bytes each tensor reaches; as :func:`firewall_tensors.see_tensor` does."""
    sides = np.maximum(ne, 1)
    rows = sides[:, 1:].prod(axis=1, dtype=np.float64)  # exact as far as the limit
    _all((ne[:, 0] <= SIDE) & (rows <= SIDE), "shape", "a tensor with too long a side")
    _all(sides[:, 0] * rows <= ELEMENTS, "shape", "a tensor of too many numbers")
    _all(ne[:, 0] % block == 0, "shape", "a row that is no number of blocks")
    _all((nb % size[:, None] == 0).all(axis=1) & (nb[:, 0] >= size), "strides", "odd strides")
    _all((block == 1) | (nb[:, 0] == size), "strides", "strides within blocks")
    steps = sides - 1
    steps[:, 0] = np.maximum(ne[:, 0] // block, 1) - 1
    reach = steps * nb  # each below 2^31 * 2^32
    _all((reach < SPAN_BYTES).all(axis=1), "shape", "a tensor over too many bytes")
    extent = np.where((ne > 0).all(axis=1), reach.sum(axis=1) + size, 0)
    _all(extent < SPAN_BYTES, "shape", "a tensor over too many bytes")
    return extent


def _links(graph: Graph) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the sources, of what is viewed, and of the nodes."""
    tensors = graph.tensors
    ids = tensors["id"].astype(np.uint64)
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    _all(ids != 0, "id", "a tensor without an id")
    _all(ordered[1:] != ordered[:-1], "id", "two tensors of one id")

    def rows_of(wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
        at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        _all((wanted == 0) | (ordered[at] == wanted), "link", "a tensor that is not in the graph")
        return np.where(wanted == 0, -1, order[at])

    own = np.arange(len(ids))
    src, view = rows_of(tensors["src"]), rows_of(tensors["view_src"])
    onto_itself = (src[:, 1] == own) & (tensors["op"] == CPY)  # as ggml_cast says it
    _all((src[:, 1] < own) | onto_itself, "order", "a source that comes later")
    _all((np.delete(src, 1, axis=1) < own[:, None]), "order", "a source that comes later")
    _all(view < own, "order", "a view of what comes later")
    _all(graph.nodes != 0, "id", "a node without an id")
    nodes = rows_of(graph.nodes)
    # Also each but once: for a second time the worker would write outside of its table.
    _all(nodes[1:] > nodes[:-1], "order", "nodes that are not in the order of their tensors")
    return src, view, nodes


def _check_depth(columns: Columns, nodes: NDArray[np.int64]) -> None:
    """See that the worker's recursion ends soon; at a node it does, for that is made already."""
    loose = np.ones(len(columns.kind), bool)
    loose[nodes] = False
    links = np.column_stack((columns.src, columns.view))
    depth: dict[int, int] = {}
    for row in np.flatnonzero(loose & (links >= 0).any(axis=1)).tolist():
        below = [depth.get(link, 0) for link in links[row].tolist() if link not in {-1, row}]
        depth[row] = 1 + max(below, default=0)
        if depth[row] > DEPTH:
            raise ForbiddenFrameError("depth", f"more than {DEPTH} tensors, one made of the other")


def place_columns(columns: Columns, buffers: Buffers) -> tuple[Any, Any]:
    """Return the worker's buffers and addresses of all tensors; 0 for those without a buffer.

    Raises:
        ForbiddenFrameError: one does not lie in its buffer, or a view not where it says.
    """
    tensors = columns.tensors
    numbers, data = tensors["buffer"].astype(np.uint64), tensors["data"].astype(np.uint64)
    known, which = np.unique(numbers, return_inverse=True)
    places = [buffers.placed(number) for number in known.tolist() if number]
    if len(places) < len(known):
        places.insert(0, (0, 0, 0))  # numbers are in order, so 0 is the first
    pointers, bases, sizes = (
        np.array(column, np.uint64)[which] for column in zip(*places, strict=True)
    )
    start = data & np.uint64(OFFSET_MASK)
    inside = (data >> np.uint64(BUFFER_BITS) == numbers) & (
        start + columns.extent.astype(np.uint64) <= sizes
    )
    _all(np.where(numbers == 0, data == 0, inside), "bounds", "data outside of their buffer")
    viewing = (columns.view >= 0) & (numbers != 0)
    viewed = columns.view[viewing]
    agreed = (numbers[viewing] == numbers[viewed]) & (
        data[viewing] == data[viewed] + tensors["view_offs"][viewing]
    )
    _all(agreed, "view", "a view that does not lie where it says")
    return pointers, np.where(numbers == 0, np.uint64(0), bases + start)


def _all(right: Any, reason: str, message: str) -> None:
    if not right.all():
        raise ForbiddenFrameError(reason, f"a graph with {message}")
