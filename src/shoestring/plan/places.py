"""Where the results of a row of steps lie, as ggml's allocator places them.

A result takes the place of a source that nothing else needs, where its step can work in place;
else the smallest gap that is large enough, else the end. Its own place is free again after the
last step that needs it.

Source: ``ggml/src/ggml-alloc.c`` in llama.cpp. All sizes are in bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Step:
    """One step's result.

    Attributes:
        size_bytes: of the result.
        sources: which earlier results it needs, by their numbers, each as often as it is used.
        in_place: whether it may take the place of one of them that nothing else needs.
        kept: whether its place is never taken again.
    """

    size_bytes: int
    sources: tuple[int, ...] = ()
    in_place: bool = False
    kept: bool = False


def lay_out(steps: Sequence[Step]) -> list[int]:
    """Return where each result starts, as llama.cpp places them: the smallest gap that fits."""
    uses = [0] * len(steps)
    for step in steps:
        for source in step.sources:
            uses[source] += 1
    starts, owned, gaps = [0] * len(steps), [False] * len(steps), _Gaps()
    for number, step in enumerate(steps):
        heirs = [one for one in step.sources if step.in_place and owned[one] and uses[one] == 1]
        heir = next((one for one in heirs if steps[one].size_bytes == step.size_bytes), None)
        if heir is not None:
            starts[number], owned[heir] = starts[heir], False
        else:
            starts[number] = gaps.take(step.size_bytes)
        owned[number] = not step.kept
        for source in step.sources:
            uses[source] -= 1
            if uses[source] == 0 and owned[source]:
                gaps.give(starts[source], steps[source].size_bytes)
    return starts


class _Gaps:
    """Free places in a row, by their starts; the last of them has no end."""

    def __init__(self) -> None:
        self._gaps: list[tuple[int, float]] = [(0, math.inf)]

    def take(self, size: int) -> int:
        """Return the start of the smallest gap that is large enough, and use it up."""
        fitting = [gap for gap in self._gaps[:-1] if gap[1] - gap[0] >= size]
        best = min(fitting, key=lambda gap: gap[1] - gap[0], default=self._gaps[-1])
        place = self._gaps.index(best)
        start, end = best
        self._gaps[place : place + 1] = [(start + size, end)] if start + size < end else []
        return start

    def give(self, start: int, size: int) -> None:
        """Make a place free again, and one with its neighbours."""
        gaps = sorted([*self._gaps, (start, start + size)])
        self._gaps = gaps[:1]
        for gap in gaps[1:]:
            if gap[0] == self._gaps[-1][1]:
                self._gaps[-1] = (self._gaps[-1][0], gap[1])
            else:
                self._gaps.append(gap)
