"""Nodes that serve us: how they are reached, and sessions on them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadValueError
from shoestring.swarm.link import LinkError, connect
from shoestring.swarm.proof.agreeing import read_terms
from shoestring.swarm.words import printable

if TYPE_CHECKING:
    from shoestring.swarm.addresses import PeerAddress
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.proof.agreeing import Asked
    from shoestring.swarm.proof.terms import Terms

QUEUE_S = 120.0
"""How long a node may let us wait for its worker."""
ASK_S = 5.0
ROUTE_S = 15.0
"""The node connects to another meanwhile."""


@dataclass(frozen=True)
class Remote:
    """A node that serves a stage.

    Attributes:
        name: what we call it.
        address: of its key.
        certificate: its own, in DER.
    """

    name: str
    address: PeerAddress
    certificate: bytes


@dataclass(frozen=True)
class Opened:
    """A session that has begun at a node.

    Attributes:
        link: on which its worker now listens.
        session: by which the node knows it.
        stores: the node keeps weights by their SHA-256.
        terms: for receipts; None: there are none.
    """

    link: Link
    session: str
    stores: bool
    terms: Terms | None = None


@dataclass(frozen=True)
class Seat:
    """A session at a node, as others may be told of it.

    Attributes:
        remote: the node.
        session: by which it knows the session.
    """

    remote: Remote
    session: str


class RefusedError(LinkError):
    """A node does not give what was asked for; ``word`` is its own reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__("refused", message)
        self.word = reason


async def open_session(
    identity: Identity,
    remote: Remote,
    *,
    model_bytes: int | None = None,
    asked: Asked | None = None,
    wait_s: float = QUEUE_S,
) -> Opened:
    """Return a link on which a node's worker now listens.

    Args:
        identity: ours.
        remote: the node.
        model_bytes: of the whole model, for a node that gives a share of it; None: not told.
        asked: terms for receipts; None: none are wanted, and a node with a price computes nothing.
        wait_s: how long it may let us wait for its worker.

    Raises:
        LinkError: the node cannot be reached, or ended the link.
        RefusedError: it gives no session, or other terms than it may.
    """
    word: dict[str, Any] = {"do": "session", "model_bytes": model_bytes}
    word["terms"] = None if asked is None else asked.words()
    link, told = await ask(identity, remote, word, wait_s)
    try:
        terms = read_terms(told, asked, client=identity.id, node=remote.address.id)
    except BadValueError as error:
        link.abort()
        raise RefusedError("terms", f"{remote.name}: {error}") from error
    return Opened(link, printable(told.get("session")), told.get("stores") is True, terms)


async def open_watch(identity: Identity, seat: Seat) -> Link:
    """Return a link on which a node says again and again how a session's worker is.

    Raises:
        LinkError: the node cannot be reached, ended the link, or knows no such session.
    """
    link, _ = await ask(identity, seat.remote, {"do": "watch", "session": seat.session}, ASK_S)
    return link


async def open_push(identity: Identity, seat: Seat) -> Link:
    """Return a link on which a session of ours takes what is pushed to it.

    Raises:
        LinkError: the node cannot be reached, or refuses.
    """
    link, _ = await ask(identity, seat.remote, {"do": "push", "session": seat.session}, ASK_S)
    return link


async def open_route(identity: Identity, source: Seat, target: Seat, stage: int) -> None:
    """Have one node push to a session at another, in place of its stage's last one.

    Args:
        identity: ours.
        source: who pushes.
        target: whom to.
        stage: number of the source's.

    Raises:
        LinkError: one of them cannot be reached, or refuses.
    """
    expect = {
        "do": "expect",
        "session": target.session,
        "certificate": base64.b64encode(source.remote.certificate).decode(),
        "stage": stage,
    }
    link, _ = await ask(identity, target.remote, expect, ASK_S)
    link.abort()
    route = {
        "do": "route",
        "session": source.session,
        "to": str(target.remote.address),
        "certificate": base64.b64encode(target.remote.certificate).decode(),
        "session_there": target.session,
    }
    link, _ = await ask(identity, source.remote, route, ROUTE_S)
    link.abort()


async def ask(
    identity: Identity, remote: Remote, word: dict[str, Any], wait_s: float
) -> tuple[Link, dict[str, Any]]:
    """Say a word to a node, and return the link with its answer.

    Raises:
        LinkError: the node cannot be reached, or ended the link.
        RefusedError: it said no.
    """
    link = await connect(identity, remote.address, certificate=remote.certificate)
    try:
        await link.say(word)
        told = await link.hear(wait_s)
    except BaseException:
        link.abort()
        raise
    if told.get("ok") is not True:
        link.abort()
        message = f"{remote.name}: {printable(told.get('message'))}"
        raise RefusedError(printable(told.get("reason")), message)
    return link, told
