"""An owner sells on what he bought: to customers with keys of a gateway, or with vouchers.

::

    shoestring serve 2>> gateway.log
    shoestring swarm ledger resell --key ana --margin 15% ... < gateway.log

A line of the log is booked once, however often it is read: its reference is a hash of key, request
and times. Answers from the gateway's memory cost nothing, and are not asked for. What was booked at
a wrong price is corrected (``ledger correct``), and booked by the next reading.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError
from shoestring.swarm.ledger.accounts import WORLD, customer
from shoestring.swarm.ledger.amounts import amount
from shoestring.swarm.ledger.book import DoubleClaimError, RefusedEntryError
from shoestring.swarm.ledger.gateway_logs import REFERENCE_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.ledger.entries import Entry, Posting
    from shoestring.swarm.ledger.gateway_logs import Use
    from shoestring.swarm.ledger.reading import Reading

PER_WHOLE: Final = 1_000_000
"""Margins are in millionths, so that each per cent of four decimals is exact."""
PER_CENT: Final = re.compile(r"([0-9]{1,5})(?:\.([0-9]{1,4}))?%")


@dataclass(frozen=True)
class Tariff:
    """For what an owner sells on.

    Attributes:
        price_in: what he pays for a million tokens of prompts through all layers, micro-credits.
        price_out: likewise, of answers.
        margin: that is added, in millionths.
    """

    price_in: int
    price_out: int
    margin: int


@dataclass
class Sold:
    """What the reading of a log came to.

    Attributes:
        booked: requests; or, where nothing was to be booked, that would be.
        booked_before: requests.
        by_charge: of those booked, whose engine did not count all.
        tokens_unknown: requests that are not asked for.
        micro: micro-credits of those booked.
    """

    booked: int = 0
    booked_before: int = 0
    by_charge: int = 0
    tokens_unknown: int = 0
    micro: int = 0


def read_margin(text: str) -> int:
    """Return a margin in millionths.

    Raises:
        BadValueError: it is none.
    """
    found = PER_CENT.fullmatch(text)
    if found is None:
        raise BadValueError(f"{text[:40]!a} is no margin: give per cent, as in 15% or 12.5%")
    return (int(found[1]) * 10_000) + int((found[2] or "").ljust(4, "0"))


def resell(book: Book, owner: str, used: Iterable[Use], tariff: Tariff) -> Sold:
    """Ask customers for what they used; what was booked before is passed over.

    Args:
        book: the book.
        owner: who sells.
        used: of a log.
        tariff: for what.
    """
    sold = Sold()
    for use in used:
        if use.tokens_in is None or use.tokens_out is None:
            sold.tokens_unknown += 1
            continue
        try:
            entry = book_use(book, owner, use, tariff)
        except DoubleClaimError:
            sold.booked_before += 1
            continue
        _add(sold, use, entry.postings)
    return sold


def foresee(book: Reading | None, owner: str, used: Iterable[Use], tariff: Tariff) -> Sold:
    """Return what :func:`resell` would come to; nothing is booked."""
    sold, seen = Sold(), set[str]()
    for use in used:
        if use.tokens_in is None or use.tokens_out is None:
            sold.tokens_unknown += 1
        elif use.reference in seen or (book is not None and _is_booked(book, use)):
            sold.booked_before += 1
        else:
            seen.add(use.reference)
            _add(sold, use, _postings(owner, use, tariff))
    return sold


def book_use(book: Book, owner: str, use: Use, tariff: Tariff) -> Entry:
    """Ask a customer for what a request used, at cost and margin.

    Args:
        book: the book.
        owner: who sells.
        use: with both counts of tokens.
        tariff: for what.

    Raises:
        DoubleClaimError: it was booked before.
        RefusedEntryError: its tokens are not known.
    """
    postings = _postings(owner, use, tariff)
    memo = f"{use.tokens_in} in, {use.tokens_out} out{', by charge' if use.by_charge else ''}"
    with book.writing():
        named = book.free_reference("resale", use.reference)
        return book.add("resale", postings, reference=named, memo=memo)


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
        # What the channel has shows what was booked: the reference only needs to be a new one.
        _, last = book.end()
        sha256 = hashlib.sha256(f"voucher {channel} {last.hex()}".encode()).hexdigest()
        return book.add("fund", postings, reference=sha256[:REFERENCE_CHARACTERS])


def _postings(owner: str, use: Use, tariff: Tariff) -> tuple[Posting, ...]:
    if use.tokens_in is None or use.tokens_out is None:
        raise RefusedEntryError(f"resale {use.reference} is not booked: its tokens are not known")
    cost = amount(
        use.tokens_in, use.tokens_out, 1, price_in=tariff.price_in, price_out=tariff.price_out
    )
    margin = -(-cost * tariff.margin // PER_WHOLE)
    return (
        (customer(owner, use.key_id), -cost - margin),
        (f"resold:{owner}", cost),
        (f"margin:{owner}", margin),
    )


def _is_booked(book: Reading, use: Use) -> bool:
    named = book.free_reference("resale", use.reference)
    return book.postings_of("resale", named) is not None


def _add(sold: Sold, use: Use, postings: tuple[Posting, ...]) -> None:
    sold.booked += 1
    sold.by_charge += use.by_charge
    sold.micro -= postings[0][1]
