"""Which engines are on this machine, where, and what would bring the missing ones.

A program is looked for on PATH first, then among the pinned ones in the cache that ``shoestring
engines install`` brings: who has an engine of their own wants that one measured.
That a program or a package lies there does not mean that it runs here: a library may be missing,
or the processor may lack an instruction. So each is started once, as a child that may crash.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from shoestring.engines.install.answers import SHOWN, ask
from shoestring.engines.install.pins import find_pinned_program
from shoestring.errors import MissingError
from shoestring.paths import cache_dir

INSTALL_COMMAND = "python -m pip install xllamacpp"
IMPORT_TIMEOUT_S = 60.0  # a second on a warm disk; a notebook service's first read is slow
# -P: what lies in the current folder under the same name is not the engine.
IMPORT_COMMAND = (
    sys.executable, "-P", "-c",
    "import importlib.metadata, xllamacpp; print(importlib.metadata.version('xllamacpp'))",
)  # fmt: skip
MENDS = {
    "ollama": "shoestring engines install ollama",
    "llama-server": "shoestring engines install llama-server",
    "koboldcpp": (
        "download it from the releases page of LostRuins/koboldcpp, "
        "name it koboldcpp, make it executable, and put it on PATH"
    ),
}


@dataclass(frozen=True)
class Found:
    """One engine as ``doctor`` shows it.

    Attributes:
        found: whether it can be used.
        version: what it says of itself, or None.
        mend: the command that brings it, or None where nothing is missing.
        path: of its program, or None where it is no program or none was found.
    """

    found: bool
    version: str | None
    mend: str | None
    path: str | None = None


def find_program(name: str) -> Path | None:
    """Return an engine's program: the user's own on PATH, else the pinned one in the cache.

    Args:
        name: of the program, for example ``llama-server``; any tool of llama.cpp's will do.

    Returns:
        Its path, or None where there is none; it was not started.
    """
    own = shutil.which(name)
    return Path(own) if own else find_pinned_program(name, cache_dir())


def check_installed(engine: str) -> None:
    """See that an engine which the harness starts by itself is on this machine; start nothing.

    Raises:
        MissingError: it is not; says what brings it.
    """
    if engine == "embedded" and importlib.util.find_spec("xllamacpp") is None:
        raise MissingError(f"engine embedded needs xllamacpp: {INSTALL_COMMAND}")
    if engine in MENDS and find_program(engine) is None:
        raise MissingError(f"engine {engine} is not installed: {MENDS[engine]}")


def find_engines() -> dict[str, Found]:
    """Look for every engine that this version knows by name."""
    return {
        "embedded": _find_embedded(),
        **{name: _find_program(name, mend) for name, mend in MENDS.items()},
        "openai": Found(found=True, version=None, mend=None),
    }


def _find_embedded() -> Found:
    if importlib.util.find_spec("xllamacpp") is None:
        return Found(found=False, version=None, mend=INSTALL_COMMAND)
    answer = ask(*IMPORT_COMMAND, timeout_s=IMPORT_TIMEOUT_S)
    if answer.failure:
        mend = (
            f"xllamacpp cannot be imported ({answer.failure}): {INSTALL_COMMAND} --force-reinstall"
        )
        return Found(found=False, version=None, mend=mend)
    return Found(found=True, version=_version(answer.lines), mend=None)


def _find_program(name: str, mend: str) -> Found:
    program = find_program(name)
    if program is None:
        return Found(found=False, version=None, mend=mend)
    answer = ask(str(program), "--version")
    if answer.failure:
        mend = f"{program} does not start ({answer.failure}): install it anew"
        return Found(found=False, version=None, mend=mend, path=str(program))
    return Found(found=True, version=_version(answer.lines), mend=None, path=str(program))


def _version(lines: tuple[str, ...]) -> str | None:
    """Pick the line that tells the version; some tell of devices before it, of compilers after."""
    named = [line for line in lines if "version" in line.lower()]
    numbered = [line for line in lines if any(map(str.isdigit, line))]
    return next((line.strip()[:SHOWN] for line in named + numbered), None)
