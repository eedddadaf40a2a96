"""A tiny suite, run against the known-truth server or the real engine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

TINY = Path(__file__).parents[1] / "data" / "tiny.toml"


@pytest.fixture
def tiny() -> str:
    """The path of the tiny suite."""
    return str(TINY)


class Harness:
    """``shoestring run`` as a process, to be signalled and killed."""

    def __init__(self, out: Path, url: str, model: str, *options: str) -> None:
        self.out = out
        command = [sys.executable, "-c", "from shoestring.cli import main; main()", "run",
                   str(TINY), "--base-url", url, "--model", model, "--out", str(out),
                   "--json", *options]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def rows(self) -> list[dict]:
        """The whole rows that are on disk now."""
        files = list(self.out.glob("*/requests.jsonl"))
        lines = files[0].read_bytes().split(b"\n")[:-1] if files else []
        return [json.loads(line) for line in lines]

    def wait_for_rows(self, count: int) -> None:
        """Wait until so many measured rows are on disk."""
        # Rows appear in a file; all that can be awaited in between is the harness's own end.
        while len([r for r in self.rows() if r["phase"] == "measure"]) < count:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.01)
                pytest.fail(f"the harness ended early: {self.process.stderr.read()}")

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Send a signal, if any, and return exit status, stdout and stderr."""
        if number is not None:
            os.kill(self.process.pid, number)
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err

    def kill(self) -> None:
        """Kill it, as the kernel does when memory runs out."""
        self.end(signal.SIGKILL)


@pytest.fixture
def harness() -> Iterator[Callable[..., Harness]]:
    """Starts harnesses, and ends those that a failed test left."""
    started: list[Harness] = []

    def start(*arguments: Any) -> Harness:
        started.append(Harness(*arguments))
        return started[-1]

    yield start
    for one in started:
        with one.process:
            one.process.kill()
