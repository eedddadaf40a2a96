"""Streams of requests and answers, cut into frames as they arrive.

Data are never collected: what has come of a body is given out at once, so a gigabyte of weights
passes in the pieces in which it was read. Nothing is kept before its size was seen to be possible.
"""

from __future__ import annotations

from collections import deque

from shoestring.swarm.wire import (
    ANSWERED,
    BULK_BYTES,
    GRAPH_LEAST_BYTES,
    GRAPH_TENSORS,
    HEAD_BYTES,
    HEADER,
    SETTLE_BYTES,
    TENSOR_BYTES,
    U64,
    WITH_BODY,
    WITH_DATA,
    Answer,
    BadFrameError,
    Command,
    Frame,
    answer_bytes,
)


class Splitter:
    """Cuts a stream of requests into frames; keeps no more than a head that is not whole yet.

    Args:
        bulk_bytes: of the largest body that is let through.
        graph_tensors: most tensors and most nodes of a graph.
    """

    def __init__(self, *, bulk_bytes: int = BULK_BYTES, graph_tensors: int = GRAPH_TENSORS) -> None:
        self._bulk_bytes = bulk_bytes
        self._whole_bytes = {
            int(Command.GRAPH_COMPUTE): (
                GRAPH_LEAST_BYTES,
                GRAPH_LEAST_BYTES + graph_tensors * (8 + TENSOR_BYTES),
            ),
            int(Command.SETTLE): SETTLE_BYTES,
        }
        """Of commands whose head is all of them, however long it is: least and most."""
        self._held = bytearray()
        self._left = 0
        """Bytes of the current body that have not come."""

    @property
    def whole(self) -> bool:
        """Whether the stream may end here: no frame has begun and not ended."""
        return not self._held and not self._left

    def feed(self, data: bytes) -> list[Frame | bytes]:
        """Take the next bytes of the stream.

        Returns:
            Frames and, after the frame that they belong to, the parts of bodies, in their order.

        Raises:
            BadFrameError: a command is unknown or a size impossible; nothing of it was kept.
        """
        found: list[Frame | bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                part = data[at : at + self._left]  # no copy where all of the data are body
                found.append(part)
                self._left -= len(part)
                at += len(part)
                continue
            if self._held or end - at < HEADER.size:
                at = self._hold(data, at, found)
                continue
            command, size = HEADER.unpack_from(data, at)
            head_end = at + HEADER.size + self._head_bytes(command, size)
            if head_end > end:
                at = self._hold(data, at, found)
                continue
            self._put(found, command, size, bytearray(data[at + HEADER.size : head_end]))
            at = head_end
        return found

    def _hold(self, data: bytes, at: int, found: list[Frame | bytes]) -> int:
        """Complete a head that came in pieces as far as the data go; return where they are read."""
        held = self._held
        need = HEADER.size
        if len(held) >= need:
            need += self._head_bytes(*HEADER.unpack_from(held))
        taken = min(need - len(held), len(data) - at)
        held += data[at : at + taken]
        if len(held) < HEADER.size:
            return at + taken
        command, size = HEADER.unpack_from(held)
        if len(held) == HEADER.size + self._head_bytes(command, size):
            self._put(found, command, size, held[HEADER.size :])
            self._held = bytearray()
        return at + taken

    def _put(self, found: list[Frame | bytes], command: int, size: int, head: bytearray) -> None:
        found.append(Frame(command, size, head))
        self._left = size - len(head)

    def _head_bytes(self, command: int, size: int) -> int:
        """Return how long the head is, once its size is seen to be possible."""
        head = HEAD_BYTES.get(command)
        if size == head:
            return size
        if head is None:
            least, most = self._whole_bytes.get(command, (0, 0))
            if not most:
                raise BadFrameError("command", f"command {command} is unknown")
            if not least <= size <= most:
                raise _bad_size(command, size, f"at most {most}")
            return size
        if command not in WITH_BODY:
            raise _bad_size(command, size, str(head))
        if not head <= size <= head + self._bulk_bytes:
            raise _bad_size(command, size, f"{head} to {head + self._bulk_bytes}")
        return head


class Answers:
    """Cuts a stream of answers; each must be as long as its request asked for."""

    def __init__(self) -> None:
        self._pending: deque[Answer | tuple[int, int]] = deque()
        self._held = bytearray()
        self._left = 0

    @property
    def pending(self) -> int:
        """How many answers have not begun."""
        return len(self._pending)

    def expect(self, frame: Frame) -> None:
        """Note that a request went out; does nothing for one that is not answered."""
        if frame.command in ANSWERED:
            self._pending.append((frame.command, answer_bytes(frame)))

    def place(self, command: int, payload: bytes) -> list[Answer | bytes]:
        """Put an answer that was made here into its turn; return what may be given out now."""
        self._pending.append(Answer(command, len(payload), payload))
        return [] if self._left or self._held else self._ready()

    def feed(self, data: bytes) -> list[Answer | bytes]:
        """Take the next bytes of the stream; return answers, and parts of data after theirs.

        Raises:
            BadFrameError: an answer that nobody waits for, or that has another size.
        """
        found: list[Answer | bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                part = data[at : at + self._left]
                found.append(part)
                self._left -= len(part)
                at += len(part)
            else:
                at = self._begin(data, at, found)
            if not self._left and not self._held:
                found += self._ready()
        return found

    def _begin(self, data: bytes, at: int, found: list[Answer | bytes]) -> int:
        if not self._pending:
            raise BadFrameError("unasked", "an answer came that nobody waits for")
        expected = self._pending[0]
        assert not isinstance(expected, Answer), "those made here went out before"
        command, size = expected
        held = self._held
        taken_bytes = 0
        if command == Command.SETTLE:
            taken_bytes = self._hold_size(data[at:])
            if len(held) < U64.size:
                return at + taken_bytes
            size = min(size, U64.unpack_from(held)[0])
        payload_bytes = 0 if command in WITH_DATA else size
        need = U64.size + payload_bytes
        taken = data[at + taken_bytes : at + taken_bytes + need - len(held)]
        held += taken
        if len(held) >= U64.size and (said := U64.unpack_from(held)[0]) != size:
            raise BadFrameError(
                "answer", f"the answer to command {command} has {said} bytes instead of {size}"
            )
        if len(held) == need:
            self._pending.popleft()
            found.append(Answer(command, size, bytes(held[U64.size :])))
            self._held = bytearray()
            self._left = size - payload_bytes
        return at + taken_bytes + len(taken)

    def _hold_size(self, data: bytes) -> int:
        """Complete the size of an answer; return how many bytes of the data were of it."""
        taken = data[: max(0, U64.size - len(self._held))]
        self._held += taken
        return len(taken)

    def _ready(self) -> list[Answer | bytes]:
        """Take those off that were made here and whose turn it is."""
        found: list[Answer | bytes] = []
        while self._pending and isinstance(first := self._pending[0], Answer):
            self._pending.popleft()
            found.append(first)
        return found


def _bad_size(command: int, size: int, allowed: str) -> BadFrameError:
    name = Command(command).name
    return BadFrameError("size", f"{name} of {size} bytes; it has {allowed}")
