"""A line that says how far a run is: in place on a terminal, a line now and then elsewhere.

Notebooks that are flooded lose output, so nothing is printed more often than ``TERMINAL_S`` on a
terminal and ``ELSEWHERE_S`` in a notebook or a log.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

TERMINAL_S = 0.2
ELSEWHERE_S = 10.0
MINUTE_S = 60


class RunProgress:
    """Shows steps and counts on a stream, throttled.

    Args:
        stream: default standard error.
        quiet: show nothing.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._shown_s = float("-inf")
        self._begun_s = clock()
        self._done_at_begin = 0
        self._width = 0

    def step(self, text: str) -> None:
        """Show what begins now, on a line of its own."""
        self._write(text, final=True)

    def begin(self, done: int) -> None:
        """Start the clock of the estimate; ``done`` requests were there before."""
        self._begun_s, self._done_at_begin = self._clock(), done

    def update(self, done: int, total: int, failed: int, case: str) -> None:
        """Show how many requests have ended; throttled, but the last one is always shown."""
        now_s = self._clock()
        last = done >= total
        if not last and now_s - self._shown_s < (TERMINAL_S if self._terminal else ELSEWHERE_S):
            return
        self._shown_s = now_s
        fresh = done - self._done_at_begin
        text = f"{done}/{total} requests"
        if failed:
            text += f", {failed} failed"
        if fresh and not last:
            left_s = (now_s - self._begun_s) / fresh * (total - done)
            text += f", about {_duration(left_s)} left ({case})"
        self._write(text, final=last)

    def _write(self, text: str, *, final: bool) -> None:
        if self._quiet:
            return
        if self._terminal:
            self._stream.write("\r" + text.ljust(self._width) + ("\n" if final else ""))
            self._width = 0 if final else len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def _duration(seconds: float) -> str:
    if seconds < MINUTE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE_S:.0f} min"
