"""One run of inputs against a session: judged, counted, faults kept; a part of swarm_frames.py."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from shoestring.swarm.firewall import Rules
from shoestring.swarm.wire import Frame
from shoestring.testing.rpc_fuzz import Counts, Target, spots_of
from shoestring.testing.rpc_relay import Heard

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

GIB: Final = 1 << 30
RULES: Final = Rules(memory_bytes=8 * GIB, device_memory_bytes=8 * GIB)
RECORDING: Final = "recording.json"
RUNS: Final = "runs"
CORPUS: Final = "corpus"
WRITE_S: Final = 5.0
SLOW_S: Final = 120
"""After which an input hangs, also on a machine that does much else."""
MOST_FAULTS: Final = 20
"""Kept of one run."""


class Run:
    """Counts what comes of inputs, and writes it into a folder.

    Args:
        folder: with the recording.
        seed: of the inputs.
        inputs: how many there will be, to write down the last counts in time.
        way: how they are chosen.

    Attributes:
        spots: places of the recorded session.
        faults: inputs that were some.
        known: SHA-256 of inputs that were given in an earlier run; they are judged again, and
            counted apart.
    """

    def __init__(self, folder: Path, seed: int, inputs: int, way: str) -> None:
        self.spots = spots_of(load_recording(folder), RULES)
        self.faults = 0
        self.known: set[bytes] = set()
        self._again = Counts()
        self._target = Target(self.spots, RULES)
        self._folder, self._seed, self._inputs, self._way = folder, seed, inputs, way
        self._begun_s = self._written_s = time.monotonic()
        self._given = 0
        signal.signal(signal.SIGALRM, _hangs)

    def put(self, data: bytes) -> None:
        """Judge one input; a fault is kept, and does not end the run."""
        self._given += 1
        signal.setitimer(signal.ITIMER_REAL, SLOW_S)
        try:
            is_known = bool(self.known) and hashlib.sha256(data).digest() in self.known
            self._target(data, self._again if is_known else None)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self._keep(data, error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        now_s = time.monotonic()
        if now_s >= self._written_s + WRITE_S or self._given >= self._inputs:
            self._written_s = now_s
            self.write()

    def write(self) -> None:
        """Write what came of them so far, so that it is whole whenever it is read."""
        place = self._folder / RUNS
        place.mkdir(parents=True, exist_ok=True)
        came = self._target.counts
        counts = {
            "seed": self._seed,
            "way": self._way,
            "inputs": came.inputs,
            "frames": came.frames,
            "changed": came.changed,
            "reached_the_worker": came.reached,
            "refused": dict(came.refused.most_common()),
            "inputs_again": self._again.inputs,
            "faults": self.faults,
            "seconds": time.monotonic() - self._begun_s,
        }
        half = place / f"{self._seed}.half"
        half.write_text(json.dumps(counts), encoding="utf-8")
        half.replace(place / f"{self._seed}.json")

    def _keep(self, data: bytes, error: Exception) -> None:
        self.faults += 1
        if self.faults <= MOST_FAULTS:
            name = f"{self._seed}-{hashlib.sha256(data).hexdigest()[:16]}"
            place = self._folder / "faults"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.bin").write_bytes(data)
            what = f"{type(error).__name__}: {error}\n"
            (place / f"{name}.txt").write_text(what, encoding="utf-8")


def _hangs(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"an input was not judged within {SLOW_S} s")


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """Return the counts of the runs that a folder has, by seed."""
    found = [json.loads(place.read_text("utf-8")) for place in (folder / RUNS).glob("*.json")]
    return sorted(found, key=lambda run: int(run["seed"]))


def save_recording(folder: Path, heard: Heard) -> None:
    """Write a session down, for runs that need no engine."""
    said = {
        "requests": [[one.command, one.size, one.head.hex()] for one in heard.requests],
        "answers": [[command, said.hex(), told.hex()] for command, said, told in heard.answers],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORDING).write_text(json.dumps(said), encoding="utf-8")


def load_recording(folder: Path) -> Heard:
    """Return the session that was written down."""
    said = json.loads((folder / RECORDING).read_text(encoding="utf-8"))
    return Heard(
        requests=[
            Frame(one, size, bytearray.fromhex(head)) for one, size, head in said["requests"]
        ],
        answers=[
            (command, bytes.fromhex(one), bytes.fromhex(told))
            for command, one, told in said["answers"]
        ],
    )
