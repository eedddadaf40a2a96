"""Slots: threads that send requests, and the one thread that gets what came of them.

Both load shapes use them (``measure.loop``, ``measure.openloop``): they differ in what a slot does
between two requests.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Generator, Iterator

    from shoestring.measure.loop import Answer, Stop


def run_slots(
    send: Callable[[Callable[[Answer], None]], None],
    count: int,
    waiting: deque[Any],
    stop: Stop,
) -> Generator[Answer]:
    """Run ``send`` in ``count`` threads and yield what they hand over, until all have returned.

    Args:
        send: sends what waits, and calls its argument with each answer.
        count: how many threads.
        waiting: what is still to be sent; cleared when no more shall be.
        stop: cut when the caller leaves early, or when an error was raised, in a thread or in the
            caller: it is raised in the caller once all threads have ended.
    """
    ended: queue.SimpleQueue[Answer | BaseException | None] = queue.SimpleQueue()

    def slot() -> None:
        try:
            send(ended.put)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            ended.put(error)
        finally:
            ended.put(None)

    threads: list[threading.Thread] = []
    try:
        for number in range(count):
            thread = threading.Thread(target=slot, name=f"slot-{number}", daemon=True)
            thread.start()
            threads.append(thread)
        yield from _until_closed(ended, count)
    except BaseException:  # an error, a signal, or a caller that wants no more
        waiting.clear()
        stop.cut()
        raise
    finally:
        for thread in threads:
            thread.join()


def _until_closed(
    ended: queue.SimpleQueue[Answer | BaseException | None], open_slots: int
) -> Iterator[Answer]:
    """Yield answers until every slot has said that it is done."""
    while open_slots:
        answer = ended.get()
        if answer is None:
            open_slots -= 1
        elif isinstance(answer, BaseException):
            raise answer
        else:
            yield answer
