"""What a program says of itself, asked as a child that may crash, hang or be no program at all."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.engines.install.pins import Pin

SHOWN = 120  # characters of what an engine says
VERSION_TIMEOUT_S = 10.0
NO_SERVER = "127.0.0.1:9"  # where `ollama --version` finds no server to ask


@dataclass(frozen=True)
class Answer:
    """What came of starting a program.

    Attributes:
        lines: what it printed, stderr after stdout.
        status: its exit status; None where it did not start or did not end by itself.
        failure: why it cannot be used, if it cannot: it printed no version, or crashed.
    """

    lines: tuple[str, ...]
    status: int | None
    failure: str | None


def ask(*command: str, timeout_s: float = VERSION_TIMEOUT_S) -> Answer:
    """Start a program that is to print something and end."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
            errors="replace", timeout=timeout_s, check=False,
            env=os.environ | {"OLLAMA_HOST": NO_SERVER},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Answer((), None, f"silent for {timeout_s:g} s")
    except OSError as error:
        return Answer((), None, str(error.strerror))
    lines = tuple((done.stdout + done.stderr).strip().splitlines())
    if done.returncode < 0:
        number = -done.returncode
        return Answer(lines, None, f"ended by signal {number}, {signal.strsignal(number)}")
    if done.returncode > 0:
        said = lines[-1].strip()[:SHOWN] if lines else f"exit status {done.returncode}"
        return Answer(lines, done.returncode, said)
    return Answer(lines, 0, None)


def why_not_pinned(folder: Path, pin: Pin) -> str | None:
    """Ask every program of an engine; return why one is not the pinned one, or None."""
    for path, probe in pin.programs.items():
        program = folder / path
        if not program.is_file():
            return f"{path} is missing"
        answer = ask(str(program), probe.argument)
        if answer.status is None:
            return f"{path} does not start ({answer.failure})"
        if probe.expected.lower() in "\n".join(answer.lines).lower():
            continue
        # A bare `go install` stamps no version, but notes the module that it was made of.
        if not _holds(program, pin.source.get("h1")):
            said = (answer.lines or (answer.failure or "nothing",))[0].strip()[:SHOWN]
            return f"{path} says {said!a}, not {probe.expected!a}"
    return None


def _holds(program: Path, text: str | None) -> bool:
    if text is None or program.stat().st_size == 0:
        return False
    with (
        program.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return content.find(text.encode()) >= 0
