"""Histories of a ledger that a seed makes, and a process that books one until it is killed.

``python -m shoestring.testing.ledger_histories FOLDER SEED STEPS`` books into ``ledger.db`` of a
folder, and prints a line for each entry once :meth:`Book.add` has returned.
"""

from __future__ import annotations

import hashlib
import random
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shoestring.swarm.certificates import peer_id_of
from shoestring.swarm.identity import KEY_FILE, load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.book import Book, RefusedEntryError
from shoestring.swarm.ledger.reading import BOOK_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.ledger.entries import Entry

NOW_S: Final = 1_800_000_000
Step = tuple[str, "Callable[[Book], Entry | None]"]


def an_id(name: str) -> str:
    """Return the peer id that a name always gets; whether a key has it nobody knows."""
    return peer_id_of(hashlib.sha256(name.encode()).digest())


ANA: Final = an_id("ana")
BEN: Final = an_id("ben")
NODES: Final = tuple(an_id(f"node {number}") for number in range(3))


@contextmanager
def a_book(folder: Path, identity: Identity) -> Iterator[Book]:
    """Open a folder's book, whose clock stands still."""
    with Book(folder / BOOK_FILE, identity, now=lambda: NOW_S) as book:
        yield book


def answers_booked(book: Book, count: int) -> None:
    """Book so many answers of two nodes: three entries each."""
    answers.fund(book, ANA, 10_000 * count, reference="start")
    for number in range(count):
        reference = hashlib.sha256(f"answer {number}".encode()).hexdigest()
        answers.hold(book, ANA, 1_000 + number % 97, reference=reference)
        shares = {NODES[0]: 300 + number % 89, NODES[1]: 200}
        answers.capture(book, ANA, shares, reference=reference)
        answers.release(book, ANA, reference=reference)


def steps(seed: int, count: int) -> Iterator[Step]:
    """Yield the name and the deed of each step of a history; some of them will be refused.

    Each but a fund or a hold is of the answer that was held last.
    """
    chance = random.Random(seed)
    yield "fund", lambda book: answers.fund(book, ANA, 50_000, reference="start")
    last = "a0"
    for number in range(count):
        owner, micro = chance.choice((ANA, ANA, ANA, BEN)), chance.randrange(1, 500)
        shares = {node: chance.randrange(1, 40) for node in chance.sample(NODES, 2)}
        name, deed = chance.choice(_deeds(owner, shares, micro, number, last))
        last = f"a{number}" if name == "hold" else last
        yield name, deed


def play(book: Book, history: Iterator[Step]) -> Iterator[Entry]:
    """Do the steps of a history; yields each entry once it is booked."""
    for _, deed in history:
        try:
            entry = deed(book)
        except RefusedEntryError:
            continue
        if entry is not None:
            yield entry


def _deeds(
    owner: str, shares: dict[str, int], micro: int, number: int, before: str
) -> tuple[Step, ...]:
    new, back = f"a{number}", {min(NODES): 1}
    return (
        ("fund", lambda book: answers.fund(book, owner, micro, reference=f"f{number}")),
        ("hold", lambda book: answers.hold(book, owner, micro, reference=new)),
        ("capture", lambda book: answers.capture(book, owner, shares, reference=before)),
        ("release", lambda book: answers.release(book, owner, reference=before)),
        ("refund", lambda book: answers.refund(book, owner, back, reference=before)[0]),
    )


def main() -> None:
    """Book a history."""
    folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with a_book(folder, load_identity(folder / KEY_FILE)) as book:
        for entry in play(book, steps(seed, count)):
            print(entry.number, entry.sha256().hex(), flush=True)


if __name__ == "__main__":
    main()
