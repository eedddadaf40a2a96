"""Ollama's questions put to OpenAI-compatible servers, and their answers told Ollama's way.

An Ollama is asked in its own words; any other engine gets these. What has no counterpart is left
out of the question; durations that an engine does not tell are left out of the answer.
Sources: ``docs/api.md`` of Ollama, the API reference of OpenAI, the README of llama.cpp's server.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from shoestring.gateway.streams import (
    DONE,
    MAX_PART_BYTES,
    BrokenStreamError,
    EventStream,
    Used,
    dict_of,
    dump_json,
    first_choice,
    list_of,
    parse_json,
    parse_part,
    payload_of,
    text_of,
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
MAX_CALLS = 128
"""Of tools, in one answer."""
MAX_MS = 1e12
"""Of a duration; what an engine says beyond it is none."""


def question_for_openai(asked: Mapping[str, Any], way: Way, model: str) -> dict[str, Any]:
    """Return the body for ``/v1/chat/completions`` or, with ``raw``, ``/v1/completions``."""
    body: dict[str, Any] = {"model": model, "stream": asked.get("stream") is not False}
    options = asked.get("options") or {}
    body |= {
        theirs: options[ours] for ours, theirs in OPTIONS.items() if options.get(ours) is not None
    }
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
    """Return a message with its pictures and calls of tools as OpenAI takes them.

    Ollama has no ids of calls: the tool's name stands for one.
    """
    kept = {name: message[name] for name in ("role", "content") if name in message}
    calls = [dict_of(dict_of(call).get("function")) for call in list_of(message.get("tool_calls"))]
    if calls:
        kept["tool_calls"] = [
            {
                "id": text_of(call.get("name")),
                "type": "function",
                "function": {**call, "arguments": dump_json(call.get("arguments") or {}).decode()},
            }
            for call in calls
        ]
    if message.get("tool_name"):
        kept["tool_call_id"] = message["tool_name"]
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
        self._calls: dict[str, dict[str, str]] = {}

    def _matters(self, data: bytes) -> bool:  # noqa: ARG002 - every part is told anew
        return True

    def _tell(self, part: bytes) -> bytes:
        payload = payload_of(part)
        return self._line(payload) if payload else b""

    def _line(self, payload: bytes) -> bytes:
        if payload == DONE:
            self.complete = True
            last = last_line(self._way, self._model, self._finish, self.used, self._timings)
            return self._called() + _dump(last)
        part = parse_part(payload)
        if not self._look(part) and self.failure is not None:
            return b""
        self._timings = dict_of(part.get("timings")) or self._timings
        choice = first_choice(part)
        self._finish = text_of(choice.get("finish_reason")) or self._finish
        said = dict_of(choice.get("delta")) or choice
        self._gather(list_of(said.get("tool_calls")))
        words, thought = _said(said)
        if not words and not thought:
            return b""
        return _dump(_told(self._way, self._model, words, thought) | {"done": False})

    def _gather(self, pieces: list[Any]) -> None:
        """Keep calls of tools, which come in pieces; an Ollama tells them whole."""
        for piece in map(dict_of, pieces):
            function = dict_of(piece.get("function"))
            call = self._calls.setdefault(str(piece.get("index")), {"name": "", "arguments": ""})
            for name, before in call.items():
                call[name] = before + text_of(function.get(name))
            written = sum(len(text) for one in self._calls.values() for text in one.values())
            if len(self._calls) > MAX_CALLS or written > MAX_PART_BYTES:
                raise BrokenStreamError("its calls of tools are without end")

    def _called(self) -> bytes:
        if self._way != "chat" or not self._calls:
            return b""
        told = _told(self._way, self._model, "", "") | {"done": False}
        told["message"]["tool_calls"] = [_call({"function": one}) for one in self._calls.values()]
        return _dump(told)


def answer_from_openai(
    answer: Mapping[str, Any], way: Way, model: str
) -> tuple[dict[str, Any], Used]:
    """Return a whole answer as Ollama gives it, and its tokens.

    Raises:
        BrokenStreamError: it holds no answer.
    """
    choice = first_choice(answer)
    if not choice:
        raise BrokenStreamError("it has no choices")
    said = dict_of(choice.get("message")) or choice
    used = used_of(answer.get("usage"))
    told = _told(way, model, *_said(said))
    calls = list_of(said.get("tool_calls"))
    if way == "chat" and calls:
        told["message"]["tool_calls"] = [_call(dict_of(call)) for call in calls]
    finish, timings = text_of(choice.get("finish_reason")), dict_of(answer.get("timings"))
    return last_line(way, model, finish, used, timings) | told, used


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


def _said(said: Mapping[str, Any]) -> tuple[str, str]:
    """Return the words of a message or a delta, and the thought before them."""
    words = text_of(said.get("content")) or text_of(said.get("text"))
    return words, text_of(said.get("reasoning_content")) or text_of(said.get("reasoning"))


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call of a tool: OpenAI's arguments are text, Ollama's an object."""
    function = dict_of(call.get("function"))
    written = text_of(function.get("arguments"))
    try:
        arguments = parse_json(written or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"arguments": written}  # what the model wrote, unread
    return {"function": {"name": text_of(function.get("name")), "arguments": arguments}}


def _nanoseconds(milliseconds: Any) -> int | None:
    known = isinstance(milliseconds, int | float) and 0 <= milliseconds <= MAX_MS
    return round(milliseconds * 1e6) if known else None


def _dump(value: Mapping[str, Any]) -> bytes:
    return dump_json(value) + b"\n"
