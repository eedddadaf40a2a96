"""Two limiters on one Redis, asked by 200 at once, keep every limit; also while Redis is killed."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from shoestring.gateway.counters_redis import RedisCounters
from shoestring.gateway.errors import Refusal
from shoestring.gateway.keys import Key, KeyLimits
from shoestring.gateway.limiting import Lease, Limiter
from shoestring.testing.redis_server import RedisServer, running_redis

UNHURRIED_S = 20.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis that nobody else uses."""
    with running_redis() as running:
        yield running


def key(**limits: int) -> Key:
    """A key with these limits."""
    return Key(id="k", name="team", scopes=frozenset({"inference"}), models=(),
               limits=KeyLimits(**limits), created_utc="2026-11-01T00:00:00Z", expires_utc=None,
               revoked_utc=None, secret_sha256="0" * 64)  # fmt: skip


class Crowd:
    """Asks two limiters and keeps count of what it got."""

    def __init__(self, limiters: list[Limiter], who: Key) -> None:
        self.limiters = limiters
        self.who = who
        self.running = self.most_running = self.admitted = self.tokens = 0
        self.refused: Counter[str] = Counter()

    async def ask(self, number: int, tokens: int) -> tuple[Limiter, Lease] | None:
        """Ask once."""
        limiter = self.limiters[number % 2]
        try:
            lease = await limiter.admit(self.who, "203.0.113.5", tokens=tokens)
        except Refusal as refusal:
            self.refused[refusal.reason] += 1
            return None
        self.admitted += 1
        self.tokens += tokens
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        return limiter, lease

    async def ask_and_end(self, number: int, used: int) -> None:
        """Ask, let others in between, and end."""
        got = await self.ask(number, 10)
        if got is not None:
            limiter, lease = got
            await asyncio.sleep(0)
            self.running -= 1  # first: its place may be given away while it is told
            self.tokens += used - 10
            await limiter.settle(lease, tokens=used)


async def with_crowd(server: RedisServer, who: Key, work) -> Crowd:
    """Run something with two limiters that know of each other."""
    async with AsyncExitStack() as stack:
        books = [RedisCounters(server.url, patience_s=UNHURRIED_S) for _ in range(2)]
        for book in books:
            await stack.enter_async_context(book)
        for book in books:
            await book._beat()
        limiters = [
            Limiter(book, address_requests_per_minute=None, address_concurrent=None,
                    default=KeyLimits()) for book in books
        ]  # fmt: skip
        crowd = Crowd(limiters, who)
        await work(crowd, books)
        return crowd


@pytest.mark.parametrize("seed", range(3))
def test_no_limit_is_exceeded_by_two_replicas(server: RedisServer, seed: int):
    """All limits at once, with requests that end and give tokens back."""
    who = key(requests_per_minute=150, tokens_per_minute=1100, concurrent=20, budget_tokens=1050)
    shuffler = random.Random(seed)

    async def work(crowd: Crowd, _: list[RedisCounters]) -> None:
        uses = [shuffler.randrange(11) for _ in range(200)]
        await asyncio.gather(*(crowd.ask_and_end(n, used) for n, used in enumerate(uses)))
        assert await crowd.limiters[0].budget_used(who) == crowd.tokens

    crowd = asyncio.run(with_crowd(server, who, work))

    assert crowd.admitted + crowd.refused.total() == 200
    assert 0 < crowd.admitted <= 150
    assert crowd.most_running <= 20
    assert crowd.tokens <= 1050


@pytest.mark.parametrize("seed", range(3))
def test_no_limit_is_exceeded_while_redis_is_killed_and_restarted_empty(
    server: RedisServer, seed: int
):
    """Within one minute, Redis there or not, two replicas admit no more than the limit."""
    who = key(requests_per_minute=60)
    shuffler = random.Random(seed)

    async def work(crowd: Crowd, books: list[RedisCounters]) -> None:
        async def ask(count: int) -> None:
            await asyncio.gather(*(crowd.ask(shuffler.randrange(2), 1) for _ in range(count)))

        await ask(shuffler.randrange(1, 50))
        await ask(2)
        server.kill()
        await ask(10)
        server.restart()
        for book in books:
            if book.state() == "lost":
                await asyncio.wait_for(book.wait_for("ok"), 60)
        await ask(200)

    crowd = asyncio.run(with_crowd(server, who, work))

    assert crowd.admitted == 60
