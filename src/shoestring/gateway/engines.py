"""The engines behind the gateway: what each has, whether it answers, and how it is asked.

Every engine is looked at in turns; one that refuses a connection is down at once, and up again
with the next look that succeeds. Its models, what weights they are and the marks of their chat
templates are learnt by the same looks.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

import aiohttp

from shoestring.gateway.plain_text import PlainText, marks_of_template
from shoestring.gateway.queueing import Slots
from shoestring.gateway.streams import parse_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from shoestring.gateway.settings import EngineSettings, QueueSettings

State = Literal["unknown", "healthy", "down"]
LOOK_TIMEOUT_S = 5.0
MAX_LOOK_BYTES = 8 * 2**20
CONNECT_TIMEOUT_S = 5.0
_NO_LOOK = (
    aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError, AttributeError,
)  # fmt: skip
"""What a look ends with where no engine is; the last of them where one says odd things."""


class EngineDownError(Exception):
    """The engine took no request; another one may."""


@dataclass(frozen=True)
class Served:
    """A model that an engine has.

    Attributes:
        digest: changes when the weights do, as far as the engine or its settings tell.
        plain_text: knows the marks of the model's chat template.
        details: what the engine says of it, in its own words.
    """

    digest: str
    plain_text: PlainText = field(default_factory=PlainText, repr=False)
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)


class EngineLink:
    """One engine.

    Args:
        settings: where it is and what it may do.
        queue: how many may wait.
        session: connections are made by it.

    Attributes:
        slots: who is worked for and who waits.
        state: what the last look or request found.
        models: by the engine's own names.
    """

    def __init__(
        self, settings: EngineSettings, queue: QueueSettings, session: aiohttp.ClientSession
    ) -> None:
        self.settings = settings
        self.slots = Slots(
            settings.slots, waiting=queue.waiting, waiting_per_key=queue.waiting_per_key
        )
        self.state: State = "unknown"
        self.since_utc = _now_utc()
        self.models: dict[str, Served] = {}
        self.memory_bytes: int | None = None
        self.last_error: str | None = None
        self._session = session
        self._life = ""
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=CONNECT_TIMEOUT_S, sock_read=settings.idle_s
        )
        key = settings.key()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    @property
    def name(self) -> str:
        """As the settings call it."""
        return self.settings.name

    @property
    def kind(self) -> str:
        """Which words it understands."""
        return self.settings.kind

    async def look(self) -> None:
        """Ask for its models; what goes wrong is its state, not an error."""
        if self.state != "healthy":
            self._life = secrets.token_hex(8)
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                found = await self._ask_models()
        except _NO_LOOK as error:
            self.went_down(f"{type(error).__name__}: {error}")
            return
        if self.state != "healthy":
            self._turn("healthy")
            self.last_error = None
        allowed = self.settings.models
        self.models = {name: one for name, one in found.items() if not allowed or name in allowed}

    def went_down(self, why: str) -> None:
        """Note that it does not answer."""
        self.last_error = why[:300]
        if self.state != "down":
            self._turn("down")

    @asynccontextmanager
    async def post(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask; leaving the block before the end ends the generation.

        Raises:
            EngineDownError: it refused the connection or hung up before a status.
        """
        try:
            response = await self._session.post(
                self.settings.url + path,
                json=body,
                headers=self._headers,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            self.went_down(f"{type(error).__name__}: {error}")
            raise EngineDownError(f"{self.name}: {type(error).__name__}") from error
        _end_with_connection(response)
        try:
            yield response
        finally:
            # Closed, not released: an engine sees at once that nobody listens any more.
            response.close()

    async def _ask_models(self) -> dict[str, Served]:
        if self.kind == "ollama":
            return await self._ask_ollama()
        listed = await self._get("/v1/models")
        template = ""
        if self.kind == "llama-server":
            template = str((await self._get("/props")).get("chat_template") or "")
        plain_text = PlainText(marks_of_template(template))
        return {
            str(model["id"]): Served(self._digest_of(model), plain_text, model)
            for model in listed.get("data", ())
            if isinstance(model, dict) and model.get("id")
        }

    async def _ask_ollama(self) -> dict[str, Served]:
        listed = await self._get("/api/tags")
        loaded = (await self._get("/api/ps")).get("models") or ()
        sizes = [model.get("size") or 0 for model in loaded]
        self.memory_bytes = sum(sizes) or None  # 0 is what some builds say where they do not know
        found = {}
        for model in listed.get("models") or ():
            name, digest = str(model["name"]), str(model.get("digest", ""))
            known = self.models.get(name)
            if known is None or known.digest != digest:
                shown = await self._post("/api/show", {"model": name})
                marks = marks_of_template(str(shown.get("template") or ""))
                known = Served(digest, PlainText(marks), model)
            found[name] = known
        return found

    def _digest_of(self, model: Mapping[str, Any]) -> str:
        """What stands for the weights of a server that does not name them.

        Such a server may come back with others under the same name, so each start counts.
        """
        if self.settings.digest is not None:
            return self.settings.digest
        facts = {name: value for name, value in model.items() if name != "created"}
        text = json.dumps([facts, self._life], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    async def _get(self, path: str) -> dict[str, Any]:
        url = self.settings.url + path
        async with self._session.get(url, headers=self._headers, allow_redirects=False) as reply:
            return await self._read(reply)

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        url = self.settings.url + path
        async with self._session.post(
            url, json=body, headers=self._headers, allow_redirects=False
        ) as reply:
            return await self._read(reply)

    async def _read(self, reply: aiohttp.ClientResponse) -> dict[str, Any]:
        if reply.status != HTTPStatus.OK:
            raise ValueError(f"{reply.url.path} answered HTTP {reply.status}")
        data = await read_bounded(reply, MAX_LOOK_BYTES)
        value = parse_json(data)
        # Clients are shown parts of it, so it must be JSON again, of whole characters.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        if not isinstance(value, dict):
            raise ValueError(f"{reply.url.path} answered no JSON object")  # noqa: TRY004
        return value

    def _turn(self, state: State) -> None:
        self.state = state
        self.since_utc = _now_utc()


async def read_bounded(reply: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """Read a whole body.

    Raises:
        ValueError: it is longer than allowed.
    """
    parts, size_bytes = [], 0
    async for part in reply.content.iter_any():
        size_bytes += len(part)
        if size_bytes > limit_bytes:
            raise ValueError(f"{reply.url.path} answered more than {limit_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


def _end_with_connection(response: aiohttp.ClientResponse) -> None:
    """Let whoever reads the body know when the connection is gone.

    aiohttp 3.14 forgets a body, and the clock that bounds its silence, when what stands for the
    length of a chunk is no number: its reader would wait for ever.
    """
    protocol = response.connection.protocol if response.connection is not None else None
    if protocol is None or response.content.is_eof():
        return  # all of it is here

    def end(lost: asyncio.Future[None] | None = None) -> None:
        if lost is not None and not lost.cancelled():
            lost.exception()  # seen; the body's own is what counts
        if not response.content.is_eof() and response.content.exception() is None:
            response.content.set_exception(aiohttp.ClientPayloadError("the connection is gone"))

    if protocol.closed is None:
        end()
    else:
        protocol.closed.add_done_callback(end)


def open_session() -> aiohttp.ClientSession:
    """Return what makes connections to engines: a new one for each request.

    llama-server promises to keep a connection and closes it after a stream, and a request that
    meets a closing connection is lost.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True, ttl_dns_cache=30),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
        headers={"Accept-Encoding": "identity", "User-Agent": "shoestring-gateway"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
        trust_env=False,
    )


def _now_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
