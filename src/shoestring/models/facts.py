"""Facts of a model, out of the header of its own GGUF file.

Nothing is guessed: what the file does not say is None. ``parameters`` is counted, as the sum of
the elements of all tensors. ``tensor_bytes`` is what the weights take on disk; an engine may take
more, since it may repack them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.models.header import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shoestring.models.header import Header

GUESSED = 1024  # a flag that llama.cpp adds to a file type that it guessed


@dataclass(frozen=True)
class ModelFacts:
    """What a GGUF file says about its model. None: it does not say.

    Attributes:
        architecture: for example ``gemma3``.
        name: as its maker wrote it.
        parameters: number of weights.
        layers: transformer blocks.
        context_length: tokens, as trained.
        embedding_length: width of the residual stream.
        heads: of attention; a tuple where layers differ.
        kv_heads: heads of keys and values; a tuple where layers differ. A file that leaves them
            out has as many as ``heads``, by the GGUF specification.
        head_dim: width of one key.
        vocabulary_size: tokens.
        quantisation: for example ``Q4_K_M``.
        tensor_bytes: of all weights on disk.
        tensor_bytes_by_type: the same for each block type, largest first.
        chat_template: whether the file holds one; a base model usually does not.
        file_bytes: size of the file.
    """

    architecture: str | None
    name: str | None
    parameters: int
    layers: int | None
    context_length: int | None
    embedding_length: int | None
    heads: int | tuple[int, ...] | None
    kv_heads: int | tuple[int, ...] | None
    head_dim: int | None
    vocabulary_size: int | None
    quantisation: str | None
    tensor_bytes: int
    tensor_bytes_by_type: Mapping[str, int]
    chat_template: bool
    file_bytes: int


def read_facts(path: Path) -> ModelFacts:
    """Read the facts of a GGUF file (about 0.1 s, whatever its size).

    Raises:
        BadModelError: the file is not there, is no GGUF, is cut, or is damaged.
    """
    return facts_of(read_header(path))


def facts_of(header: Header) -> ModelFacts:
    """Return the facts that a header states."""
    values = header.values
    architecture = _text(values.get("general.architecture"))
    embedding = _whole(values.get(f"{architecture}.embedding_length"))
    heads = _per_layer(values.get(f"{architecture}.attention.head_count"))
    head_dim = _whole(values.get(f"{architecture}.attention.key_length"))
    if head_dim is None and embedding is not None and isinstance(heads, int) and heads > 0:
        head_dim = embedding // heads
    by_type = _bytes_by_type(header)
    return ModelFacts(
        architecture=architecture,
        name=_text(values.get("general.name")),
        parameters=sum(math.prod(t.shape) for t in header.tensors),
        layers=_whole(values.get(f"{architecture}.block_count")),
        context_length=_whole(values.get(f"{architecture}.context_length")),
        embedding_length=embedding,
        heads=heads,
        kv_heads=_per_layer(values.get(f"{architecture}.attention.head_count_kv", heads)),
        head_dim=head_dim,
        vocabulary_size=header.lengths.get(
            "tokenizer.ggml.tokens", _whole(values.get(f"{architecture}.vocab_size"))
        ),
        quantisation=_quantisation(_whole(values.get("general.file_type"))),
        tensor_bytes=sum(by_type.values()),
        tensor_bytes_by_type=by_type,
        chat_template=bool(values.get("tokenizer.chat_template")),
        file_bytes=header.file_bytes,
    )


def _bytes_by_type(header: Header) -> dict[str, int]:
    sums: dict[str, int] = {}
    for tensor in header.tensors:
        sums[tensor.type_name] = sums.get(tensor.type_name, 0) + tensor.data_bytes
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def _quantisation(file_type: int | None) -> str | None:
    """Return the name of a ``general.file_type``, without llama.cpp's MOSTLY_."""
    from gguf.constants import LlamaFileType

    if file_type is None:
        return None
    try:
        name = str(LlamaFileType(file_type & ~GUESSED).name)
    except ValueError:  # newer than the gguf package: not known is not wrong
        return None
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _per_layer(value: Any) -> int | tuple[int, ...] | None:
    """Return one number where all layers agree."""
    if not isinstance(value, tuple):
        return _whole(value)
    if not value or any(_whole(item) is None for item in value):
        return None
    return int(value[0]) if len(set(value)) == 1 else value
