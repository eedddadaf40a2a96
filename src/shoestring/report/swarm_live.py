"""Round trips measured here and now, at a small scale, for a notebook."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import MissingError, ShoestringError
from shoestring.report.plan_evidence import read_figures
from shoestring.report.swarm_tables import SCALING

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL: Final = ("--blocks", "1", "--peers", "1", "2", "--rtt-ms", "0", "20", "--tokens", "8")
LIMIT_S: Final = 600.0
TERM_S: Final = 15.0
"""To take its hosts down by itself."""


def measure_here(words: Sequence[str] = SMALL) -> dict[str, Any] | None:
    """Run the benchmark of round trips, and return what it found.

    Args:
        words: for it.

    Raises:
        MissingError: this is no checkout.
        ShoestringError: it failed; its own last line says why.
    """
    script = _find_script(Path(__file__).parents[3], *_above(Path.cwd()))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / f"{SCALING}.json"
        command = [sys.executable, str(script), *words, "--json-out", str(out)]
        status, said = _run(command, script.name)
        if status or not out.is_file():
            last = (said.strip().splitlines() or ["no word"])[-1]
            raise ShoestringError(f"{script.name} failed with status {status}: {last}")
        return read_figures(out.parent, SCALING)


def _run(command: Sequence[str], name: str) -> tuple[int, str]:
    """Return the status of a command and what it said on stderr; at the limit all of it ends."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as running:  # fmt: skip
        try:
            said = running.communicate(timeout=LIMIT_S)[1]
        except subprocess.TimeoutExpired as error:
            raise ShoestringError(f"{name} was not done in {LIMIT_S:g} s") from error
        finally:
            _end(running)
    return running.returncode, said


def _end(running: subprocess.Popen[str]) -> None:
    """End a process that still runs, and all that it started: a laboratory has many."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if running.poll() is not None:
            return
        os.killpg(running.pid, number)
        with suppress(subprocess.TimeoutExpired):
            running.wait(TERM_S)


def _find_script(*places: Path) -> Path:
    name = f"{SCALING.replace('-', '_')}.py"
    for place in places:
        if (script := place / "benchmarks" / name).is_file():
            return script
    raise MissingError(f"benchmarks/{name} is not here: live measuring needs a checkout")


def _above(folder: Path) -> tuple[Path, ...]:
    return (folder, *folder.parents)
