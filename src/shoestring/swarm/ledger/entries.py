"""One balanced line of the book, and the bytes that its hash is of.

The hash is SHA-256 of the entry in the form of RFC 8785: seven fields, the hash of the entry before
in hexadecimal among them. That form is written here by a format string, in a fraction of a
library's time; a test holds it equal to the library's. It can be, for all that may need an escape
are the memo's quotes and backslashes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal[
    "fund", "hold", "capture", "release", "refund", "earn", "reward", "resale", "collect",
    "correct",
]  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Posting = tuple[str, int]
"""An account and what it gets, in micro-credits; less than zero: what it gives."""
GENESIS: Final = b"shoestring-ledger/1 "


@dataclass(frozen=True)
class Entry:
    """One line of the book.

    Attributes:
        number: from 1, without a gap.
        at_s: when it was booked, in whole seconds since 1970 on the keeper's clock.
        kind: what happened.
        postings: those who give before those who get; they sum to zero.
        reference: of what happened; once for each kind.
        memo: for people.
        previous: SHA-256 of the entry before.
    """

    number: int
    at_s: int
    kind: Kind
    postings: tuple[Posting, ...]
    reference: str
    memo: str
    previous: bytes

    def canonical(self) -> bytes:
        """Return the form of RFC 8785."""
        return canonical(
            self.number, self.at_s, self.kind, self.postings,
            self.reference, self.memo, self.previous,
        )  # fmt: skip

    def sha256(self) -> bytes:
        """Return the hash that the next entry names."""
        return hashlib.sha256(self.canonical()).digest()


def genesis(keeper: str) -> bytes:
    """Return what the first entry names as the one before: no two keepers' books share entries."""
    return hashlib.sha256(GENESIS + keeper.encode()).digest()


def canonical(
    number: int,
    at_s: int,
    kind: str,
    postings: Sequence[Posting],
    reference: str,
    memo: str,
    previous: bytes,
) -> bytes:
    """Return an entry in the form of RFC 8785."""
    moved = ",".join([f'["{account}",{amount}]' for account, amount in postings])
    if '"' in memo or "\\" in memo:
        memo = memo.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f'{{"at_s":{at_s},"kind":"{kind}","memo":"{memo}","number":{number},'
        f'"postings":[{moved}],"previous":"{previous.hex()}","reference":"{reference}"}}'
    ).encode()


def mirrored(postings: Sequence[Posting]) -> tuple[Posting, ...]:
    """Return the postings that take others back: those who got give, and before those who gave."""
    return tuple((account, -amount) for account, amount in reversed(postings))


def kept_postings(postings: Sequence[Posting]) -> str:
    """Return postings as the book keeps them: names and amounts, a space between them.

    It is read four times as fast as JSON is; the hash is of what was read.
    """
    return " ".join([f"{account} {amount}" for account, amount in postings])


def read_postings(kept: str) -> tuple[Posting, ...]:
    """Return the postings that the book keeps.

    Raises:
        ValueError: they are none, or of another form: int reads more than one.
    """
    words = kept.split(" ")
    written = words[1::2]
    amounts = list(map(int, written))
    if list(map(str, amounts)) != written:
        raise ValueError(f"{kept[:200]!a} has amounts that are not written as the book writes them")
    return tuple(zip(words[::2], amounts, strict=True))
