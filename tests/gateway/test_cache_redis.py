"""Replicas share answers through Redis; one that is lost, slow or damaged is only a miss."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisLostError
from structlog.testing import capture_logs

from shoestring.gateway import cache_redis
from shoestring.gateway.cache import ENTRY_BYTES, Stored
from shoestring.gateway.cache_redis import HEAD, LOST_AFTER, PAUSE_S, RedisCache, pack, unpack
from shoestring.testing.redis_server import running_redis

NAME, OTHER = "a" * 64, "b" * 64
ANSWER = Stored(
    status=200,
    content_type="text/event-stream",
    chunks=(b'data: {"choices":[]}\n\n', b"", b"data: [DONE]\n\n"),
    variant="q4",
    engine="one",
    input_tokens=3,
    output_tokens=None,
)
ANSWERS = st.builds(
    Stored,
    status=st.integers(),
    content_type=st.text(),
    chunks=st.lists(st.binary()).map(tuple),
    variant=st.text(),
    engine=st.text(),
    input_tokens=st.none() | st.integers(0),
    output_tokens=st.none() | st.integers(0),
)


@given(ANSWERS)
def test_an_entry_holds_the_whole_answer(answer):
    """What is packed is unpacked as it was."""
    assert unpack(pack(NAME, answer), NAME) == answer


@given(st.integers(0), st.integers(1, 255), st.integers(0))
def test_a_damaged_entry_is_a_miss(at, flip, cut):
    """Any changed byte, any cut."""
    entry = bytearray(pack(NAME, ANSWER))
    assert unpack(bytes(entry[: cut % len(entry)]), NAME) is None
    entry[at % len(entry)] ^= flip
    assert unpack(bytes(entry), NAME) is None


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd(entry):
    """What is no entry of ours is a miss, and never an error."""
    assert unpack(entry, NAME) is None


def test_an_entry_of_another_request_is_a_miss():
    """The name is part of what the digest covers."""
    assert unpack(pack(OTHER, ANSWER), NAME) is None


def test_an_entry_of_another_schema_is_a_miss(monkeypatch):
    """Older and newer replicas do not read each other's."""
    with monkeypatch.context() as patch:
        patch.setattr(cache_redis, "SCHEMA", cache_redis.SCHEMA + 1)
        entry = pack(NAME, ANSWER)
    assert unpack(entry, NAME) is None


FIELDS = (
    b'{"status":%s,"content_type":"","variant":"","engine":"","input_tokens":1,"output_tokens":1,'
    b'"chunks":%s}'
)


@pytest.mark.parametrize(
    "fields",
    [
        b"7",
        b"[]",
        b"{}",
        b"[" * 100_000,
        FIELDS % (b'"200"', b"[]"),
        FIELDS % (b"200", b"[1]"),
        FIELDS % (b"200", b"[-1,1]"),
        FIELDS % (b"200", b'{"a":1}'),
        FIELDS % (b"200", b"[0.0]"),
    ],
)
def test_a_liar_s_entry_is_a_miss(fields):
    """One whose digest fits but whose fields do not."""
    rest = fields + b"\n"
    digest = cache_redis._digest(NAME, rest)
    entry = HEAD.pack(cache_redis.MAGIC, cache_redis.SCHEMA, len(rest), digest) + rest
    assert unpack(entry, NAME) is None


class Clock:
    """Stands still until a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class FakeRedis:
    """Answers each question as a test says."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = 0

    def register_script(self, _script):
        """Return what runs the script."""
        return self.execute_command

    async def execute_command(self, *_args, **_kwargs):
        """Answer."""
        self.asked += 1
        return await self.answer()


def cache_on(redis, clock=None, **bounds) -> RedisCache:
    """A cache with room for a few answers, which bears a busy machine."""
    bounds = {
        "max_bytes": 100_000, "max_entry_bytes": 20_000, "ttl_s": 60.0, "patience_s": 20.0,
    } | bounds  # fmt: skip
    return RedisCache(redis, prefix="test", clock=clock or Clock(), **bounds)


async def never():
    """Redis hangs."""
    await asyncio.Event().wait()


async def refuse():
    """Redis is gone."""
    raise RedisLostError("refused")


@pytest.mark.parametrize("trouble", [never, refuse])
def test_a_redis_in_trouble_is_a_miss_and_left_alone(trouble):
    """After a few failures it is lost and not asked; then one question at a time finds out."""

    async def scenario():
        clock, redis = Clock(), FakeRedis(trouble)
        cache = cache_on(redis, clock, patience_s=0.05)
        for _ in range(LOST_AFTER):
            assert cache.stats().state == "on"
            assert await cache.get(NAME) is None
        assert cache.stats().state == "lost"
        await cache.put(NAME, ANSWER)
        assert await cache.get(NAME) is None
        assert redis.asked == LOST_AFTER

        clock.now += PAUSE_S
        await asyncio.gather(*(cache.get(NAME) for _ in range(10)))
        assert redis.asked == LOST_AFTER + 1

        async def answer():
            return pack(NAME, ANSWER)

        redis.answer = answer
        clock.now += PAUSE_S
        assert await cache.get(NAME) == ANSWER
        assert cache.stats()[:2] == (1, LOST_AFTER + 11)
        assert cache.stats().state == "on"

    with capture_logs() as said:
        asyncio.run(scenario())
    assert [line["event"] for line in said] == ["cache_lost", "cache_back"]


def test_one_failure_is_not_a_loss():
    """A moment without an answer costs that one miss."""

    async def scenario():
        redis = FakeRedis(refuse)
        cache = cache_on(redis)
        for _ in range(5):
            redis.answer = refuse
            assert await cache.get(NAME) is None
            redis.answer = answer
            assert await cache.get(NAME) == ANSWER
        assert cache.stats().state == "on"

    async def answer():
        return pack(NAME, ANSWER)

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def server() -> Iterator:
    """A Redis for this module."""
    with running_redis() as running:
        yield running


@asynccontextmanager
async def connected(server):
    """An empty Redis."""
    redis = Redis.from_url(server.url, decode_responses=True)  # of no matter to the cache
    await redis.flushall()
    try:
        yield redis
    finally:
        await redis.aclose()


def test_replicas_share_answers(server):
    """What one kept the other finds, with an age at which it ends."""

    async def scenario():
        async with connected(server) as redis:
            one, other = cache_on(redis), cache_on(redis)
            assert await one.get(NAME) is None
            await one.put(NAME, ANSWER)
            assert await other.get(NAME) == ANSWER
            assert await other.get(OTHER) is None
            assert 0 < await redis.pttl(f"test:answer:{NAME}") <= 60_000
            stats = one.stats()
            size = await redis.strlen(f"test:answer:{NAME}") + ENTRY_BYTES
            assert (stats.hits, stats.misses, stats.entries, stats.bytes) == (0, 1, 1, size)
            assert other.stats().bytes is None

    asyncio.run(scenario())


async def kept(redis) -> tuple[int, int]:
    """Entries that are there, and their bytes with what is counted for each."""
    keys = [key async for key in redis.scan_iter("test:answer:*")]
    return len(keys), sum([await redis.strlen(key) + ENTRY_BYTES for key in keys])


def test_redis_holds_no_more_than_the_bound(server):
    """Two replicas that write at once stay within it, count right, and drop the oldest."""

    async def scenario():
        async with connected(server) as redis:
            caches = [cache_on(redis, max_bytes=20_000) for _ in range(2)]
            rng = random.Random(7)
            for turn in range(20):
                names = [f"{rng.randrange(40):064x}" for _ in range(6)]
                answer = replace(ANSWER, chunks=(b"data: [DONE]\n\n",), variant="v" * turn * 10)
                puts = (rng.choice(caches).put(name, answer) for name in names)
                await asyncio.gather(*puts)
                entries, size = await kept(redis)
                assert size <= 20_000
                assert int(await redis.hget("test:answers:sizes", "all")) == size
                assert await redis.zcard("test:answers:ages") == entries
                assert await redis.exists(f"test:answer:{names[-1]}")
            assert entries > 5

    asyncio.run(scenario())


def test_an_index_that_lost_a_part_begins_anew(server):
    """Redis may evict a key of ours; the bound holds for what is put from then on."""

    async def scenario():
        async with connected(server) as redis:
            cache = cache_on(redis)
            await cache.put(NAME, ANSWER)
            for part in ("ages", "sizes"):
                await redis.delete(f"test:answers:{part}")
                await cache.put(OTHER, ANSWER)
                assert cache.stats().entries == 1
                assert await redis.zcard("test:answers:ages") == 1
                assert await cache.get(OTHER) == ANSWER
                await cache.put(NAME, ANSWER)

    asyncio.run(scenario())


def test_old_entries_leave_the_index(server):
    """What Redis forgot by age is not counted any more."""

    async def scenario():
        async with connected(server) as redis:
            cache = cache_on(redis, ttl_s=0.001)
            await cache.put(NAME, ANSWER)
            while await redis.exists(f"test:answer:{NAME}"):
                pass
            await cache.put(OTHER, ANSWER)
            assert cache.stats().entries == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        replace(ANSWER, status=500),
        replace(ANSWER, chunks=ANSWER.chunks[:1]),
        replace(ANSWER, chunks=(b": " + b"a" * 20_000 + b"\n\n", *ANSWER.chunks)),
        replace(ANSWER, engine="e" * 20_000),
    ],
    ids=["failure", "broken off", "too large", "too large around it"],
)
def test_what_may_not_be_kept_is_not(server, answer):
    """Even if the caller asks for it."""

    async def scenario():
        async with connected(server) as redis:
            await cache_on(redis).put(NAME, answer)
            assert await redis.dbsize() == 0

    asyncio.run(scenario())


def test_what_others_wrote_is_a_miss(server):
    """A changed byte, a swapped entry, another type, or far too many bytes."""

    async def scenario():
        async with connected(server) as redis:
            cache, key = cache_on(redis), f"test:answer:{NAME}"
            await cache.put(NAME, ANSWER)
            await redis.setrange(key, 100, b"X")
            assert await cache.get(NAME) is None
            await redis.set(key, pack(OTHER, ANSWER))
            assert await cache.get(NAME) is None
            await redis.set(key, b"\0" * 5_000_000)
            assert await cache.get(NAME) is None
            await redis.delete(key)
            await redis.lpush(key, b"a")
            assert await cache.get(NAME) is None
            await cache.put(NAME, ANSWER)
            assert await cache.get(NAME) == ANSWER

    asyncio.run(scenario())


def test_given_up_questions_never_get_somebody_else_an_answer(server):
    """Requests are cancelled at any step; all others still get their own answer or a miss."""

    async def scenario():
        async with connected(server) as redis:
            cache, rng = cache_on(redis), random.Random(3)
            names = [f"{number:064x}" for number in range(8)]
            for name in names:
                await cache.put(name, replace(ANSWER, variant=name))
            for _ in range(100):
                asked = {name: asyncio.create_task(cache.get(name)) for name in names}
                for _ in range(rng.randrange(12)):
                    await asyncio.sleep(0)
                asked[rng.choice(names)].cancel()
                ends = await asyncio.gather(*asked.values(), return_exceptions=True)
                for name, end in zip(asked, ends, strict=True):
                    if isinstance(end, Stored):
                        assert end.variant == name
                    else:
                        assert end is None or isinstance(end, asyncio.CancelledError)
            assert cache.stats().hits > 500

    asyncio.run(scenario())


def test_a_killed_redis_is_missed_and_comes_back(server):
    """No request fails meanwhile; afterwards answers are kept again."""

    async def scenario():
        clock = Clock()
        async with connected(server) as redis:
            cache = cache_on(redis, clock)
            await cache.put(NAME, ANSWER)
            server.kill()
            while cache.stats().state == "on":
                assert await cache.get(NAME) is None
            await cache.put(NAME, ANSWER)
            server.restart()
            await redis.ping()
            clock.now += PAUSE_S
            await cache.put(OTHER, ANSWER)
            assert await cache.get(OTHER) == ANSWER
            assert cache.stats().state == "on"

    asyncio.run(scenario())
