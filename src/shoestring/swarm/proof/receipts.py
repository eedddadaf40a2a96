"""Receipts: what a session's window comes to, signed by the client and by the node.

A receipt is a JSON object in the form of RFC 8785; each party signs these bytes by ed25519 for a
purpose of its own, so neither signature can stand for the other. Figures are of the whole session
until the end of the window, roots are of the window. ``prev`` is the SHA-256 of the receipt before,
of the first one that of the terms: a receipt taken out, or put elsewhere, breaks the chain.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import public_key_of
from shoestring.swarm.identity import is_signed_by
from shoestring.swarm.ledger.amounts import amount as amount_of
from shoestring.swarm.proof.tally import Figures, Layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.proof.tally import Window

VERSION: Final = 1
BY_CLIENT: Final = "receipt of the client"
BY_NODE: Final = "receipt of the node"
RECEIPT_BYTES: Final = 4_096
LINE_BYTES: Final = RECEIPT_BYTES + 512
SIGNATURE_BYTES: Final = 64
MOST: Final = 1 << 53
"""Whole numbers from here on are none of RFC 8785's."""
MOST_PRICE: Final = 10**12
"""A credit a token and layer."""
MOST_LAYER: Final = 9_999
WINDOW_STEPS: Final = 32
"""That a node computes at most without a signature."""
LEAST_WINDOW_STEPS: Final = 2
HEX: Final = re.compile(r"[0-9a-f]{64}")
SESSION: Final = re.compile(r"[0-9a-f]{16}")
RPC: Final = re.compile(r"\d{1,3}\.\d{1,3}")


@dataclass(frozen=True)
class Terms:
    """What client and node agree on before anything is computed.

    Attributes:
        session: the node's name for it.
        client: peer id.
        node: peer id.
        model: SHA-256 of its file in hexadecimal; None: it is not told.
        engine: SHA-256 of the worker's program, likewise.
        rpc: version of the wire, as ``7.0``.
        price_in: micro-credits a million tokens and layer, of prompts.
        price_out: likewise, of answers.
        window_steps: that the node computes at most without a signature.
    """

    session: str
    client: str
    node: str
    model: str | None
    engine: str
    rpc: str
    price_in: int
    price_out: int
    window_steps: int

    def __post_init__(self) -> None:
        _check("session", self.session, SESSION)
        for name, peer in (("client", self.client), ("node", self.node)):
            if not isinstance(peer, str):
                raise _bad(name, peer)
            public_key_of(peer)
        if self.client == self.node:
            raise BadValueError(f"node {self.node}: nobody signs for both sides of a receipt")
        if self.model is not None:
            _check("model", self.model, HEX)
        _check("engine", self.engine, HEX)
        _check("rpc", self.rpc, RPC)
        _check_number("price_in", self.price_in, MOST_PRICE)
        _check_number("price_out", self.price_out, MOST_PRICE)
        _check_number("window_steps", self.window_steps, WINDOW_STEPS, LEAST_WINDOW_STEPS)

    @property
    def digest(self) -> str:
        """SHA-256 of the terms, in hexadecimal."""
        return hashlib.sha256(canonical(asdict(self))).hexdigest()


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

    def __post_init__(self) -> None:
        for name in ("window", "step", "at_s"):
            _check_number(name, getattr(self, name), MOST - 1)
        for name in ("in_root", "out_root", "wire_root", "prev"):
            _check(name, getattr(self, name), HEX)
        for field in fields(Figures):
            _check_number(field.name, getattr(self.figures, field.name), MOST - 1)
        first, last = self.layers.first, self.layers.last
        if type(self.layers.head) is not bool:
            raise _bad("head", self.layers.head)
        if first is not None and last is not None:
            _check_number("layers", first, MOST_LAYER)
            _check_number("layers", last, MOST_LAYER, first)
        elif first is not last:
            raise _bad("layers", [first, last])

    @cached_property
    def body(self) -> bytes:
        """What is signed."""
        return canonical({"version": VERSION, **asdict(self)})

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
                "receipt": {"version": VERSION, **asdict(self.receipt)},
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
    """

    identity: Identity
    keep: Callable[[Signed], None]


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
    _check_hand(receipt, receipt.terms.client, BY_CLIENT, by_client)
    return Signed(receipt, by_client, identity.sign(BY_NODE, receipt.body))


def check_signatures(signed: Signed) -> None:
    """See that both parties signed.

    Raises:
        BadValueError: one of them did not.
    """
    receipt = signed.receipt
    _check_hand(receipt, receipt.terms.client, BY_CLIENT, signed.by_client)
    check_node(signed)


def check_node(signed: Signed) -> None:
    """See that the node signed; for the client, who knows what it signed itself.

    Raises:
        BadValueError: it did not.
    """
    _check_hand(signed.receipt, signed.receipt.terms.node, BY_NODE, signed.by_node)


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


def _receipt(said: Mapping[str, Any]) -> Receipt:
    given = dict(said)
    version = given.pop("version", None)
    if type(version) is not int or version != VERSION:
        raise BadValueError(f"a receipt of version {version!a:.20}; this reads version {VERSION}")
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


def _check(name: str, value: Any, form: re.Pattern[str]) -> None:
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise _bad(name, value)


def _check_number(name: str, value: Any, most: int, least: int = 0) -> None:
    if type(value) is not int or not least <= value <= most:
        raise _bad(name, value)


def _bad(name: str, value: Any) -> BadValueError:
    return BadValueError(f"a receipt whose {name} is {value!a:.80}: no such can be signed")


def _check_hand(receipt: Receipt, peer: str, purpose: str, signature: bytes) -> None:
    is_whole = len(signature) == SIGNATURE_BYTES
    if not is_whole or not is_signed_by(peer, purpose, receipt.body, signature):
        raise BadValueError(
            f"window {receipt.window} of session {receipt.terms.session} has no good signature "
            f"of {peer}: it counts for nothing"
        )
