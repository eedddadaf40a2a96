"""One node's session of a stage: told what the stage is told, heard when it is first.

A stage may have several; each answers all questions in their order, so whichever is ahead gives
the next bytes, and the others are compared with it. A node that keeps weights by their SHA-256 is
asked for each whether it has it, many at a time; until all were answered nothing else is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from shoestring.swarm.link import set_reading
from shoestring.swarm.packing import packed
from shoestring.swarm.proof.steps import sets_activation
from shoestring.swarm.splitting import Answers
from shoestring.swarm.wire import (
    COMPUTES,
    HEADER,
    TENSOR_BYTES,
    TWO_U64,
    U64,
    WITH_DATA,
    BadFrameError,
    Command,
    Frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shoestring.swarm.boundaries import Carried
    from shoestring.swarm.journal import Entry, Reply
    from shoestring.swarm.proof.paying import Payer
    from shoestring.swarm.remote import Seat
    from shoestring.swarm.weights import Weight
    from shoestring.swarm.wire import Answer

HIGH_BYTES = 1 << 20
SLICE_BYTES = 1 << 18
MOST_TAKES = 256
"""Weights of which it may not have been said whether the node has them."""
MOST_TICKETS = 256
SETTLE_AFTER_S = 0.05
"""After the end of a window a claim is worded; there the next step begins, which goes first."""
LEAVE_S = 2.0
"""For a last receipt; the answer to what it holds is here already, or is on its way."""
HELD = b"\1"
MUST_AGREE = frozenset(
    {
        Command.HELLO,
        Command.ALLOC_BUFFER,
        Command.BUFFER_GET_BASE,
        Command.GET_ALIGNMENT,
        Command.GET_ALLOC_SIZE,
        Command.COPY_TENSOR,
    }
)
"""A node that answers these otherwise cannot take another's place."""


class Listening(Protocol):
    """What hears replicas: the conversation that they belong to."""

    def start(self, replica: Replica, reply: Reply, answer: Answer) -> None:
        """An answer begins; of those without data it is whole."""

    def data(self, reply: Reply, at: int, data: bytes) -> None:
        """Data of an answer, which begin at ``at``."""

    def finish(self, replica: Replica, reply: Reply, digest: bytes) -> None:
        """A replica's answer with data is whole."""

    def heard(self, replica: Replica) -> None:
        """What came in one read is told."""

    def settle(self, replica: Replica) -> None:
        """It takes more again, or takes no more for now; or it is where the others are."""

    def lose(self, replica: Replica, why: str) -> None:
        """It is of no use any more."""


class Question:
    """Something that we ask for ourselves: bytes of a tensor.

    Args:
        size: how many.
        answered: given them.
    """

    def __init__(self, size: int, answered: Callable[[bytes], None]) -> None:
        self.data = bytearray()
        self.size = size
        self.answered = answered


class Claim:
    """A receipt that the node is to sign."""


class Take:
    """A question whether the node has a weight.

    Args:
        entry: that sets it.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry


class Replica(asyncio.Protocol):
    """A session at a node, from our side; its link is handed over to it.

    Args:
        seat: its session.
        stores: whether the node keeps weights.
        conversation: that it belongs to.
        payer: has its receipts signed; None: there are none.

    Attributes:
        seat: as given.
        name: of the node.
        is_full: it takes no more for now.
        weights_sent_bytes: of those that the node had not.
        weights_held_bytes: of those that it had.
        weights_took_s: from the first byte that was sent of them to the last.
        gone: its link has ended.
    """

    def __init__(
        self, seat: Seat, conversation: Listening, *, stores: bool, payer: Payer | None = None
    ) -> None:
        self.seat = seat
        self.name = seat.remote.name
        self.is_full = False
        self.weights_sent_bytes = self.weights_held_bytes = 0
        self.weights_took_s = 0.0
        self._weights_since_s: float | None = None
        self.gone = asyncio.Event()
        self._stores = stores
        self._payer = payer
        self._is_leaving = False
        self._conversation = conversation
        self._transport: asyncio.Transport | None = None
        self._answers = Answers()
        self._asked: deque[Reply | Question | Take | Claim] = deque()
        self._current: Reply | Question | None = None
        self._at = 0
        self._hash = blake3()
        self._queue: deque[Entry] = deque()
        self._missing: deque[Entry] = deque()
        """Weights that the node has not."""
        self._rest: memoryview = memoryview(b"")
        """Of a body that is being sent."""
        self._takes = 0
        self._answered = 0
        """How many answers have begun."""
        self._told_at: dict[int, int] = {}
        """How many questions were asked before a ticket was told, of the last tickets."""
        self._settling = True
        """The conversation is to be told once it knows all."""

    @property
    def is_behind(self) -> bool:
        """Whether it was not told all yet."""
        return bool(self._queue or self._takes or self._missing or self._rest)

    @property
    def backlog(self) -> int:
        """How many entries it was not told yet."""
        return len(self._queue)

    @property
    def is_idle(self) -> bool:
        """Whether it was told all and has answered all."""
        return not (self.is_behind or self._asked or self._current)

    def tell(self, entries: Iterable[Entry]) -> None:
        """Tell it these, after all that it was told."""
        self._queue.extend(entries)
        self._pump()

    def ask(self, tensor: bytes, offset: int, size: int, answered: Callable[[bytes], None]) -> None:
        """Ask for bytes of a tensor, for ourselves, before what it is told later."""
        assert not self.is_behind
        head = bytearray(tensor + TWO_U64.pack(offset, size))
        frame = Frame(int(Command.GET_TENSOR), len(head), head)
        self._expect(frame, Question(size, answered))
        self._write(frame.start())

    def drop(self) -> None:
        """End its link; nothing is heard of it any more."""
        self._conversation = _NOBODY
        if self._transport is not None:
            self._transport.abort()

    def leave(self, step: int | None = None) -> None:
        """End its link once what it computed is signed for; it is told nothing any more.

        Its answers are still heard: what it pushed to another, that one signs for once it is here.

        Args:
            step: of llama-server's that ended last; None: it ends in mid-step.
        """
        if self.is_behind:
            step = None
        self._queue.clear()
        if self._payer is None or self._rest:
            self.drop()
            return
        self._is_leaving = True
        self.set_reading(on=True)
        self._payer.cut_last(step)
        self._settle()
        asyncio.get_running_loop().call_later(LEAVE_S, self.drop)

    def stop_signing(self, why: str) -> None:
        """Sign nothing more of its receipts."""
        if self._payer is not None:
            self._payer.stop(why)

    def has_taken(self, ticket: int) -> bool:
        """Tell whether a ticket's data are surely there: something asked after it was answered."""
        return ticket in self._told_at and self._answered > self._told_at[ticket]

    def give_up(self, why: str) -> None:
        """It is of no use any more."""
        if self._is_leaving:
            self.drop()
        else:
            self._conversation.lose(self, why)

    def set_reading(self, *, on: bool) -> None:
        """Hear it, or let it wait."""
        set_reading(self._transport, on=on)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio, by the link that is handed over."""
        transport.set_write_buffer_limits(high=HIGH_BYTES)  # type: ignore[attr-defined]
        self._transport = transport  # type: ignore[assignment]  # of asyncio, of uvloop: no base

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        try:
            for piece in self._answers.feed(data):
                if isinstance(piece, bytes):
                    self._add(piece)
                else:
                    self._begin(piece)
        except BadFrameError as error:
            self.give_up(f"answered what cannot be: {error}")
            return
        if not self._is_leaving:
            self._pump()
        self._conversation.heard(self)
        self._settle()

    def pause_writing(self) -> None:
        """Of asyncio."""
        self.is_full = self._settling = True
        self._conversation.settle(self)

    def resume_writing(self) -> None:
        """Of asyncio."""
        self.is_full = False
        self._pump()
        if not self.is_full:
            self._conversation.settle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        how = "hung up" if exc is None else f"is gone ({type(exc).__name__})"
        self.gone.set()
        self.give_up(how)

    def _settle(self) -> None:
        """Claim what may be claimed now; nobody waits for it."""
        if self._payer is None or self._rest:
            return
        if self._transport is None or self._transport.is_closing():
            return  # what cannot be said any more must not be promised either
        if (said := self._payer.claim()) is not None:
            frame = Frame(int(Command.SETTLE), len(said), bytearray(said))
            self._expect(frame, Claim())
            self._write(frame.start())
        elif self._is_leaving and not self._payer.has_open:
            self.drop()

    def _settle_soon(self) -> None:
        """Claim it after what is being done now."""
        asyncio.get_running_loop().call_soon(self._settle)

    def _expect(self, frame: Frame, asked: Reply | Question | Take | Claim) -> None:
        self._answers.expect(frame)
        self._asked.append(asked)

    def _pump(self) -> None:
        """Send what may be sent now, in as few writes as there are slices of a weight."""
        out = bytearray()
        while not self.is_full and len(out) < SLICE_BYTES:
            if self._rest:
                out += self._rest[:SLICE_BYTES]
                self._rest = self._rest[SLICE_BYTES:]
                self._time_weights()
            elif self._missing:
                self._send(self._missing.popleft(), out)
            elif not self._queue or not self._may_send(self._queue[0]):
                break
            elif (entry := self._queue.popleft()).weight is not None and self._stores:
                self._send_take(entry, entry.weight, out)
            else:
                self._send(entry, out)
            if len(out) >= SLICE_BYTES:
                self._write(out)
                out = bytearray()
        if out:
            self._write(out)
        if self._payer is not None and self._payer.is_due:
            self._payer.catch_up()  # now that it has gone
        if self._settling and not self.is_behind:
            self._settling = False
            self._conversation.settle(self)

    def _time_weights(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._weights_since_s is None:
            self._weights_since_s = now_s
        self.weights_took_s = now_s - self._weights_since_s

    def _may_send(self, entry: Entry) -> bool:
        """Whether the next entry need not wait for the node to say which weights it has."""
        if self._stores and entry.weight is not None:
            return self._takes < MOST_TAKES
        if self._takes or not self._may_compute(entry):
            return False
        carried = entry.carried
        if carried is None or entry.reply is not None or carried.reply.complete:
            return True
        if carried.route is not None and carried.route.target is self:
            return True
        if self._pump not in carried.waiting:
            carried.waiting.append(self._pump)
        return False

    def _may_compute(self, entry: Entry) -> bool:
        """Whether the node would: it computes a few steps without a receipt, and no more."""
        # Asked of a graph alone: to know, what was told before it is metered, and that would wait.
        if self._payer is None or entry.frame.command not in COMPUTES or not self._payer.is_full:
            return True
        self._payer.cut_if_none()
        self._settle_soon()
        return False

    def _send(self, entry: Entry, out: bytearray) -> None:
        if entry.frame.command == Command.SETTLE:
            self._close_window(U64.unpack(entry.frame.head)[0])
            return
        frame, body = self._worded(entry)
        if entry.reply is not None:
            self._expect(frame, entry.reply)
        out += frame.start()
        if entry.weight is not None:
            self.weights_sent_bytes += len(entry.weight.data)
            self._rest = entry.weight.data
            return
        if self._payer is not None:
            self._payer.note(frame, body, entry)
            carried = entry.carried if frame.command == Command.SET_PUSHED else None
            if carried is not None and carried.reply.digest is None:
                # It is known by another node's answer; after that this one may say nothing more.
                carried.waiting.append(self._settle_soon)
        out += body

    def _worded(self, entry: Entry) -> tuple[Frame, bytes | bytearray]:
        """Return a frame as this node is told it, and its body if that is no weight."""
        frame, carried = entry.frame, entry.carried
        if carried is not None and carried.route is not None:
            if entry.reply is not None and carried.route.source is self:
                return _ticketed(Command.GET_PUSH, frame, TENSOR_BYTES, carried), b""
            if entry.reply is None and carried.route.target is self:
                self._told_ticket(carried.ticket)
                return _ticketed(Command.SET_PUSHED, frame, TENSOR_BYTES + 1, carried), b""
        if entry.weight is not None or sets_activation(frame):
            return frame, entry.data
        return packed(frame, entry.data) or (frame, entry.data)

    def _close_window(self, step: int) -> None:
        if self._payer is not None:
            self._payer.cut(step)
            # The answer to the step that begins, mostly, brings the claim along before.
            asyncio.get_running_loop().call_later(SETTLE_AFTER_S, self._settle)

    def _told_ticket(self, ticket: int) -> None:
        self._told_at[ticket] = self._answered + len(self._asked)
        if len(self._told_at) > MOST_TICKETS:
            del self._told_at[next(iter(self._told_at))]

    def _send_take(self, entry: Entry, weight: Weight, out: bytearray) -> None:
        head = bytearray(entry.frame.head[:TENSOR_BYTES])
        head += TWO_U64.pack(0, len(weight.data)) + weight.sha256
        frame = Frame(int(Command.TAKE), len(head), head)
        self._takes += 1
        self._expect(frame, Take(entry))
        out += HEADER.pack(frame.command, frame.size) + head

    def _begin(self, answer: Answer) -> None:
        asked = self._asked.popleft()
        self._answered += 1
        if isinstance(asked, Take):
            self._takes -= 1
            assert asked.entry.weight is not None
            if answer.payload == HELD:
                self.weights_held_bytes += len(asked.entry.weight.data)
            else:
                self._missing.append(asked.entry)
            return
        if isinstance(asked, Claim):
            assert self._payer is not None
            self._payer.hear(answer.payload)
            return
        if not isinstance(asked, Question):
            self._conversation.start(self, asked, answer)
        if answer.command in WITH_DATA and answer.size:
            self._current, self._at, self._hash = asked, 0, blake3()

    def _add(self, part: bytes) -> None:
        current = self._current
        assert current is not None
        if isinstance(current, Question):
            current.data += part
            if len(current.data) == current.size:
                self._current = None
                current.answered(bytes(current.data))
            return
        self._conversation.data(current, self._at, part)
        self._hash.update(part)
        self._at += len(part)
        if self._at == current.size:
            self._current = None
            digest = self._hash.digest()
            if self._payer is not None:
                self._payer.answered(current, digest)
            self._conversation.finish(self, current, digest)

    def _write(self, data: bytes | bytearray) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _ticketed(command: Command, frame: Frame, offset_at: int, carried: Carried) -> Frame:
    """Word a read or a write of a tensor so that its data go from node to node."""
    offset = U64.unpack_from(frame.head, offset_at)[0]
    head = frame.head[:TENSOR_BYTES] + TWO_U64.pack(offset, carried.size)
    head += U64.pack(carried.ticket)
    return Frame(int(command), len(head), head)


class _Nobody:
    """Hears what a dropped replica still says."""

    def start(self, replica: Replica, reply: Reply, answer: Answer) -> None: ...
    def data(self, reply: Reply, at: int, data: bytes) -> None: ...
    def finish(self, replica: Replica, reply: Reply, digest: bytes) -> None: ...
    def heard(self, replica: Replica) -> None: ...
    def settle(self, replica: Replica) -> None: ...
    def lose(self, replica: Replica, why: str) -> None: ...


_NOBODY = _Nobody()
