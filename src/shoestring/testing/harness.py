"""The harness as a process that can be broken, and what is counted of the runs that it leaves.

Rows are counted from the file itself: the reader of runs refuses a row that stands twice, and a
campaign has to be able to count one.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import psutil

from shoestring.errors import ShoestringError
from shoestring.hardware.platforms import VARIABLES
from shoestring.measure.records import (
    CONFIG,
    ENVIRONMENT,
    MANIFEST,
    REQUESTS,
    read_lines,
    read_object,
    read_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

POLL_S = 0.05
ORPHAN_WAIT_S = 15.0
VAIN_LIVES = 10
"""Where the harness lived so often in a row without a fault, there will be none."""
SESSIONS = 20
"""A run that is not complete after so many more sessions will not be."""
CAMPAIGN = "SHOESTRING_CAMPAIGN"
"""A variable that all processes of a campaign inherit, by which those left over are found."""


class Campaign:
    """The runs of one kind of fault, in one folder.

    Args:
        out: gets the folders of the runs.
        suite: name or path.
        options: of ``shoestring run``.
        environment: variables beside our own.

    Attributes:
        faults: how many were made.
        ends: how the harness ended where that was not well: status and last line.
    """

    def __init__(
        self, out: Path, suite: str, *options: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.out = out
        self._mark = secrets.token_hex(8)
        # Without the platform's marks: a lease of it would bring bundles of other runs back.
        ours = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        self._environment = ours | dict(environment or {}) | {CAMPAIGN: self._mark}
        self._command = [
            sys.executable, "-P", "-c", "from shoestring.cli import main; main()", "run", suite,
            *options, "--out", str(out), "--resume",
        ]  # fmt: skip
        self.faults = 0
        self.ends: list[dict[str, Any]] = []
        self._vain = 0
        self._begun_s = time.monotonic()

    def start(self) -> Harness:
        """Start the harness to break it: it goes on with a cut run, or begins one.

        Raises:
            ShoestringError: it does not live long enough to be broken.
        """
        if self._vain == VAIN_LIVES:
            last = self.ends[-1] if self.ends else "it always ended well"
            raise ShoestringError(
                f"the harness lived {VAIN_LIVES} times in a row without a fault; last end: {last}"
            )
        self._vain += 1
        return self._start()

    def note_fault(self, what: str) -> None:
        """Count a fault that was made, and say how far the campaign is."""
        self.faults += 1
        self._vain = 0
        passed_s = time.monotonic() - self._begun_s
        print(f"fault {self.faults}, {what}: {self.rows()} rows, {passed_s:.0f} s", flush=True)

    def _start(self) -> Harness:
        # A file takes all that it says; a pipe would block it.
        said = tempfile.TemporaryFile()  # noqa: SIM115 - the harness closes it
        process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=said, env=self._environment
        )
        return Harness(self, process, said)

    def complete(self) -> None:
        """Start the harness until no run is cut, at most so often."""
        for number in range(SESSIONS):
            if all(_is_complete(path) for path in self._runs()):
                return
            print(f"session {number + 1} without faults, to complete the run", flush=True)
            with self._start() as harness:
                harness.end()

    def rows(self) -> int:
        """Count the measured rows on disk in all runs."""
        files = self.out.glob(f"*/{REQUESTS}")
        return sum(file.read_bytes().count(b'"phase":"measure"') for file in files)

    def counts(self) -> dict[str, Any]:
        """Return what all runs of the campaign came to; read when the harness has ended."""
        counts = [run_counts(path) for path in self._runs()]
        totals: dict[str, Any] = {"runs": len(counts), "orphans": self._orphans()}
        for key in ("planned", "rows", "twice", "missing", "foreign", "ok", "failed", "sessions",
                    "interruptions", "restarts", "recovered"):  # fmt: skip
            totals[key] = sum(count[key] for count in counts)
        totals["complete"] = all(count["complete"] for count in counts)
        totals["failed_by_reason"] = dict(sum((c["failed_by_reason"] for c in counts), Counter()))
        return {**totals, "ends": self.ends}

    def _runs(self) -> list[Path]:
        return sorted(path.parent for path in self.out.glob(f"*/{CONFIG}"))

    def _orphans(self) -> int:
        """Count the processes that outlived their harness, after some time to end."""
        deadline_s = time.monotonic() + ORPHAN_WAIT_S
        while (left := self._marked()) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)  # not our children: there is nothing to wait for
        return left

    def _marked(self) -> int:
        found = 0
        for process in psutil.process_iter():
            try:
                found += process.environ().get(CAMPAIGN) == self._mark
            except psutil.Error:
                continue  # it has ended, or is another user's
        return found


class Harness:
    """One life of the harness; it is killed where the block is left before its end."""

    def __init__(
        self, campaign: Campaign, process: subprocess.Popen[bytes], said: BinaryIO
    ) -> None:
        self._campaign = campaign
        self.process = process
        self._said = said

    def wait(self, seconds: float) -> bool:
        """Wait so long; return whether the harness has ended meanwhile."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait_for(self, seen: Callable[[], bool]) -> bool:
        """Wait until something is seen; return False where the harness ended before."""
        while not seen():
            # Rows appear in a file and processes in a table: there is no event to await.
            if self.wait(POLL_S):
                return False
        return True

    def wait_for_rows(self, more: int) -> bool:
        """Wait for so many more rows; return False where the harness ended before."""
        wanted = self._campaign.rows() + more
        return self.wait_for(lambda: self._campaign.rows() >= wanted)

    def end(self) -> str:
        """Wait for its end; note it and return its last line where that was not well, else ""."""
        status = self.process.wait()
        if not status:
            return ""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        message = lines[-1].replace(str(self._campaign.out), "OUT") if lines else ""
        self._campaign.ends.append({"status": status, "message": message})
        return message

    def engine(self) -> psutil.Process | None:
        """Return the process that computes: a llama-server of ours, or Ollama's runner."""
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return None
        return next((process for process in below if _computes(process)), None)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, if it lives, as the kernel kills."""
        self.process.kill()
        self.process.wait()
        self._said.close()


def run_counts(path: Path) -> dict[str, Any]:
    """Count what stands in one run's folder."""
    rows = measured_rows(path)
    ids = Counter(row["id"] for row in rows)
    planned = {request["id"] for request in read_object(path / CONFIG)["requests"]}
    sessions = read_object(path / ENVIRONMENT)["sessions"]
    interruptions = [each for session in sessions for each in (session["interruptions"] or [])]
    reasons = Counter(row["failure"]["reason"] for row in rows if row["status"] == "failed")
    twice = sum(count > 1 for count in ids.values())
    return {
        "planned": len(planned),
        "rows": len(rows),
        "twice": twice,
        "missing": len(planned - ids.keys()),
        "foreign": len(ids.keys() - planned),
        "ok": sum(row["status"] == "ok" for row in rows),
        "failed": sum(reasons.values()),
        "failed_by_reason": reasons,
        "sessions": len(sessions),
        # Read as all readers do: hashes, shapes and all.
        "complete": not twice and read_run(path).complete,
        "interruptions": len(interruptions),
        "restarts": sum(each["restarted"] for each in interruptions),
        "recovered": sum(each["recovered"] for each in interruptions),
    }


def measured_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a run that count, even those that stand twice."""
    rows, _ = read_lines(path / REQUESTS)
    return [row for row in rows if row["phase"] == "measure"]


def _is_complete(path: Path) -> bool:
    manifest = path / MANIFEST
    return manifest.is_file() and read_object(manifest)["status"] == "complete"


def _computes(process: psutil.Process) -> bool:
    """Whether a process is an engine: the guard in front of it names it, too, but is Python."""
    try:
        words = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return "--port" in words and Path(words[0]).name in ("llama-server", "ollama")
