"""Several who ask the same share one answer as it is made, within bounds, and nobody hangs."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.gateway.cache import Stored, chunk_bytes
from shoestring.gateway.flights import Flight, FlightLostError, Flights

HEAD = Stored(200, "text/event-stream", (), "q4", "one", None, None)
CHUNK = chunk_bytes(b"0")
"""Memory of a chunk of one byte."""


def flights_of(chunks: int = 100, in_all: int = 1000) -> Flights:
    """Flights that hold so many chunks of one byte each, and all together."""
    return Flights(max_entry_bytes=chunks * CHUNK, max_bytes=in_all * CHUNK)


def ended(*chunks: bytes) -> Stored:
    """A whole answer."""
    return replace(HEAD, chunks=chunks)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def follow(flights: Flights, name: str = "a") -> bytes:
    """Follow to the end."""
    with flights.join(name) as flight:
        assert not flight.leader
        return b"".join([chunk async for chunk in flight.chunks()])


def follower(flights: Flights, name: str = "a") -> "asyncio.Task[bytes]":
    """Follow in a task of its own."""
    return asyncio.create_task(follow(flights, name))


def test_who_comes_later_gets_the_answer_from_its_beginning():
    """Followers of any time get all chunks, and the leader does the work once."""

    async def scenario():
        flights = flights_of()
        with flights.join("a") as leader:
            assert leader.leader
            early = follower(flights)
            await settle()
            leader.add(b"1")
            await settle()
            late = follower(flights)
            leader.add(b"2")
            await settle()
            leader.add(b"3")
            leader.finish(ended(b"1", b"2", b"3"))
        assert await asyncio.gather(early, late) == [b"123", b"123"]
        assert flights.held_bytes == 0

    asyncio.run(scenario())


def test_a_follower_gets_a_chunk_while_the_leader_still_works():
    """Not only at the end."""

    async def scenario():
        flights = flights_of()
        with flights.join("a") as leader, flights.join("a") as second:
            chunks = second.chunks()
            leader.add(b"1")
            assert await anext(chunks) == b"1"
            waiting = asyncio.create_task(anext(chunks))
            await settle()
            leader.add(b"2")
            assert await waiting == b"2"

    asyncio.run(scenario())


def test_the_head_comes_before_the_first_chunk():
    """Followers know the variant as soon as the engine answers, and the tokens at the end."""

    async def scenario():
        flights = flights_of()
        with flights.join("a") as leader, flights.join("a") as second:
            waiting = asyncio.create_task(second.head())
            await settle()
            leader.begin(HEAD)
            assert await waiting is HEAD
            assert second.stored is None
            whole = replace(ended(), output_tokens=5)
            leader.finish(whole)
            assert second.stored is whole

    asyncio.run(scenario())


def test_after_the_end_the_next_one_leads():
    """A finished or failed answer is nobody's to follow: the cache has it, or it is asked again."""

    async def scenario():
        flights = flights_of()
        for end in (lambda flight: flight.finish(ended()), Flight.fail, Flight.leave):
            with flights.join("a") as flight:
                end(flight)
                with flights.join("a") as next_one:
                    assert next_one.leader

    asyncio.run(scenario())


def test_different_requests_do_not_meet():
    """Another name is another answer."""

    async def scenario():
        flights = flights_of()
        with flights.join("a") as one, flights.join("b") as other:
            assert one.leader
            assert other.leader

    asyncio.run(scenario())


@pytest.mark.parametrize("added", [0, 1])
def test_a_leader_that_fails_loses_its_followers(added):
    """Leaving without an end is a failure; who has sent nothing on can ask for itself."""

    async def scenario():
        flights = flights_of()
        with flights.join("a") as leader:
            task = follower(flights)
            for _ in range(added):
                leader.add(b"1")
            await settle()
        with pytest.raises(FlightLostError) as lost:
            await task
        assert lost.value.sent is bool(added)

        with flights.join("a"):
            waiting = asyncio.create_task(flights.join("a").head())
            await settle()
        with pytest.raises(FlightLostError):
            await waiting
        assert flights.held_bytes == 0

    asyncio.run(scenario())


def test_the_work_goes_on_while_a_follower_listens():
    """The leader's client leaves; only when the last follower has, too, nobody wants the answer."""

    async def scenario():
        flights = flights_of()
        with flights.join("a") as leader:
            task = follower(flights)
            stop = asyncio.create_task(leader.deserted())
            await settle()
            leader.leave()
            leader.leave()
            await settle()
            assert leader.wanted
            assert not stop.done()
            leader.add(b"1")
            await settle()
            task.cancel()
            await asyncio.wait([task])
            await stop
            assert not leader.wanted
            leader.add(b"2")
            assert flights.held_bytes == 0
            with flights.join("a") as next_one:
                assert next_one.leader

    asyncio.run(scenario())


def test_a_long_answer_goes_on_for_those_who_keep_up():
    """Beyond the bound of an entry its beginning is let go; nobody new can follow."""

    async def scenario():
        flights = flights_of(chunks=3)
        with flights.join("a") as leader:
            quick = follower(flights)
            await settle()
            with flights.join("a") as slow:
                chunks = slow.chunks()
                for number in range(9):
                    leader.add(b"%d" % number)
                    assert flights.held_bytes <= 3 * CHUNK
                    await settle()
                    if number == 0:
                        assert await anext(chunks) == b"0"
                with pytest.raises(FlightLostError) as lost:
                    await anext(chunks)
                assert lost.value.sent
            with flights.join("a") as next_one:
                assert next_one.leader
            leader.finish(ended())
        assert await quick == b"012345678"
        assert flights.held_bytes == 0

    asyncio.run(scenario())


def test_a_follower_that_read_nothing_of_a_long_answer_can_ask_for_itself():
    """It is lost, and nothing was sent."""

    async def scenario():
        flights = flights_of(chunks=2)
        with flights.join("a") as leader, flights.join("a") as slow:
            for _ in range(3):
                leader.add(b"1")
            with pytest.raises(FlightLostError) as lost:
                await anext(slow.chunks())
            assert not lost.value.sent

    asyncio.run(scenario())


def test_slow_readers_cannot_hold_more_than_the_bound_of_all():
    """Followers that never read lose the oldest answers first; the newest is whole."""

    async def scenario():
        flights = flights_of(chunks=10, in_all=25)
        sleepers = []
        for number in range(9):
            with flights.join(str(number)) as leader:
                sleepers.append(flights.join(str(number)))
                for _ in range(10):
                    leader.add(b"1")
                    assert flights.held_bytes <= 25 * CHUNK
                leader.finish(ended())
        assert b"".join([chunk async for chunk in sleepers[-1].chunks()]) == b"1" * 10
        with pytest.raises(FlightLostError):
            await anext(sleepers[0].chunks())
        for sleeper in sleepers:
            sleeper.leave()
        assert flights.held_bytes == 0

    asyncio.run(scenario())


def test_an_answer_that_nobody_can_follow_is_not_held():
    """Dissolved and without followers, chunks pass by."""

    async def scenario():
        flights = flights_of(chunks=2)
        with flights.join("a") as leader:
            with flights.join("a"):
                for _ in range(3):
                    leader.add(b"1")
                assert flights.held_bytes == 2 * CHUNK
            assert flights.held_bytes == 0
            leader.add(b"1")
            assert flights.held_bytes == 0

    asyncio.run(scenario())


def test_a_cancelled_follower_leaves_the_others_alone():
    """The one that waits beside it still gets its chunk."""

    async def scenario():
        flights = flights_of()
        with flights.join("a") as leader:
            one, other = follower(flights), follower(flights)
            await settle()
            one.cancel()
            leader.add(b"1")
            leader.finish(ended(b"1"))
            assert await other == b"1"
            assert await asyncio.wait([one])

    asyncio.run(scenario())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("follow"), st.integers(0, 3)),
        st.tuples(st.just("add"), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("step"), st.integers(1, 4)),
    ),
    max_size=40,
)


async def read_slowly(flights: Flights, pause: int) -> tuple[bool, list[bytes]]:
    """Follow with so many steps of the loop between chunks; whether it is whole, and the chunks."""
    got = []
    with flights.join("a") as flight:
        if flight.leader:
            return False, got
        try:
            async for chunk in flight.chunks():
                got.append(chunk)
                for _ in range(pause):
                    await asyncio.sleep(0)
        except FlightLostError as error:
            return (error.sent is not bool(got)), got
    return True, got


async def lead(flights: Flights, steps: list, end: str, most_bytes: int) -> tuple[list, list]:
    """Do what is said; return the chunks and the readers' tasks."""
    sent, readers = [], []
    with flights.join("a") as leader:
        for step, number in steps:
            if step == "follow":
                readers.append(asyncio.create_task(read_slowly(flights, number)))
            elif step == "add":
                sent.append(b"%d" % (len(sent) % 10))
                leader.add(sent[-1])
            elif step == "cancel" and readers:
                readers[number % len(readers)].cancel()
            for _ in range(number if step == "step" else 0):
                await asyncio.sleep(0)
            assert flights.held_bytes <= most_bytes
        ends = {"finish": lambda: leader.finish(ended(*sent)), "fail": leader.fail}
        ends.get(end, leader.leave)()
    return sent, readers


@settings(max_examples=200)
@given(STEPS, st.sampled_from(["finish", "fail", "leave"]), st.integers(1, 12), st.integers(1, 12))
def test_followers_get_all_in_order_or_are_told(steps, end, chunks, in_all):
    """At any pace and however it ends: the whole answer, or a prefix of it and an error."""

    async def scenario():
        flights = flights_of(chunks, in_all)
        sent, readers = await lead(flights, steps, end, min(chunks, in_all) * CHUNK)
        ends = await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), 60)
        for outcome in ends:
            if isinstance(outcome, asyncio.CancelledError):
                continue
            whole, got = outcome
            assert got == (sent if whole else sent[: len(got)])
            assert not (whole and end != "finish")
        assert flights.held_bytes == 0
        assert not flights._holding
        assert not flights._open

    asyncio.run(scenario())
