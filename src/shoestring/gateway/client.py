"""The client's side of one request: what is sent to it, and whether it is still there."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import Scope, Send

    from shoestring.gateway.errors import Refusal

LINE = "shoestring.line"
"""Where the server puts the :class:`Line` of a request."""
SAFE_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


class ClientStalledError(Exception):
    """The client has not read for too long; its connection is gone."""


class Line:
    """A connection as its requests see it.

    Args:
        abort: drops it without waiting for its reader.

    Attributes:
        lost: it is no more.
        watchers: called when it is lost.
    """

    def __init__(self, abort: Callable[[], None]) -> None:
        self.abort = abort
        self.lost = False
        self.watchers: set[Callable[[], None]] = set()

    def lose(self) -> None:
        """Tell those who watch."""
        self.lost = True
        for call in tuple(self.watchers):
            call()


class Client:
    """One client waiting for one answer.

    Args:
        scope: of the request.
        send: takes the answer.
        stall_s: longest time that a client may not read.

    Attributes:
        headers: of the answer; they can be added to until it starts.
        started: a byte of the answer has gone out.
        status: that was sent; 0 before.
        left: it went away before the end.
        stalled: it did not read for too long, and its connection was dropped.
    """

    def __init__(self, scope: Scope, send: Send, stall_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._line: Line = scope[LINE]
        self._send = send
        self._stall_s = stall_s
        self.headers = dict(SAFE_HEADERS)
        self.started = False
        self.status = 0
        self.left = False
        self._ended = False
        self._writing_since: float | None = None
        self.stalled = False
        self._watch: asyncio.TimerHandle | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Cancel this task as soon as the client leaves before the end."""
        task = asyncio.current_task()
        assert task is not None

        def lost() -> None:
            if not self._ended:
                self.left = True
                task.cancel()

        self._line.watchers.add(lost)
        if self._line.lost:
            lost()
        try:
            yield
        finally:
            self._line.watchers.discard(lost)
            if self.left:
                task.uncancel()

    async def start(self, status: int, content_type: str, size_bytes: int | None = None) -> None:
        """Send the head."""
        self.started, self.status = True, status
        headers = {**self.headers, "content-type": content_type}
        if size_bytes is not None:
            headers["content-length"] = str(size_bytes)
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._write({"type": "http.response.start", "status": status, "headers": pairs})

    async def part(self, data: bytes) -> None:
        """Send a part of the body.

        Raises:
            ClientStalledError: it does not read; its connection has been dropped.
        """
        await self._write({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body, and its end."""
        self._ended = True
        await self._write({"type": "http.response.body", "body": data, "more_body": False})
        self.leave()

    async def whole(self, status: int, content_type: str, data: bytes) -> None:
        """Send an answer in one piece."""
        await self.start(status, content_type, len(data))
        self._ended = True
        await self._write({"type": "http.response.body", "body": data, "more_body": False})
        self.leave()

    def leave(self) -> None:
        """Watch its reading no more."""
        if self._watch is not None:
            self._watch.cancel()

    async def refuse(self, refusal: Refusal, body: dict[str, Any]) -> None:
        """Send a refusal."""
        self.headers.update(refusal.headers | retry_after(refusal))
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        await self.whole(refusal.status, "application/json", data)

    async def _write(self, message: dict[str, Any]) -> None:
        # One timer a request, not one a part: a part costs less than a timer.
        if self._watch is None:
            self._watch = self._loop.call_later(self._stall_s, self._look)
        self._writing_since = self._loop.time()
        await self._send(message)
        self._writing_since = None
        if self.stalled:
            raise ClientStalledError("the client did not read")

    def _look(self) -> None:
        """Drop the connection if one part has waited too long; else look again when one could."""
        now = self._loop.time()
        since = now if self._writing_since is None else self._writing_since
        left_s = since + self._stall_s - now
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look)
            return
        self.stalled = True
        self._line.abort()  # ends the wait in _write


def retry_after(refusal: Refusal) -> dict[str, str]:
    """Return the header that says when to ask again, if that is known."""
    if refusal.retry_after_s is None:
        return {}
    return {"retry-after": str(max(1, math.ceil(refusal.retry_after_s)))}
