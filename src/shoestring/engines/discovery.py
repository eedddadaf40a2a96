"""Which engines are on this machine, and what would bring the missing ones."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
from dataclasses import dataclass

from shoestring.engines.embedded import INSTALL_COMMAND

VERSION_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Found:
    """One engine as ``doctor`` shows it.

    Attributes:
        found: whether it can be used.
        version: what it says of itself, or None.
        mend: the command that brings it, or None where nothing is missing.
    """

    found: bool
    version: str | None
    mend: str | None


def find_engines() -> dict[str, Found]:
    """Look for every engine that this version knows by name."""
    return {
        "embedded": _find_embedded(),
        "ollama": _find_program("ollama", "curl -fsSL https://ollama.com/install.sh | sh"),
        "llama-server": _find_program("llama-server", "conda install -c conda-forge llama.cpp"),
        "openai": Found(found=True, version=None, mend=None),
    }


def _find_embedded() -> Found:
    if importlib.util.find_spec("xllamacpp") is None:
        return Found(found=False, version=None, mend=INSTALL_COMMAND)
    return Found(found=True, version=importlib.metadata.version("xllamacpp"), mend=None)


def _find_program(name: str, mend: str) -> Found:
    program = shutil.which(name)
    if program is None:
        return Found(found=False, version=None, mend=mend)
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return Found(found=False, version=None, mend=f"{program} does not start: install it anew")
    lines = (said.stdout + said.stderr).strip().splitlines()
    return Found(found=True, version=lines[-1][:120] if lines else None, mend=None)
