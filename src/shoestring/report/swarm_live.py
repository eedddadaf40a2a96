"""Round trips measured here and now, at a small scale, for a notebook."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import MissingError, ShoestringError
from shoestring.report.plan_evidence import read_figures
from shoestring.report.swarm_tables import SCALING

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL: Final = ("--blocks", "1", "--peers", "1", "2", "--rtt-ms", "0", "20", "--tokens", "8")
LIMIT_S: Final = 600.0


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
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ShoestringError(f"{script.name} was not done in {LIMIT_S:g} s") from error
        if not out.is_file():
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise ShoestringError(f"{script.name} failed: {last}")
        return read_figures(out.parent, SCALING)


def _find_script(*places: Path) -> Path:
    name = f"{SCALING.replace('-', '_')}.py"
    for place in places:
        if (script := place / "benchmarks" / name).is_file():
            return script
    raise MissingError(f"benchmarks/{name} is not here: live measuring needs a checkout")


def _above(folder: Path) -> tuple[Path, ...]:
    return (folder, *folder.parents)
