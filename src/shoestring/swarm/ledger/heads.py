"""The head: the number and hash of the last entry, signed by the keeper.

The hashes of a book hold each entry to those before it, and nothing to those after it. So a book
whose last entries were taken away is whole by itself; beside a head that was signed later it is not
(:func:`~shoestring.swarm.ledger.verifying.verify`). One lies beside the book, written each time
that it is closed; one that somebody else keeps cannot be taken away with the book.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import public_key_of
from shoestring.swarm.identity import is_signed_by
from shoestring.swarm.private_files import read_private
from shoestring.swarm.words import WordError, read_word

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.swarm.identity import Identity

PURPOSE: Final = "ledger"
LARGEST_BYTES: Final = 2_048


@dataclass(frozen=True)
class Head:
    """The state of a book.

    Attributes:
        keeper: peer id of who keeps it.
        number: of the last entry; 0: there is none.
        hash: of the last entry, in hexadecimal.
        at_s: when it was signed, in whole seconds since 1970.
    """

    keeper: str
    number: int
    hash: str
    at_s: int


def sign_head(identity: Identity, head: Head) -> bytes:
    """Return a head as :func:`read_head` reads it: one line of JSON."""
    signature = identity.sign(PURPOSE, _canonical(asdict(head))).hex()
    return json.dumps({"head": asdict(head), "signature": signature}).encode() + b"\n"


def read_head(text: bytes, keeper: str) -> Head:
    """Return a head, once it is seen that its keeper signed it.

    Raises:
        BadValueError: it is none of this keeper.
    """
    public_key_of(keeper)
    try:
        if len(text) > LARGEST_BYTES:
            raise _no_head(keeper)
        said = read_word(text)
        fields = said["head"]
        signed = is_signed_by(keeper, PURPOSE, _canonical(fields), bytes.fromhex(said["signature"]))
        head = Head(**fields)
    except (WordError, KeyError, TypeError, ValueError) as error:
        raise _no_head(keeper) from error
    if not signed or head.keeper != keeper or type(head.number) is not int:
        raise _no_head(keeper)
    return head


def head_path(book: Path) -> Path:
    """Return where the head of a book lies."""
    return book.with_suffix(".head")


def kept_head(book: Path, keeper: str) -> Head | None:
    """Return the head that lies beside a book; None: there is none.

    Raises:
        BadValueError: it is damaged, another keeper's, or open to others.
    """
    path = head_path(book)
    text = read_private(path)
    if text is None:
        return None
    try:
        return read_head(text, keeper)
    except BadValueError as error:
        raise BadValueError(
            f"{path} is damaged, or not signed by {keeper}: restore a copy; or, if `shoestring "
            "swarm ledger verify --head` with a head that somebody else keeps finds the book "
            "whole, remove it, and the next entry signs one anew"
        ) from error


def _canonical(fields: dict[str, Any]) -> bytes:
    import rfc8785

    return rfc8785.dumps(fields)


def _no_head(keeper: str) -> BadValueError:
    return BadValueError(
        f"this is no head that {keeper} signed: give what `shoestring swarm ledger head` printed"
    )
