"""Receipts: what a session's window comes to, signed by the client and by the node.

A receipt is a JSON object in the form of RFC 8785; each party signs these bytes by ed25519 for a
purpose of its own, so neither signature can stand for the other. Figures are of the whole session
until the end of the window, roots are of the window. ``prev`` is the SHA-256 of the receipt before,
of the first one that of the terms: a receipt taken out, or put elsewhere, breaks the chain.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.identity import is_signed_by
from shoestring.swarm.ledger.amounts import amount as amount_of
from shoestring.swarm.proof.figures import Figures
from shoestring.swarm.proof.terms import HEX, bad_value, check_form, check_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.proof.figures import Layers, Window
    from shoestring.swarm.proof.terms import Terms

VERSION: Final = 3
"""That is written. What 3 changed is in the wire-root alone: all of a graph are data of its leaf,
hashed by BLAKE3; only the two ends of a session ever word it, and they agree on a version before.
"""
READ: Final = (2, VERSION)
"""What both have signed is owed. From 2 on, one token of each step is output, and layers are
counted by what is computed, too; 1 had other figures."""
BY_CLIENT: Final = "receipt of the client"
BY_NODE: Final = "receipt of the node"
SIGNATURE_BYTES: Final = 64
MOST: Final = 1 << 53
"""Whole numbers from here on are none of RFC 8785's."""
MOST_LAYER: Final = 9_999
MOST_COMPUTED: Final = 1 << 24
"""Layers that one step may have by what is computed: 64 graphs of 65,536 tensors have fewer."""


@dataclass(frozen=True)
class Receipt:
    """What a session came to until the end of one of its windows.

    Attributes:
        terms: agreed before.
        window: its number, from 0.
        step: of llama-server's, after which it was closed: where the same step ends at each stage.
        layers: that were computed.
        figures: of the session so far.
        in_root: of the window, over the activations that were set; SHA-256 in hexadecimal.
        out_root: of the window, over the activations that were read.
        wire_root: of the window, over all its frames.
        prev: SHA-256 of the receipt before; of the first: of the terms.
        at_s: when it was worded, in seconds since 1970 on the client's clock.
        version: of what it says; one that is read keeps its own, which is signed with the rest.
    """

    terms: Terms
    window: int
    step: int
    layers: Layers
    figures: Figures
    in_root: str
    out_root: str
    wire_root: str
    prev: str
    at_s: int
    version: int = VERSION

    def __post_init__(self) -> None:
        for name in ("window", "step", "at_s"):
            check_number(name, getattr(self, name), MOST - 1)
        for name in ("in_root", "out_root", "wire_root", "prev"):
            check_form(name, getattr(self, name), HEX)
        for field in fields(Figures):
            check_number(field.name, getattr(self.figures, field.name), MOST - 1)
        first, last = self.layers.first, self.layers.last
        if type(self.layers.head) is not bool:
            raise bad_value("head", self.layers.head)
        if first is not None and last is not None:
            check_number("layers", first, MOST_LAYER)
            check_number("layers", last, MOST_LAYER, first)
        elif first is not last:
            raise bad_value("layers", [first, last])
        check_number("layers", self.layers.computed, MOST_COMPUTED)

    @cached_property
    def body(self) -> bytes:
        """What is signed."""
        return canonical(asdict(self))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is signed, in hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True)
class Signed:
    """A receipt with both signatures: nothing less counts.

    Attributes:
        receipt: itself.
        by_client: signature, 64 bytes.
        by_node: likewise.
    """

    receipt: Receipt
    by_client: bytes
    by_node: bytes

    @property
    def line(self) -> bytes:
        """As it is kept: one line of JSON in the form of RFC 8785."""
        return canonical(
            {
                "receipt": asdict(self.receipt),
                "by_client": self.by_client.hex(),
                "by_node": self.by_node.hex(),
            }
        )


@dataclass(frozen=True)
class Hand:
    """Who signs, and what becomes of a receipt that both have signed.

    Attributes:
        identity: whose signature.
        keep: given each one that counts.
        allows: asked of each receipt before the client signs it; None: all are signed. Once it
            says no, nothing more of that session is signed, and whoever says no tells why.
        why_not: asked by a node before a session for a price: why its receipts could not be kept;
            None: they always can.
    """

    identity: Identity
    keep: Callable[[Signed], None]
    allows: Callable[[Receipt], bool] | None = None
    why_not: Callable[[], str | None] | None = None


def next_receipt(
    terms: Terms, before: Receipt | None, window: Window, *, step: int, at_s: int
) -> Receipt:
    """Word the receipt that follows another, or the first of a session.

    Args:
        terms: of the session.
        before: the last one; None: there is none yet.
        window: what came since.
        step: after which it is closed.
        at_s: now, in seconds since 1970.
    """
    return Receipt(
        terms=terms,
        window=0 if before is None else before.window + 1,
        step=step,
        layers=window.layers,
        figures=window.figures if before is None else before.figures.plus(window.figures),
        in_root=window.in_root.hex(),
        out_root=window.out_root.hex(),
        wire_root=window.wire_root.hex(),
        prev=terms.digest if before is None else before.digest,
        at_s=at_s if before is None else max(at_s, before.at_s),
    )


def sign(identity: Identity, receipt: Receipt) -> bytes:
    """Return the client's signature.

    Raises:
        BadValueError: it is another's to sign.
    """
    if identity.id != receipt.terms.client:
        raise BadValueError(f"{identity.id} is not the client of this receipt")
    return identity.sign(BY_CLIENT, receipt.body)


def countersign(identity: Identity, receipt: Receipt, by_client: bytes) -> Signed:
    """Return a receipt of both, once the client's signature was seen to be good.

    Raises:
        BadValueError: it is not, or the node is another.
    """
    if identity.id != receipt.terms.node:
        raise BadValueError(f"{identity.id} is not the node of this receipt")
    check_client(receipt, by_client)
    return Signed(receipt, by_client, identity.sign(BY_NODE, receipt.body))


def check_signatures(signed: Signed) -> None:
    """See that both parties signed.

    Raises:
        BadValueError: one of them did not.
    """
    check_client(signed.receipt, signed.by_client)
    check_node(signed)


def check_client(receipt: Receipt, by_client: bytes) -> None:
    """See that the client signed.

    Raises:
        BadValueError: it did not.
    """
    _check_hand(receipt, receipt.terms.client, BY_CLIENT, by_client)


def check_node(signed: Signed) -> None:
    """See that the node signed; for the client, who knows what it signed itself.

    Raises:
        BadValueError: it did not.
    """
    _check_hand(signed.receipt, signed.receipt.terms.node, BY_NODE, signed.by_node)


def amount(receipt: Receipt) -> int:
    """Return what the session owes so far, in micro-credits."""
    return amount_of(
        receipt.figures.tokens_in,
        receipt.figures.tokens_out,
        receipt.layers.count,
        price_in=receipt.terms.price_in,
        price_out=receipt.terms.price_out,
    )


def canonical(said: Mapping[str, Any]) -> bytes:
    """Return an object in the form of RFC 8785."""
    import rfc8785

    return rfc8785.dumps(dict(said))


def _check_hand(receipt: Receipt, peer: str, purpose: str, signature: bytes) -> None:
    is_whole = len(signature) == SIGNATURE_BYTES
    if not is_whole or not is_signed_by(peer, purpose, receipt.body, signature):
        raise BadValueError(
            f"window {receipt.window} of session {receipt.terms.session} has no good signature "
            f"of {peer}: it counts for nothing"
        )
