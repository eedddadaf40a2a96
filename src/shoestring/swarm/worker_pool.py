"""Workers that are started before they are asked for, since a session gets a fresh one each.

One that dies before it was given out is replaced. Starts that fail, and workers that die unused,
are counted until a worker is taken: each next try waits twice as long, and after
:data:`TRIES` the pool gives up and says why, for then it is the machine that must be mended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from shoestring.errors import EngineLostError, ShoestringError, UserError
from shoestring.swarm.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from shoestring.swarm.worker_settings import WorkerSettings

TRIES = 5
FIRST_WAIT_S = 0.5


class WorkerPool:
    """Started workers, each given out once.

    Args:
        settings: of every worker.
        spare: how many wait started.
        make: makes a worker of settings, not yet started.
        first_wait_s: before the second try; then twice as long each time.

    Attributes:
        failure: why no more workers are started; None while they are.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        spare: int = 1,
        *,
        make: Callable[[WorkerSettings], Worker] = Worker,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self.failure: ShoestringError | None = None
        self._settings = settings
        self._spare = spare
        self._make = make
        self._first_wait_s = first_wait_s
        self._failures = 0
        self._waiting = 0
        self._ready: deque[Worker] = deque()
        self._change = asyncio.Condition()
        self._watchers: dict[Worker, asyncio.Task[None]] = {}
        self._filler = asyncio.create_task(self._fill())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def is_broken(self) -> bool:
        """Whether it has given up: no session can begin here until the node is started again."""
        return self.failure is not None

    async def take(self) -> Worker:
        """Return a worker that nobody had before; the caller stops it, or :meth:`close` does.

        Raises:
            ShoestringError: no worker can be started; says why.
        """
        async with self._change:
            self._waiting += 1
            self._change.notify_all()
            try:
                await self._change.wait_for(lambda: self._has_one() or self.failure is not None)
            finally:
                self._waiting -= 1
            if not self._has_one():
                assert self.failure is not None
                raise self.failure
            self._failures = 0
            worker = self._ready.popleft()
            self._change.notify_all()
            return worker

    async def close(self) -> None:
        """End all workers, those given out too."""
        self._filler.cancel()
        with suppress(asyncio.CancelledError):
            await self._filler
        async with self._change:
            self.failure = self.failure or EngineLostError("the pool of workers is closed")
            self._ready.clear()
            self._change.notify_all()
        watchers = dict(self._watchers)
        await asyncio.gather(*(worker.stop() for worker in watchers))
        await asyncio.gather(*watchers.values())

    def _has_one(self) -> bool:
        """Whether the next in the row lives; a dead one is taken out by who watches it."""
        return bool(self._ready) and self._ready[0].alive

    async def _fill(self) -> None:
        while self.failure is None:
            async with self._change:
                await self._change.wait_for(
                    lambda: len(self._ready) < max(self._spare, self._waiting)
                )
            if self._failures:
                await asyncio.sleep(self._first_wait_s * 2 ** (self._failures - 1))
            worker = self._make(self._settings)
            try:
                await worker.start()
            except UserError as error:  # it would be the same again
                await self._give_up(error)
            except ShoestringError as error:
                await self._count_failure(str(error))
            else:
                await self._add(worker)

    async def _add(self, worker: Worker) -> None:
        """Offer a started worker, unless whoever it was started for went away meanwhile."""
        is_wanted = len(self._ready) < max(self._spare, self._waiting)
        # Nothing is awaited before: what is watched is what :meth:`close` ends.
        self._watchers[worker] = asyncio.create_task(self._watch(worker))
        if not is_wanted:
            await worker.stop()
            return
        self._ready.append(worker)
        async with self._change:
            self._change.notify_all()

    async def _watch(self, worker: Worker) -> None:
        """Clean up behind a worker that has ended."""
        how = await worker.ended()
        unused = worker in self._ready
        if unused:
            self._ready.remove(worker)
        await worker.stop()
        del self._watchers[worker]
        if unused:
            await self._count_failure(how)

    async def _count_failure(self, how: str) -> None:
        self._failures += 1
        if self._failures >= TRIES:
            tries = f"no worker could be started in {TRIES} tries, the last: {how}"
            await self._give_up(EngineLostError(tries))
        else:
            async with self._change:
                self._change.notify_all()

    async def _give_up(self, error: ShoestringError) -> None:
        async with self._change:
            self.failure = error
            self._change.notify_all()
