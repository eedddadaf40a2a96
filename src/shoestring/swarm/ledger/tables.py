"""The book's file: SQLite, its tables, and how it is opened.

Each entry is a transaction of its own, in the write-ahead log and on the disk (``synchronous=FULL``
makes SQLite sync at each commit) before anybody is told that it is booked.
https://www.sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError, DiskFullError, ShoestringError
from shoestring.swarm.private_files import OTHERS, make_once
from shoestring.swarm.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION: Final = 1
LARGEST_BYTES: Final = 1 << 17
"""Of a row, and of a table's text; an entry of 256 postings has half of it."""
WAIT_S: Final = 30.0
"""For others who write, each for milliseconds."""
TABLES: Final = {
    "book": "CREATE TABLE book (keeper TEXT NOT NULL, version INTEGER NOT NULL) STRICT",
    "entries": (
        "CREATE TABLE entries (number INTEGER PRIMARY KEY, at_s INTEGER NOT NULL, "
        "kind TEXT NOT NULL, postings TEXT NOT NULL, reference TEXT NOT NULL, "
        "memo TEXT NOT NULL, hash BLOB NOT NULL, UNIQUE (kind, reference)) STRICT"
    ),
    "balances": (
        "CREATE TABLE balances (account TEXT PRIMARY KEY, amount INTEGER NOT NULL) "
        "STRICT, WITHOUT ROWID"
    ),
    **{
        f"{table}_{change}": (
            f"CREATE TRIGGER {table}_{change} BEFORE {change} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, 'entries stay as they are'); END"
        )
        for table in ("book", "entries")
        for change in ("UPDATE", "DELETE")
    },
}
"""By name, as SQLite keeps them; an account of nothing has no balance."""


class OtherTablesError(BadValueError):
    """A book whose tables are not as it was made with.

    Attributes:
        what: is wrong, in a few words.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} cannot be used ({what}): restore a copy")
        self.what = what


def open_for_writing(path: Path, keeper: str) -> sqlite3.Connection:
    """Open a keeper's book; made, and readable by its owner alone, where there is none.

    Raises:
        OtherTablesError: its tables are not a book's.
        BadValueError: it is another keeper's, open to others, or no book.
    """
    make_once(path, b"")
    _check_private(path)
    connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
    with explained(path):
        try:
            _guard(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            with transaction(connection):
                if not _names(connection):
                    for statement in TABLES.values():
                        connection.execute(statement)
                    connection.execute("INSERT INTO book VALUES (?, ?)", (keeper, VERSION))
            _check_tables(connection, path)
            check_keeper(connection, path, keeper)
        except BaseException:
            connection.close()
            raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection | None:
    """Open a book that nothing is written into; None: there is none yet.

    It may be a stranger's: its tables are seen to be ours before anything is asked of them, for a
    view in a table's place could keep a reader busy for ever.

    Raises:
        OtherTablesError: its tables are not a book's.
        BadValueError: it is open to others, or no book.
    """
    if not path.exists():
        return None
    _check_private(path)
    with explained(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_S, isolation_level=None
        )
        try:
            _guard(connection)
            if not _names(connection):  # made, and its maker was killed before it wrote
                connection.close()
                return None
            _check_tables(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def keeper_of(connection: sqlite3.Connection, path: Path) -> str:
    """Return whose a book is.

    Raises:
        BadValueError: it is of another version.
    """
    keeper, version = connection.execute("SELECT keeper, version FROM book").fetchone() or ("", 0)
    if version != VERSION:
        raise BadValueError(f"{path} is a book of version {version!a:.20}; this is {VERSION}")
    return str(keeper)


def check_keeper(connection: sqlite3.Connection, path: Path, keeper: str) -> None:
    """Hold a book to its keeper.

    Raises:
        BadValueError: it is another one's.
    """
    found = keeper_of(connection, path)
    if found != keeper:
        raise BadValueError(
            f"{path} is kept by {found[:60]}, not by {keeper}: restore that one's key, "
            "or move the book away to begin another"
        )


def tables_fault(connection: sqlite3.Connection) -> str | None:
    """Say which table or trigger is not as the book was made with; None: all are."""
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL LIMIT ?", (len(TABLES) + 1,)
    ).fetchall()
    found = dict(rows)
    for name in sorted(TABLES.keys() | found.keys(), key=str):  # one that rots is no text
        if found.get(name) != TABLES.get(name):
            return f"{name!s:.60} in its tables is not what the book was made with"
    return None


@contextmanager
def part_of_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do all of the block or nothing of it, within a transaction that may go on without it."""
    connection.execute("SAVEPOINT part")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk ends one by itself
            connection.execute("ROLLBACK TO part")
            connection.execute("RELEASE part")
        raise
    connection.execute("RELEASE part")


@contextmanager
def ended_by_errors(connection: sqlite3.Connection) -> Iterator[None]:
    """Write within a transaction; an error in the block takes back all that it ever held."""
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk ends one by itself
            connection.execute("ROLLBACK")
        raise


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the one right to write; all of the block is done, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    with ended_by_errors(connection):
        yield
        connection.execute("COMMIT")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say in one line what SQLite says about a book.

    Raises:
        DiskFullError: no space is left.
        BadValueError: the file is damaged, or cannot be used.
        ShoestringError: others write for longer than 30 s.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise DiskFullError(f"no space is left for {path}: what was booked is whole") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise ShoestringError(f"{path} is in use for {WAIT_S:g} s: try again") from error
        why = printable(str(error))  # it may have what could not be read in it
        raise BadValueError(
            f"{path} cannot be used ({why}): restore a copy, or set SHOESTRING_STATE"
        ) from error


def _guard(connection: sqlite3.Connection) -> None:
    """Bound what a file can make SQLite do: no functions in its tables' text, no endless rows.

    https://www.sqlite.org/security.html
    """
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_BYTES)


def _check_tables(connection: sqlite3.Connection, path: Path) -> None:
    fault = tables_fault(connection)
    if fault is not None:
        raise OtherTablesError(path, fault)


def _names(connection: sqlite3.Connection) -> list[tuple[str]]:
    return connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()


def _check_private(path: Path) -> None:
    if path.stat().st_mode & OTHERS:
        raise BadValueError(f"{path} is open to others than its owner: chmod 600 {path}")
