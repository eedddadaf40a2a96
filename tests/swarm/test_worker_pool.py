"""The pool under faults that a real worker shows too seldom: who goes away while one starts.

What the pool does with real workers is in ``test_worker.py``.
"""

import asyncio
from contextlib import suppress

import pytest

from shoestring.errors import BadValueError, EngineLostError
from shoestring.swarm.worker_pool import TRIES, WorkerPool

MUST_COME_S = 30.0


class Fake:
    """A worker that starts when it is told to."""

    def __init__(self, gate, *, error=None):
        """Nothing has happened to it."""
        self.started = self.stopped = False
        self._gate = gate
        self._error = error
        self._end = asyncio.get_running_loop().create_future()

    async def start(self):
        """Wait for the gate."""
        await self._gate.wait()
        if self._error is not None:
            raise self._error
        self.started = True

    async def stop(self):
        """End it."""
        await asyncio.sleep(0)
        self.stopped = True
        if not self._end.done():
            self._end.set_result("stopped")

    async def ended(self):
        """Wait for the end."""
        return await asyncio.shield(self._end)

    @property
    def alive(self):
        """Whether it has started and not ended."""
        return self.started and not self._end.done()


class Yard:
    """Makes fakes, and knows them all."""

    def __init__(self, error=None):
        """None yet; the gate is closed."""
        self.made = []
        self.gate = asyncio.Event()
        self._error = error

    def make(self, _settings):
        """Make one."""
        self.made.append(Fake(self.gate, error=self._error))
        return self.made[-1]

    def pool(self, spare=1):
        """Return a pool of them."""
        return WorkerPool(None, spare, make=self.make, first_wait_s=0.0)

    @property
    def running(self):
        """Those that live."""
        return [one for one in self.made if one.started and not one.stopped]


async def settle():
    """Let everything happen that can happen now."""
    for _ in range(30):
        await asyncio.sleep(0)


async def give_up(task):
    """Cancel a task and wait until it is over."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def run(scenario):
    """Run it, within a time that it never needs."""
    return asyncio.run(asyncio.wait_for(scenario, MUST_COME_S))


def test_who_goes_away_while_a_worker_starts_leaves_the_spare_alone():
    """What was started for many who went is ended; one waits for the next."""

    async def scenario():
        yard = Yard()
        async with yard.pool() as pool:
            takers = [asyncio.create_task(pool.take()) for _ in range(4)]
            await settle()
            for taker in takers:
                await give_up(taker)
            yard.gate.set()
            await settle()
            assert len(yard.running) == 1
            assert await pool.take() is yard.running[0]

    run(scenario())


def test_a_worker_that_started_for_nobody_is_ended():
    """Who asked went between its start and its being given out; no spare is wanted."""

    async def scenario():
        yard = Yard()
        async with yard.pool(spare=0) as pool:
            taker = asyncio.create_task(pool.take())
            await settle()
            await give_up(taker)
            yard.gate.set()
            await settle()
            assert (len(yard.made), yard.running) == (1, [])
            assert (await pool.take()).alive

    run(scenario())


@pytest.mark.parametrize("turns", range(12))
def test_a_taker_that_is_cancelled_at_any_moment_loses_no_worker(turns):
    """Each that started is given, kept as the spare, or ended."""

    async def scenario():
        yard = Yard()
        async with yard.pool() as pool:
            taker = asyncio.create_task(pool.take())
            await settle()
            yard.gate.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            taker.cancel()
            (got,) = await asyncio.gather(taker, return_exceptions=True)
            await settle()
            kept = [one for one in yard.running if one is not got]
            assert len(kept) == 1
            assert await pool.take() is kept[0]
        assert yard.running == []

    run(scenario())


@pytest.mark.parametrize("turns", range(12))
def test_a_pool_that_is_closed_at_any_moment_ends_all_that_it_started(turns):
    """Also one whose start was over when nobody had heard of it yet."""

    async def scenario():
        yard = Yard()
        pool = yard.pool(spare=3)
        taker = asyncio.create_task(pool.take())
        await settle()
        yard.gate.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        await pool.close()
        await asyncio.gather(taker, return_exceptions=True)
        assert yard.running == []

    run(scenario())


def test_a_pool_that_is_closed_while_another_holds_its_lock_ends_all():
    """The worker of that moment was started, and not yet offered."""

    async def scenario():
        yard = Yard()
        pool = yard.pool()
        await settle()
        async with pool._change:
            yard.gate.set()
            await settle()
            closing = asyncio.create_task(pool.close())
            await settle()
        await closing
        assert yard.running == []

    run(scenario())


@pytest.mark.parametrize(
    ("error", "tries"), [(EngineLostError("it died"), TRIES), (BadValueError("no such digest"), 1)]
)
def test_a_pool_that_gave_up_says_that_it_is_broken(error, tries):
    """A node then tells peers that it has no session to give."""

    async def scenario():
        yard = Yard(error)
        async with yard.pool() as pool:
            assert not pool.is_broken
            yard.gate.set()
            with pytest.raises(type(error), match=str(error)):
                await pool.take()
            assert pool.is_broken
            assert len(yard.made) == tries

    run(scenario())
