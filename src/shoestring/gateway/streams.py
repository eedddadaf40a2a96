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

from shoestring.gateway.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PART_BYTES = 2**20
MAX_COUNT = 10**9
"""Of tokens; what an engine says beyond it is no count."""
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
        broken: how what came is not what was promised, or None.
    """

    content_type: ClassVar[str]
    _border: ClassVar[bytes]

    def __init__(self) -> None:
        self.answered = False
        self.complete = False
        self.used = Used()
        self.failure: str | None = None
        self.broken: str | None = None
        self._rest = b""

    @property
    def ended(self) -> bool:
        """Nothing that comes now belongs to the answer."""
        return self.complete or self.failure is not None or self.broken is not None

    def count_parts(self, out: bytes) -> int:
        """Return how many parts went out: about as many tokens, where the engine counts none."""
        return max(1, out.count(self._border))

    def feed(self, data: bytes) -> bytes:
        """Take what arrived and return what goes on to the client, cut at a border."""
        if self._rest:
            data = self._rest + data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        whole, border, self._rest = data.rpartition(self._border)
        told = self._pass(whole + border) if border else b""
        if not self.ended and len(self._rest) > MAX_PART_BYTES:
            self.broken = f"a part of the answer is over {MAX_PART_BYTES} bytes"
        return told

    def _pass(self, parts: bytes) -> bytes:
        """Look at whole parts and return what goes on, up to the end or to what is wrong."""
        if not self._matters(parts):
            return parts
        told = []
        try:
            for part in parts.split(self._border):
                if self.ended:
                    break
                if part.strip():
                    told.append(self._tell(part) if self._matters(part) else part + self._border)
        except BrokenStreamError as error:
            self.broken = str(error)
        return b"".join(told)

    @abstractmethod
    def _matters(self, data: bytes) -> bool:
        """Whether it may hold what has to be seen."""

    @abstractmethod
    def _tell(self, part: bytes) -> bytes:
        """Look at one part and return what goes on of it.

        Raises:
            BrokenStreamError: it is not what it should be.
        """


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

    def _matters(self, data: bytes) -> bool:
        return not self.answered or b'"usage"' in data or DONE in data or b'"error"' in data

    def _tell(self, part: bytes) -> bytes:
        payload = payload_of(part)
        self.complete = payload == DONE
        goes_on = not payload or self.complete or self._look(parse_part(payload))
        return part + self._border if goes_on else b""

    def _look(self, part: dict[str, Any]) -> bool:
        """Take from a part what is ours to know, and say whether it goes on."""
        if part.get("error"):
            self.failure = error_text(part["error"])
            return False  # told in our own words, once
        choices = list_of(part.get("choices"))
        self.answered = self.answered or any(map(has_words, choices))
        if isinstance(part.get("usage"), dict):
            self.used = used_of(part["usage"])
            return bool(choices) or self._keep_usage
        return True


class LineStream(Stream):
    """Ollama's way: a line of JSON each, the last one says ``done``."""

    content_type = "application/x-ndjson"
    _border = b"\n"

    def _matters(self, data: bytes) -> bool:
        ends = b'"done":true' in data or b'"done": true' in data
        return not self.answered or ends or b'"error"' in data

    def _tell(self, part: bytes) -> bytes:
        return part + self._border if self._look(parse_part(part)) else b""

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
        part = parse_json(payload)
    except ValueError as error:
        raise BrokenStreamError(f"the engine sent no JSON: {payload[:80]!r}") from error
    if not isinstance(part, dict):
        raise BrokenStreamError(f"the engine sent no JSON object: {payload[:80]!r}")
    return part


def parse_answer(data: bytes) -> dict[str, Any]:
    """Read a whole answer.

    Raises:
        BrokenStreamError: it is no JSON object.
        Refusal: it is an error, whatever its status said.
    """
    answer = parse_part(data)
    if answer.get("error"):
        raise Refusal(502, "engine_error", f"the engine failed: {error_text(answer['error'])}")
    return answer


def parse_json(text: bytes | str) -> Any:
    """Read what an engine sent.

    Raises:
        ValueError: it is no JSON, has a number that JSON has not, or is too deep.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("too deep") from error


def dump_json(value: Mapping[str, Any]) -> bytes:
    """Write what was made of an engine's answer; halves of characters become question marks.

    Raises:
        BrokenStreamError: it holds a number that JSON has not, or is too deep.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise BrokenStreamError(f"the engine sent what is no JSON: {error}") from error
    return text.encode("utf-8", "replace")


def list_of(value: Any) -> list[Any]:
    """Return a list as it is; empty: it is none."""
    return value if isinstance(value, list) else []


def dict_of(value: Any) -> dict[str, Any]:
    """Return an object as it is; empty: it is none."""
    return value if isinstance(value, dict) else {}


def text_of(value: Any) -> str:
    """Return a text as it is; empty: it is none."""
    return value if isinstance(value, str) else ""


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
    return dict_of(next(iter(list_of(answer.get("choices"))), None))


def used_of(usage: Any) -> Used:
    """Return the tokens that a usage object of OpenAI or a last line of Ollama names."""
    counts = dict_of(usage)
    return Used(
        _count(counts.get("prompt_tokens", counts.get("prompt_eval_count"))),
        _count(counts.get("completion_tokens", counts.get("eval_count"))),
    )


def error_text(error: Any) -> str:
    """Return the message of an error as engines put it: a text, or an object with one."""
    text = error.get("message", error) if isinstance(error, dict) else error
    return str(text).encode("utf-8", "replace").decode()[:500]


def _count(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= MAX_COUNT else None


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
