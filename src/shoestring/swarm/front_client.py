"""A client of the front: how its answer goes out, whole or in parts, and how it is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from shoestring.swarm.http11 import END, chunk, head

if TYPE_CHECKING:
    import asyncio

OK: Final = 200
EVENTS: Final = "text/event-stream"


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of ours
    """The client gets this status and message."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": status, "message": message, "type": kind}}


class Client:
    """Whoever asked, as its answer goes out.

    Attributes:
        streaming: the head of a stream has gone out.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.streaming = False

    async def stream(self, headers: dict[str, str] | None = None) -> None:
        """Begin an answer in parts."""
        if not self.streaming:
            self.streaming = True
            given = {"Content-Type": EVENTS, "Cache-Control": "no-store"} | (headers or {})
            self._writer.write(head(OK, {**given, "Transfer-Encoding": "chunked"}))
            await self._writer.drain()

    async def part(self, data: bytes) -> None:
        """Send a part of it."""
        self._writer.write(chunk(data))
        await self._writer.drain()

    async def end(self) -> None:
        """End it; without this a client knows that something is missing."""
        self._writer.write(END)
        await self._writer.drain()

    async def whole(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send an answer in one piece; of one to HEAD ``headers`` tell the length."""
        self._writer.write(head(status, {"Content-Length": str(len(body))} | headers) + body)
        await self._writer.drain()

    async def refuse(self, refusal: Refusal) -> None:
        """Say why there is no answer, or no more of it."""
        body = json.dumps(refusal.body, ensure_ascii=False).encode()
        if self.streaming:
            await self.part(b"data: " + body + b"\n\n")
            await self.end()
        else:
            await self.whole(refusal.status, {"Content-Type": "application/json"}, body)
