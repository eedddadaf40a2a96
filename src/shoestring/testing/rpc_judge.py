"""A worker that is not there and judges what reaches it, by another reckoning than the firewall's.

What is no frame for a stock worker, or points elsewhere than into its buffers, is a fault.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from shoestring.swarm.wire import (
    ALLOC,
    ANSWER_BYTES,
    ANSWERED,
    DATA_AT,
    HEAD_BYTES,
    HEADER,
    OFFSET_AT,
    TENSOR_BYTES,
    TWO_U64,
    U32,
    U64,
    WITH_DATA,
    Command,
    Frame,
)
from shoestring.testing.rpc_frames import HELLO_ANSWER, stray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.swarm.firewall import Rules

Place = tuple[int, int, int]
"""Pointer, base and size of a buffer."""
STOCK: Final = frozenset(range(18)) - {int(Command.SET_TENSOR_HASH)}
"""What a worker may hear; hashes are answered before it."""
OF_BUFFERS: Final = {Command.BUFFER_GET_BASE, Command.FREE_BUFFER, Command.BUFFER_CLEAR}
OF_DEVICES: Final = {
    Command.ALLOC_BUFFER, Command.GET_ALIGNMENT, Command.GET_MAX_SIZE, Command.GET_DEVICE_MEMORY,
    Command.GRAPH_COMPUTE, Command.GRAPH_RECOMPUTE, Command.GET_ALLOC_SIZE,
}  # fmt: skip
DATA_BYTES: Final = 4_096
"""Of data that the worker gives at most, whatever was asked for."""
NEW_POINTER: Final = 0x7E00_0000_1000
NEW_BASE: Final = 0x7E80_0000_0000
NEXT: Final = 1 << 36


class FaultError(Exception):
    """Something reached the worker that may not, or hurt the agent."""


class Judge:
    """Keeps what a worker would do to its buffers, and answers as one would.

    Args:
        places: of the buffers that are there.
        rules: of the session.
        has_graph: one was computed that may be computed again.

    Attributes:
        places: as they are now.
        answers: that the session was not given yet.
        frames: so many came.
    """

    def __init__(self, places: Sequence[Place], rules: Rules, *, has_graph: bool) -> None:
        self.places = list(places)
        self.answers: deque[bytes] = deque()
        self.frames = 0
        self._has_graph = has_graph
        self._rules = rules
        self._held = bytearray()
        self._skipped = 0

    def write(self, data: bytes | bytearray) -> None:
        """Take what the session sends.

        Raises:
            FaultError: no session may send it.
        """
        skipped = min(self._skipped, len(data))
        self._skipped -= skipped
        self._held += data[skipped:]
        while not self._skipped and len(self._held) >= HEADER.size:
            command, size = HEADER.unpack_from(self._held)
            if command not in STOCK:
                raise FaultError(f"command {command} reached the worker")
            head = HEAD_BYTES.get(command, size)
            if len(self._held) < HEADER.size + head:
                return
            self._hear(Frame(command, size, self._held[HEADER.size : HEADER.size + head]))
            self._skipped = size - head
            rest = self._held[HEADER.size + head :]
            self._held = rest[self._skipped :]
            self._skipped = max(0, self._skipped - len(rest))

    def _hear(self, frame: Frame) -> None:
        self.frames += 1
        command, head = frame.command, frame.head
        if command == Command.HELLO and any(head):
            raise FaultError("HELLO carries something")
        if command in OF_DEVICES and U32.unpack_from(head)[0] >= self._rules.devices:
            raise FaultError(f"command {command} for device {U32.unpack_from(head)[0]}")
        if command == Command.GRAPH_RECOMPUTE and not self._has_graph:
            raise FaultError("a graph is computed again that was never computed")
        if command in OF_BUFFERS:
            self._place(U64.unpack_from(head)[0])
        elif where := stray(frame, self.places):
            raise FaultError(f"{Command(command).name} points to {where}")
        if command in {Command.SET_TENSOR, Command.GET_TENSOR, Command.MEMSET_TENSOR}:
            self._check_region(frame)
        self._do(frame)
        if command in ANSWERED:
            self.answers.append(self._answer(frame))

    def _check_region(self, frame: Frame) -> None:
        head, is_set = frame.head, frame.command == Command.SET_TENSOR
        offset = U64.unpack_from(head, OFFSET_AT + is_set)[0]
        count = frame.size - len(head) if is_set else U64.unpack_from(head, OFFSET_AT + 8)[0]
        begin = U64.unpack_from(head, DATA_AT)[0] + offset
        if not any(base <= begin and begin + count <= base + size for _, base, size in self.places):
            raise FaultError(f"{count} bytes at {begin:#x} are of no buffer")
        if is_set and head[TENSOR_BYTES]:
            raise FaultError("the worker is asked to write a file")

    def _do(self, frame: Frame) -> None:
        command, head = frame.command, frame.head
        if command == Command.ALLOC_BUFFER:
            self._make(ALLOC.unpack_from(head)[1])
        elif command == Command.FREE_BUFFER:
            self.places.remove(self._place(U64.unpack_from(head)[0]))
            self._has_graph = False
        elif command == Command.GRAPH_COMPUTE:
            self._has_graph = True

    def _make(self, size: int) -> None:
        held = sum(place[2] for place in self.places) + size
        if held > self._rules.memory_bytes or len(self.places) >= self._rules.buffers:
            raise FaultError(f"{held} bytes in {len(self.places) + 1} buffers")
        number = self.frames * NEXT
        self.places.append((NEW_POINTER + number, NEW_BASE + number, size))

    def _place(self, pointer: int) -> Place:
        for place in self.places:
            if place[0] == pointer:
                return place
        raise FaultError(f"{pointer:#x} is no buffer")

    def _answer(self, frame: Frame) -> bytes:
        command, head = frame.command, frame.head
        if command in WITH_DATA:
            size = U64.unpack_from(head, OFFSET_AT + 8)[0]
            return U64.pack(size) + bytes(min(size, DATA_BYTES))
        said = bytes(ANSWER_BYTES[command])
        if command == Command.ALLOC_BUFFER:
            pointer, _, size = self.places[-1]
            said = TWO_U64.pack(pointer, size)
        elif command == Command.BUFFER_GET_BASE:
            said = U64.pack(self._place(U64.unpack_from(head)[0])[1])
        elif command == Command.HELLO:
            said = HELLO_ANSWER
        return U64.pack(len(said)) + said
