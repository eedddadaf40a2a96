"""The money of one answer: the most that it may cost is held, what it did cost is captured.

::

    hold      wallet:OWNER  ->  held:OWNER:REFERENCE      the bill before
    capture   held:...      ->  income:NODE, ...          the bill after, by the nodes' receipts
    release   held:...      ->  wallet:OWNER              the rest
    refund    income:NODE   ->  wallet:OWNER              later, where an audit found a cheat

Each is one entry, and counts once. After a crash between two of them the money is held, and nothing
is lost: whoever goes on repeats them, and a :class:`DoubleClaimError` says what was done already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.swarm.ledger.accounts import REWARDS, WORLD, held, income, wallet

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
    book: Book, owner: str, shares: Mapping[str, int], *, reference: str, memo: str = ""
) -> Entry:
    """Pay the nodes of an answer out of what is held for it.

    Args:
        book: the book.
        owner: who pays.
        shares: micro-credits of each node, by its peer id; may be zero.
        reference: of the answer.
        memo: for people.

    Raises:
        DoubleClaimError: it was paid before.
        RefusedEntryError: together they ask for more than is held.
    """
    account, total = held(owner, reference), sum(shares.values())
    postings = ((account, -total), *((income(node), part) for node, part in shares.items()))
    return book.add("capture", postings, reference=reference, memo=memo)


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
) -> Entry:
    """Take back from nodes what they got for an answer, or a part of it.

    Args:
        book: the book.
        owner: who had paid.
        shares: micro-credits that each node gives back, by its peer id; more than zero.
        reference: of the answer.
        memo: for people.

    Raises:
        DoubleClaimError: something of this answer was given back before.
        RefusedEntryError: a node had got less, or has collected it.
    """
    givers = tuple((income(node), -part) for node, part in shares.items())
    postings = (*givers, (wallet(owner), sum(shares.values())))
    return book.add("refund", postings, reference=reference, memo=memo)
