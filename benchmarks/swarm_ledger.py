"""How long does a book of a million entries take to verify, and is it whole after each SIGKILL?

Entries of answers by two nodes (hold, capture, release) are booked one transaction each, then read
from the file and verified, several times. That book is made where the system keeps files in memory,
for there a commit waits for no disk; what a commit costs on a real one is measured apart. Then
processes that book seeded histories are killed at random points, and what they leave is verified
and compared with a history that nobody killed.

    python benchmarks/swarm_ledger.py [--entries 1000000] [--kills 200] [--folder DIR]
                                      [--json-out FILE]

The bars: a million entries in 20 s, and no book that is not a whole beginning of its history.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from results import write_result
from shoestring.swarm.identity import KEY_FILE, load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.heads import head_path, read_head
from shoestring.swarm.ledger.reading import BOOK_FILE, open_reading
from shoestring.swarm.ledger.verifying import verify
from shoestring.testing.ledger_histories import ANA, a_book, answers_booked, play, steps

if TYPE_CHECKING:
    from shoestring.swarm.identity import Identity

BAR_S: Final = 20.0
MILLION: Final = 1_000_000
VERIFIED: Final = 3
COMMITS: Final = 300
STEPS: Final = 400
ENDLESS: Final = 1_000_000
"""Steps of one that is killed: the pipe is full, and it waits, long before it is through."""
SAY_EVERY: Final = 20
LONGEST_ENTRIES: Final = 150
"""A history of that many steps has more entries than this."""
IN_MEMORY: Final = Path("/dev/shm")


def main() -> None:
    """Book, verify, kill, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--entries", type=int, default=MILLION)
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--folder", type=Path, help="for the large book  [default: in memory]")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-ledger.json")
    )
    given = arguments.parse_args()
    if given.entries < 4 or given.kills < 1:
        arguments.error("--entries: at least 4; --kills: at least 1")
    folder = given.folder or (IN_MEMORY if IN_MEMORY.is_dir() else None)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        verified = verify_many(Path(place), given.entries)
    with tempfile.TemporaryDirectory() as place:
        commits = time_commits(Path(place))
    killed = []
    for seed in range(given.kills):
        killed.append(kill_one(seed))
        if len(killed) % SAY_EVERY == 0:
            say(f"{len(killed)} of {given.kills} killed")
    figures = {
        "how": {"entries_of": "answers by two nodes: hold, capture, release",
                "verified_times": VERIFIED, "book_in_memory": folder == IN_MEMORY,
                "kill": "SIGKILL after a random number of entries and up to 3 ms"},
        "bars": judge(verified, killed), "verify": verified, "commit": commits,
        "kills": {"count": len(killed), "whole": sum(one["whole"] for one in killed),
                  "entries_booked": [one["booked"] for one in killed],
                  "entries_told": [one["told"] for one in killed]},
    }  # fmt: skip
    write_result(given.json_out, "swarm-ledger", figures)


def verify_many(folder: Path, entries: int) -> dict[str, Any]:
    """Book so many entries, and read them again and again."""
    identity = load_identity(folder / KEY_FILE)
    begun_s = time.perf_counter()
    with a_book(folder, identity) as book:
        answers_booked(book, entries // 3)
        count, _ = book.end()
    booking_s = time.perf_counter() - begun_s
    say(f"{count} entries booked in {booking_s:.0f} s")
    path = folder / BOOK_FILE
    head = read_head(head_path(path).read_bytes(), identity.id)
    took, cpu = [], []
    for _ in range(VERIFIED):
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        with open_reading_of(path) as book:
            found = verify(book, identity.id, [head], say)
        took.append(time.perf_counter() - begun_s)
        cpu.append(time.process_time() - begun_cpu_s)
        assert found.fault is None, found.fault
        assert found.entries == count
    return {"entries": count, "file_bytes": path.stat().st_size, "booking_s": booking_s,
            "verify_s": took, "verify_cpu_s": cpu}  # fmt: skip


def time_commits(folder: Path) -> dict[str, Any]:
    """Book entries on the disk of the temporary folder, one after the other."""
    identity = load_identity(folder / KEY_FILE)
    took = []
    with a_book(folder, identity) as book:
        for number in range(COMMITS):
            begun_s = time.perf_counter()
            answers.fund(book, ANA, 1, reference=f"f{number}")
            took.append(time.perf_counter() - begun_s)
    took.sort()
    return {"entries": COMMITS, "median_s": took[COMMITS // 2], "worst_s": took[-1]}


def kill_one(seed: int) -> dict[str, Any]:
    """Kill a process that books a history; return how many entries it left, and whether whole."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        identity = load_identity(folder / KEY_FILE)
        told = booked_until_killed(folder, seed, chance)
        expected = undisturbed(identity, seed)
        if (reading := open_reading(folder / BOOK_FILE)) is None:
            return {"booked": 0, "told": len(told), "whole": not told}
        with reading:
            found = verify(reading, identity.id)
            booked = [entry.sha256().hex() for entry in reading.entries()]
    whole = (
        found.fault is None and booked == expected[: len(booked)] and told == booked[: len(told)]
    )
    return {"booked": len(booked), "told": len(told), "whole": whole}


def undisturbed(identity: Identity, seed: int) -> list[str]:
    """Return the hashes of a history's entries that nobody kills; made in memory, if it can be."""
    with (
        tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as place,
        a_book(Path(place), identity) as book,
    ):
        return [entry.sha256().hex() for entry in play(book, steps(seed, STEPS))]


def booked_until_killed(folder: Path, seed: int, chance: random.Random) -> list[str]:
    """Return the hashes of the entries that a process told before it was killed."""
    command = (sys.executable, "-m", "shoestring.testing.ledger_histories")
    with subprocess.Popen(
        [*command, str(folder), str(seed), str(ENDLESS)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(chance.randrange(LONGEST_ENTRIES))]
        time.sleep(chance.random() * 3e-3)  # the point within an entry is the chance's
        child.send_signal(signal.SIGKILL)
        lines += list(child.stdout)
    if child.returncode != -signal.SIGKILL:
        raise RuntimeError(f"history {seed} ended by itself: exit status {child.returncode}")
    return [words[1] for words in map(str.split, lines) if len(words) == 2]


def open_reading_of(path: Path) -> Any:
    """Open a book that is there."""
    book = open_reading(path)
    assert book is not None
    return book


def judge(verified: dict[str, Any], killed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say which bars are met; the time is scaled to a million entries."""
    slowest_s = max(verified["verify_s"]) * MILLION / verified["entries"]
    broken = sum(not one["whole"] for one in killed)
    return [
        {"bar": "a million entries verified, slowest, s", "value": slowest_s, "sense": "at most",
         "limit": BAR_S, "met": slowest_s <= BAR_S},
        {"bar": f"books not whole after {len(killed)} kills", "value": broken, "sense": "at most",
         "limit": 0, "met": broken == 0},
    ]  # fmt: skip


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
