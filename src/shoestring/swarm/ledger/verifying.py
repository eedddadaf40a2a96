"""Is the book whole? All entries, read once, with nothing believed but the keeper's signature.

====================================================  ==================================
what somebody with the file could do                  what shows it
====================================================  ==================================
change, insert, swap or drop an entry                 its hash, or the next one's
book the same twice, more than there is, unbalanced   the rules, applied again
change a balance                                      the sum of the entries
change all entries from one on, hashes included       a head that was signed after it
cut entries off at the end                            a head that was signed after them
do either behind the newest head                      nothing: sign heads often
take the head away, too, or put an older one back     a head that somebody else keeps
====================================================  ==================================
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shoestring.swarm.ledger.accounts import MOST
from shoestring.swarm.ledger.entries import canonical, genesis, read_postings
from shoestring.swarm.ledger.reading import COLUMNS, TYPES, Reading, open_reading
from shoestring.swarm.ledger.rules import (
    balance_fault,
    beside_fault,
    form_fault,
    is_account,
    postings_fault,
)
from shoestring.swarm.ledger.tables import OtherTablesError, explained

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shoestring.swarm.ledger.entries import Posting
    from shoestring.swarm.ledger.heads import Head

SAY_EVERY: Final = 100_000
NAMING: Final = frozenset({"refund", "correct"})
"""Kinds of entries that name one before them."""
ENTRY: Final = "SELECT kind, reference, postings FROM entries NOT INDEXED WHERE number = ?"
Row = tuple[int, int, str, str, str, str, bytes]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a book.

    Attributes:
        number: of the first wrong entry; None: no entry, but what is kept beside them.
        what: in a few words.
    """

    number: int | None
    what: str


@dataclass(frozen=True)
class Verified:
    """What was found.

    Attributes:
        entries: that are right, from the first one on.
        hash: of the last of these, in hexadecimal.
        fault: the first one; None: the book is whole.
    """

    entries: int
    hash: str
    fault: Fault | None


def verify_file(
    path: Path,
    keeper: str,
    heads: Sequence[Head] = (),
    say: Callable[[str], None] = lambda _line: None,
) -> Verified:
    """Read a whole book that may be anybody's; where none is, it has no entries.

    Args:
        path: where it lies.
        keeper: as :func:`verify` takes it, like the rest.
        heads: likewise.
        say: likewise.

    Raises:
        BadValueError: the file cannot be read.
    """
    begin = genesis(keeper).hex()
    try:
        book = open_reading(path)
    except OtherTablesError as error:
        return Verified(0, begin, Fault(None, error.what))
    if book is None:
        most = max((head.number for head in heads), default=0)
        return Verified(0, begin, Fault(1, _missing(most)) if most else None)
    with book:
        return verify(book, keeper, heads, say)


def verify(
    book: Reading,
    keeper: str,
    heads: Sequence[Head] = (),
    say: Callable[[str], None] = lambda _line: None,
) -> Verified:
    """Read a whole book.

    Args:
        book: as it is now; what is booked meanwhile is not looked at.
        keeper: peer id of who should keep it.
        heads: that the keeper signed, oldest or newest first.
        say: given one line each 100,000 entries.
    """
    with explained(book.path):
        book.connection.execute("BEGIN")  # one moment of it, whatever others write
        try:
            return _Walk(book, keeper, say).verify(heads)
        finally:
            book.connection.execute("ROLLBACK")


class _Walk:
    """One reading from the first entry to the last."""

    def __init__(self, book: Reading, keeper: str, say: Callable[[str], None]) -> None:
        self._book = book
        self._keeper = keeper
        self._say = say
        self._balances: dict[str, int] = {}
        self._seen: set[int] = set()
        self._number = 0
        self._hash = genesis(keeper)

    def verify(self, heads: Sequence[Head]) -> Verified:
        fault = self._book_fault()
        if fault is None:
            fault = self._walk()
            fault = fault or self._after_fault(heads)
        right = self._number if fault is None or fault.number is None else fault.number - 1
        last = self._book.hash_at(right) or self._hash
        return Verified(right, last.hex(), fault)

    def _book_fault(self) -> Fault | None:
        if self._book.keeper != self._keeper:
            return Fault(None, f"it is kept by {self._book.keeper[:60]}, not by {self._keeper}")
        return None

    def _walk(self) -> Fault | None:
        rows = self._book.connection.execute(
            f"SELECT {COLUMNS} FROM entries ORDER BY number"  # noqa: S608 # nosec B608 - ours
        )
        for row in rows:
            fault = self._row_fault(row)
            if fault is not None:
                return Fault(self._number + 1, fault)
            self._number, self._hash = row[0], row[6]
            if self._number % SAY_EVERY == 0:
                self._say(f"{self._number} entries are right")
        return None

    def _row_fault(self, row: Row) -> str | None:
        if [*map(type, row)] != TYPES:
            return "a value of it is of another type than the book writes"
        number, at_s, kind, kept, reference, memo, sha256 = row
        if number != self._number + 1:
            return f"it is missing: {number} comes next"
        try:
            postings = read_postings(kept)
        except ValueError:
            return "its postings are not written as the book writes them"
        said = canonical(number, at_s, kind, postings, reference, memo, self._hash)
        if hashlib.sha256(said).digest() != sha256:
            return "its hash is not of what it says and of the entry before"
        return self._said_fault(at_s, kind, postings, reference, memo)

    def _said_fault(
        self, at_s: int, kind: str, postings: tuple[Posting, ...], reference: str, memo: str
    ) -> str | None:
        """Apply the rules to an entry whose hash is right."""
        for account, _ in postings:
            if account not in self._balances and not is_account(account):
                return f"{account!a:.80} is no account"
        if self._was_booked(kind, reference):
            return f"{kind} {reference} was booked before"
        fault = form_fault(at_s, kind, reference, memo)
        if fault is None:
            fault = postings_fault(kind, reference, postings)
        if fault is None and kind in NAMING:
            fault = beside_fault(
                kind, reference, postings, captured=self._captured, entry=self._entry
            )
        return fault or self._move(postings)

    def _move(self, postings: Sequence[Posting]) -> str | None:
        balances = self._balances
        for account, amount in postings:
            after = balances.pop(account, 0) + amount
            if not 0 <= after <= MOST:
                fault = balance_fault(account, after)
                if fault is not None:
                    return fault
            if after:
                balances[account] = after
        return None

    def _captured(self, reference: str) -> tuple[Posting, ...] | None:
        """Return what was captured before this entry; its own number is not yet counted."""
        run = self._book.connection.execute
        number = run(
            "SELECT number FROM entries WHERE kind = 'capture' AND reference = ?", (reference,)
        ).fetchone()
        if number is None or not 0 < number[0] <= self._number:
            return None
        # The index said where; what stands there was hashed.
        kind, named, postings = run(ENTRY, number).fetchone()
        return read_postings(postings) if (kind, named) == ("capture", reference) else None

    def _entry(self, number: int) -> tuple[str, tuple[Posting, ...]] | None:
        """Return the kind and the postings of an entry before this one."""
        if number > self._number:
            return None
        kind, _, postings = self._book.connection.execute(ENTRY, (number,)).fetchone()
        return kind, read_postings(postings)

    def _was_booked(self, kind: str, reference: str) -> bool:
        """Tell whether this was booked before, without the index, which may have been deceived.

        What was seen is kept as Python's hashes, at 64 bytes an entry; only where one was seen
        twice all entries are looked through.
        """
        mark = hash((kind, reference))
        if mark not in self._seen:
            self._seen.add(mark)
            return False
        found = self._book.connection.execute(
            "SELECT 1 FROM entries NOT INDEXED WHERE number <= ? AND kind = ? AND reference = ?",
            (self._number, kind, reference),
        )
        return found.fetchone() is not None

    def _after_fault(self, heads: Sequence[Head]) -> Fault | None:
        for head in heads:
            found = self._book.hash_at(head.number)
            if found is None:
                return Fault(self._number + 1, _missing(head.number))
            if found.hex() != head.hash:
                return Fault(head.number, "it is not the one at which the keeper signed a head")
        return self._balances_fault()

    def _balances_fault(self) -> Fault | None:
        """Compare row by row: a damaged table may have no end."""
        expected = dict(self._balances)
        rows = self._book.connection.execute("SELECT account, amount FROM balances")
        for account, amount in rows:
            if (type(account), type(amount)) != (str, int):
                return Fault(None, f"a balance is kept as {amount!a:.80}, of {account!a:.80}")
            summed = expected.pop(account, 0)
            if not summed or amount != summed:
                return _unequal(account, amount, summed)
        if expected:
            account = min(expected)
            return _unequal(account, 0, expected[account])
        return None


def _missing(entries: int) -> str:
    return f"it is missing: the keeper signed a head of {entries} entries"


def _unequal(account: str, kept: int, summed: int) -> Fault:
    what = f"the balance of {account[:200]} is kept as {kept}, and its entries sum to {summed}"
    return Fault(None, what)
