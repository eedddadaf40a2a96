"""Mistakes of people are taken back by an entry of their own; the mistake stays to be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.swarm.ledger.book import RefusedEntryError
from shoestring.swarm.ledger.entries import mirrored

if TYPE_CHECKING:
    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.ledger.entries import Entry


def correct(book: Book, number: int, *, memo: str = "") -> Entry:
    """Book the mirror of an earlier entry.

    Args:
        book: the book.
        number: of the entry; one of a kind in :data:`~shoestring.swarm.ledger.rules.CORRECTED`.
        memo: for people: why.

    Raises:
        DoubleClaimError: it was corrected before.
        RefusedEntryError: there is none, it is of another kind, or who got something has it no
            more.
    """
    with book.writing():
        found = book.kind_of(number)
        if found is None:
            raise RefusedEntryError(f"entry {number} is not corrected: there is none")
        _, postings = found
        return book.add("correct", mirrored(postings), reference=str(number), memo=memo)
