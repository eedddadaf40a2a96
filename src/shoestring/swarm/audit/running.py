"""Running a window again: at another node, or with a worker of this machine.

Whoever does it is told what a recruit would be told, then the window, and is asked the same. To a
node it is a session like any other, with receipts: the last one is over the window alone. It is
paid once it was judged.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from shoestring.errors import ShoestringError
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.audit.windows import MOST_DATA_BYTES, Given
from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.proof.paying import Payer
from shoestring.swarm.remote import Remote, Seat, open_session
from shoestring.swarm.replica import Replica
from shoestring.swarm.session import Session
from shoestring.swarm.wire import Command, Frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from shoestring.swarm.audit.windows import Recording
    from shoestring.swarm.firewall import Rules
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.proof.paying import Paying
    from shoestring.swarm.proof.receipts import Signed
    from shoestring.swarm.replica import Listening
    from shoestring.swarm.store import Store
    from shoestring.swarm.wire import Answer
    from shoestring.swarm.worker_pool import WorkerPool

LEAST_S: Final = 30.0
TIMES: Final = 4
"""As long as the window took: a place may be so much slower, with nobody's network between."""
SLOWEST_BYTES_PER_S: Final = 4 << 20
"""At which weights must come to a place that has none."""
LIMIT_S: Final = 600.0
"""Whatever the window: others wait for their turn."""
WAIT_S: Final = 10.0
"""For a node's worker; one that others have is not waited for: there are other nodes."""
PING_BYTES: Final = 8
HERE: Final = "this machine"


class NotRunError(ShoestringError):
    """A window could not be run again; nothing is known of it."""


class Place(Protocol):
    """Where a window can be run again."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def peer(self) -> str | None:
        """Its peer id; None: this machine, which its user trusts."""

    @property
    def kind(self) -> str:
        """Numerics class: engine's SHA-256 and the device's generation."""

    def open(
        self, listening: Listening, keep: Callable[[Signed], None] | None = None
    ) -> AbstractAsyncContextManager[Replica]:
        """Open a session there that a block lasts; at its end all receipts are here.

        Args:
            listening: hears what is answered.
            keep: given its receipts, which :meth:`pay` is then told; None: they count at once.

        Raises:
            ShoestringError: there is none to be had.
        """

    def pay(self, receipts: Iterable[Signed]) -> None:
        """Let receipts count."""


@dataclass(frozen=True)
class There:
    """Another node.

    Attributes:
        identity: ours.
        remote: the node.
        kind: as of :class:`Place`.
        dispute: told why it signs nothing.
        model_bytes: for a node that gives a share of it; None: not told.
        paying: for receipts; None: there are none, and a node with a price computes nothing.
    """

    identity: Identity
    remote: Remote
    kind: str
    dispute: Callable[[str], None]
    model_bytes: int | None = None
    paying: Paying | None = None

    @property
    def name(self) -> str:
        """Of the node."""
        return self.remote.name

    @property
    def peer(self) -> str | None:
        """Its peer id."""
        return self.remote.address.id

    def pay(self, receipts: Iterable[Signed]) -> None:
        """Let receipts count."""
        for signed in receipts:
            assert self.paying is not None, "else there are no receipts"
            self.paying.hand.keep(signed)

    @asynccontextmanager
    async def open(
        self, listening: Listening, keep: Callable[[Signed], None] | None = None
    ) -> AsyncIterator[Replica]:
        """Open a session there."""
        paying = self.paying
        opened = await open_session(
            self.identity, self.remote, model_bytes=self.model_bytes,
            asked=None if paying is None else paying.asked_of(self.remote.address.id),
            wait_s=WAIT_S,
        )  # fmt: skip
        payer = None
        if paying is not None and opened.terms is not None:
            hand = paying.hand if keep is None else replace(paying.hand, keep=keep)
            payer = Payer(opened.terms, hand, self.dispute)
        seat = Seat(self.remote, opened.session)
        replica = Replica(seat, listening, stores=opened.stores, payer=payer)
        opened.link.hand_over(replica)
        try:
            yield replica
        finally:
            replica.leave()
            await replica.gone.wait()  # it ends the link itself after its last receipt


@dataclass(frozen=True)
class Here:
    """A worker of this machine, in a room like any node's.

    Attributes:
        identity: ours.
        pool: of workers.
        rules: what a window may use.
        kind: as of :class:`Place`.
        store: of weights; None: they come from the model's file.
    """

    identity: Identity
    pool: WorkerPool
    rules: Rules
    kind: str
    store: Store | None = None
    name: str = HERE
    peer: None = None

    def pay(self, receipts: Iterable[Signed]) -> None:
        """Of places: there are none."""

    @asynccontextmanager
    async def open(
        self,
        listening: Listening,
        keep: Callable[[Signed], None] | None = None,  # noqa: ARG002
    ) -> AsyncIterator[Replica]:
        """Give a fresh worker a session in this process."""
        worker = await self.pool.take()
        session = Session(self.rules, self.store)
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        address = PeerAddress(self.identity.id, "127.0.0.1", 1)
        seat = Seat(Remote(HERE, address, self.identity.certificate), "")
        replica = Replica(seat, listening, stores=self.store is not None)
        try:
            connection = await worker.connect()
            await loop.create_connection(lambda: session.worker, sock=connection)
            await loop.create_connection(lambda: session.client, sock=theirs)
            await loop.create_connection(lambda: replica, sock=ours)
            yield replica
        finally:
            replica.drop()
            session.end("it was run again")
            await session.close()
            await worker.stop()


class Rerun:
    """Hears what a place answers to a window.

    Args:
        recording: the window.

    Attributes:
        over: all of it was answered, or never will be.
        why_not: why it will not; None: it was.
    """

    def __init__(self, recording: Recording) -> None:
        self.over = asyncio.Event()
        self.why_not: str | None = None
        self._replies = [
            one.entry.reply for one in recording.questions() if one.entry.reply is not None
        ]
        self._wanted = set(self._replies)
        self._digests: dict[Reply, bytes] = {}
        self._data: dict[Reply, bytearray] = {}
        self._data_bytes = 0

    @property
    def given(self) -> Given:
        """What was answered."""
        data = (self._data.get(reply) for reply in self._replies)
        return Given(
            tuple(self._digests.get(reply) for reply in self._replies),
            tuple(
                bytes(one) if one is not None and len(one) == reply.size else None
                for reply, one in zip(self._replies, data, strict=True)
            ),
        )

    def start(self, replica: Replica, reply: Reply, answer: Answer) -> None:  # noqa: ARG002
        """Of replicas."""
        if answer.command == Command.PING:
            self.over.set()

    def data(self, reply: Reply, at: int, data: bytes) -> None:  # noqa: ARG002 - one replica
        """Of replicas."""
        if reply in self._wanted and self._data_bytes + len(data) <= MOST_DATA_BYTES:
            self._data_bytes += len(data)
            self._data.setdefault(reply, bytearray()).extend(data)

    def finish(self, replica: Replica, reply: Reply, digest: bytes) -> None:  # noqa: ARG002
        """Of replicas."""
        if reply in self._wanted:
            self._digests[reply] = digest

    def heard(self, replica: Replica) -> None:
        """Of replicas."""

    def settle(self, replica: Replica) -> None:
        """Of replicas."""

    def lose(self, replica: Replica, why: str) -> None:  # noqa: ARG002 - there is one
        """Of replicas."""
        self.why_not = why
        self.over.set()


def limit_of(recording: Recording) -> float:
    """Return in how many seconds a place must run a window again, with all that leads to it."""
    weights = sum(len(one.weight.data) for one in recording.begin if one.weight is not None)
    took_s = recording.took_s or 0.0
    return min(LIMIT_S, LEAST_S + TIMES * took_s + weights / SLOWEST_BYTES_PER_S)


async def run_again(
    recording: Recording,
    place: Place,
    keep: Callable[[Signed], None] | None = None,
    limit_s: float | None = None,
) -> Given:
    """Return what a place answers to a window.

    Args:
        recording: the window.
        place: where it is run.
        keep: as of :meth:`Place.open`.
        limit_s: for all of it but the last receipt; None: as :func:`limit_of` says.

    Raises:
        NotRunError: it gives no session, is lost, or is not done in time.
    """
    limit_s = limit_of(recording) if limit_s is None else limit_s
    rerun = Rerun(recording)
    ping = Frame(int(Command.PING), PING_BYTES, bytearray(PING_BYTES))
    try:
        async with asyncio.timeout(limit_s) as limit, place.open(rerun, keep) as replica:
            replica.tell([*recording.begin, *recording.entries, Entry(ping, reply=Reply(ping, 0))])
            await rerun.over.wait()
            limit.reschedule(None)  # what follows is bounded
    except TimeoutError as error:
        raise NotRunError(f"{place.name} was not done in {limit_s:.3g} s") from error
    except (ShoestringError, OSError) as error:
        raise NotRunError(f"{place.name}: {error}") from error
    if rerun.why_not is not None:
        raise NotRunError(f"{place.name}: {rerun.why_not}")
    return rerun.given
