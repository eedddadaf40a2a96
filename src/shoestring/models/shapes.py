"""The shapes of well-known models: how many layers, how wide, how many tokens.

Speed and memory of inference follow from the shape and the quantisation alone, never from what
the weights mean. The numbers are those of each model's public ``config.json``; a test compares the
parameters that they make with the published counts. TIPO-100M publishes no count: its numbers
make 100,382,080 parameters, at two bytes the 191.46 MiB that the note on CPU service measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model without its weights.

    Attributes:
        name: as in ``shape:NAME:QUANT``.
        architecture: of llama.cpp: ``llama``, ``qwen2``, ``qwen3``, ``phi3`` or ``gemma3``.
        layers: transformer blocks.
        width: of the residual stream.
        feed_forward: inner width of a feed-forward block, or of one expert.
        heads: of queries.
        kv_heads: of keys and values.
        head_dim: width of one head.
        vocabulary: tokens, that is rows of the embedding.
        context: tokens, as trained.
        rope_base: of the rotary embedding.
        rope_dim: rotated elements of a head; None: all.
        rope_factor: by how much the context was stretched after training: by frequency factors in
            the architecture ``llama`` (Llama 3), linearly in ``gemma3``. None: not at all.
        norm_epsilon: of the RMS norms.
        tied: whether the output matrix is the embedding.
        experts: feed-forward blocks of which a router picks some; 0: one block, no router.
        experts_used: how many it picks for a token.
        sliding_window: tokens that the local layers see; None: all layers see all.
    """

    name: str
    architecture: str
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    rope_base: float = 10_000.0
    rope_dim: int | None = None
    rope_factor: float | None = None
    norm_epsilon: float = 1e-5
    tied: bool = False
    experts: int = 0
    experts_used: int = 0
    sliding_window: int | None = None


def _llama(
    name: str,
    layers: int,
    width: int,
    feed_forward: int,
    heads: int,
    kv_heads: int,
    *,
    vocabulary: int = 32_000,
    context: int = 4096,
    rope_base: float = 10_000.0,
    rope_factor: float | None = None,
    tied: bool = False,
    experts: int = 0,
) -> Shape:
    return Shape(
        name=name,
        architecture="llama",
        layers=layers,
        width=width,
        feed_forward=feed_forward,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width // heads,
        vocabulary=vocabulary,
        context=context,
        rope_base=rope_base,
        rope_factor=rope_factor,
        tied=tied,
        experts=experts,
        experts_used=2 if experts else 0,
    )


def _llama3(
    name: str,
    layers: int,
    width: int,
    feed_forward: int,
    heads: int,
    *,
    rope_factor: float = 8.0,
    tied: bool = False,
) -> Shape:
    return _llama(
        name,
        layers,
        width,
        feed_forward,
        heads,
        8,
        vocabulary=128_256,
        context=131_072,
        rope_base=500_000.0,
        rope_factor=rope_factor,
        tied=tied,
    )


def _qwen2(
    name: str,
    layers: int,
    width: int,
    feed_forward: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    *,
    tied: bool = False,
) -> Shape:
    return Shape(
        name=name,
        architecture="qwen2",
        layers=layers,
        width=width,
        feed_forward=feed_forward,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width // heads,
        vocabulary=vocabulary,
        context=32_768,
        rope_base=1_000_000.0,
        norm_epsilon=1e-6,
        tied=tied,
    )


def _qwen3(
    name: str, layers: int, width: int, feed_forward: int, heads: int, *, tied: bool = False
) -> Shape:
    return Shape(
        name=name,
        architecture="qwen3",
        layers=layers,
        width=width,
        feed_forward=feed_forward,
        heads=heads,
        kv_heads=8,
        head_dim=128,
        vocabulary=151_936,
        context=40_960,
        rope_base=1_000_000.0,
        norm_epsilon=1e-6,
        tied=tied,
    )


def _gemma3(
    name: str,
    layers: int,
    width: int,
    feed_forward: int,
    heads: int,
    kv_heads: int,
    *,
    head_dim: int = 256,
    large: bool = True,
) -> Shape:
    return Shape(
        name=name,
        architecture="gemma3",
        layers=layers,
        width=width,
        feed_forward=feed_forward,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=262_208 if large else 262_144,  # the large ones have tokens for images
        context=131_072 if large else 32_768,
        rope_base=1_000_000.0,
        rope_factor=8.0 if large else None,
        norm_epsilon=1e-6,
        tied=True,
        sliding_window=1024 if large else 512,
    )


PHI_3_MINI = Shape(  # the variant for 4k tokens
    name="phi-3-mini",
    architecture="phi3",
    layers=32,
    width=3072,
    feed_forward=8192,
    heads=32,
    kv_heads=32,
    head_dim=96,
    vocabulary=32_064,
    context=4096,
    sliding_window=2047,
)

FALCON_3_7B = Shape(
    name="falcon3-7b",
    architecture="llama",
    layers=28,
    width=3072,
    feed_forward=23_040,
    heads=12,
    kv_heads=4,
    head_dim=256,
    vocabulary=131_072,
    context=32_768,
    rope_base=1_000_042.0,
    norm_epsilon=1e-6,
)

SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        _llama("tipo-100m", 10, 640, 2240, 10, 10, vocabulary=32_013, context=1024),
        _llama(
            "smollm2-135m",
            30,
            576,
            1536,
            9,
            3,
            vocabulary=49_152,
            context=8192,
            rope_base=100_000.0,
            tied=True,
        ),
        _llama("tinyllama-1.1b", 22, 2048, 5632, 32, 4, context=2048),
        _llama("llama-2-7b", 32, 4096, 11_008, 32, 32),
        _llama("llama-2-13b", 40, 5120, 13_824, 40, 40),
        _llama("llama-2-70b", 80, 8192, 28_672, 64, 8),
        _llama3("llama-3.1-8b", 32, 4096, 14_336, 32),
        _llama3("llama-3.1-70b", 80, 8192, 28_672, 64),
        _llama3("llama-3.2-1b", 16, 2048, 8192, 32, rope_factor=32.0, tied=True),
        _llama3("llama-3.2-3b", 28, 3072, 8192, 24, rope_factor=32.0, tied=True),
        _llama(  # v0.3
            "mistral-7b",
            32,
            4096,
            14_336,
            32,
            8,
            vocabulary=32_768,
            context=32_768,
            rope_base=1_000_000.0,
        ),
        _llama(  # 2410; its windows are as long as its context
            "ministral-8b",
            36,
            4096,
            12_288,
            32,
            8,
            vocabulary=131_072,
            context=32_768,
            rope_base=100_000_000.0,
        ),
        FALCON_3_7B,
        _llama(
            "mixtral-8x7b",
            32,
            4096,
            14_336,
            32,
            8,
            context=32_768,
            rope_base=1_000_000.0,
            experts=8,
        ),
        _llama("yi-34b", 60, 7168, 20_480, 56, 8, vocabulary=64_000, rope_base=5_000_000.0),
        _qwen2("qwen2.5-0.5b", 24, 896, 4864, 14, 2, 151_936, tied=True),
        _qwen2("qwen2.5-1.5b", 28, 1536, 8960, 12, 2, 151_936, tied=True),
        _qwen2("qwen2.5-3b", 36, 2048, 11_008, 16, 2, 151_936, tied=True),
        _qwen2("qwen2.5-7b", 28, 3584, 18_944, 28, 4, 152_064),
        _qwen2("qwen2.5-14b", 48, 5120, 13_824, 40, 8, 152_064),
        _qwen2("qwen2.5-32b", 64, 5120, 27_648, 40, 8, 152_064),
        _qwen2("qwen2.5-72b", 80, 8192, 29_568, 64, 8, 152_064),
        _qwen3("qwen3-0.6b", 28, 1024, 3072, 16, tied=True),
        _qwen3("qwen3-1.7b", 28, 2048, 6144, 16, tied=True),
        _qwen3("qwen3-4b", 36, 2560, 9728, 32, tied=True),
        _qwen3("qwen3-8b", 36, 4096, 12_288, 32),
        _qwen3("qwen3-14b", 40, 5120, 17_408, 40),
        _qwen3("qwen3-32b", 64, 5120, 25_600, 64),
        PHI_3_MINI,
        _gemma3("gemma-3-270m", 18, 640, 2048, 4, 1, large=False),
        _gemma3("gemma-3-1b", 26, 1152, 6912, 4, 1, large=False),
        _gemma3("gemma-3-4b", 34, 2560, 10_240, 8, 4),
        _gemma3("gemma-3-12b", 48, 3840, 15_360, 16, 8),
        _gemma3("gemma-3-27b", 62, 5376, 21_504, 32, 16, head_dim=128),
    )
}
