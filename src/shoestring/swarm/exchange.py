"""One request at the front and its answer, by one engine or by several in turn."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from shoestring.swarm.continuing import MOST_IN_VAIN, Answer, LostAnswerError
from shoestring.swarm.front_client import EVENTS, OK, Refusal
from shoestring.swarm.http11 import CutError, Request, TooLongError, asking
from shoestring.swarm.questions import shape_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from shoestring.swarm.front_client import Client
    from shoestring.swarm.http11 import Reply
    from shoestring.swarm.questions import Shape
    from shoestring.swarm.standing import Place, Standing

Heard = TypeVar("Heard")
PASSED_HEADERS: Final = ("content-type", "accept")
RETURNED_HEADERS: Final = ("content-type", "server")
COMMENT_S: Final = 5.0
HELD_S: Final = 900.0
"""Longest wait of one request for an engine."""
WHOLE_S: Final = 3600.0
"""An answer in one piece may be so long in the making: none of its tokens is seen before."""
LOOK_S: Final = 1.0


class Exchange:
    """One request and its answer.

    Args:
        standing: whose engine answers.
        request: of the client.
        client: it.
    """

    def __init__(self, standing: Standing, request: Request, client: Client) -> None:
        self._standing, self._request, self._client = standing, request, client

    async def run(self) -> None:
        """Answer.

        Raises:
            Refusal: there is no answer, or no more of it.
            ShoestringError: no engine will stand any more.
            OSError: the client has gone.
        """
        body: Any = _json(self._request.body) if self._request.method == "POST" else None
        shape = shape_of(self._request.path, body)
        try:
            if shape is not None and (shape.streamed or (shape.plain and shape.single)):
                await self._continued(Answer(shape, body), shape)
            else:
                await self._passed(streams=isinstance(body, dict) and body.get("stream") is True)
        except TooLongError as error:
            raise Refusal(500, "server_error", str(error)) from error

    async def _passed(self, *, streams: bool) -> None:
        """Pass on as it is; ask again while nothing has gone out."""
        least_s = WHOLE_S if self._request.method == "POST" and not streams else 0.0
        lost = 0
        while True:
            place = await self._place(streams=streams)
            watched = Watched(place, least_s=least_s)
            try:
                async with watched.asking(self._to(place)) as reply:
                    if EVENTS in reply.headers.get("content-type", ""):
                        await self._client.stream(_returned(reply))
                        async for event in watched.events(reply):
                            await self._client.part(event + b"\n\n")
                        await self._client.end()
                    else:
                        await self._whole(watched, reply)
                    return
            except CutError as error:
                self._standing.lose(place, str(error))
                lost += 1
                if self._client.streaming or lost == MOST_IN_VAIN:
                    raise Refusal(
                        500, "server_error", f"the engine was lost: {error}; this is not continued"
                    ) from error

    async def _continued(self, answer: Answer, shape: Shape) -> None:
        """Pass an answer on, by one engine after another."""
        while not answer.complete:
            place = await self._place(streams=shape.streamed)
            try:
                try:
                    if answer.goes_on:
                        answer.said_tokens = await self._count(place, answer.made)
                    await self._by(place, answer, shape)
                except CutError as error:
                    self._standing.lose(place, str(error))
                    answer.break_off(f"the engine was lost: {error}")
            except LostAnswerError as error:
                raise Refusal(500, "server_error", f"the answer ends here: {error}") from error
            except Answered:
                return
        if shape.streamed:
            await self._client.end()
        elif answer.error is not None:
            raise Refusal(500, "server_error", answer.error)
        else:
            body = json.dumps(answer.whole(), ensure_ascii=False, separators=(",", ":")).encode()
            await self._client.whole(OK, {"Content-Type": "application/json; charset=utf-8"}, body)

    async def _by(self, place: Place, answer: Answer, shape: Shape) -> None:
        """Pass on what one engine says.

        Raises:
            CutError: it ended before its answer did, or is silent for too long.
            Answered: it refused the question, and the client knows.
        """
        asked = json.dumps(answer.question(), ensure_ascii=False).encode()
        watched = Watched(place)
        async with watched.asking(self._to(place, asked)) as reply:
            if reply.status != OK:
                await self._whole(watched, reply)
                raise Answered
            if shape.streamed:
                await self._client.stream(_returned(reply))
            async for event in watched.events(reply):
                out = answer.hear(event)
                if shape.streamed and out:
                    await self._client.part(b"".join(one + b"\n\n" for one in out))
                if answer.complete:
                    return
        raise CutError("its answer ended before the last event")

    async def _whole(self, watched: Watched, reply: Reply) -> None:
        """Pass on an answer in one piece.

        Raises:
            Refusal: the client takes a stream already.
        """
        body = await watched.whole(reply)
        if self._client.streaming:
            said = body[:500].decode("utf-8", "replace")
            raise Refusal(reply.status, "server_error", f"the engine refused the question: {said}")
        headers = _returned(reply)
        if self._request.method == "HEAD" and "content-length" in reply.headers:
            headers["Content-Length"] = reply.headers["content-length"]
        await self._client.whole(reply.status, headers, body)

    async def _count(self, place: Place, text: str) -> int:
        asked = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = Request("POST", "/tokenize", {}, b"")
        watched = Watched(place, begun=True)  # it waits for no other answer
        async with watched.asking(self._to(place, asked, request)) as reply:
            told = _json(await watched.whole(reply))
        if not isinstance(told, dict) or not isinstance(told.get("tokens"), list):
            raise LostAnswerError("the next engine does not count tokens")
        return len(told["tokens"])

    async def _place(self, *, streams: bool) -> Place:
        """Wait for an engine; whoever takes a stream hears that it is waited."""
        waiting = asyncio.ensure_future(self._standing.place())
        try:
            async with asyncio.timeout(HELD_S):
                while not (await asyncio.wait({waiting}, timeout=COMMENT_S))[0]:
                    if streams:
                        await self._client.stream()
                        await self._client.part(b": another engine is being started\n\n")
                return waiting.result()
        except TimeoutError as error:
            raise Refusal(
                503, "unavailable_error", f"no engine stood within {HELD_S:g} s: ask again later"
            ) from error
        finally:
            waiting.cancel()

    def _to(
        self, place: Place, body: bytes | None = None, request: Request | None = None
    ) -> Request:
        """Return the request as the engine gets it."""
        given = request or self._request
        headers = {name: given.headers[name] for name in PASSED_HEADERS if name in given.headers}
        if place.key is not None:
            headers["Authorization"] = f"Bearer {place.key}"
        return Request(given.method, given.target, headers, given.body if body is None else body)


class Answered(Exception):  # noqa: N818 - an end, not a fault
    """The client has its answer."""


class Watched:
    """One engine's answer, as long as it is not silent for too long.

    Args:
        place: of the engine.
        begun: it is due as soon as another token would be.
        least_s: it may be silent for so long whatever the engine's pace.
    """

    def __init__(self, place: Place, *, begun: bool = False, least_s: float = 0.0) -> None:
        self._place, self._begun, self._least_s = place, begun, least_s
        self._since_s = place.pace.now()

    @asynccontextmanager
    async def asking(self, request: Request) -> AsyncIterator[Reply]:
        """Ask; the head of an answer comes with its first token.

        Raises:
            CutError: there is no answer.
        """
        async with AsyncExitStack() as stack:
            answer = asking(self._place.host, self._place.port, request)
            yield await self._patiently(stack.enter_async_context(answer))

    async def events(self, reply: Reply) -> AsyncIterator[bytes]:
        """Yield each event without its empty line; how long the caller takes is not the engine's.

        Raises:
            CutError: the answer broke off, or nothing but comments came for too long.
        """
        rest = b""
        while part := await self._patiently(reply.part()):
            *whole, rest = (rest + part).split(b"\n\n")
            for event in whole:
                if b"\ndata:" in b"\n" + event:
                    self._since_s = self._place.pace.mark(self._since_s, begun=self._begun)
                    self._begun = True
                if event.strip():
                    given_s = self._place.pace.now()
                    yield event
                    self._since_s += self._place.pace.now() - given_s

    async def whole(self, reply: Reply) -> bytes:
        """Return all of the body.

        Raises:
            CutError: it broke off, or did not come for too long.
            TooLongError: it is more than is taken.
        """
        return await self._patiently(reply.whole())

    async def _patiently(self, work: Coroutine[Any, Any, Heard]) -> Heard:
        working = asyncio.create_task(work)
        left_s = 1.0
        try:
            while left_s > 0:
                left_s = self._place.pace.left_s(
                    self._since_s, begun=self._begun, least_s=self._least_s
                )
                # Even when it is over, what has come already is taken.
                if (await asyncio.wait({working}, timeout=min(max(left_s, 0.0), LOOK_S)))[0]:
                    return working.result()
        finally:
            working.cancel()
        raise CutError("no token came for far longer than usual")


def _returned(reply: Reply) -> dict[str, str]:
    return {name.title(): reply.headers[name] for name in RETURNED_HEADERS if name in reply.headers}


def _json(data: bytes) -> Any:
    """Return what it says, or None: no JSON, or none that can be written; the engine says why."""
    try:
        found = json.loads(data)
        json.dumps(found, ensure_ascii=False).encode()  # half a character can be read alone
    except (ValueError, RecursionError):
        return None
    return found
