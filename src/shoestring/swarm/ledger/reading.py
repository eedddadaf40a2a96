"""A book that is read: balances, entries, and where it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from shoestring.errors import BadValueError
from shoestring.swarm.ledger.entries import Entry, genesis, read_postings
from shoestring.swarm.ledger.heads import Head, head_path, kept_head
from shoestring.swarm.ledger.tables import explained, keeper_of, open_for_reading

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from shoestring.swarm.ledger.entries import Kind, Posting

BOOK_FILE: Final = "ledger.db"
COLUMNS: Final = "number, at_s, kind, postings, reference, memo, hash"
TYPES: Final = [int, int, str, str, str, str, bytes]
"""Of the columns. SQLite holds a table to its types when it writes, not when it reads: one bit of
a row that rots makes bytes of a text, or nothing of a number."""
Value = TypeVar("Value")


class Reading:
    """A book, open; its ``with`` closes it.

    Args:
        path: where it lies.
        connection: to it.

    Attributes:
        path: where it lies.
        keeper: peer id of whoever keeps it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        with explained(path):
            self.keeper = keeper_of(connection, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go."""
        self.connection.close()

    def balance(self, account: str) -> int:
        """Return what an account holds, in micro-credits."""
        with explained(self.path):
            found = self.connection.execute(
                "SELECT amount FROM balances WHERE account = ?", (account,)
            ).fetchone()
        return 0 if found is None else self._value(int, found[0])

    def balances(self, beginning: str = "") -> dict[str, int]:
        """Return all accounts that hold or owe something, by name.

        Args:
            beginning: of their names.
        """
        with explained(self.path):
            rows = self.connection.execute(
                "SELECT account, amount FROM balances "
                "WHERE account >= ? AND account < ? ORDER BY account",
                (beginning, beginning + "\x7f"),
            ).fetchall()
        return {self._value(str, account): self._value(int, amount) for account, amount in rows}

    def head(self, at_s: int) -> Head:
        """Return where the book ends now.

        Args:
            at_s: now, in whole seconds since 1970.
        """
        number, last = self.end()
        return Head(self.keeper, number, last.hex(), at_s)

    def check_head(self) -> None:
        """Hold the book to the head that lies beside it: what that shows must not be signed away.

        Raises:
            BadValueError: the book holds less than the head, or something else; or the head is
                damaged.
        """
        head = kept_head(self.path, self.keeper)
        if head is None:
            return
        found = self.hash_at(head.number)
        if found is None or found.hex() != head.hash:
            raise BadValueError(
                f"{self.path} is not the book that its keeper signed in "
                f"{head_path(self.path).name}, up to entry {head.number}: restore a copy; "
                "nothing is written or signed"
            )

    def end(self) -> tuple[int, bytes]:
        """Return the number and hash of the last entry; of an empty book 0 and its beginning."""
        with explained(self.path):
            found = self.connection.execute(
                "SELECT number, hash FROM entries ORDER BY number DESC LIMIT 1"
            ).fetchone()
        if found is None:
            return 0, genesis(self.keeper)
        return found[0], self._value(bytes, found[1])

    def hash_at(self, number: int) -> bytes | None:
        """Return the hash of an entry; None: there is none of that number."""
        if number == 0:
            return genesis(self.keeper)
        with explained(self.path):
            found = self.connection.execute(
                "SELECT hash FROM entries WHERE number = ?", (number,)
            ).fetchone()
        return None if found is None else self._value(bytes, found[0])

    def postings_of(self, kind: Kind, reference: str) -> tuple[Posting, ...] | None:
        """Return what was booked of this kind under a reference; None: nothing."""
        with explained(self.path):
            found = self.connection.execute(
                "SELECT postings FROM entries WHERE kind = ? AND reference = ?", (kind, reference)
            ).fetchone()
        return None if found is None else self._postings(found[0])

    def parts_of(self, kind: Kind, reference: str) -> int:
        """Return what was given by all entries of this kind for parts of a reference.

        In micro-credits; a part is the reference, a dot and more.
        """
        with explained(self.path):
            rows = self.connection.execute(
                "SELECT postings FROM entries WHERE kind = ? AND reference > ? AND reference < ?",
                (kind, f"{reference}.", f"{reference}/"),  # of ASCII's the one after the dot
            )
            return -sum(self._postings(kept)[0][1] for (kept,) in rows)

    def kind_of(self, number: int) -> tuple[Kind, tuple[Posting, ...]] | None:
        """Return the kind and the postings of an entry; None: there is none of that number."""
        with explained(self.path):
            found = self.connection.execute(
                "SELECT kind, postings FROM entries WHERE number = ?", (number,)
            ).fetchone()
        return None if found is None else (found[0], self._postings(found[1]))

    def free_reference(self, kind: Kind, reference: str) -> str:
        """Return under what something is booked: its reference, or once that was corrected another.

        That is the reference and ``.2``, ``.3`` and so on.
        """
        named, times = reference, 1
        while self._is_corrected(kind, named):
            times += 1
            named = f"{reference}.{times}"
        return named

    def entries(
        self, *, account: str | None = None, reference: str | None = None, last: int | None = None
    ) -> Iterator[Entry]:
        """Yield entries, the oldest first.

        Args:
            account: only those in which it stands.
            reference: only those of this one and of its parts, as refunds are.
            last: only so many, the newest.
        """
        where = (
            "(?1 IS NULL OR instr(' ' || postings, ' ' || ?1 || ' ')) "
            "AND (?2 IS NULL OR reference = ?2 "
            "OR substr(reference, 1, length(?2) + 1) = ?2 || '.')"
        )
        asked = (account, reference, -1 if last is None else last)
        with explained(self.path):
            rows = self.connection.execute(
                f"SELECT * FROM (SELECT {COLUMNS} FROM entries WHERE {where} "  # noqa: S608 # nosec B608 - ours
                "ORDER BY number DESC LIMIT ?3) ORDER BY number",
                asked,
            )
            for row in rows:
                yield self._entry(row)

    def _is_corrected(self, kind: Kind, reference: str) -> bool:
        with explained(self.path):
            found = self.connection.execute(
                "SELECT 1 FROM entries WHERE kind = 'correct' AND reference = ("
                "SELECT CAST(number AS TEXT) FROM entries WHERE kind = ? AND reference = ?)",
                (kind, reference),
            ).fetchone()
        return found is not None

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        for kind_of_value, value in zip(TYPES, row, strict=True):
            self._value(kind_of_value, value)
        number, at_s, kind, postings, reference, memo, _ = row
        previous = self.hash_at(number - 1) or b""
        return Entry(number, at_s, kind, self._postings(postings), reference, memo, previous)

    def _postings(self, kept: Any) -> tuple[Posting, ...]:
        try:
            return read_postings(self._value(str, kept))
        except ValueError as error:
            raise self._damaged(str(error)) from error

    def _value(self, kind: type[Value], value: Any) -> Value:
        """Return a value of a row, once it was seen to be of its column's type."""
        if type(value) is not kind:
            raise self._damaged(f"{value!a:.80} stands where the book writes {kind.__name__}")
        return value

    def _damaged(self, why: str) -> BadValueError:
        return BadValueError(
            f"{self.path} is damaged: {why}; restore a copy, "
            "`shoestring swarm ledger verify` says where"
        )


def open_reading(path: Path) -> Reading | None:
    """Open a book to read it; None: nothing was booked yet.

    Raises:
        BadValueError: it cannot be used.
    """
    connection = open_for_reading(path)
    return None if connection is None else Reading(path, connection)
