"""Which windows of one connection of llama-server are being recorded, and what each is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from blake3 import blake3

from shoestring.swarm.audit.windows import MOST_TOLD_BYTES, Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from shoestring.swarm.copying import CacheCopy
    from shoestring.swarm.journal import Entry, Reply
    from shoestring.swarm.remote import Seat

MOST_LAST: Final = 4
"""Windows of which a member's answers may come late."""


class Auditing(Protocol):
    """Who decides what is recorded, and takes it."""

    def record(
        self, stage: int, begin: Callable[[], list[Entry]], members: Collection[Seat], *,
        is_first: bool,
    ) -> Recording | None:  # fmt: skip
        """Return where a window that begins now is to be kept; None: it is not."""

    def drop(self, recording: Recording) -> None:
        """Forget a recording that will never be whole."""


class Recorder:
    """Records windows of one connection of llama-server, those that are drawn.

    Args:
        auditing: who draws; None: nobody, and nothing is recorded.
        stage: its number.
        begin: returns what leads to here.
        members: returns whose answers are awaited.
    """

    def __init__(
        self,
        auditing: Auditing | None,
        stage: int,
        begin: Callable[[], list[Entry]],
        members: Callable[[], Collection[Seat]],
    ) -> None:
        self._auditing = auditing
        self._stage, self._begin, self._members = stage, begin, members
        self._is_first = True
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
        self._open = self._auditing.record(
            self._stage, self._begin, self._members(), is_first=self._is_first
        )
        self._is_first = False
        if self._open is not None:
            self._last.append(self._open)

    def add(self, entry: Entry) -> None:
        """Take the next frame."""
        if self._open is None:
            return
        self._open.add(entry)
        if self._open.told_bytes > MOST_TOLD_BYTES:
            self._drop(self._open)

    def hear(self, reply: Reply, data: bytes) -> None:
        """Take data of an answer that nobody gave before."""
        for recording in self._last:
            recording.hear(reply, data)

    def answered(self, seat: Seat, reply: Reply, digest: bytes) -> None:
        """Take the digest of a member's answer."""
        for recording in self._last:
            recording.answered(seat, reply, digest)
        self._last = [one for one in self._last if not one.is_done]

    def lost(self, seat: Seat) -> None:
        """Wait no more for a member."""
        for recording in self._last:
            recording.lost(seat)
        self._last = [one for one in self._last if not one.is_done]

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
        self._last = [one for one in self._last if not one.is_done]
        for recording in self._last[: max(0, len(self._last) - most)]:
            recording.wait_no_more()
            if not recording.is_done:
                self._drop(recording)
        self._last = [one for one in self._last if not one.is_done]

    def _drop(self, recording: Recording) -> None:
        assert self._auditing is not None, "it is recorded for somebody"
        self._last.remove(recording)
        if self._open is recording:
            self._open = None
        if self._probes is not None and self._probes[1] is recording:
            self._probes = None
        self._auditing.drop(recording)
