"""What a planner needs to know of a model: its shape, and each tensor's type and bytes.

The outline of a synthetic model follows from its name; that of a real one from the header of its
GGUF file. Neither needs the weights, and the first not even a header in memory (1 ms).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadModelError
from shoestring.models.facts import facts_of
from shoestring.models.layouts import list_tensors
from shoestring.models.quantising import choose_type
from shoestring.models.shape_names import load_shape, parse_shape_name
from shoestring.models.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoestring.models.header import Header

OTHER_MEMORY: Mapping[str, str] = {
    "ssm.state_size": "a state instead of a KV cache",
    "ssm.conv_kernel": "a state instead of a KV cache",
    "wkv.head_size": "a state instead of a KV cache",
    "attention.kv_lora_rank": "a compressed KV cache",
    "attention.shared_kv_layers": "layers that share a KV cache",
}
"""Keys of models whose memory follows other rules than the ones of :mod:`shoestring.plan`."""
MOST = 1 << 24  # of any number: larger than in any real model
MOST_LAYERS = 4096  # the largest models have some hundreds
SHOWN = 60  # characters of a model's own name, in an error


@dataclass(frozen=True)
class TensorSize:
    """One tensor, without its weights.

    Attributes:
        name: for example ``blk.0.attn_q.weight``.
        type_name: of its blocks, for example ``Q4_K``.
        dimensions: elements, the fastest dimension first.
        data_bytes: how much it takes.
    """

    name: str
    type_name: str
    dimensions: tuple[int, ...]
    data_bytes: int


@dataclass(frozen=True)
class Outline:
    """A model as far as it decides memory and speed.

    Attributes:
        shape: its dimensions. Of a real file ``rope_factor`` is None: it changes neither.
        quantisation: lower case, for example ``q4_k_m``; None where the file does not say.
        tensors: in the order of the file.
        merges: rules by which its vocabulary joins pieces of words; synthetic ones have none. 0
            for a model of Ollama's library, too, of which it is not known: Ollama shows no lists.
    """

    shape: Shape
    quantisation: str | None
    tensors: tuple[TensorSize, ...]
    merges: int = 0

    @property
    def file_bytes(self) -> int:
        """All weights; a file adds its header, some MB for the vocabulary."""
        return sum(tensor.data_bytes for tensor in self.tensors)


def outline_of_shape(name: str) -> Outline:
    """Return the outline of a synthetic model.

    Args:
        name: what follows ``shape:``, for example ``llama-3.1-8b:q4_k_m``.

    Raises:
        BadModelError: the name is unknown, or its ``config.json`` cannot be used.
    """
    parsed = parse_shape_name(name)
    shape = load_shape(parsed)
    return Outline(shape, parsed.quant, tensors_of_shape(shape, parsed.quant))


def tensors_of_shape(shape: Shape, quant: str) -> tuple[TensorSize, ...]:
    """Return the tensors of a synthetic model, in the order of its file.

    Args:
        shape: the dimensions.
        quant: one of :data:`shoestring.models.quantising.BASE_TYPES`.
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    tensors = []
    for name, dimensions in list_tensors(shape):
        kind = choose_type(name, dimensions[0], len(dimensions), shape, quant)
        elements, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
        data_bytes = math.prod(dimensions) // elements * block_bytes
        tensors.append(TensorSize(name, kind, dimensions, data_bytes))
    return tuple(tensors)


def outline_of_header(header: Header) -> Outline:
    """Return the outline of a real model.

    Args:
        header: of its file, from :func:`shoestring.models.header.read_header`.

    Raises:
        BadModelError: the header lacks a number that a shape needs, its layers differ in a way
            that a shape cannot say or are not those of its tensors, or its memory follows rules
            that no plan knows.
    """
    facts = facts_of(header)
    keys = _Keys(header, facts.name or "the model", facts.architecture)
    tensors = tuple(
        TensorSize(tensor.name, tensor.type_name, tensor.shape, tensor.data_bytes)
        for tensor in header.tensors
    )
    for key, rule in OTHER_MEMORY.items():
        if keys.find(key):
            raise keys.explain(key, f"means {rule}, which cannot be planned")
    quantisation = facts.quantisation and facts.quantisation.lower()
    shape = _shape_of(keys, tensors, facts.vocabulary_size or _count_embedded(tensors))
    merges = header.lengths.get("tokenizer.ggml.merges", 0)
    return Outline(shape, quantisation, tensors, merges)


def _shape_of(keys: _Keys, tensors: tuple[TensorSize, ...], vocabulary: int | None) -> Shape:
    width, heads = keys.whole("embedding_length"), keys.whole("attention.head_count")
    head_dim = keys.whole("attention.key_length", default=width // heads)
    if keys.whole("attention.value_length", default=head_dim) != head_dim:
        raise keys.explain("attention.value_length", "is not that of keys, which cannot be planned")
    experts = keys.whole("expert_count", default=0, least=0)
    inner = "expert_feed_forward_length" if experts else "feed_forward_length"
    rotated = keys.whole("rope.dimension_count", default=head_dim)
    return Shape(
        name=keys.model,
        architecture=str(keys.architecture),
        layers=_count_layers(keys, tensors),
        width=width,
        # Mixtral's files have no key of their own for experts.
        feed_forward=keys.whole(inner if keys.find(inner) else "feed_forward_length"),
        heads=heads,
        kv_heads=keys.whole("attention.head_count_kv", default=heads),
        head_dim=head_dim,
        vocabulary=keys.whole("vocab_size", default=vocabulary),
        context=keys.whole("context_length"),
        rope_base=keys.number("rope.freq_base", default=Shape.rope_base),
        rope_dim=None if rotated == head_dim else rotated,
        norm_epsilon=keys.number("attention.layer_norm_rms_epsilon", default=Shape.norm_epsilon),
        tied=all(tensor.name != "output.weight" for tensor in tensors),
        experts=experts,
        experts_used=keys.whole("expert_used_count") if experts else 0,
        sliding_window=keys.whole("attention.sliding_window", default=0, least=0) or None,
    )


def _count_layers(keys: _Keys, tensors: tuple[TensorSize, ...]) -> int:
    """Return how many layers there are, where the header and its tensors agree on which."""
    layers = keys.whole("block_count", most=MOST_LAYERS)
    parts = (tensor.name.split(".") for tensor in tensors)
    found = {"".join(rest[:1]) for first, *rest in parts if first == "blk"}
    if found != set(map(str, range(layers))):
        raise keys.explain(
            "block_count",
            f"is {layers} and its tensors are not those of layers 0 to {layers - 1} "
            f"({len(found)} layers found), so it cannot be planned",
        )
    return layers


def _count_embedded(tensors: tuple[TensorSize, ...]) -> int | None:
    """Return for how many tokens there is an embedding: what Ollama shows has no other count."""
    for tensor in tensors:
        if tensor.name == "token_embd.weight" and len(tensor.dimensions) > 1:
            return tensor.dimensions[1]
    return None


class _Keys:
    """The numbers that a header states under its architecture's name, checked one by one."""

    def __init__(self, header: Header, model: str, architecture: str | None) -> None:
        self.model, self.architecture = model, architecture
        self._values = header.values
        if architecture is None:
            raise BadModelError(
                f"{self._shown()}: its header lacks general.architecture, so it cannot be planned; "
                "convert it again with a current llama.cpp"
            )

    def find(self, key: str) -> Any:
        """Return the value of a key, None where there is none; one for all layers if all agree."""
        value = self._values.get(f"{self.architecture}.{key}")
        if isinstance(value, tuple) and len(set(value)) == 1:
            return value[0]
        return value

    def whole(
        self, key: str, *, default: int | None = None, least: int = 1, most: int = MOST
    ) -> int:
        """Return a whole number."""
        value = self.find(key)
        value = default if value is None else value
        if value is None:
            raise self.explain(key, "is missing, so it cannot be planned")
        if isinstance(value, tuple):
            raise self.explain(key, "differs between layers, which cannot be planned")
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.explain(
                key, f"is {str(value)[:40]!a}; a whole number from {least} to {most} is needed"
            )
        return value

    def number(self, key: str, *, default: float) -> float:
        """Return a number."""
        value = self.find(key)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.explain(key, f"is {str(value)[:40]!a}; a number is needed")
        return float(value)

    def explain(self, key: str, problem: str) -> BadModelError:
        """Say in one line what is wrong with a key."""
        return BadModelError(
            f"{self._shown()}: {self.architecture}.{key} {problem}; "
            "give a model of llama, qwen2, qwen3, phi3 or gemma3, or a shape: near it"
        )

    def _shown(self) -> str:
        return ascii(self.model if len(self.model) <= SHOWN else self.model[:SHOWN] + "…")
