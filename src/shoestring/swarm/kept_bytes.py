"""A copy of a tensor's first bytes, and which of them changed since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_RANGES: Final = 8
"""Then they become one."""
KEPT_BYTES: Final = 256 << 10
"""Of one part."""


@dataclass(eq=False)
class KeptBytes:
    """First bytes of a tensor, in parts that are replaced whole: who was given one keeps it.

    Attributes:
        changed: bytes that it lacks, as starts and ends.
        size: of it.
    """

    changed: list[tuple[int, int]] = field(default_factory=list)
    size: int = 0
    _parts: list[bytes] = field(default_factory=list)

    def change(self, start: int, end: int) -> None:
        """Note that bytes were written."""
        for number, (other_start, other_end) in enumerate(self.changed):
            if start <= other_end and other_start <= end:
                self.changed[number] = min(start, other_start), max(end, other_end)
                return
        self.changed.append((start, end))
        if len(self.changed) > MOST_RANGES:
            starts, ends = zip(*self.changed, strict=True)
            self.changed = [(min(starts), max(ends))]

    def lacks(self, used: int) -> list[tuple[int, int]]:
        """Return what it lacks of the first bytes that are used, as starts and ends."""
        copied = min(self.size, used)
        ranges = [(start, min(end, copied)) for start, end in self.changed]
        return [(start, end) for start, end in (*ranges, (copied, used)) if start < end]

    def put(self, start: int, data: bytes) -> None:
        """Put bytes into it."""
        if start > self.size:
            self.put(self.size, bytes(start - self.size))
        at = 0
        while at < len(data):
            number, inner = divmod(start + at, KEPT_BYTES)
            if number == len(self._parts):
                self._parts.append(b"")
            old, new = self._parts[number], data[at : at + KEPT_BYTES - inner]
            self._parts[number] = b"".join((old[:inner], new, old[inner + len(new) :]))
            at += len(new)
        self.size = max(self.size, start + len(data))

    def get(self, start: int, end: int) -> bytes | None:
        """Return bytes of it; None: it lacks some of them."""
        if end > self.size or any(at < end and start < until for at, until in self.changed):
            return None
        first = start // KEPT_BYTES
        whole = b"".join(self._parts[first : (end - 1) // KEPT_BYTES + 1])
        return whole[start - first * KEPT_BYTES : end - first * KEPT_BYTES]

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """Yield all of it in parts, each with where it begins."""
        for number, part in enumerate(self._parts):
            yield number * KEPT_BYTES, part
