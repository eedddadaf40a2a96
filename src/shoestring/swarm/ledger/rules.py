"""What an entry may be: asked before it is booked, and of each one again by ``ledger verify``.

Each function returns what is wrong in a few words, or None.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from shoestring.swarm.ledger.accounts import ACCOUNT, MAY_OWE, MOST, REFERENCE, sort_of
from shoestring.swarm.ledger.entries import KINDS, mirrored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoestring.swarm.ledger.entries import Posting

MEMO_CHARACTERS: Final = 200
MOST_POSTINGS: Final = 256
FEWEST_POSTINGS: Final = 2
LAST_S: Final = 253_402_300_799
"""The end of the year 9999, in seconds since 1970."""

Beginnings = tuple[str, ...]
ROLES: Final[dict[str, tuple[Beginnings, Beginnings]]] = {
    "fund": (("world", "voucher:"), ("wallet:", "customer:", "pool:")),
    "hold": (("wallet:",), ("held:",)),
    "capture": (("held:",), ("income:",)),
    "release": (("held:",), ("wallet:",)),
    "refund": (("income:",), ("wallet:",)),
    "earn": (("client:",), ("income:",)),
    "reward": (("pool:",), ("income:",)),
    "resale": (("customer:",), ("resold:", "margin:")),
    "collect": (("income:",), ("wallet:",)),
}
"""How the names of those who give and who get begin, by the kind of an entry; one gives.

A ``correct`` is as it must be.
"""
OF_NOTHING: Final = frozenset({"capture", "resale"})
"""Kinds in which an amount may be zero: an answer may cost nothing, a margin be none."""
CORRECTED: Final = frozenset({"fund", "refund", "reward", "resale", "collect"})
"""Kinds that people get wrong; of an answer, the hold is released and the capture refunded."""
PLACE: Final = re.compile(r"[1-9][0-9]{0,2}")
NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")


def form_fault(at_s: int, kind: str, reference: str, memo: str) -> str | None:
    """Say what is wrong with an entry, its postings left out."""
    if type(at_s) is not int or not 0 <= at_s <= LAST_S:
        return f"its time {at_s!a:.40} is no whole second since 1970"
    if kind not in KINDS:
        return f"its kind {kind!a:.40} is none of {', '.join(KINDS)}"
    if not REFERENCE.fullmatch(reference):
        return (
            f"its reference {reference[:100]!a} is none: 1 to 96 letters, digits, dots, "
            "hyphens and underscores, a letter or digit first"
        )
    if len(memo) > MEMO_CHARACTERS or not memo.isprintable():
        return f"its memo is none: one line of at most {MEMO_CHARACTERS} characters"
    return None


def postings_fault(kind: str, reference: str, postings: Sequence[Posting]) -> str | None:
    """Say what is wrong with the postings of an entry of a known kind.

    Its accounts are names of accounts, its amounts whole numbers. Those of a ``correct`` are held
    to the entry that it takes back (:func:`correct_fault`).
    """
    if kind == "correct":
        return None
    count = len(postings)
    if not FEWEST_POSTINGS <= count <= MOST_POSTINGS:
        return f"it has {count} postings: {FEWEST_POSTINGS} to {MOST_POSTINGS} are one entry"
    givers, takers = ROLES[kind]
    least = 0 if kind in OF_NOTHING else 1
    giver, total = postings[0]
    if not giver.startswith(givers) or not least <= -total <= MOST:
        return f"{giver} cannot get {total} as the giver of a {kind}"
    for account, amount in postings[1:]:
        if not account.startswith(takers) or not least <= amount <= MOST:
            return f"{account} cannot get {amount} by a {kind}"
        total += amount
    if total:
        return f"its postings sum to {total}, not to 0"
    return _owner_fault(kind, reference, postings)


def _owner_fault(kind: str, reference: str, postings: Sequence[Posting]) -> str | None:
    """Say where an account stands twice, or is not of the same owner and answer throughout."""
    if len(postings) > FEWEST_POSTINGS and len(dict(postings)) < len(postings):
        return "an account stands in it twice"
    if kind in {"hold", "capture", "release"}:
        at, beside = (1, 0) if kind == "hold" else (0, 1)
        account, other = postings[at][0], postings[beside][0]
        _, owner, named = account.split(":")
        if named != reference and not (kind == "capture" and reference.startswith(f"{named}.")):
            return f"{account} is not held for {reference}"
        if kind != "capture" and (len(postings) > FEWEST_POSTINGS or other != f"wallet:{owner}"):
            return f"{account} is not of {other} alone"
    if kind == "resale":
        owner = postings[0][0].split(":")[1]
        if any(account.split(":")[1] != owner for account, _ in postings):
            return f"{postings[0][0]} is another owner's customer"
    return None


def names_fault(postings: Sequence[tuple[object, object]]) -> str | None:
    """Say which account or amount is none; a float or a bool would spoil all sums after it."""
    for account, amount in postings:
        if not is_account(account):
            return f"{account!a:.80} is no account"
        if type(amount) is not int:
            return f"{amount!a:.40} is no whole number of micro-credits"
    return None


def beside_fault(
    kind: str,
    reference: str,
    postings: Sequence[Posting],
    *,
    captured: Callable[[str], Sequence[Posting] | None],
    entry: Callable[[int], tuple[str, Sequence[Posting]] | None],
) -> str | None:
    """Say what is wrong with an entry beside the one before it that it names.

    Args:
        kind: of the entry.
        reference: likewise.
        postings: likewise.
        captured: returns the postings of a capture, by its reference.
        entry: returns the kind and postings of an entry, by its number.
    """
    if kind == "refund":
        answer, place = refund_of(reference)
        return refund_fault(place, postings, captured(answer))
    if kind == "correct":
        found = entry(int(reference)) if NUMBER.fullmatch(reference) else None
        return correct_fault(reference, postings, found)
    return None


def refund_reference(answer: str, place: int) -> str:
    """Return under what a refund is booked: of a capture, and of its node at a place, from 1 on."""
    return f"{answer}.{place}"


def refund_of(reference: str) -> tuple[str, int]:
    """Return the reference of the capture, and the place of the node there; 0: it names none."""
    answer, _, place = reference.rpartition(".")
    return answer, int(place) if PLACE.fullmatch(place) else 0


def refund_fault(
    place: int, refunded: Sequence[Posting], captured: Sequence[Posting] | None
) -> str | None:
    """Say what is wrong with a refund beside the capture that its reference names."""
    if captured is None or not 0 < place < len(captured):
        return "nothing was captured under its reference"
    owner = captured[0][0].split(":")[1]
    if len(refunded) > FEWEST_POSTINGS or refunded[1][0] != f"wallet:{owner}":
        return f"it goes to {refunded[1][0]}, and {owner} had paid"
    (account, amount), (node, got) = refunded[0], captured[place]
    if account != node:
        return f"{account} gives it back, and {node} had got it"
    if -amount > got:
        return f"{account} gives {-amount} back and had got {got}"
    return None


def correct_fault(
    number: str, correction: Sequence[Posting], corrected: tuple[str, Sequence[Posting]] | None
) -> str | None:
    """Say what is wrong with a ``correct`` beside the kind and postings of what it takes back."""
    if corrected is None:
        return f"there is no entry {number} before it"
    kind, postings = corrected
    if kind not in CORRECTED:
        return f"entry {number} is a {kind}: only {', '.join(sorted(CORRECTED))} are taken back"
    if tuple(correction) != mirrored(postings):
        return f"it does not take back what entry {number} says"
    return None


def balance_fault(account: str, amount: int) -> str | None:
    """Say what is wrong with a balance."""
    if amount < 0 and sort_of(account) not in MAY_OWE:
        return f"{account} would hold {amount}"
    if not -MOST <= amount <= MOST:
        return f"{account} would hold {amount}: at most {MOST} either way is counted"
    return None


def is_account(account: object) -> bool:
    """Tell whether this is the name of an account."""
    return isinstance(account, str) and ACCOUNT.fullmatch(account) is not None
