"""An answer that outlives its engine: what was said of it, and how another engine goes on.

Each event of llama-server's stream is read on its way. When the stream breaks off, the next engine
is asked *on*: for chat with what was said as the last message, which llama-server continues (and
says again first); for completions with what was said behind the prompt. Where that cannot be, it
is asked *again*, the same question, and must say the same as far as it was heard. Either way what
was said already is passed over, so that one text goes out.

What llama-server withholds (half a character, what may become a stop string) was not said: the
next engine says it anew, so a stop string across the join stops.

Measured on llama-server of llama.cpp 0.3.36: docs/swarm-answers.md.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from shoestring.swarm.questions import LIMITS, messages_before, token_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoestring.swarm.questions import Json, Shape

Key = tuple[str, int]
DONE: Final = b"[DONE]"
MOST_IN_VAIN: Final = 3
"""An answer at which so many engines ended one after another without a new word is given up."""


class LostAnswerError(Exception):
    """The answer cannot be continued; the message says why."""


class Answer:
    """One answer over one or more engines.

    Args:
        shape: of the question.
        body: of it.

    Attributes:
        complete: its end has come.
        error: what ended it in the engine's words; None: it ended by itself.
        ended_early: it was continued after its last token: nothing more is to be said.
        said_tokens: of what was said, as the next engine counts them; set before it is asked on.
    """

    def __init__(self, shape: Shape, body: Json) -> None:
        self.complete = False
        self.error: str | None = None
        self.said_tokens = 0
        self._shape, self._body = shape, body
        self._said: dict[Key, str] = {}
        self._owed: dict[Key, str] = {}
        self._first: Json | None = None
        self._last: Json | None = None
        self._usage: Json | None = None
        self._held: list[bytes] = []
        self._joined = self._on = self._is_spent = False
        self._in_vain = 0
        self._heard_new = False

    @property
    def text(self) -> str:
        """All that was said, thoughts first."""
        return self._said.get(("reasoning_content", 0), "") + self._content

    @property
    def made(self) -> str:
        """Of that what engines made, where it goes on: a client may have begun it itself."""
        if self._shape.kind != "chat":
            return self.text
        last = self._body["messages"][-1]
        return self.text.removeprefix(last["content"] if last.get("role") == "assistant" else "")

    @property
    def goes_on(self) -> bool:
        """Whether the next engine is asked on, not again."""
        return self._on

    def break_off(self, why: str) -> None:
        """The engine is lost; what it has begun to end is forgotten.

        Raises:
            LostAnswerError: no other engine can go on.
        """
        self._in_vain = 0 if self._heard_new else self._in_vain + 1
        self._heard_new = False
        if self._in_vain >= MOST_IN_VAIN:
            raise LostAnswerError(f"{why}; {MOST_IN_VAIN} times without a new word")
        if self._first is not None and not self._shape.single:
            raise LostAnswerError(f"{why}; several answers at once cannot be continued")
        self._held.clear()
        self._last = self._usage = None
        self._joined = self._first is not None
        tools = any(name not in {"content", "reasoning_content"} for name, _ in self._said)
        self._on = self._shape.plain and bool(self.text) and not tools
        again_first = self._shape.kind == "chat" or not self._on
        self._owed = dict(self._said) if again_first else {}
        if self._on and self._content:
            self._owed.pop(("reasoning_content", 0), None)  # its borders may be said otherwise

    def question(self) -> Json:
        """Return what the next engine is asked; always in parts."""
        asked = {**self._body, "stream": True}
        if not self._shape.streamed and self._shape.kind != "native":
            asked["stream_options"] = {"include_usage": True}
        if not self._on:
            return asked
        if self._shape.kind == "chat":
            messages = [*(messages_before(self._body) or ()), self._said_message()]
            asked["messages"] = messages
        else:
            prompt = self._body.get("prompt", "")
            is_list = isinstance(prompt, list)
            asked["prompt"] = [*prompt, self.text] if is_list else f"{prompt}{self.text}"
        limit = token_limit(self._body)
        if limit is not None:
            self._is_spent = self.said_tokens >= limit
            for name in LIMITS:
                asked.pop(name, None)
            # 0 is no limit to some versions: one more is asked for, and let go.
            asked["n_predict"] = max(1, limit - self.said_tokens)
        return asked

    def hear(self, event: bytes) -> list[bytes]:
        """Take one event of the stream, without its empty line; return those that go out.

        Raises:
            LostAnswerError: it is not what was said before, or nothing that can be read.
        """
        payload = b"".join(
            line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")
        )
        if not payload:
            return [event]  # a comment
        if payload == DONE:
            return self._end(event)
        chunk = _parsed(payload)
        if error := chunk.get("error"):
            self.complete = True
            self.error = str(error.get("message", error) if isinstance(error, dict) else error)
            return [*self._release(), event]
        fresh = self._take(chunk)
        if self._first is None:
            self._first = chunk
        elif self._joined:
            return self._pass_on(chunk, event, fresh=fresh)
        return self._keep_or_tell(chunk, event, fresh=fresh)

    def whole(self) -> Json:
        """Return an answer that ended by itself in one piece, as llama-server words it."""
        assert self._last is not None, "it is complete, without an error"
        if self._shape.kind == "native":
            settings = {**self._last.get("generation_settings", {}), "stream": False}
            return {**self._last, "content": self._content, "generation_settings": settings}
        choice = dict(self._last["choices"][0])
        if self._shape.kind == "text":
            choice["text"] = self._content
        else:
            choice.pop("delta", None)
            message = {"role": "assistant", "content": self._content}
            if thoughts := self._said.get(("reasoning_content", 0)):
                message["reasoning_content"] = thoughts
            choice["message"] = message
        made = {**self._last, **(self._usage or {}), "choices": [choice]}
        if self._shape.kind == "chat":
            made["object"] = "chat.completion"
        return made

    @property
    def _content(self) -> str:
        return self._said.get(("content", 0), "")

    def _said_message(self) -> Json:
        message = {"role": "assistant", "content": self._content}
        if thoughts := self._said.get(("reasoning_content", 0)):
            message["reasoning_content"] = thoughts
        return message

    def _take(self, chunk: Json) -> bool:
        """Add what is new of a chunk to what was said; what was said before is cut from it."""
        fresh = False
        for key, where, name in _pieces(chunk):
            text = where[name]
            if self._is_spent or (
                self._on and key[0] == "reasoning_content" and self._said.get(("content", 0))
            ):
                where[name] = ""
                continue
            owed = self._owed.get(key, "")
            count = min(len(owed), len(text))
            if owed[:count] != text[:count]:
                raise LostAnswerError("asked again, the next engine answers otherwise")
            self._owed[key] = owed[count:]
            where[name] = text[count:]
            self._said[key] = self._said.get(key, "") + text[count:]
            fresh = fresh or count < len(text)
        self._heard_new = self._heard_new or fresh
        return fresh

    def _pass_on(self, chunk: Json, event: bytes, *, fresh: bool) -> list[bytes]:
        """Make an event of a later engine one of the first's; drop what only begins."""
        assert self._first is not None
        ends = _is_end(chunk)
        if not (fresh or ends or chunk.get("usage")):
            return []
        if ends and any(self._owed.values()) and not self._is_spent:
            raise LostAnswerError("asked again, the next engine ends before")
        for name in ("id", "created", "system_fingerprint"):
            if name in self._first:
                chunk[name] = self._first[name]
        _drop_old_calls(chunk)
        chunk.pop("timings", None)  # they are of a part
        chunk.pop("prompt_progress", None)
        if ends and self._is_spent:
            _end_by_length(chunk)
        if self._on:
            self._count(chunk)
        event = b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()
        return self._keep_or_tell(chunk, event, fresh=fresh)

    def _keep_or_tell(self, chunk: Json, event: bytes, *, fresh: bool) -> list[bytes]:
        """Hold an end back until it is whole: before, the next engine could tell another."""
        ends = _is_end(chunk)
        if ends:
            self._last = chunk
        if isinstance(chunk.get("usage"), dict):
            self._usage = {name: chunk[name] for name in ("usage", "timings") if name in chunk}
        if self._shape.kind == "native" and ends:
            return self._end(event)
        if fresh:
            return [*self._release(), event]
        if self._last is None:
            return [event]
        self._held.append(event)
        return []

    def _end(self, event: bytes) -> list[bytes]:
        if self._last is None:
            raise LostAnswerError("the stream says that it is done, and gave no reason")
        self.complete = True
        return [*self._release(), event]

    def _release(self) -> list[bytes]:
        held, self._held = self._held, []
        return held

    def _count(self, chunk: Json) -> None:
        """Count what earlier engines said with the answer, not with the prompt."""
        said = self.said_tokens
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            made = 0 if self._is_spent else usage["completion_tokens"]
            usage["completion_tokens"] = said + made
            usage["prompt_tokens"] -= said
            usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
            usage.pop("prompt_tokens_details", None)  # of the prompt with what was said
        if "tokens_predicted" in chunk:
            made = 0 if self._is_spent else chunk["tokens_predicted"]
            chunk["tokens_predicted"] = said + made
            chunk["tokens_evaluated"] -= said
        if isinstance(chunk.get("prompt"), str):
            chunk["prompt"] = chunk["prompt"].removesuffix(self.text)


def _pieces(chunk: Json) -> Iterator[tuple[Key, Json, str]]:
    """Yield where a chunk has text: a name of it, the object it is in, and its field there."""
    if isinstance(chunk.get("content"), str):
        yield ("content", 0), chunk, "content"
    for choice in chunk.get("choices") or ():
        number = choice.get("index", 0)
        if isinstance(choice.get("text"), str):
            yield ("content", number), choice, "text"
        delta = choice.get("delta") or {}
        for name in ("reasoning_content", "content"):
            if isinstance(delta.get(name), str):
                yield (name, number), delta, name
        for call in delta.get("tool_calls") or ():
            for name in ("name", "arguments"):
                if isinstance(call.get("function", {}).get(name), str):
                    yield (f"{name} of call {call.get('index')}", number), call["function"], name


def _drop_old_calls(chunk: Json) -> None:
    """Leave of calls that were begun before what is new: a call is named once."""
    for choice in chunk.get("choices") or ():
        for call in (choice.get("delta") or {}).get("tool_calls") or ():
            if call.get("function", {}).get("name") == "":
                call["function"].pop("name")
                call.pop("id", None)
                call.pop("type", None)


def _is_end(chunk: Json) -> bool:
    if chunk.get("stop") is True:
        return True
    return any(choice.get("finish_reason") for choice in chunk.get("choices") or ())


def _end_by_length(chunk: Json) -> None:
    if "stop_type" in chunk:
        chunk["stop_type"], chunk["stopping_word"] = "limit", ""
    for choice in chunk.get("choices") or ():
        choice["finish_reason"] = "length"


def _parsed(payload: bytes) -> Json:
    try:
        chunk = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise LostAnswerError(f"an event is not JSON: {payload[:80]!r}") from error
    if not isinstance(chunk, dict):
        raise LostAnswerError(f"an event is no object: {payload[:80]!r}")
    return chunk
