"""What a graph of llama.cpp computes, by its operations, shapes and addresses.

Names are a client's to choose. What is multiplied with what is not: the worker does it. So the
positions of a graph are those that most of its multiplications have, and how many layers it has at
least is told by what each layer does: it multiplies with its weights, writes its caches, rotates,
and attends. Where kinds of layers differ, the most that one of them does counts as one, so that no
model is taken for a deeper one than it is.

Source of the shapes: ``ggml_mul_mat``, ``ggml_mul_mat_id`` and ``ggml_rope_ext`` in
``ggml/src/ggml.c`` of llama.cpp 0c1e57098.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from blake3 import blake3

from shoestring.swarm.tensors import EMPTY_OPS, NUMBER_OF_OP, read_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE: Final = NUMBER_OF_OP["NONE"]
MUL_MAT: Final = NUMBER_OF_OP["MUL_MAT"]
MUL_MAT_ID: Final = NUMBER_OF_OP["MUL_MAT_ID"]
ROPE: Final = NUMBER_OF_OP["ROPE"]
FLASH_ATTN: Final = NUMBER_OF_OP["FLASH_ATTN_EXT"]
VIEWS: Final = [NUMBER_OF_OP[name] for name in EMPTY_OPS]
MOVES: Final = [
    *VIEWS,
    *(NUMBER_OF_OP[name] for name in ("CPY", "CONT", "GET_ROWS", "SET_ROWS", "SCALE", "ROPE")),
]
"""What shifts a cache: none of them takes a product of two tensors."""
RECURRENT: Final = [
    NUMBER_OF_OP[name]
    for name in ("SSM_CONV", "SSM_SCAN", "RWKV_WKV6", "RWKV_WKV7", "GATED_DELTA_NET")
]
"""A layer may keep states beside keys and values (Falcon-H1): four caches."""
INDEXED: Final = [NUMBER_OF_OP["LIGHTNING_INDEXER"], NUMBER_OF_OP["DSV4_HC_PRE"]]
"""A layer rotates for its index, too (DeepSeek V3.2): four times."""
LAYER_MATRICES: Final = 24
"""That one layer multiplies with at most; a dense one has 7."""
LAYER_ATTENTIONS: Final = 2
"""To itself, and to what was encoded (T5)."""
EXPERTS: Final = 32
"""That one token uses at most in one layer; beyond them are other positions."""
BLOCK: Final = re.compile(rb"blk\.(\d{1,4})\.")
KEPT: Final = 16
"""Graphs; what was found of one are at most two addresses for each of its tensors."""
HEADS: Final = (b"output.weight", b"token_embd.weight")
"""Of a model whose output has weights of its own, and of one that uses its embeddings again."""


class Seen(NamedTuple):
    """What one graph does.

    Attributes:
        positions: that it computes; 0: it shows none.
        weights: addresses of what it multiplies with.
        caches: addresses of what it writes into.
        computes: it does more than to move and turn what is there.
        multiplications: how many.
        rotations: likewise.
        attentions: likewise.
        is_recurrent: it has states beside keys and values.
        is_indexed: it has an index beside keys and values.
        blocks: numbers in the names of weights.
        head: the output head is among these names.
    """

    positions: int = 0
    weights: frozenset[int] = frozenset()
    caches: frozenset[int] = frozenset()
    computes: bool = False
    multiplications: int = 0
    rotations: int = 0
    attentions: int = 0
    is_recurrent: bool = False
    is_indexed: bool = False
    blocks: frozenset[int] = frozenset()
    head: bool = False

    @property
    def places(self) -> frozenset[int]:
        """What no two graphs of one step share; one that computes nothing only moves caches."""
        return self.weights | self.caches if self.computes else frozenset()

    @property
    def depth(self) -> int:
        """How many layers it computes at least."""
        return max(
            _up(self.multiplications, LAYER_MATRICES),
            _up(len(self.caches), 4 if self.is_recurrent else 2),
            _up(self.rotations, 4 if self.is_indexed else 2),
            _up(self.attentions, LAYER_ATTENTIONS),
        )

    def plus(self, other: Seen) -> Seen:
        """Return what both do, as parts of one step."""
        return Seen(
            max(self.positions, other.positions),
            self.weights | other.weights,
            self.caches | other.caches,
            self.computes or other.computes,
            self.multiplications + other.multiplications,
            self.rotations + other.rotations,
            self.attentions + other.attentions,
            self.is_recurrent or other.is_recurrent,
            self.is_indexed or other.is_indexed,
            self.blocks | other.blocks,
            self.head or other.head,
        )


_kept: OrderedDict[bytes, Seen] = OrderedDict()


def see_graph(payload: bytearray) -> Seen:
    """Return what the graph of a GRAPH_COMPUTE does.

    A client's two counters are told each graph, and many come again with the next answer: what was
    found of the :data:`KEPT` that were seen last is kept, by the BLAKE3 of the payload.

    Raises:
        BadFrameError: it is not as long as its counts say.
    """
    digest = blake3(payload).digest()
    seen = _kept.get(digest)
    if seen is None:
        seen = _kept[digest] = _see(payload)
        if len(_kept) > KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end(digest)
    return seen


def _see(payload: bytearray) -> Seen:
    tensors = read_graph(payload).tensors
    ops = tensors["op"]
    roots = _roots(tensors)
    is_leaf = ops[roots] == NONE
    written = roots[is_leaf & (roots != np.arange(len(roots))) & ~np.isin(ops, VIEWS)]
    is_cache = np.zeros(len(roots), bool)
    is_cache[written] = True
    names = set(tensors["name"].tolist())
    rows = np.flatnonzero((ops == MUL_MAT) | (ops == MUL_MAT_ID))
    factors = _rows_of(tensors["id"], tensors["src"][rows, 0])
    with_weights = factors >= 0
    with_weights[with_weights] = (is_leaf & ~is_cache[roots])[factors[with_weights]]
    products, weights = tensors[rows[with_weights]], tensors[factors[with_weights]]
    rotated = tensors["ne"][ops == ROPE].astype(np.float64)[:, 2:].prod(axis=1)
    return Seen(
        positions=int(max(rotated.max(initial=0), _positions(products, weights))),
        weights=_addresses(weights),
        caches=_addresses(tensors[written]),
        computes=len(rows) > 0 or not np.isin(ops, MOVES).all(),
        multiplications=len(rows),
        rotations=len(rotated),
        attentions=int((ops == FLASH_ATTN).sum()),
        is_recurrent=bool(np.isin(ops, RECURRENT).any()),
        is_indexed=bool(np.isin(ops, INDEXED).any()),
        blocks=frozenset(int(found[1]) for name in names if (found := BLOCK.match(name))),
        head=not names.isdisjoint(HEADS),
    )


def _positions(products: NDArray[Any], weights: NDArray[Any]) -> float:
    """Return how many rows half of the work has at least.

    Not the most: some models and caches turn single heads by a small matrix, which has a row for
    each head. Not the least: the output is computed for fewer positions.
    """
    if not len(products):
        return 0
    ne, its = products["ne"].astype(np.float64), weights["ne"].astype(np.float64)
    many = np.ceil(ne[:, 1] / EXPERTS) * ne[:, 2] * ne[:, 3]
    one = ne[:, 1:].prod(axis=1) / np.maximum(its[:, 2:].prod(axis=1), 1)
    rows = np.where(products["op"] == MUL_MAT_ID, many, np.floor(one))
    work = ne.prod(axis=1) * its[:, 0]
    order = np.argsort(-rows, kind="stable")
    done = np.cumsum(work[order])
    return float(rows[order][np.searchsorted(done, done[-1] / 2)])


def _roots(tensors: NDArray[Any]) -> NDArray[np.int64]:
    """Return the row of what each tensor is a view of; of others their own."""
    viewed = _rows_of(tensors["id"], tensors["view_src"])
    return np.where(viewed < 0, np.arange(len(tensors)), viewed)


def _rows_of(ids: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the rows of tensors by their ids; -1: of none."""
    if not len(ids):
        return np.full(len(wanted), -1)
    order = np.argsort(ids, kind="stable")
    at = order[np.minimum(np.searchsorted(ids[order], wanted), len(ids) - 1)]
    return np.where((wanted != 0) & (ids[at] == wanted), at, -1)


def _addresses(tensors: NDArray[Any]) -> frozenset[int]:
    return frozenset(tensors["data"].tolist()) - {0}


def _up(count: int, each: int) -> int:
    return -(-count // each)
