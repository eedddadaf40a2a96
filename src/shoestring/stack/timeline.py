"""When each step of a start began and ended."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoestring.engines.protocol import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Timeline:
    """Steps in seconds since it was made; some may overlap.

    Args:
        say: given the name of each step when it begins.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._origin_s = time.monotonic()
        self._spans: list[Span] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; one that raises is not noted."""
        self._say(name)
        begun_s = time.monotonic()
        yield
        self.note(name, begun_s, time.monotonic())

    def note(self, name: str, begun_s: float, ended_s: float) -> None:
        """Note a step that somebody else timed, by this machine's monotonic clock.

        One that began before this timeline is no part of it.
        """
        if begun_s >= self._origin_s:
            self._spans.append(Span(name, begun_s - self._origin_s, ended_s - self._origin_s))

    def spans(self) -> list[Span]:
        """Return the steps by their beginning."""
        return sorted(self._spans, key=lambda span: span.start_s)
