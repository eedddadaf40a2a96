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
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final, Self

from shoestring.errors import ShoestringError
from shoestring.swarm.exchange import Exchange
from shoestring.swarm.front_client import Client, Refusal
from shoestring.swarm.http11 import READ_BYTES, BadHttpError, hear

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from shoestring.swarm.http11 import Request
    from shoestring.swarm.standing import Standing

HOST: Final = "127.0.0.1"
OPEN_PATHS: Final = {"/health", "/v1/health"}
"""Asked with GET without a key, as llama-server has them."""
MOST_OPEN: Final = 256
"""So many connections at once are served; one more is hung up on."""
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
        if len(self._open) >= MOST_OPEN:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(writer)
        # A client may leave at any moment: it is nobody's fault.
        with suppress(OSError, EOFError), closing(writer):
            try:
                async with asyncio.timeout(HEAR_S):
                    request = await hear(reader, writer, self._check_key)
                await _unless_gone(reader, Exchange(self._standing, request, client).run())
            except BadHttpError as error:
                refusal = Refusal(400, "invalid_request_error", str(error))
            except Refusal as error:
                refusal = error
            except ShoestringError as error:
                refusal = Refusal(503, "unavailable_error", str(error))
            else:
                return
            await _last_word(refusal, client, reader, writer)

    def _check_key(self, request: Request) -> None:
        """Ask for the key in llama-server's words."""
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        shown = shown or request.headers.get("x-api-key", "")
        is_open = (
            request.method == "GET"
            and request.path in OPEN_PATHS
            and "transfer-encoding" not in request.headers
            and request.headers.get("content-length", "0") == "0"
        )
        if not is_open and not hmac.compare_digest(shown.encode(), self.key.encode()):
            raise Refusal(401, "authentication_error", "Invalid API Key")


async def _unless_gone(reader: asyncio.StreamReader, work: Coroutine[Any, Any, None]) -> None:
    """Do it as long as the client is there.

    Raises:
        Refusal: it has ended its side; one that has gone cannot be told from one that still reads.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(reader))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refusal(
                400,
                "invalid_request_error",
                "the connection was half closed before the answer: keep it open until then",
            )
        await working
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _last_word(
    refusal: Refusal, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Refuse, and take what still comes for a while: unread, it would reset the connection."""
    try:
        async with asyncio.timeout(LAST_WORD_S):
            await client.refuse(refusal)
            if not writer.is_closing():
                writer.write_eof()
            await _gone(reader)
    except TimeoutError:
        writer.transport.abort()


async def _gone(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(READ_BYTES):
            pass  # whatever comes after a request is no answer's business
