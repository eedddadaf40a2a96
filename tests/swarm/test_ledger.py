"""The book: what it takes, what it refuses without harm, and that the sums are right."""

import json
import multiprocessing
import sqlite3
import stat

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError, DiskFullError
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.accounts import ACCOUNT, MOST, REWARDS, held, income, wallet
from shoestring.swarm.ledger.amounts import CREDIT, credits_text, read_credits
from shoestring.swarm.ledger.book import Book, DoubleClaimError, RefusedEntryError
from shoestring.swarm.ledger.correcting import correct
from shoestring.swarm.ledger.entries import KINDS, Entry, kept_postings, read_postings
from shoestring.swarm.ledger.heads import head_path
from shoestring.swarm.ledger.reading import BOOK_FILE, open_reading
from shoestring.swarm.ledger.rewards import Service, read_services, reward, share_out
from shoestring.swarm.ledger.rules import form_fault
from shoestring.swarm.ledger.verifying import verify
from shoestring.testing.ledger_histories import ANA, BEN, NODES, NOW_S, a_book, an_id

CALM = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
ACCOUNTS = st.from_regex(ACCOUNT, fullmatch=True)
POSTINGS = st.lists(st.tuples(ACCOUNTS, st.integers(-MOST, MOST)), min_size=1, max_size=5)
MEMOS = st.text(max_size=200).filter(str.isprintable)


@pytest.fixture
def identity(tmp_path):
    """Keeps the book."""
    return load_identity(tmp_path / "identity.key")


@pytest.fixture
def book(tmp_path, identity):
    """A book in which Ana has 1,000 micro-credits, 400 of them held for ``a1``."""
    with a_book(tmp_path, identity) as book:
        answers.fund(book, ANA, 1_000, reference="f1")
        answers.hold(book, ANA, 400, reference="a1")
        yield book


def is_whole(book, identity):
    """Tell whether a book is, as another process finds it."""
    with open_reading(book.path) as reading:
        return verify(reading, identity.id).fault is None


@CALM
@given(
    number=st.integers(1, MOST), at_s=st.integers(0, MOST), kind=st.sampled_from(KINDS),
    postings=POSTINGS, reference=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", fullmatch=True),
    memo=MEMOS, previous=st.binary(min_size=32, max_size=32),
)  # fmt: skip
def test_the_bytes_that_are_hashed_are_those_of_rfc_8785(
    number, at_s, kind, postings, reference, memo, previous
):
    """Our format string writes what the library writes."""
    entry = Entry(number, at_s, kind, tuple(postings), reference, memo, previous)
    expected = rfc8785.dumps({
        "number": number, "at_s": at_s, "kind": kind, "reference": reference, "memo": memo,
        "previous": previous.hex(), "postings": [list(one) for one in postings],
    })  # fmt: skip
    assert expected == entry.canonical()


@CALM
@given(POSTINGS)
def test_postings_are_read_as_they_were_kept(postings):
    """There and back."""
    assert tuple(postings) == read_postings(kept_postings(postings))


@CALM
@given(st.text())
def test_no_text_of_a_book_breaks_the_reader_of_postings(text):
    """It is postings, written as the book writes them, or a ValueError."""
    try:
        found = read_postings(text)
    except ValueError:
        return
    assert kept_postings(found) == text


def test_an_answer_is_held_captured_and_the_rest_released(book, identity):
    """The money goes from the wallet to the nodes, and the rest back."""
    assert (600, 400) == (book.balance(wallet(ANA)), book.balance(held(ANA, "a1")))
    answers.capture(book, ANA, {NODES[0]: 100, NODES[1]: 50}, reference="a1")
    answers.release(book, ANA, reference="a1")
    assert {
        wallet(ANA): 850, income(NODES[0]): 100, income(NODES[1]): 50, "world": -1_000,
    } == book.balances()  # fmt: skip
    assert answers.release(book, ANA, reference="a1") is None
    assert is_whole(book, identity)


def test_an_answer_may_cost_nothing(book, identity):
    """Zero is captured, and the whole is released."""
    answers.capture(book, ANA, {NODES[0]: 0}, reference="a1")
    answers.release(book, ANA, reference="a1")
    assert book.balance(wallet(ANA)) == 1_000
    assert is_whole(book, identity)


def test_the_same_twice_is_a_double_claim_and_changes_nothing(book):
    """Each kind counts once under a reference."""
    answers.capture(book, ANA, {NODES[0]: 100}, reference="a1")
    before = book.balances(), book.end()
    for twice in (
        lambda: answers.fund(book, ANA, 5, reference="f1"),
        lambda: answers.hold(book, BEN, 5, reference="a1"),
        lambda: answers.capture(book, ANA, {NODES[0]: 100}, reference="a1"),
        lambda: answers.capture(book, ANA, {NODES[1]: 1}, reference="a1"),
    ):
        with pytest.raises(DoubleClaimError, match="booked before"):
            twice()
    assert before == (book.balances(), book.end())


@pytest.mark.parametrize(("wrong", "why"), [
    (lambda book: answers.hold(book, ANA, 601, reference="a2"), "would hold -1"),
    (lambda book: answers.hold(book, ANA, 0, reference="a2"), "cannot get 0"),
    (lambda book: answers.hold(book, ANA, -5, reference="a2"), "cannot get 5"),
    (lambda book: answers.capture(book, ANA, {NODES[0]: 401}, reference="a1"), "would hold -1"),
    (lambda book: answers.capture(book, ANA, {NODES[0]: -1}, reference="a1"), "cannot get"),
    (lambda book: answers.capture(book, BEN, {NODES[0]: 1}, reference="a1"), "would hold -1"),
    (lambda book: answers.capture(book, ANA, {}, reference="a1"), "1 postings"),
    (lambda book: answers.refund(book, ANA, {NODES[0]: 1}, reference="a1"), "nothing was captured"),
    (lambda book: answers.fund(book, ANA, MOST, reference="f2"), "at most"),
    (lambda book: answers.fund(book, "ana", 1, reference="f2"), "no account"),
    (lambda book: answers.fund(book, ANA, 1, reference="a b"), "reference"),
    (lambda book: answers.fund(book, ANA, 1, reference="f2", memo="a\nb"), "memo"),
    (lambda book: answers.fund(book, ANA, 1, reference="f2", memo="m" * 201), "memo"),
    (lambda book: book.add("fund", (("world", -2), (wallet(ANA), 1)), reference="x"), "sum to -1"),
    (lambda book: book.add("fund", ((wallet(BEN), -1), (wallet(ANA), 1)), reference="x"),
     "as the giver of a fund"),
    (lambda book: book.add("steal", (("world", -1), (wallet(ANA), 1)), reference="x"), "its kind"),
    (lambda book: book.add("hold", ((wallet(ANA), -1), (held(ANA, "y"), 1)), reference="x"),
     "not held for x"),
    (lambda book: book.add("hold", ((wallet(ANA), -1), (held(BEN, "x"), 1)), reference="x"),
     "is not of"),
    (lambda book: book.add("release", ((held(ANA, "a1"), -1), (wallet(BEN), 1)), reference="a1"),
     "is not of"),
    (lambda book: book.add(
        "capture", ((held(ANA, "a1"), -2), (income(BEN), 1), (income(BEN), 1)), reference="a1"),
     "twice"),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_changes_nothing(book, identity, wrong, why):
    """Money is neither made nor owed, and goes where its kind says."""
    before = book.balances(), book.end()
    with pytest.raises(RefusedEntryError, match=why):
        wrong(book)
    assert before == (book.balances(), book.end())
    assert is_whole(book, identity)


def test_a_refund_is_of_what_a_node_got_for_this_answer(book, identity):
    """Not more, not to another owner, not what the node has collected meanwhile, and once."""
    answers.capture(book, ANA, {NODES[0]: 100, NODES[1]: 50}, reference="a1")
    for shares, owner, why in (
        ({NODES[0]: 101}, ANA, "had got 100"),
        ({NODES[2]: 1}, ANA, "had got 0"),
        ({NODES[0]: 1}, BEN, "had paid"),
    ):
        with pytest.raises(RefusedEntryError, match=why):
            answers.refund(book, owner, shares, reference="a1")
    answers.refund(book, ANA, {NODES[0]: 100}, reference="a1")
    before = book.balances(), book.end()
    with pytest.raises(DoubleClaimError):  # all give back, or none
        answers.refund(book, ANA, {NODES[1]: 1, NODES[0]: 1}, reference="a1")
    assert before == (book.balances(), book.end())
    answers.refund(book, ANA, {NODES[1]: 20}, reference="a1")  # found out later
    assert book.balance(wallet(ANA)) == 720
    assert ["a1.1", "a1.2"] == [one.reference for one in book.entries(reference="a1")][-2:]
    with pytest.raises(DoubleClaimError):
        answers.refund(book, ANA, {NODES[1]: 1}, reference="a1")
    assert is_whole(book, identity)


@pytest.mark.parametrize(("reference", "node", "why"), [
    ("a1", NODES[0], "nothing was captured"), ("a1.0", NODES[0], "nothing was captured"),
    ("a1.3", NODES[0], "nothing was captured"), ("a1.2", NODES[0], "had got it"),
])  # fmt: skip
def test_a_refund_names_the_capture_and_the_place_of_its_node(book, reference, node, why):
    """So that the rules can be applied again by whoever verifies."""
    answers.capture(book, ANA, {NODES[0]: 100, NODES[1]: 100}, reference="a1")
    with pytest.raises(RefusedEntryError, match=why):
        book.add("refund", ((income(node), -1), (wallet(ANA), 1)), reference=reference)


@pytest.mark.parametrize("amount", [5.0, True, "5", None, 5.5])
def test_an_amount_is_a_whole_number(book, identity, amount):
    """A float or a bool in a posting would spoil the hash of it and all sums after it."""
    before = book.balances(), book.end()
    with pytest.raises(RefusedEntryError, match="no whole number"):
        book.add("fund", (("world", -5), (wallet(ANA), amount)), reference="f2")
    assert before == (book.balances(), book.end())
    answers.fund(book, ANA, 5, reference="f2")
    assert is_whole(book, identity)


def test_what_is_refused_within_others_leaves_nothing(book, identity):
    """Neither a line nor a half of its balances; those before and after it are booked."""
    with book.writing():
        answers.fund(book, BEN, 7, reference="f2")
        for wrong in (
            lambda: answers.hold(book, ANA, 601, reference="a2"),
            lambda: answers.fund(book, ANA, MOST, reference="f3"),
            lambda: answers.refund(book, ANA, {NODES[0]: 1}, reference="a1"),
        ):
            with pytest.raises(RefusedEntryError):
                wrong()
        answers.hold(book, ANA, 600, reference="a2")
    assert ["f1", "a1", "f2", "a2"] == [entry.reference for entry in book.entries()]
    assert book.balance("world") == -1_007
    assert is_whole(book, identity)


def test_a_mistake_is_taken_back_once(book, identity):
    """By its mirror; both stay, and a reading of the same again may book it."""
    mistake = answers.fund(book, BEN, 50, reference="gift")
    assert book.free_reference("fund", "gift") == "gift"
    correct(book, mistake.number, memo="5 was meant")
    assert (0, -1_000) == (book.balance(wallet(BEN)), book.balance("world"))
    with pytest.raises(DoubleClaimError):
        correct(book, mistake.number)
    assert book.free_reference("fund", "gift") == "gift.2"
    answers.fund(book, BEN, 5, reference="gift.2")
    assert book.free_reference("fund", "gift") == "gift.2"
    assert is_whole(book, identity)


def test_what_was_spent_cannot_be_taken_back(book, identity):
    """Nor is anybody below zero for it; nor what answers book, nor what is not there."""
    answers.capture(book, ANA, {NODES[0]: 100}, reference="a1")
    before = book.balances(), book.end()
    for number, why in (
        (1, "would hold -"), (2, "is a hold"), (3, "is a capture"), (4, "there is none"),
    ):  # fmt: skip
        with pytest.raises(RefusedEntryError, match=why):
            correct(book, number)
    for reference, postings in (
        ("1", ((wallet(ANA), -1), ("world", 1))), ("01", ((wallet(ANA), -1_000), ("world", 1_000))),
        ("9", ((wallet(ANA), -1), ("world", 1))), ("x", ((wallet(ANA), -1), ("world", 1))),
    ):  # fmt: skip
        with pytest.raises(RefusedEntryError, match=r"does not take back|no entry"):
            book.add("correct", postings, reference=reference)
    assert before == (book.balances(), book.end())
    assert is_whole(book, identity)


def test_a_damaged_head_is_named_and_its_mend_told(book, tmp_path, identity):
    """Booking stops, for what the head showed may be missing."""
    path = head_path(book.path)
    path.write_bytes(b"{")
    path.chmod(0o600)
    with pytest.raises(BadValueError, match=r"ledger\.head is damaged.*remove it") as refused:
        Book(book.path, identity)
    assert "\n" not in str(refused.value)
    path.unlink()
    with a_book(tmp_path, identity):
        pass
    assert path.exists()


def test_entries_cannot_be_changed_or_taken_away(book):
    """SQLite refuses it, whoever asks."""
    for statement in ("UPDATE entries SET memo = 'x'", "DELETE FROM entries",
                      "UPDATE book SET keeper = 'x'", "DELETE FROM book"):  # fmt: skip
        with pytest.raises(sqlite3.IntegrityError, match="stay as they are"):
            book.connection.execute(statement)


def test_the_book_is_for_its_owner_alone_and_each_entry_is_synced(book):
    """Mode 0600 of all its files; FULL in the write-ahead log."""
    for file in book.path.parent.glob("ledger.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert book.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert book.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    book.path.chmod(0o644)
    with pytest.raises(BadValueError, match="chmod 600"):
        open_reading(book.path)


def test_another_keepers_book_is_not_written(book, tmp_path):
    """Its hashes begin with the keeper."""
    other = load_identity(tmp_path / "other.key")
    with pytest.raises(BadValueError, match=f"not by {other.id}"):
        Book(book.path, other)


def test_a_file_that_is_no_book_is_said_to_be_none(tmp_path, identity):
    """In one line, and it stays as it is."""
    path = tmp_path / BOOK_FILE
    path.write_bytes(b"not a database, but a text of some length\n" * 50)
    path.chmod(0o600)
    with pytest.raises(BadValueError, match="cannot be used") as refused:
        Book(path, identity)
    assert "\n" not in str(refused.value)
    with pytest.raises(BadValueError, match="cannot be used"):
        open_reading(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_full_disk_is_told_and_nothing_half_is_booked(book, identity):
    """What was booked is whole, and booking goes on when there is space."""
    pages = book.connection.execute("PRAGMA page_count").fetchone()[0]
    book.connection.execute(f"PRAGMA max_page_count = {pages}")
    booked = 0
    with pytest.raises(DiskFullError, match="no space"):  # noqa: PT012 - the full disk comes later
        for number in range(10_000):
            answers.fund(book, ANA, 1, reference=f"more{number}", memo="m" * 200)
            booked = number + 1
    assert book.balance(wallet(ANA)) == 600 + booked
    book.connection.execute("PRAGMA max_page_count = 100000")
    answers.fund(book, ANA, 1, reference="after")
    assert is_whole(book, identity)


def test_what_fails_half_way_takes_back_the_transaction_that_it_is_part_of(book, identity):
    """Whoever goes on as if nothing had happened cannot book half of an entry."""
    before = book.end()

    def no_balance(action, table, *_rest):
        denied = action == sqlite3.SQLITE_INSERT and table == "balances"
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK

    with pytest.raises(BadValueError, match="no transaction"), book.writing():  # noqa: PT012 - it goes on
        answers.fund(book, ANA, 1, reference="whole")
        book.connection.set_authorizer(no_balance)
        with pytest.raises(BadValueError, match="not authorized"):
            answers.fund(book, ANA, 1, reference="half")
    book.connection.set_authorizer(None)
    assert book.end() == before
    assert book.balance(wallet(ANA)) == 600
    assert is_whole(book, identity)


def test_what_is_refused_leaves_the_transaction_that_it_is_part_of(book, identity):
    """And says that it was booked before, even if there would not be enough for it now."""
    with book.writing():
        answers.hold(book, ANA, 600, reference="all")
        with pytest.raises(DoubleClaimError):
            answers.hold(book, ANA, 600, reference="all")
        with pytest.raises(RefusedEntryError, match="would hold -1"):
            answers.hold(book, ANA, 1, reference="more")
    assert book.balance(wallet(ANA)) == 0
    assert is_whole(book, identity)


def _fund_often(folder, begin):
    with a_book(folder, load_identity(folder / "identity.key")) as book:
        for number in range(begin, begin + 25):
            try:
                answers.fund(book, ANA, 1, reference=f"n{number}")
            except DoubleClaimError:
                continue


def test_processes_that_book_at_once_lose_nothing_and_book_nothing_twice(book, tmp_path, identity):
    """Three of them, with references that overlap."""
    spawning = multiprocessing.get_context("spawn")
    ours = [spawning.Process(target=_fund_often, args=(tmp_path, 10 * i)) for i in range(3)]
    for one in ours:
        one.start()
    for one in ours:
        one.join()
        assert one.exitcode == 0
    assert book.balance(wallet(ANA)) == 600 + 45
    assert is_whole(book, identity)


def test_the_head_is_signed_at_each_close(tmp_path, identity):
    """It says where the book ended, and a book that did not go on keeps its head."""
    with a_book(tmp_path, identity) as book:
        answers.fund(book, ANA, 1, reference="f")
        number, last = book.end()
    path = head_path(tmp_path / BOOK_FILE)
    said = json.loads(path.read_text())["head"]
    assert said == {"keeper": identity.id, "number": number, "hash": last.hex(), "at_s": NOW_S}
    seen = path.stat().st_ino
    with a_book(tmp_path, identity):
        pass
    assert seen == path.stat().st_ino


def test_show_tells_entries_by_account_reference_and_number(book):
    """The oldest first; of a limit the newest."""
    answers.fund(book, BEN, 7, reference="f2")
    assert ["fund", "hold", "fund"] == [entry.kind for entry in book.entries()]
    assert ["f1", "a1"] == [entry.reference for entry in book.entries(account=wallet(ANA))]
    assert ["f2"] == [entry.reference for entry in book.entries(last=1)]
    assert [2] == [entry.number for entry in book.entries(reference="a1")]
    assert book.end()[1] == next(book.entries(last=1)).sha256()


def test_rewards_go_half_by_uptime_and_half_by_work(book, identity):
    """To the last micro-credit, and each period once."""
    answers.fund_rewards(book, 1_000, reference="pool")
    services = {NODES[0]: Service(3_600, 0), NODES[1]: Service(3_600, 10), NODES[2]: Service(0, 0)}
    assert {NODES[0]: 25, NODES[1]: 76} == share_out(101, services)
    reward(book, services, 101, reference="2026-11-22")
    assert (899, 76) == (book.balance(REWARDS), book.balance(income(NODES[1])))
    with pytest.raises(DoubleClaimError):
        reward(book, services, 101, reference="2026-11-22")
    with pytest.raises(RefusedEntryError, match="would hold"):
        reward(book, services, 900, reference="2026-11-23")
    reward(book, {an_id(f"d{number}"): Service(1, 0) for number in range(600)}, 600,
           reference="many")  # fmt: skip
    assert [255, 255, 90] == [
        len(entry.postings) - 1 for entry in book.entries() if entry.reference.startswith("many-")
    ]
    before = book.end()
    with pytest.raises(RefusedEntryError, match="would hold"):  # in its second entry: none of them
        reward(book, {an_id(f"d{number}"): Service(1, 0) for number in range(300)}, 300,
               reference="more")  # fmt: skip
    assert before == book.end()
    with pytest.raises(RefusedEntryError, match="nobody"):
        reward(book, {NODES[2]: Service(0, 0)}, 1, reference="2026-11-24")
    assert is_whole(book, identity)


@CALM
@given(
    st.integers(1, MOST),
    st.dictionaries(st.sampled_from(NODES), st.builds(Service, st.integers(0, MOST),
                                                      st.integers(0, MOST))),
)  # fmt: skip
def test_a_reward_is_shared_out_exactly(micro, services):
    """Nothing is left, nothing is made, nobody gets less than nothing."""
    shares = share_out(micro, services)
    assert sum(shares.values()) == (micro if any(
        one.uptime_s or one.layer_tokens for one in services.values()
    ) else 0)  # fmt: skip
    assert all(part > 0 for part in shares.values())


@pytest.mark.parametrize("text", [
    b"[]", b"{", b'{"x": {"uptime_s": 1, "layer_tokens": 1}}',
    b'{"%s": {"uptime_s": 1}}' % ANA.encode(), b'{"%s": 1}' % ANA.encode(),
    b'{"%s": {"uptime_s": -1, "layer_tokens": 1}}' % ANA.encode(),
    b'{"%s": {"uptime_s": 1.5, "layer_tokens": 1}}' % ANA.encode(), b" " * 70_000,
])  # fmt: skip
def test_services_that_are_none_are_refused(text):
    """In one line."""
    with pytest.raises(BadValueError) as refused:
        read_services(text)
    assert "\n" not in str(refused.value)


@CALM
@given(st.integers(0, 10**15 - 1))
def test_credits_are_exact_there_and_back(micro):
    """As text and as micro-credits."""
    assert micro == read_credits(credits_text(micro))
    assert credits_text(-CREDIT // 2) == "-0.5"


@pytest.mark.parametrize("text", ["", "-1", "1e3", "1.2345678", "1.", ".5", "1,5", "\u0663", "1\n",
                                  "inf", "1234567890"])  # fmt: skip
def test_what_is_no_amount_is_refused(text):
    """Nothing is rounded, and nothing guessed."""
    with pytest.raises(BadValueError, match="no amount"):
        read_credits(text)


@pytest.mark.parametrize("at_s", [-1, 1.5, True, "1", 10**12])
def test_a_time_is_a_whole_second(at_s):
    """Of this era."""
    assert "time" in form_fault(at_s, "fund", "f", "")
