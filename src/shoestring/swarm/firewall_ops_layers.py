"""Matrices, rows, copies, rotations and attention, and which shapes each may have.

As in :mod:`firewall_ops`. What the worker's kernels leave to the one who made the tensors:
FLASH_ATTN_EXT (rows of V and of the mask), ROPE (dimensions below 0, odd rows), CPY of packed rows
into shorter ones (work memory), MUL_MAT with a hint, and the shapes of MUL_MAT_ID.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoestring.swarm.firewall_nodes import divides
from shoestring.swarm.firewall_ops import CACHED, FLOATS, READ, rowwise

if TYPE_CHECKING:
    from shoestring.swarm.firewall_nodes import Nodes, Part, Truths

PACKED = tuple(name for name in CACHED if name not in FLOATS)
HADAMARD = 1
PRECISE = 10
ROPE_NORMAL, ROPE_NEOX, ROPE_MROPE, ROPE_VISION, ROPE_IMROPE = 0, 2, 8, 24, 40


def mul_mat(n: Nodes) -> Truths:
    """MUL_MAT: matrices are repeated over the outer sides."""
    a, b, out = n.src(0), n.src(1), n.out
    sides = (a.ne[0] == b.ne[0]) & divides(a.ne[2], b.ne[2]) & divides(a.ne[3], b.ne[3])
    # With the hint the kernel writes as many numbers as a row of the second source has.
    hadamard = (n.params[1] == HADAMARD) & (a.ne[0] == a.ne[1])
    return (
        (sides & ((n.params[1] == 0) | hadamard) & out.shaped(a.ne[1], *b.ne[1:]))
        & (a.of(*READ) & b.of(*FLOATS) & out.of("F32"))
        & (a.packed & b.packed & out.upright)
    )


def mul_mat_id(n: Nodes) -> Truths:
    """MUL_MAT_ID: for each row the matrices that the third source names."""
    a, b, ids, out = n.src(0), n.src(1), n.src(2), n.out
    sides = (a.ne[0] == b.ne[0]) & (a.ne[3] == 1) & (b.ne[3] == 1) & divides(b.ne[1], ids.ne[0])
    return (
        (sides & ids.shaped(ids.ne[0], b.ne[2]) & out.shaped(a.ne[1], ids.ne[0], b.ne[2]))
        & (a.of(*READ) & b.of("F32") & ids.of("I32") & out.of("F32"))
        & (a.packed & b.packed & out.upright)
    )


def get_rows(n: Nodes) -> Truths:
    """GET_ROWS: those that the second source names."""
    a, ids, out = n.src(0), n.src(1), n.out
    kinds = (a.of(*READ) & out.of("F32")) | (a.of("I32") & out.of("I32"))
    sides = ids.shaped(ids.ne[0], *a.ne[2:]) & out.shaped(a.ne[0], *ids.ne[:3])
    return kinds & ids.of("I32") & sides & a.rows & out.packed


def set_rows(n: Nodes) -> Truths:
    """SET_ROWS: the first source's into those of the third, of which the result is a view."""
    rows, ids, into, out = n.src(0), n.src(1), n.src(2), n.out
    sides = (rows.ne[0] == out.ne[0]) & (rows.ne[2:] == out.ne[2:]).all(axis=0)
    named = (ids.ne[0] == rows.ne[1]) & (ids.ne[3] == 1)
    named &= divides(ids.ne[1], rows.ne[2]) & divides(ids.ne[2], rows.ne[3])
    kinds = rows.of("F32", "F16") & ids.of("I64", "I32") & out.of(*CACHED)
    return kinds & sides & named & _onto(out, into) & rows.rows & out.packed


def copy(n: Nodes) -> Truths:
    """CPY: into what the second source is."""
    return _onto(n.out, n.src(1)) & _converted(n.src(0), n.out)


def cont(n: Nodes) -> Truths:
    """CONT: the same numbers, side by side."""
    return (n.out.kind == n.src(0).kind) & n.out.contiguous & _converted(n.src(0), n.out)


def soft_max(n: Nodes) -> Truths:
    """SOFT_MAX: with a mask and sinks, or without."""
    a, mask, sinks = n.src(0), n.src(1), n.src(2)
    masked = mask.of("F16", "F32") & mask.rows & (mask.ne[0] == a.ne[0])
    masked &= (mask.ne[1] >= a.ne[1]) & divides(mask.ne[2], a.ne[2]) & divides(mask.ne[3], a.ne[3])
    return rowwise(n) & (masked | ~mask.here) & (_sinks(sinks, a) | ~sinks.here)


def rope(n: Nodes) -> Truths:
    """ROPE, ROPE_BACK: positions in the second source, factors in the third."""
    a, at, factors, out = n.src(0), n.src(1), n.src(2), n.out
    dims, mode, first = (n.params[i].astype(np.int64) for i in (1, 2, 15))
    several = (mode == ROPE_MROPE) | (mode == ROPE_VISION) | (mode == ROPE_IMROPE)
    sections = n.params[11:15].astype(np.int64)
    right = several & (sections >= 0).all(axis=0) & (sections[:3].sum(axis=0) > 0)
    right |= (mode == ROPE_NORMAL) | (mode == ROPE_NEOX)
    right &= (dims > 0) & (dims % 2 == 0) & (first >= 0) & (first % 2 == 0)
    right &= (first + dims <= a.ne[0]) & (a.ne[0] % 2 == 0)
    right &= (mode != ROPE_VISION) | ((dims == a.ne[0] // 2) & (first == 0))
    right &= at.of("I32") & at.shaped(a.ne[2] * np.where(several, 4, 1)) & at.rows
    right &= ~factors.here | (factors.of("F32") & factors.rows & (factors.ne[0] >= dims // 2))
    return right & a.of("F32", "F16") & (out.kind == a.kind) & out.like(a) & a.packed & out.packed


def flash_attention(n: Nodes) -> Truths:
    """FLASH_ATTN_EXT: queries, keys, values, and perhaps a mask and sinks."""
    q, k, v, mask, sinks = (n.src(number) for number in range(5))
    right = (q.ne[0] == k.ne[0]) & (k.ne[1] == v.ne[1])
    right &= (q.ne[3] == k.ne[3]) & (q.ne[3] == v.ne[3])
    right &= divides(k.ne[2], q.ne[2]) & divides(v.ne[2], q.ne[2])
    masked = mask.of("F16") & mask.rows & (mask.ne[0] >= k.ne[1]) & (mask.ne[1] >= q.ne[1])
    masked &= divides(mask.ne[2], q.ne[2]) & divides(mask.ne[3], q.ne[3])
    right &= (masked | ~mask.here) & (_sinks(sinks, q) | ~sinks.here)
    right &= q.of("F32") & k.of(*CACHED) & v.of(*CACHED) & n.out.of("F32")
    precise = (n.params[3] == 0) | (n.params[3] == PRECISE)
    right &= n.out.shaped(v.ne[0], q.ne[2], q.ne[1], q.ne[3]) & precise
    return right & q.packed & k.packed & v.packed & n.out.upright


def _sinks(sinks: Part, a: Part) -> Truths:
    return sinks.of("F32") & sinks.rows & (sinks.ne[0] == a.ne[2])


def _onto(out: Part, into: Part) -> Truths:
    """Whether a result lies as what it is written into."""
    return (out.nb == into.nb).all(axis=0) & out.like(into) & (out.kind == into.kind)


def _converted(a: Part, out: Part) -> Truths:
    """Whether the numbers of one can be written as the other's."""
    alike = (a.kind == out.kind) & (
        (a.block == 1) | (a.contiguous & out.contiguous) | (a.like(out) & a.rows & out.packed)
    )
    floats = a.of(*FLOATS) & out.of(*FLOATS)
    whole = (a.of("F32") & out.of("I32")) | (a.of("I32") & out.of("F32"))
    # The worker's work memory is measured by the result's rows and filled by the source's.
    packed = a.of(*FLOATS) & a.rows & out.of(*PACKED) & out.contiguous & (a.ne[0] == out.ne[0])
    unpacked = a.of(*READ) & (a.block > 1) & out.of("F32") & out.packed
    return (a.elements == out.elements) & (alike | floats | whole | packed | unpacked)
