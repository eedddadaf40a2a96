"""TAKE at a node: weights set from its store, and those that it has not kept as they pass.

The answer to a TAKE comes when the worker was sent the whole weight; until then no later frame
passes. What had to be read twice, or turned out to be damaged, is answered as missing: the client
sends it then, to the same place.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoestring.swarm.wire import (
    DATA_AT,
    OFFSET_AT,
    TENSOR_BYTES,
    TWO_U64,
    U64,
    Command,
    Frame,
    set_tensor_start,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shoestring.swarm.store import Store
    from shoestring.swarm.store_contents import Writing

HELD = b"\1"
MISSING = b"\0"
MOST_MISSING = 1_024
"""Weights of which a client was told that they are missing; of more the first are forgotten."""
WRITING_BYTES = 4 << 20
"""Waiting for the disk; above it the client is not read."""

Place = tuple[int, int]
"""Where something is set in the worker: its address and how many bytes."""


class Shelf:
    """What one session takes from the node's store, and puts there.

    Args:
        store: the node's; None: it has none.
        written: called when there is less to write than there was.

    Attributes:
        taken_bytes: that were set from the store.
        kept_bytes: that came over the link and are in the store now.
        waiting_bytes: that wait for the disk.
    """

    def __init__(self, store: Store | None, written: Callable[[], None]) -> None:
        self.taken_bytes = self.kept_bytes = self.waiting_bytes = 0
        self._store = store
        self._written = written
        self._missing: dict[Place, bytes] = {}
        self._queue: list[tuple[bytes, int] | bytes] = []
        """What is to be written: a digest and a size, and then the parts."""
        self._writing: Writing | None = None
        self._task: asyncio.Task[None] | None = None

    async def take(self, frame: Frame, feed: Callable[[bytes], Awaitable[None]]) -> bytes:
        """Set a weight if it is here; return the answer for the client.

        Args:
            frame: TAKE, with the worker's addresses.
            feed: sends to the worker, and returns when it takes more.
        """
        offset, size = TWO_U64.unpack_from(frame.head, OFFSET_AT)
        sha256 = bytes(frame.head[OFFSET_AT + TWO_U64.size :])
        if self._store is None:
            return MISSING
        reading = await asyncio.to_thread(self._store.read, sha256, size)
        if reading is not None:
            await feed(set_tensor_start(bytes(frame.head[:TENSOR_BYTES]), offset, size))
            part = await asyncio.to_thread(reading.part)
            while part:
                # The next is read while the worker takes this one.
                part, _ = await asyncio.gather(asyncio.to_thread(reading.part), feed(part))
            if reading.is_good:
                self.taken_bytes += size
                return HELD
        if len(self._missing) >= MOST_MISSING:
            del self._missing[next(iter(self._missing))]
        self._missing[_place(frame, offset, size)] = sha256
        return MISSING

    def awaits(self, frame: Frame) -> bool:
        """Tell whether a frame that passes sets a weight that was missing; if so, begin it."""
        if not self._missing or frame.command != Command.SET_TENSOR:
            return False
        offset = U64.unpack_from(frame.head, OFFSET_AT + 1)[0]
        size = frame.size - len(frame.head)
        sha256 = self._missing.pop(_place(frame, offset, size), None)
        if sha256 is None:
            return False
        self._queue.append((sha256, size))
        return True

    def keep(self, part: bytes) -> None:
        """Write the next part of the weight that passes."""
        self._queue.append(part)
        self.waiting_bytes += len(part)
        if self._task is None:
            self._task = asyncio.create_task(self._write_queue())

    async def close(self) -> None:
        """Write what came, and leave nothing half written behind."""
        if self._task is not None:
            await self._task
        if self._writing is not None:
            await asyncio.to_thread(self._writing.close)

    async def _write_queue(self) -> None:
        while self._queue:
            queue, self._queue = self._queue, []
            self.waiting_bytes -= await asyncio.to_thread(self._write, queue)
            self._written()
        self._task = None

    def _write(self, queue: list[tuple[bytes, int] | bytes]) -> int:
        """Write in a thread; return how many bytes these were."""
        assert self._store is not None
        count = 0
        for piece in queue:
            if isinstance(piece, tuple):
                self._writing = self._store.write(*piece)  # the one before is whole
                continue
            count += len(piece)
            if self._writing is not None:
                self._writing.add(piece)
                if self._writing.is_kept:
                    self.kept_bytes += self._writing.size
                    self._writing = None
        return count


def _place(frame: Frame, offset: int, size: int) -> Place:
    address = U64.unpack_from(frame.head, DATA_AT)[0]
    return int(address) + offset, size
