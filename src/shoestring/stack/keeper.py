"""Keeps one service up: starts it, watches it, and starts it again, later each time it fails."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import psutil

from shoestring.errors import EngineLostError, ShoestringError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from shoestring.engines.launch import Launched
    from shoestring.stack.node import Service

LOOK_EVERY_S = 0.25
ASK_EVERY_S = 5.0
SILENCE_LIMIT_S = 60.0
"""A server that does not answer for so long is ended and started again."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STEADY_S = 60.0
"""After so long in health the next pause is the first one again."""


class Startable(Protocol):
    """What the keeper must know of a service."""

    name: str
    start_limit_s: float

    def first_state(self) -> Service:
        """Return how it stands before its first start."""

    def launch(self) -> Launched | None:
        """Start it; None where it is not ours to start."""

    def answers(self) -> bool:
        """Whether it answers as it should."""

    def after_restart(self) -> None:
        """Bring back what its end took away."""


class Keeper:
    """One service, kept up in the caller's thread.

    Args:
        service: which.
        stop: ends the keeping, and the service.
        publish: given each new state.
        note: given what happens: the service's name, the event, and details.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        service: Startable,
        stop: threading.Event,
        publish: Callable[[Service], None],
        note: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = service.name
        self._service = service
        self._stop = stop
        self._publish = publish
        self._note = note
        self._clock = clock
        self._state = service.first_state()
        self._pause_s = FIRST_PAUSE_S

    def run(self) -> None:
        """Keep it up until ``stop`` is set; it is ended when this returns."""
        while not self._stop.is_set():
            self._live()
            ready_s = self._state.ready_monotonic_s
            if ready_s is not None and self._clock() - ready_s >= STEADY_S:
                self._pause_s = FIRST_PAUSE_S
            if self._stop.is_set():
                break
            self._change(state="waiting", pid=None, created_s=None)
            self._stop.wait(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._change(state="starting", restarts=self._state.restarts + 1)
        self._change(state="ended", pid=None, created_s=None)
        self._note(self.name, "ended")

    def _live(self) -> None:
        """See one life of the service through, and note how it ended."""
        launched: Launched | None = None
        try:
            self._change(started_monotonic_s=self._clock(), ready_monotonic_s=None)
            launched = self._service.launch()
            self._note_started(launched)
            self._await_ready(launched)
            if self._stop.is_set():
                return
            if self._state.restarts and launched is not None:
                self._bring_back()
            self._change(state="ready", ready_monotonic_s=self._clock())
            self._note(self.name, "ready")
            self._watch(launched)
        except (ShoestringError, OSError) as error:
            self._change(problem=str(error))
            self._note(self.name, "failed", why=str(error))
        finally:
            if launched is not None:
                launched.stop()

    def _bring_back(self) -> None:
        """Bring back what the service's end took away; it serves without that, too."""
        try:
            self._service.after_restart()
        except ShoestringError as error:
            self._note(self.name, "incomplete", why=str(error))

    def _note_started(self, launched: Launched | None) -> None:
        if launched is None:
            return
        try:
            created_s = psutil.Process(launched.pid).create_time()
        except psutil.NoSuchProcess:
            return  # dead already, as the guard will say
        self._change(pid=launched.pid, created_s=created_s)
        self._note(self.name, "started", pid=launched.pid)

    def _await_ready(self, launched: Launched | None) -> None:
        limit_s = self._service.start_limit_s
        if launched is None:
            deadline_s = self._clock() + limit_s
            while not self._service.answers() and not self._stop.wait(LOOK_EVERY_S):
                if self._clock() > deadline_s:
                    raise EngineLostError(f"the {self.name} that ran does not answer any more")
            return
        launched.wait_until(
            lambda: self._stop.is_set() or self._service.answers(), limit_s, "it is started again"
        )

    def _watch(self, launched: Launched | None) -> None:
        """Return when it has died, is silent for too long, or shall end."""
        answered_s = asked_s = self._clock()
        while not self._stop.wait(LOOK_EVERY_S):
            if launched is not None and (death := launched.death()) is not None:
                self._change(problem=death)
                self._note(self.name, "died", why=death)
                return
            if self._clock() - asked_s < ASK_EVERY_S:
                continue
            asked_s = self._clock()
            if self._service.answers():
                answered_s = self._clock()
            elif self._clock() - answered_s > SILENCE_LIMIT_S:
                problem = f"{self.name} did not answer for {SILENCE_LIMIT_S:g} s"
                self._change(problem=problem)
                self._note(self.name, "silent", why=problem)
                return

    def _change(self, **changes: object) -> None:
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]
        self._publish(self._state)
