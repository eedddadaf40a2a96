"""The operations that most language models are made of, and which shapes each may have.

ggml checks shapes where it makes a tensor (``ggml.c``), and the worker makes none: it takes them
from the frame. Its kernels repeat some of those checks as GGML_ASSERT (the worker dies), some as
``assert`` (not there in what people run), some not at all. So the conditions of ``ggml.c`` stand
here again, and more where a kernel of ``ggml-cpu/ops.cpp`` would leave its tensors nevertheless:
SET (offsets below 0), PAD (around), SCALE, CLAMP, GLU, ARGSORT, TOP_K (rows by ``nb[1]``).
All of llama.cpp 0c1e57098. A rule is asked for all nodes of its operation, and answers for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoestring.swarm.tensors import DIMENSIONS, TYPES

if TYPE_CHECKING:
    from shoestring.swarm.firewall_nodes import Nodes, Truths

FLOATS = ("F32", "F16", "BF16")
NOT_READ = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")
READ = tuple(kind.name for kind in TYPES.values() if kind.name not in NOT_READ)
"""Types that have ``vec_dot`` and, but for F32 that needs none, ``to_float``."""
CACHED = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")
"""Types of llama.cpp's KV cache (``kv_cache_types``); all have ``from_float``."""
UNARY_COUNT = 22
GLU_COUNT = 7
TRI_COUNT = 4


def elementwise(n: Nodes) -> Truths:
    """SQR, SQRT, LOG, SIN, COS: each number for itself."""
    a, out = n.src(0), n.out
    kinds = a.of(*FLOATS) & ((out.kind == a.kind) | out.of("F32"))
    return kinds & out.like(a) & a.packed & out.packed


def unary(n: Nodes) -> Truths:
    """UNARY: one of ``ggml_unary_op``."""
    return elementwise(n) & (n.params[0] >= 0) & (n.params[0] < UNARY_COUNT)


def binary(n: Nodes) -> Truths:
    """ADD, SUB, MUL, DIV: the second is repeated over the first."""
    a, b, out = n.src(0), n.src(1), n.out
    alike = (b.kind == a.kind) & (out.kind == a.kind)
    kinds = a.of(*FLOATS) & (alike | (b.of("F32") & ((out.kind == a.kind) | out.of("F32"))))
    return kinds & out.like(a) & b.repeats(a) & a.packed & out.packed


def add_id(n: Nodes) -> Truths:
    """ADD_ID: to each row one of the second's, as the third says."""
    a, b, ids, out = n.src(0), n.src(1), n.src(2), n.out
    kinds = a.of("F32") & b.of("F32") & out.of("F32") & ids.of("I32")
    sides = (a.ne[0] == b.ne[0]) & (a.ne[1] == ids.ne[0]) & (a.ne[2] == ids.ne[1])
    return kinds & sides & out.like(a) & a.packed & b.packed & out.packed


def glu(n: Nodes) -> Truths:
    """GLU: the gate is the second source, or half of the first."""
    a, gate, out = n.src(0), n.src(1), n.out
    wide = np.where(gate.here, a.ne[0], a.ne[0] // 2)
    gated = ~gate.here | (gate.like(a) & (gate.kind == a.kind) & gate.flat)
    right = (n.params[0] >= 0) & (n.params[0] < GLU_COUNT) & (out.kind == a.kind) & a.of(*FLOATS)
    return right & gated & out.shaped(wide, *a.ne[1:]) & a.flat & out.flat


def rowwise(n: Nodes) -> Truths:
    """CUMSUM: along each row."""
    a, out = n.src(0), n.out
    return a.of("F32") & out.of("F32") & out.like(a) & a.packed & out.packed


def norm(n: Nodes) -> Truths:
    """NORM, L2_NORM: of each row, however it lies."""
    a, out = n.src(0), n.out
    epsilon = np.ascontiguousarray(n.params[0]).view(np.float32)
    return a.of("F32") & out.of("F32") & out.like(a) & out.packed & (epsilon >= 0)


def rms_norm(n: Nodes) -> Truths:
    """RMS_NORM: of each row, whose numbers lie side by side."""
    return norm(n) & n.src(0).packed


def scale(n: Nodes) -> Truths:
    """SCALE: the kernel takes the result's stride for the source's too."""
    a, out = n.src(0), n.out
    strides = (a.nb[1] == out.nb[1]) | (a.ne[1:].prod(axis=0) <= 1)
    return a.of("F32", "BF16") & (out.kind == a.kind) & out.like(a) & a.flat & out.flat & strides


def clamp(n: Nodes) -> Truths:
    """CLAMP: between two numbers."""
    a, out = n.src(0), n.out
    return a.of("F32", "F16") & (out.kind == a.kind) & out.like(a) & a.flat & out.flat


def fill(n: Nodes) -> Truths:
    """FILL, TRI: what is in a part of a tensor is set."""
    a, out = n.src(0), n.out
    return a.of("F32", "F16") & (out.kind == a.kind) & out.like(a) & a.rows & out.packed


def triangle(n: Nodes) -> Truths:
    """TRI: one of four, of squares."""
    kinds = (n.params[0] >= 0) & (n.params[0] < TRI_COUNT)
    return fill(n) & n.src(0).of("F32") & n.src(0).contiguous & (n.out.ne[0] == n.out.ne[1]) & kinds


def total(n: Nodes) -> Truths:
    """SUM: of all numbers."""
    a, out = n.src(0), n.out
    return a.of(*FLOATS) & (out.kind == a.kind) & (out.elements == 1) & a.rows


def row_totals(n: Nodes) -> Truths:
    """SUM_ROWS, MEAN: of each row."""
    a, out = n.src(0), n.out
    return a.of("F32") & out.of("F32") & out.shaped(1, *a.ne[1:]) & a.packed & out.packed


def argmax(n: Nodes) -> Truths:
    """ARGMAX: of each row of a matrix."""
    a, out = n.src(0), n.out
    return a.of("F32") & out.of("I32") & a.shaped(*a.ne[:2]) & out.shaped(a.ne[1]) & a.rows


def repeat(n: Nodes) -> Truths:
    """REPEAT: the source over the result."""
    a, out = n.src(0), n.out
    kinds = a.of(*FLOATS, "I32", "I16") & (out.kind == a.kind)
    return kinds & a.repeats(out) & a.packed & out.packed


def concat(n: Nodes) -> Truths:
    """CONCAT: one after the other along a side."""
    a, b, out = n.src(0), n.src(1), n.out
    right = (a.kind == b.kind) & (out.kind == a.kind) & out.packed
    right &= (n.params[0] >= 0) & (n.params[0] < DIMENSIONS)
    for side in range(DIMENSIONS):
        along = n.params[0] == side
        right &= along | (a.ne[side] == b.ne[side])
        right &= out.ne[side] == a.ne[side] + np.where(along, b.ne[side], 0)
    return right & (((a.block == 1) & (b.block == 1)) | (a.rows & b.rows))


def pad(n: Nodes) -> Truths:
    """PAD: with zeros; not around, as on a torus."""
    a, out = n.src(0), n.out
    left, right = n.params[0:8:2].astype(np.int64), n.params[1:8:2].astype(np.int64)
    sides = (out.ne == a.ne + left + right).all(axis=0) & (n.params[8] == 0)
    return sides & a.of("F32") & out.of("F32") & out.contiguous


def arange(n: Nodes) -> Truths:
    """ARANGE: from a number to another, by steps."""
    start, stop, step = np.ascontiguousarray(n.params[:3]).view(np.float32)
    with np.errstate(all="ignore"):  # any bits are a number here, or none
        right = np.ceil((stop - start) / step) == n.out.elements
    return right & n.out.of("F32") & n.out.upright


def sort(n: Nodes) -> Truths:
    """ARGSORT: each row, in one of two orders."""
    a, out = n.src(0), n.out
    orders = (n.params[0] == 0) | (n.params[0] == 1)
    return orders & a.of("F32") & out.of("I32") & out.like(a) & a.flat & out.flat


def top_k(n: Nodes) -> Truths:
    """TOP_K: of each row."""
    a, out = n.src(0), n.out
    right = a.of("F32") & out.of("I32") & out.shaped(out.ne[0], *a.ne[1:])
    return right & (out.ne[0] <= a.ne[0]) & a.flat & out.flat


def set_part(n: Nodes) -> Truths:
    """SET: the second source into a part of the first, which the parameters describe."""
    a, b, out = n.src(0), n.src(1), n.out
    steps = np.maximum(n.params[:3].astype(np.int64), 0)
    offset = n.params[3].astype(np.int64)
    last = offset + ((np.maximum(b.ne[1:], 1) - 1) * steps).sum(axis=0) + b.ne[0] * b.size
    inside = (n.params[:4] >= 0).all(axis=0) & (last <= out.elements * out.size)
    kinds = a.of("F32") & b.of("F32") & out.of("F32")
    return kinds & inside & out.like(a) & a.contiguous & out.contiguous & b.packed
