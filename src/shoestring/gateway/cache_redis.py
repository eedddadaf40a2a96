"""Answers that all replicas keep together, in Redis.

A cache must never be the reason that a request fails or waits: what takes longer than
its patience is a miss, and a Redis that is lost is left alone for :data:`PAUSE_S`.
What comes back is believed only if its length and digest fit and it was kept under the very name
that was asked for. The last is no formality: a connection whose question was given up can hand
the answer to the next question, and that may be somebody else's.
The entries are JSON and bytes, never pickled objects: who can write to Redis can lie, not run code.

Redis may hold the limits, too, so the cache keeps itself within ``max_bytes`` there: a script
counts the bytes, and the oldest answers make room. Of an index that lost a part (Redis was told
to evict keys) both parts are dropped; the entries that it does not know end by their age.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import struct
import time
from typing import TYPE_CHECKING, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError
from redis.client import NEVER_DECODE
from redis.exceptions import RedisError

from shoestring.gateway.cache import ENTRY_BYTES, CacheStats, Stored

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    T = TypeVar("T")

LOST_AFTER = 3
"""Failures in a row; one alone may be a moment in which this process was busy."""
PAUSE_S = 1.0
"""For so long a lost Redis is not asked again; then one request finds out."""
SCHEMA = 1
"""Of an entry; raise it when its form changes, and old ones are misses."""
MAGIC = b"shoestr\n"
HEAD = struct.Struct(">8sHQ32s")
"""Magic, schema, bytes that follow, SHA-256 of the name and of these bytes."""
PUT = """
local ages, sizes, prefix, name = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local ttl_ms, room, size = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('ZCARD', ages) ~= math.max(redis.call('HLEN', sizes) - 1, 0) then
  redis.call('DEL', ages, sizes)
end
local function forget(old)
  local bytes = redis.call('HGET', sizes, old)
  if bytes then
    redis.call('HINCRBY', sizes, 'all', -tonumber(bytes))
  end
  redis.call('HDEL', sizes, old)
  redis.call('ZREM', ages, old)
  redis.call('DEL', prefix .. old)
end
local function held()
  return tonumber(redis.call('HGET', sizes, 'all') or 0)
end
for _, old in ipairs(redis.call('ZRANGEBYSCORE', ages, '-inf', now_ms - ttl_ms, 'LIMIT', 0, 100)) do
  forget(old)
end
forget(name)
while held() + size > room do
  local oldest = redis.call('ZRANGE', ages, 0, 0)
  if #oldest == 0 then
    break
  end
  forget(oldest[1])
end
redis.call('SET', prefix .. name, ARGV[3], 'PX', ttl_ms)
redis.call('ZADD', ages, now_ms, name)
redis.call('HSET', sizes, name, size)
redis.call('HINCRBY', sizes, 'all', size)
redis.call('PEXPIRE', ages, ttl_ms)
redis.call('PEXPIRE', sizes, ttl_ms)
return {redis.call('ZCARD', ages), held()}
"""
"""Keeps one entry: forgets what is too old, then the oldest until there is room."""

LOG = structlog.get_logger()


class RedisCache:
    """Answers in a Redis that other replicas use, too.

    Args:
        redis: a client; others may use it, too.
        max_bytes: of all answers of this prefix in Redis.
        max_entry_bytes: of one; a larger one is not kept.
        ttl_s: age at which an answer is forgotten.
        prefix: of all keys.
        patience_s: the longest that a question may take.
        clock: in seconds.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        max_bytes: int,
        max_entry_bytes: int,
        ttl_s: float,
        prefix: str,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._max_bytes = max_bytes
        self._max_entry_bytes = min(max_entry_bytes, max_bytes)
        self._ttl_ms = max(round(ttl_s * 1000), 1)
        self._prefix = f"{prefix}:answer:"
        self._index = (f"{prefix}:answers:ages", f"{prefix}:answers:sizes")
        self._patience_s = patience_s
        self._clock = clock
        self._put = redis.register_script(PUT)
        self._failures = 0
        self._again = 0.0
        self._hits = 0
        self._misses = 0
        self._entries: int | None = None
        self._bytes: int | None = None

    async def get(self, fingerprint: str) -> Stored | None:
        """Return the answer, or None."""
        # One byte more than any entry has: of what is larger, and not ours, no more is read.
        question = ("GETRANGE", self._prefix + fingerprint, 0, self._max_entry_bytes)
        found = await self._ask(
            lambda: self._redis.execute_command(*question, **{NEVER_DECODE: True})  # type: ignore[no-untyped-call]
        )
        answer = unpack(found, fingerprint) if found else None
        if answer is None:
            self._misses += 1
        else:
            self._hits += 1
        return answer

    async def put(self, fingerprint: str, answer: Stored) -> None:
        """Keep an answer, unless it is not whole or too large."""
        if answer.size_bytes > self._max_entry_bytes or not answer.is_whole():
            return
        entry = pack(fingerprint, answer)
        if len(entry) > self._max_entry_bytes:
            return
        told = (self._prefix, fingerprint, entry, self._ttl_ms, self._max_bytes)
        size = len(entry) + ENTRY_BYTES
        held = await self._ask(lambda: self._put(keys=self._index, args=(*told, size)))
        if held is not None:
            self._entries, self._bytes = (int(figure) for figure in held)

    def stats(self) -> CacheStats:
        """Return what it did, and held when this replica last kept an answer."""
        return CacheStats(
            self._hits,
            self._misses,
            self._entries,
            self._bytes,
            "lost" if self._is_lost() else "on",
        )

    def _is_lost(self) -> bool:
        return self._failures >= LOST_AFTER

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T | None:
        """Return Redis' answer, or None where it has none in time."""
        if self._is_lost():
            now = self._clock()
            if now < self._again:
                return None
            self._again = now + PAUSE_S  # the others wait for what this one finds
        try:
            async with asyncio.timeout(self._patience_s):
                answer = await question()
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._failed(error)
            return None
        if self._is_lost():
            LOG.info("cache_back")
        self._failures = 0
        return answer

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == LOST_AFTER:
            self._again = self._clock() + PAUSE_S
            LOG.warning("cache_lost", why=f"{type(error).__name__}: {error}")


class _Fields(BaseModel):
    """What an entry holds beside its chunks; ``chunks`` are their lengths."""

    model_config = ConfigDict(strict=True, extra="forbid")

    status: int
    content_type: str
    variant: str
    engine: str
    input_tokens: int | None
    output_tokens: int | None
    chunks: list[NonNegativeInt]


def pack(fingerprint: str, answer: Stored) -> bytes:
    """Return the entry that :func:`unpack` reads."""
    fields = {**vars(answer), "chunks": [len(chunk) for chunk in answer.chunks]}
    rest = b"\n".join([json.dumps(fields).encode(), b"".join(answer.chunks)])
    return HEAD.pack(MAGIC, SCHEMA, len(rest), _digest(fingerprint, rest)) + rest


def unpack(entry: bytes, fingerprint: str) -> Stored | None:
    """Return the answer of an entry; None: it is damaged, of another schema or another's."""
    rest = entry[HEAD.size :]
    if entry[: HEAD.size] != HEAD.pack(MAGIC, SCHEMA, len(rest), _digest(fingerprint, rest)):
        return None
    line, _, body = rest.partition(b"\n")
    try:
        fields = _Fields.model_validate_json(line)
    except ValidationError:
        return None
    ends = list(itertools.accumulate(fields.chunks, initial=0))
    if ends[-1] != len(body):
        return None
    chunks = tuple(body[start:end] for start, end in itertools.pairwise(ends))
    return Stored(**fields.model_dump(exclude={"chunks"}), chunks=chunks)


def _digest(fingerprint: str, rest: bytes) -> bytes:
    return hashlib.sha256(fingerprint.encode() + rest).digest()
