"""One address for an engine that may be replaced: answers that are open go on with the next one.

An HTTP server on loopback with a key of its own. What is asked is passed on to the llama-server
that stands; while none stands it waits. Of answers that come in tokens all is kept that the next
engine needs to go on (:mod:`shoestring.swarm.continuing`); anything else is asked again as long as
nothing of it has gone out. What cannot be continued ends with an error that says so.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from shoestring.errors import ShoestringError
from shoestring.swarm.exchange import Exchange
from shoestring.swarm.front_client import Client, Refusal
from shoestring.swarm.http11 import BadHttpError, hear

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from shoestring.swarm.http11 import Request
    from shoestring.swarm.standing import Standing

HOST: Final = "127.0.0.1"
OPEN_PATHS: Final = {"/health", "/v1/health"}
"""Without a key, as llama-server has them."""
HEAR_S: Final = 60.0
LAST_WORD_S: Final = 5.0


class Front:
    """Serves while its ``async with`` lasts.

    Args:
        standing: whose engine answers.
        key: that clients show; default: one made for this time.

    Attributes:
        url: of it, without a path.
        key: see above.
    """

    def __init__(self, standing: Standing, key: str | None = None) -> None:
        self.key = key or secrets.token_urlsafe(32)
        self.url = ""
        self._standing = standing
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.url = f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        open_now = tuple(self._open)
        if open_now and isinstance(error, ShoestringError):
            # No engine will stand any more: each has an error to tell.
            await asyncio.wait(open_now, timeout=LAST_WORD_S)
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(writer)
        # A client may leave at any moment: it is nobody's fault.
        with suppress(OSError, EOFError):
            try:
                async with asyncio.timeout(HEAR_S):
                    request = await hear(reader, writer)
                self._check_key(request)
                await _unless_gone(reader, Exchange(self._standing, request, client).run())
            except BadHttpError as error:
                await client.refuse(Refusal(400, "invalid_request_error", str(error)))
            except Refusal as refusal:
                await client.refuse(refusal)
            except ShoestringError as error:
                await client.refuse(Refusal(503, "unavailable_error", str(error)))
            finally:
                writer.close()

    def _check_key(self, request: Request) -> None:
        """Ask for the key in llama-server's words."""
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        shown = shown or request.headers.get("x-api-key", "")
        if request.path not in OPEN_PATHS and not hmac.compare_digest(
            shown.encode(), self.key.encode()
        ):
            raise Refusal(401, "authentication_error", "Invalid API Key")


async def _unless_gone(reader: asyncio.StreamReader, work: Coroutine[Any, Any, None]) -> None:
    """Do it as long as the client is there."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(reader))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(1 << 12):
            pass  # whatever comes after a request is no answer's business
