"""One session at a node: a client's frames to its worker, and the worker's answers back.

The link's bytes and the worker's arrive in protocols, and what came in one read goes out in one
write: a token is half a dozen small frames, and each pause of a coroutine would cost as much as
all of them. Who does not read is not read from: each side is paused while the other's buffer is
full. Where an answer must be known before frames can be checked (a new buffer's address), frames
wait; so they do while a weight is read from the store or a large body unpacked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from shoestring.swarm.firewall import Firewall
from shoestring.swarm.link import set_reading
from shoestring.swarm.own_commands import WRITING_BYTES, Shelf
from shoestring.swarm.packing import PART_BYTES, Unpacker
from shoestring.swarm.pushing import Inbox
from shoestring.swarm.sides import HIGH_BYTES, Side
from shoestring.swarm.splitting import Answers, Splitter
from shoestring.swarm.wire import (
    OFFSET_AT,
    TENSOR_BYTES,
    TWO_U64,
    U64,
    WITH_DATA,
    BadFrameError,
    Command,
    Frame,
    set_tensor_start,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shoestring.swarm.firewall import Rules
    from shoestring.swarm.proof.earning import Earner
    from shoestring.swarm.pushing import Outgoing
    from shoestring.swarm.store import Store
    from shoestring.swarm.wire import Answer

MOST_PENDING = 4_096
"""Answers that a client may be owed; llama.cpp is owed one at a time."""


class Session:
    """The state of one; ends when one side ends or says what it may not.

    Args:
        rules: what the client may have.
        store: of weights; None: the node has none.
        earner: has it paid for; None: it costs nothing, and has no receipts.

    Attributes:
        client: the protocol for the link, to be handed over once the worker is connected.
        worker: the protocol for the connection to the worker.
        refused: why the firewall ended it; None: it did not.
        moved_s: when a byte last came from either side, on the loop's clock.
        begun: the client has said something.
        heard_bytes: from the client.
        told_bytes: to the client.
        shelf: what it took from the store and put there.
        inbox: what other nodes push to it.
    """

    def __init__(
        self, rules: Rules, store: Store | None = None, earner: Earner | None = None
    ) -> None:
        self.client = Side(self, is_client=True)
        self.worker = Side(self, is_client=False)
        self.refused: BadFrameError | None = None
        self.begun = False
        self.moved_s = asyncio.get_running_loop().time()
        self.heard_bytes = self.told_bytes = 0
        self.shelf = Shelf(store, self._set_reading)
        self.inbox = Inbox()
        self._firewall = Firewall(rules)
        self._splitter = Splitter(bulk_bytes=rules.memory_bytes, graph_tensors=rules.graph_tensors)
        self._answers = Answers()
        self._waiting: deque[Frame | bytes] = deque()
        self._body: Callable[[bytes, bytearray], None] | None = None
        """What is done with the body that comes; None: it is passed on."""
        self._own = {
            Command.TAKE: self._take,
            Command.SET_PACKED: self._unpack,
            Command.GET_PUSH: self._push,
            Command.SET_PUSHED: self._set_pushed,
            Command.SETTLE: self._settle,
        }
        self._earner = earner
        self._outgoing: Outgoing | None = None
        self._pushed: deque[int | None] = deque()
        """Tickets of what the worker is asked for; None: it goes to the client alone."""
        self._pushing = False
        self._work: asyncio.Task[None] | None = None
        """For which frames wait."""
        self._unread: set[Side] = set()
        self._worker_reads = asyncio.Event()
        self._worker_reads.set()
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def push_to(self, outgoing: Outgoing) -> None:
        """Send what is asked for with a ticket to another node too; a former way ends."""
        if self._outgoing is not None:
            self._outgoing.abort()
        self._outgoing = outgoing
        self._pushing = False  # the new way was not told what the answer that now comes is
        if self._over.done():
            outgoing.abort()

    async def ended(self) -> str:
        """Wait for the end, and return in a few words how it came."""
        return await asyncio.shield(self._over)

    def take_requests(self, data: bytes) -> None:
        """Check what the client sends and pass it on."""
        self.begun, self.moved_s = True, asyncio.get_running_loop().time()
        self.heard_bytes += len(data)
        try:
            self._waiting.extend(self._splitter.feed(data))
            self._pass_on()
        except BadFrameError as error:
            self.refuse(error)

    def take_answers(self, data: bytes) -> None:
        """Pass on what the worker answers."""
        self.moved_s = asyncio.get_running_loop().time()
        try:
            self._give(self._answers.feed(data))
            self._pass_on()
        except BadFrameError as error:
            self.refuse(error)

    def hold(self, not_reading: Side) -> None:
        """Read no more from the other side of one that does not read."""
        self._unread.add(not_reading)
        if not_reading is self.worker:
            self._worker_reads.clear()
        self._set_reading()

    def go_on(self, reading: Side) -> None:
        """Read from the other side again, after what waited for this one."""
        self._unread.discard(reading)
        if reading is self.worker:
            self._worker_reads.set()
        try:
            self._pass_on()
        except BadFrameError as error:
            self.refuse(error)

    def end(self, how: str) -> None:
        """End both sides at once; the first word about it counts."""
        if not self._over.done():
            self._over.set_result(how)
        for side in (self.client, self.worker):
            if side.transport is not None:
                side.transport.abort()
        self.inbox.end()
        if self._outgoing is not None:
            self._outgoing.abort()

    async def close(self) -> None:
        """Wait until nothing of it is going on any more, after its end."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})
        await self.shelf.close()

    def _pass_on(self) -> None:
        out = bytearray()
        while self._waiting and self._may_pass():
            piece = self._waiting.popleft()
            if isinstance(piece, Frame):
                self._request(piece, out)
                continue
            if self._earner is not None:
                self._earner.hear(piece)
            if self._body is None:
                out += piece
            else:
                self._body(piece, out)
            if len(out) >= HIGH_BYTES:  # a few bytes that were packed may be very many
                self._write(out)
                out = bytearray()
        self._write(out)
        self._set_reading()

    def _may_pass(self) -> bool:
        """Tell whether the next frame waits for nothing: an answer, own work, or the worker."""
        return not self._firewall.waits and self._work is None and self.worker not in self._unread

    def _write(self, out: bytearray) -> None:
        if out and self.worker.transport is not None:
            self.worker.transport.write(out)
        if self._earner is not None and self._earner.is_due:
            self._earner.catch_up()  # now that it has gone on

    def _request(self, frame: Frame, out: bytearray) -> None:
        # What is metered has the client's addresses; the firewall puts the worker's into the head.
        metered = frame if self._earner is None else frame._replace(head=frame.head[:])
        verdict = self._firewall.request(frame)
        if self._earner is not None:
            self._earner.note(metered)
        if verdict.to == "client":
            self._give(self._answers.place(frame.command, verdict.answer))
            return
        if verdict.to == "agent":
            self._own[Command(frame.command)](frame, out)
            return
        self._body = self._keep if self.shelf.awaits(frame) else None
        self._expect(frame, None)
        out += frame.start()

    def _expect(self, frame: Frame, ticket: int | None) -> None:
        self._answers.expect(frame)
        if frame.command in WITH_DATA:
            self._pushed.append(ticket)

    def _push(self, frame: Frame, out: bytearray) -> None:
        """Ask the worker for data that go to the client and to another node."""
        ticket = U64.unpack_from(frame.head, OFFSET_AT + TWO_U64.size)[0]
        asked = frame._replace(
            command=int(Command.GET_TENSOR),
            size=frame.size - U64.size,
            head=frame.head[: -U64.size],
        )
        self._expect(asked, ticket)
        out += asked.start()

    def _set_pushed(self, frame: Frame, _out: bytearray) -> None:
        """Set what another node pushes; frames wait for it."""
        offset, size = TWO_U64.unpack_from(frame.head, OFFSET_AT)
        ticket = U64.unpack_from(frame.head, OFFSET_AT + TWO_U64.size)[0]
        came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.inbox.want(ticket, size, came.set_result)
        start = set_tensor_start(bytes(frame.head[:TENSOR_BYTES]), offset, size)

        async def wait() -> None:
            data = await came
            if self._earner is not None:
                self._earner.hear(data)
            await self._feed(start + data)

        self._wait_for(wait)

    def _take(self, frame: Frame, _out: bytearray) -> None:
        async def take() -> None:
            answer = await self.shelf.take(frame, self._feed)
            self._give(self._answers.place(frame.command, answer))

        self._wait_for(take)

    def _settle(self, frame: Frame, _out: bytearray) -> None:
        """Sign for what was computed; the client says so after it has all answers to that."""
        if self._earner is None:
            raise BadFrameError("terms", "SETTLE in a session without terms")
        self._give(self._answers.place(frame.command, self._earner.judge(bytes(frame.head))))

    def _keep(self, part: bytes, out: bytearray) -> None:
        self.shelf.keep(part)
        out += part

    def _unpack(self, frame: Frame, out: bytearray) -> None:
        unpacker = Unpacker(frame)
        out += unpacker.start

        def at_once(part: bytes, out: bytearray) -> None:
            for found in unpacker.unpack(part):
                out += found

        def bit_by_bit(part: bytes, _out: bytearray) -> None:
            async def unpack() -> None:
                parts = unpacker.unpack(part)
                while found := await asyncio.to_thread(next, parts, b""):
                    await self._feed(found)

            self._wait_for(unpack)

        self._body = at_once if unpacker.size <= PART_BYTES else bit_by_bit

    def _wait_for(self, work: Callable[[], Awaitable[None]]) -> None:
        """Let frames wait until this is done."""

        async def run() -> None:
            try:
                await work()
                self._work = None
                self._pass_on()
            except BadFrameError as error:
                self.refuse(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, frames would wait for ever
                self.end(f"failed here: {type(error).__name__}: {error}")

        self._work = asyncio.create_task(run())

    async def _feed(self, data: bytes) -> None:
        """Send to the worker; return when it takes more."""
        if self.worker.transport is not None:
            self.worker.transport.write(data)
        self.moved_s = asyncio.get_running_loop().time()
        await self._worker_reads.wait()

    def _give(self, pieces: list[Answer | bytes]) -> None:
        out = bytearray()
        for piece in pieces:
            if isinstance(piece, bytes):
                out += piece
                if self._pushing and self._outgoing is not None:
                    self._outgoing.add(piece)
                if self._earner is not None:
                    self._earner.tell(piece)
            else:
                self._begin_data(piece)
                told = self._firewall.answer(piece.command, piece.payload)
                out += piece._replace(payload=told).start()
        if out and self.client.transport is not None:
            self.told_bytes += len(out)
            self.client.transport.write(out)

    def _begin_data(self, answer: Answer) -> None:
        self._pushing = False
        if answer.command not in WITH_DATA:
            return
        if self._earner is not None:
            self._earner.begin()
        if (ticket := self._pushed.popleft()) is not None:
            self._pushing = True
            if self._outgoing is not None:
                self._outgoing.begin(ticket, answer.size)

    def _set_reading(self) -> None:
        # Also what is answered here goes to the client: one that does not read is not read from.
        busy = self._unread or self._waiting or self._answers.pending >= MOST_PENDING
        set_reading(
            self.client.transport, on=not (busy or self.shelf.waiting_bytes > WRITING_BYTES)
        )
        set_reading(self.worker.transport, on=self.client not in self._unread)

    def refuse(self, error: BadFrameError) -> None:
        """End it because of what somebody said."""
        self.refused = self.refused or error
        self.end(f"refused: {error.reason}: {error}")
