"""Which tensors and which keys llama.cpp expects of a model of a given shape.

Names and dimensions are those of llama.cpp's ``src/models/*.cpp`` and of the files that its
converter writes, so that a synthetic model is read by the same code as the real one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoestring.models.shapes import Shape

TRAINED_CONTEXT = 8192  # of Llama 3, before its context was stretched
LOW_FACTOR, HIGH_FACTOR = 1.0, 4.0  # between which Llama 3 blends the two frequencies


def list_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and the dimensions of each tensor, the fastest dimension first."""
    yield "token_embd.weight", (shape.width, shape.vocabulary)
    if _has_rope_factors(shape):
        yield "rope_freqs.weight", (_rope_dim(shape) // 2,)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        for name, dimensions in (*_attention(shape), *_feed_forward(shape)):
            yield prefix + name, dimensions
    yield "output_norm.weight", (shape.width,)
    if not shape.tied:
        yield "output.weight", (shape.width, shape.vocabulary)


def _attention(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "attn_norm.weight", (shape.width,)
    if shape.architecture == "phi3":
        yield "attn_qkv.weight", (shape.width, queries + 2 * keys)
    else:
        for letter, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield f"attn_{letter}.weight", (shape.width, rows)
            if shape.architecture == "qwen2":
                yield f"attn_{letter}.bias", (rows,)
    if shape.architecture in {"qwen3", "gemma3"}:
        yield "attn_q_norm.weight", (shape.head_dim,)
        yield "attn_k_norm.weight", (shape.head_dim,)
    yield "attn_output.weight", (queries, shape.width)
    if shape.architecture == "gemma3":
        yield "post_attention_norm.weight", (shape.width,)


def _feed_forward(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner = shape.width, shape.feed_forward
    yield "ffn_norm.weight", (width,)
    if shape.experts:
        yield "ffn_gate_inp.weight", (width, shape.experts)
        yield "ffn_gate_exps.weight", (width, inner, shape.experts)
        yield "ffn_up_exps.weight", (width, inner, shape.experts)
        yield "ffn_down_exps.weight", (inner, width, shape.experts)
        return
    if shape.architecture == "phi3":  # gate and up in one
        yield "ffn_up.weight", (width, 2 * inner)
    else:
        yield "ffn_gate.weight", (width, inner)
        yield "ffn_up.weight", (width, inner)
    yield "ffn_down.weight", (inner, width)
    if shape.architecture == "gemma3":
        yield "post_ffw_norm.weight", (width,)


def list_keys(shape: Shape) -> Iterator[tuple[str, int | float | str]]:
    """Yield the keys of the architecture; whole numbers are uint32, others float32."""
    keys: dict[str, int | float | str] = {
        "context_length": shape.context,
        "embedding_length": shape.width,
        "block_count": shape.layers,
        "feed_forward_length": shape.feed_forward,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": float(shape.norm_epsilon),
        "rope.freq_base": float(shape.rope_base),
        "rope.dimension_count": _rope_dim(shape),
        "vocab_size": shape.vocabulary,
    }
    if shape.experts:
        keys |= {"expert_count": shape.experts, "expert_used_count": shape.experts_used}
    if shape.sliding_window is not None:
        keys["attention.sliding_window"] = shape.sliding_window
    if shape.architecture == "gemma3" and shape.rope_factor is not None:
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(shape.rope_factor)}
    for key, value in keys.items():
        yield f"{shape.architecture}.{key}", value


def rope_factors(shape: Shape) -> list[float]:
    """Return by what each rotary frequency is divided, by Llama 3's published formula.

    Wave lengths beyond the trained context are stretched whole, short ones not at all, and those
    between are blended.
    """
    assert shape.rope_factor is not None
    factors = []
    for index in range(_rope_dim(shape) // 2):
        wave = 2 * math.pi * shape.rope_base ** (2 * index / _rope_dim(shape))
        if wave < TRAINED_CONTEXT / HIGH_FACTOR:
            factors.append(1.0)
        elif wave > TRAINED_CONTEXT / LOW_FACTOR:
            factors.append(shape.rope_factor)
        else:
            smooth = (TRAINED_CONTEXT / wave - LOW_FACTOR) / (HIGH_FACTOR - LOW_FACTOR)
            factors.append(1 / ((1 - smooth) / shape.rope_factor + smooth))
    return factors


def _has_rope_factors(shape: Shape) -> bool:
    return shape.architecture == "llama" and shape.rope_factor is not None


def _rope_dim(shape: Shape) -> int:
    return shape.rope_dim or shape.head_dim
