"""What is written to the wire for one request, byte for byte, and when.

An answer is a lazy sequence of :class:`Write`; nothing here has a socket or a clock.
Each chunk ends with ``"truth": {..., "sent_ns": N}}``. Only N is unknown before the write, so a
write is kept as the pieces around it, and N is filled in 20 columns wide (JSON allows the spaces):
the length is known, and nothing but one join stands between reading the clock and ``send``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shoestring.truth.asks import Ask

STAMP_BYTES = 20
# Long enough that the two halves of a cut character are not read at once.
SPLIT_NS = 1_000_000
SPLIT_CHARACTER = "😀"
BAD_JSON = b'data: {"choices": [{"delta": {"content": "cut\n\n'
COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
_JSON_FIELDS = "Content-Type: application/json\r\nContent-Length: %d\r\n"
_STREAM_FIELDS = (
    "Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n"
)


@dataclass(frozen=True)
class Halt:
    """The answer does not go on: after ``due_ns`` reset the connection, or be silent for ever."""

    due_ns: int
    reset: bool


@dataclass(frozen=True)
class Write:
    """Bytes that leave in one send.

    Attributes:
        due_ns: monotonic time before which they must not leave.
        pieces: the bytes; between each two of them the stamp is filled in.
        tokens: how many tokens they carry.
        final: with them the answer is whole.
    """

    due_ns: int
    pieces: tuple[bytes, ...]
    tokens: int = 0
    final: bool = False

    def fill(self, sent_ns: int) -> bytes:
        """Return the bytes with their stamp."""
        return (b"%*d" % (STAMP_BYTES, sent_ns)).join(self.pieces)


Step = Write | Halt


def plan_answer(ask: Ask) -> Iterator[Step]:
    """Yield what is to be written for a request, in order, built as late as possible."""
    schedule = ask.schedule
    head_due_ns = ask.received_ns + schedule.slowheaders
    if schedule.http is not None:
        message = f"the model's name asks for status {schedule.http}"
        yield Write(head_due_ns, (format_error(schedule.http, message),))
    elif ask.stream:
        head = _head(200, _STREAM_FIELDS, keep_alive=schedule.falsekeepalive)
        yield Write(head_due_ns, (head,))
        yield from _plan_body(ask)
    else:
        yield from _plan_whole(ask, head_due_ns)


def format_error(status: int, message: str) -> bytes:
    """Return a whole HTTP response that carries an error object."""
    return format_object(_error(status, message), status)


def format_object(value: dict[str, Any], status: int = 200) -> bytes:
    """Return a whole HTTP response that carries a JSON object."""
    body = json.dumps(value).encode()
    return _head(status, _JSON_FIELDS % len(body), keep_alive=False) + body


def _plan_body(ask: Ask) -> Iterator[Step]:
    """Yield the events, framed as HTTP chunks, and the end of the body."""
    for event in _coalesce(_plan_events(ask), ask.schedule.coalesce):
        if isinstance(event, Halt):
            yield event
            return
        halves = _split(event) if ask.schedule.utf8 and event.tokens else (event,)
        yield from map(_frame, halves)
    yield Write(0, (b"0\r\n\r\n",))


def _plan_events(ask: Ask) -> Iterator[Step]:
    """Yield the events as bare SSE text."""
    stop, ending = ask.schedule.ending(ask.tokens)
    yield from _plan_start(ask)
    yield from _plan_tokens(ask, stop)
    end_due_ns = ask.received_ns + ask.schedule.end_due_ns(stop)
    if ask.schedule.badjson == stop:
        yield Write(end_due_ns, (BAD_JSON,))
    if ending in ("stall", "reset"):
        yield Halt(end_due_ns, reset=ending == "reset")
    elif ending == "error":
        yield _event(ask, end_due_ns, _asked_error(stop))
    elif ending == "length":
        yield from _plan_finish(ask, end_due_ns)


def _plan_start(ask: Ask) -> Iterator[Write]:
    schedule, received_ns = ask.schedule, ask.received_ns
    if schedule.role:
        choice = {"index": 0, "delta": {"role": "assistant", "content": None}}
        yield _event(ask, received_ns, {"choices": [{**choice, "finish_reason": None}]})
    for number in range(schedule.empty):
        due_ns = received_ns + schedule.ttft_ns * (number + 1) // (schedule.empty + 1)
        yield _event(ask, due_ns, {"choices": [_text_choice(ask, "")]})


def _plan_tokens(ask: Ask, stop: int) -> Iterator[Write]:
    """Yield the chunks of tokens; a fault or the end of the reasoning cuts a pack short."""
    schedule = ask.schedule
    marks = (schedule.stall, schedule.badjson, schedule.reasoning)
    cuts = {*range(0, stop, schedule.pack), *(mark for mark in marks if mark and mark < stop), stop}
    previous_ns = None
    for first, end in pairwise(sorted(cuts)):
        due_ns = ask.received_ns + schedule.due_ns(first)
        if schedule.badjson == first:
            yield Write(due_ns, (BAD_JSON,))
        if schedule.keepalive and previous_ns is not None:
            yield Write((previous_ns + due_ns) // 2, (COMMENT,))
        previous_ns = due_ns
        key = "reasoning_content" if first < schedule.reasoning else "content"
        value = {"choices": [_text_choice(ask, _words(ask, first, end), key)]}
        yield _event(ask, due_ns, value, index=first, tokens=end - first)


def _plan_finish(ask: Ask, due_ns: int) -> Iterator[Write]:
    text: dict[str, Any] = {"delta": {}} if ask.chat else {"text": ""}
    finish = {"choices": [{"index": 0, **text, "finish_reason": "length"}]}
    if ask.schedule.usageinfinish:
        finish["usage"] = _usage(ask)  # type: ignore[assignment]
    yield _event(ask, due_ns, finish)
    if ask.include_usage and not (ask.schedule.nousage or ask.schedule.usageinfinish):
        yield _event(ask, due_ns, {"choices": [], "usage": _usage(ask)})
    yield Write(due_ns, (DONE,), final=True)


def _plan_whole(ask: Ask, head_due_ns: int) -> Iterator[Step]:
    """Yield a response that is one JSON object, sent when its last token is due."""
    schedule = ask.schedule
    stop, ending = schedule.ending(ask.tokens)
    due_ns = max(head_due_ns, ask.received_ns + schedule.end_due_ns(stop))
    if ending in ("stall", "reset"):
        yield Halt(due_ns, reset=ending == "reset")
        return
    body: tuple[bytes, ...]
    if ending == "error":
        body = _stamped(ask, due_ns, _asked_error(stop), None, 0)
    elif schedule.badjson is not None and schedule.badjson <= stop:
        body = (BAD_JSON.removeprefix(b"data: "),)
    else:
        body = _stamped(ask, due_ns, _whole_value(ask), 0, ask.tokens)
    length = sum(map(len, body)) + STAMP_BYTES * (len(body) - 1)
    head = _head(200, _JSON_FIELDS % length, keep_alive=schedule.falsekeepalive)
    final = ending == "length" and len(body) > 1
    yield Write(due_ns, (head + body[0], *body[1:]), tokens=ask.tokens if final else 0, final=final)


def _whole_value(ask: Ask) -> dict[str, Any]:
    split = min(ask.schedule.reasoning, ask.tokens)
    text = _words(ask, split, ask.tokens)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if split:
        message["reasoning_content"] = _words(ask, 0, split)
    reason = None if ask.schedule.nofinal else "length"
    choice = {"index": 0, **({"message": message} if ask.chat else {"text": text})}
    value: dict[str, Any] = {"choices": [{**choice, "finish_reason": reason}]}
    if not ask.schedule.nousage:
        value["usage"] = _usage(ask)
    return value


def _text_choice(ask: Ask, text: str, key: str = "content") -> dict[str, Any]:
    body: dict[str, Any] = {"delta": {key: text}} if ask.chat else {"text": text}
    return {"index": 0, **body, "finish_reason": None}


def _words(ask: Ask, first: int, end: int) -> str:
    mark = SPLIT_CHARACTER if ask.schedule.utf8 else ""
    return "".join(f"w{index}{mark} " for index in range(first, end))


def _usage(ask: Ask) -> dict[str, Any]:
    return {
        "prompt_tokens": ask.prompt_tokens,
        "completion_tokens": ask.tokens,
        "total_tokens": ask.prompt_tokens + ask.tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _asked_error(sent_tokens: int) -> dict[str, Any]:
    return _error(500, f"the model's name asks for an error after {sent_tokens} tokens")


def _error(status: int, message: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    return {"error": {"message": message, "type": kind, "code": status}}


def _event(
    ask: Ask, due_ns: int, value: dict[str, Any], *, index: int | None = None, tokens: int = 0
) -> Write:
    before, after = _stamped(ask, due_ns, value, index, tokens)
    return Write(due_ns, (b"data: " + before, after + b"\n\n"), tokens)


def _stamped(
    ask: Ask, due_ns: int, value: dict[str, Any], index: int | None, tokens: int
) -> tuple[bytes, bytes]:
    """Return the JSON of a chunk before and after the place of its stamp."""
    kind = "chat.completion" if ask.chat else "text_completion"
    named = {
        "id": f"truth-{ask.received_ns}",
        "object": kind + (".chunk" if ask.stream and ask.chat else ""),
        "created": ask.created_s,
        "model": ask.model,
        **value,
        "truth": {
            "index": index,
            "tokens": tokens,
            "due_ns": due_ns,
            "received_ns": ask.received_ns,
        },
    }
    text = json.dumps(named, ensure_ascii=False, separators=(",", ":")).encode()
    return text.removesuffix(b"}}") + b',"sent_ns":', b"}}"


def _coalesce(events: Iterable[Step], size: int) -> Iterator[Step]:
    """Join each ``size`` events into one; what halts the answer ends a group."""
    held: list[Write] = []
    for event in events:
        if isinstance(event, Halt):
            yield from _join(held)
            yield event
            return
        held.append(event)
        if len(held) == size:
            yield from _join(held)
            held = []
    yield from _join(held)


def _join(writes: list[Write]) -> Iterator[Write]:
    if not writes:
        return
    pieces = writes[0].pieces
    for write in writes[1:]:
        pieces = (*pieces[:-1], pieces[-1] + write.pieces[0], *write.pieces[1:])
    due_ns = max(write.due_ns for write in writes)
    tokens = sum(write.tokens for write in writes)
    yield Write(due_ns, pieces, tokens, final=writes[-1].final)


def _split(event: Write) -> tuple[Write, Write]:
    """Cut an event inside its first multi-byte character; the stamp goes with the second half."""
    first = event.pieces[0]
    middle = first.index(SPLIT_CHARACTER.encode()) + 2
    rest = (first[middle:], *event.pieces[1:])
    return (
        Write(event.due_ns, (first[:middle],)),
        Write(event.due_ns + SPLIT_NS, rest, event.tokens, event.final),
    )


def _frame(write: Write) -> Write:
    """Make the bytes one HTTP chunk."""
    first, *rest = write.pieces
    length = sum(map(len, write.pieces)) + STAMP_BYTES * len(rest)
    framed = [b"%x\r\n" % length + first, *rest]
    framed[-1] += b"\r\n"
    return replace(write, pieces=tuple(framed))


def _head(status: int, fields: str, *, keep_alive: bool) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unnamed"
    kept = "Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n"
    connection = kept if keep_alive else "Connection: close\r\n"
    return f"HTTP/1.1 {status} {phrase}\r\n{fields}{connection}\r\n".encode()
