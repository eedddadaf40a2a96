"""The book of counters that all replicas share, in Redis, and what each does while it is gone.

Each question is one script (:mod:`counters_scripts`), so two replicas cannot both take the last
place. While Redis is gone, hangs, loads or cannot write, each goes by its own copy
(:mod:`counters_memory`) and by :class:`tallies.Share`. Back again, Redis is told what this replica
admitted in the last minute, what runs and what was spent; it counts nothing twice, for each
request has a mark there, and what each replica spent a field of its own
(:mod:`counters_replay`). What a replica had admitted that has ended since nobody can tell: where
Redis came back empty, all go by their own copies for a minute (the *gap*), and tell Redis of what
they admit.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from shoestring.gateway.counters import WINDOW_S
from shoestring.gateway.counters_memory import MemoryCounters
from shoestring.gateway.counters_replay import replay, restore
from shoestring.gateway.counters_scripts import (
    ADMIT,
    BEAT,
    RESTORE,
    RUNNING_BELIEVED_S,
    SETTLE,
    asked,
    budget_name,
    heard,
    names,
    running_in,
    settled,
)
from shoestring.gateway.redis_line import PATIENCE_S, RedisLine, RedisLostError
from shoestring.gateway.tallies import Share

if TYPE_CHECKING:
    from types import TracebackType

    from shoestring.gateway.counters import Ask, Budget, State, Verdict
    from shoestring.gateway.counters_memory import Held

BEAT_S: Final = 2.0
BELIEVED_S: Final = 10.0  # a replica, after its last beat
RETRY_S: Final = 0.25
LOG = structlog.get_logger()


class RedisCounters:
    """The common book; an asynchronous context manager, inside of which this replica is counted.

    Args:
        url: of Redis.
        prefix: of all names there; the same for all replicas.
        replicas: how many there are, as long as Redis has not told: two, or why share a book?
        own: this replica's own book.
        patience_s: the longest that a request waits for Redis.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "shoestring",
        replicas: int = 2,
        own: MemoryCounters | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._line = RedisLine(url, patience_s=patience_s)
        self._prefix = prefix
        self._own = own or MemoryCounters()
        self._replica = secrets.token_hex(8)
        self._replicas = replicas
        self._state: State = "lost"
        self._said_lost = False
        self._others_until_s: float | None = None
        self._strict_until_s = self._own.now_s() + WINDOW_S
        self._ended = 0  # replicas that others remember
        self._emptied = False
        self._was_ok = False
        self._gap_begun = False
        self._reached = False  # Redis, by the last look: it can be told of what is admitted
        self._turned = asyncio.Condition()
        self._wake = asyncio.Event()
        self._missed: set[str] = set()  # admitted or ended here since the replay began
        self._void: list[Ask] = []  # refused here, but perhaps admitted there
        self._life: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._look()
        self._life = asyncio.create_task(self._live())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._life is not None
        self._life.cancel()
        with suppress(asyncio.CancelledError):
            await self._life
        if self._state == "ok":
            with suppress(RedisLostError):  # then it forgets us after a while
                await self._line.run(BEAT, [f"{self._prefix}:replicas"], [self._replica, -1e-3, 0])
        await self._line.close()

    def state(self) -> State:
        """Return ``ok``, or ``lost`` while each replica counts for itself."""
        return self._state

    def replicas(self) -> int:
        """Return how many replicas lived when Redis was last seen."""
        return self._replicas

    async def wait_for(self, state: State) -> None:
        """Wait until Redis is lost, or back."""
        async with self._turned:
            await self._turned.wait_for(lambda: self._state == state)

    async def admit(self, ask: Ask) -> Verdict:
        """Count a request unless a limit is in the way."""
        in_doubt = False
        if self._state == "ok":
            try:
                reply = await self._line.run(
                    ADMIT, names(self._prefix, ask), asked(ask, self._replica)
                )
            except RedisLostError as error:
                self._lose(error)
                in_doubt = True
            except asyncio.CancelledError:
                self._take_back(ask)
                raise
            else:
                return self._heard(ask, reply)
        verdict = self._own.decide(ask, Share(self._replicas, self._strict_until_s))
        if verdict.refused is None:
            self._missed.add(ask.id)
            if self._reached and not in_doubt:
                await self._tell_at_once(ask)
        elif in_doubt:
            self._void.append(ask)
        return verdict

    async def settle(self, ask: Ask, tokens: int) -> None:
        """Free what a request held, and count the tokens that it used."""
        if not self._own.finish(ask.id, tokens):
            return
        if self._state == "ok":
            try:
                await self._settle(ask, tokens)
            except RedisLostError as error:
                self._lose(error)
            else:
                return
        self._missed.add(ask.id)

    async def budget_used(self, budget: Budget) -> int:
        """Return the tokens of a budget that are used or set aside, as far as is known."""
        if self._state == "ok":
            try:
                used = await self._line.ask("HGET", budget_name(self._prefix, budget.name), "sum")
            except RedisLostError as error:
                self._lose(error)
            else:
                return int(used or 0)
        return await self._own.budget_used(budget)

    def _heard(self, ask: Ask, reply: list[Any]) -> Verdict:
        verdict, used = heard(ask, reply)
        if verdict.refused is None:
            self._own.note(ask)
            if self._state == "lost":
                self._missed.add(ask.id)
        if ask.budget is not None:
            self._own.saw(ask.budget, used.budget)
        return verdict

    def _settle(self, ask: Ask, tokens: int) -> asyncio.Future[Any]:
        return self._line.run(SETTLE, names(self._prefix, ask), settled(ask, tokens, self._replica))

    def _take_back(self, ask: Ask) -> None:
        """Free what nobody waits for any more; it may have been admitted meanwhile."""

        def note(answer: asyncio.Future[Any]) -> None:
            if answer.cancelled() or answer.exception():
                self._void.append(ask)

        self._settle(ask, 0).add_done_callback(note)

    def _lose(self, error: RedisLostError) -> None:
        if not self._said_lost:
            LOG.warning("redis_lost", why=str(error), replicas=self._replicas)
            self._said_lost = True
        if self._state == "ok":
            self._state, self._reached = "lost", False
            self._own.keep()
            self._count(self._replicas)
            self._wake.set()

    async def _live(self) -> None:
        """Say that we live, renew what runs, and look whether a lost Redis is back; for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S if self._state == "ok" else RETRY_S):
                    await self._wake.wait()
            self._wake.clear()
            await self._tell()
            await self._look()
            await self._tell()

    async def _tell(self) -> None:
        async with self._turned:
            self._turned.notify_all()

    async def _look(self) -> None:
        try:
            if self._state == "ok":
                await self._beat()
            else:
                await self._come_back()
        except RedisLostError as error:
            if self._reached and self._state == "lost":  # once more, before it was back
                self._gap_begun = False
                self._count(self._replicas)
            self._reached, self._others_until_s = False, None
            self._lose(error)

    async def _beat(self) -> None:
        known, living, self._ended = await self._say_alive()
        if not known:
            raise RedisLostError("Redis forgot this replica: it was emptied, or we were stopped")
        self._count(living)

    async def _come_back(self) -> None:
        for script in (ADMIT, SETTLE, BEAT, RESTORE):
            await self._line.ask("SCRIPT", "LOAD", script.text)
        gap_ms = await self._line.ask("PTTL", f"{self._prefix}:gap")
        if not self._reached:
            await self._replay(self._own.held())
        await self._replay_missed()
        known, living, ended = await self._say_alive()
        self._emptied = self._emptied or (self._said_lost and not known)
        self._reached = True
        if gap_ms > 0:
            self._be_strict(gap_ms / 1000)
            return
        if self._awaits_others(living) or await self._begin_gap(living):
            return
        self._ended, self._emptied, self._gap_begun, self._was_ok = ended, False, False, True
        self._count(living)
        await self._replay_missed()
        self._state, self._said_lost = "ok", False
        self._others_until_s = None
        LOG.info("redis_back", replicas=self._replicas)

    def _count(self, living: int) -> None:
        """Note who lives; what others admit until now lies in a window for a minute more."""
        if max(living, self._replicas) + self._ended > 1:
            self._be_strict(WINDOW_S)
        self._replicas = living

    def _be_strict(self, for_s: float) -> None:
        self._strict_until_s = max(self._strict_until_s, self._own.now_s() + for_s)

    async def _replay_missed(self) -> None:
        while missed := self._missed:
            await self._replay([held for held in self._own.held() if held.ask.id in missed])

    async def _replay(self, held: list[Held]) -> None:
        self._missed = set()
        void, self._void = self._void, []
        now_s = self._own.now_s()
        try:
            await replay(self._line, self._prefix, self._replica, now_s, held, void)
        except RedisLostError:
            self._void += void
            raise
        await restore(self._line, self._prefix, self._replica, self._own.spent())

    def _awaits_others(self, living: int) -> bool:
        """Whether Redis may still miss what other replicas admitted: then our share holds on."""
        now_s = self._own.now_s()
        if self._others_until_s is None:
            self._others_until_s = now_s + BELIEVED_S
        return self._said_lost and living < self._replicas and now_s < self._others_until_s

    async def _begin_gap(self, living: int) -> bool:
        """Whether requests of replicas that have ended may lie in a window and are not in Redis.

        Then all are told so, once. A replica that has only begun knows of no others.
        """
        ended = self._ended or living < self._replicas
        if self._gap_begun or not (self._emptied and self._was_ok and ended):
            return False
        await self._line.ask("SET", f"{self._prefix}:gap", 1, "PX", math.ceil(WINDOW_S * 1000))
        self._gap_begun = True
        self._be_strict(WINDOW_S)
        return True

    async def _tell_at_once(self, ask: Ask) -> None:
        """Have Redis know of what was admitted here, should this replica end before it is back."""
        try:
            await self._line.run(ADMIT, names(self._prefix, ask), asked(ask, self._replica, 0.0))
        except RedisLostError:
            return  # it is told once it is reached again
        except asyncio.CancelledError:
            self._own.finish(ask.id, 0)
            raise

    async def _say_alive(self) -> tuple[bool, int, int]:
        running = [
            (name, held.ask.id)
            for held in self._own.held()
            if held.settled_s is None
            for name in running_in(self._prefix, held.ask)
        ]
        keys = [f"{self._prefix}:replicas", *(name for name, _ in running)]
        args: list[str | float] = [self._replica, BELIEVED_S, RUNNING_BELIEVED_S]
        args += [request for _, request in running]
        known, living, ended = await self._line.run(BEAT, keys, args)
        return bool(known), int(living), int(ended)
