"""The operations of models with a state (Mamba, RWKV, delta nets) and of sparse attention.

As in :mod:`firewall_ops`; beside the conditions of ``ggml.c``: the time-first weights of RWKV_WKV6,
the queries and keys of GATED_DELTA_NET, tokens that are no multiple of the sequences, and how the
states of SSM_SCAN lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoestring.swarm.firewall_nodes import divides
from shoestring.swarm.firewall_ops import READ

if TYPE_CHECKING:
    from shoestring.swarm.firewall_nodes import Nodes, Part, Truths

MIXES = 4
"""Streams of DeepSeek's hyper-connections; the kernel knows no other number."""
MIX_SCALES = 3
MIX_SIDE = (2 + MIXES) * MIXES


def ssm_conv(n: Nodes) -> Truths:
    """SSM_CONV: a window over the tokens of each sequence."""
    x, weights, out = n.src(0), n.src(1), n.out
    tokens = x.ne[0] - weights.ne[0] + 1
    right = _floats(x, weights, out) & (x.nb[1] == x.ne[0] * x.size) & (tokens >= 0)
    right &= x.shaped(x.ne[0], weights.ne[1], x.ne[2]) & weights.shaped(*weights.ne[:2])
    right &= out.shaped(weights.ne[1], tokens, x.ne[2])
    return right & x.packed & weights.contiguous & out.packed


def ssm_scan(n: Nodes) -> Truths:
    """SSM_SCAN: states, x, dt, A, B, C, and which state each sequence has."""
    s, x, dt, a, b, c, ids = (n.src(number) for number in range(7))
    width, heads, tokens, sequences = x.ne
    snapshots = n.params[0].astype(np.int64)
    right = _floats(s, x, dt, a, b, c, n.out) & ids.of("I32") & (snapshots > 0)
    right &= (s.ne[1] == width) & (s.ne[2] == heads) & (b.ne[0] == s.ne[0])
    right &= dt.shaped(heads, tokens, sequences) & ids.shaped(sequences)
    right &= (b.ne[2] == tokens) & (b.ne[3] == sequences) & c.like(b) & divides(b.ne[1], heads)
    right &= a.shaped(a.ne[0], heads) & ((a.ne[0] == 1) | ((a.ne[0] == s.ne[0]) & (snapshots == 1)))
    states = s.ne[:3].prod(axis=0)
    right &= (s.nb[3] == states * s.size) | (sequences == 1)
    right &= n.out.shaped(x.elements + snapshots * states * sequences)
    for part in (s, x, dt, a, b, c, ids):
        right &= part.packed
    for part in (x, b, c):
        right &= (part.nb[1] == part.ne[0] * part.size) | (part.ne[1] == 1)
    return right & s.contiguous & dt.contiguous & a.contiguous & n.out.contiguous


def wkv6(n: Nodes) -> Truths:
    """RWKV_WKV6: k, v, r, first, decay, state."""
    k, first = n.src(0), n.src(3)
    shaped = first.contiguous & first.of("F32") & (first.elements == k.ne[0] * k.ne[1])
    return shaped & _recurrent(n, (0, 1, 2, 4), 5)


def wkv7(n: Nodes) -> Truths:
    """RWKV_WKV7: r, w, k, v, a, b, state."""
    return _recurrent(n, (0, 1, 2, 3, 4, 5), 6)


def linear_attention(n: Nodes) -> Truths:
    """GATED_LINEAR_ATTN: k, v, q, g, state."""
    return _recurrent(n, (0, 1, 2, 3), 4)


def _recurrent(n: Nodes, inputs: tuple[int, ...], state_number: int) -> Truths:
    """Whether the inputs are alike, and the result holds as many rows as tokens and states."""
    first, state = n.src(inputs[0]), n.src(state_number)
    side, heads, tokens, _ = first.ne
    sequences = state.ne[1]
    right = state.of("F32") & state.contiguous & divides(sequences, tokens)
    right &= state.elements == side * side * heads * sequences
    for part in map(n.src, inputs):
        right &= part.of("F32") & part.contiguous & part.shaped(side, heads, tokens)
    out = n.out
    right &= out.of("F32") & out.contiguous
    return right & out.shaped(side * heads, tokens + side * sequences)


def solve_triangle(n: Nodes) -> Truths:
    """SOLVE_TRI: a square matrix and what it was multiplied to."""
    a, b, out = n.src(0), n.src(1), n.out
    sides = a.shaped(b.ne[1], b.ne[1], *b.ne[2:]) & out.like(b)
    return sides & _floats(a, b, out) & a.contiguous & b.contiguous & out.contiguous


def delta_net(n: Nodes) -> Truths:
    """GATED_DELTA_NET: q, k, v, g, beta, state."""
    q, k, v, g, beta, state = (n.src(number) for number in range(6))
    side, heads, tokens, sequences = v.ne
    snapshots = n.params[0].astype(np.int64)
    right = _floats(q, k, v, g, beta, state, n.out) & (snapshots > 0)
    for part in (q, k):
        right &= (part.ne[0] == side) & (part.ne[1] > 0) & (part.ne[2] == tokens)
        right &= divides(part.ne[3], sequences) & part.rows
    right &= g.shaped(np.where(g.ne[0] == 1, 1, side), heads, tokens, sequences)
    right &= beta.shaped(1, heads, tokens, sequences) & state.shaped(side, side, heads, sequences)
    right &= n.out.shaped(side * heads, tokens * sequences + snapshots * side * sequences)
    right &= v.rows & g.contiguous & beta.contiguous & state.contiguous
    return right & n.out.contiguous


def indexer(n: Nodes) -> Truths:
    """LIGHTNING_INDEXER: q, k, weights, mask."""
    q, k, weights, mask = (n.src(number) for number in range(4))
    side, heads, tokens, streams = q.ne
    right = k.shaped(side, 1, k.ne[2], streams) & weights.shaped(heads, tokens, 1, streams)
    right &= mask.shaped(k.ne[2], tokens, 1, mask.ne[3]) & divides(mask.ne[3], streams)
    right &= n.out.shaped(k.ne[2], tokens, 1, streams) & k.of(*READ) & mask.of("F16")
    right &= q.packed & k.packed & weights.packed & mask.packed & n.out.packed
    return right & _floats(q, weights, n.out)


def mixes_combined(n: Nodes) -> Truths:
    """DSV4_HC_COMB: mixes, scale, base."""
    mixes, scale, base, out = n.src(0), n.src(1), n.src(2), n.out
    right = mixes.shaped(MIX_SIDE, mixes.ne[1]) & base.shaped(MIX_SIDE)
    right &= scale.shaped(scale.ne[0]) & (scale.ne[0] >= MIX_SCALES)
    return right & out.shaped(MIXES, MIXES, mixes.ne[1]) & _floats(mixes, scale, base, out)


def mixes_before(n: Nodes) -> Truths:
    """DSV4_HC_PRE: x and weights, a number or a row of them for each stream."""
    x, weights, out = n.src(0), n.src(1), n.out
    gated = (n.params[1] == 1) & weights.shaped(*x.ne[:3])
    right = gated | ((n.params[1] == 0) & weights.shaped(x.ne[1], x.ne[2]))
    right &= x.shaped(*x.ne[:3]) & (x.ne[1] > 0) & out.shaped(x.ne[0], x.ne[2])
    return right & _floats(x, weights, out)


def mixes_after(n: Nodes) -> Truths:
    """DSV4_HC_POST: x, residual, post, and perhaps comb."""
    x, residual, post, comb = (n.src(number) for number in range(4))
    side, tokens = x.ne[:2]
    streams = residual.ne[1]
    right = x.shaped(side, tokens) & residual.shaped(side, streams, tokens) & (streams > 0)
    right &= post.shaped(streams, tokens) & n.out.shaped(side, streams, tokens)
    right &= ~comb.here | (comb.of("F32") & comb.shaped(streams, streams, tokens))
    return right & _floats(x, residual, post, n.out)


def _floats(*parts: Part) -> Truths:
    right = parts[0].of("F32")
    for part in parts[1:]:
        right = right & part.of("F32")
    return right
