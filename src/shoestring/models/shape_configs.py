"""The shape of a model out of its own ``config.json``, as model hubs publish it.

Left out, because they change neither speed nor memory by more than some kilobytes: stretched
contexts other than those of Llama 3 and Gemma 3, softcaps, and names of special tokens.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadModelError
from shoestring.models.header import explain_unreadable
from shoestring.models.shapes import Shape
from shoestring.models.vocabulary import SMALLEST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# model_type of a config.json → architecture of llama.cpp
ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
}
# What transformers assumes of the fields that gemma3 configs leave out
GEMMA3_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 262_208,
    "head_dim": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
}
BIASES = ("attention_bias", "mlp_bias")
MOST = 1 << 24  # of any number: larger than in any real model
MOST_LAYERS = 512  # llama.cpp's own limit


def read_config(path: Path) -> Shape:
    """Read a ``config.json``.

    Raises:
        BadModelError: it is not there, is no JSON, is of an unknown architecture, or misses a
            number.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadModelError(explain_unreadable(path, error)) from error
    except (ValueError, RecursionError) as error:
        raise BadModelError(f"{path} is no JSON file: give a model's own config.json") from error
    if not isinstance(config, dict):
        raise BadModelError(f"{path} holds no JSON object: give a model's own config.json")
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise BadModelError(
            f"{path}: model_type is {str(kind)[:40]!a}; "
            f"shapes can be made of {', '.join(ARCHITECTURES)}"
        )
    text = config.get("text_config")
    fields = config | text if isinstance(text, dict) else config
    if ARCHITECTURES[kind] == "gemma3":
        fields = {**GEMMA3_DEFAULTS, "tie_word_embeddings": True, **fields}
    if kind == "mixtral":
        fields = {"num_local_experts": 8, "num_experts_per_tok": 2, **fields}
    for bias in BIASES:
        if kind in {"llama", "mistral", "mixtral"} and fields.get(bias):
            raise BadModelError(f"{path}: {bias} is set, which synthetic models do not have")
    return _make_shape(path, ARCHITECTURES[kind], fields)


def _make_shape(path: Path, architecture: str, fields: dict[str, Any]) -> Shape:
    width = _whole(path, fields, "hidden_size")
    heads = _whole(path, fields, "num_attention_heads")
    head_dim = _whole(path, fields, "head_dim", default=width // heads)
    share = _number(path, fields, "partial_rotary_factor", default=1.0)
    experts = _whole(path, fields, "num_local_experts", default=0, least=0)
    window = fields.get("sliding_window") if architecture in {"phi3", "gemma3"} else None
    shape = Shape(
        name=_name(path, fields),
        architecture=architecture,
        layers=_whole(path, fields, "num_hidden_layers"),
        width=width,
        feed_forward=_whole(path, fields, "intermediate_size"),
        heads=heads,
        kv_heads=_whole(path, fields, "num_key_value_heads", default=heads),
        head_dim=head_dim,
        vocabulary=_whole(path, fields, "vocab_size", least=SMALLEST),
        context=_whole(path, fields, "max_position_embeddings", default=4096),
        rope_base=_number(path, fields, "rope_theta", default=10_000.0),
        rope_dim=None if share == 1 else int(head_dim * share),
        rope_factor=_rope_factor(path, architecture, fields.get("rope_scaling")),
        norm_epsilon=_number(path, fields, "rms_norm_eps", default=1e-6),
        tied=fields.get("tie_word_embeddings") is True,
        experts=experts,
        experts_used=_whole(path, fields, "num_experts_per_tok") if experts else 0,
        sliding_window=None if window is None else _whole(path, fields, "sliding_window"),
    )
    _check(path, shape)
    return shape


def _name(path: Path, fields: Mapping[str, Any]) -> str:
    """Return what the config, or else its folder, calls the model, fit for a file's name."""
    given = fields.get("_name_or_path")
    name = given if isinstance(given, str) and given else path.absolute().parent.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-64:].strip(".-") or "config"


def _check(path: Path, shape: Shape) -> None:
    """Refuse what llama.cpp would not load."""
    wrong = None
    if shape.layers > MOST_LAYERS:
        wrong = f"{shape.layers} layers; llama.cpp takes {MOST_LAYERS}"
    elif shape.heads % shape.kv_heads:
        wrong = f"{shape.heads} heads cannot share {shape.kv_heads} heads of keys and values"
    elif shape.architecture in {"qwen2", "phi3"} and shape.width != shape.heads * shape.head_dim:
        wrong = f"{shape.heads} heads of {shape.head_dim} do not make the width {shape.width}"
    elif shape.experts_used > shape.experts:
        wrong = f"{shape.experts_used} experts a token of {shape.experts}"
    if wrong is not None:
        raise BadModelError(f"{path}: {wrong}: check the numbers")


def _rope_factor(path: Path, architecture: str, scaling: Any) -> float | None:
    if not isinstance(scaling, dict):
        return None
    kind = scaling.get("rope_type", scaling.get("type"))
    if (architecture, kind) in {("llama", "llama3"), ("gemma3", "linear")}:
        return _number(path, scaling, "factor")
    return None


def _whole(
    path: Path, fields: Mapping[str, Any], key: str, *, default: int | None = None, least: int = 1
) -> int:
    value = fields.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
        raise BadModelError(
            f"{path}: {key} is {str(value)[:40]!a}; a whole number from {least} to {MOST} is needed"
        )
    return value


def _number(
    path: Path, fields: Mapping[str, Any], key: str, *, default: float | None = None
) -> float:
    value = fields.get(key)
    value = default if value is None else value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e12:  # noqa: PLR2004
        raise BadModelError(f"{path}: {key} is {str(value)[:40]!a}; a positive number is needed")
    return float(value)
