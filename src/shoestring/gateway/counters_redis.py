"""The book of counters that all replicas share, in Redis, and what each does while it is gone.

Each question is one script (:mod:`counters_scripts`), so two replicas cannot both take the last
place. While Redis is gone, hangs, loads or cannot write, each goes by its own copy
(:mod:`counters_memory`) and by :class:`tallies.Share`. Back again, Redis is told what this replica
admitted in the last minute, what runs and what was spent; it counts nothing twice, for each
request has a mark there, and what each replica spent a field of its own
(:mod:`counters_replay`). What a replica had admitted that has ended since nobody can tell: where
Redis came back empty, its *epoch* is another one, and all go by their own copies until everyone
that was seen in the last minute has told, or a minute is over; what they admit it is told at once
(beat.lua).
"""

from __future__ import annotations

import asyncio
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
    asked_of,
    budget_name,
    heard,
    names,
    running_in,
    settled,
)
from shoestring.gateway.redis_line import RedisLine, RedisLostError
from shoestring.gateway.tallies import Share

if TYPE_CHECKING:
    from types import TracebackType

    from shoestring.gateway.counters import Ask, Budget, State, Verdict
    from shoestring.gateway.counters_memory import Held

BEAT_S: Final = 2.0
BELIEVED_S: Final = 10.0  # a replica, after its last beat
RETRY_S: Final = 0.25
BEGINNERS_S: Final = 1.0
NOWHERE: Final = "-"
PASSES: Final = 3  # what comes while it is told is told again, but not for ever
LOG = structlog.get_logger()


class RedisCounters:
    """The common book; an asynchronous context manager, inside of which this replica is counted.

    Args:
        url: of Redis.
        patience_s: the longest that a request waits for Redis.
        prefix: of all names there; the same for all replicas.
        replicas: how many there are, as long as Redis has not told: two, or why share a book?
        own: this replica's own book.
        distrust_s: how long an emptied Redis is not asked: until what nobody can tell it of is
            over.
    """

    def __init__(
        self,
        url: str,
        *,
        patience_s: float,
        prefix: str = "shoestring",
        replicas: int = 2,
        own: MemoryCounters | None = None,
        distrust_s: float = WINDOW_S,
    ) -> None:
        self._line = RedisLine(url, patience_s=patience_s)
        self._prefix = prefix
        self._own = own or MemoryCounters()
        self._replica = secrets.token_hex(8)
        self._replicas = replicas
        self._state: State = "lost"
        self._said_lost = False
        self._strict_until_s = self._own.now_s() + WINDOW_S
        self._distrust_s = distrust_s
        self._epoch = ""  # of the Redis that we were in last
        self._seen: dict[str, float] = {}  # replicas, and when they were last alive
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
                await self._line.ask("ZREM", f"{self._prefix}:replicas", self._replica)
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
                    ADMIT,
                    asked_of(self._prefix, ask),
                    asked(ask, self._replica, epoch=self._epoch),
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
                self._own.keep()
                self._count(self._replicas)
            self._reached = False
            self._lose(error)

    async def _beat(self) -> None:
        epoch, distrusted_s, living = await self._say_alive()
        if epoch != self._epoch or distrusted_s:
            raise RedisLostError("Redis was emptied: it does not know what was admitted before")
        self._count(living)

    async def _come_back(self) -> None:
        for script in (ADMIT, SETTLE, BEAT, RESTORE):
            await self._line.ask("SCRIPT", "LOAD", script.text)
        await self._replay_missed(self._own.held() if not self._reached else [])
        epoch, distrusted_s, living = await self._say_alive()
        if self._reached and epoch != self._epoch:
            raise RedisLostError("Redis was emptied again before it was back")
        self._epoch, self._reached = epoch, True
        if distrusted_s:
            self._be_strict(distrusted_s)
            return
        self._count(living)
        await self._replay_missed([])
        self._state, self._said_lost = "ok", False
        LOG.info("redis_back", replicas=self._replicas)
        await self._replay_missed([])

    def _count(self, living: int) -> None:
        """Note who lives; what others admit until now lies in a window for a minute more."""
        if max(living, self._replicas) > 1:
            self._be_strict(WINDOW_S)
        self._replicas = living

    def _be_strict(self, for_s: float) -> None:
        self._strict_until_s = max(self._strict_until_s, self._own.now_s() + for_s)

    async def _replay_missed(self, held: list[Held]) -> None:
        """Tell of these, and of what was admitted or has ended here meanwhile."""
        for _ in range(PASSES):
            missed = [one for one in self._own.held() if one.ask.id in self._missed]
            if not (held or missed or self._void):
                return
            await self._replay([*held, *missed])
            held = []

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

    async def _tell_at_once(self, ask: Ask) -> None:
        """Have Redis know of what was admitted here, should this replica end before it is back."""
        try:
            told = asked(ask, self._replica, age_s=0.0)
            await self._line.run(ADMIT, asked_of(self._prefix, ask), told)
        except RedisLostError:
            self._wake.set()  # it is told once it is reached again
        except asyncio.CancelledError:
            self._own.finish(ask.id, 0)
            self._missed.add(ask.id)
            raise

    async def _say_alive(self) -> tuple[str, float, int]:
        """Return the epoch, the seconds until it is trusted, and how many replicas live."""
        running = [
            (name, held.ask.id)
            for held in self._own.held()
            if held.settled_s is None
            for name in running_in(self._prefix, held.ask)
        ]
        # One that has begun while Redis was gone leaves those time who have been in it.
        came_from = self._epoch or (NOWHERE if self._said_lost else "")
        distrust_s = self._distrust_s if self._epoch else BEGINNERS_S
        seen = self._seen_lately() if self._epoch else []
        keys = [f"{self._prefix}:{name}" for name in ("replicas", "epoch", "awaited", "told")]
        args: list[str | float] = [self._replica, BELIEVED_S, RUNNING_BELIEVED_S, came_from]
        args += [secrets.token_hex(8), distrust_s, len(seen), *seen]
        args += [request for _, request in running]
        told = await self._line.run(BEAT, [*keys, *(name for name, _ in running)], args)
        epoch, distrusted_s, living = told
        self._seen |= dict.fromkeys(living, self._own.now_s())
        return str(epoch), float(distrusted_s), len(living)

    def _seen_lately(self) -> list[str]:
        """Return who was alive in the last minute, this replica among them."""
        since_s = self._own.now_s() - WINDOW_S
        self._seen = {name: at_s for name, at_s in self._seen.items() if at_s > since_s}
        return list({self._replica: None, **dict.fromkeys(self._seen)})
