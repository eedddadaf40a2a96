"""What a model needs in memory at a context, part by part, before anything is started.

::

    weights    each tensor's blocks, by the layout and the quantisation that the file would have
    KV cache   2 * heads of keys and values * width of a head * cells * bytes, summed over layers
    compute    what one batch of UBATCH tokens takes on its way, the largest step of it
    repacked   on processors a second copy of the tensors whose blocks llama.cpp rearranges

Weights and KV cache are exact for llama.cpp; a test compares them with what ``llama-fit-params``
says of the same file. The compute buffer is a formula for its three largest steps, and right
within a few MiB where that program prints it. A layer with a sliding window keeps only the window
and one batch, however long the context is.

Sources: ``src/llama-kv-cache-iswa.cpp`` and ``ggml/src/ggml-cpu/repack.cpp`` of llama.cpp, and
figures that its programs print (``docs/feasibility.md``). All sizes are in bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from shoestring.models.layouts import list_tensors
from shoestring.models.quantising import choose_type
from shoestring.models.shape_names import load_shape, parse_shape_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoestring.models.shapes import Shape

CacheType: TypeAlias = Literal["f16", "q8_0", "q4_0"]
CACHE_BLOCKS: Mapping[CacheType, tuple[int, int]] = {
    "f16": (1, 2),
    "q8_0": (32, 34),
    "q4_0": (32, 18),
}
"""Elements and bytes of one block of the KV cache."""
CELLS = 256
"""A cache is made in steps of so many tokens."""
UBATCH = 512
"""Tokens that are computed at once, as llama.cpp and Ollama do by default."""
FLOAT, HALF = 4, 2
REPACKED = frozenset({"Q2_K", "Q4_0", "Q4_K"})
"""Types that llama.cpp rearranges for x86 processors with AVX2, into memory of their own."""
GLOBAL_EVERY = 6
"""Of so many layers of Gemma 3 the last sees the whole context, the others a window."""


@dataclass(frozen=True)
class Demand:
    """What a model needs, by the pieces that can lie in different places.

    Attributes:
        embedding_bytes: the rows of the tokens; they stay in RAM whatever is on GPUs.
        layer_bytes: weights of each layer.
        output_bytes: what turns the last layer into tokens; of a model that uses its embedding
            for that, a copy of it, which only a GPU needs.
        cache_bytes: KV cache of each layer.
        compute_bytes: for the work itself, on each device anew.
        repacked_bytes: of the copies that processors make of each layer and, last, of the output.
        tied: whether the output is the embedding.
    """

    embedding_bytes: int
    layer_bytes: tuple[int, ...]
    output_bytes: int
    cache_bytes: tuple[int, ...]
    compute_bytes: int
    repacked_bytes: tuple[int, ...]
    tied: bool

    @property
    def file_bytes(self) -> int:
        """All weights, each once."""
        copied = self.embedding_bytes if self.tied else 0
        return self.embedding_bytes + sum(self.layer_bytes) + self.output_bytes - copied

    @property
    def on_gpus_bytes(self) -> int:
        """What lies on GPUs where the model is whole there, without buffers for the work."""
        return sum(self.layer_bytes) + self.output_bytes + sum(self.cache_bytes)


def describe_demand(
    name: str,
    context: int,
    *,
    parallel: int = 1,
    cache_type: CacheType = "f16",
    flash_attention: bool = True,
) -> Demand:
    """Say what a model needs.

    Args:
        name: as after ``shape:``, for example ``llama-3.1-8b:q4_k_m``.
        context: tokens for each request.
        parallel: requests at once, each with a context of its own.
        cache_type: of the KV cache.
        flash_attention: without it the scores of a whole batch are held at once.

    Raises:
        BadModelError: the name is unknown.
    """
    parsed = parse_shape_name(name)
    shape = load_shape(parsed)
    tensors = _tensors(shape, parsed.quant)
    embedding = _sum(tensors, "token_embd.")
    layers = [f"blk.{layer}." for layer in range(shape.layers)]
    output = _sum(tensors, "output") + (embedding if shape.tied else 0)
    return Demand(
        embedding_bytes=embedding,
        # The factors of Llama 3's rotary embedding are no layer's; they are too small to matter.
        layer_bytes=tuple(_sum(tensors, layer) for layer in layers),
        output_bytes=output,
        cache_bytes=cache_by_layer(shape, context, parallel=parallel, cache_type=cache_type),
        compute_bytes=compute_buffer(shape, context * parallel, flash_attention=flash_attention),
        repacked_bytes=tuple(
            _sum([tensor for tensor in tensors if tensor.type_name in REPACKED], part)
            for part in (*layers, "output")
        ),
        tied=shape.tied,
    )


def cache_by_layer(
    shape: Shape, context: int, *, parallel: int = 1, cache_type: CacheType = "f16"
) -> tuple[int, ...]:
    """Return the bytes of the KV cache of each layer; arguments as in :func:`describe_demand`."""
    elements, block_bytes = CACHE_BLOCKS[cache_type]
    row_bytes = 2 * shape.kv_heads * shape.head_dim * block_bytes // elements
    whole = _whole_cells(context * parallel)
    window = min(whole, _whole_cells((shape.sliding_window or 0) * parallel + UBATCH))
    return tuple(
        row_bytes * (window if _is_local(shape, layer) else whole) for layer in range(shape.layers)
    )


def compute_buffer(shape: Shape, tokens: int, *, flash_attention: bool = True) -> int:
    """Return the bytes that a batch takes at its largest step: an estimate.

    The steps are the feed-forward block, the logits of a whole batch (which llama-server does not
    ask for: there it is an upper bound), and without flash attention the scores of all heads.

    Args:
        shape: of the model.
        tokens: of the context, of all requests together.
        flash_attention: whether scores are never held whole.
    """
    stream = UBATCH * shape.width * FLOAT
    inner = UBATCH * shape.feed_forward * max(shape.experts_used, 1) * FLOAT
    cells = _whole_cells(tokens)
    steps = [
        3 * inner + 4 * stream + UBATCH * cells * HALF,
        UBATCH * shape.vocabulary * FLOAT + 2 * stream,
    ]
    if not flash_attention:
        steps.append((shape.heads + 1) * UBATCH * cells * FLOAT + 4 * stream)
    return max(steps)


def _is_local(shape: Shape, layer: int) -> bool:
    # llama.cpp has no windows for phi3: it warns, and lets all layers see everything.
    return shape.architecture == "gemma3" and (layer + 1) % GLOBAL_EVERY != 0


def _whole_cells(tokens: int) -> int:
    return -(-tokens // CELLS) * CELLS


@dataclass(frozen=True)
class _Tensor:
    name: str
    type_name: str
    data_bytes: int


def _tensors(shape: Shape, quant: str) -> list[_Tensor]:
    """List the tensors as a file would have them, without making its header."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    tensors = []
    for name, dimensions in list_tensors(shape):
        kind = choose_type(name, dimensions[0], len(dimensions), shape, quant)
        elements, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
        tensors.append(_Tensor(name, kind, math.prod(dimensions) // elements * block_bytes))
    return tensors


def _sum(tensors: Iterable[_Tensor], prefix: str) -> int:
    return sum(tensor.data_bytes for tensor in tensors if tensor.name.startswith(prefix))
