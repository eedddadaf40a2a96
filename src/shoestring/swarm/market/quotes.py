"""Quotes: what a node sells of which model, at what price, until when, under its signature.

A quote is ``{"quote": {...}, "signature": ...}``: ed25519 for the purpose ``quote`` over the
canonical form (RFC 8785) of the first. A node numbers its quotes, and a higher number replaces a
lower one, so an old and cheaper one cannot be held against it nor be put in the place of a newer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import public_key_of
from shoestring.swarm.identity import is_signed_by
from shoestring.swarm.market.board import MOST_LAYER_S, MOST_PRICE
from shoestring.swarm.market.requests import MOST_LAYERS
from shoestring.swarm.words import read_word

if TYPE_CHECKING:
    from shoestring.swarm.identity import Identity

PURPOSE: Final = "quote"
VERSION: Final = 1
LONGEST_S: Final = 86_400
CLOCKS_DIFFER_S: Final = 600
LARGEST_BYTES: Final = 4_096
LEAST_LAYER_S: Final = 1e-9
MOST_NUMBER: Final = 1 << 53
MOST_MODEL_CHARACTERS: Final = 200
NUMERICS: Final = re.compile(r"[0-9a-f]{64} [a-z0-9-]{1,40}")


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What a node sells, in its own words.

    Attributes:
        node: its peer id.
        number: rises from quote to quote of one node and model.
        model: the full name of the model, or ``sha256:`` and the digest of its file.
        first: the first layer that it can serve.
        end: the one after the last.
        most_layers: of one session.
        price_in: micro-credits a million tokens of prompts and layer.
        price_out: likewise of answers.
        layer_s: seconds a layer and token of an answer, as it claims; None: it does not say.
        prompt_layer_s: likewise of a prompt.
        made_s: when it was made, like all times here in whole seconds since 1970.
        until_s: from then on it holds no more; at most a day later.
        numerics: what tells whose bytes are equal: SHA-256 of the engine, and the kind of device;
            None: it does not say.
        owner: whose node it is, by the id of the owner's key; None: it does not say.

    Raises:
        BadValueError: a value cannot be used.
    """

    node: str
    number: int
    model: str
    first: int
    end: int
    most_layers: int
    price_in: int
    price_out: int
    layer_s: float | None = None
    prompt_layer_s: float | None = None
    made_s: int
    until_s: int
    numerics: str | None = None
    owner: str | None = None

    def __post_init__(self) -> None:
        public_key_of(self.node)
        if self.owner is not None:
            public_key_of(self.owner)
        _check_model(self.model)
        _whole("number", self.number, 1, MOST_NUMBER)
        _whole("first layer", self.first, 0, MOST_LAYERS - 1)
        _whole("end of the layers", self.end, self.first + 1, MOST_LAYERS)
        _whole("most layers at once", self.most_layers, 1, self.end - self.first)
        _whole("price_in", self.price_in, 0, MOST_PRICE)
        _whole("price_out", self.price_out, 0, MOST_PRICE)
        _whole("made_s", self.made_s, 0, MOST_NUMBER)
        _whole("until_s", self.until_s, self.made_s + 1, self.made_s + LONGEST_S)
        for name in ("layer_s", "prompt_layer_s"):
            value = getattr(self, name)
            if value is not None and not (
                type(value) is float and LEAST_LAYER_S <= value <= MOST_LAYER_S
            ):
                raise BadValueError(
                    f"{name}: {value!a:.40}: give seconds, {LEAST_LAYER_S:g} to {MOST_LAYER_S:g}"
                )
        if self.numerics is not None and not NUMERICS.fullmatch(self.numerics):
            raise BadValueError(
                f"numerics: {self.numerics[:80]!a}: give the SHA-256 of the engine and the device"
            )


FIELDS: Final = tuple(one.name for one in fields(Quote))


@dataclass(frozen=True)
class Signed:
    """A quote whose signature is good, and its text."""

    quote: Quote
    text: str


def sign_quote(identity: Identity, quote: Quote) -> str:
    """Return a quote as :func:`read_quote` reads it, in one line.

    Raises:
        BadValueError: it is another node's.
    """
    if quote.node != identity.id:
        raise BadValueError(f"a quote of {quote.node} can be signed by that node alone")
    content = {"v": VERSION, **{name: getattr(quote, name) for name in FIELDS}}
    signature = identity.sign(PURPOSE, _canonical(content))
    return json.dumps({"quote": content, "signature": signature.hex()}) + "\n"


def read_quote(text: bytes, *, now_s: float, node: str | None = None) -> Signed:
    """Read a quote as it came.

    Args:
        text: the whole of it.
        now_s: seconds since 1970.
        node: the peer id of who must have made it; None: whoever signed it.

    Raises:
        BadValueError: it is none, is another's, was changed, holds no more or not yet.
    """
    if len(text) > LARGEST_BYTES:
        raise BadValueError(f"a quote of {len(text)} bytes is not read: at most {LARGEST_BYTES}")
    try:
        whole = read_word(text)
        content, signature = dict(whole["quote"]), bytes.fromhex(whole["signature"])
        signed = _canonical(content)
        extra = whole.keys() ^ {"quote", "signature"}
    except (ValueError, KeyError, TypeError) as error:  # WordError and what rfc8785 raises, too
        raise BadValueError(
            f"this is no signed quote ({type(error).__name__}): have it sent again, whole"
        ) from error
    if content.pop("v", None) != VERSION or content.keys() ^ set(FIELDS) or extra:
        raise BadValueError(
            "this quote was made by another version: have one made by the same version"
        )
    quote = _quote(content)
    if node is not None and quote.node != node:
        raise BadValueError(f"this quote is of {quote.node}, not of {node}: ask the right node")
    if not is_signed_by(quote.node, PURPOSE, signed, signature):
        raise BadValueError(f"this quote was not signed by {quote.node}: have it sent again")
    if quote.until_s <= now_s:
        raise BadValueError(f"this quote of {quote.node} has run out: ask for a newer one")
    if quote.made_s > now_s + CLOCKS_DIFFER_S:
        raise BadValueError(
            f"this quote of {quote.node} was made in the future: set this machine's clock"
        )
    return Signed(quote, text.decode().strip() + "\n")


def stored_quote(text: str) -> Signed:
    """Return a quote of our own file, which only its owner writes: it was checked on its way in.

    Raises:
        BadValueError: a value cannot be used; or one of Python's own errors, of what is none.
    """
    content = dict(read_word(text.encode())["quote"])
    content.pop("v")
    return Signed(_quote(content), text)


def _quote(content: dict[str, Any]) -> Quote:
    try:
        times = {
            name: float(content[name])
            for name in ("layer_s", "prompt_layer_s")
            if type(content[name]) in (int, float)  # 1.0 is written as 1
        }
        return Quote(**{**content, **times})
    except (TypeError, AttributeError) as error:
        raise BadValueError(
            f"a quote with a wrong value ({type(error).__name__}): have it made anew"
        ) from error


def _check_model(model: Any) -> None:
    if (
        not isinstance(model, str)
        or not 0 < len(model) <= MOST_MODEL_CHARACTERS
        or not model.isprintable()
    ):
        raise BadValueError(
            f"model {model!a:.80}: give 1 to {MOST_MODEL_CHARACTERS} printable characters"
        )


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise BadValueError(f"{name}: {value!a:.40}: give a whole number, {least} to {most}")


def _canonical(content: dict[str, Any]) -> bytes:
    import rfc8785

    return rfc8785.dumps(content)
