"""What of a window is kept so that it can be run again: where it began, what was told, the answers.

A window is what lies between two receipts of a session (docs/decisions/0007). Where it begins is
what the journal would tell a recruit; then follows every frame in its order, with the BLAKE3 of
what each member answered. The node is told nothing of it, neither before nor after.

A window is whole once every member that was told all of it has answered, or is lost: a mirror that
is slow is audited like the first. Copies of the caches, which a node gives beside its work, are
answers too: else a false copy would be believed by whoever runs a window again from there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.proof.merkle import root_of
from shoestring.swarm.proof.steps import kind_of, sets_activation
from shoestring.swarm.wire import TWO_U64, U32, WITH_DATA, Command, Frame, tensor_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from shoestring.swarm.caches import Piece
    from shoestring.swarm.remote import Seat

MOST_DATA_BYTES: Final = 64 << 20
"""Of a window's answers; beyond it there are their digests alone."""
MOST_TOLD_BYTES: Final = 256 << 20
"""Of what a window was told, beside weights."""
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


class Recording:
    """One window of one stage.

    Args:
        stage: its number.
        begin: what leads to where it begins.
        done: called once, when it is closed and all of it is answered.
        members: that are told all of it.
        is_first: of its connection: receipts count what was told before it, too.
        is_drawn: it is to be run again; else only if its members differ.

    Attributes:
        stage: as given.
        begin: as given.
        is_drawn: as given.
        entries: of the window, in their order.
        is_done: it is closed, and every member has answered all of it or is lost.
        took_s: from its begin until it was done; None: it is not.
        told_bytes: of its frames' bodies.
    """

    def __init__(
        self,
        stage: int,
        begin: Sequence[Entry],
        done: Callable[[Recording], None],
        *,
        members: Collection[Seat] = (),
        is_first: bool = False,
        is_drawn: bool = True,
    ) -> None:
        self.stage, self.begin, self.is_drawn = stage, tuple(begin), is_drawn
        self.entries: list[Entry] = []
        self._done = done
        self.is_done = False
        self.took_s: float | None = None
        self.told_bytes = 0
        self._begun_s = time.monotonic()
        self._members = set(members)
        self._is_first = is_first
        self._digests: dict[Seat, dict[Reply, bytes]] = {}
        self._data: dict[Reply, bytearray] = {}
        self._data_bytes = 0
        self._asked: set[Reply] = set()
        self._owed: set[Reply] = set()
        self._of_one: set[Reply] = set()
        """Questions of ours to one member."""
        self._is_closed = False

    def add(self, entry: Entry) -> None:
        """Take the next frame."""
        self.entries.append(entry)
        self.told_bytes += len(entry.body)
        if entry.reply is not None and entry.frame.command in WITH_DATA:
            self._asked.add(entry.reply)
            self._owed.add(entry.reply)

    def probe(self, pieces: Sequence[Piece]) -> list[Reply]:
        """Take note that the caches are copied here; what comes is told to :meth:`answered`."""
        asked = []
        for piece in pieces:
            head = bytearray(piece.cache.tensor + TWO_U64.pack(piece.start, piece.size))
            frame = Frame(int(Command.GET_TENSOR), len(head), head)
            reply = Reply(frame, 0.0)
            self.add(Entry(frame, reply=reply))
            asked.append(reply)
        self._of_one.update(asked)
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

    def lost(self, seat: Seat) -> None:
        """Wait no more for a member."""
        self._members.discard(seat)
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

    def wait_no_more(self) -> None:
        """Be done with what members answered until now, if one of them answered all of it."""
        self._members.clear()
        self._end_if_whole()

    @property
    def seats(self) -> list[Seat]:
        """Who answered something of it."""
        return list(self._digests)

    @property
    def differs(self) -> bool:
        """Whether members answered one question differently."""
        return any(
            len({its[reply] for its in self._digests.values() if reply in its}) > 1
            for reply in self._asked
        )

    def questions(self) -> list[Question]:
        """Return what was asked for, in its order."""
        return [
            _question(entry)
            for entry in self.entries
            if entry.reply is not None and entry.frame.command in WITH_DATA
        ]

    def given(self, seat: Seat) -> Given:
        """Return what a member answered; hashes all that is kept, so it is not for the loop."""
        replies, digests = self._replies(), self.digests(seat)
        return Given(
            digests,
            # What was given on is whoever's came first: another's data are not this one's.
            tuple(self._kept(reply, one) for reply, one in zip(replies, digests, strict=True)),
        )

    def digests(self, seat: Seat) -> tuple[bytes | None, ...]:
        """Return BLAKE3 of what a member answered to each question."""
        its = self._digests.get(seat, {})
        return tuple(its.get(reply) for reply in self._replies())

    def inputs(self) -> list[bytes | None]:
        """Return BLAKE3 of each activation that was set, as receipts count them; None: unknown."""
        told = [*self.begin, *self.entries] if self._is_first else self.entries
        return [_input_digest(entry) for entry in told if sets_activation(entry.frame)]

    def in_root(self) -> str | None:
        """Return the root over the activations that were set; None: not all are known."""
        inputs = self.inputs()
        return None if None in inputs else root_of(one for one in inputs if one).hex()

    def pushers(self) -> list[str]:
        """Return the names of nodes that sent inputs of it themselves."""
        routes = [one.carried.route for one in self.entries
                  if one.carried is not None and one.reply is None]  # fmt: skip
        return sorted({route.source.name for route in routes if route is not None})

    def _replies(self) -> list[Reply]:
        return [one.entry.reply for one in self.questions() if one.entry.reply is not None]

    def _kept(self, reply: Reply, digest: bytes | None) -> bytes | None:
        data = self._data.get(reply) if reply.kept is None else reply.kept
        if data is None or len(data) != reply.size or blake3(data).digest() != digest:
            return None
        return bytes(data)

    def _end_if_whole(self) -> None:
        if self._is_closed and not self._owed and not self.is_done and self._all_answered():
            self.is_done = True
            self.took_s = time.monotonic() - self._begun_s
            self._done(self)

    def _all_answered(self) -> bool:
        asked = self._asked - self._of_one
        return all(asked <= self._digests.get(seat, {}).keys() for seat in self._members)


def _question(entry: Entry) -> Question:
    head = entry.frame.head
    kind = kind_of(head)
    number = U32.unpack_from(head, TYPE_AT)[0]
    return Question(entry, tensor_name(head), number, kind.is_activation)


def _input_digest(entry: Entry) -> bytes | None:
    """Return BLAKE3 of what an entry sets."""
    carried = entry.carried
    return blake3(entry.data).digest() if carried is None else carried.reply.digest
