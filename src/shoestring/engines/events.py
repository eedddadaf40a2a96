"""From stamped bytes to events: server-sent events, then the OpenAI stream inside them.

Runs after the stream has ended, so that its cost touches no stamp. An event gets the stamp of the
arrival that brought its last byte: before that nobody could have read it.

Sources: the HTML standard's "Interpreting an event stream"; the OpenAI streaming format as
llama-server, vLLM, Ollama and LM Studio send it.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shoestring.engines.protocol import Event, EventKind, Failure, NativeTimings, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DONE = "[DONE]"


@dataclass(frozen=True)
class Message:
    """One server-sent event: its data, or None for a comment."""

    t_ns: int
    data: str | None


@dataclass
class Reading:
    """What a stream said, as far as it could be read."""

    events: list[Event] = field(default_factory=list)
    failure: Failure | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    native: NativeTimings | None = None
    text: str = ""
    reasoning: str = ""
    truth: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the stream's own end was seen: ``[DONE]``, or a finish reason."""
        return self.finish_reason is not None or any(e.kind == "done" for e in self.events)


def split_messages(arrivals: Iterable[tuple[int, bytes]]) -> Iterator[Message]:
    """Yield the server-sent events of a stream, each with the stamp of its last byte.

    Lines end with LF or CRLF; several ``data:`` lines of one event are joined by LF. A stream that
    stops within an event loses that event, as the standard asks.

    Raises:
        UnicodeDecodeError: a complete line is not UTF-8.
    """
    rest: list[bytes] = []
    data: list[str] = []
    for t_ns, piece in _without_mark(arrivals):
        rest.append(piece)
        if b"\n" not in piece:  # joined only when a line ends: a long line costs no more
            continue
        lines = b"".join(rest).split(b"\n")
        rest = [lines.pop()]
        for raw in lines:
            line = raw.removesuffix(b"\r").decode("utf-8")
            if not line:
                if data:
                    yield Message(t_ns, "\n".join(data))
                    data = []
            elif line.startswith(":"):
                yield Message(t_ns, None)
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))


def _without_mark(arrivals: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Drop a leading byte order mark, as the standard asks."""
    for number, (t_ns, piece) in enumerate(arrivals):
        yield t_ns, piece.removeprefix(codecs.BOM_UTF8) if number == 0 else piece


def read_stream(arrivals: Iterable[tuple[int, bytes]]) -> Reading:
    """Classify every event of an OpenAI stream and gather text, usage and native timings.

    What cannot be read ends the reading with a ``malformed`` failure; what came before is kept.
    """
    reading = Reading()
    texts: list[str] = []
    thoughts: list[str] = []
    try:
        for message in split_messages(arrivals):
            _read_message(reading, message, texts, thoughts)
            if reading.failure is not None:
                break
    except UnicodeDecodeError as error:
        reading.failure = Failure("malformed", f"a line is not UTF-8: {error.reason}")
    reading.text = "".join(texts)
    reading.reasoning = "".join(thoughts)
    return reading


def _read_message(
    reading: Reading, message: Message, texts: list[str], thoughts: list[str]
) -> None:
    if message.data is None:
        reading.events.append(Event(message.t_ns, "comment", 0))
        return
    if message.data == DONE:
        reading.events.append(Event(message.t_ns, "done", 0))
        return
    try:
        chunk = json.loads(message.data)
    except (ValueError, RecursionError):
        chunk = None
    if not isinstance(chunk, dict):
        reading.failure = Failure("malformed", f"a chunk is not JSON: {message.data[:80]!r}")
        return
    if chunk.get("error"):
        reading.events.append(Event(message.t_ns, "error", 0))
        reading.failure = Failure("stream_error", _error_line(chunk["error"]))
        return
    kind, text = _classify(chunk)
    reading.events.append(Event(message.t_ns, kind, len(text.encode("utf-8", "surrogatepass"))))
    if kind == "answer":
        texts.append(text)
    elif kind == "reasoning":
        thoughts.append(text)
    _gather(reading, chunk)


def _classify(chunk: dict[str, Any]) -> tuple[EventKind, str]:
    choice = _first_choice(chunk)
    if choice is None:
        return ("usage", "") if chunk.get("usage") else ("empty", "")
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        delta = {}
    answer = choice.get("text") or delta.get("content")
    if isinstance(answer, str) and answer:
        return "answer", answer
    # `reasoning_content`: llama-server, vLLM, DeepSeek; `reasoning`: Ollama, OpenRouter.
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if isinstance(thought, str) and thought:
        return "reasoning", thought
    if choice.get("finish_reason"):
        return "finish", ""
    return ("role", "") if delta.get("role") else ("empty", "")


def _gather(reading: Reading, chunk: dict[str, Any]) -> None:
    choice = _first_choice(chunk)
    if choice is not None and choice.get("finish_reason"):
        reading.finish_reason = str(choice["finish_reason"])
    if isinstance(chunk.get("usage"), dict):
        reading.usage = _usage(chunk["usage"])
    if isinstance(chunk.get("timings"), dict):
        reading.native = _llama_timings(chunk["timings"])
    if isinstance(chunk.get("truth"), dict):
        reading.truth.append({**chunk["truth"], "arrived_ns": reading.events[-1].t_ns})


def _first_choice(chunk: dict[str, Any]) -> dict[str, Any] | None:
    choices = chunk.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return None


def _usage(usage: dict[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")),
                 _count(cached))  # fmt: skip


def _llama_timings(timings: dict[str, Any]) -> NativeTimings:
    return NativeTimings(
        prompt_tokens=_count(timings.get("prompt_n")),
        prompt_s=_seconds(timings.get("prompt_ms")),
        decode_tokens=_count(timings.get("predicted_n")),
        decode_s=_seconds(timings.get("predicted_ms")),
        cached_tokens=_count(timings.get("cache_n")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _seconds(value_ms: Any) -> float | None:
    if isinstance(value_ms, int | float) and not isinstance(value_ms, bool) and value_ms >= 0:
        return value_ms / 1000
    return None


def _error_line(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(message or error).split())[:500]
