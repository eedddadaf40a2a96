"""The OpenAI-compatible adapter: llama-server, vLLM, LM Studio, LiteLLM and their like.

The model's name is the server's own id, taken as it is. The key comes only from
``SHOESTRING_API_KEY``, so that it never stands in a command line, a notebook or a record.
"""

from __future__ import annotations

import json
import os
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
from shoestring.engines.transport import Cancellation, Exchange, exchange, parse_base_url
from shoestring.errors import BadValueError, MissingError

if TYPE_CHECKING:
    from types import TracebackType

    import requests

API_KEY_VARIABLE = "SHOESTRING_API_KEY"
PROBE_TIMEOUT_S = 10.0

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
        if self._api_key and not self._api_key.isprintable():
            raise BadValueError(f"{API_KEY_VARIABLE} holds a character that no key can have")
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
        answer = self._ask("GET", "/v1/models")
        self._server = answer.headers.get("Server")
        if answer.status_code in (401, 403):
            raise MissingError(
                f"{self._address.url} refused the key (HTTP {answer.status_code}): "
                f"set {API_KEY_VARIABLE}"
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
        """Count by the server's ``/tokenize``, or None where it has none."""
        if self._tokenises is False:
            return None
        body = {"content": text, "add_special": True}
        answer = self._ask("POST", "/tokenize", json=body)
        tokens = _tokens(answer) if answer.ok else None
        self._tokenises = tokens is not None
        return tokens

    def generate(
        self,
        prompt: Prompt,
        *,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        intended_ns: int | None = None,
        cancellation: Cancellation | None = None,
    ) -> Generation:
        """Send one prompt and record the stream; see :class:`Engine`."""
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
        )
        return interpret(raw, started_ns)

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

    def _ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request that is not timed.

        Raises:
            MissingError: nobody answers.
        """
        import requests

        if self._session is None:
            self._session = requests.Session()
            # llama-server promises keep-alive and closes after it.
            self._session.headers.update({**self._headers(), "Connection": "close"})
            # What is on this machine is never asked through a proxy.
            self._session.trust_env = self._address.host not in ("127.0.0.1", "localhost", "::1")
        url = self._address.url + path
        try:
            return self._session.request(method, url, timeout=PROBE_TIMEOUT_S, **options)
        except requests.RequestException as error:
            raise MissingError(
                f"no server answers at {self._address.url} ({type(error).__name__}): "
                "start it, or mend --base-url"
            ) from error


def interpret(raw: Exchange, started_ns: int) -> Generation:
    """Read what an exchange brought; the first failure on the way is the one that counts."""
    reading = read_stream(raw.arrivals) if raw.status == 200 else Reading()  # noqa: PLR2004
    return Generation(
        intended_ns=started_ns,
        sent_ns=raw.sent_ns,
        headers_ns=raw.headers_ns,
        end_ns=raw.end_ns,
        connect_s=raw.connect_s,
        http_status=raw.status,
        events=tuple(reading.events),
        failure=_judge(raw, reading),
        finish_reason=reading.finish_reason,
        usage=reading.usage,
        native=reading.native,
        text=reading.text,
        reasoning=reading.reasoning,
        truth=tuple(reading.truth),
    )


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


def _tokens(answer: requests.Response) -> int | None:
    try:
        tokens = answer.json().get("tokens")
    except (ValueError, AttributeError):
        return None
    return len(tokens) if isinstance(tokens, list) else None
