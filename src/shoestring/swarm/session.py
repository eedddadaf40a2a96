"""One session at a node: a client's frames to its worker, and the worker's answers back.

The link's bytes and the worker's arrive in protocols, and what came in one read goes out in one
write: a token is half a dozen small frames, and each pause of a coroutine would cost as much as
all of them. Who does not read is not read from: each side is paused while the other's buffer is
full. Where an answer must be known before frames can be checked (a new buffer's address), frames
wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from shoestring.swarm.firewall import Firewall
from shoestring.swarm.splitting import Answers, Splitter
from shoestring.swarm.wire import BadFrameError, Frame

if TYPE_CHECKING:
    from shoestring.swarm.firewall import Rules
    from shoestring.swarm.wire import Answer

HIGH_BYTES = 1 << 20
"""Of one side's buffer; above it the other side is not read."""
MOST_PENDING = 4_096
"""Answers that a client may be owed; llama.cpp is owed one at a time."""


class Side(asyncio.Protocol):
    """One end of a session: what it sends is taken by ``take``, its end by ``gone``."""

    def __init__(self, session: Session, *, is_client: bool) -> None:
        self._session = session
        self._is_client = is_client
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        transport.set_write_buffer_limits(high=HIGH_BYTES)  # type: ignore[attr-defined]
        self.transport = transport  # type: ignore[assignment]  # of asyncio, of uvloop: no base

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        if self._is_client:
            self._session.take_requests(data)
        else:
            self._session.take_answers(data)

    def pause_writing(self) -> None:
        """Of asyncio: it does not read."""
        self._session.hold(not_reading=self)

    def resume_writing(self) -> None:
        """Of asyncio: it reads again."""
        self._session.go_on(reading=self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        who = "the client" if self._is_client else "the worker"
        how = "hung up" if exc is None else f"is gone ({type(exc).__name__})"
        self._session.end(f"{who} {how}")


class Session:
    """The state of one; ends when one side ends or says what it may not.

    Args:
        rules: what the client may have.

    Attributes:
        client: the protocol for the link, to be handed over once the worker is connected.
        worker: the protocol for the connection to the worker.
        refused: why the firewall ended it; None: it did not.
        moved_s: when a byte last came from either side, on the loop's clock.
        begun: the client has said something.
    """

    def __init__(self, rules: Rules) -> None:
        self.client = Side(self, is_client=True)
        self.worker = Side(self, is_client=False)
        self.refused: BadFrameError | None = None
        self.begun = False
        self.moved_s = asyncio.get_running_loop().time()
        self._firewall = Firewall(rules)
        self._splitter = Splitter(bulk_bytes=rules.memory_bytes, graph_tensors=rules.graph_tensors)
        self._answers = Answers()
        self._waiting: deque[Frame | bytes] = deque()
        self._unread: set[Side] = set()
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ended(self) -> str:
        """Wait for the end, and return in a few words how it came."""
        return await asyncio.shield(self._over)

    def take_requests(self, data: bytes) -> None:
        """Check what the client sends and pass it on."""
        self.begun, self.moved_s = True, asyncio.get_running_loop().time()
        try:
            self._waiting.extend(self._splitter.feed(data))
            self._pass_on()
        except BadFrameError as error:
            self._refuse(error)

    def take_answers(self, data: bytes) -> None:
        """Pass on what the worker answers."""
        self.moved_s = asyncio.get_running_loop().time()
        try:
            self._give(self._answers.feed(data))
            self._pass_on()
        except BadFrameError as error:
            self._refuse(error)

    def hold(self, not_reading: Side) -> None:
        """Read no more from the other side of one that does not read."""
        self._unread.add(not_reading)
        self._set_reading()

    def go_on(self, reading: Side) -> None:
        """Read from the other side again."""
        self._unread.discard(reading)
        self._set_reading()

    def end(self, how: str) -> None:
        """End both sides at once; the first word about it counts."""
        if not self._over.done():
            self._over.set_result(how)
        for side in (self.client, self.worker):
            if side.transport is not None:
                side.transport.abort()

    def _pass_on(self) -> None:
        out = bytearray()
        while self._waiting and not self._firewall.waits:
            piece = self._waiting.popleft()
            if isinstance(piece, Frame):
                self._request(piece, out)
            else:
                out += piece
        if out and self.worker.transport is not None:
            self.worker.transport.write(out)
        self._set_reading()

    def _request(self, frame: Frame, out: bytearray) -> None:
        verdict = self._firewall.request(frame)
        if verdict.to == "client":
            self._give(self._answers.place(frame.command, verdict.answer))
            return
        if verdict.to == "agent":
            raise BadFrameError("command", f"command {frame.command:#x} is not offered here")
        self._answers.expect(frame)
        out += frame.start()

    def _give(self, pieces: list[Answer | bytes]) -> None:
        out = bytearray()
        for piece in pieces:
            if isinstance(piece, bytes):
                out += piece
            else:
                told = self._firewall.answer(piece.command, piece.payload)
                out += piece._replace(payload=told).start()
        if out and self.client.transport is not None:
            self.client.transport.write(out)

    def _set_reading(self) -> None:
        # Also what is answered here goes to the client: one that does not read is not read from.
        busy = self._unread or self._waiting or self._answers.pending >= MOST_PENDING
        self._read(self.client, not busy)
        self._read(self.worker, self.client not in self._unread)

    @staticmethod
    def _read(side: Side, on: bool) -> None:  # noqa: FBT001
        transport = side.transport
        if transport is None or transport.is_closing() or transport.is_reading() is on:
            return
        if on:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _refuse(self, error: BadFrameError) -> None:
        self.refused = self.refused or error
        self.end(f"refused: {error.reason}: {error}")
