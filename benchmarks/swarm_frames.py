"""Can any frame get past the firewall of a session? Millions of changed ones, each judged.

Frames of a real answer (a stock llama-server, its layers on a stock worker, recorded by a relay)
are changed by seed, those of each command as often as of another, and put to the firewall in the
state of the session in which they were sent. What passes must point into the
session's buffers, by another reckoning than the firewall's; what is refused must say a reason;
anything else is a fault, and its seed is written down.

    python benchmarks/swarm_frames.py MODEL.gguf [--frames 10000000] [--seed 1] [--json-out FILE]

Also written: what a frame costs on the hot path, in microseconds of processor time. Status 1 where
there is a fault. The same seed changes the same frames in the same way.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from results import write_result
from shoestring.swarm.firewall import Rules
from shoestring.swarm.splitting import Splitter
from shoestring.swarm.wire import BadFrameError, Command
from shoestring.testing.rpc_frames import mutate, stray
from shoestring.testing.rpc_real import record_answer
from shoestring.testing.rpc_relay import Replayed, again

if TYPE_CHECKING:
    from shoestring.swarm.wire import Frame
    from shoestring.testing.rpc_relay import Heard

GIB = 1 << 30
RULES = Rules(memory_bytes=8 * GIB, device_memory_bytes=8 * GIB)
HOT = (Command.SET_TENSOR, Command.GET_TENSOR)
REPEATS = 20_000
FAULTS_SHOWN = 20


def main() -> int:
    """Record, change, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--frames", type=int, default=10_000_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-frames.json")
    )
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _, heard = record_answer(given.model, RULES, Path(folder))
    session = max(heard, key=lambda one: len(one.requests))
    result = {
        "seed": given.seed,
        "hot_us": {command.name: cost_us(session, command) for command in HOT},
        **judge(session, given.frames, given.seed),
    }
    write_result(given.json_out, "swarm-frames", result)
    return 1 if result["faults"] else 0


def judge(session: Heard, frames: int, seed: int) -> dict[str, Any]:
    """Change the frames of a session, each command as often as another; count what came of it."""
    counts = Counter(frame.command for frame in session.requests)
    refused: Counter[str] = Counter()
    faults: list[str] = []
    passed = 0
    replayed = Replayed(session, RULES)
    for number, frame in enumerate(session.requests):
        for time_ in range(-(-frames // len(counts) // counts[frame.command])):
            name = f"{seed}-{number}-{time_}"
            try:
                changed = replayed.tried(mutate(Random(name), frame))
                passed += 1
                if changed and (where := stray(changed, list(replayed.places.values()))):
                    faults.append(f"{name}: {where}")
            except BadFrameError as error:
                refused[error.reason] += 1
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                faults.append(f"{name}: {type(error).__name__}: {error}")
        replayed.go_on(again(frame))
    return {
        "changed": passed + refused.total() + len(faults),
        "passed": passed,
        "refused": dict(refused.most_common()),
        "faults": len(faults),
        "first_faults": faults[:FAULTS_SHOWN],
    }


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


if __name__ == "__main__":
    raise SystemExit(main())
