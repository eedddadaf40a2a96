"""Activations in and out of a node's sessions: whom a session's owner lets in, and sends out to.

The owner of a session says ``expect`` for a key that may push to it, and ``route`` for the session
at another node that it is to push to. Nobody else may say either, and who was let in for pushing
may do nothing else.
"""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import ShoestringError
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.certificates import read_certificate
from shoestring.swarm.link import connect
from shoestring.swarm.pushing import Incoming, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.session import Session
    from shoestring.swarm.worker import Worker

PURPOSE: Final = "push"
EXPECTED_S: Final = 86_400.0
HEAR_S: Final = 10.0
MOST_EXPECTED: Final = 4
"""Keys that one session lets in: the node before it, and those that took its place."""


@dataclass(eq=False)
class Sitting:
    """A session at this node, as its owner may speak of it.

    Attributes:
        owner: peer id.
        worker: of the session.
        session: itself.
        expected: peer ids that may push to it.
    """

    owner: str
    worker: Worker
    session: Session
    expected: set[str] = field(default_factory=set)


class Crossings:
    """Answers what is said about pushing.

    Args:
        identity: this node's.
        let_in: lets a key in for one purpose, until a time; see
            :meth:`~shoestring.swarm.listening.Listener.admit_for`.
        now: seconds since 1970, as ``let_in`` counts them.
    """

    def __init__(
        self,
        identity: Identity,
        let_in: Callable[[bytes, str, float], str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._let_in = let_in
        self._now = now

    async def expect(self, link: Link, sitting: Sitting, word: dict[str, Any]) -> None:
        """Let a key push to a session."""
        certificate = _certificate(word)
        if certificate is None or len(sitting.expected) >= MOST_EXPECTED:
            await link.refuse("word", f"expect one certificate, {MOST_EXPECTED} times at most")
            return
        sitting.expected.add(self._let_in(certificate, PURPOSE, self._now() + EXPECTED_S))
        await link.say({"ok": True})

    async def route(self, link: Link, sitting: Sitting, word: dict[str, Any]) -> None:
        """Push what a session gives out to another node's session."""
        certificate, address = _certificate(word), _address(word.get("to"))
        if certificate is None or address is None:
            await link.refuse("word", "route to ID@HOST:PORT of a certificate")
            return
        try:
            way = await connect(self._identity, address, certificate=certificate)
            await way.say({"do": "push", "session": str(word.get("session_there"))})
            answer = await way.hear(HEAR_S)
        except ShoestringError:
            # Not why: a peer may not use this node to look around in its network.
            await link.refuse("unreachable", "this node does not reach the other")
            return
        if answer.get("ok") is not True:
            way.abort()
            await link.refuse("refused", "the other node does not let this one in")
            return
        outgoing = Outgoing()
        way.hand_over(outgoing)
        sitting.session.push_to(outgoing)
        await link.say({"ok": True})


async def take_push(link: Link, sitting: Sitting) -> None:
    """Take what a link pushes to a session.

    Raises:
        LinkError: it has ended.
    """
    await link.say({"ok": True})
    link.hand_over(Incoming(sitting.session.inbox, sitting.session.refuse))


def _certificate(word: dict[str, Any]) -> bytes | None:
    text = word.get("certificate")
    try:
        certificate = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        read_certificate(certificate)
    except (binascii.Error, ShoestringError):
        return None
    return certificate


def _address(to: Any) -> PeerAddress | None:
    try:
        return PeerAddress.parse(to) if isinstance(to, str) else None
    except ShoestringError:
        return None
