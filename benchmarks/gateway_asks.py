"""What the campaign's clients ask, and what they may get: the right words, or a clear error.

The known-truth server's answer is known beforehand: ``max_tokens`` words, ``w0 w1 ...``. Each kind
of request has an alias of its own, so that the server's log tells by the model who was let through.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway_servers import question
from load import CHAT

from shoestring.engines.http_engine import HttpRecording
from shoestring.engines.ollama_stream import read_ollama_stream
from shoestring.gateway.keys import KeyLimits
from shoestring.truth.schedule import EXAMPLE

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from load import Answer

    from shoestring.engines.protocol import Generation

REQUESTS_A_MINUTE, TOKENS_A_MINUTE, AT_ONCE = 40, 1500, 3
PROMPT = "one two three"
PROMPT_WORDS = 3
CACHED_QUESTIONS = 8
OVERSIZE_BYTES = 3 * 2**20
KEYS = {
    "free": KeyLimits(),
    "requests": KeyLimits(requests_per_minute=REQUESTS_A_MINUTE),
    "tokens": KeyLimits(tokens_per_minute=TOKENS_A_MINUTE),
    "concurrent": KeyLimits(concurrent=AT_ONCE),
    "cached-a": KeyLimits(),
    "cached-b": KeyLimits(),
}
"""The campaign's keys by their names."""
MODELS = {
    "free": "truth-ttft20-itl5-n300",
    "requests": "truth-ttft10-itl2-n301",
    "tokens": "truth-ttft10-itl2-n302",
    "concurrent": "truth-ttft50-itl10-n303",
    "cached-a": EXAMPLE,
    "cached-b": EXAMPLE,
}
"""What the server is asked for, by the alias that clients ask for. Only what it lists has a digest,
without which no answer is kept."""


@dataclass(frozen=True)
class Asked:
    """One request of the campaign.

    Attributes:
        kind: of :data:`KINDS`.
        key: by whose key, of :data:`KEYS`; empty: without one; ``wrong``: by one that nobody has.
        path: of the gateway.
        body: JSON, or what pretends to be.
        words: the right answer; None: it has to be refused.
        leave_after: the client leaves after so many pieces.
        method: of HTTP.
    """

    kind: str
    key: str
    path: str
    body: dict[str, Any] | bytes
    words: str | None
    leave_after: int | None = None
    method: str = "POST"

    @property
    def stream(self) -> bool:
        """Whether the answer comes in parts."""
        return isinstance(self.body, dict) and bool(self.body.get("stream"))


@dataclass(frozen=True)
class Verdict:
    """What became of a request.

    ``outcome`` is ``answered``, ``refused``, ``stream error`` (told inside the stream), ``left``,
    or what must not be: ``wrong``, ``cut``, ``no answer``, ``hang``.
    """

    outcome: str
    detail: str = ""


def words_of(count: int) -> str:
    """Return the first words of every answer."""
    return "".join(f"w{number} " for number in range(count))


def _chat(kind: str, key: str, count: int, *, stream: bool, **more: Any) -> Asked:
    body = {**question(key, PROMPT, stream=stream), "max_tokens": count, **more}
    return Asked(kind, key, CHAT, body, words_of(count))


def _completion(draw: random.Random) -> Asked:
    count = draw.randint(1, 24)
    body = {"model": "free", "prompt": PROMPT, "max_tokens": count, "stream": True,
            "stream_options": {"include_usage": True}}  # fmt: skip
    return Asked("completion", "free", "/v1/completions", body, words_of(count))


def _ollama(draw: random.Random) -> Asked:
    count = draw.randint(1, 24)
    messages = [{"role": "user", "content": PROMPT}]
    body = {
        "model": "free",
        "messages": messages,
        "stream": True,
        "options": {"num_predict": count},
    }
    return Asked("ollama", "free", "/api/chat", body, words_of(count))


def _leave(draw: random.Random) -> Asked:
    body = {**question("free", PROMPT, stream=True), "max_tokens": 200}
    return Asked("leave", "free", CHAT, body, words_of(200), leave_after=draw.randint(1, 6))


def _cached(draw: random.Random) -> Asked:
    key, most = draw.choice((("cached-a", 2), ("cached-b", 2 + CACHED_QUESTIONS)))
    number, stream = draw.randint(1, CACHED_QUESTIONS), draw.random() < 0.5
    # The count is part of the question: an answer of another one, or of another key's, is seen.
    return _chat("cached", key, most + number, stream=stream, temperature=0)


def _bad(draw: random.Random) -> Asked:
    good = question("free", PROMPT, stream=False)
    forms: list[tuple[str, str, dict[str, Any] | bytes, str]] = [
        ("free", CHAT, b'{"model": "free", ', "POST"),
        ("free", CHAT, b"[]", "POST"),
        ("free", CHAT, b"\xff\xfe{}", "POST"),
        ("free", CHAT, b'{"a":' * 20_000, "POST"),
        ("free", CHAT, {"model": "free"}, "POST"),
        ("free", CHAT, {**good, "model": "../../etc/passwd"}, "POST"),
        ("free", CHAT, {**good, "max_tokens": "many"}, "POST"),
        ("free", CHAT, {**good, "stream": "perhaps"}, "POST"),
        ("free", CHAT, {**good, "pad": "x" * OVERSIZE_BYTES}, "POST"),
        ("free", "/v1/no-such-path", good, "POST"),
        ("free", CHAT, b"", "GET"),
        ("wrong", CHAT, good, "POST"),
        ("", CHAT, good, "POST"),
    ]
    key, path, body, method = draw.choice(forms)
    return Asked("bad", key, path, body, None, method=method)


KINDS: dict[str, tuple[int, Callable[[random.Random], Asked]]] = {
    "stream": (6, lambda draw: _chat("stream", "free", draw.randint(1, 24), stream=True)),
    "whole": (4, lambda draw: _chat("whole", "free", draw.randint(1, 24), stream=False)),
    "completion": (2, _completion),
    "ollama": (2, _ollama),
    "leave": (2, _leave),
    "cached": (5, _cached),
    "requests": (4, lambda draw: _chat("requests", "requests", draw.randint(1, 8), stream=True)),
    "tokens": (4, lambda draw: _chat("tokens", "tokens", draw.randint(10, 40), stream=True)),
    "concurrent": (
        4,
        lambda draw: _chat("concurrent", "concurrent", draw.randint(20, 40), stream=True),
    ),
    "bad": (2, _bad),
}
"""How often each kind comes, and how one of it is made."""


def draw_ask(draw: random.Random) -> Asked:
    """Return the next request of a client."""
    kinds = list(KINDS)
    kind = draw.choices(kinds, [KINDS[name][0] for name in kinds])[0]
    return KINDS[kind][1](draw)


def judge_answer(asked: Asked, answer: Answer) -> Verdict:
    """Say what became of a request; nothing is excused here."""
    failure = answer.exchange.failure
    if failure is not None and failure.reason == "deadline":
        return Verdict("hang", failure.detail)
    if answer.status is None:
        return Verdict("no answer", failure.detail if failure else "")
    if answer.status != 200:
        return _judge_refusal(asked, answer)
    if asked.words is None:
        return Verdict("wrong", f"not refused: {asked.method} {asked.path} {str(asked.body)[:80]}")
    if asked.leave_after is not None and failure is None:
        return Verdict("left")
    return _judge_stream(asked, answer) if asked.stream else _judge_whole(asked, answer)


def _judge_refusal(asked: Asked, answer: Answer) -> Verdict:
    if answer.exchange.failure is not None and answer.exchange.failure.reason == "reset":
        return Verdict("cut", f"in the middle of an error: {answer.exchange.failure.detail}")
    said = answer.parsed()
    error = said.get("error") if isinstance(said, dict) else None
    if asked.path.startswith("/api/"):
        clear = isinstance(error, str) and bool(error)
        code = ""
    else:
        clear = isinstance(error, dict) and {"message", "type", "code"} <= error.keys()
        code = str(error.get("code")) if isinstance(error, dict) else ""
    told = f"{answer.status} {code}".strip()
    if not clear:
        return Verdict("wrong", f"unclear error {told}: {answer.body[:200]!r}")
    if asked.words is None and (answer.status or 0) >= 500:
        return Verdict("wrong", f"a bad request is answered by {told}")
    return Verdict("refused", told)


def _judge_stream(asked: Asked, answer: Answer) -> Verdict:
    made = _read(asked, answer)
    words = asked.words or ""
    if not words.startswith(made.text):
        return Verdict("wrong", f"{made.text[:80]!r} is not in {words[:80]!r}")
    if made.failure is not None:
        told = {"stream_error": "stream error", "reset": "cut", "no_final_event": "cut"}
        return Verdict(told.get(made.failure.reason, "wrong"), made.failure.detail)
    counted = made.usage.completion_tokens if made.usage else None
    expected = len(words.split())
    if made.text != words or (counted != expected and asked.path != "/api/chat"):
        return Verdict("wrong", f"{len(made.text.split())} words, {counted} counted, of {expected}")
    return Verdict("answered", answer.headers.get("x-cache", ""))


def _judge_whole(asked: Asked, answer: Answer) -> Verdict:
    failure = answer.exchange.failure
    if failure is not None:
        return Verdict("cut", failure.detail)
    said = answer.parsed()
    try:
        text = said["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return Verdict("wrong", f"no answer's shape: {answer.body[:200]!r}")
    if text != asked.words:
        return Verdict("wrong", f"{text[:80]!r} instead of {str(asked.words)[:80]!r}")
    return Verdict("answered", answer.headers.get("x-cache", ""))


def _read(asked: Asked, answer: Answer) -> Generation:
    if asked.path != "/api/chat":
        return answer.read()
    sent_ns = answer.exchange.sent_ns or answer.exchange.end_ns
    reader = partial(read_ollama_stream, shared_tokens=None)
    return HttpRecording(answer.exchange, sent_ns, reader, "application/x-ndjson").read()
