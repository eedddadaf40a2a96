"""What an entry may be: asked before it is booked, and of each one again by ``ledger verify``.

Each function returns what is wrong in a few words, or None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoestring.swarm.ledger.accounts import ACCOUNT, MAY_OWE, MOST, REFERENCE, sort_of
from shoestring.swarm.ledger.entries import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.swarm.ledger.entries import Posting

MEMO_CHARACTERS: Final = 200
MOST_POSTINGS: Final = 256
FEWEST_POSTINGS: Final = 2
LAST_S: Final = 253_402_300_799
"""The end of the year 9999, in seconds since 1970."""

Sorts = frozenset[str]
ROLES: Final[dict[str, tuple[Sorts, Sorts]]] = {
    "fund": (frozenset({"world", "voucher"}), frozenset({"wallet", "customer", "pool"})),
    "hold": (frozenset({"wallet"}), frozenset({"held"})),
    "capture": (frozenset({"held"}), frozenset({"income"})),
    "release": (frozenset({"held"}), frozenset({"wallet"})),
    "refund": (frozenset({"income"}), frozenset({"wallet"})),
    "reward": (frozenset({"pool"}), frozenset({"income"})),
    "resale": (frozenset({"customer"}), frozenset({"resold", "margin"})),
    "collect": (frozenset({"income"}), frozenset({"wallet"})),
}
"""Who gives and who gets, by the kind of an entry; one gives, but of a refund one gets."""
OF_NOTHING: Final = frozenset({"capture", "resale"})
"""Kinds in which an amount may be zero: an answer may cost nothing, a margin be none."""


def form_fault(at_s: int, kind: str, reference: str, memo: str) -> str | None:
    """Say what is wrong with an entry, its postings left out."""
    if type(at_s) is not int or not 0 <= at_s <= LAST_S:
        return f"its time {at_s!a:.40} is no whole second since 1970"
    if kind not in ROLES:
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

    Its accounts are names of accounts, its amounts whole numbers.
    """
    count = len(postings)
    if not FEWEST_POSTINGS <= count <= MOST_POSTINGS:
        return f"it has {count} postings: {FEWEST_POSTINGS} to {MOST_POSTINGS} are one entry"
    givers, takers = ROLES[kind]
    split = count - 1 if kind == "refund" else 1
    least = 0 if kind in OF_NOTHING else 1
    total = 0
    for account, amount in postings[:split]:
        if account.partition(":")[0] not in givers or not least <= -amount <= MOST:
            return f"{account} cannot get {amount} as the giver of a {kind}"
        total += amount
    for account, amount in postings[split:]:
        if account.partition(":")[0] not in takers or not least <= amount <= MOST:
            return f"{account} cannot get {amount} by a {kind}"
        total += amount
    if total:
        return f"its postings sum to {total}, not to 0"
    if count > FEWEST_POSTINGS and len(dict(postings)) < count:
        return "an account stands in it twice"
    return _owner_fault(kind, reference, postings)


def _owner_fault(kind: str, reference: str, postings: Sequence[Posting]) -> str | None:
    """Say where what is held, or sold on, is not of the same owner and answer throughout."""
    if kind in {"hold", "capture", "release"}:
        at, beside = (1, 0) if kind == "hold" else (0, 1)
        account, other = postings[at][0], postings[beside][0]
        _, owner, named = account.split(":")
        if named != reference:
            return f"{account} is not held for {reference}"
        if kind != "capture" and (len(postings) > FEWEST_POSTINGS or other != f"wallet:{owner}"):
            return f"{account} is not of {other} alone"
    if kind == "resale":
        owner = postings[0][0].split(":")[1]
        if any(account.split(":")[1] != owner for account, _ in postings):
            return f"{postings[0][0]} is another owner's customer"
    return None


def refund_fault(refunded: Sequence[Posting], captured: Sequence[Posting] | None) -> str | None:
    """Say what is wrong with a refund beside the capture of the same reference."""
    if captured is None:
        return "nothing was captured under its reference"
    got = dict(captured[1:])
    owner = captured[0][0].split(":")[1]
    if refunded[-1][0] != f"wallet:{owner}":
        return f"it goes to {refunded[-1][0]}, and {owner} had paid"
    for account, amount in refunded[:-1]:
        if -amount > got.get(account, 0):
            return f"{account} gives {-amount} back and had got {got.get(account, 0)}"
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
