"""Terms, agreed on by two words before a session begins: what is asked for, and what is told.

The ``session`` word may carry ``terms``: the most that the client pays, and after how many steps it
is willing to sign at the latest. The node answers with its own price, and signs at that. A client
whose receipts are of another version gets no session: none of its claims would be signed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError
from shoestring.swarm.proof.receipts import VERSION as RECEIPT_VERSION
from shoestring.swarm.proof.terms import (
    HEX,
    LEAST_WINDOW_STEPS,
    MOST_PRICE,
    WINDOW_STEPS,
    Terms,
)
from shoestring.swarm.wire import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

RPC_VERSION: Final = ".".join(map(str, VERSION))
FIELDS: Final = {"price_in", "price_out", "window_steps", "model", "version"}


@dataclass(frozen=True)
class Price:
    """What a node takes, or a client gives at most, in micro-credits a million tokens and layer.

    Attributes:
        price_in: of prompts.
        price_out: of answers.
    """

    price_in: int = 0
    price_out: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or not 0 <= value <= MOST_PRICE:
                raise BadValueError(
                    f"{name} {value!a:.40}: give whole micro-credits, 0 to {MOST_PRICE}"
                )

    @property
    def is_free(self) -> bool:
        """Whether nothing is taken."""
        return not (self.price_in or self.price_out)

    def __str__(self) -> str:
        return f"{self.price_in} in and {self.price_out} out"


FREE: Final = Price()


@dataclass(frozen=True)
class Asked:
    """What a client wants receipts for.

    Attributes:
        most: that it pays.
        window_steps: that may be computed without its signature.
        model: SHA-256 of the model's file in hexadecimal; None: it is not told.
    """

    most: Price = FREE
    window_steps: int = WINDOW_STEPS
    model: str | None = None

    def __post_init__(self) -> None:
        steps: Any = self.window_steps
        model: Any = self.model
        if type(steps) is not int or steps < LEAST_WINDOW_STEPS:
            raise BadValueError(f"window_steps {steps!a:.40}: give {LEAST_WINDOW_STEPS} or more")
        if model is not None and not (isinstance(model, str) and HEX.fullmatch(model)):
            raise BadValueError(f"model {model!a:.80}: give its file's SHA-256 in hexadecimal")

    def words(self) -> dict[str, Any]:
        """Return the ``terms`` of a ``session`` word."""
        return {
            **asdict(self.most),
            "window_steps": self.window_steps,
            "model": self.model,
            "version": RECEIPT_VERSION,
        }


def read_asked(said: Any, price: Price) -> Asked | None:
    """Return what a client asks for; None: no receipts.

    Args:
        said: the ``terms`` of its word.
        price: the node's.

    Raises:
        BadValueError: it is none, of receipts that this node does not sign, or the node's price is
            above it.
    """
    if said is None:
        return None
    if isinstance(said, dict) and said.get("version") != RECEIPT_VERSION:
        raise BadValueError(
            f"this node signs receipts of version {RECEIPT_VERSION}, "
            f"{said.get('version')!a:.20} was asked for: have the older of both updated"
        )
    if not isinstance(said, dict) or said.keys() != FIELDS:
        raise BadValueError(f"terms: give {', '.join(sorted(FIELDS))}, and nothing else")
    asked = Asked(Price(said["price_in"], said["price_out"]), said["window_steps"], said["model"])
    if asked.most.price_in < price.price_in or asked.most.price_out < price.price_out:
        raise BadValueError(
            f"this node takes {price} (micro-credits a million tokens and layer), "
            f"{asked.most} was offered: offer more, or ask another"
        )
    return asked


def agreed_terms(
    asked: Asked, price: Price, *, session: str, client: str, node: str, engine: str
) -> Terms:
    """Return the terms of a session that begins: at the node's price.

    Args:
        asked: by the client.
        price: the node's, seen not to be above what is offered.
        session: the node's name for it.
        client: peer id.
        node: peer id.
        engine: SHA-256 of the worker's program, in hexadecimal.
    """
    return Terms(
        session=session,
        client=client,
        node=node,
        model=asked.model,
        engine=engine,
        rpc=RPC_VERSION,
        price_in=price.price_in,
        price_out=price.price_out,
        window_steps=min(asked.window_steps, WINDOW_STEPS),
    )


def read_terms(
    told: Mapping[str, Any], asked: Asked | None, *, client: str, node: str
) -> Terms | None:
    """Return the terms that a node agrees to; None: it gives no receipts, or none were wanted.

    Raises:
        BadValueError: they are not those that were asked for, or of other parties.
    """
    said = told.get("terms")
    if asked is None or said is None:
        return None
    if not isinstance(said, dict):
        raise BadValueError("a node's terms are no object: ask another")
    try:
        terms = Terms(**said)
    except TypeError as error:
        raise BadValueError("a node's terms have other fields than terms have") from error
    expected = {
        "session": told.get("session"),
        "client": client,
        "node": node,
        "model": asked.model,
        "engine": told.get("engine_sha256"),
        "rpc": RPC_VERSION,
        "window_steps": min(asked.window_steps, WINDOW_STEPS),
    }
    if other := [name for name, value in expected.items() if getattr(terms, name) != value]:
        raise BadValueError(f"a node's terms have another {', '.join(other)} than was agreed on")
    if terms.price_in > asked.most.price_in or terms.price_out > asked.most.price_out:
        raise BadValueError(
            f"a node takes {Price(terms.price_in, terms.price_out)} after {asked.most} was offered"
        )
    return terms
