"""From an engine to whoever takes the answer, in parts as they are made.

Until the first byte has gone out another engine can take over; after it an error is told inside
the stream, so that no answer is ever short in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from shoestring.gateway.engines import EngineDownError
from shoestring.gateway.errors import Refusal
from shoestring.gateway.streams import BrokenStreamError, Used, error_text, parse_part
from shoestring.gateway.upstream import CutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.gateway.activity import CacheUse, Operation
    from shoestring.gateway.routing import Route
    from shoestring.gateway.streams import Stream
    from shoestring.gateway.upstream import Reply

OVERLOADED = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
ERROR_BYTES = 2**16
NO_ENGINE_RETRY_S = 5.0


@dataclass(frozen=True)
class Call:
    """How one engine is asked.

    Attributes:
        path: of the engine.
        body: JSON.
        stream: reads the answer in parts; None: it comes whole.
        whole: turns a whole answer into what the client gets, and tells its tokens.
    """

    path: str
    body: dict[str, Any]
    stream: Stream | None
    whole: Callable[[bytes], tuple[bytes, Used]]


@dataclass(frozen=True)
class Ask:
    """One question of a client.

    Attributes:
        operation: ``chat``, ``completion``, ``embeddings`` or ``generate``.
        model: as the client named it.
        body: as the client sent it, checked.
        stream: whether the answer goes out in parts.
        tokens: set aside for it: prompt and longest answer, estimated.
        prompt_tokens: of them, those of the prompt.
        call: how an engine is asked.
        error: how the client's own API words a refusal.
        error_part: the same inside a stream.
    """

    operation: Operation
    model: str
    body: dict[str, Any]
    stream: bool
    tokens: int
    prompt_tokens: int
    call: Callable[[Route], Call]
    error: Callable[[Refusal], dict[str, Any]]
    error_part: Callable[[Refusal], bytes]


@dataclass
class Tally:
    """What has become of a request so far; times on the gateway's monotonic clock.

    ``waiting``: an engine has the question, and nobody knows yet how much it does for it.
    """

    began: float
    queue_s: float = 0.0
    engine: str = ""
    provider: str = ""
    answered_by: str = ""
    variant: str = ""
    cache: CacheUse = "bypass"
    status: int = 0
    failure: str | None = None
    first: float | None = None
    waiting: bool = False
    asked: bool = False
    parts: int = 0
    used: Used = field(default_factory=Used)
    charge: Used = field(default_factory=Used)

    def charged(self, prompt_tokens: int) -> Used:
        """Return what the request is charged: as the engine counted, else as far as was seen.

        Nothing for an answer from memory, and where no engine took the question.
        """
        if self.cache in {"hit", "joined"} or not self.asked:
            return Used(0, 0)
        made = self.parts if self.used.output_tokens is None else self.used.output_tokens
        return Used(self.used.input_tokens or prompt_tokens, made)

    def tokens(self, prompt_tokens: int) -> int:
        """Return all tokens that the request is charged."""
        charged = self.charged(prompt_tokens)
        return (charged.input_tokens or 0) + (charged.output_tokens or 0)


class Sink(Protocol):
    """Whoever takes an answer.

    Attributes:
        headers: of the answer; they can be added to until it starts.
        started: something has gone out.
    """

    headers: dict[str, str]
    started: bool

    async def start(self, status: int, content_type: str) -> None:
        """Take the head of an answer in parts."""

    async def part(self, data: bytes) -> None:
        """Take a part."""

    async def end(self, data: bytes = b"") -> None:
        """Take the last part, and that it was the last."""

    async def whole(self, status: int, content_type: str, data: bytes) -> None:
        """Take an answer in one piece."""


class Relay:
    """One question put to engines.

    Args:
        ask: the question.
        key_id: whose turn in the queues it is.
        deadline: of waiting, on the clock.
        tally: gets what becomes of it.
        clock: monotonic, in seconds.
        max_answer_bytes: of an answer in one piece.
    """

    def __init__(
        self,
        ask: Ask,
        key_id: str,
        deadline: float,
        tally: Tally,
        *,
        clock: Callable[[], float],
        max_answer_bytes: int,
    ) -> None:
        self._ask = ask
        self._key_id = key_id
        self._deadline = deadline
        self._tally = tally
        self._clock = clock
        self._max_answer_bytes = max_answer_bytes

    async def run(self, routes: list[Route], sink: Sink) -> None:
        """Ask the first engine that answers, and pass its answer on.

        Raises:
            Refusal: none answers, or the answer went wrong; the sink may have started.
        """
        for route in routes:
            try:
                await self._try(route, sink)
            except EngineDownError:
                self._tally.waiting = False
                continue
            return
        raise Refusal(
            503,
            "no_engine",
            f"no engine for {self._ask.model[:80]!r} answers: ask again later",
            NO_ENGINE_RETRY_S,
        )

    async def _try(self, route: Route, sink: Sink) -> None:
        tally = self._tally
        tally.engine, tally.provider = route.engine.name, route.engine.kind
        tally.variant, tally.answered_by = route.variant, route.model
        async with route.engine.slots.slot(self._key_id, deadline=self._deadline) as waited_s:
            tally.queue_s += waited_s
            sink.headers["x-shoestring-engine"] = route.engine.name
            sink.headers["x-shoestring-variant"] = route.variant
            call = self._ask.call(route)
            tally.waiting = True
            async with route.engine.post(call.path, call.body) as reply:
                tally.waiting = False
                if reply.status in OVERLOADED:
                    raise EngineDownError(f"{route.engine.name}: HTTP {reply.status}")
                if reply.status != HTTPStatus.OK:
                    raise await _engine_refusal(reply)
                tally.asked = True
                await self._answer(reply, call, sink)

    async def _answer(self, reply: Reply, call: Call, sink: Sink) -> None:
        try:
            if call.stream is None:
                await self._whole(reply, call, sink)
            else:
                await self._parts(reply, call.stream, sink)
        except CutError as error:
            if not sink.started:
                raise EngineDownError(f"the answer broke off: {error}") from error
            raise _cut(str(error)) from error
        except BrokenStreamError as error:
            raise _cut(str(error)) from error

    async def _whole(self, reply: Reply, call: Call, sink: Sink) -> None:
        try:
            data = await reply.whole(self._max_answer_bytes)
        except ValueError as error:
            raise Refusal(502, "engine_too_long", str(error)) from error
        out, self._tally.used = call.whole(data)
        await sink.whole(HTTPStatus.OK, "application/json", out)

    async def _parts(self, reply: Reply, stream: Stream, sink: Sink) -> None:
        tally = self._tally
        last, over = b"", False
        while not over and (data := await reply.part()):
            out = stream.feed(data)
            over = stream.ended
            if not out:
                continue
            if tally.first is None and stream.answered:
                tally.first = self._clock()
            tally.parts += stream.count_parts(out)
            if not sink.started:
                await sink.start(HTTPStatus.OK, stream.content_type)
            if over:
                last = out  # goes out with the end
            else:
                await sink.part(out)
        tally.used = stream.used
        _check_end(stream)
        await sink.end(last)


def _check_end(stream: Stream) -> None:
    """Refuse what did not come to its own end."""
    if stream.failure is not None:
        raise Refusal(502, "engine_error", f"the engine failed: {stream.failure}")
    if stream.broken is not None:
        raise _cut(stream.broken)
    if not stream.complete:
        raise _cut("it ended before its last event")


async def _engine_refusal(reply: Reply) -> Refusal:
    """Return what the client is told of an engine's own refusal."""
    try:
        data = await reply.whole(ERROR_BYTES)
        said = error_text(parse_part(data).get("error", ""))
    except (ValueError, BrokenStreamError, CutError):
        said = ""  # an engine's error page says nothing that a client could use
    if reply.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Refusal(502, "engine_key", "the engine does not take the gateway's key")
    if reply.status == HTTPStatus.TOO_MANY_REQUESTS:
        return Refusal(503, "engine_busy", "the engine has too much to do: ask again later", 1.0)
    if HTTPStatus.BAD_REQUEST <= reply.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Refusal(reply.status, "engine_refused", said or "the engine refused the request")
    return Refusal(502, "engine_error", f"the engine failed: {said or f'HTTP {reply.status}'}")


def _cut(why: str) -> Refusal:
    return Refusal(502, "engine_cut", f"the engine's answer broke off: {why}")
