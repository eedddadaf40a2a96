"""Where a node keeps its book, its wallet, and whose devices are whose: all in its folder."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoestring.swarm.ledger.book import Book
from shoestring.swarm.ledger.reading import BOOK_FILE, open_reading
from shoestring.swarm.ledger.wallets import DEVICES_FILE, Devices, load_wallet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shoestring.swarm.home import Home
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.ledger.reading import Reading


def owner_of(home: Home) -> Identity:
    """Return the owner's key.

    Raises:
        BadValueError: there is none, or it cannot be used.
    """
    return load_wallet(home.folder)


def devices_of(home: Home) -> Devices:
    """Return whose devices are known there."""
    return Devices(home.folder / DEVICES_FILE)


def book_of(home: Home) -> Book:
    """Open a node's book for entries; made at the first time.

    Raises:
        BadValueError: it cannot be used, or holds less than the node signed.
    """
    return Book(book_path(home), home.identity())


def book_path(home: Home) -> Path:
    """Return where a node's book lies."""
    return home.folder / BOOK_FILE


@contextmanager
def reading_of(path: Path) -> Iterator[Reading | None]:
    """Open a book to read it; None: nothing was booked yet.

    Raises:
        BadValueError: it cannot be used.
    """
    book = open_reading(path)
    try:
        yield book
    finally:
        if book is not None:
            book.close()
