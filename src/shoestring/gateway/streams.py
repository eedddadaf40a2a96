"""Answers in parts, as engines send them: what is passed on, and what is seen on the way.

Server-sent events (OpenAI's way) and lines of JSON (Ollama's) are cut at their own borders, so
that nothing half is ever passed on and an error can still be told in the stream. Only parts that
may hold the first words, the counts of tokens, an error or the end are parsed; the rest goes
through by the byte.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PART_BYTES = 2**20
DONE = b"[DONE]"


class Used(NamedTuple):
    """Tokens as the engine counted them; None where it did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None


class BrokenStreamError(Exception):
    """What the engine sent is not what it promised; the message says what."""


class Stream(ABC):
    """One answer in parts.

    Attributes:
        answered: words of the answer have been seen.
        complete: its end has been seen; a stream that stops before is broken.
        used: tokens, once the engine told them.
        failure: what the engine said went wrong in the middle, or None.
    """

    content_type: ClassVar[str]
    _border: ClassVar[bytes]

    def __init__(self) -> None:
        self.answered = False
        self.complete = False
        self.used = Used()
        self.failure: str | None = None
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take what arrived and return what goes on to the client, cut at a border.

        Raises:
            BrokenStreamError: a part is no JSON or too long.
        """
        if self._rest:
            data = self._rest + data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(self._border)
        if end < 0:
            return self._keep(data)
        end += len(self._border)
        self._keep(data[end:])
        return self._pass(data[:end])

    @abstractmethod
    def _pass(self, parts: bytes) -> bytes:
        """Look at whole parts and return what goes on."""

    def _keep(self, rest: bytes) -> bytes:
        if len(rest) > MAX_PART_BYTES:
            raise BrokenStreamError(f"a part of the answer is over {MAX_PART_BYTES} bytes")
        self._rest = rest
        return b""


class EventStream(Stream):
    """OpenAI's way.

    Args:
        keep_usage: the client asked for the counts of tokens; else they are ours alone.
    """

    content_type = "text/event-stream"
    _border = b"\n\n"

    def __init__(self, *, keep_usage: bool) -> None:
        super().__init__()
        self._keep_usage = keep_usage

    def _pass(self, parts: bytes) -> bytes:
        if (
            self.answered
            and b'"usage"' not in parts
            and DONE not in parts
            and b'"error"' not in parts
        ):
            return parts
        return b"".join(event + b"\n\n" for event in parts.split(b"\n\n") if self._goes_on(event))

    def _goes_on(self, event: bytes) -> bool:
        payload = payload_of(event)
        if not payload:
            return bool(event.strip())
        if payload == DONE:
            self.complete = True
            return True
        return self._look(parse_part(payload))

    def _look(self, part: dict[str, Any]) -> bool:
        """Take from a part what is ours to know, and say whether it goes on."""
        if part.get("error"):
            self.failure = error_text(part["error"])
            return False  # told in our own words, once
        choices = part.get("choices") or []
        self.answered = self.answered or any(map(has_words, choices))
        if isinstance(part.get("usage"), dict):
            self.used = used_of(part["usage"])
            return bool(choices) or self._keep_usage
        return True


class LineStream(Stream):
    """Ollama's way: a line of JSON each, the last one says ``done``."""

    content_type = "application/x-ndjson"
    _border = b"\n"

    def _pass(self, parts: bytes) -> bytes:
        ends = b'"done":true' in parts or b'"done": true' in parts
        if self.answered and not ends and b'"error"' not in parts:
            return parts
        lines = [line for line in parts.split(b"\n") if line.strip()]
        return b"".join(line + b"\n" for line in lines if self._look(parse_part(line)))

    def _look(self, part: dict[str, Any]) -> bool:
        """Take from a line what is ours to know, and say whether it goes on."""
        if part.get("error"):
            self.failure = error_text(part["error"])
            return False  # told in our own words, once
        message = part.get("message")
        said = message if isinstance(message, dict) else part
        self.answered = self.answered or any(
            said.get(name) for name in ("content", "response", "thinking", "tool_calls")
        )
        if part.get("done") is True:
            self.complete = True
            self.used = used_of(part)
        return True


def payload_of(event: bytes) -> bytes:
    """Return the data of one server-sent event; empty: it has none."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[5:].strip()
    lines = (line for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line[5:].strip() for line in lines)


def parse_part(payload: bytes) -> dict[str, Any]:
    """Read one part of an answer.

    Raises:
        BrokenStreamError: it is no JSON object.
    """
    try:
        part = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BrokenStreamError(f"the engine sent no JSON: {payload[:80]!r}") from error
    if not isinstance(part, dict):
        raise BrokenStreamError(f"the engine sent no JSON object: {payload[:80]!r}")
    return part


def has_words(choice: Any) -> bool:
    """Whether a choice holds something of the answer: words, reasoning or a call."""
    if not isinstance(choice, dict):
        return False
    delta = choice.get("delta")
    said = delta if isinstance(delta, dict) else choice
    return any(
        said.get(name)
        for name in ("content", "text", "reasoning_content", "reasoning", "tool_calls")
    )


def first_choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first of an answer's choices; empty: it has none."""
    choice = next(iter(answer.get("choices") or []), None)
    return choice if isinstance(choice, dict) else {}


def used_of(counts: dict[str, Any]) -> Used:
    """Return the tokens that a usage object of OpenAI or a last line of Ollama names."""
    return Used(
        _count(counts.get("prompt_tokens", counts.get("prompt_eval_count"))),
        _count(counts.get("completion_tokens", counts.get("eval_count"))),
    )


def error_text(error: Any) -> str:
    """Return the message of an error as engines put it: a text, or an object with one."""
    text = error.get("message", error) if isinstance(error, dict) else error
    return str(text)[:500]


def _count(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if whole else None
