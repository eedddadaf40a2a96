"""Tensors as they are worded on the wire: types, operations, layout, and graphs of them.

Source: ``ggml/include/ggml.h`` (numbers), ``ggml/src/ggml-common.h`` (sizes of blocks) and
``struct rpc_tensor`` in ``ggml/src/ggml-rpc/ggml-rpc.cpp``, all of llama.cpp 0c1e57098.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoestring.swarm.wire import GRAPH, TENSOR_BYTES, U32, BadFrameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSIONS = 4
SOURCES = 10

TENSOR = np.dtype(
    [
        ("id", "<u8"),
        ("type", "<u4"),
        ("buffer", "<u8"),
        ("ne", "<u4", DIMENSIONS),
        ("nb", "<u4", DIMENSIONS),
        ("op", "<u4"),
        ("op_params", "<i4", 16),
        ("flags", "<i4"),
        ("src", "<u8", SOURCES),
        ("view_src", "<u8"),
        ("view_offs", "<u8"),
        ("data", "<u8"),
        ("name", "S64"),
        ("use_count", "<i4"),
    ]
)
"""``struct rpc_tensor``, 296 bytes; only ``buffer`` and ``data`` are addresses of the worker."""


class Type(NamedTuple):
    """How a type of numbers is stored: ``size`` bytes for each ``block`` numbers."""

    name: str
    block: int
    size: int


TYPES: dict[int, Type] = {
    0: Type("F32", 1, 4),
    1: Type("F16", 1, 2),
    2: Type("Q4_0", 32, 18),
    3: Type("Q4_1", 32, 20),
    6: Type("Q5_0", 32, 22),
    7: Type("Q5_1", 32, 24),
    8: Type("Q8_0", 32, 34),
    9: Type("Q8_1", 32, 36),
    10: Type("Q2_K", 256, 84),
    11: Type("Q3_K", 256, 110),
    12: Type("Q4_K", 256, 144),
    13: Type("Q5_K", 256, 176),
    14: Type("Q6_K", 256, 210),
    15: Type("Q8_K", 256, 292),
    16: Type("IQ2_XXS", 256, 66),
    17: Type("IQ2_XS", 256, 74),
    18: Type("IQ3_XXS", 256, 98),
    19: Type("IQ1_S", 256, 50),
    20: Type("IQ4_NL", 32, 18),
    21: Type("IQ3_S", 256, 110),
    22: Type("IQ2_S", 256, 82),
    23: Type("IQ4_XS", 256, 136),
    24: Type("I8", 1, 1),
    25: Type("I16", 1, 2),
    26: Type("I32", 1, 4),
    27: Type("I64", 1, 8),
    28: Type("F64", 1, 8),
    29: Type("IQ1_M", 256, 56),
    30: Type("BF16", 1, 2),
    34: Type("TQ1_0", 256, 54),
    35: Type("TQ2_0", 256, 66),
    39: Type("MXFP4", 32, 17),
    40: Type("NVFP4", 64, 36),
    41: Type("Q1_0", 128, 18),
    42: Type("Q2_0", 64, 18),
}
"""By number; those that ggml removed are not here."""
TYPE_COUNT = 43
NUMBER_OF_TYPE = {kind.name: number for number, kind in TYPES.items()}

OPS = (
    "NONE", "DUP", "ADD", "ADD_ID", "ADD1", "ACC", "SUB", "MUL", "DIV", "SQR", "SQRT", "LOG", "SIN",
    "COS", "SUM", "SUM_ROWS", "CUMSUM", "MEAN", "ARGMAX", "COUNT_EQUAL", "REPEAT", "REPEAT_BACK",
    "CONCAT", "SILU_BACK", "NORM", "RMS_NORM", "RMS_NORM_BACK", "GROUP_NORM", "L2_NORM", "MUL_MAT",
    "MUL_MAT_ID", "OUT_PROD", "SCALE", "SET", "CPY", "CONT", "RESHAPE", "VIEW", "PERMUTE",
    "TRANSPOSE", "GET_ROWS", "GET_ROWS_BACK", "SET_ROWS", "DIAG", "DIAG_MASK_INF", "DIAG_MASK_ZERO",
    "SOFT_MAX", "SOFT_MAX_BACK", "ROPE", "ROPE_BACK", "CLAMP", "CONV_TRANSPOSE_1D", "IM2COL",
    "IM2COL_BACK", "IM2COL_3D", "COL2IM_1D", "CONV_2D", "CONV_3D", "CONV_2D_DW",
    "CONV_TRANSPOSE_2D", "POOL_1D", "POOL_2D", "POOL_2D_BACK", "UPSCALE", "PAD", "PAD_REFLECT_1D",
    "ROLL", "ARANGE", "TIMESTEP_EMBEDDING", "ARGSORT", "TOP_K", "LEAKY_RELU", "TRI", "FILL",
    "FLASH_ATTN_EXT", "FLASH_ATTN_BACK", "SSM_CONV", "SSM_SCAN", "WIN_PART", "WIN_UNPART",
    "GET_REL_POS", "ADD_REL_POS", "RWKV_WKV6", "GATED_LINEAR_ATTN", "RWKV_WKV7", "SOLVE_TRI",
    "GATED_DELTA_NET", "LIGHTNING_INDEXER", "DSV4_HC_COMB", "DSV4_HC_PRE", "DSV4_HC_POST", "UNARY",
    "MAP_CUSTOM1", "MAP_CUSTOM2", "MAP_CUSTOM3", "CUSTOM", "CROSS_ENTROPY_LOSS",
    "CROSS_ENTROPY_LOSS_BACK", "OPT_STEP_ADAMW", "OPT_STEP_SGD", "GLU",
)  # fmt: skip
"""Operations in the order of their numbers."""
NUMBER_OF_OP = {name: number for number, name in enumerate(OPS)}
EMPTY_OPS = ("NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE")
"""Those for which nothing is computed."""


class Graph(NamedTuple):
    """What a GRAPH_COMPUTE asks for.

    Attributes:
        device: number of the worker's device.
        nodes: ids of the tensors that are computed, in their order.
        tensors: of dtype :data:`TENSOR`; writing to it changes the frame.
    """

    device: int
    nodes: NDArray[np.uint64]
    tensors: NDArray[Any]


def read_graph(payload: bytearray) -> Graph:
    """Read a GRAPH_COMPUTE: ``u32 device, u32 n, n u64 ids, u32 m, m tensors``.

    Raises:
        BadFrameError: it is not as long as its counts say.
    """
    device, node_count = GRAPH.unpack_from(payload)
    tensors_at = GRAPH.size + 8 * node_count + U32.size
    if tensors_at > len(payload):
        raise BadFrameError("size", f"a graph of {node_count} nodes in {len(payload)} bytes")
    tensor_count = U32.unpack_from(payload, tensors_at - U32.size)[0]
    if tensors_at + tensor_count * TENSOR_BYTES != len(payload):
        raise BadFrameError("size", f"a graph of {tensor_count} tensors in {len(payload)} bytes")
    return Graph(
        device,
        np.frombuffer(payload, "<u8", node_count, GRAPH.size),
        np.frombuffer(payload, TENSOR, tensor_count, tensors_at),
    )
