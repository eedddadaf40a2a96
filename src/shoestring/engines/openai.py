"""The OpenAI-compatible adapter: llama-server, vLLM, LM Studio, LiteLLM and their like.

The model's name is the server's own id, taken as it is. The key comes only from
``SHOESTRING_API_KEY``, so that it never stands in a command line, a notebook or a record.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Self

from shoestring.engines.events import Reading, read_stream
from shoestring.engines.protocol import (
    Failure,
    Generation,
    Patience,
    Prompt,
    Span,
    monotonic_ns,
)
from shoestring.engines.transport import (
    READ_BYTES,
    Cancellation,
    Exchange,
    exchange,
    parse_base_url,
)
from shoestring.errors import BadValueError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    import requests

API_KEY_VARIABLE = "SHOESTRING_API_KEY"
PROBE_TIMEOUT_S = 10.0
PROBE_LIMIT_BYTES = 8 * 2**20

Endpoint = Literal["chat", "completions"]


class OpenAIEngine:
    """A model on a server that speaks the OpenAI protocol.

    Args:
        base_url: ``http://HOST:PORT``, with or without ``/v1``.
        model_id: the server's own name for the model.
        endpoint: ``chat`` applies the model's chat template, ``completions`` does not.
        api_key: sent as a bearer token; default: ``SHOESTRING_API_KEY``, if set.
        fixed_length_field: the request field by which this server goes on after the end-of-text
            token (``ignore_eos`` in llama.cpp and vLLM), or None: unknown fields make some
            servers refuse a request.
    """

    name = "openai"

    def __init__(
        self,
        base_url: str,
        model_id: str,
        *,
        endpoint: Endpoint = "chat",
        api_key: str | None = None,
        fixed_length_field: str | None = None,
    ) -> None:
        self._address = parse_base_url(base_url)
        self.model_id = model_id
        self.endpoint: Endpoint = endpoint
        self._api_key = api_key if api_key is not None else os.environ.get(API_KEY_VARIABLE)
        if self._api_key and not (self._api_key.isascii() and self._api_key.isprintable()):
            raise BadValueError(f"{API_KEY_VARIABLE} holds a character that no key can have")
        if not model_id or not model_id.isprintable():
            raise BadValueError(
                f"the model's name {model_id!r} cannot be used: give printable text"
            )
        self._fixed_length_field = fixed_length_field
        self._tokenises: bool | None = None
        self._server: str | None = None
        self._session: requests.Session | None = None

    @property
    def pid(self) -> int | None:
        """None: the server is not ours to see."""
        return None

    @property
    def options(self) -> dict[str, Any]:
        """The endpoint; the server's settings are its own."""
        return {"endpoint": self.endpoint}

    def start(self) -> None:
        """Check that a server answers and takes the key; the model is not looked up.

        Raises:
            MissingError: nobody answers there, or the key is refused.
        """
        reply = self._ask("GET", "/v1/models")
        self._server = reply.server
        if reply.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise MissingError(
                f"{self._address.url} refused the key (HTTP {reply.status}): set {API_KEY_VARIABLE}"
            )

    def load(self) -> None:
        """Do nothing: the server holds its model."""

    def unload(self) -> None:
        """Do nothing: the server holds its model."""

    def stop(self) -> None:
        """Close idle connections; the server is not ours to end."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def spans(self) -> list[Span]:
        """Return none: the server was there before."""
        return []

    def version(self) -> str | None:
        """Return what the server said it is, by its ``Server`` header."""
        return self._server

    def count_tokens(self, text: str) -> int | None:
        """Count by the server's ``/tokenize``, or None where it has none.

        Raises:
            MissingError: the server counted before and does not any more.
        """
        if self._tokenises is False:
            return None
        reply = self._ask("POST", "/tokenize", json={"content": text, "add_special": True})
        tokens = _tokens(reply)
        if tokens is None and self._tokenises:
            raise MissingError(
                f"{self._address.url}/tokenize answered HTTP {reply.status} where it had "
                "counted before: look at the server, then go on with --resume"
            )
        self._tokenises = tokens is not None
        return tokens

    def lost(self) -> str | None:
        """None: whether a server that is not ours comes back is not ours to know."""
        return None

    def record(
        self,
        prompt: Prompt,
        *,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        intended_ns: int | None = None,
        cancellation: Cancellation | None = None,
        on_sent: Callable[[], None] = lambda: None,
    ) -> OpenAIRecording:
        """Send one prompt and take the stream down; see :class:`Engine`."""
        started_ns = monotonic_ns() if intended_ns is None else intended_ns
        path = "/v1/chat/completions" if self.endpoint == "chat" else "/v1/completions"
        raw = exchange(
            self._address,
            path,
            json.dumps(self._body(prompt)).encode(),
            self._headers(),
            patience,
            started_ns=started_ns,
            cancellation=cancellation,
            on_sent=on_sent,
        )
        return OpenAIRecording(raw, started_ns, self._api_key)

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

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model_id,
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": prompt.text}]
        else:
            body["prompt"] = prompt.text
        if prompt.seed is not None:
            body["seed"] = prompt.seed
        if prompt.fixed_length and self._fixed_length_field is not None:
            body[self._fixed_length_field] = True
        return body

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        return headers

    def _ask(self, method: str, path: str, **options: Any) -> Reply:
        """Send a request that is not timed.

        Raises:
            MissingError: nobody answers, or not here, or without end.
        """
        import requests

        if self._session is None:
            self._session = requests.Session()
            # llama-server promises keep-alive and closes after it.
            self._session.headers.update({**self._headers(), "Connection": "close"})
            # The timed path knows no proxy and no netrc; what is asked beside it must not either.
            self._session.trust_env = False
        url = self._address.url + path
        try:
            with self._session.request(
                method, url, timeout=PROBE_TIMEOUT_S, stream=True, allow_redirects=False, **options
            ) as answer:
                if answer.is_redirect:
                    where = answer.headers["Location"]
                    raise MissingError(f"{url} sends on to {where}: give that as --base-url")
                body = _read_bounded(answer.iter_content(READ_BYTES), url)
                return Reply(answer.status_code, answer.headers.get("Server"), body)
        except requests.RequestException as error:
            raise MissingError(
                f"no server answers at {self._address.url} ({type(error).__name__}): "
                "start it, or mend --base-url"
            ) from error


@dataclass(frozen=True)
class Reply:
    """What came of a request that is not timed."""

    status: int
    server: str | None
    body: bytes


@dataclass(frozen=True)
class OpenAIRecording:
    """One exchange and when it was meant to begin; ``secret`` is kept out of what is read."""

    raw: Exchange
    started_ns: int
    secret: str | None = field(default=None, repr=False)

    def read(self) -> Generation:
        """Read what arrived; the first failure on the way is the one that counts."""
        raw = self.raw
        reading = read_stream(raw.arrivals) if raw.status == HTTPStatus.OK else Reading()
        failure = _judge(raw, reading)
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

    def _without_secret(self, text: str) -> str:
        """Blank the key out: some servers send the request's head back when they refuse it."""
        return text.replace(self.secret, "***") if self.secret else text


def _read_bounded(pieces: Iterable[bytes], url: str) -> bytes:
    """Read a body up to a limit of size and of time.

    Raises:
        MissingError: it is longer, or takes longer.
    """
    body, begun_s = bytearray(), time.monotonic()
    for piece in pieces:
        body += piece
        if len(body) > PROBE_LIMIT_BYTES or time.monotonic() - begun_s > PROBE_TIMEOUT_S:
            raise MissingError(f"{url} answers without end: is this the base URL?")
    return bytes(body)


def _judge(raw: Exchange, reading: Reading) -> Failure | None:
    if reading.failure is not None:
        return reading.failure
    if raw.failure is not None and not any(event.kind == "done" for event in reading.events):
        return raw.failure
    if not reading.events and "text/event-stream" not in raw.content_type:
        return Failure("malformed", f"not an event stream but {raw.content_type or 'untyped'!r}")
    if not reading.ended:
        return Failure("no_final_event", "the stream ended without its final event: a cut answer")
    if not (reading.text or reading.reasoning):
        return Failure("no_tokens", "the stream is whole and has no text")
    return None


def _tokens(reply: Reply) -> int | None:
    """Return how many tokens a reply of ``/tokenize`` holds, or None where it is no such reply."""
    if reply.status != HTTPStatus.OK:
        return None
    try:
        tokens = json.loads(reply.body)["tokens"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return len(tokens) if isinstance(tokens, list) else None
