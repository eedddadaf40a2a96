"""Ollama's stream: one JSON object a line, the last with the engine's own durations.

Source: ``docs/api.md`` of Ollama. Durations are nanoseconds there. A line gets the stamp of the
arrival that brought its last byte, as an event of an event stream does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shoestring.engines.events import Reading
from shoestring.engines.protocol import Event, Failure, NativeTimings, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def read_ollama_stream(
    arrivals: Iterable[tuple[int, bytes]], *, shared_tokens: int | None
) -> Reading:
    """Classify every line of an answer of ``/api/generate`` or ``/api/chat``.

    ``prompt_eval_count`` counts cached tokens in, ``prompt_eval_duration`` only the time of the
    others, so their quotient is no speed. What is known of the cached ones is taken off.

    Args:
        arrivals: stamped bytes.
        shared_tokens: tokens that the prompt begins with as an earlier one did, and which the
            engine therefore has in its cache; None where that is not known.
    """
    reading = Reading()
    texts: list[str] = []
    thoughts: list[str] = []
    for t_ns, line in _lines(arrivals):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            reading.failure = Failure("malformed", f"a line is not JSON: {line[:80]!r}")
            break
        if said.get("error"):
            reading.events.append(Event(t_ns, "error", 0))
            reading.failure = Failure("stream_error", " ".join(str(said["error"]).split())[:500])
            break
        _read_line(reading, t_ns, said, texts, thoughts)
        if said.get("done") is True:
            _read_end(reading, t_ns, said, shared_tokens)
    reading.text = "".join(texts)
    reading.reasoning = "".join(thoughts)
    return reading


def _lines(arrivals: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    rest: list[bytes] = []
    for t_ns, piece in arrivals:
        rest.append(piece)
        if b"\n" not in piece:  # joined only when a line ends: a long line costs no more
            continue
        lines = b"".join(rest).split(b"\n")
        rest = [lines.pop()]
        yield from ((t_ns, line) for line in lines if line.strip())


def _read_line(
    reading: Reading, t_ns: int, said: dict[str, Any], texts: list[str], thoughts: list[str]
) -> None:
    message = said.get("message")
    holder = message if isinstance(message, dict) else said
    answer = holder.get("response") or holder.get("content")
    thought = holder.get("thinking")
    for kind, text, kept in (("reasoning", thought, thoughts), ("answer", answer, texts)):
        if isinstance(text, str) and text:
            size = len(text.encode("utf-8", "surrogatepass"))
            reading.events.append(Event(t_ns, kind, size))  # type: ignore[arg-type]
            kept.append(text)
    if not answer and not thought and not said.get("done"):
        reading.events.append(Event(t_ns, "empty", 0))


def _read_end(reading: Reading, t_ns: int, said: dict[str, Any], shared_tokens: int | None) -> None:
    reading.events.append(Event(t_ns, "done", 0))
    reading.finish_reason = str(said.get("done_reason") or "unknown")
    prompt_tokens = _count(said.get("prompt_eval_count"))
    # Newer versions tell it, and mean a 0.
    cached = _count(said.get("prompt_eval_cached_count"), least=0)
    known = cached if cached is not None else shared_tokens
    fresh = None if prompt_tokens is None or known is None else max(prompt_tokens - known, 0)
    decode_tokens = _count(said.get("eval_count"))
    reading.usage = Usage(prompt_tokens, decode_tokens, cached)
    reading.native = NativeTimings(
        prompt_tokens=fresh,
        prompt_s=_seconds(said.get("prompt_eval_duration")),
        decode_tokens=decode_tokens,
        decode_s=_seconds(said.get("eval_duration")),
        cached_tokens=cached,
        load_s=_seconds(said.get("load_duration")),
        total_s=_seconds(said.get("total_duration")),
    )


def _count(value: Any, *, least: int = 1) -> int | None:
    """Return a count; where Ollama has nothing to say it says 0 or leaves the field out."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and value >= least else None


def _seconds(value_ns: Any) -> float | None:
    count = _count(value_ns)
    return None if count is None else count / 1e9
