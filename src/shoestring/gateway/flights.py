"""One engine works where several ask the same at once; the others get the answer as it is made.

Who comes first leads: asks the engine and adds each chunk. Who comes while the leader is at work
follows: gets the chunks from the first on, and then as they come. Nobody waits for a slower one::

    with flights.join(name) as flight:
        if flight.leader:
            flight.begin(head)                      # the engine answers
            async for chunk in engine:
                flight.add(chunk)
            await cache.put(name, answer)           # first: who comes next finds it there
            flight.finish(answer)
        else:
            head = await flight.head()
            async for chunk in flight.chunks():     # FlightLostError: ask without a flight
                ...

A leader whose client is gone calls :meth:`Flight.leave` and works on while ``flight.wanted``;
:meth:`Flight.deserted` says when the last follower is gone, too. A leader that leaves the block
without an end has failed, so that no follower waits for ever.

Memory is bounded twice. Of one answer at most ``max_entry_bytes`` are held: of a longer one the
beginning is let go, nobody new can follow, and who follows goes on as long as they keep up. Of
all at most ``max_bytes``: beyond it the answer that was begun first, which slow readers hold,
lets go. For one event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from shoestring.gateway.cache import chunk_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from shoestring.gateway.cache import Stored


class FlightLostError(Exception):
    """A follower gets no more of the answer.

    Attributes:
        sent: some of it was given out; else the follower can still ask for itself.
    """

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the answer that this request shared with another one broke off")
        self.sent = sent


class Flights:
    """The answers that are being made.

    Args:
        max_entry_bytes: held of one answer.
        max_bytes: held of all.
    """

    def __init__(self, *, max_entry_bytes: int, max_bytes: int) -> None:
        self._max_entry_bytes = max_entry_bytes
        self._max_bytes = max_bytes
        self._open: dict[str, _Answer] = {}
        """Who comes may still follow these."""
        self._holding: dict[_Answer, None] = {}
        """Those with chunks in memory, in the order in which they began."""
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Memory that chunks take now."""
        return self._held_bytes

    def join(self, fingerprint: str) -> Flight:
        """Follow whoever asks the same, or lead; use what it returns as a context manager."""
        answer = self._open.get(fingerprint)
        if answer is not None:
            answer.followers += 1
            return Flight(self, answer, leader=False)
        answer = self._open[fingerprint] = _Answer(fingerprint)
        return Flight(self, answer, leader=True)

    def hold(self, answer: _Answer, chunk: bytes) -> None:
        """Keep a chunk for those who follow now or will."""
        if not self._may_be_read(answer):
            return
        self._holding.setdefault(answer)
        answer.chunks[answer.end] = chunk
        answer.end += 1
        self._count(answer, chunk_bytes(chunk))
        while answer.held_bytes > self._max_entry_bytes and len(answer.chunks) > 1:
            self._let_go(answer)
        if answer.held_bytes > self._max_entry_bytes:
            self.close(answer)  # one large chunk: for those who are here, and nobody new
        while self._held_bytes > self._max_bytes:
            self._let_go(next(iter(self._holding)))
        answer.wake()

    def close(self, answer: _Answer) -> None:
        """Let nobody new follow."""
        if self._open.get(answer.fingerprint) is answer:
            del self._open[answer.fingerprint]
        self.tidy(answer)

    def tidy(self, answer: _Answer) -> None:
        """Hold nothing that nobody will read."""
        if not self._may_be_read(answer):
            self._count(answer, -answer.held_bytes)
            answer.chunks.clear()
            self._holding.pop(answer, None)

    def _may_be_read(self, answer: _Answer) -> bool:
        return answer.followers > 0 or self._open.get(answer.fingerprint) is answer

    def _let_go(self, answer: _Answer) -> None:
        """Forget the first chunk; who has yet to read it is lost."""
        self._count(answer, -chunk_bytes(answer.chunks.pop(answer.first)))
        answer.first += 1
        if not answer.chunks:
            del self._holding[answer]
        self.close(answer)
        answer.wake()

    def _count(self, answer: _Answer, size_bytes: int) -> None:
        answer.held_bytes += size_bytes
        self._held_bytes += size_bytes


class Flight:
    """One request's part in an answer: the leader's or a follower's.

    Attributes:
        leader: asks the engine and calls ``begin``, ``add`` and ``finish`` or ``fail``; a
            follower awaits ``head`` and reads ``chunks``.
    """

    def __init__(self, flights: Flights, answer: _Answer, *, leader: bool) -> None:
        self._flights = flights
        self._answer = answer
        self._listens = True
        self.leader = leader

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.leader and not self._answer.ended:
            self.fail()
        self.leave()

    def begin(self, head: Stored) -> None:
        """Tell what is known before the first chunk: an answer without chunks and tokens."""
        self._answer.head = head
        self._answer.wake()

    def add(self, chunk: bytes) -> None:
        """Pass on a chunk; costs next to nothing where nobody follows."""
        self._flights.hold(self._answer, chunk)

    def finish(self, answer: Stored) -> None:
        """Tell that the answer is whole; put it into the cache before."""
        self._answer.stored = answer
        self._answer.head = self._answer.head or answer
        self._end()

    def fail(self) -> None:
        """Tell that there will be no more; who follows gets a :class:`FlightLostError`."""
        self._answer.failed = True
        self._end()

    def leave(self) -> None:
        """Listen no more; may be called twice."""
        if not self._listens:
            return
        self._listens = False
        if self.leader:
            self._answer.leader_listens = False
        else:
            self._answer.followers -= 1
        if self.wanted:
            self._flights.tidy(self._answer)
        else:
            self._flights.close(self._answer)
            self._answer.deserted.set()

    @property
    def wanted(self) -> bool:
        """Whether anybody listens, the leader's own client included."""
        return self._answer.leader_listens or self._answer.followers > 0

    async def deserted(self) -> None:
        """Wait until nobody listens: the leader may stop its engine."""
        await self._answer.deserted.wait()

    async def head(self) -> Stored:
        """Wait for what is known before the first chunk.

        Raises:
            FlightLostError: the leader failed.
        """
        while (head := self._answer.head) is None:
            if self._answer.failed:
                raise FlightLostError(sent=False)
            await self._answer.news()
        return head

    @property
    def stored(self) -> Stored | None:
        """The whole answer, once there is one; for its tokens."""
        return self._answer.stored

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the chunks, from the first on.

        Raises:
            FlightLostError: the leader failed, or this follower is too slow.
        """
        answer, read = self._answer, 0
        while True:
            if answer.failed or read < answer.first:
                raise FlightLostError(sent=read > 0)
            if read < answer.end:
                read += 1
                yield answer.chunks[read - 1]
            elif answer.stored is not None:
                return
            else:
                await answer.news()

    def _end(self) -> None:
        self._flights.close(self._answer)
        self._answer.wake()


class _Answer:
    """An answer that is being made, and who listens to it.

    ``chunks`` holds those from number ``first`` to before ``end``, by their numbers.
    """

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.head: Stored | None = None
        self.stored: Stored | None = None
        self.failed = False
        self.chunks: dict[int, bytes] = {}
        self.first = 0
        self.end = 0
        self.held_bytes = 0
        self.leader_listens = True
        self.followers = 0
        self.deserted = asyncio.Event()
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def ended(self) -> bool:
        return self.failed or self.stored is not None

    def wake(self) -> None:
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)

    async def news(self) -> None:
        """Wait for a change; who waits looks again before it waits again."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.add(turn)
        try:
            await turn
        finally:
            self._waiting.discard(turn)
