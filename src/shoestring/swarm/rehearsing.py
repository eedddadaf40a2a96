"""A spare is told a stage's weights before it is needed, so that it has them when it is.

It gets a session like any other, keeps what it is told by SHA-256 (docs/swarm-weights.md), and is
let go. What it has already is not sent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from shoestring.swarm.journal import STRUCTURE, Entry, Reply
from shoestring.swarm.remote import Seat, open_session
from shoestring.swarm.replica import Replica
from shoestring.swarm.wire import Command, Frame

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.remote import Remote
    from shoestring.swarm.wire import Answer

PING_BYTES: Final = 8


class Rehearsal:
    """Hears a spare: all is told when the last question is answered.

    Attributes:
        over: it is, or the spare is lost.
    """

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def start(self, replica: Replica, reply: Reply, answer: Answer) -> None:  # noqa: ARG002
        """Of replicas."""
        if answer.command == Command.PING:
            self.over.set()

    def data(self, reply: Reply, at: int, data: bytes) -> None:
        """Of replicas: nothing is asked that has any."""

    def finish(self, replica: Replica, reply: Reply, digest: bytes) -> None:
        """Of replicas."""

    def heard(self, replica: Replica) -> None:
        """Of replicas."""

    def settle(self, replica: Replica) -> None:
        """Of replicas."""

    def lose(self, replica: Replica, why: str) -> None:  # noqa: ARG002 - it is only a spare
        """Of replicas."""
        self.over.set()


async def rehearse(
    identity: Identity, remote: Remote, entries: Iterable[Entry], *, model_bytes: int | None
) -> None:
    """Tell a spare what of a journal makes buffers and weights.

    Args:
        identity: ours.
        remote: the spare.
        entries: of a stage's journal.
        model_bytes: for a node that gives a share of it; None: not told.

    Raises:
        LinkError: it cannot be reached, or gives no session.
    """
    opened = await open_session(identity, remote, model_bytes=model_bytes)
    rehearsal = Rehearsal()
    replica = Replica(Seat(remote, opened.session), rehearsal, stores=opened.stores)
    opened.link.hand_over(replica)
    try:
        if opened.stores:
            told = [one for one in entries if one.weight or one.frame.command in STRUCTURE]
            ping = Frame(int(Command.PING), PING_BYTES, bytearray(PING_BYTES))
            replica.tell([*told, Entry(ping, reply=Reply(ping, 0.0))])
            await rehearsal.over.wait()
    finally:
        replica.drop()
