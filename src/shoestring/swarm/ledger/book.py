"""The book, written: one balanced entry at a time, each once, none ever changed."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoestring.errors import UserError
from shoestring.swarm.ledger.entries import Entry, kept_postings
from shoestring.swarm.ledger.heads import head_path, kept_head, sign_head
from shoestring.swarm.ledger.reading import Reading
from shoestring.swarm.ledger.rules import (
    balance_fault,
    beside_fault,
    form_fault,
    names_fault,
    postings_fault,
)
from shoestring.swarm.ledger.tables import (
    ended_by_errors,
    explained,
    open_for_writing,
    part_of_transaction,
    transaction,
)
from shoestring.swarm.private_files import changing, replace_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.ledger.entries import Kind, Posting


class RefusedEntryError(UserError):
    """An entry that the book does not take; nothing has changed."""


class DoubleClaimError(RefusedEntryError):
    """The same was booked before: whoever only wanted it booked may go on."""


class Book(Reading):
    """A keeper's book, open for entries; several processes may have it open at once.

    Args:
        path: the file, made where there is none.
        identity: the keeper's, which signs the head when the book is closed.
        now: seconds since 1970.

    Raises:
        BadValueError: the file cannot be used, or holds less than its keeper signed.
    """

    def __init__(
        self, path: Path, identity: Identity, *, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(path, open_for_writing(path, identity.id))
        self._identity = identity
        self._now = now
        try:
            self.check_head()
        except BaseException:
            self.connection.close()
            raise

    def add(
        self, kind: Kind, postings: Sequence[Posting], *, reference: str, memo: str = ""
    ) -> Entry:
        """Book an entry; when this returns it is on the disk.

        Args:
            kind: what happened.
            postings: those who give before those who get, in micro-credits; they sum to zero.
            reference: of what happened; once for each kind.
            memo: for people.

        Raises:
            DoubleClaimError: there is one of this kind and reference.
            RefusedEntryError: it is not balanced, not of its kind's form, or an account has not
                so much.
        """
        at_s = int(self._now())
        fault = form_fault(at_s, kind, reference, memo) or names_fault(postings)
        fault = fault or postings_fault(kind, reference, postings)
        if fault is not None:
            raise RefusedEntryError(f"{kind} {reference[:96]!a} is not booked: {fault}")
        if self.connection.in_transaction:
            return self._add(at_s, kind, tuple(postings), reference, memo)
        with self.writing():
            return self._add(at_s, kind, tuple(postings), reference, memo)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the one right to write: what is read inside stays true until its entry is booked.

        An error inside takes all of it back, and nothing that was done before it; one of SQLite
        while an entry is written takes back that, too.
        """
        held = part_of_transaction if self.connection.in_transaction else transaction
        with explained(self.path), held(self.connection):
            yield

    def close(self) -> None:
        """Sign where the book ends, if that is news, and let the file go."""
        try:
            self._write_head()
        finally:
            super().close()

    def _add(
        self, at_s: int, kind: Kind, postings: tuple[Posting, ...], reference: str, memo: str
    ) -> Entry:
        """Book an entry in the transaction that is open, once all has been looked at.

        So what is refused has changed nothing, and no savepoint is needed to take it back: SQLite
        would copy each page that changes.
        """
        if self.postings_of(kind, reference) is not None:
            raise DoubleClaimError(f"{kind} {reference} was booked before: a {kind} counts once")
        fault = beside_fault(
            kind, reference, postings,
            captured=lambda answer: self.postings_of("capture", answer), entry=self.kind_of,
        )  # fmt: skip
        balances = [(account, self.balance(account) + amount) for account, amount in postings]
        for account, after in balances:
            fault = fault or balance_fault(account, after)
        if fault is not None:
            raise RefusedEntryError(f"{kind} {reference} is not booked: {fault}")
        number, previous = self.end()
        entry = Entry(number + 1, at_s, kind, postings, reference, memo, previous)
        self._write(entry, balances)
        return entry

    def _write(self, entry: Entry, balances: Sequence[tuple[str, int]]) -> None:
        row = (
            entry.number, entry.at_s, entry.kind, kept_postings(entry.postings), entry.reference,
            entry.memo, entry.sha256(),
        )  # fmt: skip
        with explained(self.path), ended_by_errors(self.connection):
            self.connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            for account, after in balances:
                if after:
                    self.connection.execute("REPLACE INTO balances VALUES (?, ?)", (account, after))
                else:
                    self.connection.execute("DELETE FROM balances WHERE account = ?", (account,))

    def _write_head(self) -> None:
        path = head_path(self.path)
        with changing(path):
            head = self.head(int(self._now()))
            before = kept_head(self.path, self.keeper)
            if before is None or before.number != head.number:
                replace_private(path, sign_head(self._identity, head))
