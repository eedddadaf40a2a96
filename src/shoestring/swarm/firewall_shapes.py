"""Which operations may be computed, and whether the nodes of a graph are such.

An operation without a rule here is refused: those for training, images and sound, and those that
call a function of the client's (MAP_CUSTOM1 to 3, CUSTOM).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shoestring.swarm import firewall_ops as ops
from shoestring.swarm import firewall_ops_layers as layers
from shoestring.swarm import firewall_ops_states as states
from shoestring.swarm.buffers import ForbiddenFrameError
from shoestring.swarm.firewall_nodes import Nodes
from shoestring.swarm.tensors import EMPTY_OPS, NUMBER_OF_OP, OPS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from shoestring.swarm.firewall_graph import Columns
    from shoestring.swarm.firewall_nodes import Truths


class Rule(NamedTuple):
    """What an operation needs.

    Attributes:
        sources: so many are always there.
        holds: says of each node whether it is right.
    """

    sources: int
    holds: Callable[[Nodes], Truths]


RULES: dict[str, Rule] = {
    "ADD": Rule(2, ops.binary),
    "SUB": Rule(2, ops.binary),
    "MUL": Rule(2, ops.binary),
    "DIV": Rule(2, ops.binary),
    "ADD_ID": Rule(3, ops.add_id),
    "SQR": Rule(1, ops.elementwise),
    "SQRT": Rule(1, ops.elementwise),
    "LOG": Rule(1, ops.elementwise),
    "SIN": Rule(1, ops.elementwise),
    "COS": Rule(1, ops.elementwise),
    "UNARY": Rule(1, ops.unary),
    "GLU": Rule(1, ops.glu),
    "SUM": Rule(1, ops.total),
    "SUM_ROWS": Rule(1, ops.row_totals),
    "MEAN": Rule(1, ops.row_totals),
    "CUMSUM": Rule(1, ops.rowwise),
    "ARGMAX": Rule(1, ops.argmax),
    "REPEAT": Rule(1, ops.repeat),
    "CONCAT": Rule(2, ops.concat),
    "NORM": Rule(1, ops.norm),
    "RMS_NORM": Rule(1, ops.rms_norm),
    "L2_NORM": Rule(1, ops.norm),
    "MUL_MAT": Rule(2, layers.mul_mat),
    "MUL_MAT_ID": Rule(3, layers.mul_mat_id),
    "SCALE": Rule(1, ops.scale),
    "SET": Rule(2, ops.set_part),
    "CPY": Rule(2, layers.copy),
    "CONT": Rule(1, layers.cont),
    "GET_ROWS": Rule(2, layers.get_rows),
    "SET_ROWS": Rule(3, layers.set_rows),
    "SOFT_MAX": Rule(1, layers.soft_max),
    "ROPE": Rule(2, layers.rope),
    "ROPE_BACK": Rule(2, layers.rope),
    "CLAMP": Rule(1, ops.clamp),
    "PAD": Rule(1, ops.pad),
    "ARANGE": Rule(0, ops.arange),
    "ARGSORT": Rule(1, ops.sort),
    "TOP_K": Rule(1, ops.top_k),
    "TRI": Rule(1, ops.triangle),
    "FILL": Rule(1, ops.fill),
    "FLASH_ATTN_EXT": Rule(3, layers.flash_attention),
    "SSM_CONV": Rule(2, states.ssm_conv),
    "SSM_SCAN": Rule(7, states.ssm_scan),
    "RWKV_WKV6": Rule(6, states.wkv6),
    "RWKV_WKV7": Rule(7, states.wkv7),
    "GATED_LINEAR_ATTN": Rule(5, states.linear_attention),
    "SOLVE_TRI": Rule(2, states.solve_triangle),
    "GATED_DELTA_NET": Rule(6, states.delta_net),
    "LIGHTNING_INDEXER": Rule(4, states.indexer),
    "DSV4_HC_COMB": Rule(3, states.mixes_combined),
    "DSV4_HC_PRE": Rule(2, states.mixes_before),
    "DSV4_HC_POST": Rule(3, states.mixes_after),
}
EMPTY = frozenset(NUMBER_OF_OP[name] for name in EMPTY_OPS)
ALLOWED = np.array([name in RULES or name in EMPTY_OPS for name in OPS])


def check_nodes(columns: Columns, nodes: NDArray[np.int64], placed: NDArray[np.bool_]) -> None:
    """See that every node may be computed.

    Args:
        columns: the tensors of the graph.
        nodes: rows of those that are computed.
        placed: which tensors lie in a buffer; others may stand in a graph, but nothing reads them.

    Raises:
        ForbiddenFrameError: a node is of a wrong operation, or its sources do not fit.
    """
    number = columns.tensors["op"].astype(np.int64)
    refused = ~ALLOWED[number]
    if refused.any():
        name = OPS[int(number[refused][0])]
        raise ForbiddenFrameError("op", f"{name} is not what language models are made of")
    for op in np.unique(number[nodes]).tolist():
        if op not in EMPTY:
            at = nodes[number[nodes] == op]
            _check_op(OPS[op], Nodes(columns, at), placed)


def _check_op(name: str, nodes: Nodes, placed: NDArray[np.bool_]) -> None:
    rule = RULES[name]
    sources = nodes.columns.src[nodes.at]
    there = (sources[:, : rule.sources] >= 0).all(axis=1)
    _all(there, "source", name, nodes, "without a source")
    reached = placed[nodes.at] & (placed[sources] | (sources < 0)).all(axis=1)
    _all(reached, "buffer", name, nodes, "on what lies in no buffer")
    _all(rule.holds(nodes), "shape", name, nodes, "of shapes that do not fit")


def _all(right: Any, reason: str, op: str, nodes: Nodes, what: str) -> None:
    if not right.all():
        name = nodes.columns.tensors["name"][nodes.at[~right][0]].decode(errors="replace")
        raise ForbiddenFrameError(reason, f"{op} {what}: {name!r}")
