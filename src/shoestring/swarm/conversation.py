"""What one connection of llama-server says at a stage, and the sessions that answer it.

All replicas are told the same. Whoever has the next bytes of an answer gives them; the others are
compared later. When one is lost another is recruited, told the journal, and then all that follows:
llama-server waits and knows nothing of it. Without any left the connection ends, and llama-server
with it.

What a recruit must compute again is bounded: after :data:`COPY_AFTER_S` of waiting for answers the
caches are copied here, between two steps. llama-server reads caches, too, to come back to a state
of a prompt: tensor by tensor, which would be a round trip each. What changed of those that are like
the first is copied at once instead, and it is answered from the copy; where that would be far more
than what is read, it is read from the node.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from shoestring.swarm.audit.recorder import Recorder
from shoestring.swarm.copying import CacheCopy
from shoestring.swarm.firewall_tensors import see_tensor
from shoestring.swarm.gathering import Gatherer
from shoestring.swarm.journal import Journal
from shoestring.swarm.link import set_reading
from shoestring.swarm.proof.windows import Counting
from shoestring.swarm.replica import MUST_AGREE
from shoestring.swarm.wire import (
    DATA_AT,
    OFFSET_AT,
    TWO_U64,
    U32,
    U64,
    Answer,
    BadFrameError,
    Command,
)

if TYPE_CHECKING:
    from shoestring.swarm.boundaries import Boundaries, Carried
    from shoestring.swarm.journal import Entry, Reply
    from shoestring.swarm.proof.windows import Windows
    from shoestring.swarm.remote import Remote
    from shoestring.swarm.replica import Replica
    from shoestring.swarm.routes import Routes
    from shoestring.swarm.weights import Weights

HIGH_BYTES = 1 << 20
COPY_AFTER_S = 0.5
"""Of waiting for answers that a recruit would have to compute again."""
COPY_SELDOM_S = 20.0
"""The same where nobody is there to be recruited: the journal must end somewhere."""
GRACE_S = 30.0
"""For placeholders to come back; they are sent by other threads of llama-server's."""
COPY_SHARE = 10
"""So many times as long as the last copy took must have been waited before the next is made."""
READ_TIMES = 8
"""So many times what llama-server reads of a cache may be copied of it."""
READ_BYTES = 1 << 20
"""That may always be copied of it: some builds read it in many small parts."""
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
        self._waited_s = 0.0
        self._copy: CacheCopy | None = None
        self._copy_took_s = 0.0
        self._reads: list[Entry] = []
        """Of caches, that wait for the copy."""
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
        """Whether nothing is owed, and nothing was set for the next step."""
        return not (self._owed or self._reads or self._in_step)

    def close_window(self) -> None:
        """Close the window of receipts here, if it holds a step."""
        if self._counting.holds_step:
            self._tell([self._end_window()])

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
                self._copy_caches(now_s)
            self._windows.move(now_s)
            told = [noted for entry in entries for noted in self._note(entry)]
        except BadFrameError as error:
            self._host.tell("misspoken", "llama-server", str(error))
            self.end()
            return
        self._tell(told)
        if self._reads and self._copy is None:
            place, _ = _place(self._reads[0])
            if not self._begin_copy(now_s, place):
                self._tell(self._unread())
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
            self._waited_s += asyncio.get_running_loop().time() - reply.asked_s
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
        """Go on without a replica."""
        if replica not in self.replicas:
            return
        self.replicas.remove(replica)
        self._new.discard(replica)
        self._recorder.lost(replica.seat)
        replica.drop()
        if self._copy is not None and self._copy.replica is replica:
            self._copy.give_up()
            self._recorder.uncopied(self._copy)
            self._copy = None
            self._tell(self._unread())
        self._set_reading()
        if not self.is_over:
            self._host.tell("lost", replica.name, why)
            self._host.recruit(self, replica)

    def _note(self, entry: Entry) -> list[Entry]:
        """Answer it here, or put it into the journal; return what replicas are told."""
        command, is_next = entry.frame.command, not (self._owed or self._reads)
        if command == Command.SET_TENSOR_HASH and is_next:
            # A weight is named by its SHA-256 (TAKE); to ask by FNV-1a too is a round trip more.
            self._out += Answer(command, len(NOT_CACHED), NOT_CACHED).start()
            return []
        if command == Command.GET_ALLOC_SIZE and self._host.on_cpu and is_next:
            # Asked for each new length of a prompt; buffers of ggml-cpu have no size of their own.
            size = see_tensor(entry.frame.head, U32.size).extent
            self._out += Answer(command, U64.size, U64.pack(size)).start()
            return []
        if command == Command.GET_TENSOR and not self._owed and self._reads_cache(entry):
            return []
        told = self._unread()
        if self._counting.ends_before(entry.frame, in_step=self._in_step):
            told.append(self._end_window())
        return [*told, self._enter(entry)]

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

    def _end_window(self) -> Entry:
        entry = self._counting.end()
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

    def _reads_cache(self, entry: Entry) -> bool:
        """Tell whether it reads a cache; if so it is answered now, or waits for a copy."""
        if self._copy is None and not self._reads and self._answer_from_copy(entry):
            return True  # while it is being copied it is taken for copied
        place, size = _place(entry)
        caches = self._journal.caches
        if not size or not caches.include(place, size):
            return False
        if caches.lacking(place) > max(READ_TIMES * size, READ_BYTES):
            return False
        self._reads.append(entry)
        return True

    def _answer_from_copy(self, entry: Entry) -> bool:
        """Answer a read of a cache if the copy has its bytes as they are now."""
        data, reply = self._journal.caches.current(*_place(entry)), entry.reply
        if data is None or reply is None:
            return False
        reply.payload, reply.away = b"", self._boundaries.away
        self._give(reply, Answer(entry.frame.command, reply.size, b""))
        self._out += data
        return True

    def _unread(self) -> list[Entry]:
        """Return the reads that waited for a copy, for replicas to answer."""
        reads, self._reads = self._reads, []
        return [self._enter(entry) for entry in reads]

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

    def _copy_caches(self, now_s: float) -> None:
        """Copy the caches here if a recruit would have to compute for long; a step begins."""
        after_s = COPY_AFTER_S if self._host.has_spare() else COPY_SELDOM_S
        enough_s = max(after_s, COPY_SHARE * self._copy_took_s)
        if self._copy is not None or self._waited_s < enough_s:
            return
        self._begin_copy(now_s)

    def _begin_copy(self, now_s: float, place: int | None = None) -> bool:
        """Copy caches from who was told all; return whether more of them is to come.

        Args:
            now_s: on the loop's clock.
            place: address of what llama-server reads; None: all are copied, for a recruit.
        """
        source = next((one for one in self.replicas if not one.is_behind), None)
        if not self._computes or self._in_step or source is None:
            return False
        if place is None:
            self._waited_s = 0.0
        self._copy = CacheCopy(
            source, self._journal.mark, self._journal.caches, now_s, self._copied, place
        )
        self._recorder.copying(self._copy)
        self._copy.ask()
        return self._copy is not None

    def _copied(self, copy: CacheCopy) -> None:
        if copy is self._copy:
            self._recorder.copied(copy)
            if copy.place is None:
                self._journal.condense(copy.mark)
                self._copy_took_s = asyncio.get_running_loop().time() - copy.begun_s
            self._copy = None
            self.counts["copies"] += 1
            while self._reads and self._answer_from_copy(self._reads[0]):
                del self._reads[0]
            self._tell(self._unread())

    def _flush(self) -> None:
        if self._suspects & self._boundaries.away:
            return
        self._suspects = frozenset()
        if self._out and self._transport is not None:
            self._transport.write(self._out)
            self._out = bytearray()

    def _set_reading(self) -> None:
        # One that lags is left behind as long as another takes what comes.
        takes = any(not replica.is_full for replica in self.replicas)
        set_reading(self._transport, on=takes)
        for replica in self.replicas:
            replica.set_reading(on=not self._near_is_full)


def _place(entry: Entry) -> tuple[int, int]:
    """Return the address that a read begins at, and how many bytes it is."""
    head = entry.frame.head
    offset, size = TWO_U64.unpack_from(head, OFFSET_AT)
    return U64.unpack_from(head, DATA_AT)[0] + offset, size
