"""What one connection of llama-server says at a stage, and the sessions that answer it.

All replicas are told the same. Whoever has the next bytes of an answer gives them; the others are
compared later. When one is lost another is recruited, told the journal, and then all that follows:
llama-server waits and knows nothing of it. Without any left the connection ends, and llama-server
with it. So that a recruit need not compute all again, caches are copied here
(:mod:`shoestring.swarm.copying`).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from shoestring.swarm.audit.recorder import Recorder
from shoestring.swarm.copying import Copying
from shoestring.swarm.firewall_tensors import see_tensor
from shoestring.swarm.gathering import Gatherer
from shoestring.swarm.journal import Journal
from shoestring.swarm.link import set_reading
from shoestring.swarm.proof.windows import Counting
from shoestring.swarm.replica import MUST_AGREE
from shoestring.swarm.wire import U32, U64, Answer, BadFrameError, Command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.swarm.boundaries import Boundaries, Carried
    from shoestring.swarm.journal import Entry, Reply
    from shoestring.swarm.proof.windows import Windows
    from shoestring.swarm.remote import Remote
    from shoestring.swarm.replica import Replica
    from shoestring.swarm.routes import Routes
    from shoestring.swarm.weights import Weights

HIGH_BYTES = 1 << 20
GRACE_S = 30.0
"""For placeholders to come back; they are sent by other threads of llama-server's."""
NOT_CACHED = b"\0"
MOST_BEHIND = 8_192
"""Entries that one of several may have to be told yet: about a thousand tokens."""


class Host(Protocol):
    """What has conversations: a stage."""

    number: int
    on_cpu: bool

    def opened(self, conversation: Conversation) -> None:
        """Llama-server has connected."""

    def recruit(self, conversation: Conversation, lost: Replica) -> None:
        """Find another in the place of one that is lost."""

    def closed(self, conversation: Conversation) -> None:
        """It is over; called once."""

    def computes(self, conversation: Conversation) -> None:
        """It computes for the first time: the weights are loaded."""

    def has_spare(self) -> bool:
        """Tell whether there is anybody to recruit."""

    def tell(self, what: str, who: str, why: str) -> None:
        """Take note of something that happened."""


class Conversation(asyncio.Protocol):
    """The side of llama-server, and what it is told.

    Args:
        host: the stage.
        weights: of llama-server's model.
        boundaries: of all stages of the chain.
        routes: likewise.
        windows: likewise.

    Attributes:
        replicas: those that are there.
        joining: nodes at which sessions are being opened for it.
        tried: nodes that it has had, or could not have.
        counts: of answers compared, of those that differed, of copies of the caches.
    """

    def __init__(
        self,
        host: Host,
        weights: Weights,
        boundaries: Boundaries,
        routes: Routes,
        windows: Windows,
    ) -> None:
        self.replicas: list[Replica] = []
        self.joining: set[Remote] = set()
        self.tried: set[Remote] = set()
        self.counts: Counter[str] = Counter()
        self._host = host
        self._boundaries, self._routes, self._windows = boundaries, routes, windows
        self._counting = Counting(windows.every)
        self._gatherer = Gatherer(weights)
        self._journal = Journal()
        self._recorder = Recorder(
            windows.auditing, host.number, self._journal.entries,
            lambda: [replica.seat for replica in self.replicas],
        )  # fmt: skip
        self._computes = False
        self._in_step = False
        """Inputs were set for a graph that was not computed yet."""
        self._owed: deque[Reply] = deque()
        self._carried: dict[Reply, Carried] = {}
        """What llama-server was given placeholders for and did not come yet."""
        self._out = bytearray()
        self._suspects: frozenset[bytes] = frozenset()
        """Placeholders that must come back before more is given out."""
        self._transport: asyncio.Transport | None = None
        self._near_is_full = False
        self._copying = Copying(
            self._journal, self._recorder, self._copy_source, self._give_copied,
            lambda reads: self._tell(self._enter_all(reads)), self.counts,
        )  # fmt: skip
        self._new: set[Replica] = set()
        """They do not know all yet."""

    @property
    def is_over(self) -> bool:
        """Whether llama-server has gone."""
        return self._transport is None or self._transport.is_closing()

    @property
    def steps(self) -> int:
        """That llama-server had computed."""
        return self._counting.steps

    @property
    def is_between_steps(self) -> bool:
        """Whether nothing is owed, nothing was set for the next step, and no word waits unread."""
        is_held = bool(self.replicas) and all(replica.is_full for replica in self.replicas)
        return not (self._is_owing or self._in_step or is_held)

    @property
    def number(self) -> int:
        """Of its stage."""
        return self._host.number

    def close_window(self, *, is_whole: bool) -> None:
        """Close the window of receipts here, if it holds a step.

        Args:
            is_whole: all that the last step gives the next stage was asked for.
        """
        if self._counting.holds_step:
            self._tell([self._end_window(is_whole=is_whole)])

    def join(self, replica: Replica) -> None:
        """Have one more session answer: it is told the journal first."""
        self.replicas.append(replica)
        self._new.add(replica)
        replica.tell(self._journal.entries())
        self._set_reading()

    def told(self) -> list[Entry]:
        """Return what its replicas were told, as far as it counts."""
        return self._journal.entries()

    def end(self) -> None:
        """End all of it now, and with it those of the other stages once it computes.

        llama-server cannot go on, and would wait for what this one was to give to the next.
        """
        self._boundaries.on_end.discard(self.end)
        if self._transport is not None:
            self._transport.abort()
        for replica in self.replicas:
            replica.leave(self.steps if self.is_between_steps else None)
        self.replicas.clear()
        self._new.clear()
        for end in tuple(self._boundaries.on_end) if self._computes else ():
            end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio, which has switched Nagle's algorithm off."""
        transport.set_write_buffer_limits(high=HIGH_BYTES)  # type: ignore[attr-defined]
        self._transport = transport  # type: ignore[assignment]  # of asyncio, of uvloop: no base
        self._set_reading()
        self._boundaries.on_back.add(self._flush)
        self._boundaries.on_end.add(self.end)
        self._windows.open(self)
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        """Of asyncio: llama-server says something."""
        now_s = asyncio.get_running_loop().time()
        try:
            entries = self._gatherer.feed(data, now_s)
            if entries and not self._owed:
                self._copying.copy_if_due(now_s, has_spare=self._host.has_spare())
            begins_step = bool(entries) and self._counting.begins_step(
                entries[0].frame, in_step=self._in_step
            )
            self._windows.move(now_s, begins_step=begins_step)
            told = [noted for entry in entries for noted in self._note(entry)]
        except BadFrameError as error:
            self._host.tell("misspoken", "llama-server", str(error))
            self.end()
            return
        self._tell(told)
        self._copying.copy_for_reads(now_s)
        for replica in tuple(self.replicas):
            if replica.backlog > MOST_BEHIND and len(self.replicas) > 1:
                self.lose(replica, "is too far behind the others")
        self._flush()
        self._set_reading()

    def pause_writing(self) -> None:
        """Of asyncio."""
        self._near_is_full = True
        self._set_reading()

    def resume_writing(self) -> None:
        """Of asyncio."""
        self._near_is_full = False
        self._set_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Of asyncio."""
        self.end()
        self._boundaries.on_back.discard(self._flush)
        self._boundaries.forget(self)
        self._windows.close(self)
        self._recorder.end()
        self._host.closed(self)

    def start(self, replica: Replica, reply: Reply, answer: Answer) -> None:
        """Of replicas: an answer begins."""
        if not reply.begun:
            reply.payload = answer.payload
            if reply.kept is None:
                self._give(reply, answer)
        elif answer.command in MUST_AGREE and answer.payload != reply.payload:
            self.lose(replica, f"is not as the others: {Command(answer.command).name}")

    def data(self, reply: Reply, at: int, data: bytes) -> None:
        """Of replicas: data of an answer."""
        fresh = reply.fresh(at, data)
        if reply.kept is None:
            self._out += fresh
            self._recorder.hear(reply, fresh)
        else:
            reply.kept += fresh

    def finish(self, replica: Replica, reply: Reply, digest: bytes) -> None:
        """Of replicas: the data of an answer are whole."""
        self._recorder.answered(replica.seat, reply, digest)
        if reply.digest is None:
            reply.digest = digest
            self._copying.waited(asyncio.get_running_loop().time() - reply.asked_s)
            if reply.kept is None:
                self._owed.remove(reply)
                self._boundaries.answered(reply, digest)
            else:
                carried = self._carried.pop(reply)
                carried.came()
                self._routes.came(carried)
            return
        self.counts["compared"] += 1
        if reply.digest != digest:
            self.counts["differing"] += 1
            self._host.tell("differs", replica.name, "its answer is not that of the first")

    def heard(self, replica: Replica) -> None:  # noqa: ARG002 - others may want to know who
        """Of replicas: all that came in one read is told."""
        self._flush()

    def settle(self, replica: Replica) -> None:
        """Of replicas: it takes more again, or no more for now, or knows all."""
        if replica in self._new and not replica.is_behind:
            self._new.remove(replica)
            self._host.tell("ready", replica.name, "")
        self._set_reading()

    def lose(self, replica: Replica, why: str) -> None:
        """Go on without a replica; one that has not joined yet is ended alone."""
        replica.drop()
        if replica not in self.replicas:
            return
        self.replicas.remove(replica)
        self._new.discard(replica)
        self._recorder.lost(replica.seat)
        self._copying.lose(replica)
        self._set_reading()
        if not self.is_over:
            self._host.tell("lost", replica.name, why)
            self._host.recruit(self, replica)

    def _note(self, entry: Entry) -> list[Entry]:
        """Answer it here, or put it into the journal; return what replicas are told."""
        command, is_next = entry.frame.command, not self._is_owing
        if command == Command.SET_TENSOR_HASH and is_next:
            # A weight is named by its SHA-256 (TAKE); to ask by FNV-1a too is a round trip more.
            self._out += Answer(command, len(NOT_CACHED), NOT_CACHED).start()
            return []
        if command == Command.GET_ALLOC_SIZE and self._host.on_cpu and is_next:
            # Asked for each new length of a prompt; buffers of ggml-cpu have no size of their own.
            size = see_tensor(entry.frame.head, U32.size).extent
            self._out += Answer(command, U64.size, U64.pack(size)).start()
            return []
        if command == Command.GET_TENSOR and not self._owed and self._copying.takes(entry):
            return []
        told = self._enter_all(self._copying.release())
        if self._counting.ends_before(entry.frame, in_step=self._in_step):
            told.append(self._end_window())
        return [*told, self._enter(entry)]

    def _enter_all(self, entries: Iterable[Entry]) -> list[Entry]:
        return [self._enter(entry) for entry in entries]

    def _enter(self, entry: Entry) -> Entry:
        """Put it into the journal; return it as replicas are told it."""
        command, number = entry.frame.command, self._host.number
        if command == Command.GRAPH_COMPUTE:
            if not self._computes:
                self._computes = True
                self._host.computes(self)
                self._recorder.turn()
            self._boundaries.computed(self, entry.frame)
            self._in_step = False
        elif command == Command.GRAPH_RECOMPUTE:
            self._in_step = False
            self._boundaries.computed(self, None)
        elif command == Command.SET_TENSOR and entry.weight is None:
            self._in_step = True
            carried = self._boundaries.set(number, entry.body)
            if carried is not None:
                entry = replace(entry, body=b"", carried=carried)
        if entry.reply is not None:
            entry = self._ask(entry, entry.reply)
        self._journal.add(entry)
        self._recorder.add(entry)
        return entry

    def _end_window(self, *, is_whole: bool = True) -> Entry:
        entry = self._counting.end(is_whole=is_whole)
        self._journal.add(entry)
        self._recorder.turn()
        return entry

    def _ask(self, entry: Entry, reply: Reply) -> Entry:
        """Note that llama-server is owed an answer, or give it a placeholder."""
        if entry.frame.command == Command.GET_TENSOR:
            carried = self._boundaries.read(self, self._host.number, entry)
            if carried is not None and not self._owed:
                carried.route = self._routes.find(self._host.number, carried.target)
                if carried.route is not None:
                    self._out += Answer(entry.frame.command, reply.size, b"").start()
                    self._out += self._boundaries.replace(carried)
                    reply.kept = bytearray()
                    self._carried[reply] = carried
                    return replace(entry, carried=carried)
            reply.away = self._boundaries.away
        self._owed.append(reply)
        return entry

    @property
    def _is_owing(self) -> bool:
        """Whether llama-server waits for an answer."""
        return bool(self._owed) or self._copying.is_awaited

    def _copy_source(self) -> Replica | None:
        """Return of whom caches may be asked now, between two steps."""
        if not self._computes or self._in_step:
            return None
        return next((one for one in self.replicas if not one.is_behind), None)

    def _give_copied(self, entry: Entry, data: bytes) -> None:
        """Answer a read of a cache."""
        assert entry.reply is not None, "it is a question"
        entry.reply.payload, entry.reply.away = b"", self._boundaries.away
        self._give(entry.reply, Answer(entry.frame.command, entry.reply.size, b""))
        self._out += data

    def _tell(self, entries: list[Entry]) -> None:
        for replica in tuple(self.replicas):
            replica.tell(entries)

    def _give(self, reply: Reply, answer: Answer) -> None:
        """Begin to give an answer to llama-server."""
        if reply.away & self._boundaries.away:
            self._suspects = reply.away
            asyncio.get_running_loop().call_later(GRACE_S, self._judge, reply.away)
        self._out += answer.start()
        if reply.complete and reply in self._owed:  # what a copy answers is owed by nobody
            self._owed.remove(reply)

    def _judge(self, suspects: frozenset[bytes]) -> None:
        """End what was computed from placeholders that went nowhere."""
        lost = self._boundaries.lose(suspects)
        if lost and not self.is_over:
            self._host.tell("misread", "llama-server", f"{', '.join(lost)} went to no stage")
            self.end()

    def _flush(self) -> None:
        if self._suspects & self._boundaries.away:
            return
        self._suspects = frozenset()
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._out)
            self._out = bytearray()

    def _set_reading(self) -> None:
        # One that lags is left behind as long as another takes what comes.
        takes = any(not replica.is_full for replica in self.replicas)
        set_reading(self._transport, on=takes)
        for replica in self.replicas:
            replica.set_reading(on=not self._near_is_full)
