"""Receipts from their bytes: these and no others, of a known size, and nothing is believed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.proof.figures import Figures, Layers
from shoestring.swarm.proof.receipts import READ, Receipt, Signed, check_signatures
from shoestring.swarm.proof.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping

RECEIPT_BYTES: Final = 4_096
LINE_BYTES: Final = RECEIPT_BYTES + 512


def read_receipt(body: bytes) -> Receipt:
    """Return a receipt of the bytes that were signed: these and no others.

    Raises:
        BadValueError: they are not exactly what a receipt is worded as.
    """
    said = _load(body, RECEIPT_BYTES)
    receipt = _receipt(said)
    if receipt.body != body:
        raise BadValueError("a receipt that is not in the form of RFC 8785: nobody signed it so")
    return receipt


def read_signed(line: bytes) -> Signed:
    """Return a receipt of a line of a file, both of its signatures checked.

    Raises:
        BadValueError: it is none, or somebody did not sign it.
    """
    said = _load(line, LINE_BYTES)
    match said:
        case {"receipt": dict(receipt), "by_client": str(client), "by_node": str(node), **more}:
            if more:
                raise BadValueError(f"a receipt with {min(more)!a:.40} beside it: remove it")
        case _:
            raise BadValueError("a receipt without itself, by_client or by_node")
    try:
        signed = Signed(_receipt(receipt), bytes.fromhex(client), bytes.fromhex(node))
    except ValueError as error:
        raise BadValueError("a receipt with a signature that is not hexadecimal") from error
    if signed.line != line:
        raise BadValueError("a receipt that is not in the form of RFC 8785: it was changed")
    check_signatures(signed)
    return signed


def _receipt(said: Mapping[str, Any]) -> Receipt:
    given = dict(said)
    version = given.get("version")
    if type(version) is not int or version not in READ:
        raise BadValueError(
            f"a receipt of version {version!a:.20}; this reads {READ[0]} to {READ[-1]}"
        )
    try:
        given["terms"] = Terms(**given["terms"])
        given["layers"] = Layers(**given["layers"])
        given["figures"] = Figures(**given["figures"])
        return Receipt(**given)
    except (KeyError, TypeError) as error:
        raise BadValueError(
            "a receipt with fields missing, too many, or of another kind: "
            "have it sent again by who keeps the other copy"
        ) from error


def _load(text: bytes, most_bytes: int) -> dict[str, Any]:
    if len(text) > most_bytes:
        raise BadValueError(f"a receipt of {len(text)} bytes; the longest has {most_bytes}")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadValueError("a receipt that is no JSON: it was cut or changed") from error
    if not isinstance(said, dict):
        raise BadValueError("a receipt that is no JSON object")
    return said
