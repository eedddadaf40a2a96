"""Which engines are on this machine, and what would bring the missing ones.

That a program or a package lies there does not mean that it runs here: a library may be missing,
or the processor may lack an instruction. So each is started once, as a child that may crash.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass

from shoestring.engines.embedded import INSTALL_COMMAND

VERSION_TIMEOUT_S = 10.0
IMPORT_TIMEOUT_S = 60.0  # a second on a warm disk; a notebook service's first read is slow
SHOWN = 120  # characters of what an engine says
# -P: what lies in the current folder under the same name is not the engine.
IMPORT_COMMAND = (
    sys.executable, "-P", "-c",
    "import importlib.metadata, xllamacpp; print(importlib.metadata.version('xllamacpp'))",
)  # fmt: skip


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
    said = _say(*IMPORT_COMMAND, timeout_s=IMPORT_TIMEOUT_S)
    if isinstance(said, str):
        mend = f"xllamacpp cannot be imported ({said}): {INSTALL_COMMAND} --force-reinstall"
        return Found(found=False, version=None, mend=mend)
    return Found(found=True, version=_version(said), mend=None)


def _find_program(name: str, mend: str) -> Found:
    program = shutil.which(name)
    if program is None:
        return Found(found=False, version=None, mend=mend)
    said = _say(program, "--version", timeout_s=VERSION_TIMEOUT_S)
    if isinstance(said, str):
        mend = f"{program} does not start ({said}): install it anew"
        return Found(found=False, version=None, mend=mend)
    return Found(found=True, version=_version(said), mend=None)


def _say(*command: str, timeout_s: float) -> list[str] | str:
    """Return the lines that a command prints, or why it failed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
            errors="replace", timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"silent for {timeout_s:g} s"
    except OSError as error:
        return str(error.strerror)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode < 0:
        number = -done.returncode
        return f"ended by signal {number}, {signal.strsignal(number)}"
    if done.returncode > 0:
        return lines[-1].strip()[:SHOWN] if lines else f"exit status {done.returncode}"
    return lines


def _version(lines: list[str]) -> str | None:
    """Pick the line that tells the version; some tell of devices before it, of compilers after."""
    named = [line for line in lines if "version" in line.lower()]
    numbered = [line for line in lines if any(map(str.isdigit, line))]
    return next((line.strip()[:SHOWN] for line in named + numbered), None)
