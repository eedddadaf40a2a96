"""An owner sells on what he bought: to customers with keys of a gateway, or with vouchers.

Gateway and swarm know nothing of each other. They meet in the gateway's log, which has one line of
JSON for each request, with its key and the tokens that an engine counted::

    shoestring serve 2>> gateway.log
    shoestring swarm ledger resell --key ana --margin 15% ... < gateway.log

A line is booked once, however often the log is read: its reference is a hash of key, request and
times. Answers from the gateway's memory cost nothing, and are not asked for.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.ledger.accounts import WORLD, customer
from shoestring.swarm.ledger.amounts import amount
from shoestring.swarm.ledger.book import RefusedEntryError
from shoestring.swarm.words import WordError, read_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.ledger.entries import Entry

PER_WHOLE: Final = 1_000_000
"""Margins are in millionths, so that each per cent of four decimals is exact."""
PER_CENT: Final = re.compile(r"([0-9]{1,5})(?:\.([0-9]{1,4}))?%")
MARK: Final = b'"event":"request"'
LONGEST_LINE: Final = 1 << 20
MOST_TOKENS: Final = 10**12
REFERENCE_CHARACTERS: Final = 48
MADE_BY_ENGINE: Final = frozenset({"miss", "bypass"})


@dataclass(frozen=True)
class Terms:
    """For what an owner sells on.

    Attributes:
        price_in: what he pays for a million tokens of prompts through all layers, micro-credits.
        price_out: likewise, of answers.
        margin: that is added, in millionths.
    """

    price_in: int
    price_out: int
    margin: int


@dataclass(frozen=True)
class Use:
    """What one request of a customer used.

    Attributes:
        reference: of it, for the book.
        key_id: the customer's key.
        key_name: for people.
        tokens_in: None: the engine did not say.
        tokens_out: likewise.
    """

    reference: str
    key_id: str
    key_name: str
    tokens_in: int | None
    tokens_out: int | None


def read_margin(text: str) -> int:
    """Return a margin in millionths.

    Raises:
        BadValueError: it is none.
    """
    found = PER_CENT.fullmatch(text)
    if found is None:
        raise BadValueError(f"{text[:40]!a} is no margin: give per cent, as in 15% or 12.5%")
    return (int(found[1]) * 10_000) + int((found[2] or "").ljust(4, "0"))


def uses(log: Iterable[bytes]) -> Iterator[Use]:
    """Yield the requests that engines answered, of the lines of a gateway's log.

    Raises:
        BadValueError: a line of a request is none; nothing behind it was yielded.
    """
    for number, line in enumerate(log, 1):
        if MARK not in line:
            continue  # of the start, of a library, of a refusal
        try:
            use = _use(read_word(line[:LONGEST_LINE]))
        except (WordError, KeyError, TypeError) as error:
            raise BadValueError(
                f"line {number} of the log is no request's ({error}): give the log as it was "
                "written, each line whole"
            ) from error
        if use is not None:
            yield use


def book_use(book: Book, owner: str, use: Use, terms: Terms) -> Entry:
    """Ask a customer for what a request used, at cost and margin.

    Args:
        book: the book.
        owner: who sells.
        use: with both counts of tokens.
        terms: for what.

    Raises:
        DoubleClaimError: it was booked before.
        RefusedEntryError: its tokens are not known.
    """
    if use.tokens_in is None or use.tokens_out is None:
        raise RefusedEntryError(f"resale {use.reference} is not booked: its tokens are not known")
    cost = amount(
        use.tokens_in, use.tokens_out, 1, price_in=terms.price_in, price_out=terms.price_out
    )
    margin = -(-cost * terms.margin // PER_WHOLE)
    postings = (
        (customer(owner, use.key_id), -cost - margin),
        (f"resold:{owner}", cost),
        (f"margin:{owner}", margin),
    )
    memo = f"{use.tokens_in} in, {use.tokens_out} out"
    return book.add("resale", postings, reference=use.reference, memo=memo)


def book_payment(book: Book, owner: str, name: str, micro: int, *, reference: str) -> Entry:
    """Book what a customer paid outside of the book.

    Raises:
        DoubleClaimError: it was booked before.
        RefusedEntryError: the amount cannot be.
    """
    postings = ((WORLD, -micro), (customer(owner, name), micro))
    return book.add("fund", postings, reference=reference)


def book_voucher(book: Book, owner: str, name: str, *, channel: str, most: int) -> Entry | None:
    """Book what a cumulative voucher of a customer's channel adds to the one before.

    Args:
        book: the book.
        owner: who sells.
        name: the customer's.
        channel: of the vouchers; a name, such as its identifier in hexadecimal.
        most: the micro-credits that the voucher is good for, all told. That it is signed and
            within its deposit was seen before.

    Returns:
        None: it adds nothing.

    Raises:
        RefusedEntryError: it is below what was booked.
    """
    with book.writing():
        before = -book.balance(f"voucher:{channel}")
        if most < before:
            raise RefusedEntryError(
                f"a voucher of {most} micro-credits in channel {channel[:96]} is not booked: "
                f"one of {before} was"
            )
        if most == before:
            return None
        added = most - before
        postings = ((f"voucher:{channel}", -added), (customer(owner, name), added))
        reference = hashlib.sha256(f"voucher {channel} {most}".encode()).hexdigest()
        return book.add("fund", postings, reference=reference[:REFERENCE_CHARACTERS])


def _use(said: dict[str, Any]) -> Use | None:
    """Return what a line says; None: no engine worked for it."""
    if said["event"] != "request" or said["cache"] not in MADE_BY_ENGINE:
        return None
    tokens_out = said["output_tokens"]
    if tokens_out is None and said["operation"] == "embeddings":
        tokens_out = 0
    tokens = said["input_tokens"], tokens_out
    if tokens[0] is None and said["failure"] is not None:
        return None  # refused before an engine was asked, or failed there
    for count in tokens:
        if count is not None and (type(count) is not int or not 0 <= count <= MOST_TOKENS):
            raise TypeError("a count of tokens that is none")
    named = [str(said[name]) for name in ("key_id", "request_id", "began_utc", "t_utc")]
    sha256 = hashlib.sha256("\n".join(named).encode()).hexdigest()
    return Use(sha256[:REFERENCE_CHARACTERS], named[0], str(said["key_name"]), *tokens)
