"""Resale: what a gateway logged is booked at cost and margin, once; customers pay, or have paid."""

import io
import json
import logging
import multiprocessing
from dataclasses import fields
from typing import Final

import pytest
import structlog
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.gateway.activity import Outcome
from shoestring.gateway.logs import configure, log_request
from shoestring.swarm.cli_ledger import ledger
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger.accounts import customer
from shoestring.swarm.ledger.book import DoubleClaimError, RefusedEntryError
from shoestring.swarm.ledger.correcting import correct
from shoestring.swarm.ledger.gateway_logs import Use, uses
from shoestring.swarm.ledger.reading import BOOK_FILE, open_reading
from shoestring.swarm.ledger.resale import Tariff, book_use, book_voucher, read_margin
from shoestring.swarm.ledger.verifying import verify
from shoestring.testing.ledger_histories import ANA, BEN, a_book

CALM = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
KEY = "ABCDEFGHIJ"
UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
TARIFF = Tariff(price_in=200_000, price_out=600_000, margin=150_000)


def outcome(**changes):
    """Return what the gateway notes of a request."""
    return Outcome(**{
        "request_id": "r1", "t_utc": "2026-11-22T10:00:00.000Z", "key_id": KEY, "key_name": "ana",
        "address": "10.0.0.7", "operation": "chat", "model": "m", "variant": "", "engine": "swarm",
        "provider": "openai", "status": 200, "failure": None, "stream": True, "cache": "miss",
        "queue_s": 0.0, "ttft_s": 0.2, "duration_s": 3.4, "input_tokens": 31, "output_tokens": 120,
        **changes,
    })  # fmt: skip


def log_of(*outcomes, prompt=None):
    """Return what the gateway writes of requests that ended; with prompts if one is given."""
    stream = io.StringIO()
    loggers = [logging.getLogger(name) for name in ("", *UVICORN)]
    before = [(lg, lg.handlers[:], lg.level, lg.propagate) for lg in loggers]
    configure(stream=stream, prompts=prompt is not None)
    try:
        for one in outcomes:
            log_request(one, prompt=prompt)
    finally:  # logging belongs to the whole process
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()
        for logger, handlers, level, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
    return stream.getvalue().encode()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The state folder of an owner with a wallet; returns the owner's id."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path))
    return load_identity(tmp_path / "swarm" / "wallet.key").id


def test_the_gateways_log_is_booked_once_however_often_it_is_read(home, tmp_path):
    """31 * 0.2 + 120 * 0.6 micro-credits, rounded up, and 15 % of it, rounded up."""
    log = b"starting\n" + log_of(
        outcome(), outcome(), outcome(request_id="r2", key_name="ben", key_id="BBBBBBBBBB"),
        outcome(cache="hit"), outcome(cache="joined"), outcome(output_tokens=None),
        outcome(input_tokens=None, output_tokens=None, failure="no_engine", status=503,
                charged_input_tokens=0, charged_output_tokens=0),
        outcome(operation="embeddings", output_tokens=None, input_tokens=10),
    )  # fmt: skip
    command = ["resell", "--key", "ana", "--price-in", "0.2", "--price-out", "0.6",
               "--margin", "15%", "--json"]  # fmt: skip
    first, again = (CliRunner().invoke(ledger, command, input=log) for _ in range(2))
    assert json.loads(first.output) == {
        "booked": 3, "booked_before": 0, "by_charge": 0, "tokens_unknown": 1,
        "micro": 2 * (79 + 12) + 2 + 1,
    }  # fmt: skip
    assert json.loads(again.output) == {
        "booked": 0, "booked_before": 3, "by_charge": 0, "tokens_unknown": 1, "micro": 0,
    }  # fmt: skip
    with open_reading(tmp_path / "swarm" / BOOK_FILE) as book:
        assert {
            customer(home, KEY): -185, f"resold:{home}": 160, f"margin:{home}": 25
        } == book.balances()  # fmt: skip
        assert verify(book, book.keeper).fault is None


@pytest.mark.usefixtures("home")
def test_a_customer_owes_until_it_has_paid():
    """And a payment with a reference is booked once."""
    CliRunner().invoke(ledger, ["resell", "--price-in", "100", "--price-out", "100"],
                       input=log_of(outcome()))  # fmt: skip
    command = ["paid", KEY, "0.5", "--reference", "cheque.1"]
    assert f"{KEY} has 0.4849 credits" in CliRunner().invoke(ledger, command).output
    assert isinstance(CliRunner().invoke(ledger, command).exception, DoubleClaimError)


LEFT = {"status": 499, "failure": "client_left", "input_tokens": None, "output_tokens": None}


CHARGES = ("charged_input_tokens", "charged_output_tokens")


@pytest.mark.parametrize(("changes", "charged", "tokens"), [
    (LEFT, (9, 40), (9, 40)),  # by the prompt's length, and by parts
    (LEFT, (0, 0), None),  # it left the queue
    (LEFT | {"stream": False}, (9, 0), (9, None)),  # nobody saw how long it was
    (LEFT | {"stream": False, "ttft_s": None}, (None, None), (None, None)),
    (LEFT | {"status": 504, "failure": "deadline", "ttft_s": None}, (None, None), (None, None)),
    ({"output_tokens": None}, (31, 7), (31, 7)),
    ({}, (31, 120), (31, 120)),
    ({}, (None, None), (31, 120)),
])  # fmt: skip
def test_an_answer_that_broke_off_is_asked_for_as_charged_or_told(changes, charged, tokens):
    """Never passed over where an engine worked: whoever drops the line would have all for free."""
    line = log_of(outcome(**changes, **dict(zip(CHARGES, charged, strict=True))))
    assert [(use.tokens_in, use.tokens_out) for use in uses([line])] == [
        (None, None) if tokens is not None and None in tokens else tokens
    ][: tokens is not None]


@pytest.mark.parametrize(("changes", "told"), [
    (LEFT, True), (LEFT | {"ttft_s": None}, True),
    (LEFT | {"status": 200, "failure": "engine_cut"}, True),
    (LEFT | {"status": 503, "failure": "no_engine", "ttft_s": None}, False),
    (LEFT | {"status": 401, "failure": "bad_key", "ttft_s": None}, False),
])  # fmt: skip
def test_of_an_older_gateway_it_is_told_where_an_engine_may_have_worked(changes, told):
    """Its lines have no charge."""
    said = json.loads(log_of(outcome(**changes)))
    older = {name: value for name, value in said.items() if name not in CHARGES}
    found = list(uses([json.dumps(older, separators=(",", ":")).encode()]))
    assert [None] * told == [use.tokens_out for use in found]


def test_a_client_that_left_is_booked_by_charge_and_said_to_be(home, tmp_path):
    """In the sum and in the entry's memo; a dry run says the same and books nothing."""
    log = log_of(outcome(**LEFT, charged_input_tokens=10, charged_output_tokens=20), outcome())
    command = ["resell", "--price-in", "0.2", "--price-out", "0.6", "--json"]
    dry, done = (
        json.loads(CliRunner().invoke(ledger, [*command, *more], input=log * 2).output)
        for more in (["--dry-run"], [])
    )
    assert dry == done == {
        "booked": 2, "booked_before": 2, "by_charge": 1, "tokens_unknown": 0, "micro": 14 + 79,
    }  # fmt: skip
    with open_reading(tmp_path / "swarm" / BOOK_FILE) as book:
        assert ["10 in, 20 out, by charge", "31 in, 120 out"] == [
            entry.memo for entry in book.entries()
        ]
        assert book.balance(customer(home, KEY)) == -(14 + 79)


def test_a_dry_run_books_nothing(home, tmp_path):
    """Not even a book."""
    command = ["resell", "--price-in", "0.2", "--price-out", "0.6", "--dry-run"]
    said = CliRunner().invoke(ledger, command, input=log_of(outcome())).output
    assert said.startswith("1 requests would be booked, 0.000079 credits")
    assert home
    assert not (tmp_path / "swarm" / BOOK_FILE).exists()


def test_what_was_sold_at_a_wrong_price_is_corrected_and_sold_again(home, tmp_path):
    """Once: the log may still be read as often as one likes."""
    log, booked = log_of(outcome()), []
    for price in ("0.2", "9", "9"):
        CliRunner().invoke(ledger, ["resell", "--price-in", price, "--price-out", price], input=log)
        if not booked:
            assert CliRunner().invoke(ledger, ["correct", "1"]).exit_code == 0
        booked.append(price)
    with open_reading(tmp_path / "swarm" / BOOK_FILE) as book:
        assert ["resale", "correct", "resale"] == [entry.kind for entry in book.entries()]
        assert book.balance(customer(home, KEY)) == -9 * 151
        assert verify(book, book.keeper).fault is None


def test_a_voucher_whose_booking_was_corrected_is_booked_again(tmp_path):
    """It may have been another customer's."""
    identity = load_identity(tmp_path / "k")
    with a_book(tmp_path, identity) as book:
        wrong = book_voucher(book, ANA, "ben", channel="0xab", most=100)
        correct(book, wrong.number)
        book_voucher(book, ANA, "payer", channel="0xab", most=100)
        assert (0, 100) == tuple(book.balance(customer(ANA, name)) for name in ("ben", "payer"))
        assert verify(book, identity.id).fault is None


MANY: Final = 1 << 20
"""Characters of the longest prompt, and more than that once some of them are written as JSON."""


@pytest.mark.parametrize("prompt", [
    "a" * MANY, "\N{ROCKET}" * MANY, '"\\' * MANY, "\0" * MANY, "\ud800" * MANY,
    [{"role": "user", "content": "\N{ROCKET}" * MANY}] * 3, ["x" * MANY] * 3,
    [10**28], {"event": "request"}, [{"event":"request"}], [[[[[[["deep"]]]]]]],
], ids=range(11))  # fmt: skip
def test_no_prompt_that_is_logged_stops_the_bill(prompt):
    """A customer writes it, and all lines behind it would never be asked for."""
    log = log_of(outcome(), outcome(request_id="r2"), prompt=prompt)
    assert all(b'"prompt":' in line for line in log.splitlines())
    assert [use.tokens_out for use in uses(log.splitlines())] == [120, 120]


def test_every_field_that_is_read_is_one_that_the_gateway_writes():
    """The meeting point is the log; its names are held together here."""
    [said] = map(json.loads, log_of(outcome()).splitlines())
    named = {field.name for field in fields(Outcome)}
    assert {"key_id", "key_name", "cache", "failure", "operation", "request_id", "input_tokens",
            "output_tokens", "charged_input_tokens", "charged_output_tokens", "status", "stream",
            "ttft_s"} <= named & said.keys()  # fmt: skip
    assert {"began_utc", "t_utc", "event"} <= said.keys()


@pytest.mark.parametrize("line", [
    b'{"event":"request"', b'{"event":"request"}', b'["event":"request"]',
    log_of(outcome(input_tokens=-1)), log_of(outcome(output_tokens=1.5)),
    log_of(outcome())[:-20],
])  # fmt: skip
def test_a_damaged_line_is_named_by_its_number(line):
    """It stops there: a log that was cut must not be half a bill."""
    with pytest.raises(BadValueError, match="line 2 of the log"):
        list(uses([b"anything", line]))


@CALM
@given(st.lists(st.binary()))
def test_no_log_breaks_the_reader(lines):
    """Lines of others are passed over."""
    assert list(uses(line for line in lines if b'"event":"request"' not in line)) == []


@pytest.mark.parametrize(("text", "millionths"), [
    ("15%", 150_000), ("12.5%", 125_000), ("0%", 0), ("0.0001%", 1), ("200%", 2_000_000),
])  # fmt: skip
def test_a_margin_is_exact(text, millionths):
    """Per cent, of four decimals at most."""
    assert millionths == read_margin(text)


@pytest.mark.parametrize("text", ["15", "-1%", "1e2%", "0.00001%", "%", "15 %", "nan%"])
def test_what_is_no_margin_is_refused(text):
    """In one line."""
    with pytest.raises(BadValueError, match="no margin"):
        read_margin(text)


def test_a_use_without_tokens_is_not_asked_for(tmp_path):
    """Missing is not zero."""
    with (
        a_book(tmp_path, load_identity(tmp_path / "k")) as book,
        pytest.raises(RefusedEntryError, match="not known"),
    ):
        book_use(book, ANA, Use("u", KEY, "ana", 5, None), TARIFF)


def test_a_voucher_is_booked_again_up_to_its_amount_whichever_part_was_corrected(tmp_path):
    """What its channel has, and not a name of its own, says what it adds."""
    identity = load_identity(tmp_path / "k")
    with a_book(tmp_path, identity) as book:
        parts = [book_voucher(book, ANA, "p", channel="0xab", most=most) for most in (50, 100, 150)]
        for part in (parts[0], parts[2], parts[1]):
            correct(book, part.number)
            again = book_voucher(book, ANA, "p", channel="0xab", most=150)
            assert again.postings[1][1] == 50
            assert book.balance(customer(ANA, "p")) == 150
        assert verify(book, identity.id).fault is None


def test_vouchers_are_booked_by_what_they_add(tmp_path):
    """They are cumulative; the same again adds nothing, a lower one is refused."""
    identity = load_identity(tmp_path / "k")
    with a_book(tmp_path, identity) as book:
        for most, added in ((100, 100), (100, None), (250, 150)):
            entry = book_voucher(book, ANA, "payer", channel="0xab", most=most)
            assert (None if entry is None else entry.postings[1][1]) == added
        with pytest.raises(RefusedEntryError, match="one of 250 was"):
            book_voucher(book, ANA, "payer", channel="0xab", most=249)
        book_use(book, ANA, Use("u", "payer", "payer", 1_000, 0), TARIFF)
        assert book.balance(customer(ANA, "payer")) == 250 - 230
        with pytest.raises(RefusedEntryError, match="another owner"):
            book.add("resale", ((customer(BEN, "x"), -1), (f"resold:{ANA}", 1)), reference="y")
        assert verify(book, identity.id).fault is None


def _book_vouchers(folder, lowest):
    with a_book(folder, load_identity(folder / "k")) as book:
        for most in range(lowest, 300, 3):
            try:
                book_voucher(book, ANA, "payer", channel="0xab", most=most)
            except RefusedEntryError:
                continue


def test_processes_that_book_vouchers_at_once_book_the_highest(tmp_path):
    """What a channel was good for is read and booked in one transaction."""
    identity = load_identity(tmp_path / "k")
    spawning = multiprocessing.get_context("spawn")
    ours = [spawning.Process(target=_book_vouchers, args=(tmp_path, i)) for i in (1, 2, 3)]
    for one in ours:
        one.start()
    for one in ours:
        one.join()
        assert one.exitcode == 0
    with a_book(tmp_path, identity) as book:
        assert book.balance(customer(ANA, "payer")) == 299
        assert verify(book, identity.id).fault is None
