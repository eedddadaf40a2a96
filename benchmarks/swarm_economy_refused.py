"""What becomes of receipts that somebody changed, forged, moved or claimed twice.

Every try starts from receipts that both ends signed, and is looked at by the code that looks at
them in the product. Where both parties are said to lie, both of their keys sign.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadValueError
from shoestring.swarm.identity import load_identity
from shoestring.swarm.proof.books import ReceiptBook, check_chain, check_stages
from shoestring.swarm.proof.reading import read_signed
from shoestring.swarm.proof.receipts import (
    BY_CLIENT,
    BY_NODE,
    Signed,
    check_signatures,
    countersign,
    sign,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from swarm_economy_receipts import Sold

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.proof.receipts import Receipt

BITS = 8


def flip_all(signed: Signed) -> list[dict[str, Any]]:
    """Flip each bit of a kept receipt, one at a time; return for each field how it was refused.

    What is between the fields is a row of its own.
    """
    line, rows = signed.line, []
    left = set(range(len(line)))
    for name, places in fields_of(line).items():
        left -= set(places)
        rows.append(flip(line, name, places))
    rows.append(flip(line, "names, brackets and commas", sorted(left)))
    return rows


def fields_of(line: bytes) -> dict[str, range]:
    """Return where the value of each field is; quotes belong to it."""
    found: dict[str, range] = {}
    text, decoder = line.decode(), json.JSONDecoder()
    for match in re.finditer(r'"(\w+)":(?!\{)', text):
        _, end = decoder.raw_decode(text, match.end())
        found[match[1]] = range(match.end(), end)
    return found


def flip(line: bytes, name: str, places: Any) -> dict[str, Any]:
    """Flip each bit of some bytes, and read the line each time."""
    refused, reasons = 0, Counter[str]()
    for place in places:
        for bit in range(BITS):
            wrong = bytearray(line)
            wrong[place] ^= 1 << bit
            reason = why_not(partial(read_signed, bytes(wrong)))
            refused += reason is not None
            reasons[kind_of(reason)] += 1
    return {"field": name, "flipped": len(places) * BITS, "refused": refused, "by": dict(reasons)}


def kind_of(reason: str | None) -> str:
    """Return which check a reason is of."""
    kinds = {
        "no good signature": "signature", "hexadecimal": "form", "RFC 8785": "form",
        "no JSON": "form", "fields missing": "form", "beside it": "form", "without itself": "form",
        "of version": "form", "no such can be signed": "range", "signs for both sides": "range",
        "is no peer id": "range",
    }  # fmt: skip
    if reason is None:
        return "nothing"
    return next((kind for words, kind in kinds.items() if words in reason), "other: " + reason[:60])


def why_not(check: Callable[[], object]) -> str | None:
    """Return why a check refuses; None: it does not."""
    try:
        check()
    except BadValueError as error:
        return str(error)
    return None


def forge(folder: Path, sold: Sold) -> list[dict[str, Any]]:
    """Try what a party, a stranger, or both together could do; return what was said to it."""
    first, second = sold.mine
    user, node = sold.user, sold.nodes[0]
    stranger = load_identity(folder / "stranger.key")
    last = first[-1]
    dearer = more_tokens(last.receipt)
    cheaper = replace(last.receipt, figures=first[-2].receipt.figures)
    terms = replace(last.receipt.terms, price_out=last.receipt.terms.price_out * 2)
    given = replace(second[-1].receipt, in_root=second[-2].receipt.in_root)
    tries: list[tuple[str, str, Callable[[], object]]] = [
        ("node", "bills more tokens than the user signed",
         lambda: check_signatures(Signed(dearer, last.by_client, hand(node, BY_NODE, dearer)))),
        ("node", "signs for the user, too",
         lambda: check_signatures(Signed(dearer, hand(node, BY_CLIENT, dearer),
                                         hand(node, BY_NODE, dearer)))),
        ("node", "shows the user's signature as its own",
         lambda: check_signatures(Signed(last.receipt, last.by_client, last.by_client))),
        ("user", "pays for less than the node signed",
         lambda: check_signatures(Signed(cheaper, hand(user, BY_CLIENT, cheaper), last.by_node))),
        ("a stranger", "signs for the node",
         lambda: check_signatures(replace(last, by_node=hand(stranger, BY_NODE, last.receipt)))),
        ("anybody", "leaves out a window", lambda: check_chain([*first[:1], *first[2:]])),
        ("anybody", "leaves out the first windows", lambda: check_chain(first[1:])),
        ("anybody", "changes the order",
         lambda: check_chain([first[0], first[2], first[1], *first[3:]])),
        ("anybody", "repeats a window", lambda: check_chain([*first[:2], *first[1:]])),
        ("anybody", "puts a window of another session in",
         lambda: check_chain([*first[:-1], second[-1]])),
        ("node", "claims a session twice", lambda: claim_twice(first)),
        ("both", "sign a higher price in mid-session",
         lambda: check_chain([*first[:-1], by_both(user, node, replace(last.receipt,
                                                                       terms=terms))])),
        ("both", "sign figures that fall",
         lambda: check_chain([*first[:-1], by_both(user, node, replace(
             last.receipt, figures=first[-3].receipt.figures))])),
        ("both", "sign that the second node was given other activations",
         lambda: check_stages([first, [*second[:-1], by_both(user, sold.nodes[1], given)]])),
        ("both", "sign more tokens in the last window",
         lambda: check_chain([*first[:-1], by_both(user, node, dearer)])),
    ]  # fmt: skip
    return [{"who": who, "what": what, "reason": why_not(check)} for who, what, check in tries]


def more_tokens(receipt: Receipt) -> Receipt:
    """Return a receipt over one token more."""
    figures = replace(receipt.figures, tokens_out=receipt.figures.tokens_out + 1)
    return replace(receipt, figures=figures)


def hand(identity: Identity, purpose: str, receipt: Receipt) -> bytes:
    """Sign for whatever purpose, whoever it is."""
    return identity.sign(purpose, receipt.body)


def by_both(user: Identity, node: Identity, receipt: Receipt) -> Signed:
    """Sign as both would."""
    return countersign(node, receipt, sign(user, receipt))


def claim_twice(chain: list[Signed]) -> None:
    """Claim the same session two times."""
    book = ReceiptBook()
    book.claim(chain)
    book.claim(chain)
