"""What every engine that is asked over HTTP shares: the timed request, and the ones beside it.

An adapter says which path and body a prompt becomes and how its stream is read; connection,
stamps, limits of time, secrets and the judgement of what arrived are the same for all.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Self

from shoestring.engines.events import Reading
from shoestring.engines.protocol import (
    EngineMemory,
    Failure,
    Generation,
    Patience,
    Prompt,
    Span,
    monotonic_ns,
)
from shoestring.engines.transport import (
    READ_BYTES,
    Address,
    Cancellation,
    Exchange,
    exchange,
    parse_base_url,
)
from shoestring.errors import BadValueError, EngineLostError, MissingError, ShoestringError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    import requests

    Reader = Callable[[Iterable[tuple[int, bytes]]], Reading]

API_KEY_VARIABLE = "SHOESTRING_API_KEY"
PROBE_TIMEOUT_S = 10.0
HEALTH_TIMEOUT_S = 2.0
PROBE_LIMIT_BYTES = 8 * 2**20


class HttpEngine(ABC):
    """A model behind an HTTP server.

    Args:
        base_url: ``http://HOST:PORT``, with or without ``/v1``.
        model_id: the server's own name for the model.
        api_key: sent as a bearer token; None or empty: none is sent.

    Raises:
        BadValueError: address, name or key cannot be used.
    """

    name: str
    stream_type: ClassVar[str] = "text/event-stream"
    """Content type of a good answer."""
    health_path: ClassVar[str] = "/v1/models"
    """What is asked to see whether the server answers: its cheapest question."""

    def __init__(self, base_url: str, model_id: str, *, api_key: str | None = None) -> None:
        self._address: Address = parse_base_url(base_url)
        self.model_id = model_id
        self._api_key = api_key
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise BadValueError(f"{API_KEY_VARIABLE} holds a character that no key can have")
        if not model_id or not model_id.isprintable():
            raise BadValueError(
                f"the model's name {model_id!r} cannot be used: give printable text"
            )

    @property
    def pid(self) -> int | None:
        """None: the server is not ours to see."""
        return None

    def address(self) -> tuple[str, str | None]:
        """Return the server's base URL and the key that it takes, for whoever asks it beside us."""
        return self._address.url, self._api_key or None

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The settings that bear on speed and memory."""

    @abstractmethod
    def start(self) -> None:
        """Start the server, or check that it is there."""

    @abstractmethod
    def _request(self, prompt: Prompt) -> tuple[str, dict[str, Any]]:
        """Return the path and the body that ask for this prompt."""

    @abstractmethod
    def _reader(self, prompt: Prompt) -> Reader:
        """Return what reads the stream that answers this prompt."""

    @abstractmethod
    def load(self) -> None:
        """Load the model and return when it can answer."""

    @abstractmethod
    def unload(self) -> None:
        """Give the model's memory back."""

    @abstractmethod
    def stop(self) -> None:
        """End the server where it is ours. May be called twice."""

    def spans(self) -> list[Span]:
        """Return none: the server was there before."""
        return []

    def version(self) -> str | None:
        """None: the server does not say."""
        return None

    def count_tokens(self, _text: str) -> int | None:
        """None: the server does not tokenise."""
        return None

    def lost(self) -> str | None:
        """None: whether a server that is not ours comes back is not ours to know."""
        return None

    def memory(self) -> EngineMemory | None:
        """None: the server does not say."""
        return None

    def healthy(self) -> bool:
        """Whether the server answers its cheapest question."""
        try:
            reply = self._ask("GET", self.health_path, timeout_s=HEALTH_TIMEOUT_S)
        except ShoestringError:
            return False
        return reply.status < HTTPStatus.INTERNAL_SERVER_ERROR

    def record(
        self,
        prompt: Prompt,
        *,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        intended_ns: int | None = None,
        cancellation: Cancellation | None = None,
        on_sent: Callable[[], None] = lambda: None,
    ) -> HttpRecording:
        """Send one prompt and take the stream down; see :class:`Engine`."""
        started_ns = monotonic_ns() if intended_ns is None else intended_ns
        path, body = self._request(prompt)
        raw = exchange(
            self._address,
            path,
            json.dumps(body).encode(),
            self._headers(),
            patience,
            started_ns=started_ns,
            cancellation=cancellation,
            on_sent=on_sent,
        )
        return HttpRecording(raw, started_ns, self._reader(prompt), self.stream_type, self._api_key)

    def generate(
        self,
        prompt: Prompt,
        *,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        cancellation: Cancellation | None = None,
    ) -> Generation:
        """Send one prompt and return what came of it; see :class:`Engine`."""
        return self.record(prompt, patience=patience, cancellation=cancellation).read()

    def __enter__(self) -> Self:
        """Start and load; what was started is stopped when loading fails."""
        try:
            self.start()
            self.load()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": self.stream_type}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        return headers

    def _ask(
        self, method: str, path: str, *, timeout_s: float = PROBE_TIMEOUT_S, **options: Any
    ) -> Reply:
        """Send a request that is not timed.

        Raises:
            MissingError: nobody answers, or not here, or without end.
            EngineLostError: it was ours and is dead.
        """
        url = self._address.url + path
        try:
            with (
                self._new_session() as session,
                session.request(
                    method, url, timeout=timeout_s, stream=True, allow_redirects=False, **options
                ) as answer,
            ):
                if answer.is_redirect:
                    where = answer.headers["Location"]
                    raise MissingError(f"{url} sends on to {where}: give that as --base-url")
                body = _read_bounded(answer.iter_content(READ_BYTES), url, timeout_s)
                return Reply(answer.status_code, answer.headers.get("Server"), body)
        except OSError as error:  # what requests raises is one, too
            if (reason := self.lost()) is not None:
                raise EngineLostError(reason) from error
            raise MissingError(
                f"no server answers at {self._address.url} ({type(error).__name__}): "
                "start it, or mend --base-url"
            ) from error

    def _new_session(self) -> requests.Session:
        """Return a session for one request.

        A connection is never asked twice: llama-server promises keep-alive and closes after it,
        and what is sent on such a connection comes back as a server that is not there.
        """
        import requests

        session = requests.Session()
        session.headers.update({**self._headers(), "Connection": "close"})
        # The timed path knows no proxy and no netrc; what is asked beside it must not either.
        session.trust_env = False
        return session


@dataclass(frozen=True)
class Reply:
    """What came of a request that is not timed."""

    status: int
    server: str | None
    body: bytes

    def parsed(self) -> Any:
        """Return the body as JSON, or None where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True)
class HttpRecording:
    """One exchange and when it was meant to begin; ``secret`` is kept out of what is read."""

    raw: Exchange
    started_ns: int
    reader: Reader = field(repr=False)
    stream_type: str
    secret: str | None = field(default=None, repr=False)

    @property
    def broken(self) -> bool:
        """Whether the exchange itself went wrong, whatever the stream said."""
        return self.raw.failure is not None

    def read(self) -> Generation:
        """Read what arrived; the first failure on the way is the one that counts."""
        raw = self.raw
        reading = self.reader(raw.arrivals) if raw.status == HTTPStatus.OK else Reading()
        failure = self._judge(reading)
        return Generation(
            intended_ns=self.started_ns,
            sent_ns=raw.sent_ns,
            headers_ns=raw.headers_ns,
            end_ns=raw.end_ns,
            connect_s=raw.connect_s,
            http_status=raw.status,
            events=tuple(reading.events),
            failure=failure and Failure(failure.reason, self._without_secret(failure.detail)),
            finish_reason=reading.finish_reason,
            usage=reading.usage,
            native=reading.native,
            text=self._without_secret(reading.text),
            reasoning=self._without_secret(reading.reasoning),
            truth=tuple(reading.truth),
        )

    def _judge(self, reading: Reading) -> Failure | None:
        raw = self.raw
        if reading.failure is not None:
            return reading.failure
        if raw.failure is not None and not any(event.kind == "done" for event in reading.events):
            return raw.failure
        if not reading.events and self.stream_type not in raw.content_type:
            got = raw.content_type or "untyped"
            return Failure("malformed", f"not {_NAMES[self.stream_type]} but {got!r}")
        if not reading.ended:
            return Failure(
                "no_final_event", "the stream ended without its final event: a cut answer"
            )
        if not (reading.text or reading.reasoning):
            return Failure("no_tokens", "the stream is whole and has no text")
        return None

    def _without_secret(self, text: str) -> str:
        """Blank the key out: some servers send the request's head back when they refuse it."""
        return text.replace(self.secret, "***") if self.secret else text


_NAMES = {
    "text/event-stream": "an event stream",
    "application/x-ndjson": "a stream of JSON lines",
}


def _read_bounded(pieces: Iterable[bytes], url: str, timeout_s: float) -> bytes:
    """Read a body up to a limit of size and of time.

    Raises:
        MissingError: it is longer, or takes longer.
    """
    body, begun_s = bytearray(), time.monotonic()
    for piece in pieces:
        body += piece
        if len(body) > PROBE_LIMIT_BYTES or time.monotonic() - begun_s > timeout_s:
            raise MissingError(f"{url} answers without end: is this the base URL?")
    return bytes(body)
