"""Verifying: every change of a book is found, the first wrong entry is named, and what is not."""

import hashlib
import shutil
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.accounts import wallet
from shoestring.swarm.ledger.correcting import correct
from shoestring.swarm.ledger.entries import canonical, genesis, read_postings
from shoestring.swarm.ledger.heads import Head, head_path, read_head, sign_head
from shoestring.swarm.ledger.reading import BOOK_FILE, open_reading
from shoestring.swarm.ledger.tables import TABLES, OtherTablesError
from shoestring.swarm.ledger.verifying import verify, verify_file
from shoestring.testing.ledger_histories import ANA, BEN, a_book, play, steps

SEED, STEPS = 1, 200


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A closed book of a history, with its head, and its keeper."""
    folder = tmp_path_factory.mktemp("kept")
    identity = load_identity(folder / "identity.key")
    with a_book(folder, identity) as book:
        kinds = [entry.kind for entry in play(book, steps(SEED, STEPS))]
    assert {"fund", "hold", "capture", "release", "refund"} == set(kinds)
    return folder, identity, len(kinds)


@pytest.fixture
def copy(kept, tmp_path):
    """A copy of the book that may be harmed: its connection, without the triggers."""
    folder, _, _ = kept
    for name in (BOOK_FILE, "ledger.head"):
        shutil.copy(folder / name, tmp_path / name)
    return tmp_path / BOOK_FILE


def harm(path, *statements):
    """Change a book past its triggers, and put these back as they were."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = [name for name, sql in TABLES.items() if "TRIGGER" in sql]
    for name in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(*statement) if isinstance(statement, tuple) else connection.execute(
            statement
        )
    for name in triggers:
        connection.execute(TABLES[name])
    connection.close()


def hash_anew(path, identity, begin):
    """Write the hashes of all entries from one on anew, as whoever has the file can."""
    connection = sqlite3.connect(path, isolation_level=None)
    rows = connection.execute("SELECT * FROM entries ORDER BY number").fetchall()
    connection.close()
    anew, previous = [], genesis(identity.id)
    for row in rows:
        number, at_s, kind, postings, reference, memo, kept = row
        if number >= begin:
            said = canonical(number, at_s, kind, read_postings(postings), reference, memo, previous)
            kept = hashlib.sha256(said).digest()
            anew.append(("UPDATE entries SET hash = ? WHERE number = ?", (kept, number)))
        previous = kept
    harm(path, *anew)


def found(path, identity, *, heads=None):
    """Verify a book with the head beside it, or with others."""
    if heads is None:
        heads = [read_head(head_path(path).read_bytes(), identity.id)]
    return verify_file(path, identity.id, heads)


def test_a_whole_book_is_right_to_the_last_entry(kept, copy):
    """And the head fits it."""
    _, identity, count = kept
    right = found(copy, identity)
    head = read_head(head_path(copy).read_bytes(), identity.id)
    assert (right.entries, right.hash, right.fault) == (count, head.hash, None)
    assert head.number == count


@pytest.mark.parametrize(("statement", "number", "why"), [
    ("UPDATE entries SET memo = 'x' WHERE number = 9", 9, "hash"),
    ("UPDATE entries SET at_s = at_s + 1 WHERE number = 9", 9, "hash"),
    ("UPDATE entries SET kind = 'reward' WHERE number = 9", 9, "hash"),
    ("UPDATE entries SET reference = 'zz' WHERE number = 9", 9, "hash"),
    ("UPDATE entries SET hash = zeroblob(32) WHERE number = 9", 9, "hash"),
    ("UPDATE entries SET postings = replace(postings, ' -', ' -1') WHERE number = 9", 9, "hash"),
    ("UPDATE entries SET postings = 'x' WHERE number = 9", 9, "postings"),
    ("UPDATE entries SET postings = 'world 1.5' WHERE number = 9", 9, "postings"),
    ("DELETE FROM entries WHERE number = 9", 9, "missing: 10 comes next"),
    ("UPDATE entries SET number = -1 WHERE number = 9", 1, "missing"),
    ("UPDATE balances SET amount = amount + 1 WHERE account = 'world'", None, "world is kept as"),
    ("DELETE FROM balances WHERE account = 'world'", None, "kept as 0"),
    (f"INSERT INTO balances VALUES ('{wallet('x')}', 5)", None, "kept as 5"),
    ("UPDATE book SET keeper = 'x'", None, "kept by x"),
    ("DROP TABLE balances", None, "balances"),
    ("CREATE TABLE more (x)", None, "more"),
])  # fmt: skip
def test_each_change_is_found_and_the_first_wrong_entry_named(kept, copy, statement, number, why):
    """Of a field, a hash, an entry, a balance, the tables."""
    harm(copy, statement)
    fault = found(copy, kept[1]).fault
    assert fault is not None
    assert (number, True) == (fault.number, why in fault.what), fault


def test_a_lost_trigger_is_found(kept, copy):
    """Without it entries could be changed by mistake."""
    connection = sqlite3.connect(copy)
    connection.execute("DROP TRIGGER entries_UPDATE")
    connection.close()
    assert "entries_UPDATE" in found(copy, kept[1]).fault.what


@settings(suppress_health_check=list(HealthCheck), max_examples=60,
          deadline=None)  # fmt: skip
@given(data=st.data())
def test_any_change_of_any_byte_of_an_entry_is_found(kept, copy, data):
    """Whatever field it is in; put back, the book is whole again."""
    _, identity, count = kept
    number = data.draw(st.integers(1, count))
    column = data.draw(st.sampled_from(["at_s", "kind", "postings", "reference", "memo", "hash"]))
    connection = sqlite3.connect(copy)
    [before] = connection.execute(
        f"SELECT {column} FROM entries WHERE number = ?", (number,)
    ).fetchone()
    connection.close()
    if isinstance(before, int):
        after = before ^ (1 << data.draw(st.integers(0, 40)))
    elif isinstance(before, bytes):
        at = data.draw(st.integers(0, len(before) - 1))
        after = before[:at] + bytes([before[at] ^ (1 << data.draw(st.integers(0, 7)))])
        after += before[at + 1 :]
    else:
        at = data.draw(st.integers(0, len(before)))
        after = before[:at] + data.draw(st.characters(codec="ascii")) + before[at + 1 :]
    if after == before:
        return
    change = f"UPDATE OR REPLACE entries SET {column} = ? WHERE number = ?"
    harm(copy, (change, (after, number)))
    fault = found(copy, identity).fault
    harm(copy, (change, (before, number)))
    assert fault is not None
    assert fault.number == number
    assert found(copy, identity).fault is None


@pytest.mark.parametrize("change", [
    "replace(postings, ' 5', ' +5')", "replace(postings, ' 5', ' 05')",
    "replace(postings, '00', '0_0')", "replace(postings, ' 5', ' ' || char(1637))",
])  # fmt: skip
def test_another_form_of_the_same_postings_is_found(kept, copy, change):
    """``int`` reads it, so its hash is right; the text is not what the book wrote."""
    harm(copy, f"UPDATE entries SET postings = {change} WHERE number = 1")
    fault = found(copy, kept[1]).fault
    assert (fault.number, "not written as" in fault.what) == (1, True)


def test_a_book_cut_off_at_its_end_is_found_by_the_head(kept, copy):
    """By nothing else: it is whole by itself, if its balances are cut, too."""
    _, identity, count = kept
    harm(copy, f"DELETE FROM entries WHERE number > {count - 3}")
    fault = found(copy, identity).fault
    assert fault.number == count - 2
    assert f"a head of {count} entries" in fault.what


def test_a_book_written_anew_is_found_by_the_head(kept, copy):
    """All its hashes are right, and they are others."""
    _, identity, count = kept
    harm(copy, f"UPDATE entries SET memo = 'x' WHERE number = {count - 5}")
    hash_anew(copy, identity, count - 5)
    assert found(copy, identity, heads=[]).fault is None
    fault = found(copy, identity).fault
    assert fault.number == count
    assert "signed" in fault.what


def test_what_was_booked_behind_a_head_may_be_missing(kept, copy):
    """An older head only speaks of what it signed."""
    _, identity, _ = kept
    whole = found(copy, identity)
    with open_reading(copy) as reading:
        older = Head(identity.id, 10, reading.hash_at(10).hex(), 0)
    assert found(copy, identity, heads=[older]) == whole


@pytest.mark.parametrize(("change", "why"), [
    ("UPDATE entries SET postings = replace(postings, ' -', ' -1') WHERE number = 1", "sum to"),
    ("UPDATE entries SET kind = 'reward' WHERE number = 1", "as the giver of a reward"),
    (f"UPDATE entries SET postings = 'world -5 x{wallet(BEN)} 5' WHERE number = 1", "no account"),
    ("UPDATE entries SET reference = 'a b' WHERE number = 1", "reference"),
    ("UPDATE entries SET memo = char(10) WHERE number = 1", "memo"),
    (f"UPDATE entries SET postings = 'world -5 {wallet(ANA)} 5' WHERE number = 1", "would hold"),
])  # fmt: skip
def test_a_false_entry_with_right_hashes_is_found_by_the_rules(kept, copy, change, why):
    """A keeper who books what cannot be is found out by whoever verifies."""
    harm(copy, change)
    hash_anew(copy, kept[1], 1)
    fault = found(copy, kept[1], heads=[]).fault
    assert why in fault.what, fault


def test_the_same_booked_twice_is_found_though_its_index_was_deceived(kept, copy):
    """Two references are made one in the file's bytes, in the table as in the index."""
    _, identity, count = kept
    with a_book(copy.parent, identity) as book:
        for reference in ("double.one", "double.two"):
            answers.fund(book, ANA, 1, reference=reference)
    copy.write_bytes(copy.read_bytes().replace(b"double.two", b"double.one"))
    hash_anew(copy, identity, count + 2)
    fault = found(copy, identity, heads=[]).fault
    assert (fault.number, fault.what) == (count + 2, "fund double.one was booked before")


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT "
HOSTILE = [
    ("book", f"CREATE VIEW book AS {ENDLESS}x AS keeper, x AS version FROM c WHERE x < 0"),
    ("balances", f"CREATE VIEW balances AS {ENDLESS}x AS account, x AS amount FROM c"),
    ("entries", f"CREATE VIEW entries AS {ENDLESS}x AS number FROM c"),
]


@pytest.mark.parametrize(("name", "view"), HOSTILE)
def test_a_strangers_book_cannot_keep_its_reader_busy(kept, copy, name, view):
    """A view without an end stands in a table's place: it is never asked for anything."""
    connection = sqlite3.connect(copy)
    connection.executescript(f"DROP TABLE {name}; {view};")
    connection.close()
    fault = found(copy, kept[1]).fault
    assert fault.number is None
    assert name in fault.what
    with pytest.raises(OtherTablesError, match="restore a copy"):
        open_reading(copy)
    with pytest.raises(OtherTablesError), a_book(copy.parent, kept[1]):
        pass


def test_rows_are_bounded(kept, copy):
    """No entry is that long, and no reader need hold one that is."""
    harm(copy, "UPDATE entries SET memo = hex(zeroblob(200000)) WHERE number = 2")
    with pytest.raises(BadValueError, match="too big") as refused:
        found(copy, kept[1])
    assert "\n" not in str(refused.value)


def test_balances_are_compared_row_by_row(kept, copy):
    """One of nothing is never kept, so a table of them is no place to get lost in."""
    harm(copy, f"INSERT INTO balances VALUES ('{wallet('x')}', 0)")
    assert "kept as 0" in found(copy, kept[1]).fault.what


def test_where_no_book_is_there_are_no_entries(kept, tmp_path):
    """Unless its keeper signed that there were."""
    _, identity, _ = kept
    path = tmp_path / "none.db"
    assert (verify_file(path, identity.id).entries, verify_file(path, identity.id).fault) == (
        0, None
    )  # fmt: skip
    head = Head(identity.id, 5, "00" * 32, 0)
    assert "a head of 5 entries" in verify_file(path, identity.id, [head]).fault.what


@pytest.mark.parametrize(("postings", "reference", "why"), [
    ("held:{0}:zz -1 {1} 1", "1", "does not take back"), (None, "999", "no entry 999"),
    (None, "01", "no entry 01"),
])  # fmt: skip
def test_a_false_correction_with_right_hashes_is_found(kept, copy, postings, reference, why):
    """It must be the mirror of the entry that it names, which is before it."""
    folder, identity, count = copy.parent, kept[1], kept[2]
    with a_book(folder, identity) as book:
        correct(book, answers.fund(book, BEN, 5, reference="mistake").number)
    assert found(copy, identity, heads=[]).fault is None
    text = "postings" if postings is None else f"'{postings.format(BEN, wallet(BEN))}'"
    harm(copy, f"UPDATE entries SET postings = {text}, reference = '{reference}' "
               f"WHERE number = {count + 2}")  # fmt: skip
    hash_anew(copy, identity, count + 2)
    fault = found(copy, identity, heads=[]).fault
    assert (fault.number, why in fault.what) == (count + 2, True), fault


def test_nothing_is_booked_on_top_of_a_loss(kept, copy):
    """The head that shows it would be gone for good."""
    _, identity, count = kept
    harm(copy, f"DELETE FROM entries WHERE number > {count - 3}")
    head = head_path(copy).read_bytes()
    with pytest.raises(BadValueError, match="nothing is written"), a_book(copy.parent, identity):
        pass
    assert head == head_path(copy).read_bytes()


def test_a_head_is_believed_of_its_keeper_alone(kept, tmp_path):
    """Not of another, not changed, not endless."""
    _, identity, _ = kept
    other = load_identity(tmp_path / "other.key")
    text = sign_head(identity, Head(identity.id, 5, "00" * 32, 0))
    assert read_head(text, identity.id).number == 5
    for wrong in (
        sign_head(other, Head(identity.id, 5, "00" * 32, 0)), text.replace(b"5", b"4", 1),
        sign_head(identity, Head(other.id, 5, "00" * 32, 0)), b"{}", b"", text * 20,
        b'{"head": 5, "signature": "00"}', b'{"head": {"x": 1e400}, "signature": ""}',
    ):  # fmt: skip
        with pytest.raises(BadValueError, match="no head"):
            read_head(wrong, identity.id)


def test_progress_is_told(kept, copy, monkeypatch):
    """For a book that takes a while."""
    monkeypatch.setattr("shoestring.swarm.ledger.verifying.SAY_EVERY", 10)
    lines = []
    with open_reading(copy) as reading:
        verify(reading, kept[1].id, say=lines.append)
    assert lines[0] == "10 entries are right"
    assert len(lines) == kept[2] // 10


def test_what_is_booked_meanwhile_does_not_confuse(kept, copy):
    """One moment of the book is read."""
    _, identity, count = kept
    with open_reading(copy) as reading, a_book(copy.parent, identity) as book:
        reading.connection.execute("PRAGMA query_only = ON")
        seen = []

        def book_one(_line):
            answers.fund(book, ANA, 1, reference=f"meanwhile{len(seen)}")
            seen.append(1)

        import shoestring.swarm.ledger.verifying as module

        before, module.SAY_EVERY = module.SAY_EVERY, 10
        try:
            right = verify(reading, identity.id, say=book_one)
        finally:
            module.SAY_EVERY = before
    assert seen
    assert (right.entries, right.fault) == (count, None)
