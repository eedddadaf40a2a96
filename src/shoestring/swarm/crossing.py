"""Activations in and out of a node's sessions: whom a session's owner lets in, and sends out to.

The owner of a session says ``expect`` for a key that may push to it, and ``route`` for the session
at another node that it is to push to. Nobody else may say either, and who was let in for pushing
may do nothing else. A key is expected as the node of a stage, and takes the place of the one that
was before: who lost its place may not push in another's name.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.addresses import PeerAddress, is_nearer
from shoestring.swarm.certificates import read_certificate
from shoestring.swarm.pushing import Incoming, Outgoing
from shoestring.swarm.remote import Remote, Seat, open_push

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.session import Session
    from shoestring.swarm.worker import Worker

EXPECTED_S: Final = 86_400.0
ROUTE_S: Final = 5.0
"""To reach another node and be let in there; what fails is told then, whatever it was."""
NAME_CHARACTERS: Final = 64
"""Of a session at another node."""
MOST_EXPECTED: Final = 4
"""Stages whose nodes may push to one session."""


@dataclass(eq=False)
class Sitting:
    """A session at this node, as its owner may speak of it.

    Attributes:
        owner: peer id.
        worker: of the session.
        session: itself.
        name: by which its owner knows it.
        expected: peer ids that may push to it, by the number of the stage that each has.
        is_routing: a way to another node is being opened for it.
    """

    owner: str
    worker: Worker
    session: Session
    name: str
    expected: dict[int, str] = field(default_factory=dict)
    is_routing: bool = False

    @property
    def purpose(self) -> str:
        """What keys are let in for that it expects."""
        return f"push {self.name}"

    def expects(self, peer_id: str) -> bool:
        """Tell whether a peer may push to it."""
        return peer_id == self.owner or peer_id in self.expected.values()


class Crossings:
    """Answers what is said about pushing.

    Args:
        identity: this node's.
        let_in: lets a key in for one purpose, until a time; see
            :meth:`~shoestring.swarm.listening.Listener.admit_for`.
        let_out: takes that back; see
            :meth:`~shoestring.swarm.listening.Listener.end_admission`.
        now: seconds since 1970, as ``let_in`` counts them.
    """

    def __init__(
        self,
        identity: Identity,
        let_in: Callable[[bytes, str, float], str],
        let_out: Callable[[str, str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._let_in = let_in
        self._let_out = let_out
        self._now = now

    async def expect(self, link: Link, sitting: Sitting, word: dict[str, Any]) -> None:
        """Let a key push to a session in place of its stage's last; again, if said again."""
        certificate, stage = read_shown(word), word.get("stage")
        if certificate is None or type(stage) is not int:
            await link.refuse("word", "expect whom? give a certificate, and its stage's number")
            return
        if stage not in sitting.expected and len(sitting.expected) >= MOST_EXPECTED:
            await link.refuse("busy", f"{MOST_EXPECTED} stages may push to a session, no more")
            return
        if sitting.expected.get(stage) != read_certificate(certificate):
            self._dismiss(sitting, stage)
        try:
            peer_id = self._let_in(certificate, sitting.purpose, self._now() + EXPECTED_S)
        except BadValueError:
            await link.refuse("busy", "too many are let in here to push: try again later")
            return
        sitting.expected[stage] = peer_id
        await link.say({"ok": True})

    def end(self, sitting: Sitting) -> None:
        """Let nobody in any more for a session that is over."""
        for peer_id in sitting.expected.values():
            self._let_out(peer_id, sitting.purpose)

    async def route(self, link: Link, sitting: Sitting, word: dict[str, Any]) -> None:
        """Push what a session gives out to another node's session."""
        certificate, address = read_shown(word), read_address(word.get("to"))
        there = word.get("session_there")
        if certificate is None or address is None or not _is_name(there):
            # Names are not looked up: who asks could hold up all that this node looks up.
            await link.refuse("word", "route to ID@ADDRESS:PORT of a certificate, and a session")
            return
        if is_nearer(address.host, link.host):
            await link.refuse("word", "route to an address that you can reach as well as we")
            return
        if sitting.is_routing:
            await link.refuse("busy", "a way is being opened for this session: wait for it")
            return
        sitting.is_routing = True
        until_s = asyncio.get_running_loop().time() + ROUTE_S
        try:
            other = Remote("the other node", address, certificate)
            async with asyncio.timeout_at(until_s):
                way = await open_push(self._identity, Seat(other, there))
            outgoing = Outgoing()
            way.hand_over(outgoing)
        except (ShoestringError, TimeoutError):
            # Not why, and not sooner or later: a peer may not use this node to look around in its
            # network.
            await link.closed_by(until_s)
            await link.refuse("unreachable", "this node does not reach the other")
            return
        finally:
            sitting.is_routing = False
        sitting.session.push_to(outgoing)
        await link.say({"ok": True})

    def _dismiss(self, sitting: Sitting, stage: int) -> None:
        """Let the node that a stage had push no more, and forget what it pushed ahead."""
        peer_id = sitting.expected.pop(stage, None)
        if peer_id is not None and peer_id not in sitting.expected.values():
            self._let_out(peer_id, sitting.purpose)
            sitting.session.inbox.forget(peer_id)


async def take_push(link: Link, sitting: Sitting) -> None:
    """Take what a link pushes to a session, if it is of its owner or of whom that expects.

    Raises:
        LinkError: it has ended.
    """
    if not sitting.expects(link.peer_id):
        await link.refuse("session", "no such session expects you")
        return
    await link.say({"ok": True})
    if sitting.expects(link.peer_id):
        link.hand_over(Incoming(sitting.session.inbox, link.peer_id))
    else:  # another took its place meanwhile
        link.abort()


def read_shown(word: Mapping[str, Any]) -> bytes | None:
    """Return the certificate that a word shows, or None."""
    text = word.get("certificate")
    try:
        certificate = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        read_certificate(certificate)
    except (binascii.Error, ShoestringError):
        return None
    return certificate


def read_address(to: Any) -> PeerAddress | None:
    """Return the peer's address that a word gives, or None: names are not looked up."""
    try:
        address = PeerAddress.parse(to) if isinstance(to, str) else None
        if address is not None:
            ipaddress.ip_address(address.host.partition("%")[0])
    except (ShoestringError, ValueError):  # what is written wrong; what is a name
        return None
    return address


def _is_name(there: Any) -> TypeGuard[str]:
    return isinstance(there, str) and 0 < len(there) <= NAME_CHARACTERS
