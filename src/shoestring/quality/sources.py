"""What is to be quantised: a GGUF file, or a folder of safetensors; and where the result goes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.errors import BadModelError, BadValueError
from shoestring.models.fetch import resolve_model
from shoestring.models.names import ModelName

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.quality.tool import Kind

SCHEMES = ("pypi:", "shape:", "hf:", "ollama:")
_FLOAT_ENDING = re.compile(r"[-_.](?:f16|bf16|f32|fp16|fp32)$", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A model that is here.

    Attributes:
        name: as it was asked for.
        path: of the GGUF file, or of the folder of safetensors.
        is_folder: whether it has to be converted first.
        beside: the folder in which a result lies unless the user says otherwise: beside a file
            or folder of theirs, the current one where the source lies in the cache.
    """

    name: str
    path: Path
    is_folder: bool
    beside: Path

    def place(self, kind: Kind) -> Path:
        """Return where a result of this type lies: ``model-f16.gguf``, ``model-q4_k_m.gguf``."""
        stem = self.path.resolve().name if self.is_folder else self.path.stem
        return self.beside / f"{_FLOAT_ENDING.sub('', stem)}-{kind.name.lower()}.gguf"


def find_source(
    text: str, *, cache: Path, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Source:
    """Find what a user names; what the cache can hold is brought there.

    Args:
        text: a path, or any name of a model (:mod:`shoestring.models.names`) but Ollama's.
        cache: the cache folder.
        progress: called with bytes done and in all while something is fetched or made.

    Raises:
        BadModelError: there is no such model, or it is no whole GGUF.
        MissingError: no network, or no space.
    """
    if text.startswith(SCHEMES):
        path = resolve_model(text, cache=cache, progress=progress).path
        return Source(text, path, is_folder=False, beside=Path())
    path = ModelName("file", text.removeprefix("file:")).path
    try:
        if not path.exists():
            raise BadModelError(
                f"the model {text[:200]!a} does not exist: give the path of a GGUF file or of a "
                f"folder of safetensors, or one of {' '.join(SCHEMES[:3])}"
            )
        resolved = path.resolve()
    except (OSError, ValueError) as error:  # too long for a path, closed to us, a zero byte
        raise BadModelError(f"the path {text[:200]!a} cannot be looked at: {error}") from error
    return Source(text, path, is_folder=path.is_dir(), beside=resolved.parent)


def check_place(out: Path, source: Source, *, force: bool) -> None:
    """Refuse a place before any work is done.

    Raises:
        BadValueError: it is taken, is the source itself, or its folder cannot be written.
    """
    if not out.parent.is_dir():
        raise BadValueError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    if not os.access(out.parent, os.W_OK):
        raise BadValueError(f"--out {out}: the folder {out.parent} cannot be written")
    if out.is_dir():
        raise BadValueError(f"--out {out} is a folder: name a file in it")
    if not out.exists():
        return
    if out.samefile(source.path):
        raise BadValueError(f"--out {out} is the source itself: name another file")
    if not force:
        raise BadValueError(f"{out} exists: name another file with --out, or give --force")
