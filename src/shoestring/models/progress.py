"""How far a download is: a bar on a terminal, a few lines elsewhere.

A notebook and a log keep every line, so they get one for each tenth only.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

WIDTH = 30  # characters of the bar
REDRAW_S = 0.1
MEGABYTE = 1_000_000  # bytes, wherever this room shows a size


class ProgressBar:
    """A throttled bar on stderr; pass its :meth:`update` wherever progress is reported.

    Use it as a context manager, so that the line is ended whatever happens.

    Args:
        label: what is being fetched.
        stream: where to draw; stderr by default.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        label: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._drawn_at_s: float | None = None
        self._tenth = -1
        self._open_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def update(self, done_bytes: int, total_bytes: int) -> None:
        """Show that so many bytes of so many are there."""
        share = min(done_bytes / total_bytes, 1.0) if total_bytes else 1.0
        if self._terminal:
            self._draw(share, done_bytes, total_bytes)
        elif int(share * 10) > self._tenth:
            self._tenth = int(share * 10)
            self._write(f"{self._line(share, done_bytes, total_bytes)}\n")

    def close(self) -> None:
        """End the line that is being redrawn."""
        if self._open_line:
            self._open_line = False
            self._write("\n")

    def _draw(self, share: float, done_bytes: int, total_bytes: int) -> None:
        now_s = self._clock()
        due = self._drawn_at_s is None or now_s - self._drawn_at_s >= REDRAW_S
        if not due and share < 1:
            return
        self._drawn_at_s = now_s
        self._open_line = True
        bar = ("█" * round(share * WIDTH)).ljust(WIDTH, "░")
        # \x1b[K clears what a longer line left behind.
        self._write(f"\r{bar} {self._line(share, done_bytes, total_bytes)}\x1b[K")

    def _line(self, share: float, done_bytes: int, total_bytes: int) -> str:
        sizes = f"{done_bytes / MEGABYTE:.0f} of {total_bytes / MEGABYTE:.0f} MB"
        return f"{self._label}: {int(share * 100)} %, {sizes}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
