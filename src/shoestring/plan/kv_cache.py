"""What llama.cpp's KV cache takes: cells, bytes of a cell, and layers that keep only a window.

The cache is cut into one stream for each request, and a stream into cells of one token; it has a
multiple of :data:`CELLS` of them. A layer with a sliding window keeps the window and one batch of
work, however long the context is. What such a layer has let go cannot be rolled back, so the
server copies the windows while it reads a prompt (checkpoints).

Sources in llama.cpp: ``src/llama-context.cpp`` (streams), ``src/llama-kv-cache-iswa.cpp``
(windows), ``src/models/*.cpp`` (which layers have one), ``tools/server/server-context.cpp``
(checkpoints). All sizes are in bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoestring.models.shapes import Shape
    from shoestring.plan.memory import Settings

CacheType: TypeAlias = Literal[
    "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"
]
CACHE_BLOCKS: Mapping[CacheType, tuple[int, int]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
"""Elements and bytes of one block of the KV cache, by the types that llama-server takes."""
CELLS = 256
"""A cache is made in steps of so many tokens."""
GLOBAL_EVERY: Mapping[str, int] = {
    "gemma2": 2,
    "gemma3": 6,
    "gpt-oss": 2,
    "cohere2": 4,
    "exaone4": 4,
    "olmo2": 4,
}
"""Of so many layers of an architecture the last sees the whole context, the others a window.

Any other is taken to see the whole context in every layer, which is never too little; of phi3 it
is true: llama.cpp has no windows for it, and says so.
"""
BEFORE_END = 4
"""Tokens before the end of a prompt at which the server makes its last checkpoint."""


def cells_of_stream(settings: Settings) -> int:
    """Return the cells that one request has in a layer that sees everything."""
    return whole_cells(whole_cells(settings.context * settings.parallel) // settings.parallel)


def cells_of_window(shape: Shape, settings: Settings) -> int:
    """Return the cells that one request has in a layer that sees a window."""
    cells = cells_of_stream(settings)
    work = min(settings.ubatch, settings.batch, cells * settings.parallel)
    return whole_cells(min(cells, (shape.sliding_window or cells) + work))


def cache_by_layer(shape: Shape, settings: Settings) -> tuple[int, ...]:
    """Return the bytes of the KV cache of each layer, of all requests together."""
    whole, window = cells_of_stream(settings), cells_of_window(shape, settings)
    token = settings.parallel * bytes_of_token(shape, settings)
    return tuple(
        token * (window if is_local(shape, layer) else whole) for layer in range(shape.layers)
    )


def checkpoint_bytes(shape: Shape, settings: Settings, filled: int) -> int:
    """Return what the server copies of the windows while it reads one prompt.

    It does so twice: a batch of work before the prompt ends, and just before it ends; a shorter
    prompt has only the second copy. Each holds the tokens that a window then sees.

    Args:
        shape: of the model.
        settings: of the engine.
        filled: tokens of the prompt.
    """
    local = sum(is_local(shape, layer) for layer in range(shape.layers))
    window = shape.sliding_window or 0
    ends = (filled - BEFORE_END - settings.ubatch, filled - BEFORE_END)
    tokens = sum(min(end, window) for end in ends if end > 0)
    return local * tokens * bytes_of_token(shape, settings)


def bytes_of_token(shape: Shape, settings: Settings) -> int:
    """Return what one token takes in one layer, keys and values."""
    width = shape.kv_heads * shape.head_dim
    return sum(
        width * block_bytes // elements
        for elements, block_bytes in (
            CACHE_BLOCKS[settings.cache_type_k],
            CACHE_BLOCKS[settings.cache_type_v],
        )
    )


def is_local(shape: Shape, layer: int) -> bool:
    """Say whether a layer sees only a window."""
    every = GLOBAL_EVERY.get(shape.architecture)
    return shape.sliding_window is not None and every is not None and (layer + 1) % every != 0


def whole_cells(tokens: int) -> int:
    """Round up to whole steps of a cache."""
    return -(-tokens // CELLS) * CELLS
