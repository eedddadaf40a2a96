"""How far sellers are from each other, where somebody measured it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoestring.swarm.market.board import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


class Ways:
    """Round trips between sellers; what is not known is gone by way of the client.

    A token's way in a star is there and back for each node. In a chain it is half a round trip to
    the first, half a one between neighbours, and half a one home. So neighbours ``i`` and ``j``
    save ``(rtt_i + rtt_j - rtt_ij) / 2``, where that is more than nothing.

    Args:
        rtt_s: seconds between two slots, each pair once.
    """

    def __init__(self, rtt_s: Mapping[tuple[int, int], float]) -> None:
        pairs = sorted({(min(pair), max(pair)): time for pair, time in rtt_s.items()}.items())
        self._one = np.array([pair[0] for pair, _ in pairs], dtype=np.int64)
        self._other = np.array([pair[1] for pair, _ in pairs], dtype=np.int64)
        groups = _groups([pair for pair, _ in pairs])
        self._groups = np.full(max(groups, default=-1) + 1, -1)
        self._groups[list(groups)] = list(groups.values())
        self._rtt_ns = np.array([round(time * NANOSECONDS) for _, time in pairs], dtype=np.int64)

    def groups(self, slots: Ints) -> Ints:
        """Return a number of the group that each slot is in; -1: it knows no way.

        Two are in one group if known ways lead from one to the other.
        """
        found = np.full(len(slots), -1)
        known = slots < len(self._groups)
        found[known] = self._groups[slots[known]]
        return found

    def saved_ns(self, slots: Ints, rtt_ns: Ints) -> Ints:
        """Return what each two of some slots save as neighbours (n, n)."""
        place = np.full(len(rtt_ns), -1, dtype=np.int64)
        place[slots] = np.arange(len(slots))
        # Pairs are sorted by their lower slot.
        begin = np.searchsorted(self._one, slots)
        count = np.searchsorted(self._one, slots, side="right") - begin
        pair = np.arange(count.sum()) + np.repeat(begin - np.cumsum(count) + count, count)
        pair = pair[place[self._other[pair]] >= 0]
        one, other = self._one[pair], self._other[pair]
        saved = np.maximum((rtt_ns[one] + rtt_ns[other] - self._rtt_ns[pair]) // 2, 0)
        found = np.zeros((len(slots), len(slots)), dtype=np.int64)
        found[place[one], place[other]] = saved
        found[place[other], place[one]] = saved
        return found


def _groups(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return for each slot of some pairs the lowest slot that is joined to it."""
    above: dict[int, int] = {}

    def top(slot: int) -> int:
        while above.setdefault(slot, slot) != slot:
            above[slot] = above[above[slot]]
            slot = above[slot]
        return slot

    for one, other in pairs:
        low, high = sorted((top(one), top(other)))
        above[high] = low
    return {slot: top(slot) for slot in list(above)}
