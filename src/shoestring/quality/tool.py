"""llama.cpp's ``llama-quantize`` as a program: found, asked what it makes, run to its end."""

from __future__ import annotations

import difflib
import re
import signal
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.engines.discovery import find_program
from shoestring.engines.install.answers import ask
from shoestring.engines.install.steps import follow
from shoestring.errors import BadModelError, BadValueError, MissingError, ShoestringError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROGRAM = "llama-quantize"
KEPT_LINES = 50
FAILED = "failed to quantize:"
SHOWN = 160
"""Characters of what the tool said last, in an error."""
_TYPE = re.compile(r"^ +(?:(\d+) +or +)?([A-Z][A-Z0-9_]*) +: (?:alias for (\w+))?")


@dataclass(frozen=True)
class Kind:
    """A type of file that llama-quantize makes.

    Attributes:
        name: as the tool writes it, for example ``Q4_K_M``.
        number: of ``general.file_type``; None where the source's stays.
    """

    name: str
    number: int | None


@dataclass(frozen=True)
class Quantiser:
    """llama-quantize as it is on this machine.

    Attributes:
        program: its path.
        kinds: what it makes, by lower-case name, aliases included.
    """

    program: Path
    kinds: Mapping[str, Kind]

    def kind(self, text: str) -> Kind:
        """Return the type that a user names, in capitals or not.

        Raises:
            BadValueError: there is none; the line names the nearest and lists all.
        """
        found = self.kinds.get(text.lower())
        if found is not None:
            return found
        near = difflib.get_close_matches(text.lower(), self.kinds, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadValueError(
            f"type {text[:40]!a} is unknown: {hint}llama-quantize makes {', '.join(self.kinds)}"
        )


def find_quantiser() -> Quantiser:
    """Find llama-quantize and ask it what it makes.

    Raises:
        MissingError: it is not installed, or lists nothing.
    """
    program = find_program(PROGRAM)
    if program is None:
        raise MissingError(f"{PROGRAM} is not installed: shoestring engines install llama.cpp")
    kinds = read_kinds(ask(str(program), "--help").lines)
    if not kinds:
        raise MissingError(f"{program} lists no types: shoestring engines install llama.cpp")
    return Quantiser(program, kinds)


def read_kinds(lines: Sequence[str]) -> dict[str, Kind]:
    """Read the table of types out of the help of llama-quantize; an alias is what it stands for."""
    kinds: dict[str, Kind] = {}
    for line in lines:
        if (found := _TYPE.match(line)) is not None:
            number, name, alias = found.groups()
            kinds[name.lower()] = Kind(alias or name, None if number is None else int(number))
    return kinds


def run_tool(
    program: Path, words: Sequence[str], on_line: Callable[[str], None] = lambda _line: None
) -> list[str]:
    """Run the tool to its end; Ctrl-C ends it, too.

    Raises:
        BadModelError: it does not take the model.
        MissingError: it cannot be started.
        ShoestringError: it was ended from outside.
    """
    kept: deque[str] = deque(maxlen=KEPT_LINES)

    def take(line: str) -> None:
        kept.append(line)
        on_line(line)

    try:
        status = follow([str(program), *words], Path.cwd(), {}, take)
    except (FileNotFoundError, PermissionError) as error:
        raise MissingError(f"{program} cannot be started: {error.strerror}") from error
    if status < 0:
        raise ShoestringError(
            f"{PROGRAM} was ended by signal {-status} ({signal.strsignal(-status)}): if memory ran "
            "out, close other programs; nothing was kept"
        )
    if status > 0:
        raise BadModelError(f"{PROGRAM} failed: {last_words(kept)}; nothing was kept")
    return list(kept)


def last_words(lines: Sequence[str] | deque[str]) -> str:
    """Return the tool's reason: what follows its word of failure, else an error, else the last."""
    said = [line.strip() for line in lines if line.strip()]
    # It may stand behind what was said of the tensor at hand, in one line.
    reasons = [line.partition(FAILED)[2].strip() for line in said if FAILED in line]
    errors = [line for line in said if "error" in line.lower()]
    return ascii((reasons or errors or said[-1:] or ["nothing"])[0][:SHOWN])
