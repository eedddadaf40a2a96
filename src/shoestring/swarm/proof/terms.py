"""Terms: what client and node agree on, and what of it can be signed at all."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import public_key_of

MOST_PRICE: Final = 10**12
"""A credit a token and layer."""
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
        check_form("session", self.session, SESSION)
        for name, peer in (("client", self.client), ("node", self.node)):
            if not isinstance(peer, str):
                raise bad_value(name, peer)
            public_key_of(peer)
        if self.client == self.node:
            raise BadValueError(f"node {self.node}: nobody signs for both sides of a receipt")
        if self.model is not None:
            check_form("model", self.model, HEX)
        check_form("engine", self.engine, HEX)
        check_form("rpc", self.rpc, RPC)
        check_number("price_in", self.price_in, MOST_PRICE)
        check_number("price_out", self.price_out, MOST_PRICE)
        check_number("window_steps", self.window_steps, WINDOW_STEPS, LEAST_WINDOW_STEPS)

    @property
    def digest(self) -> str:
        """SHA-256 of the terms, in hexadecimal."""
        import rfc8785

        return hashlib.sha256(rfc8785.dumps(asdict(self))).hexdigest()


def check_form(name: str, value: Any, form: re.Pattern[str]) -> None:
    """See that a value is a text of a form.

    Raises:
        BadValueError: it is not.
    """
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise bad_value(name, value)


def check_number(name: str, value: Any, most: int, least: int = 0) -> None:
    """See that a value is a whole number within bounds.

    Raises:
        BadValueError: it is not.
    """
    if type(value) is not int or not least <= value <= most:
        raise bad_value(name, value)


def bad_value(name: str, value: Any) -> BadValueError:
    """Return what is said of a value that no receipt has."""
    return BadValueError(f"a receipt whose {name} is {value!a:.80}: no such can be signed")
