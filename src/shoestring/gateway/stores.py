"""Where a replica counts and keeps: in itself, or in Redis together with others."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shoestring.errors import BadValueError
from shoestring.gateway.budget_file import counting_with_file
from shoestring.gateway.cache import MemoryCache, NoCache
from shoestring.gateway.cache_redis import RedisCache
from shoestring.gateway.counters_redis import RedisCounters
from shoestring.gateway.keys import KeyLimits
from shoestring.gateway.limiting import Limiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shoestring.gateway.cache import AnswerCache
    from shoestring.gateway.counters import Counters
    from shoestring.gateway.settings import Settings

BUDGETS_FILE = "budgets.json"


@asynccontextmanager
async def open_limiter(settings: Settings) -> AsyncIterator[Limiter]:
    """Return what says who may ask, counting where the settings say.

    Raises:
        BadValueError: Redis' address cannot be used, or the file of budgets is damaged.
    """
    limits, address = settings.limits, settings.redis.address()
    default = KeyLimits(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent=limits.concurrent,
        budget_tokens=limits.budget_tokens,
        budget_period=limits.budget_period,
    )

    def limiter(counters: Counters) -> Limiter:
        return Limiter(
            counters,
            address_requests_per_minute=limits.address.requests_per_minute,
            address_concurrent=limits.address.concurrent,
            default=default,
        )

    if address is not None:
        redis = settings.redis
        async with RedisCounters(
            _checked(address), prefix=redis.prefix, patience_s=redis.patience_s
        ) as common:
            yield limiter(common)
        return
    async with counting_with_file(settings.keys.file.with_name(BUDGETS_FILE)) as own:
        yield limiter(own)


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[AnswerCache]:
    """Return where answers are kept, or what keeps none."""
    cache, address = settings.cache, settings.redis.address()
    if not cache.enabled:
        yield NoCache()
        return
    if address is None:
        yield MemoryCache(
            max_bytes=cache.max_bytes, max_entry_bytes=cache.max_entry_bytes, ttl_s=cache.ttl_s
        )
        return
    async with Redis.from_url(
        _checked(address),
        socket_timeout=settings.redis.patience_s,
        socket_connect_timeout=settings.redis.patience_s,
        retry=Retry(NoBackoff(), 0),
    ) as redis:
        yield RedisCache(
            redis,
            max_bytes=cache.max_bytes,
            max_entry_bytes=cache.max_entry_bytes,
            ttl_s=cache.ttl_s,
            prefix=settings.redis.prefix,
            patience_s=settings.redis.patience_s,
        )


def _checked(address: str) -> str:
    if address.partition("://")[0] not in {"redis", "rediss", "unix"}:
        raise BadValueError("redis.url: give redis://HOST:PORT, rediss://HOST:PORT or unix://PATH")
    return address
