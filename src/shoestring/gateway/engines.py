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

from shoestring.gateway.plain_text import PlainText, marks_of_template
from shoestring.gateway.queueing import Slots
from shoestring.gateway.streams import parse_json
from shoestring.gateway.upstream import CutError, NoAnswerError, Server, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from shoestring.gateway.settings import EngineSettings, QueueSettings
    from shoestring.gateway.upstream import Reply

State = Literal["unknown", "healthy", "down"]
LOOK_TIMEOUT_S = 5.0
MAX_MEMORY_BYTES = 2**50
MAX_LOOK_BYTES = 8 * 2**20
CONNECT_TIMEOUT_S = 5.0
_NO_LOOK = (
    NoAnswerError, CutError, TimeoutError, OSError, ValueError, LookupError, TypeError,
    AttributeError,
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

    Attributes:
        slots: who is worked for and who waits.
        state: what the last look or request found.
        models: by the engine's own names.
    """

    def __init__(self, settings: EngineSettings, queue: QueueSettings) -> None:
        self.settings = settings
        self.slots = Slots(
            settings.slots, waiting=queue.waiting, waiting_per_key=queue.waiting_per_key
        )
        self.state: State = "unknown"
        self.since_utc = _now_utc()
        self.models: dict[str, Served] = {}
        self.memory_bytes: int | None = None
        self.last_error: str | None = None
        self._server = Server.of(settings.url)
        self._life = ""
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
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Reply]:
        """Ask; leaving the block before the end ends the generation.

        Raises:
            EngineDownError: it refused the connection or hung up before a status.
        """
        asking = exchange(
            self._server,
            path,
            headers=self._headers,
            body=body,
            connect_s=CONNECT_TIMEOUT_S,
            idle_s=self.settings.idle_s,
        )
        try:
            async with asking as reply:
                yield reply
        except NoAnswerError as error:  # before there is a reply; after it, it is cut
            self.went_down(str(error))
            raise EngineDownError(f"{self.name}: {error}") from error

    async def _ask_models(self) -> dict[str, Served]:
        if self.kind == "ollama":
            return await self._ask_ollama()
        listed = await self._look_up("/v1/models")
        template = ""
        if self.kind == "llama-server":
            template = str((await self._look_up("/props")).get("chat_template") or "")
        plain_text = PlainText(marks_of_template(template))
        return {
            str(model["id"]): Served(self._digest_of(model), plain_text, model)
            for model in listed.get("data", ())
            if isinstance(model, dict) and model.get("id")
        }

    async def _ask_ollama(self) -> dict[str, Served]:
        listed = await self._look_up("/api/tags")
        loaded = (await self._look_up("/api/ps")).get("models") or ()
        memory_bytes = sum(model.get("size") or 0 for model in loaded)
        if not 0 <= memory_bytes <= MAX_MEMORY_BYTES:
            raise ValueError("/api/ps answered sizes that no machine has")
        self.memory_bytes = memory_bytes or None  # 0 is what some builds say where they do not know
        found = {}
        for model in listed.get("models") or ():
            name, digest = str(model["name"]), str(model.get("digest", ""))
            known = self.models.get(name)
            if known is None or known.digest != digest:
                shown = await self._look_up("/api/show", {"model": name})
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

    async def _look_up(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        async with exchange(
            self._server,
            path,
            headers=self._headers,
            body=body,
            connect_s=LOOK_TIMEOUT_S,
            idle_s=LOOK_TIMEOUT_S,
        ) as reply:
            if reply.status != HTTPStatus.OK:
                raise ValueError(f"{path} answered HTTP {reply.status}")
            value = parse_json(await reply.whole(MAX_LOOK_BYTES))
        # Clients are shown parts of it, so it must be JSON again, of whole characters.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        if not isinstance(value, dict):
            raise ValueError(f"{path} answered no JSON object")  # noqa: TRY004
        return value

    def _turn(self, state: State) -> None:
        self.state = state
        self.since_utc = _now_utc()


def _now_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
