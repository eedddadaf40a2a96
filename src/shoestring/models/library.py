"""A model in Ollama's library, from what its server shows of it.

Source: ``POST /api/show`` in ``docs/api.md`` of Ollama. It holds the header of the GGUF file
(``model_info``: the keys; ``tensors``: names, types, shapes), so the facts are those of the file.
But for lists: without ``verbose`` those of the vocabulary are null, and their lengths not told.
"""

from __future__ import annotations

import math
import re
from typing import Any

from shoestring.errors import BadModelError
from shoestring.models.header import MOST_DIMENSIONS, MOST_ENTRIES, VERSIONS, Header, Tensor

PLAIN_TEMPLATE = "{{ .Prompt }}"
"""What Ollama gives a model that came without a template."""
_BLOB = re.compile(r"^FROM .*sha256[-:]([0-9a-f]{64})\s*$", re.MULTILINE)


def header_of_shown(name: str, shown: dict[str, Any], size_bytes: int | None) -> Header:
    """Return the header of a model's file, as far as it decides its facts and its outline.

    Args:
        name: of the model, for messages.
        shown: the answer of ``/api/show``.
        size_bytes: of the model as ``/api/tags`` says: the weights, and some kilobytes beside; None
            where it does not say.

    Raises:
        BadModelError: the answer is not of that form, or the size is not known.
    """
    values, tensors = shown.get("model_info"), shown.get("tensors") or []
    if not isinstance(values, dict) or not isinstance(tensors, list) or not size_bytes:
        raise BadModelError(f"Ollama does not say what {name} is: update Ollama")
    kept = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    template = str(shown.get("template") or "").strip()
    if template and template != PLAIN_TEMPLATE:
        kept["tokenizer.chat_template"] = template
    try:
        entries = tuple(_tensor(entry) for entry in tensors[:MOST_ENTRIES])
    except (KeyError, TypeError, ValueError) as error:
        raise BadModelError(
            f"Ollama shows a tensor of {name} that cannot be read ({error!r}): update Ollama"
        ) from error
    return Header(VERSIONS[-1], kept, {}, entries, size_bytes, size_bytes)


def weights_sha256(shown: dict[str, Any]) -> str | None:
    """Return the SHA-256 of the weights' file, by which Ollama names it; None if it is not shown.

    Of several files (a draft model, an adapter) it is that of the first.
    """
    found = _BLOB.search(str(shown.get("modelfile") or ""))
    return found[1] if found else None


def _tensor(entry: dict[str, Any]) -> Tensor:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    shape = tuple(int(size) for size in entry["shape"][:MOST_DIMENSIONS])
    type_name = str(entry["type"])
    block_elements, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    data_bytes = math.prod(shape) // block_elements * block_bytes
    return Tensor(str(entry["name"]), shape, type_name, 0, data_bytes)
