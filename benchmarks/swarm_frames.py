"""Can any frame get past a node's session? Millions of changed ones, each judged.

Frames of a real answer (a stock llama-server, three layers on a stock worker, recorded by a relay)
are changed and put to a session of a node in the state in which they were sent: splitter, firewall
and the agent's own commands, with a worker that is not there. What reaches it must be a frame for
a stock worker and point into the session's buffers, by another reckoning than the firewall's;
what is refused must say a reason; anything else is a fault (``shoestring.testing.rpc_fuzz``). Half
of the sessions have terms, a store and a way to another node too. Counted are frames that were
judged, and apart those of them that differ from all recorded ones: ``--frames`` is of these. Inputs
that an earlier run found are judged again by the next one, and not counted again.

    python benchmarks/swarm_frames.py MODEL.gguf [--frames 10000000] [--seed 1] [--processes 1]
                                      [--work FOLDER] [--json-out FILE]
    python benchmarks/swarm_frames.py --replay FILE --work FOLDER

Where atheris can be imported (``pip install atheris``), inputs are chosen by which edges of the
code they reach, in as many processes as are asked for; else they are ours alone, by seed, in this
one. It goes in runs of a seed each. What is done is
in the work folder, for each state of the code by itself: started again, it goes on with the next
seed, also after Ctrl-C, which writes the result so far. An input that is a fault is kept there,
under its seed, and ``--replay`` puts it again. Status 1 where there is a fault.

Also written: what a frame costs on the hot path, in microseconds of processor time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import signal
import subprocess  # nosec B404
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from swarm_frames_run import (
    CORPUS,
    RECORDING,
    RULES,
    Run,
    load_recording,
    runs_of,
    save_recording,
)

from results import write_result
from shoestring.paths import cache_dir
from shoestring.swarm.splitting import Splitter
from shoestring.swarm.wire import Command
from shoestring.testing.rpc_fuzz import Target, changed, spots_of
from shoestring.testing.rpc_real import record_answer
from shoestring.testing.rpc_relay import Replayed, again

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from shoestring.swarm.wire import Frame
    from shoestring.testing.rpc_relay import Heard

HOT: Final = (Command.SET_TENSOR, Command.GET_TENSOR)
REPEATS: Final = 20_000
INPUTS: Final = 200_000
"""Of one run."""
FAULTS_SHOWN: Final = 20
LAYERS: Final = ("-ngl", "3")
"""Small graphs are changed sooner."""
SEEN: Final = re.compile(rb"cov: (\d+) ft: (\d+) corp: (\d+)/")
EDGES: Final = re.compile(rb"INFO: Loaded \d+ modules\s+\((\d+) inline")
GUIDED: Final = Path(__file__).with_name("swarm_frames_guided.py")


def main() -> int:
    """Record, change, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model", type=Path, nargs="?")
    arguments.add_argument("--frames", type=int, default=10_000_000)
    arguments.add_argument("--seed", type=int, default=1, help="of the first run")
    arguments.add_argument("--processes", type=int, default=1, help="guided runs side by side")
    arguments.add_argument("--work", type=Path, help="where it goes on")
    arguments.add_argument("--replay", type=Path, help="put this input again, and nothing else")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-frames.json")
    )
    given = arguments.parse_args()
    if given.processes < 1:
        arguments.error("--processes: at least 1")
    code = code_sha256()
    folder = (given.work or cache_dir() / "swarm-frames") / code[:12]
    if given.model is not None and not (folder / RECORDING).exists():
        with tempfile.TemporaryDirectory() as logs:
            _, heard = record_answer(given.model, RULES, Path(logs), LAYERS)
        save_recording(folder, max(heard, key=lambda one: len(one.requests)))
    if not (folder / RECORDING).exists():
        arguments.error(f"no session was recorded in {folder}: give a model")
    if given.replay is not None:
        with closing(Target(spots_of(load_recording(folder), RULES), RULES)) as target:
            target(given.replay.read_bytes())
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)  # also where a shell had it ignored
    try:
        go_on(folder, given.frames, given.seed, given.processes)
    except KeyboardInterrupt:
        print("stopped: the result so far", file=sys.stderr)
    session = load_recording(folder)
    found = sum_up(folder)
    result = {
        "code_sha256": code,
        "bars": judge(found, given.frames),
        "hot_us": {command.name: cost_us(session, command) for command in HOT},
        **found,
    }
    write_result(given.json_out, "swarm-frames", result)
    return 1 if result["faults"] else 0


def go_on(folder: Path, frames: int, first_seed: int, processes: int) -> None:
    """Make runs until so many changed frames were judged, those of earlier days counted."""
    while True:
        runs = runs_of(folder)
        done = sum(run["changed"] for run in runs)
        inputs = sum(run["inputs"] for run in runs)
        if done >= frames:
            return
        print(f"{done} of {frames} changed frames", file=sys.stderr, flush=True)
        seed = max([first_seed - 1, *(run["seed"] for run in runs)]) + 1
        needed = -(-(frames - done) * inputs // done) if done else frames
        if find_spec("atheris"):
            each = min(INPUTS, -(-needed // processes))
            run_guided(folder, range(seed, seed + processes), each)
        else:
            run_ours(folder, seed, min(INPUTS, needed))


def run_ours(folder: Path, seed: int, inputs: int) -> None:
    """Put inputs that a seed alone decides."""
    run = Run(folder, seed, inputs, "ours, by seed: atheris cannot be imported")
    try:
        for number in range(inputs):
            run.put(changed(Random(f"{seed}-{number}"), run.spots))
    finally:
        run.write()


def run_guided(folder: Path, seeds: range, inputs: int) -> None:
    """Put inputs that atheris chooses, in a process for each seed, for libFuzzer ends it."""
    with ExitStack() as stack:
        children = [stack.enter_context(guided(folder, seed, inputs)) for seed in seeds]
        statuses = [child.wait() for child in children]
    written = {one["seed"] for one in runs_of(folder)}
    for seed, status in zip(seeds, statuses, strict=True):
        if seed in written and status and not any((folder / "crashes").glob(f"{seed}-*")):
            (folder / "crashes" / f"{seed}-status{status}").write_bytes(b"")
    for seed, status in zip(seeds, statuses, strict=True):
        if seed not in written:
            log = log_of(folder, seed)
            raise SystemExit(f"run {seed} ended with status {status}: look into {log}")


@contextmanager
def guided(folder: Path, seed: int, inputs: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run one process of atheris until the block ends; it writes down what it has done so far."""
    # Inputs that earlier runs found are put first, and not counted.
    found = sum(1 for _ in (folder / CORPUS).glob("*"))
    words = (sys.executable, str(GUIDED), str(folder), str(seed), str(found + inputs))
    with log_of(folder, seed).open("wb") as file, tempfile.TemporaryDirectory() as scratch:
        its = {**os.environ, "TMPDIR": scratch}  # libFuzzer cleans nothing up
        child = subprocess.Popen(words, stdout=file, stderr=file, env=its)  # nosec B603
        try:
            yield child
        finally:
            child.terminate()
            child.wait()


def log_of(folder: Path, seed: int) -> Path:
    """Return where a process of atheris says what it does."""
    return folder / f"guided-{seed}.log"


def sum_up(folder: Path) -> dict[str, Any]:
    """Return what all runs of this state of the code came to."""
    runs = runs_of(folder)
    refused: Counter[str] = Counter()
    for run in runs:
        refused.update(run["refused"])
    seconds = sum(run["seconds"] for run in runs)
    frames = sum(run["frames"] for run in runs)
    kept = sorted(place.name for place in (folder / "faults").glob("*.txt"))
    crashes = sorted(place.name for place in (folder / "crashes").glob("*"))
    return {
        "ways": sorted({run["way"] for run in runs}),
        "seeds": [run["seed"] for run in runs],
        "inputs": sum(run["inputs"] for run in runs),
        "inputs_again": sum(run["inputs_again"] for run in runs),
        "frames": frames,
        "changed": sum(run["changed"] for run in runs),
        "reached_the_worker": sum(run["reached_the_worker"] for run in runs),
        "refused": dict(refused.most_common()),
        "seconds": seconds,
        "frames_per_s": frames / seconds if seconds else None,
        "coverage": covered(folder, [run["seed"] for run in runs]),
        "faults": sum(run["faults"] for run in runs) + len(crashes),
        "first_faults": [*kept, *crashes][:FAULTS_SHOWN],
    }


def judge(found: dict[str, Any], frames: int) -> list[dict[str, Any]]:
    """Say whether as many were judged as were asked for, and none got past the session."""
    return [
        {"bar": "changed frames that were judged", "value": found["changed"], "sense": "at least",
         "limit": frames, "met": found["changed"] >= frames},
        {"bar": "of them that are a fault", "value": found["faults"], "sense": "at most",
         "limit": 0, "met": found["faults"] == 0},
    ]  # fmt: skip


def covered(folder: Path, seeds: list[int]) -> dict[str, int] | None:
    """Return how many edges of the code were reached, as libFuzzer says; None: nobody looked."""
    found: dict[str, int] = {}
    for seed in seeds:
        log = log_of(folder, seed)
        said = log.read_bytes() if log.exists() else b""
        for edges, features, corpus in SEEN.findall(said):
            found["edges"] = max(found.get("edges", 0), int(edges))
            found["features"] = max(found.get("features", 0), int(features))
            found["inputs_kept"] = int(corpus)
        for edges in EDGES.findall(said):
            found["edges_there_are"] = int(edges)
    return found or None


def code_sha256() -> str:
    """Return the digest of the code that inputs are put to, and of what makes and judges them."""
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        if name.startswith(("shoestring.swarm", "shoestring.testing")) and module.__file__:
            digest.update(name.encode() + b"\0" + Path(module.__file__).read_bytes())
    return digest.hexdigest()


def cost_us(session: Heard, command: Command) -> float:
    """Return the processor time of splitting and checking a frame, without its body."""
    replayed = Replayed(session, RULES)
    last: Frame | None = None
    for frame in session.requests:
        if frame.command == command:
            last = frame
            break
        replayed.go_on(again(frame))
    assert last is not None
    words = last.start() + bytes(last.size - len(last.head))
    splitter = Splitter()
    begin = time.process_time()
    for _ in range(REPEATS):
        replayed.firewall.request(splitter.feed(words)[0])  # type: ignore[arg-type]
    return (time.process_time() - begin) / REPEATS * 1e6


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
