"""What a client asks: an HTTP/1.1 request read within bounds, and its JSON checked.

Only what an OpenAI-compatible client sends is understood: a body with a ``Content-Length``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from shoestring.errors import BadValueError
from shoestring.truth.schedule import Schedule, parse_schedule

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 8 * 1024 * 1024


class RefusedError(Exception):
    """The client gets this HTTP status and this message; the server goes on."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Head:
    """The head of a request: what is asked of which path, and how long the body is.

    Attributes:
        method: as the client wrote it.
        path: without the query.
        body_bytes: 0 where there is no body.
        expects_continue: the client waits for ``100 Continue`` before it sends the body.
    """

    method: str
    path: str
    body_bytes: int
    expects_continue: bool


@dataclass(frozen=True)
class Ask:
    """One request for an answer.

    Attributes:
        chat: chat completions; else text completions.
        model: the name as the client gave it.
        schedule: what the name means.
        tokens: how many will be given: n of the schedule, or fewer where ``max_tokens`` says so.
        prompt_tokens: words of the prompt.
        stream: as server-sent events; else one JSON object.
        include_usage: whether the stream was asked for its usage.
        received_ns: monotonic time at which the last byte of the request had been read.
        created_s: wall-clock time of the same moment, for the field of that name.
    """

    chat: bool
    model: str
    schedule: Schedule
    tokens: int
    prompt_tokens: int
    stream: bool
    include_usage: bool
    received_ns: int
    created_s: int


def parse_head(data: bytes) -> Head:
    """Read the head of a request, without its final empty line.

    Raises:
        RefusedError: it is not HTTP/1.x, or its body has no known or an excessive length.
    """
    lines = data.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004  # method, target, version
        raise RefusedError(400, f"not an HTTP/1.1 request line: {lines[0][:80]!r}")
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    if "transfer-encoding" in fields:
        raise RefusedError(411, "a chunked request is not understood: send Content-Length")
    length = fields.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise RefusedError(400, f"Content-Length is no number: {length[:80]!r}")
    if len(length) > len(str(MAX_BODY_BYTES)) or int(length) > MAX_BODY_BYTES:
        raise RefusedError(
            413, f"the body has {length[:20]} bytes, at most {MAX_BODY_BYTES} are read"
        )
    path = words[1].partition("?")[0]
    return Head(words[0], path, int(length), fields.get("expect", "").lower() == "100-continue")


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a body that must be one JSON object.

    Raises:
        RefusedError: it is not.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return value


def parse_ask(body: bytes, *, chat: bool, received_ns: int, created_s: int) -> Ask:
    """Read the body of a request for an answer.

    Raises:
        RefusedError: a field is missing, of the wrong kind or out of range.
    """
    value = parse_object(body)
    model = _field(value, "model", str, None)
    if model is None:
        raise RefusedError(400, "model is missing: its name gives the schedule")
    try:
        schedule = parse_schedule(model)
    except BadValueError as error:
        raise RefusedError(400, str(error)) from error
    if not chat and (schedule.role or schedule.reasoning):
        raise RefusedError(400, "+role and +reasoning exist in /v1/chat/completions only")
    limit = _field(value, "max_completion_tokens", int, None)
    if limit is None:
        limit = _field(value, "max_tokens", int, schedule.tokens)
    if limit < 1:
        raise RefusedError(400, f"max_tokens is {limit}: give 1 or more")
    options = _field(value, "stream_options", dict, {})
    return Ask(
        chat=chat,
        model=model,
        schedule=schedule,
        tokens=min(schedule.tokens, limit),
        prompt_tokens=_count_chat_words(value) if chat else _count_prompt_tokens(value),
        stream=_field(value, "stream", bool, False),
        include_usage=_field(options, "include_usage", bool, False),
        received_ns=received_ns,
        created_s=created_s,
    )


def _field(value: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    found = value.get(name)
    if found is None:
        return default
    # bool is an int in Python, but {"max_tokens": true} is a mistake.
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise RefusedError(400, f"{name} is not of type {kind.__name__}")
    return found


def _count_chat_words(value: dict[str, Any]) -> int:
    messages = _field(value, "messages", list, None)
    if not messages:
        raise RefusedError(400, "messages is missing or empty")
    return sum(_count_message_words(message) for message in messages)


def _count_message_words(message: Any) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return len(content.split())
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return sum(len(str(part.get("text", "")).split()) for part in content)
    raise RefusedError(400, "a message has no content that is a string or a list of parts")


def _count_prompt_tokens(value: dict[str, Any]) -> int:
    prompt = value.get("prompt")
    if isinstance(prompt, str):
        return len(prompt.split())
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return len(prompt)
    raise RefusedError(400, "prompt is neither a string nor a list of tokens")
