"""One engine after another: when one is lost a new plan is made, and the next one stands.

Whoever asks gets the place of the one that stands, and waits while there is none. How often and
how long is tried has limits; beyond them all who wait are told why, and it is over.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from shoestring.engines.transport import parse_base_url
from shoestring.errors import EngineLostError, ShoestringError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from shoestring.engines.protocol import Engine

    PlanAgain = Callable[[], Awaitable[AbstractAsyncContextManager[Engine]]]

LOOK_S: Final = 0.2
GAPS: Final = 20
"""An engine is silent for too long after so many times its longest gap between tokens so far."""
GAP_S: Final = 60.0
FIRST_S: Final = 600.0
"""At least so long before the first token: a prompt is computed, or others are."""
DOUBTED_S: Final = 10.0
"""So long after it was first said that a part does not answer, one more time decides."""
DOUBT_LASTS_S: Final = 20.0
"""Longest time between two of these; a node that does not answer is asked about as often."""


@dataclass(frozen=True)
class Trying:
    """How often an engine is put in the place of another.

    Attributes:
        losses: so many within ``within_s``, one after another without a token, are too many.
        within_s: see there.
        plans: so many that fail one after another are too many.
        wait_s: after the first of these; doubled after each.
    """

    losses: int = 5
    within_s: float = 600.0
    plans: int = 5
    wait_s: float = 2.0


class Pace:
    """How fast tokens come from one engine, over all of its answers; when it must be lost.

    Args:
        now: a monotonic clock, in seconds.

    Attributes:
        now: see above.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._longest_s = {False: 0.0, True: 0.0}
        self._last_s = now()
        self._doubts_s: tuple[float, float] | None = None
        """The first and the last since a token came."""

    @property
    def has_begun(self) -> bool:
        """Whether any token has come."""
        return any(self._longest_s.values())

    def mark(self, since_s: float, *, begun: bool) -> float:
        """Note a token that came now, after one at ``since_s``; begun: it was not the first.

        Returns:
            Now.
        """
        self._last_s, self._doubts_s = self.now(), None
        self._longest_s[begun] = max(self._longest_s[begun], self._last_s - since_s)
        return self._last_s

    def doubt(self) -> None:
        """Somebody says that a part of the engine does not answer, with nobody to replace it."""
        now_s = self.now()
        first_s, last_s = self._doubts_s or (now_s, now_s)
        self._doubts_s = (now_s if now_s - last_s > DOUBT_LASTS_S else first_s, now_s)

    def left_s(self, since_s: float, *, begun: bool, least_s: float = 0.0) -> float:
        """Return for how long an answer may still be silent that had its last token at that time.

        Another answer's tokens count: engines have queues.

        Args:
            since_s: that time.
            begun: there was one.
            least_s: it may be silent for so long whatever the pace.
        """
        if self._doubts_s is not None and self._doubts_s[1] - self._doubts_s[0] >= DOUBTED_S:
            return 0.0
        limit_s = max(GAP_S if begun else FIRST_S, GAPS * self._longest_s[begun], least_s)
        return max(since_s, self._last_s) + limit_s - self.now()


@dataclass(frozen=True)
class Place:
    """Where the engine is that stands."""

    host: str
    port: int
    key: str | None
    pace: Pace


class Standing:
    """Keeps an engine standing while its ``async with`` lasts.

    Args:
        plan_again: makes a plan over whoever is there now, and returns the engine that follows it,
            to be started by entering it.
        tell: given a line for each thing that happens.
        trying: its limits.
    """

    def __init__(
        self,
        plan_again: PlanAgain,
        *,
        tell: Callable[[str], None],
        trying: Trying = Trying(),
    ) -> None:
        self._plan_again, self._tell, self._trying = plan_again, tell, trying
        self._standing: asyncio.Future[Place] | None = None
        self._lost: asyncio.Future[str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._end: ShoestringError | None = None
        self._losses: deque[float] = deque()

    async def __aenter__(self) -> Self:
        self._standing = _quiet_future()
        self._task = asyncio.create_task(self._run())
        try:
            await self.place()
        except BaseException:
            await self._cancel()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._cancel()

    async def place(self) -> Place:
        """Return where the engine is; wait while there is none.

        Raises:
            ShoestringError: there will be none any more.
        """
        assert self._standing is not None, "entered"
        return await asyncio.shield(self._standing)

    def lose(self, place: Place, why: str) -> None:
        """Take the engine that stood there for lost."""
        assert self._standing is not None, "entered"
        stands = self._standing.done() and not self._standing.exception()
        if stands and self._standing.result() is place:
            assert self._lost is not None
            if not self._lost.done():
                self._lost.set_result(why)
            self._standing = _quiet_future()

    def finish(self, error: ShoestringError) -> None:
        """End the engine that stands, or the next one that does, and let none follow.

        Args:
            error: why; all who wait are told.
        """
        self._end = error
        standing = self._standing
        if standing is not None and standing.done() and not standing.exception():
            self.lose(standing.result(), str(error))

    def doubt(self) -> None:
        """Say that a part of the engine does not answer."""
        standing = self._standing
        if standing is not None and standing.done() and not standing.exception():
            standing.result().pace.doubt()

    async def over(self) -> None:
        """Wait until no engine will stand any more.

        Raises:
            ShoestringError: why.
        """
        assert self._task is not None, "entered"
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        try:
            place = await self._stand_once()
            while True:
                self._count_loss(place)
                place = await self._stand_again()
        except BaseException as error:
            assert self._standing is not None
            if self._standing.done():
                self._standing = _quiet_future()
            told = error if isinstance(error, ShoestringError) else EngineLostError("it was ended")
            self._standing.set_exception(self._end or told)
            raise

    async def _stand_again(self) -> Place:
        """Make plans until an engine stands; return where it was once it is lost."""
        wait_s, begun = self._trying.wait_s, asyncio.get_running_loop().time()
        number = 1
        while True:
            try:
                return await self._stand_once()
            except ShoestringError as error:
                if self._end is not None:
                    raise self._end from error
                if number == self._trying.plans:
                    took_s = asyncio.get_running_loop().time() - begun
                    raise EngineLostError(
                        f"no engine stands after {number} plans in {took_s:.0f} s: {error}"
                    ) from error
                self._tell(f"plan {number} failed: {error}; the next in {wait_s:g} s")
                await asyncio.sleep(wait_s)
                wait_s *= 2
                number += 1

    async def _stand_once(self) -> Place:
        """Start an engine; return where it was once it is lost."""
        async with await self._plan_again() as engine:
            url, key = engine.address()
            at = parse_base_url(url)
            self._lost = asyncio.get_running_loop().create_future()
            place = Place(at.host, at.port, key, Pace())
            assert self._standing is not None
            self._standing.set_result(place)
            if self._end is not None:
                self.lose(place, str(self._end))
            while not self._lost.done():
                await asyncio.wait({self._lost}, timeout=LOOK_S)
                if (death := engine.lost()) is not None:
                    self.lose(place, death)
            if self._end is None:
                self._tell(f"the engine is lost: {engine.lost() or self._lost.result()}")
        return place

    def _count_loss(self, place: Place) -> None:
        """See whether another engine may stand after one that was lost."""
        if self._end is not None:
            raise self._end
        now_s = asyncio.get_running_loop().time()
        if place.pace.has_begun:
            self._losses.clear()
        self._losses.append(now_s)
        while self._losses[0] < now_s - self._trying.within_s:
            self._losses.popleft()
        if len(self._losses) >= self._trying.losses:
            raise EngineLostError(
                f"{len(self._losses)} engines one after another were lost within "
                f"{self._trying.within_s:g} s: look at the peers and at the log"
            )

    async def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def _quiet_future() -> asyncio.Future[Place]:
    """Return a future whose error may go unheard: perhaps nobody waits."""
    future: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
