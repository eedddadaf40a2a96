"""The closed loop: ``concurrency`` slots, each sends its next request when its last has ended.

Slots are threads that wait in ``recv``; they do nothing but the timed exchange. What they took
down is parsed and written by the caller's thread. That thread and the slots share Python's lock,
so a slot hands its answer over only when its next request has left: parsing then falls into the
time in which the server works, and delays no send.

A closed loop sends less when the server is slow: its latencies are those of users who wait
(coordinated omission), and the record says at which concurrency each was taken.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.measure.slots import run_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from shoestring.engines.protocol import Engine, Patience, Prompt, Recording
    from shoestring.engines.transport import Cancellation
    from shoestring.measure.prompting import PromptText
    from shoestring.measure.schedule import Planned


@dataclass(frozen=True)
class Ask:
    """A request with its prompt, ready to be sent."""

    planned: Planned
    prompt: Prompt
    text: PromptText


@dataclass(frozen=True)
class Answer:
    """A request and what was taken down of its answer."""

    ask: Ask
    recording: Recording


class Stop:
    """Asks a loop to send nothing more, and remembers the first reason.

    Attributes:
        sending: whether requests of the run are in flight, which deserve to end in peace.
        closing: whether the session is being put away, which no signal may break off.
        reason: why to stop; None while there is no reason.
        error: what went wrong, where that is the reason.
    """

    def __init__(self, cancellation: Cancellation) -> None:
        self._event = threading.Event()
        self._cancellation = cancellation
        self.sending = False
        self.closing = False
        self.reason: str | None = None
        self.error: BaseException | None = None

    def ask(self, reason: str, error: BaseException | None = None) -> None:
        """Send nothing more; requests in flight may end."""
        if self.reason is None:
            self.reason, self.error = reason, error
        self._event.set()

    def cut(self) -> None:
        """Break off the requests in flight as well; slots that wait are woken."""
        self._event.set()
        self._cancellation.cancel()

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self._event.is_set()

    def wait(self, limit_s: float) -> bool:
        """Wait until a stop is asked for, at most so long; return whether it is."""
        return self._event.wait(limit_s)

    @property
    def was_cut(self) -> bool:
        """Whether requests in flight were broken off."""
        return self._cancellation.requested


def closed_loop(
    engine: Engine,
    asks: Sequence[Ask],
    concurrency: int,
    patience: Patience,
    stop: Stop,
    cancellation: Cancellation,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[Recording], None] = lambda _recording: None,
) -> Generator[Answer]:
    """Send all asks through ``concurrency`` slots and yield the answers as they end.

    An answer that was broken off by ``stop.cut()`` is not yielded: it says nothing of the engine,
    and its request is sent again when the run is resumed. Closing the generator breaks off what
    is in flight; whoever may leave it early uses ``contextlib.closing``. ``before`` is called in
    the slot before each request, ``after`` with what was taken down, before the next.
    """
    waiting = deque(asks)

    def send(hand_over: Callable[[Answer], None]) -> None:
        _send_waiting(engine, waiting, hand_over, patience, stop, cancellation, before, after)

    yield from run_slots(send, min(concurrency, len(asks)), waiting, stop)


def _send_waiting(
    engine: Engine,
    waiting: deque[Ask],
    hand_over: Callable[[Answer], None],
    patience: Patience,
    stop: Stop,
    cancellation: Cancellation,
    before: Callable[[], None],
    after: Callable[[Recording], None],
) -> None:
    """Send what waits, one after another; hand each answer over when the next has left."""
    kept: list[Answer] = []

    def hand_over_kept() -> None:
        while kept:
            hand_over(kept.pop())

    while waiting:
        before()
        if stop.asked:
            break
        try:
            ask = waiting.popleft()
        except IndexError:  # another slot was faster
            break
        recording = engine.record(
            ask.prompt, patience=patience, cancellation=cancellation, on_sent=hand_over_kept
        )
        hand_over_kept()  # where nothing could be sent
        if not stop.was_cut:
            kept.append(Answer(ask, recording))
            if recording.broken:
                hand_over_kept()  # what follows may take a minute
            after(recording)
    hand_over_kept()
