"""The note's own stack: its environment below the cache, and the model that it loads."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from note_arithmetic import GENERATION, model_config

from shoestring.errors import MissingError
from shoestring.paths import cache_dir

SERVICE = Path(__file__).parent / "note_service"


def install() -> Path:
    """Make the environment of the note's service unless it is there as locked; return its Python.

    Raises:
        MissingError: uv could not make it.
    """
    lock = SERVICE / "requirements.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    folder = cache_dir() / "peers" / "note-service"
    python, mark = folder / "bin" / "python", folder / "lock.sha256"
    if not mark.is_file() or mark.read_text() != digest:
        uv = [sys.executable, "-P", "-m", "uv"]
        run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        run([*uv, "pip", "install", "--quiet", "--python", str(python), "--no-deps",
             "--require-hashes", "--requirements", str(lock)])  # fmt: skip
        mark.write_text(digest)
    return python


def make_model(python: Path, folder: Path) -> Path:
    """Write the model that the note's service loads, with random weights."""
    config, model = folder / "config.json", folder / "model"
    given = {"config": model_config(), "generation_config": GENERATION}
    config.write_text(json.dumps(given), encoding="utf-8")
    run([str(python), str(SERVICE / "make_model.py"), str(config), str(model)])
    return model


def run(command: list[str]) -> None:
    """Run a program to its end.

    Raises:
        MissingError: it failed; says its last line.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise MissingError(f"{Path(command[0]).name} ended with {done.returncode}: {last[:300]}")
