"""The OpenAI-compatible adapter: llama-server, vLLM, LM Studio, LiteLLM and their like.

The model's name is the server's own id, taken as it is. The key comes only from
``SHOESTRING_API_KEY``, so that it never stands in a command line, a notebook or a record.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from shoestring.engines.events import read_stream
from shoestring.engines.http_engine import API_KEY_VARIABLE, HttpEngine
from shoestring.errors import MissingError

if TYPE_CHECKING:
    from shoestring.engines.http_engine import Reader, Reply
    from shoestring.engines.protocol import Prompt

Endpoint = Literal["chat", "completions"]
GO_ON_FIELDS = {"llamacpp": "ignore_eos", "sglang": "ignore_eos", "vllm": "ignore_eos"}
"""Servers by ``owned_by`` of their models, and by which field each goes on after the end-of-text
token; others are not sent it, since an unknown field makes some refuse a request."""


class OpenAIEngine(HttpEngine):
    """A model on a server that speaks the OpenAI protocol.

    Args:
        base_url: ``http://HOST:PORT``, with or without ``/v1``.
        model_id: the server's own name for the model.
        endpoint: ``chat`` applies the model's chat template, ``completions`` does not.
        api_key: sent as a bearer token; default: ``SHOESTRING_API_KEY``, if set.
        fixed_length_field: the request field by which this server goes on after the end-of-text
            token; None: the one of :data:`GO_ON_FIELDS`, if the server says what it is.
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
        key = api_key if api_key is not None else os.environ.get(API_KEY_VARIABLE)
        super().__init__(base_url, model_id, api_key=key)
        self.endpoint: Endpoint = endpoint
        self._fixed_length_field = fixed_length_field
        self._tokenises: bool | None = None
        self._server: str | None = None

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
        owner = _owner(reply)
        self._fixed_length_field = self._fixed_length_field or GO_ON_FIELDS.get(owner or "")
        self._server = self._ask_version() if owner == "vllm" else reply.server
        if reply.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise MissingError(
                f"{self._address.url} refused the key (HTTP {reply.status}): set {API_KEY_VARIABLE}"
            )

    def load(self) -> None:
        """Do nothing: the server holds its model."""

    def unload(self) -> None:
        """Do nothing: the server holds its model."""

    def stop(self) -> None:
        """Do nothing: the server is not ours."""

    def version(self) -> str | None:
        """Return what the server said it is: vLLM its version, others a ``Server`` header."""
        return self._server

    def count_tokens(self, text: str) -> int | None:
        """Count by the server's ``/tokenize``, or None where it has none.

        Raises:
            MissingError: the server counted before and does not any more.
        """
        if self._tokenises is False:
            return None
        # llama-server reads `content`, vLLM `prompt`; each passes over the other's field.
        asked = {"model": self.model_id, "prompt": text, "content": text, "add_special": True}
        reply = self._ask("POST", "/tokenize", json=asked)
        tokens = read_token_count(reply)
        if tokens is None and self._tokenises:
            raise MissingError(
                f"{self._address.url}/tokenize answered HTTP {reply.status} where it had "
                "counted before: look at the server, then go on with --resume"
            )
        self._tokenises = tokens is not None
        return tokens

    def _ask_version(self) -> str | None:
        said = self._ask("GET", "/version").parsed()
        return f"vllm {said['version']}" if isinstance(said, dict) and "version" in said else None

    def _request(self, prompt: Prompt) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "model": self.model_id,
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.seed is not None:
            body["seed"] = prompt.seed
        if prompt.fixed_length and self._fixed_length_field is not None:
            body[self._fixed_length_field] = True
        if prompt.schema is not None:
            shape = {"name": "answer", "schema": prompt.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        if self.endpoint == "completions":
            return "/v1/completions", {**body, "prompt": prompt.whole_text}
        if prompt.thinking is not None:
            # Passed to the model's own template by llama-server, vLLM and SGLang.
            body["chat_template_kwargs"] = {"enable_thinking": prompt.thinking}
        return "/v1/chat/completions", {**body, "messages": prompt.messages}

    def _reader(self, _prompt: Prompt) -> Reader:
        return read_stream


def _owner(reply: Reply) -> str | None:
    """Return who owns the first model of ``/v1/models``: with some, the server's own name."""
    said = reply.parsed()
    listed = said.get("data") if isinstance(said, dict) else None
    first = listed[0] if isinstance(listed, list) and listed else None
    owner = first.get("owned_by") if isinstance(first, dict) else None
    return owner if isinstance(owner, str) else None


def read_token_count(reply: Reply) -> int | None:
    """Return how many tokens a reply of ``/tokenize`` holds, or None where it is no such reply."""
    said = reply.parsed()
    if reply.status != HTTPStatus.OK or not isinstance(said, dict):
        return None
    tokens = said.get("tokens")
    return len(tokens) if isinstance(tokens, list) else None
