"""What of a window is kept so that it can be run again: where it began, what was told, the answers.

A window is what lies between two receipts of a session (docs/decisions/0007). Where it begins is
what the journal would tell a recruit; then follows every frame in its order, with the BLAKE3 of
what each member answered. The node is told nothing of it, neither before nor after.

Copies of the caches, which a node gives beside its work, are answers too: else a false copy would
be believed by whoever runs a window again from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from blake3 import blake3

from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.proof.steps import kind_of
from shoestring.swarm.wire import TWO_U64, U32, WITH_DATA, Command, Frame, tensor_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoestring.swarm.caches import Piece
    from shoestring.swarm.copying import CacheCopy
    from shoestring.swarm.remote import Seat

MOST_DATA_BYTES: Final = 64 << 20
"""Of a window's answers; beyond it there are their digests alone."""
MOST_LAST: Final = 4
"""Windows of which a member's answers may come late."""
TYPE_AT: Final = 8


@dataclass(frozen=True)
class Question:
    """What was asked for in a window.

    Attributes:
        entry: the frame.
        name: of the tensor.
        type: number of its kind of numbers.
        is_activation: a receipt's out-root is over it.
    """

    entry: Entry
    name: str
    type: int
    is_activation: bool


@dataclass(frozen=True)
class Given:
    """What one side answered to the questions of a window; None: nothing, or it was not kept.

    Attributes:
        digests: BLAKE3 of the data of each.
        data: of each.
    """

    digests: tuple[bytes | None, ...]
    data: tuple[bytes | None, ...]


class Auditing(Protocol):
    """Who decides what is recorded, and takes it."""

    def record(self, stage: int, begin: Callable[[], list[Entry]]) -> Recording | None:
        """Return where a window that begins now is to be kept; None: it is not."""

    def drop(self, recording: Recording) -> None:
        """Forget a recording that will never be whole."""


class Recording:
    """One window of one stage.

    Args:
        stage: its number.
        begin: what leads to where it begins.
        done: called once, when it is closed and somebody has answered all of it.

    Attributes:
        stage: as given.
        begin: as given.
        entries: of the window, in their order.
        is_done: it is closed, and somebody has answered all of it.
    """

    def __init__(
        self, stage: int, begin: Sequence[Entry], done: Callable[[Recording], None]
    ) -> None:
        self.stage, self.begin = stage, tuple(begin)
        self.entries: list[Entry] = []
        self._done = done
        self.is_done = False
        self._digests: dict[Seat, dict[Reply, bytes]] = {}
        self._data: dict[Reply, bytearray] = {}
        self._data_bytes = 0
        self._asked: set[Reply] = set()
        self._owed: set[Reply] = set()
        self._is_closed = False

    def add(self, entry: Entry) -> None:
        """Take the next frame."""
        self.entries.append(entry)
        if entry.reply is not None and entry.frame.command in WITH_DATA:
            self._asked.add(entry.reply)
            self._owed.add(entry.reply)

    def probe(self, pieces: Sequence[Piece]) -> list[Reply]:
        """Take note that the caches are copied here; what comes is told to :meth:`copied`."""
        asked = []
        for piece in pieces:
            head = bytearray(piece.cache.tensor + TWO_U64.pack(piece.start, piece.size))
            frame = Frame(int(Command.GET_TENSOR), len(head), head)
            entry = Entry(frame, reply=Reply(frame, 0.0))
            self.add(entry)
            assert entry.reply is not None
            asked.append(entry.reply)
        return asked

    def hear(self, reply: Reply, data: bytes) -> None:
        """Take data of an answer that nobody gave before."""
        if reply in self._owed and self._data_bytes + len(data) <= MOST_DATA_BYTES:
            self._data_bytes += len(data)
            self._data.setdefault(reply, bytearray()).extend(data)

    def answered(self, seat: Seat, reply: Reply, digest: bytes) -> None:
        """Take the digest of a member's answer to something of the window."""
        if reply in self._asked:
            self._digests.setdefault(seat, {})[reply] = digest
            self._owed.discard(reply)
            self._end_if_whole()

    def give_up(self, replies: Sequence[Reply]) -> None:
        """Forget questions of ours: who was asked is lost."""
        lost = set(replies)
        self.entries = [one for one in self.entries if one.reply not in lost]
        self._asked -= lost
        self._owed -= lost
        self._end_if_whole()

    def close(self) -> None:
        """Nothing more is told in it."""
        self._is_closed = True
        self._end_if_whole()

    @property
    def seats(self) -> list[Seat]:
        """Who answered something of it."""
        return list(self._digests)

    def questions(self) -> list[Question]:
        """Return what was asked for, in its order."""
        return [
            _question(entry)
            for entry in self.entries
            if entry.reply is not None and entry.frame.command in WITH_DATA
        ]

    def given(self, seat: Seat) -> Given:
        """Return what a member answered."""
        replies = [one.entry.reply for one in self.questions() if one.entry.reply is not None]
        digests = self._digests.get(seat, {})
        return Given(
            tuple(digests.get(reply) for reply in replies),
            # What was given on is whoever's came first; members of one kind must agree.
            tuple(self._kept(reply) if reply in digests else None for reply in replies),
        )

    def _kept(self, reply: Reply) -> bytes | None:
        data = self._data.get(reply) if reply.kept is None else reply.kept
        return bytes(data) if data is not None and len(data) == reply.size else None

    def _end_if_whole(self) -> None:
        if self._is_closed and not self._owed and not self.is_done:
            self.is_done = True
            self._done(self)


class Recorder:
    """Records windows of one connection of llama-server, those that are drawn.

    Args:
        auditing: who draws; None: nobody, and nothing is recorded.
        stage: its number.
        begin: returns what leads to here.
    """

    def __init__(
        self, auditing: Auditing | None, stage: int, begin: Callable[[], list[Entry]]
    ) -> None:
        self._auditing = auditing
        self._stage, self._begin = stage, begin
        self._open: Recording | None = None
        self._last: list[Recording] = []
        """Those of which answers may still come."""
        self._probes: tuple[CacheCopy, Recording, list[Reply]] | None = None

    def turn(self) -> None:
        """End a window here, and begin the next."""
        if self._open is not None:
            self._open.close()
            self._open = None
        if self._auditing is None:
            return
        self._forget(MOST_LAST)
        self._open = self._auditing.record(self._stage, self._begin)
        if self._open is not None:
            self._last.append(self._open)

    def add(self, entry: Entry) -> None:
        """Take the next frame."""
        if self._open is not None:
            self._open.add(entry)

    def hear(self, reply: Reply, data: bytes) -> None:
        """Take data of an answer that nobody gave before."""
        for recording in self._last:
            recording.hear(reply, data)

    def answered(self, seat: Seat, reply: Reply, digest: bytes) -> None:
        """Take the digest of a member's answer."""
        for recording in self._last:
            recording.answered(seat, reply, digest)

    def copying(self, copy: CacheCopy) -> None:
        """Take note that the caches are copied as they are here."""
        if self._open is not None:
            self._probes = copy, self._open, self._open.probe(copy.pieces)

    def copied(self, copy: CacheCopy) -> None:
        """Take what a copy holds."""
        if self._probes is None or self._probes[0] is not copy:
            return
        (_, recording, asked), self._probes = self._probes, None
        for reply, data in zip(asked, copy.data, strict=True):
            recording.hear(reply, data)
            recording.answered(copy.replica.seat, reply, blake3(data).digest())

    def uncopied(self, copy: CacheCopy) -> None:
        """Forget a copy that does not come."""
        if self._probes is not None and self._probes[0] is copy:
            (_, recording, asked), self._probes = self._probes, None
            recording.give_up(asked)

    def end(self) -> None:
        """Forget what is not whole: nothing more comes."""
        self._open = None
        self._forget(0)

    def _forget(self, most: int) -> None:
        while len(self._last) > most:
            recording = self._last.pop(0)
            if not recording.is_done and self._auditing is not None:
                self._auditing.drop(recording)


def _question(entry: Entry) -> Question:
    head = entry.frame.head
    kind = kind_of(head)
    number = U32.unpack_from(head, TYPE_AT)[0]
    return Question(entry, tensor_name(head), number, kind.is_activation)
