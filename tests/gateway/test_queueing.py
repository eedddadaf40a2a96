"""Slots go to those whose turn it is; the others wait within bounds or are refused at once."""

import asyncio
from contextlib import AsyncExitStack
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.gateway.errors import Refusal
from shoestring.gateway.queueing import Slots

NEVER = float("inf")


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def queue_up(slots: Slots, key: str, served: list, *, deadline: float = NEVER) -> None:
    """Wait for a slot, note the key, and end."""
    async with slots.slot(key, deadline=deadline):
        served.append(key)


async def order_of_service(keys: list[str]) -> list[str]:
    """Let requests of these keys come, in this order, while the only slot is taken."""
    slots, served = Slots(1, waiting=1000, waiting_per_key=1000), []
    async with asyncio.TaskGroup() as group, slots.slot("first", deadline=NEVER):
        for key in keys:
            group.create_task(queue_up(slots, key, served))
        await settle()
        assert (slots.active, slots.waiting) == (1, len(keys))
    return served


def test_a_free_slot_is_given_at_once():
    """Nobody waits before a free slot, and it is free again afterwards."""

    async def scenario():
        slots = Slots(2, waiting=0, waiting_per_key=0)
        async with slots.slot("a", deadline=NEVER) as first, slots.slot("a", deadline=NEVER):
            assert (first, slots.active, slots.waiting) == (0.0, 2, 0)
        assert slots.active == 0

    asyncio.run(scenario())


def test_a_single_request_waits_one_turn_behind_a_hundred():
    """A key with 100 waiting requests is served once before another key's only one."""
    served = asyncio.run(order_of_service(["greedy"] * 100 + ["modest"]))

    assert served.index("modest") == 1
    assert len(served) == 101


@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_keys_take_turns(keys):
    """The n-th request of each key comes before the n+1-th of any, in the order of the keys."""
    counts = {key: count() for key in keys}
    keyed = [(next(counts[key]), list(counts).index(key), key) for key in keys]

    served = asyncio.run(order_of_service(keys))

    assert served == [key for _, _, key in sorted(keyed)]


def test_within_a_key_the_first_goes_first():
    """Requests of one key are served as they came."""

    async def scenario():
        slots, served = Slots(1, waiting=10, waiting_per_key=10), []

        async def request(number):
            async with slots.slot("a", deadline=NEVER):
                served.append(number)

        async with asyncio.TaskGroup() as group, slots.slot("a", deadline=NEVER):
            for number in range(5):
                group.create_task(request(number))
            await settle()
        assert served == [0, 1, 2, 3, 4]

    asyncio.run(scenario())


async def refusal_of(slots: Slots, key: str, deadline: float = NEVER) -> Refusal:
    """Ask for a slot that is refused."""
    with pytest.raises(Refusal) as refused:
        async with slots.slot(key, deadline=deadline):
            pass
    return refused.value


def test_a_key_may_wait_only_so_often():
    """The key over its share is told so by 429; another may still wait."""

    async def scenario():
        slots, served = Slots(1, waiting=3, waiting_per_key=1), []
        async with asyncio.TaskGroup() as group, slots.slot("a", deadline=NEVER):
            group.create_task(queue_up(slots, "a", served))
            await settle()
            refusal = await refusal_of(slots, "a")
            assert (refusal.status, refusal.reason) == (429, "queue_full_key")
            group.create_task(queue_up(slots, "b", served))
            await settle()
        assert served == ["a", "b"]

    asyncio.run(scenario())


def test_a_full_queue_refuses():
    """Where all places are taken, one of as many as the newcomer has is not sent away for it."""

    async def scenario():
        slots, served = Slots(1, waiting=2, waiting_per_key=2), []
        async with asyncio.TaskGroup() as group, slots.slot("a", deadline=NEVER):
            for key in "ab":
                group.create_task(queue_up(slots, key, served))
            await settle()
            refusal = await refusal_of(slots, "c")
            assert (refusal.status, refusal.reason) == (503, "queue_full")
        assert served == ["a", "b"]

    asyncio.run(scenario())


def test_a_greedy_key_cannot_take_all_places():
    """In a full queue its newest request makes room for another key's first."""

    async def scenario():
        slots, served = Slots(1, waiting=3, waiting_per_key=3), []
        async with slots.slot("a", deadline=NEVER):
            greedy = [asyncio.create_task(queue_up(slots, "a", served)) for _ in range(3)]
            await settle()
            modest = asyncio.create_task(queue_up(slots, "b", served))
            await settle()
            assert slots.waiting == 3
            refusal = greedy[2].exception()
            assert (refusal.status, refusal.reason) == (503, "queue_full")
        await asyncio.gather(modest, *greedy[:2])
        assert served == ["a", "b", "a"]

    asyncio.run(scenario())


def test_no_waiting_at_all():
    """With no places, a request without a slot is refused at once."""

    async def scenario():
        slots = Slots(1, waiting=0, waiting_per_key=5)
        async with slots.slot("a", deadline=NEVER):
            assert (await refusal_of(slots, "b")).reason == "queue_full"

    asyncio.run(scenario())


def test_a_deadline_that_has_passed_refuses_even_before_a_free_slot():
    """The client of that request no longer waits for it."""

    async def scenario():
        slots = Slots(1, waiting=1, waiting_per_key=1, clock=Clock())
        refusal = await refusal_of(slots, "a", deadline=0.0)
        assert (refusal.status, refusal.reason, slots.active) == (503, "deadline", 0)

    asyncio.run(scenario())


def test_a_deadline_ends_the_waiting():
    """A waiting request is refused when its deadline passes, and leaves the queue."""

    async def scenario():
        slots = Slots(1, waiting=1, waiting_per_key=1)
        async with slots.slot("a", deadline=NEVER):
            refusal = await refusal_of(slots, "a", asyncio.get_running_loop().time() + 0.01)
        assert (refusal.status, refusal.reason, slots.waiting) == (503, "deadline", 0)

    asyncio.run(scenario())


def test_no_slot_is_given_after_the_deadline():
    """A busy event loop fires timers late; the slot goes to one who still has time."""

    async def scenario():
        clock, served = Clock(), []
        slots = Slots(1, waiting=2, waiting_per_key=2, clock=clock)
        async with slots.slot("a", deadline=NEVER):
            late = asyncio.create_task(queue_up(slots, "b", served, deadline=50.0))
            asyncio.create_task(queue_up(slots, "c", served))  # noqa: RUF006 - awaited by settle
            await settle()
            clock.now = 60.0
        await settle()
        assert late.exception().reason == "deadline"
        assert served == ["c"]

    asyncio.run(scenario())


def test_a_cancelled_request_leaves_the_queue():
    """Its place is free for another before any slot is."""

    async def scenario():
        slots = Slots(1, waiting=1, waiting_per_key=1)
        async with slots.slot("a", deadline=NEVER):
            waiting = asyncio.create_task(queue_up(slots, "a", []))
            await settle()
            assert slots.waiting == 1
            waiting.cancel()
            await settle()
            assert slots.waiting == 0

    asyncio.run(scenario())


def test_who_waited_is_told_how_long():
    """The seconds from coming to getting the slot, on the given clock."""

    async def scenario():
        clock = Clock()
        slots = Slots(1, waiting=1, waiting_per_key=1, clock=clock)

        async def wait():
            async with slots.slot("b", deadline=NEVER) as waited_s:
                return waited_s

        async with slots.slot("a", deadline=NEVER):
            waiting = asyncio.create_task(wait())
            await settle()
            clock.now = 2.5
        assert await waiting == 2.5

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("held_s", "retry_after_s"), [(4.0, 20.0), (0.001, 1.0), (500.0, 60.0)]
)  # fmt: skip
def test_when_to_ask_again_follows_from_how_fast_slots_were_freed(held_s, retry_after_s):
    """Ten before it on two slots of held_s each; not under a second, not over a minute."""

    async def scenario():
        clock, served = Clock(), []
        slots = Slots(2, waiting=10, waiting_per_key=1, clock=clock)
        async with slots.slot("a", deadline=NEVER):
            clock.now = held_s
        async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(slots.slot("a", deadline=NEVER))
            for number in range(10):
                group.create_task(queue_up(slots, str(number), served))
            await settle()
            assert (await refusal_of(slots, "more")).retry_after_s == retry_after_s

    asyncio.run(scenario())


def test_a_failing_request_frees_its_slot():
    """Whatever ends the block, the next one gets the slot."""

    async def scenario():
        slots, served = Slots(1, waiting=1, waiting_per_key=1), []

        async def fail():
            async with slots.slot("a", deadline=NEVER):
                await settle()
                raise KeyError

        failing = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await queue_up(slots, "b", served)
        assert isinstance(failing.exception(), KeyError)
        assert (served, slots.active) == (["b"], 0)

    asyncio.run(scenario())
