"""What a prompt shares with earlier ones: so much of it an engine may have in its prefix cache."""

from __future__ import annotations

import bisect
import itertools
import threading

KEPT_CHARACTERS = 4_096


class SharedPrefixes:
    """Remembers prompts, to tell how much of a new one an engine may have in its prefix cache."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heads: list[str] = []

    def add(self, text: str) -> str | None:
        """Return the longest beginning that an earlier prompt had, too; None for the first."""
        head = text[:KEPT_CHARACTERS]
        with self._lock:
            place = bisect.bisect_left(self._heads, head)
            # In sorted order the likest one is next to it.
            near = self._heads[max(place - 1, 0) : place + 1]
            self._heads.insert(place, head)
        return max((_common(head, other) for other in near), key=len, default=None)


def _common(one: str, other: str) -> str:
    pairs = zip(one, other, strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return one[:same]
