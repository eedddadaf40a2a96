"""Who gets the next worker: one session each, in turns between peers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from shoestring.errors import ShoestringError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_WAITING: Final = 64
MAX_WAITING_PER_PEER: Final = 4


class BusyError(ShoestringError):
    """There is no place to wait."""


class GoneError(ShoestringError):
    """Who waited is there no more."""


class Turns:
    """Places for sessions; those who wait get them in turns between peers, in order within one.

    Args:
        places: sessions at a time.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def free(self) -> int:
        """How many places nobody has."""
        return self._free

    @asynccontextmanager
    async def place(
        self, peer_id: str, gone: asyncio.Task[None] | None = None
    ) -> AsyncIterator[None]:
        """Wait for a place and hold it.

        Args:
            peer_id: who waits.
            gone: done when it is there no more; None: nobody can tell.

        Raises:
            BusyError: too many wait already, of all or of this peer.
            GoneError: it went away before it had a place.
        """
        await self._take(peer_id, gone)
        try:
            yield
        finally:
            self._free += 1
            self._give()

    async def _take(self, peer_id: str, gone: asyncio.Task[None] | None) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        if self.waiting >= MAX_WAITING:
            raise BusyError(f"{MAX_WAITING} sessions wait here already: ask another node")
        its = self._waiting.setdefault(peer_id, deque())
        if len(its) >= MAX_WAITING_PER_PEER:
            raise BusyError(f"{len(its)} of your sessions wait here already: end some")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        its.append(turn)
        try:
            ends = {turn} if gone is None else {turn, gone}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had just been given
                self._free += 1
                self._give()
            else:
                self._leave(peer_id, turn)
            raise
        if not turn.done():
            self._leave(peer_id, turn)
            raise GoneError(f"{peer_id} did not wait")

    def _give(self) -> None:
        while self._free and self._waiting:
            peer_id, its = next(iter(self._waiting.items()))
            turn = its.popleft()
            self._waiting.move_to_end(peer_id)
            if not its:
                del self._waiting[peer_id]
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

    def _leave(self, peer_id: str, turn: asyncio.Future[None]) -> None:
        its = self._waiting.get(peer_id)
        if its is not None and turn in its:
            its.remove(turn)
            if not its:
                del self._waiting[peer_id]
