"""A bit of a book's file rots where SQLite keeps a value's type: it is found, in one line."""

import sqlite3

import pytest

from shoestring.errors import BadValueError
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.accounts import wallet
from shoestring.swarm.ledger.correcting import correct
from shoestring.swarm.ledger.reading import BOOK_FILE, COLUMNS, open_reading
from shoestring.swarm.ledger.tables import TABLES, OtherTablesError, explained
from shoestring.swarm.ledger.verifying import verify_file
from shoestring.testing.ledger_histories import ANA, BEN, NODES, NOW_S, a_book

NULL, ONE_BYTE, FOUR_BYTES, THE_NUMBER_1 = 0, 1, 4, 9
BLOB, TEXT = 12, 13
"""What SQLite writes for a type, the last two with twice a value's length: one bit lies between.
https://www.sqlite.org/fileformat2.html#record_format"""


@pytest.fixture
def identity(tmp_path):
    """The keeper."""
    return load_identity(tmp_path / "identity.key")


@pytest.fixture
def path(tmp_path, identity):
    """A closed book of four entries, all in one file."""
    with a_book(tmp_path, identity) as book:
        answers.fund(book, BEN, 5, reference="f0")
        answers.fund(book, ANA, 1, reference="f1.1")
        answers.fund(book, BEN, 5, reference="f2")
        correct(book, 1, memo="a mistake")
    assert verify_file(tmp_path / BOOK_FILE, identity.id).fault is None
    return tmp_path / BOOK_FILE


def type_of(value):
    """Return what SQLite writes for a value's type."""
    if value == 1:
        return bytes([THE_NUMBER_1])
    if isinstance(value, int):
        return bytes([ONE_BYTE if -128 <= value < 128 else FOUR_BYTES])
    number = (TEXT if isinstance(value, str) else BLOB) + 2 * len(value)
    return bytes([number]) if number < 128 else bytes([number >> 7 | 128, number & 127])


def rot(path, types, at, begin, becomes=None):
    """Flip the lowest bit of a type, or make another of it, in the one record that begins so."""
    record = b"".join(types)
    record = bytes([len(record) + 1]) + record + begin
    content = path.read_bytes()
    assert content.count(record) == 1
    place = content.index(record) + len(b"".join(types[: at + 1]))
    changed = content[place] ^ 1 if becomes is None else becomes
    path.write_bytes(content[:place] + bytes([changed]) + content[place + 1 :])


def rot_entry(path, number, column, becomes=None):
    """Do it to an entry; in its record its number is NULL."""
    connection = sqlite3.connect(path)
    row = connection.execute(
        f"SELECT {COLUMNS} FROM entries WHERE number = ?", (number,)
    ).fetchone()
    connection.close()
    types = [bytes([NULL]), *map(type_of, row[1:])]
    begin = row[1].to_bytes(4, "big") + "".join(row[2:6]).encode()
    rot(path, types, COLUMNS.split(", ").index(column), begin, becomes)


def refused_by(path, read):
    """Return what a reader is told, which must be one line that says what to do."""
    with open_reading(path) as book, pytest.raises(BadValueError) as refused:
        read(book)
    told = str(refused.value)
    assert "restore a copy" in told
    assert "\n" not in told
    return told


@pytest.mark.parametrize("column", ["kind", "postings", "reference", "memo"])
def test_a_text_that_became_bytes_is_a_fault_of_its_entry(path, identity, column):
    """In a table that is STRICT, and of the same length: SQLite says nothing."""
    rot_entry(path, 4, column)
    found = verify_file(path, identity.id)
    assert (found.entries, found.fault.number) == (3, 4)
    assert "another type" in found.fault.what
    assert "where the book writes str" in refused_by(path, lambda book: list(book.entries()))


@pytest.mark.parametrize("read", [
    lambda book: book.postings_of("fund", "f1.1"), lambda book: book.kind_of(2),
    lambda book: book.parts_of("fund", "f1"),
])  # fmt: skip
def test_postings_that_became_bytes_are_told_to_whoever_asks(path, identity, read):
    """And nothing is booked on them: a double claim is not seen without them."""
    rot_entry(path, 2, "postings")
    assert "is damaged" in refused_by(path, read)
    with a_book(path.parent, identity) as book, pytest.raises(BadValueError, match="is damaged"):
        answers.fund(book, ANA, 1, reference="f1.1")


def test_what_sqlite_says_of_bytes_that_are_no_text_is_one_line(path):
    """It repeats them."""
    with pytest.raises(BadValueError, match="cannot be used") as refused, explained(path):
        raise sqlite3.OperationalError("Could not decode to UTF-8 column 'hash' with text '\n\x1b'")
    assert str(refused.value).isprintable()


def test_a_hash_that_became_a_text_is_not_signed(path, identity):
    """Nor compared with a head; most are no text that SQLite could read."""
    rot_entry(path, 4, "hash")
    assert "cannot be used" in refused_by(path, lambda book: book.hash_at(4))
    connection = sqlite3.connect(path)
    (kept,) = connection.execute("SELECT CAST(hash AS BLOB) FROM entries WHERE number = 4")
    connection.close()
    path.write_bytes(path.read_bytes().replace(*kept, b"a" * 32))
    assert verify_file(path, identity.id).fault.number == 4
    for read in (lambda book: book.hash_at(4), lambda book: book.head(NOW_S)):
        assert "where the book writes bytes" in refused_by(path, read)


@pytest.mark.parametrize(("becomes", "value"), [(NULL, "None"), (TEXT, "''"), (BLOB, "b''")])
def test_a_balance_that_is_no_number_is_found(path, identity, becomes, value):
    """The number 1 has no bytes but its type's."""
    rot(path, [type_of(wallet(ANA)), type_of(1)], 1, wallet(ANA).encode(), becomes)
    fault = verify_file(path, identity.id).fault
    assert (fault.number, fault.what) == (
        None, f"a balance is kept as {value}, of '{wallet(ANA)}'"
    )  # fmt: skip
    for read in (lambda book: book.balance(wallet(ANA)), lambda book: book.balances()):
        assert f"{value} stands where the book writes int" in refused_by(path, read)


def test_a_balance_of_no_account_is_found(path, identity):
    """Its name became bytes."""
    rot(path, [type_of(wallet(ANA)), type_of(1)], 0, wallet(ANA).encode())
    assert "kept as 1, of b'wallet" in verify_file(path, identity.id).fault.what


def test_a_table_whose_name_became_bytes_is_found(path, identity):
    """In the list of tables, where SQLite does not look at types either."""
    types = [*map(type_of, ("table", "book", "book", 2, TABLES["book"]))]
    rot(path, types, 1, b"tablebookbook")
    assert "in its tables" in verify_file(path, identity.id).fault.what
    with pytest.raises(OtherTablesError, match="restore a copy"):
        open_reading(path)


def test_an_index_that_names_no_entry_is_a_fault_of_who_trusts_it(path, identity):
    """Its number lost its sign: what it says was captured is nowhere."""
    with a_book(path.parent, identity) as book:
        answers.hold(book, ANA, 1, reference="a")
        number = answers.capture(book, ANA, {NODES[0]: 1}, reference="a").number
        answers.refund(book, ANA, {NODES[0]: 1}, reference="a")
    content = path.read_bytes()
    indexed = b"".join([b"\4", *map(type_of, ("capture", "a", number)), b"capturea"])
    assert content.count(indexed + bytes([number])) == 1
    path.write_bytes(content.replace(indexed + bytes([number]), indexed + bytes([number | 128])))
    fault = verify_file(path, identity.id).fault
    assert (fault.number, "nothing was captured" in fault.what) == (number + 1, True)
