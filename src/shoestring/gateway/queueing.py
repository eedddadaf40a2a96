"""Whose turn it is: an engine's slots, and the requests that wait for one.

An engine works for so many requests at once as it has slots; the others wait here, where they
cost a few hundred bytes, and not in the engine, where nobody can see or refuse them.

* **Fair between keys.** The keys that wait take turns (round robin), and within a key who came
  first goes first. A key with 100 waiting requests delays another key's only request by one turn.
  A turn is a request, not a token: how many tokens a key may have is :mod:`limiting`'s to say.
* **Bounded.** So many wait in all and so many of each key. Where all places are taken, a key with
  fewer waiting gets the place of the newest request of the key with the most, if that key still
  has no fewer than the newcomer's afterwards; else nobody could ask beside a greedy key.
* **Deadlines.** A request is refused when its deadline passes, waiting or not, and never gets a
  slot after it. Nobody is refused because of a forecast: how long answers will be is not known,
  and a wrong refusal costs an answer where waiting costs next to nothing.
* **Cancellation.** Whoever is cancelled leaves the queue; one that was given a slot in the same
  moment passes it on. A free slot with somebody waiting for it does not exist between two steps
  of the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from shoestring.gateway.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

REMEMBERED = 32
"""So many of the latest requests say how fast slots are freed."""
LEAST_RETRY_S = 1.0
"""Nobody is told to ask again sooner; also said while nothing is known."""
MOST_RETRY_S = 60.0
LONGEST_WAIT_S = 86_400.0
"""Even without a deadline; an event loop takes no infinite timer."""


@dataclass(eq=False)
class _Waiter:
    """A request in the queue; ``turn`` ends once: with None for a slot, or with a refusal."""

    key_id: str
    deadline: float
    turn: asyncio.Future[Refusal | None]


class Slots:
    """The slots of one engine and the queue before them; for one event loop.

    Args:
        slots: requests that the engine works for at once, at least 1.
        waiting: requests that may wait, of all keys.
        waiting_per_key: and of each.
        clock: that deadlines are read on, in seconds.
    """

    def __init__(
        self,
        slots: int,
        *,
        waiting: int,
        waiting_per_key: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._most_waiting = waiting
        self._most_per_key = waiting_per_key
        self._clock = clock
        self._active = 0
        self._waiting = 0
        self._queues: OrderedDict[str, OrderedDict[_Waiter, None]] = OrderedDict()
        """Who waits, by key; the first key is the next to get a slot. No queue is empty."""
        self._held_s: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def active(self) -> int:
        """Requests that have a slot."""
        return self._active

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return self._waiting

    @asynccontextmanager
    async def slot(self, key_id: str, *, deadline: float) -> AsyncIterator[float]:
        """Wait for a slot and hold it; gives the seconds waited.

        Args:
            key_id: whose request it is.
            deadline: on the clock, when waiting has no point any more.

        Raises:
            Refusal: 503 ``queue_full``: no place to wait. 429 ``queue_full_key``: this key has
                its share of them. 503 ``deadline``: it passed.
        """
        waited_s = await self._take(key_id, deadline)
        taken = self._clock()
        try:
            yield waited_s
        finally:
            self._held_s.append(self._clock() - taken)
            self._give_back()

    async def _take(self, key_id: str, deadline: float) -> float:
        came = self._clock()
        if deadline <= came:
            raise self._late()
        if self._active < self._slots:  # then nobody waits
            self._active += 1
            return 0.0
        self._make_room(key_id)
        loop = asyncio.get_running_loop()
        waiter = _Waiter(key_id, deadline, loop.create_future())
        self._queues.setdefault(key_id, OrderedDict())[waiter] = None
        self._waiting += 1
        left_s = min(deadline - came, LONGEST_WAIT_S)
        timer = loop.call_later(left_s, lambda: self._refuse(waiter, self._late()))
        try:
            refusal = await waiter.turn
        except asyncio.CancelledError:
            self._leave(waiter)
            if not waiter.turn.cancelled() and waiter.turn.result() is None:
                self._give_back()
            raise
        finally:
            timer.cancel()
        if refusal is not None:
            raise refusal
        return self._clock() - came

    def _make_room(self, key_id: str) -> None:
        """See to it that one more of this key can wait, or refuse it."""
        own = len(self._queues.get(key_id, ()))
        if own >= self._most_per_key:
            raise Refusal(
                429,
                "queue_full_key",
                f"{own} requests of this key wait already: let them end first",
                self._retry_after_s(len(self._queues)),
            )
        if self._waiting < self._most_waiting:
            return
        most = max(self._queues.values(), key=len, default=OrderedDict[_Waiter, None]())
        if len(most) < own + 2:
            raise self._full()
        self._refuse(next(reversed(most)), self._full())

    def _give_back(self) -> None:
        self._active -= 1
        self._admit()

    def _admit(self) -> None:
        """Give the free slots to those whose turn it is."""
        while self._active < self._slots and self._queues:
            key_id, queue = next(iter(self._queues.items()))
            waiter = next(iter(queue))
            self._leave(waiter)
            if waiter.turn.done():  # cancelled, and has not run since: the turn is still its key's
                continue
            if waiter.deadline <= self._clock():
                waiter.turn.set_result(self._late())
                continue
            if key_id in self._queues:
                self._queues.move_to_end(key_id)
            self._active += 1
            waiter.turn.set_result(None)

    def _refuse(self, waiter: _Waiter, refusal: Refusal) -> None:
        self._leave(waiter)
        if not waiter.turn.done():
            waiter.turn.set_result(refusal)

    def _leave(self, waiter: _Waiter) -> None:
        """Take one out of the queue, if it is there."""
        queue = self._queues.get(waiter.key_id)
        if queue is None or waiter not in queue:
            return
        del queue[waiter]
        self._waiting -= 1
        if not queue:
            del self._queues[waiter.key_id]

    def _full(self) -> Refusal:
        return Refusal(
            503,
            "queue_full",
            f"{self._active} requests are worked for and {self._waiting} wait: ask again later",
            self._retry_after_s(self._waiting),
        )

    def _late(self) -> Refusal:
        return Refusal(
            503,
            "deadline",
            "the request's time was over before the engine was free: ask again, or allow more time",
            self._retry_after_s(self._waiting + 1),
        )

    def _retry_after_s(self, turns: int) -> float:
        """Return the seconds in which so many slots are freed, judged by the latest requests."""
        each_s = fmean(self._held_s) / self._slots if self._held_s else 0.0
        return min(max(turns * each_s, LEAST_RETRY_S), MOST_RETRY_S)
