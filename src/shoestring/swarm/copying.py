"""Copying caches of a stage to the client: when, from whom, and for whom.

What a recruit must compute again is bounded: after :data:`COPY_AFTER_S` of waiting for answers the
caches are copied here, between two steps. llama-server reads caches, too, to come back to a state
of a prompt: tensor by tensor, which would be a round trip each. What changed of those that are like
the first is copied at once instead, and it is answered from the copy; where that would be far more
than what is read, it is read from the node.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from shoestring.swarm.wire import DATA_AT, OFFSET_AT, TWO_U64, U64

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from shoestring.swarm.audit.recorder import Recorder
    from shoestring.swarm.caches import Caches
    from shoestring.swarm.journal import Entry, Journal
    from shoestring.swarm.replica import Replica

COPY_AFTER_S: Final = 0.5
"""Of waiting for answers that a recruit would have to compute again."""
COPY_SELDOM_S: Final = 20.0
"""The same where nobody is there to be recruited: the journal must end somewhere."""
COPY_SHARE: Final = 10
"""So many times as long as the last copy took must have been waited before the next is made."""
READ_TIMES: Final = 8
"""So many times what llama-server reads of a cache may be copied of it."""
READ_BYTES: Final = 1 << 20
"""That may always be copied of it: some builds read it in many small parts."""


class CacheCopy:
    """What the copy of the caches lacks, asked of one replica between two steps.

    Args:
        replica: that is asked.
        mark: of the journal: what it was told until now.
        caches: that are copied.
        begun_s: on the loop's clock.
        copied: called when all is here.
        place: address of bytes that llama-server reads: caches like this one are copied for it.
            None: all are, for a recruit.

    Attributes:
        replica: as given.
        mark: as given.
        begun_s: as given.
        place: as given.
        pieces: that are asked for.
        data: of these, as far as they came.
    """

    def __init__(
        self,
        replica: Replica,
        mark: int,
        caches: Caches,
        begun_s: float,
        copied: Callable[[CacheCopy], None],
        place: int | None = None,
    ) -> None:
        self.replica, self.mark, self.begun_s, self.place = replica, mark, begun_s, place
        self._caches = caches
        self._copied = copied
        self.pieces = caches.pieces(place)
        self.data: list[bytes] = []

    def ask(self) -> None:
        """Ask for all pieces at once; they come in order, before what is asked later."""
        if not self.pieces:
            self._copied(self)
        for piece in self.pieces:
            self.replica.ask(piece.cache.tensor, piece.start, piece.size, self._take)

    def give_up(self) -> None:
        """The replica is lost: what it was asked for is lacking."""
        self._caches.forget(self.pieces)

    def _take(self, data: bytes) -> None:
        self.data.append(data)
        if len(self.data) == len(self.pieces):
            self._caches.take(self.pieces, self.data)
            self._copied(self)


class Copying:
    """Has caches of one connection of llama-server copied.

    Args:
        journal: of the connection, with its caches.
        recorder: likewise.
        source: returns who may be asked now: it was told all, and a step has ended; None: nobody.
        answer: given a read of llama-server's that waited or comes next, and its bytes.
        pass_on: given reads that waited and are to be answered by replicas.
        counts: of ``copies``.
    """

    def __init__(
        self,
        journal: Journal,
        recorder: Recorder,
        source: Callable[[], Replica | None],
        answer: Callable[[Entry, bytes], None],
        pass_on: Callable[[list[Entry]], None],
        counts: Counter[str],
    ) -> None:
        self._journal, self._recorder = journal, recorder
        self._source, self._answer, self._pass_on = source, answer, pass_on
        self._counts = counts
        self._copy: CacheCopy | None = None
        self._took_s = 0.0
        """The last copy for a recruit."""
        self._waited_s = 0.0
        """For answers, since then."""
        self._reads: list[Entry] = []
        """Of caches, that wait for the copy."""

    @property
    def is_awaited(self) -> bool:
        """Whether reads wait for a copy."""
        return bool(self._reads)

    def waited(self, for_s: float) -> None:
        """Note how long an answer took that a recruit would have to compute again."""
        self._waited_s += for_s

    def copy_if_due(self, now_s: float, *, has_spare: bool) -> None:
        """Copy all for a recruit if it would have to compute for long; a step begins."""
        after_s = COPY_AFTER_S if has_spare else COPY_SELDOM_S
        if self._copy is None and self._waited_s >= max(after_s, COPY_SHARE * self._took_s):
            self._begin(now_s)

    def takes(self, entry: Entry) -> bool:
        """Tell whether a read is of a cache; if so it is answered now, or waits for a copy."""
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

    def copy_for_reads(self, now_s: float) -> None:
        """Copy what reads wait for; where nobody can be asked, they wait no more."""
        if self._reads and self._copy is None:
            place, _ = _place(self._reads[0])
            if not self._begin(now_s, place):
                self._pass_on(self.release())

    def release(self) -> list[Entry]:
        """Return the reads that wait; they do no more."""
        reads, self._reads = self._reads, []
        return reads

    def lose(self, replica: Replica) -> None:
        """Give up what is being copied from a replica that is lost."""
        if self._copy is not None and self._copy.replica is replica:
            self._copy.give_up()
            self._recorder.uncopied(self._copy)
            self._copy = None
            self._pass_on(self.release())

    def _answer_from_copy(self, entry: Entry) -> bool:
        """Answer a read of a cache if the copy has its bytes as they are now."""
        data = self._journal.caches.current(*_place(entry))
        if data is None:
            return False
        self._answer(entry, data)
        return True

    def _begin(self, now_s: float, place: int | None = None) -> bool:
        """Ask for what a copy lacks; return whether more of it is to come.

        Args:
            now_s: on the loop's clock.
            place: address of what llama-server reads; None: all are copied, for a recruit.
        """
        source = self._source()
        if source is None:
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
        if copy is not self._copy:
            return
        self._recorder.copied(copy)
        if copy.place is None:
            self._journal.condense(copy.mark)
            self._took_s = asyncio.get_running_loop().time() - copy.begun_s
        self._copy = None
        self._counts["copies"] += 1
        while self._reads and self._answer_from_copy(self._reads[0]):
            del self._reads[0]
        self._pass_on(self.release())


def _place(entry: Entry) -> tuple[int, int]:
    """Return the address that a read begins at, and how many bytes it is."""
    head = entry.frame.head
    offset, size = TWO_U64.unpack_from(head, OFFSET_AT)
    return U64.unpack_from(head, DATA_AT)[0] + offset, size
