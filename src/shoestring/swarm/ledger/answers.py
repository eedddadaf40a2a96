"""The money of one answer: the most that it may cost is held, what it did cost is captured.

::

    hold      wallet:OWNER  ->  held:OWNER:REFERENCE      the bill before
    capture   held:...      ->  income:NODE, ...          the bill after, by the nodes' receipts
    release   held:...      ->  wallet:OWNER              the rest
    earn      client:PEER   ->  income:NODE               the node's own book: the same receipts
    refund    income:NODE   ->  wallet:OWNER              later, where an audit found a cheat

Each is one entry, and counts once. After a crash between two of them the money is held, and nothing
is lost: whoever goes on repeats them, and a :class:`DoubleClaimError` says what was done already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.swarm.ledger.accounts import REWARDS, WORLD, client, held, income, wallet
from shoestring.swarm.ledger.book import RefusedEntryError
from shoestring.swarm.ledger.rules import refund_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.ledger.entries import Entry


def fund(book: Book, owner: str, micro: int, *, reference: str, memo: str = "") -> Entry:
    """Give an owner credits for something outside the book.

    Raises:
        RefusedEntryError: the reference was used, or the amount cannot be.
    """
    return book.add(
        "fund", ((WORLD, -micro), (wallet(owner), micro)), reference=reference, memo=memo
    )


def fund_rewards(book: Book, micro: int, *, reference: str, memo: str = "") -> Entry:
    """Put credits aside for rewards.

    Raises:
        RefusedEntryError: the reference was used, or the amount cannot be.
    """
    return book.add("fund", ((WORLD, -micro), (REWARDS, micro)), reference=reference, memo=memo)


def hold(book: Book, owner: str, most: int, *, reference: str, memo: str = "") -> Entry:
    """Set the most that an answer may cost aside.

    Raises:
        RefusedEntryError: the wallet has not so much, or the reference was used.
    """
    postings = ((wallet(owner), -most), (held(owner, reference), most))
    return book.add("hold", postings, reference=reference, memo=memo)


def capture(
    book: Book,
    owner: str,
    shares: Mapping[str, int],
    *,
    reference: str,
    part: str | None = None,
    memo: str = "",
) -> Entry:
    """Pay the nodes of an answer out of what is held for it.

    Args:
        book: the book.
        owner: who pays.
        shares: micro-credits of each node, by its peer id; may be zero.
        reference: of the answer.
        part: of it, as one window of one session; None: all at once. Each is paid once, and may
            be refunded under ``REFERENCE.PART``.
        memo: for people.

    Raises:
        DoubleClaimError: it was paid before.
        RefusedEntryError: together they ask for more than is held.
    """
    account, total = held(owner, reference), sum(shares.values())
    postings = ((account, -total), *((income(node), share) for node, share in shares.items()))
    named = reference if part is None else f"{reference}.{part}"
    return book.add("capture", postings, reference=named, memo=memo)


def earn(book: Book, peer: str, node: str, micro: int, *, reference: str) -> Entry:
    """Book what a peer owes a node of this book for what it computed, as both signed.

    Args:
        book: the node's own.
        peer: who owes it.
        node: who computed it.
        micro: micro-credits, more than zero.
        reference: of the session's window.

    Raises:
        DoubleClaimError: it was booked before.
    """
    return book.add("earn", ((client(peer), -micro), (income(node), micro)), reference=reference)


def release(book: Book, owner: str, *, reference: str, memo: str = "") -> Entry | None:
    """Give back what is still held for an answer; None: nothing is."""
    with book.writing():
        rest = book.balance(held(owner, reference))
        if not rest:
            return None
        postings = ((held(owner, reference), -rest), (wallet(owner), rest))
        return book.add("release", postings, reference=reference, memo=memo)


def refund(
    book: Book, owner: str, shares: Mapping[str, int], *, reference: str, memo: str = ""
) -> tuple[Entry, ...]:
    """Take back from nodes what they got for an answer, or a part of it: an entry for each.

    All of them give back or none. Each node gives back once for each capture; who is found out
    later than another does so later.

    Args:
        book: the book.
        owner: who had paid.
        shares: micro-credits that each node gives back, by its peer id; more than zero.
        reference: of the capture.
        memo: for people.

    Raises:
        DoubleClaimError: one of them gave back for this capture before.
        RefusedEntryError: a node had got less, or has collected it.
    """
    with book.writing():
        captured = book.postings_of("capture", reference)
        if captured is None or not shares:
            what = "no node is named" if captured else "nothing was captured under it"
            raise RefusedEntryError(f"refund {reference[:96]!a} is not booked: {what}")
        places = {account: place for place, (account, _) in enumerate(captured)}
        return tuple(
            _refund(
                book, owner, node, share, named=(reference, places.get(income(node))), memo=memo
            )
            for node, share in shares.items()
        )


def _refund(
    book: Book, owner: str, node: str, share: int, *, named: tuple[str, int | None], memo: str
) -> Entry:
    reference, place = named
    if place is None:
        raise RefusedEntryError(
            f"refund {reference} is not booked: {income(node)[:80]} gives {share} back and had "
            "got 0"
        )
    postings = ((income(node), -share), (wallet(owner), share))
    return book.add("refund", postings, reference=refund_reference(reference, place), memo=memo)
