"""Which type each tensor gets in a quantisation, by llama.cpp's own rule.

A file that is called ``Q4_K_M`` is a mixture: the tensors whose loss hurts most (the output, the
values of attention, the way down of the feed-forward block) get more bits, in some layers only.
Which ones, is decided in llama.cpp's ``src/llama-quant.cpp`` (``llama_tensor_get_type``); this
module states that rule for the architectures and quantisations of :mod:`shoestring.models.shapes`,
without an importance matrix. A test compares it with ``llama-quantize --dry-run``.

Columns must fill whole blocks: a tensor whose columns do not divide by 256 falls back from the
K types to types with blocks of 32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoestring.models.shapes import Shape

# The type that most matrices get; the keys are lower-case names of `general.file_type`.
BASE_TYPES: Mapping[str, str] = {
    "f32": "F32",
    "f16": "F16",
    "q8_0": "Q8_0",
    "q6_k": "Q6_K",
    "q5_k_m": "Q5_K",
    "q5_k_s": "Q5_K",
    "q4_k_m": "Q4_K",
    "q4_k_s": "Q4_K",
    "q4_0": "Q4_0",
    "q3_k_l": "Q3_K",
    "q3_k_m": "Q3_K",
    "q3_k_s": "Q3_K",
    "q2_k": "Q2_K",
}
FLOATS = ("F32", "F16")
K_BLOCK = 256  # elements of one block of a K type
FALLBACKS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
BLOCK = 32  # elements of one block of the types that are fallen back to
MIXTRAL_EXPERTS = 8  # llama.cpp gives exactly this number of experts richer attention
DEEP_LAYERS = 80  # llama.cpp takes a model of so many layers for a 70B
SHARED_VALUES = 4  # query heads for one value head, from which Q2_K spends more on values


def choose_type(name: str, columns: int, dimensions: int, shape: Shape, quant: str) -> str:
    """Return the type of one tensor, for example ``Q6_K``.

    Args:
        name: of the tensor, for example ``blk.3.ffn_down.weight``.
        columns: elements of a row.
        dimensions: of the tensor; norms and biases have one.
        shape: of the model.
        quant: one of :data:`BASE_TYPES`.
    """
    if dimensions == 1 or "ffn_gate_inp" in name:  # the router stays exact, too
        return "F32"
    base = BASE_TYPES[quant]
    if base in FLOATS:
        return base
    if name == "output.weight" or (shape.tied and name == "token_embd.weight"):
        block = BLOCK if base in {"Q8_0", "Q4_0"} else K_BLOCK
        wanted = "Q8_0" if base == "Q8_0" or columns % block else "Q6_K"
    else:
        wanted = _mix(name, shape, quant) or base
    return _fit(wanted, columns)


def _mix(name: str, shape: Shape, quant: str) -> str | None:
    """Return the type that a mixture gives to this tensor, None where it gives the base type."""
    if not name.startswith("blk."):
        return None
    layer, _, rest = name.removeprefix("blk.").partition(".")
    if rest in {"attn_v.weight", "attn_qkv.weight"}:
        return _type_of_values(int(layer), shape, quant)
    if rest == "attn_k.weight":
        return "Q8_0" if shape.experts == MIXTRAL_EXPERTS else None
    if rest == "attn_output.weight":
        return _type_of_attention_output(shape, quant)
    if rest.startswith("ffn_down"):
        return _type_of_way_down(int(layer), shape.layers, quant)
    return None


def _type_of_values(layer: int, shape: Shape, quant: str) -> str | None:
    if shape.experts == MIXTRAL_EXPERTS:
        return "Q8_0"
    wanted = None
    if quant == "q2_k":
        wanted = "Q4_K" if shape.heads // shape.kv_heads >= SHARED_VALUES else "Q3_K"
    elif quant == "q3_k_m":
        wanted = "Q5_K" if layer < 2 else "Q4_K"  # noqa: PLR2004 - the first two layers
    elif quant == "q3_k_l":
        wanted = "Q5_K"
    elif quant in {"q4_k_m", "q5_k_m"} and _is_sensitive(layer, shape.layers):
        wanted = "Q6_K"
    elif quant == "q4_k_s" and layer < 4:  # noqa: PLR2004 - the first four layers
        wanted = "Q5_K"
    if _is_70b(shape) and (wanted or BASE_TYPES[quant]) in {"Q3_K", "Q4_K"}:
        return "Q5_K"
    return wanted


def _type_of_attention_output(shape: Shape, quant: str) -> str | None:
    if shape.experts == MIXTRAL_EXPERTS:
        return "Q5_K" if quant in {"q2_k", "q3_k_s", "q3_k_m", "q4_k_s", "q4_k_m"} else None
    return {"q2_k": "Q3_K", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K"}.get(quant)


def _type_of_way_down(layer: int, layers: int, quant: str) -> str | None:
    if quant == "q2_k":
        return "Q3_K"
    if quant == "q3_k_m":
        return "Q5_K" if layer < layers // 16 else "Q4_K"
    if quant == "q3_k_l":
        return "Q5_K"
    if quant in {"q4_k_m", "q5_k_m"} and _is_sensitive(layer, layers):
        return "Q6_K"
    if quant == "q4_k_s" and layer < layers // 8:
        return "Q5_K"
    return None


def _is_sensitive(layer: int, layers: int) -> bool:
    """Return whether the mixtures ``_m`` spend more: first and last eighth, every third between."""
    first = layers // 8
    return layer < first or layer >= 7 * layers // 8 or (layer - first) % 3 == 2  # noqa: PLR2004


def _is_70b(shape: Shape) -> bool:
    if shape.architecture == "llama":
        return shape.layers == DEEP_LAYERS and shape.heads != shape.kv_heads
    return shape.architecture == "qwen2" and shape.layers == DEEP_LAYERS


def _fit(wanted: str, columns: int) -> str:
    """Return the wanted type, or the one that llama.cpp falls back to for such columns."""
    if wanted in FALLBACKS and columns % K_BLOCK:
        wanted = FALLBACKS[wanted]
    return "F16" if columns % BLOCK else wanted
