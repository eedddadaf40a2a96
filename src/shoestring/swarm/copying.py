"""Copying caches of a stage to the client: for a recruit, or since llama-server reads some."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.swarm.caches import Caches
    from shoestring.swarm.replica import Replica


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
