"""Real engines behind a front, which tests kill at a token that they choose."""

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager, suppress

from shoestring.engines.offload import Offload
from shoestring.engines.opening import Subject, make_engine
from shoestring.swarm.continuing import DONE
from shoestring.swarm.front import Front
from shoestring.swarm.http11 import Request, asking, hear
from shoestring.swarm.standing import Standing, Trying
from shoestring.testing.engines import need_program

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
NATIVE = "/completion"
DEFAULT = Trying()
COUNTING = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"
"""What comes next is so sure that the rounding of another batch changes nothing."""


class Engines:
    """Makes one real engine after another.

    Attributes:
        made: all of them.
        told: what the user would have been told.
        fails: raised instead of an engine, once there is one.
    """

    def __init__(self, model, signal_number=signal.SIGKILL):
        need_program("llama-server")
        self.made, self.told, self.fails = [], [], None
        self._signal = signal_number
        self._model = model
        self.may_open = asyncio.Event()
        self.may_open.set()

    async def plan_again(self):
        """Return the next."""
        if self.made and self.fails:
            raise self.fails
        await self.may_open.wait()
        return self._running()

    @asynccontextmanager
    async def _running(self):
        subject = Subject(self._model.name, "llama-server", file=self._model)
        engine = make_engine(subject, context=2048, offload=Offload(threads=1))
        try:
            await asyncio.to_thread(engine.start)
            await asyncio.to_thread(engine.load)
            self.made.append(engine)
            yield engine
        finally:
            await asyncio.to_thread(engine.stop)

    def hit(self):
        """Send the newest the signal."""
        os.kill(self.made[-1].pid, self._signal)

    @asynccontextmanager
    async def front(self, trying=DEFAULT):
        """Serve."""
        standing = Standing(self.plan_again, tell=self.told.append, trying=trying)
        async with standing, Front(standing) as front:
            yield front, standing

    def aim(self, standing, *kill_at):
        """Kill the engine that stands at a token of the next answer, and those after it."""
        left = list(kill_at)

        def arm(place):
            count, mark = 0, place.pace.mark

            def counted(since_s, *, begun):
                nonlocal count
                count += 1
                if left and count == left[0]:
                    left.pop(0)
                    self.hit()
                return mark(since_s, begun=begun)

            place.pace.mark = counted

        find = type(standing).place

        async def place():
            found = await find(standing)
            if not hasattr(found.pace, "armed"):
                found.pace.armed = True
                arm(found)
            return found

        standing.place = place
        return left


class Canned:
    """An engine that says what is given it, for what no real one does when it is asked to.

    Args:
        answers: one after another, the last again and again; an empty one never comes.

    Attributes:
        asked: what it was asked.
    """

    def __init__(self, *answers):
        self.asked = []
        self._answers = answers
        self._url = ""

    def address(self):
        """Return where it is; it has no key."""
        return self._url, None

    def lost(self):
        """Return that it is there."""

    async def plan_again(self):
        """Return itself as the next."""
        return self._running()

    @asynccontextmanager
    async def _running(self):
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self._url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def _serve(self, reader, writer):
        self.asked.append(await hear(reader, writer, lambda _: None))
        if answer := self._answers[min(len(self.asked), len(self._answers)) - 1]:
            writer.write(answer)
        else:  # it stands still
            with suppress(OSError):
                await reader.read()
        writer.close()

    @asynccontextmanager
    async def front(self):
        """Serve, and tell what the user would have been told."""
        told = []
        standing = Standing(self.plan_again, tell=told.append)
        async with standing, Front(standing) as front:
            yield front, told


async def raw(front, data, *, ends=False):
    """Return all that comes for bytes; ends: nothing more is sent, and the other side hears so."""
    host, port = front.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        if ends:
            writer.write_eof()
        return await reader.read()
    finally:
        writer.transport.abort()


async def post(front, path, body, *, key=None, heard=lambda _: None):
    """Return the status, and the JSON or the events of an answer."""
    host, port = front.url.removeprefix("http://").split(":")
    headers = {"Authorization": f"Bearer {key or front.key}", "Content-Type": "application/json"}
    method = "GET" if body is None else "POST"
    data = b"" if body is None else json.dumps(body).encode()
    async with asking(host, int(port), Request(method, path, headers, data)) as reply:
        if "event-stream" not in reply.headers.get("content-type", ""):
            return reply.status, json.loads(await reply.whole())
        events, rest = [], b""
        while part := await reply.part():
            *whole, rest = (rest + part).split(b"\n\n")
            for event in whole:
                events.append(event)
                heard(event)
        assert not rest
        return reply.status, events


def read(events):
    """Return what a stream said: text, why it ended, tokens, how it was closed."""
    text, why, used, ids, done = "", None, None, set(), 0
    for event in events:
        if event.startswith(b":"):
            continue
        data = event.removeprefix(b"data: ")
        if data == DONE:
            done += 1
            continue
        chunk = json.loads(data)
        assert "error" not in chunk, chunk
        ids.add(chunk.get("id"))
        if usage := chunk.get("usage"):
            used = (usage["prompt_tokens"], usage["completion_tokens"])
        if "tokens_predicted" in chunk and chunk["stop"]:
            used, why = (chunk["tokens_evaluated"], chunk["tokens_predicted"]), chunk["stop_type"]
        text += chunk.get("content", "")
        for choice in chunk.get("choices", ()):
            said = choice.get("delta", choice)
            text += said.get("content") or said.get("text") or ""
            why = choice.get("finish_reason") or why
    assert len(ids) == 1
    return {"text": text, "why": why, "used": used, "done": done}
