"""Replicas on one Redis keep limits together; without it each keeps its share, and none waits."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from limits.aio.storage import RedisStorage
from redis import Redis

from shoestring.gateway.counters import WINDOW_S, Ask, Budget
from shoestring.gateway.counters_memory import MemoryCounters
from shoestring.gateway.counters_redis import RedisCounters
from shoestring.gateway.redis_line import RedisLostError
from shoestring.testing.redis_server import RedisServer, running_redis

LIMITS = {"requests_per_minute": 40, "tokens_per_minute": 400, "concurrent": 40,
          "address_requests_per_minute": 40, "address_concurrent": 40}  # fmt: skip
UNHURRIED_S = 20.0  # where it is no matter how long Redis takes on a busy machine
HANGS_S = 3.0  # where a Redis that hangs is waited for


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis for the whole file; each test begins with an empty one."""
    with running_redis() as running:
        yield running


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    """A client that sees what lies there."""
    with Redis.from_url(server.url, decode_responses=True) as client:
        client.flushall()
        yield client


def ask(**fields: Any) -> Ask:
    """A request with no limits but those that are named."""
    return Ask(**{"id": secrets.token_hex(8), "key": "k", "address": "a", "tokens": 10, **fields})


def budget(limit: int) -> Budget:
    """A budget whose period runs for a while."""
    return Budget("k:2026-11", limit, 1000.0)


class Clock:
    """The time, and a minute more whenever that is wanted."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return time.monotonic() + self.ahead_s

    def pass_window(self) -> None:
        """Let everything fall out of its window."""
        self.ahead_s += WINDOW_S + 1


def with_replicas(
    server: RedisServer,
    count: int,
    work: Callable[..., Coroutine[Any, Any, Any]],
    *,
    patience_s: float = UNHURRIED_S,
    clock: Clock | None = None,
) -> Any:
    """Run something with that many replicas that know of each other for longer than a minute."""
    clock = clock or Clock()

    async def run() -> Any:
        async with AsyncExitStack() as stack:
            replicas = [
                RedisCounters(server.url, patience_s=patience_s, own=MemoryCounters(clock=clock))
                for _ in range(count)
            ]
            for replica in replicas:
                await stack.enter_async_context(replica)
            for replica in replicas:
                await replica._beat()
                assert (replica.state(), replica.replicas()) == ("ok", count)
            clock.pass_window()
            for replica in replicas:
                await replica._beat()
            return await work(*replicas)

    return asyncio.run(run())


def contents(redis: Redis) -> dict[str, Any]:
    """All that lies there, but for the time that it is kept and who is alive."""
    names = [name for name in redis.scan_iter() if not name.endswith(":replicas")]
    return {name: redis.dump(name) for name in names}


async def count_admitted(replicas: tuple[RedisCounters, ...], asks: list[Ask]) -> int:
    """Ask all at once, by turns."""
    calls = (replicas[n % len(replicas)].admit(one) for n, one in enumerate(asks))
    return sum(verdict.refused is None for verdict in await asyncio.gather(*calls))


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"requests_per_minute": 60}, 60),
        ({"tokens_per_minute": 705}, 70),
        ({"concurrent": 30}, 30),
        ({"budget": budget(509)}, 50),
        ({"address_requests_per_minute": 45}, 45),
        ({"address_concurrent": 35}, 35),
    ],
)
@pytest.mark.usefixtures("redis")
def test_two_replicas_never_exceed_a_limit(server: RedisServer, fields: dict, most: int):
    """200 ask two replicas at once: exactly as many are admitted as the limit says."""

    async def work(*replicas: RedisCounters) -> int:
        return await count_admitted(replicas, [ask(**fields) for _ in range(200)])

    assert with_replicas(server, 2, work) == most


def test_a_refused_request_changes_nothing(server: RedisServer, redis: Redis):
    """Whichever limit refuses, Redis holds what it held before, to the byte."""
    full = {"requests_per_minute": 1, "tokens_per_minute": 15, "concurrent": 1,
            "budget": budget(15), "address_requests_per_minute": 1,
            "address_concurrent": 1}  # fmt: skip
    wide = {name: 1000 for name in full if name != "budget"} | {"budget": budget(1000)}

    async def work(replica: RedisCounters) -> None:
        await replica.admit(ask(**wide))
        before = contents(redis)
        for name, limit in full.items():
            verdict = await replica.admit(ask(**{**wide, name: limit}))
            assert verdict.refused is not None
            assert contents(redis) == before

    with_replicas(server, 1, work)


@pytest.mark.usefixtures("redis")
def test_redis_and_memory_decide_alike(server: RedisServer):
    """The same requests get the same verdicts, waits and headers from either book."""
    shuffler = random.Random(3)
    own = MemoryCounters()

    async def work(replica: RedisCounters) -> None:
        running: list[Ask] = []
        for _ in range(300):
            if running and shuffler.random() < 0.4:
                one = running.pop(shuffler.randrange(len(running)))
                used = shuffler.choice([0, one.tokens, 30])
                await replica.settle(one, used)
                own.finish(one.id, used)
                continue
            one = ask(
                key=shuffler.choice("kl"), tokens=shuffler.choice([0, 5, 20, 500]),
                requests_per_minute=30, tokens_per_minute=300, concurrent=4,
                budget=Budget("k:p", 900, 77.0), address_requests_per_minute=50,
                address_concurrent=6,
            )  # fmt: skip
            theirs, ours = await replica.admit(one), own.decide(one)
            assert theirs.refused == ours.refused
            assert theirs.wait_s == pytest.approx(ours.wait_s, abs=5)
            for rate, expected in ((theirs.requests, ours.requests), (theirs.tokens, ours.tokens)):
                assert (rate.limit, rate.remaining) == (expected.limit, expected.remaining)
                assert rate.reset_s == pytest.approx(expected.reset_s, abs=5)
            if ours.refused is None:
                running.append(one)

    with_replicas(server, 1, work)


@pytest.mark.usefixtures("redis")
def test_limits_reads_the_windows(server: RedisServer):
    """What lies in Redis for requests is a moving window of `limits`; it counts the same."""
    storage = RedisStorage(server.url, implementation="redispy", key_prefix="shoestring")

    async def work(replica: RedisCounters) -> None:
        for _ in range(7):
            await replica.admit(ask(requests_per_minute=10))
        _, count = await storage.get_moving_window("hits:key:k", 10, 60)
        assert count == 7
        assert all([await storage.acquire_entry("hits:key:k", 10, 60) for _ in range(3)])
        assert (await replica.admit(ask(requests_per_minute=10))).refused == "rate_limit"
        await storage.bridge.storage.aclose()

    with_replicas(server, 1, work)


def test_settling_twice_gives_back_once(server: RedisServer, redis: Redis):
    """Neither the same replica nor a repeated command refunds again."""

    async def work(replica: RedisCounters) -> None:
        one = ask(tokens=100, budget=budget(1000), tokens_per_minute=1000)
        await replica.admit(one)
        await replica.settle(one, 40)
        after = contents(redis)
        await replica.settle(one, 0)
        await replica._settle(one, 0)
        assert contents(redis) == after
        assert await replica.budget_used(budget(1000)) == 40

    with_replicas(server, 1, work)


def test_a_dead_replica_frees_its_places_and_a_living_one_keeps_them(
    server: RedisServer, redis: Redis
):
    """A beat renews what runs; what no beat renews is free when its time is over."""

    async def work(replica: RedisCounters) -> None:
        one = ask(concurrent=1)
        await replica.admit(one)
        redis.zadd("shoestring:running:key:k", {one.id: 1})  # long ago
        await replica._beat()
        assert (await replica.admit(ask(concurrent=1))).refused == "concurrency"
        redis.zadd("shoestring:running:key:k", {one.id: 1})
        assert (await replica.admit(ask(concurrent=1))).refused is None

    with_replicas(server, 1, work)


def test_who_leaves_while_asking_holds_nothing(server: RedisServer, redis: Redis):
    """A client that goes away before the answer leaves no place taken and no token spent."""

    async def work(replica: RedisCounters) -> None:
        limits = {"concurrent": 5, "budget": budget(1000), "tokens_per_minute": 1000}
        asking = [asyncio.create_task(replica.admit(ask(**limits))) for _ in range(5)]
        await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        assert await replica.budget_used(budget(1000)) == 0
        assert redis.zcard("shoestring:running:key:k") == 0
        assert redis.get("shoestring:sum:k") == "0"

    with_replicas(server, 1, work)


def test_killed_and_restarted_empty(server: RedisServer, redis: Redis):
    """After a minute each admits its share; then Redis knows again what was admitted and runs."""
    limits = {"requests_per_minute": 20, "concurrent": 100, "budget": budget(1000)}
    clock = Clock()

    async def work(*replicas: RedisCounters) -> None:
        before = [ask(**limits) for _ in range(8)]
        assert await count_admitted(replicas, before) == 8
        server.kill()
        assert await count_admitted(replicas, [ask(**limits) for _ in range(100)]) == 0
        clock.pass_window()
        assert await count_admitted(replicas, [ask(**limits) for _ in range(100)]) == 20
        assert [replica.state() for replica in replicas] == ["lost", "lost"]
        await replicas[0].settle(before[0], 4)
        server.restart()
        for replica in replicas:
            await asyncio.wait_for(replica.wait_for("ok"), 60)
        assert redis.llen("shoestring:hits:key:k") == 20
        assert redis.zcard("shoestring:running:key:k") == 27
        assert await replicas[1].budget_used(budget(1000)) == 274
        assert (await replicas[0].admit(ask(**limits))).refused == "rate_limit"
        window = [float(at) for at in redis.lrange("shoestring:hits:key:k", 0, -1)]
        assert window == sorted(window, reverse=True)

    with_replicas(server, 2, work, clock=clock)


def test_killed_and_restarted_with_its_data():
    """What Redis kept on disk is not counted a second time when the replicas tell it again."""
    limits = {"requests_per_minute": 20, "concurrent": 20, "tokens_per_minute": 1000,
              "budget": budget(1000)}  # fmt: skip

    with running_redis("--appendonly", "yes", "--appendfsync", "always") as server:

        async def work(replica: RedisCounters) -> None:
            ended = ask(**limits)
            asks = [ended, *(ask(**limits) for _ in range(4))]
            assert await count_admitted((replica,), asks) == 5
            await replica.settle(ended, 3)
            server.kill()
            assert (await replica.admit(ask(**limits))).refused is None
            server.restart()
            await asyncio.wait_for(replica.wait_for("ok"), 60)
            with Redis.from_url(server.url) as redis:
                assert redis.llen("shoestring:hits:key:k") == 6
                assert redis.zcard("shoestring:running:key:k") == 5
                assert redis.get("shoestring:sum:k") == b"53"
            assert await replica.budget_used(budget(1000)) == 53

        with_replicas(server, 1, work)


def test_a_redis_that_hangs_is_left_and_told_once(server: RedisServer, redis: Redis):
    """What was asked of it before it hung is neither lost nor counted twice."""

    async def work(replica: RedisCounters) -> None:
        limits = {"requests_per_minute": 3, "concurrent": 10, "budget": budget(1000)}
        await replica.admit(ask(**limits))
        server.pause()
        try:
            asks = [replica.admit(ask(**limits)) for _ in range(6)]
            verdicts = await asyncio.gather(*asks)
            assert replica.state() == "lost"
        finally:
            server.resume()
        await asyncio.wait_for(replica.wait_for("ok"), 60)
        assert sum(verdict.refused is None for verdict in verdicts) == 2
        assert redis.llen("shoestring:hits:key:k") == 3
        assert redis.zcard("shoestring:running:key:k") == 3
        assert await replica.budget_used(budget(1000)) == 30

    with_replicas(server, 1, work, patience_s=HANGS_S)


def test_refused_in_doubt_holds_nothing(server: RedisServer, redis: Redis):
    """What is refused here, and admitted by a Redis that wakes up later, is taken back there."""

    async def work(replica: RedisCounters, other: RedisCounters) -> None:
        limits = {"concurrent": 10, "budget": budget(1000), "tokens_per_minute": 1000}
        server.pause()
        try:
            admitted = await count_admitted((replica,), [ask(**limits) for _ in range(10)])
        finally:
            server.resume()
        assert (admitted, replica.state()) == (0, "lost")
        for one in (replica, other):
            await asyncio.wait_for(one.wait_for("ok"), 60)
        assert redis.zcard("shoestring:running:key:k") == 0
        assert redis.get("shoestring:sum:k") == "0"
        assert await replica.budget_used(budget(1000)) == 0

    with_replicas(server, 2, work, patience_s=HANGS_S)


def test_what_comes_during_the_return_is_told_too(server: RedisServer, redis: Redis):
    """A request that is admitted, and one that ends, between telling and being back."""

    async def work(replica: RedisCounters) -> None:
        limits = {"requests_per_minute": 10, "concurrent": 10}
        first = ask(**limits)
        await replica.admit(first)
        told = replica._say_alive

        async def tell_and_meet_more() -> Any:
            answer = await told()
            replica._say_alive = told
            await replica.admit(ask(**limits))
            await replica.settle(first, 0)
            return answer

        redis.replicaof("127.0.0.1", "9")
        await replica.admit(ask(**limits))
        replica._say_alive = tell_and_meet_more
        redis.replicaof("NO", "ONE")
        await asyncio.wait_for(replica.wait_for("ok"), 60)
        assert redis.llen("shoestring:hits:key:k") == 3
        assert redis.zcard("shoestring:running:key:k") == 2

    with_replicas(server, 1, work)


@pytest.mark.parametrize("limits", [{"requests_per_minute": 40}, {"tokens_per_minute": 400}])
@pytest.mark.usefixtures("redis")
def test_a_replica_that_had_just_begun_admits_nothing_for_a_minute(server: RedisServer, limits):
    """It knows nothing of what the other one admitted before; that one keeps what it had."""
    clock = Clock()

    async def work(one: RedisCounters, other: RedisCounters) -> None:
        assert await count_admitted((one,), [ask(**limits) for _ in range(34)]) == 34
        assert await count_admitted((other,), [ask(key="x", **limits)]) == 1
        server.pause()
        try:
            for replica in (one, other):
                replica._lose(RedisLostError("as it hangs"))
            asks = [ask(**limits) for _ in range(80)]
            assert await count_admitted((one, other), asks) == 0
            clock.pass_window()
            assert await count_admitted((one, other), [ask(**limits) for _ in range(80)]) == 40
        finally:
            server.resume()

    with_replicas(server, 2, work, patience_s=HANGS_S, clock=clock)


@pytest.mark.usefixtures("redis")
def test_one_that_is_left_alone_knows_all_after_a_minute(server: RedisServer):
    """What another one admitted before it left counts for a minute; then all of the limit is ours.

    Even where that one is not there any more when Redis is lost.
    """
    limits, clock = {"requests_per_minute": 10}, Clock()

    async def work(replica: RedisCounters) -> None:
        async with RedisCounters(server.url, patience_s=UNHURRIED_S) as other:
            await replica._beat()
            assert await count_admitted((other,), [ask(**limits) for _ in range(9)]) == 9
        await replica._beat()
        assert replica.replicas() == 1
        server.pause()
        try:
            replica._lose(RedisLostError("as it hangs"))
            assert await count_admitted((replica,), [ask(**limits) for _ in range(9)]) == 0
            clock.pass_window()
            assert await count_admitted((replica,), [ask(**limits) for _ in range(20)]) == 10
        finally:
            server.resume()

    with_replicas(server, 1, work, patience_s=HANGS_S, clock=clock)


def test_a_replica_waits_for_what_the_others_have_to_tell(server: RedisServer, redis: Redis):
    """Beside an emptied Redis each keeps to its share until all have told what they admitted."""
    limits = {"requests_per_minute": 10}

    async def work(*replicas: RedisCounters) -> None:
        one, other = replicas
        stand_still(*replicas)
        assert await count_admitted(replicas, [ask(**limits) for _ in range(8)]) == 8
        server.kill()
        assert await count_admitted(replicas, [ask(**limits) for _ in range(8)]) == 0
        server.restart()
        await one._look()
        assert one.state() == "lost"
        assert (await one.admit(ask(**limits))).refused == "rate_limit"
        await other._look()
        await one._look()
        assert [replica.state() for replica in replicas] == ["ok", "ok"]
        assert redis.llen("shoestring:hits:key:k") == 8

    with_replicas(server, 2, work)


def stand_still(*replicas: RedisCounters) -> None:
    """Let replicas look at Redis only when they are told to."""
    for replica in replicas:
        replica._life.cancel()


def trust(redis: Redis) -> None:
    """Let the minute be over in which a new epoch is not trusted."""
    redis.hset("shoestring:epoch", "trusted", 0)


@pytest.mark.parametrize("in_order", [True, False])
def test_what_an_ended_replica_admitted_is_not_forgotten_with_redis(
    server: RedisServer,
    redis: Redis,
    in_order: bool,  # noqa: FBT001
):
    """Nobody can tell an emptied Redis of it: the others stay strict until a minute is over."""
    limits, clock = {"requests_per_minute": 10}, Clock()

    async def work(one: RedisCounters) -> None:
        async with RedisCounters(server.url, patience_s=UNHURRIED_S) as other:
            await one._beat()
            assert await count_admitted((other,), [ask(**limits) for _ in range(6)]) == 6
            if not in_order:
                other._state = "lost"  # as when it is killed: it takes no leave
        if in_order:
            await one._beat()
        assert await count_admitted((one,), [ask(**limits) for _ in range(3)]) == 3
        stand_still(one)
        server.kill()
        assert (await one.admit(ask(**limits))).refused == "rate_limit"
        server.restart()
        for _ in range(2):
            await one._look()
            assert one.state() == "lost"
            assert (await one.admit(ask(**limits))).refused == "rate_limit"
        async with RedisCounters(server.url, patience_s=UNHURRIED_S) as new:
            assert new.state() == "lost"
            assert (await new.admit(ask(**limits))).refused == "rate_limit"
        clock.pass_window()
        assert (await one.admit(ask(**limits))).refused is None
        assert redis.llen("shoestring:hits:key:k") == 4  # told at once, should this one end, too
        trust(redis)
        await one._look()
        assert one.state() == "ok"
        # Redis's own clock has not moved: all that it was told of lies in its window.
        assert await count_admitted((one,), [ask(**limits) for _ in range(20)]) == 6

    with_replicas(server, 1, work, clock=clock)


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("early", [True, False])
def test_a_new_replica_in_a_dead_ones_place_hides_nothing(server: RedisServer, early: bool):  # noqa: FBT001
    """As many live as before, but one of them cannot tell what the dead one had admitted."""
    limits = {"requests_per_minute": 10}

    async def work(one: RedisCounters, dead: RedisCounters) -> None:
        stand_still(one, dead)
        assert await count_admitted((dead,), [ask(**limits) for _ in range(6)]) == 6
        assert await count_admitted((one,), [ask(**limits) for _ in range(3)]) == 3
        server.kill()
        assert (await one.admit(ask(**limits))).refused == "rate_limit"
        server.restart()
        if not early:
            await one._look()
        async with RedisCounters(server.url, patience_s=UNHURRIED_S) as new:
            await one._look()
            await new._look()
            assert await count_admitted((one, new), [ask(**limits) for _ in range(40)]) == 0

    with_replicas(server, 2, work)


@pytest.mark.usefixtures("redis")
def test_a_replica_that_slept_through_the_loss_is_told_at_its_next_request(server: RedisServer):
    """Another one has told the emptied Redis of its own; what this one admitted is not there."""
    limits = {"requests_per_minute": 10}

    async def work(one: RedisCounters, other: RedisCounters) -> None:
        stand_still(one, other)
        for replica in (one, other):
            assert await count_admitted((replica,), [ask(**limits) for _ in range(5)]) == 5
        server.kill()
        server.restart()
        for _ in range(2):
            await other._look()
        assert await count_admitted((one, other), [ask(**limits) for _ in range(20)]) == 0
        for replica in (one, other):
            await replica._look()
        assert await count_admitted((one, other), [ask(**limits) for _ in range(20)]) == 0

    with_replicas(server, 2, work)


def test_redis_lost_again_between_two_looks_is_noticed(server: RedisServer, redis: Redis):
    """It answers as if nothing had been, and knows nothing of what it was told before."""
    limits = {"requests_per_minute": 10}

    async def work(one: RedisCounters, dead: RedisCounters) -> None:
        stand_still(one, dead)
        assert await count_admitted((dead,), [ask(**limits) for _ in range(3)]) == 3
        assert await count_admitted((one,), [ask(**limits) for _ in range(6)]) == 6
        for _ in range(2):
            server.kill()
            server.restart()
            for _ in range(3):
                await one._look()
            assert (one.state(), redis.llen("shoestring:hits:key:k")) == ("lost", 6)
            assert await count_admitted((one,), [ask(**limits) for _ in range(20)]) == 0

    with_replicas(server, 2, work)


@pytest.mark.usefixtures("redis")
def test_nobody_waits_longer_than_the_patience(server: RedisServer):
    """Many wait for a Redis that hangs: the first to lose patience answers for all at once."""

    async def work(replica: RedisCounters) -> None:
        server.pause()
        try:
            first = asyncio.create_task(replica.admit(ask(**LIMITS)))
            await asyncio.wait({first}, timeout=0.1)
            later = [asyncio.create_task(replica.admit(ask(**LIMITS))) for _ in range(20)]
            await first
            await asyncio.sleep(0)  # they were told with it
            await asyncio.sleep(0)
            assert all(task.done() for task in later)
            assert not (await replica.admit(ask(**LIMITS))).refused
        finally:
            server.resume()

    with_replicas(server, 1, work, patience_s=HANGS_S)


def test_a_redis_that_cannot_write_is_lost(server: RedisServer, redis: Redis):
    """READONLY (a fail-over) falls back and recovers by itself."""

    async def work(replica: RedisCounters) -> None:
        redis.replicaof("127.0.0.1", "9")
        try:
            assert (await replica.admit(ask(**LIMITS))).refused is None
            assert replica.state() == "lost"
        finally:
            redis.replicaof("NO", "ONE")
        await asyncio.wait_for(replica.wait_for("ok"), 60)
        assert redis.llen("shoestring:hits:key:k") == 1

    with_replicas(server, 1, work)


def test_who_notices_first_that_redis_was_emptied_waits_for_the_others(
    server: RedisServer, redis: Redis
):
    """The emptied list of replicas names nobody else; it does not forget that there were two."""

    async def work(one: RedisCounters, other: RedisCounters) -> None:
        stand_still(one, other)
        redis.flushall()
        await one._look()
        await one._look()
        assert (one.state(), one.replicas()) == ("lost", 2)
        await other._look()
        await other._look()
        await one._look()
        assert (one.state(), other.state()) == ("ok", "ok")

    with_replicas(server, 2, work)


def test_an_emptied_redis_is_filled_again(server: RedisServer, redis: Redis):
    """FLUSHALL under way: the next beat notices, and Redis is told what it forgot."""

    async def work(replica: RedisCounters) -> None:
        await replica.admit(ask(concurrent=5, budget=budget(100)))
        redis.flushall()
        replica._wake.set()
        await asyncio.wait_for(replica.wait_for("lost"), 60)
        await asyncio.wait_for(replica.wait_for("ok"), 60)
        assert redis.zcard("shoestring:running:key:k") == 1
        assert await replica.budget_used(budget(100)) == 10

    with_replicas(server, 1, work)


def test_a_redis_that_loads_is_lost_from_the_start():
    """Beside a Redis that answers -LOADING a replica starts, and after a minute has its share."""

    async def work() -> None:
        async def load(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(4096):
                writer.write(b"-LOADING Redis is loading the dataset in memory\r\n" * 50)
            writer.close()

        loading = await asyncio.start_server(load, "127.0.0.1", 0)
        async with loading:
            port = loading.sockets[0].getsockname()[1]
            url, clock = f"redis://127.0.0.1:{port}", Clock()
            async with RedisCounters(
                url, patience_s=UNHURRIED_S, own=MemoryCounters(clock=clock)
            ) as replica:
                assert replica.state() == "lost"
                asks = [ask(requests_per_minute=4) for _ in range(18)]
                assert await count_admitted((replica,), asks[:9]) == 0
                clock.pass_window()
                assert await count_admitted((replica,), asks[9:]) == 2

    asyncio.run(work())


@pytest.mark.usefixtures("redis")
def test_a_replica_that_leaves_is_not_counted(server: RedisServer):
    """At its orderly end it takes itself off the list."""

    async def work(replica: RedisCounters) -> None:
        async with RedisCounters(server.url, patience_s=UNHURRIED_S) as other:
            assert other.replicas() == 2
        await replica._beat()
        assert replica.replicas() == 1

    with_replicas(server, 1, work)
