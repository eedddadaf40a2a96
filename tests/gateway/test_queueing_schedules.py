"""Whatever happens in whatever order, no slot is lost, given twice, or left free before a queue."""

import asyncio
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.gateway.errors import Refusal
from shoestring.gateway.queueing import Slots

NEVER = float("inf")


class SteppedLoop(asyncio.SelectorEventLoop):
    """Its clock stands while anything can run, then jumps to the next timer.

    Where nothing can run and no timer is left, nobody will ever wake up: that raises.
    """

    def __init__(self):
        super().__init__()
        self.now = 0.0
        look = self._selector.select

        def select(timeout=None):
            if timeout is None:
                raise RuntimeError("nobody will ever wake up")
            self.now += timeout
            return look(0)

        self._selector.select = select

    def time(self):
        """Return the jumping clock."""
        return self.now


def run(scenario):
    """Run on the stepped clock."""
    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        return runner.run(scenario)


class Room:
    """Slots, who is inside, and what must always hold."""

    def __init__(self, slots: int, waiting: int, waiting_per_key: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.slots = Slots(
            slots, waiting=waiting, waiting_per_key=waiting_per_key, clock=self.loop.time
        )
        self.inside = 0
        self.most = slots
        self.bounds = waiting, waiting_per_key

    async def request(self, key: str, patience_s: float, held_s: float) -> str:
        """Take a slot for a while; return how it ended."""
        deadline = self.loop.time() + patience_s
        try:
            async with self.slots.slot(key, deadline=deadline):
                assert self.loop.time() <= deadline
                self.inside += 1
                try:
                    await asyncio.sleep(held_s)
                finally:
                    self.inside -= 1
        except Refusal as refusal:
            if refusal.reason == "deadline":
                # Up to the resolution of the loop's clock.
                assert self.loop.time() >= deadline - 1e-6
            return refusal.reason
        return "served"

    def check(self) -> None:
        """What holds between any two steps of the event loop."""
        queues = self.slots._queues
        waiters = [waiter for queue in queues.values() for waiter in queue]
        assert self.inside <= self.slots.active <= self.most
        assert self.slots.waiting == len(waiters) <= self.bounds[0]
        assert all(0 < len(queue) <= self.bounds[1] for queue in queues.values())
        if self.slots.active < self.slots._slots:
            assert all(waiter.turn.done() for waiter in waiters)


OPERATIONS = st.one_of(
    st.tuples(
        st.just("come"),
        st.sampled_from("abc"),
        st.sampled_from([0.0, 1.0, 3.0, NEVER]),
        st.sampled_from([0.0, 1.0, 2.0]),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("step"), st.integers(1, 3)),
    st.tuples(st.just("sleep"), st.sampled_from([0.5, 1.0, 2.0])),
)


async def play(slots, waiting, waiting_per_key, operations) -> None:
    """Do what is said, check after each step, then let all end."""
    room = Room(slots, waiting, waiting_per_key)
    tasks, patience_s, cancelled = [], [], set()
    for operation, *arguments in operations:
        if operation == "come":
            tasks.append(asyncio.create_task(room.request(*arguments)))
            patience_s.append(arguments[1])
        elif operation == "cancel" and tasks:
            cancelled.add(arguments[0] % len(tasks))
            tasks[arguments[0] % len(tasks)].cancel()
        elif operation == "sleep":
            await asyncio.sleep(arguments[0])
        for _ in range(arguments[0] if operation == "step" else 0):
            await asyncio.sleep(0)
            room.check()
        room.check()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    for number, end in enumerate(ends):
        if isinstance(end, asyncio.CancelledError):
            assert number in cancelled
        else:
            assert end in {"served", "deadline", "queue_full", "queue_full_key"}
            assert not (end == "deadline" and patience_s[number] == NEVER)
    assert (room.slots.active, room.slots.waiting, room.inside) == (0, 0, 0)
    assert not room.slots._queues


@settings(max_examples=300)
@given(st.integers(1, 3), st.integers(0, 6), st.integers(0, 4), st.lists(OPERATIONS, max_size=60))
def test_nothing_is_lost_whatever_happens(slots, waiting, waiting_per_key, operations):
    """Requests come, leave, time out and are cancelled at any step; all bounds hold throughout."""
    run(play(slots, waiting, waiting_per_key, operations))


@pytest.mark.parametrize("first", ["cancel", "free"])
@pytest.mark.parametrize(("cancel_at", "free_at"), list(product(range(6), repeat=2)))
def test_a_cancelled_waiter_passes_its_slot_on(cancel_at, free_at, first):
    """Cancelled just before, with, or just after the slot's arrival: the next one gets it."""

    async def scenario():
        slots = Slots(1, waiting=5, waiting_per_key=5)
        free = asyncio.Event()

        async def hold():
            async with slots.slot("a", deadline=NEVER):
                await free.wait()

        async def enter():
            async with slots.slot("b", deadline=NEVER):
                await asyncio.sleep(0)

        holder = asyncio.create_task(hold())
        await asyncio.sleep(0)
        leaver, next_one = (asyncio.create_task(enter()) for _ in range(2))
        for step in range(7):
            acts = [(cancel_at, leaver.cancel), (free_at, free.set)]
            for at, act in acts if first == "cancel" else reversed(acts):
                if at == step:
                    act()
            await asyncio.sleep(0)
        await asyncio.gather(holder, leaver, next_one, return_exceptions=True)
        assert not next_one.cancelled()
        assert (slots.active, slots.waiting) == (0, 0)

    run(scenario())
