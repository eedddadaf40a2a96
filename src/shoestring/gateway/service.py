"""The gateway as one thing: its parts, how they are made, kept up to date and ended."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psutil
from prometheus_client import CollectorRegistry

from shoestring.gateway.activity import Activity, Outcome
from shoestring.gateway.asking import Answer
from shoestring.gateway.client import Client
from shoestring.gateway.engines import EngineLink
from shoestring.gateway.errors import Refusal
from shoestring.gateway.flights import Flights
from shoestring.gateway.gate import CALLER
from shoestring.gateway.keys import KeyRing
from shoestring.gateway.logs import log, log_request
from shoestring.gateway.metrics import Metrics
from shoestring.gateway.plain_text import PlainText
from shoestring.gateway.readings import OTHER, EngineReading, Readings
from shoestring.gateway.routing import Router
from shoestring.gateway.sessions import Sessions
from shoestring.gateway.stores import open_cache, open_limiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from starlette.requests import Request
    from starlette.types import Scope, Send

    from shoestring.gateway.cache import AnswerCache
    from shoestring.gateway.gate import Caller
    from shoestring.gateway.keys import Key
    from shoestring.gateway.limiting import Limiter
    from shoestring.gateway.relaying import Ask, Tally
    from shoestring.gateway.routing import Route
    from shoestring.gateway.settings import Settings


COUNT_WITHIN_S = 0.05


class Gateway:
    """One replica.

    Args:
        settings: checked.
        keys: of clients.
        engines: in the order of the settings.
        limiter: says who may ask how much.
        cache: keeps answers.

    Attributes:
        clock: monotonic, in seconds.
        draining: no new work; what runs may end.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        keys: KeyRing,
        engines: list[EngineLink],
        limiter: Limiter,
        cache: AnswerCache,
    ) -> None:
        self.clock = time.monotonic
        self.settings = settings
        self.keys = keys
        self.limiter = limiter
        self.cache = cache
        self.flights = Flights(
            max_entry_bytes=settings.cache.max_entry_bytes, max_bytes=settings.cache.max_bytes
        )
        self.router = Router(engines, settings.aliases)
        self.sessions = Sessions(settings.keys.file, keys)
        self.activity = Activity()
        self.metrics = Metrics(CollectorRegistry(), self._readings, version=version("shoestring"))
        self.draining = False
        self.began = self.clock()
        self.active = 0
        self._key_file_errors = 0
        self._process = psutil.Process()
        self._limits: set[asyncio.Timeout] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended: list[tuple[Outcome, object]] = []

    def answer(self, request: Request, ask: Ask) -> Answer:
        """Return the answer to a question, to be made while it is sent."""
        caller: Caller = request.scope[CALLER]
        assert caller.key is not None, "the gate lets nobody in without a key"
        if self.draining:
            raise self.too_late()
        return Answer(
            self,
            ask,
            key=caller.key,
            caller=caller,
            path=request.scope["path"],
            deadline=caller.began + self._deadline_s(request),
        )

    def client(self, scope: Scope, send: Send) -> Client:
        """Return the client's side of a request."""
        return Client(scope, send, self.settings.server.stall_s)

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do what belongs to no one client; it is ended with the gateway."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @asynccontextmanager
    async def until(self, deadline: float) -> AsyncIterator[None]:
        """Bound the time of a request; draining makes it shorter.

        Raises:
            TimeoutError: it is over.
        """
        self.active += 1
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() + deadline - self.clock()) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        finally:
            self.active -= 1

    def too_late(self) -> Refusal:
        """Return what a request is told whose time is over."""
        if self.draining:
            return Refusal(503, "draining", "this gateway is ending: ask again", 1.0)
        return Refusal(504, "deadline", "the request's time is over")

    def drain(self, within_s: float) -> None:
        """Take no new work, and give what runs only so much longer."""
        self.draining = True
        end = asyncio.get_running_loop().time() + within_s
        for limit in self._limits:
            when = limit.when()
            if not limit.expired():  # else it is being ended already
                limit.reschedule(end if when is None else min(when, end))
        log.info("draining", requests=self.active, drain_s=within_s)

    def plain_messages(self, route: Route, messages: list[Any]) -> list[Any]:
        """Return messages whose control tokens are as the settings want them.

        Raises:
            Refusal: they are to be refused.
        """
        way = self.settings.server.control_tokens
        if way == "as-sent":
            return messages
        served = route.served
        plain = (served.plain_text if served else PlainText()).plain_messages(messages)
        if way == "refuse" and plain != messages:
            raise Refusal(
                400, "control_tokens", "messages: control tokens of chat templates are not taken"
            )
        return plain

    def known(self, model: str) -> str:
        """Return a model's name as metrics may hold it."""
        return model if self.router.knows(model) else OTHER

    def refused(self, refusal: Refusal) -> None:
        """Count what never became a request."""
        self.metrics.rejected(refusal.reason)
        log.info("refused", reason=refusal.reason, status=refusal.status)

    def note(self, ask: Ask, model: str, tally: Tally, key: Key, caller: Caller) -> None:
        """Note a request that has ended; it is counted in a moment.

        Those who ask next need not wait for that. Whoever shows counts calls :meth:`count` first.
        """
        duration_s = self.clock() - tally.began
        began_utc = datetime.now(UTC) - timedelta(seconds=duration_s)
        outcome = Outcome(
            request_id=caller.request_id,
            t_utc=began_utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            key_id=key.id,
            key_name=key.name,
            address=caller.address,
            operation=ask.operation,
            model=model,
            variant=tally.variant,
            engine=tally.engine,
            provider=tally.provider,
            status=tally.status,
            failure=tally.failure,
            stream=ask.stream,
            cache=tally.cache,
            queue_s=tally.queue_s,
            ttft_s=None if tally.first is None else tally.first - tally.began,
            duration_s=duration_s,
            input_tokens=tally.used.input_tokens,
            output_tokens=tally.used.output_tokens,
            answered_by=tally.answered_by,
            charged_input_tokens=tally.charge.input_tokens,
            charged_output_tokens=tally.charge.output_tokens,
        )
        self._ended.append((outcome, ask.body.get("messages") or ask.body.get("prompt")))
        if self.draining:
            self.count()  # the process may end before a moment is over
        elif len(self._ended) == 1:
            asyncio.get_running_loop().call_later(COUNT_WITHIN_S, self.count)

    def count(self) -> None:
        """Count and log the requests that have ended."""
        ended, self._ended = self._ended, []
        for outcome, _ in ended:
            self.metrics.ended(outcome)
            self.activity.note(outcome)
        for outcome, prompt in ended:
            log_request(outcome, prompt=prompt)

    def ready(self) -> bool:
        """Whether requests are taken and some engine answers."""
        return not self.draining and any(
            engine.state == "healthy" for engine in self.router.engines.values()
        )

    def figures(self) -> dict[str, Any]:
        """Return the note's five figures; null: not known."""
        self.count()
        totals = self.activity.totals()
        return {
            "requests_total": totals.requests,
            "errors_total": totals.errors,
            "mean_inference_s": totals.mean_inference_s,
            "model_memory_bytes": self.model_memory_bytes(),
            "active_requests": self.active,
        }

    async def close(self) -> None:
        """End what still runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.count()

    def gateway_memory_bytes(self) -> int:
        """Return this process's resident memory."""
        return int(self._process.memory_info().rss)

    def model_memory_bytes(self) -> int | None:
        """Return the memory of all models that engines tell of; None: none tells."""
        told = [engine.memory_bytes for engine in self.router.engines.values()]
        known = [size for size in told if size is not None]
        return sum(known) if known else None

    def _deadline_s(self, request: Request) -> float:
        """Return how long a request may take: the settings', or less where it says so."""
        longest_s = self.settings.queue.deadline_s
        given = request.headers.get("x-deadline-s")
        if given is None:
            return longest_s
        try:
            wanted_s = float(given)
        except ValueError:
            wanted_s = -1.0
        if not 0 < wanted_s <= 1e9:  # noqa: PLR2004 - a float may be infinite or no number
            raise Refusal(400, "bad_value", f"X-Deadline-S: {given[:40]!r}: give seconds above 0")
        return min(longest_s, wanted_s)

    def _readings(self) -> Readings:
        stats = self.cache.stats()
        return Readings(
            engines=tuple(self._engine_readings()),
            redis=self.limiter.state(),
            replicas=self.limiter.replicas(),
            cache_entries=stats.entries if stats.state == "on" else None,
            cache_bytes=stats.bytes if stats.state == "on" else None,
            key_file_errors=self._key_file_errors,
            draining=self.draining,
        )

    def _engine_readings(self) -> Iterator[EngineReading]:
        for engine in self.router.engines.values():
            up = None if engine.state == "unknown" else engine.state == "healthy"
            yield EngineReading(
                engine.name,
                up,
                engine.slots.active,
                engine.slots.waiting,
                engine.settings.slots,
                engine.memory_bytes,
            )

    def note_key_file(self, line: str) -> None:
        """Count and log that the file of keys cannot be used."""
        self._key_file_errors += 1
        log.error("keys", error=line)


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """Make a gateway, and end it.

    Raises:
        BadValueError: keys, Redis' address or an engine's key cannot be used.
    """
    heard: list[Gateway] = []

    def say(line: str) -> None:
        for gateway in heard:
            gateway.note_key_file(line)

    keys = KeyRing(settings.keys.file, say=say)
    async with (
        open_limiter(settings) as limiter,
        open_cache(settings) as cache,
    ):
        engines = [EngineLink(one, settings.queue) for one in settings.engines]
        gateway = Gateway(settings, keys=keys, engines=engines, limiter=limiter, cache=cache)
        heard.append(gateway)
        await asyncio.gather(*(engine.look() for engine in engines))
        try:
            yield gateway
        finally:
            await gateway.close()
