"""One line to Redis: what is asked at the same time goes in one round trip, and nobody waits long.

redis-py takes a connection and a round trip for each command; here all that was asked during one
round trip goes with the next, in order. A line that does not answer in time is cut, and everybody
who waits is told at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from shoestring.errors import ShoestringError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio.client import Pipeline

STALL_S: Final = 0.015
MOST: Final = 512  # commands in one round trip: about 20 ms of Redis's time


class RedisLostError(ShoestringError):
    """Redis is gone, hangs, or cannot write; the message says which."""


@dataclass(frozen=True)
class Script:
    """A script by its text."""

    text: str

    @property
    def sha(self) -> str:
        """Return the name that Redis gives to it."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Call:
    """A command on its way."""

    command: tuple[str | int | float, ...]
    asked_s: float
    answer: asyncio.Future[Any]


class RedisLine:
    """A connection of its own.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        patience_s: the longest that anybody waits for an answer.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        self._patience_s = patience_s
        self._redis: Redis = Redis.from_url(
            url,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # the time is kept here, for all who wait at once
            socket_connect_timeout=patience_s,
            protocol=2,
        )
        self._waiting: list[Call] = []
        self._sender: asyncio.Task[None] | None = None

    def ask(self, *command: str | float) -> asyncio.Future[Any]:
        """Send a command; it goes even if nobody waits for the answer any more.

        Returns:
            The answer to come, or :class:`RedisLostError`.
        """
        loop = asyncio.get_running_loop()
        call = Call(command, time.monotonic(), loop.create_future())
        self._waiting.append(call)
        if self._sender is None:
            self._sender = loop.create_task(self._send())
        return call.answer

    def run(
        self, script: Script, keys: Sequence[str], args: Iterable[str | float]
    ) -> asyncio.Future[Any]:
        """Run a script that was loaded; as :meth:`ask`."""
        return self.ask("EVALSHA", script.sha, len(keys), *keys, *args)

    async def close(self) -> None:
        """Send what waits, and hang up."""
        if self._sender is not None:
            await self._sender
        await self._redis.aclose()

    async def _send(self) -> None:
        while self._waiting:
            calls, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                answers = await self._exchange(calls)
            except RedisLostError as error:
                self._fail_all(calls, error)
                await self._hang_up()
            except BaseException as error:
                self._fail_all(calls, RedisLostError(f"the line to Redis broke: {error!r}"))
                self._sender = None
                raise
            else:
                for call, answer in zip(calls, answers, strict=True):
                    if not call.answer.done():
                        call.answer.set_result(answer)
        self._sender = None

    async def _exchange(self, calls: list[Call]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(*call.command)
        # Those who waited while we had no processor give Redis a moment all the same.
        least_s = time.monotonic() + self._patience_s / 4
        deadline_s = max(calls[0].asked_s + self._patience_s, least_s)
        answers = await self._in_time(pipeline, deadline_s)
        for answer in answers:
            if isinstance(answer, RedisError):
                raise RedisLostError(f"Redis refuses: {answer}") from answer
        return answers

    async def _in_time(self, pipeline: Pipeline, deadline_s: float) -> list[Any]:
        exchange = asyncio.create_task(pipeline.execute(raise_on_error=False))
        try:
            await asyncio.wait({exchange}, timeout=max(0.0, deadline_s - time.monotonic()))
            if not exchange.done() and time.monotonic() > deadline_s + STALL_S:
                # We had no processor ourselves; the answer may lie there unread.
                await asyncio.wait({exchange}, timeout=STALL_S)
            if not exchange.done():
                raise RedisLostError(f"Redis did not answer within {self._patience_s:g} s")
            answers: list[Any] = exchange.result()
        except (RedisError, OSError) as error:
            raise RedisLostError(f"Redis is out of reach: {error}") from error
        finally:
            exchange.cancel()
            exchange.add_done_callback(_heed)
        return answers

    def _fail_all(self, calls: list[Call], error: RedisLostError) -> None:
        calls, self._waiting = calls + self._waiting, []
        for call in calls:
            if not call.answer.done():
                call.answer.set_exception(error)
                call.answer.exception()  # nobody may be waiting for it any more

    async def _hang_up(self) -> None:
        # What was sent and not answered must not be taken for the answer to what comes next.
        try:
            await self._redis.connection_pool.disconnect(inuse_connections=True)
        except (RedisError, OSError):
            # It was broken before, and is replaced by the next command.
            return


def _heed(exchange: asyncio.Task[list[Any]]) -> None:
    if not exchange.cancelled():
        exchange.exception()  # it was cut; how it ended says nothing more
