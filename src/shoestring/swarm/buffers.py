"""The buffers of one session: their numbers for the client, their true places for the worker.

The client names buffers 1, 2, 3, … in the order in which it asked for them and says that buffer
``n`` begins at ``n << 40``; a number is never given twice (docs/decisions/0006). What the worker
says of them is learnt from its answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoestring.swarm.wire import BadFrameError

BUFFER_BITS = 40
SPAN_BYTES = 1 << BUFFER_BITS
OFFSET_MASK = SPAN_BYTES - 1
BASE_ALIGNMENT = 32
"""Of the processor's buffers, the smallest of all devices (``TENSOR_ALIGNMENT`` in ggml)."""
ADDRESSES = 1 << 64


class ForbiddenFrameError(BadFrameError):
    """A frame asks what a session may not; it was not passed on, and the session ends."""


@dataclass(slots=True)
class Buffer:
    """A buffer of the worker.

    Attributes:
        size: bytes; as asked for until the worker says more.
        pointer: the worker's name of it, or 0 while it is not known.
        base: the worker's address of its first byte, or 0 while it is not known.
    """

    size: int
    pointer: int = 0
    base: int = 0


class Buffers:
    """The buffers of a session, and its quota.

    Args:
        memory_bytes: of all buffers that are there at a time.
        count: how many may be there at a time.
    """

    def __init__(self, memory_bytes: int, count: int) -> None:
        self._memory_bytes = memory_bytes
        self._count = count
        self._last = 0
        self._used_bytes = 0
        self.live: dict[int, Buffer] = {}

    @property
    def free_bytes(self) -> int:
        """What is left of the quota."""
        return self._memory_bytes - self._used_bytes

    def ask(self, size: int) -> int:
        """Count a buffer that the client asks for; return its number."""
        if not 0 < size < SPAN_BYTES:
            raise ForbiddenFrameError("size", f"a buffer of {size} bytes; at most 2^40 - 1")
        if len(self.live) >= self._count:
            raise ForbiddenFrameError("buffers", f"more than {self._count} buffers at a time")
        if size > self.free_bytes:
            raise ForbiddenFrameError(
                "memory", f"a buffer of {size} bytes; {self.free_bytes} of the quota are left"
            )
        self._last += 1
        self._used_bytes += size
        self.live[self._last] = Buffer(size)
        return self._last

    def made(self, number: int, pointer: int, size: int) -> int:
        """Note the worker's answer to :meth:`ask`; return the size that the client may use.

        A worker may give more than was asked for; that is counted, but never exceeds the quota.
        """
        buffer = self.live[number]
        if not pointer:
            self.drop(number)
            return 0
        if not buffer.size <= size < SPAN_BYTES:
            raise ForbiddenFrameError("worker", f"a buffer of {size} bytes for {buffer.size}")
        if any(other.pointer == pointer for other in self.live.values()):
            raise ForbiddenFrameError("worker", "the worker gave one buffer twice")
        buffer.pointer = pointer
        return buffer.size

    def found(self, number: int, base: int) -> None:
        """Note where a buffer begins; one that was dropped meanwhile is passed over."""
        if (buffer := self.live.get(number)) is None:
            return
        if not base or base % BASE_ALIGNMENT or base + buffer.size >= ADDRESSES:
            raise ForbiddenFrameError("worker", "the worker's address of a buffer is impossible")
        buffer.base = base

    def drop(self, number: int) -> None:
        """Give a buffer's bytes back to the quota."""
        self._used_bytes -= self.live.pop(number).size

    def named(self, number: int) -> Buffer:
        """Return a buffer that the worker has answered for."""
        buffer = self.live.get(number)
        if buffer is None:
            raise ForbiddenFrameError("buffer", f"buffer {number} is not there")
        if not buffer.pointer:
            raise ForbiddenFrameError("early", f"buffer {number} is not made yet")
        return buffer

    def placed(self, number: int) -> tuple[int, int, int]:
        """Return the pointer, base and size of a buffer whose base is known."""
        buffer = self.named(number)
        if not buffer.base:
            raise ForbiddenFrameError("early", f"nobody asked where buffer {number} begins")
        return buffer.pointer, buffer.base, buffer.size

    def holding(self, number: int, data: int, extent: int) -> tuple[int, int]:
        """Return the worker's buffer and address of ``extent`` bytes that begin at ``data``."""
        pointer, base, size = self.placed(number)
        start = data & OFFSET_MASK
        if data >> BUFFER_BITS != number or start + extent > size:
            raise ForbiddenFrameError(
                "bounds", f"{extent} bytes from {data:#x} on do not lie in buffer {number}"
            )
        return pointer, base + start
