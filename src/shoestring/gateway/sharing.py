"""An answer that several may get: kept in the cache, or made once for all who ask the same.

Whoever asks first has a maker started, which asks the engine in nobody's connection; that client
and all who come while it works follow it alike. The maker ends when the last of them has left.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoestring.gateway.cache import Stored
from shoestring.gateway.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shoestring.gateway.client import Client
    from shoestring.gateway.flights import Flight
    from shoestring.gateway.relaying import Sink, Tally


class FlightSink:
    """Takes an answer for all who follow, and keeps it whole.

    Args:
        flight: the leader's part.
        tally: knows engine, variant and tokens.
        max_entry_bytes: of an answer that may be kept.
    """

    def __init__(self, flight: Flight, tally: Tally, max_entry_bytes: int) -> None:
        self.headers: dict[str, str] = {}
        self.started = False
        self._flight = flight
        self._tally = tally
        self._left_bytes = max_entry_bytes
        self._chunks: list[bytes] = []
        self._head: Stored | None = None

    async def start(self, status: int, content_type: str) -> None:
        """Tell all the head."""
        self.started = True
        self._head = self._stored(status, content_type)
        self._flight.begin(self._head)

    async def part(self, data: bytes) -> None:
        """Tell all a part; too long an answer is passed on and not kept."""
        self._flight.add(data)
        self._left_bytes -= len(data)
        if self._left_bytes >= 0:
            self._chunks.append(data)
        else:
            self._chunks.clear()

    async def end(self, data: bytes = b"") -> None:
        """Tell all the last part; the answer is whole."""
        if data:
            await self.part(data)

    async def whole(self, status: int, content_type: str, data: bytes) -> None:
        """Tell all a whole answer."""
        await self.start(status, content_type)
        await self.part(data)

    def answer(self) -> Stored:
        """Return what was taken; one that was too long has no chunks, and is not kept."""
        assert self._head is not None, "an answer was taken"
        return self._stored(self._head.status, self._head.content_type, tuple(self._chunks))

    def _stored(self, status: int, content_type: str, chunks: tuple[bytes, ...] = ()) -> Stored:
        tally = self._tally
        return Stored(status, content_type, chunks, tally.variant, tally.engine, *tally.used)


class Maker:
    """Asks an engine for all who follow one flight.

    Args:
        flight: the leader's part; the maker ends it.
        tally: gets what becomes of the question.
        max_entry_bytes: of an answer that may be kept.

    Attributes:
        refusal: why there is no answer, or None.
    """

    def __init__(self, flight: Flight, tally: Tally, max_entry_bytes: int) -> None:
        self.refusal: Refusal | None = None
        self._flight = flight
        self._sink = FlightSink(flight, tally, max_entry_bytes)

    async def make(
        self, ask: Callable[[Sink], Awaitable[None]], keep: Callable[[Stored], Awaitable[None]]
    ) -> None:
        """Ask until there is an answer, or nobody wants it any more.

        Args:
            ask: asks the engines; raises a refusal.
            keep: puts a whole answer into the cache.
        """
        with self._flight as flight:
            flight.leave()  # who started it follows like all others
            asking = asyncio.ensure_future(ask(self._sink))
            deserted = asyncio.ensure_future(flight.deserted())
            try:
                await asyncio.wait({asking, deserted}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                deserted.cancel()
                asking.cancel()
                ended = (await asyncio.gather(asking, deserted, return_exceptions=True))[0]
            if isinstance(ended, Refusal):
                self.refusal = ended
            elif ended is None:
                answer = self._sink.answer()
                await keep(answer)
                flight.finish(answer)
            elif not isinstance(ended, asyncio.CancelledError):
                raise ended


async def replay(stored: Stored, client: Client, *, stream: bool) -> None:
    """Give a kept answer."""
    _head(stored, client)
    if not stream:
        await client.whole(stored.status, stored.content_type, b"".join(stored.chunks))
        return
    await client.start(stored.status, stored.content_type)
    for chunk in stored.chunks:
        await client.part(chunk)
    await client.end()


async def follow(flight: Flight, client: Client, *, stream: bool) -> None:
    """Give an answer while it is made.

    Raises:
        FlightLostError: no more of it comes.
    """
    head = await flight.head()
    _head(head, client)
    if not stream:
        data = b"".join([chunk async for chunk in flight.chunks()])
        await client.whole(head.status, head.content_type, data)
        return
    async for chunk in flight.chunks():
        if not client.started:
            await client.start(head.status, head.content_type)
        await client.part(chunk)
    await client.end()


def _head(stored: Stored, client: Client) -> None:
    client.headers["x-shoestring-engine"] = stored.engine
    client.headers["x-shoestring-variant"] = stored.variant
