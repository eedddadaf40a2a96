"""Ollama's questions put to OpenAI-compatible servers, and their answers told Ollama's way.

An Ollama is asked in its own words; any other engine gets these. What has no counterpart is left
out of the question; durations that an engine does not tell are left out of the answer.
Sources: ``docs/api.md`` of Ollama, the API reference of OpenAI, the README of llama.cpp's server.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from shoestring.gateway.streams import (
    DONE,
    EventStream,
    Used,
    first_choice,
    parse_part,
    payload_of,
    used_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Way = Literal["chat", "generate"]
OPTIONS: Mapping[str, str] = {
    "num_predict": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "seed": "seed",
    "stop": "stop",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
"""Ollama's options and what OpenAI's API and llama.cpp call them."""


def question_for_openai(asked: Mapping[str, Any], way: Way, model: str) -> dict[str, Any]:
    """Return the body for ``/v1/chat/completions`` or, with ``raw``, ``/v1/completions``."""
    body: dict[str, Any] = {"model": model, "stream": asked.get("stream", True)}
    options = asked.get("options") or {}
    body |= {theirs: options[ours] for ours, theirs in OPTIONS.items() if ours in options}
    if body.get("max_tokens", 1) < 1:  # Ollama's -1 and -2: until the model or the context ends
        del body["max_tokens"]
    if asked.get("format") == "json":
        body["response_format"] = {"type": "json_object"}
    elif isinstance(asked.get("format"), dict):
        schema = {"name": "answer", "schema": asked["format"]}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
    if way == "generate" and asked.get("raw"):
        return {**body, "prompt": asked.get("prompt", "")}
    if way == "generate":
        system = [{"role": "system", "content": asked["system"]}] if asked.get("system") else []
        return {**body, "messages": [*system, {"role": "user", "content": asked.get("prompt", "")}]}
    body["messages"] = [_message(message) for message in asked["messages"]]
    if asked.get("tools"):
        body["tools"] = asked["tools"]
    return body


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with its pictures as OpenAI takes them."""
    kept = {name: message[name] for name in ("role", "content") if name in message}
    pictures = message.get("images") or []
    if pictures:
        kept["content"] = [
            {"type": "text", "text": message.get("content", "")},
            *(
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
                for picture in pictures
            ),
        ]
    return kept


class OllamaAnswer(EventStream):
    """An OpenAI stream told as Ollama's lines of JSON.

    Args:
        way: of which question.
        model: as the client asked for it.
    """

    content_type = "application/x-ndjson"

    def __init__(self, way: Way, model: str) -> None:
        super().__init__(keep_usage=False)
        self._way = way
        self._model = model
        self._finish = "stop"
        self._timings: dict[str, Any] = {}

    def _pass(self, parts: bytes) -> bytes:
        return b"".join(
            self._line(payload) for event in parts.split(b"\n\n") if (payload := payload_of(event))
        )

    def _line(self, payload: bytes) -> bytes:
        if payload == DONE:
            self.complete = True
            return _dump(last_line(self._way, self._model, self._finish, self.used, self._timings))
        part = parse_part(payload)
        if not self._look(part) and self.failure is not None:
            return b""
        self._timings = part.get("timings") or self._timings
        choice = first_choice(part)
        self._finish = choice.get("finish_reason") or self._finish
        said = choice.get("delta") or choice
        words = said.get("content") or said.get("text") or ""
        thought = said.get("reasoning_content") or said.get("reasoning") or ""
        if not words and not thought:
            return b""
        return _dump(_told(self._way, self._model, words, thought) | {"done": False})


def answer_from_openai(
    answer: Mapping[str, Any], way: Way, model: str
) -> tuple[dict[str, Any], Used]:
    """Return a whole answer as Ollama gives it, and its tokens."""
    choice = first_choice(answer)
    said = choice.get("message") or choice
    words = said.get("content") or said.get("text") or ""
    thought = said.get("reasoning_content") or said.get("reasoning") or ""
    used = used_of(answer.get("usage") or {})
    told = _told(way, model, words, thought)
    if way == "chat" and said.get("tool_calls"):
        told["message"]["tool_calls"] = [_call(call) for call in said["tool_calls"]]
    last = last_line(way, model, choice.get("finish_reason"), used, answer.get("timings") or {})
    return last | told, used


def last_line(
    way: Way, model: str, finish: str | None, used: Used, timings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the line that ends an answer: why, and how much (durations in nanoseconds)."""
    counts = {
        "prompt_eval_count": used.input_tokens,
        "eval_count": used.output_tokens,
        "prompt_eval_duration": _nanoseconds(timings.get("prompt_ms")),
        "eval_duration": _nanoseconds(timings.get("predicted_ms")),
    }
    return {
        **_told(way, model, "", ""),
        "done": True,
        "done_reason": "length" if finish == "length" else "stop",
        **{name: value for name, value in counts.items() if value is not None},
    }


def _told(way: Way, model: str, words: str, thought: str) -> dict[str, Any]:
    head = {"model": model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
    thinking = {"thinking": thought} if thought else {}
    if way == "chat":
        return {**head, "message": {"role": "assistant", "content": words, **thinking}}
    return {**head, "response": words, **thinking}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call of a tool: OpenAI's arguments are text, Ollama's an object."""
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError:
        arguments = {"arguments": function["arguments"]}  # what the model wrote, unread
    return {"function": {"name": function.get("name", ""), "arguments": arguments}}


def _nanoseconds(milliseconds: Any) -> int | None:
    return round(milliseconds * 1e6) if isinstance(milliseconds, int | float) else None


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
