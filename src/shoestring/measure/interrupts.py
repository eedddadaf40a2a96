"""Ctrl-C and SIGTERM end a run in order: finish what is in flight, keep the rows, end the engine.

While requests are in flight the first signal stops the sending and they have ``GRACE_S`` to end; a
second signal, or the end of that time, breaks them off. While a session is put away (the engine is
ended, the manifest written) a signal is noted and nothing is broken off. At any other moment the
first signal ends the session at once.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoestring.errors import InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from shoestring.measure.loop import Stop

GRACE_S = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
REASON = "interrupted"


@contextmanager
def orderly_interrupts(stop: Stop, say: Callable[[str], None]) -> Iterator[None]:
    """Turn signals into requests to stop, for as long as the block lasts.

    Outside the main thread signals cannot be handled; then nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timer = threading.Timer(GRACE_S, stop.cut)
    timer.daemon = True

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.closing:
            stop.ask(REASON)
            return
        if stop.asked or not stop.sending:
            raise InterruptedRunError(REASON)
        stop.ask(REASON)
        timer.start()
        say(
            f"{signal.Signals(number).name}: ending requests in flight "
            f"(up to {GRACE_S:g} s; again to break them off); the run can be resumed"
        )

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, handle)
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
