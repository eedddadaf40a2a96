"""What a prompt shares with earlier ones: so much of it an engine may have in its prefix cache."""

from __future__ import annotations

import bisect
import threading


class SharedPrefixes:
    """Remembers prompts, to tell how much of a new one an engine may have in its prefix cache."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: list[str] = []

    def add(self, text: str) -> str | None:
        """Return the longest beginning that an earlier prompt had, too; None for the first."""
        with self._lock:
            place = bisect.bisect_left(self._texts, text)
            # In sorted order the likest one is next to it.
            near = self._texts[max(place - 1, 0) : place + 1]
            self._texts.insert(place, text)
        return max((_common(text, other) for other in near), key=len, default=None)


def _common(one: str, other: str) -> str:
    """Return the common beginning, found by halving: a prompt may have a million characters."""
    same, differs = 0, min(len(one), len(other)) + 1
    while same + 1 < differs:
        middle = (same + differs) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            differs = middle
    return one[:same]
