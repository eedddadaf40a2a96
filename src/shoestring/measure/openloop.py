"""The open loop: requests leave at planned moments, whether or not earlier ones have ended.

It shows what users get who do not wait for each other: latencies count from the planned moment,
and how late a request really left is in the record (``schedule_lag_s``). A slot takes the next
request in the plan, sleeps until it is due, and sends it. Where all slots are busy the next
request waits for one of them; it leaves late and is never dropped.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from shoestring.measure.loop import Answer
from shoestring.measure.slots import run_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from shoestring.engines.protocol import Engine, Patience, Recording
    from shoestring.engines.transport import Cancellation
    from shoestring.measure.loop import Ask, Stop

START_S = 0.02
"""From the call to the first request: the threads are there before it is due."""


def open_loop(
    engine: Engine,
    asks: Sequence[Ask],
    limit: int,
    patience: Patience,
    stop: Stop,
    cancellation: Cancellation,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[Recording], None] = lambda _recording: None,
) -> Generator[Answer]:
    """Send each ask when it is due, ``limit`` in flight at most, and yield answers as they end.

    Asks are in the order of their ``arrival_s``. The first leaves at once and the others keep
    their distance from it, so that a resumed batch does not wait for what it has already.
    The patience of a request begins when it is due.

    An answer that was broken off by ``stop.cut()`` is not yielded: it says nothing of the engine,
    and its request is sent again when the run is resumed. Closing the generator breaks off what
    is in flight; whoever may leave it early uses ``contextlib.closing``. ``before`` is called in
    the slot when a request is due, ``after`` with what was taken down, before the next.
    """
    waiting = deque(_with_due_ns(asks, time.monotonic_ns() + int(START_S * 1e9)))

    def send_when_due(hand_over: Callable[[Answer], None]) -> None:
        while waiting:
            try:
                ask, due_ns = waiting.popleft()
            except IndexError:  # another slot was faster
                return
            stop.wait(max(due_ns - time.monotonic_ns(), 0) / 1e9)
            before()
            if stop.asked or stop.was_cut:
                return
            recording = engine.record(
                ask.prompt, patience=patience, intended_ns=due_ns, cancellation=cancellation
            )
            if not stop.was_cut:
                hand_over(Answer(ask, recording))
                after(recording)

    yield from run_slots(send_when_due, min(limit, len(asks)), waiting, stop)


def _with_due_ns(asks: Sequence[Ask], origin_ns: int) -> list[tuple[Ask, int]]:
    """Return each ask with the moment at which it leaves, the first at the origin."""
    dues = []
    first_s: float | None = None
    for ask in asks:
        arrival_s = ask.planned.arrival_s
        assert arrival_s is not None, "an open loop is planned with arrivals"
        first_s = arrival_s if first_s is None else first_s
        dues.append((ask, origin_ns + round((arrival_s - first_s) * 1e9)))
    return dues
