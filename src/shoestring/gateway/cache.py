"""Answers that were given before: which requests may share one, and where they are kept.

Three questions, each with one function or class: does a request always get the same answer
(:func:`is_deterministic`), which requests are the same (:func:`fingerprint`), and what is kept
for how long (:class:`MemoryCache`; across replicas :mod:`cache_redis`). Why each rule is as it
is: ``docs/gateway-cache.md``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from shoestring.gateway.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = 1
"""Part of each fingerprint; raise it when the rules change, and no old answer is found."""
ENTRY_BYTES = 1024
"""Counted for each entry beside its chunks: its key, its fields and its place in the index."""

EMBEDDING_PATHS = frozenset({"/v1/embeddings", "/api/embed"})
OPENAI_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/generate"})
OLLAMA_PATHS = frozenset({"/api/chat", "/api/generate"})
OPENAI_FIELDS = frozenset({
    "model", "messages", "prompt", "suffix", "stream", "stream_options", "user", "n", "seed",
    "stop", "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens",
    "presence_penalty", "frequency_penalty", "repeat_penalty", "logit_bias", "response_format",
    "reasoning_effort", "chat_template_kwargs",
})  # fmt: skip
"""Fields that leave no chance in an answer at temperature 0; no other is known to."""
OLLAMA_FIELDS = frozenset({
    "model", "messages", "prompt", "suffix", "system", "template", "raw", "images", "format",
    "stream", "think", "options",
})  # fmt: skip
OLLAMA_OPTIONS = frozenset({
    "temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "stop", "num_predict",
    "num_ctx", "repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty",
})  # fmt: skip

_LAST_EVENT = re.compile(rb"(?:\A|\n)data: ?\[DONE\]\n\n\Z")
_FAILURE = re.compile(rb'^(?:(?:data: ?)?\{\s*"error"|event: ?error|error:)', re.MULTILINE)


@dataclass(frozen=True)
class Stored:
    """An answer as the client got it.

    Attributes:
        status: of HTTP.
        content_type: of the answer.
        chunks: the body, cut as it was sent.
        variant: which of the alias's targets gave it.
        engine: that gave it.
        input_tokens: as the engine counted them; None: it did not say.
        output_tokens: likewise.
    """

    status: int
    content_type: str
    chunks: tuple[bytes, ...]
    variant: str
    engine: str
    input_tokens: int | None
    output_tokens: int | None

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return ENTRY_BYTES + sum(map(chunk_bytes, self.chunks))

    def is_whole(self) -> bool:
        """Whether it is a success that came to its own end; only such an answer is kept."""
        if self.status != HTTPStatus.OK:
            return False
        body = b"".join(self.chunks).replace(b"\r\n", b"\n")
        if _FAILURE.search(body):
            return False
        match self.content_type.partition(";")[0].strip().lower():
            case "text/event-stream":
                return _LAST_EVENT.search(body) is not None
            case "application/x-ndjson":
                last = _json_object(body.rstrip().rpartition(b"\n")[2])
                return last.get("done") is True and not last.get("error")
            case "application/json":
                whole = _json_object(body)
                return bool(whole) and not whole.get("error")
        return False


class CacheStats(NamedTuple):
    """What a cache did and holds.

    Attributes:
        hits: questions that were answered, since the start of this process.
        misses: those that were not, for whatever reason.
        entries: answers it holds; None: not known.
        bytes: that they take; None: not known.
        state: ``lost``: it is there to be asked, but does not answer.
    """

    hits: int
    misses: int
    entries: int | None
    bytes: int | None
    state: Literal["off", "on", "lost"]


class AnswerCache(Protocol):
    """Where answers are kept. Neither method ever raises for what is in the cache or not there."""

    async def get(self, fingerprint: str) -> Stored | None:
        """Return the answer, or None."""

    async def put(self, fingerprint: str, answer: Stored) -> None:
        """Keep an answer, unless it is not whole or too large."""

    def stats(self) -> CacheStats:
        """Return what it did and holds."""


class NoCache:
    """Keeps nothing: the cache is switched off."""

    async def get(self, fingerprint: str) -> Stored | None:  # noqa: ARG002 - the protocol's
        """Return None."""
        return None

    async def put(self, fingerprint: str, answer: Stored) -> None:
        """Keep nothing."""

    def stats(self) -> CacheStats:
        """Return that it is off."""
        return CacheStats(0, 0, 0, 0, "off")


class MemoryCache:
    """Answers in this process; who was not asked for the longest goes first.

    Args:
        max_bytes: of all answers, with what Python takes for each (:attr:`Stored.size_bytes`).
        max_entry_bytes: of one; a larger one is not kept.
        ttl_s: age at which an answer is forgotten, asked for or not.
        clock: in seconds.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        max_entry_bytes: int,
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_entry_bytes = min(max_entry_bytes, max_bytes)
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, int, Stored]] = OrderedDict()
        """When it ends, its bytes and the answer; who was asked for last comes last."""
        self._bytes = 0
        self._hits = 0
        self._misses = 0

    async def get(self, fingerprint: str) -> Stored | None:
        """Return the answer, or None."""
        found = self._kept.get(fingerprint)
        if found is not None and found[0] <= self._clock():
            self._forget(fingerprint)
            found = None
        if found is None:
            self._misses += 1
            return None
        self._hits += 1
        self._kept.move_to_end(fingerprint)
        return found[2]

    async def put(self, fingerprint: str, answer: Stored) -> None:
        """Keep an answer, unless it is not whole or too large."""
        size = answer.size_bytes
        if size > self._max_entry_bytes or not answer.is_whole():
            return
        if fingerprint in self._kept:
            self._forget(fingerprint)
        while self._bytes + size > self._max_bytes:
            self._forget(next(iter(self._kept)))
        self._kept[fingerprint] = (self._clock() + self._ttl_s, size, answer)
        self._bytes += size

    def stats(self) -> CacheStats:
        """Return what it did and holds."""
        return CacheStats(self._hits, self._misses, len(self._kept), self._bytes, "on")

    def _forget(self, fingerprint: str) -> None:
        self._bytes -= self._kept.pop(fingerprint)[1]


def chunk_bytes(chunk: bytes) -> int:
    """Return what Python takes for a chunk and the reference to it."""
    return sys.getsizeof(chunk) + 8


def fingerprint(path: str, body: Mapping[str, Any], *, digest: str, owner: str) -> str:
    """Return the name under which the answer to a request is kept; SHA-256, hexadecimal.

    Every field counts, as it was parsed: no field is left out or given its default. Two bodies
    share a name if and only if they are the same JSON: the order of keys does not count; ``1``,
    ``1.0`` and ``true`` differ; of a key given twice the last value counts, as it does in what
    is sent on to the engine.

    Args:
        path: that was asked, for example ``/api/chat``; not the kind of question: two APIs may
            ask the same and be answered in different forms.
        body: parsed from JSON, as the client sent it.
        digest: names the model's content and whoever serves it; it may not be empty.
        owner: the key's id; empty only where answers are shared between keys.

    Raises:
        Refusal: 400, the body holds what no JSON can (an infinity from ``1e999``, NaN), or is
            nested too deeply.
        ValueError: there is no digest, so that a changed model would go unnoticed.
    """
    if not digest:
        raise ValueError("no digest: an answer without its model's digest is never kept")
    try:
        text = json.dumps(
            [RULES, path, digest, owner, dict(body)],
            sort_keys=True,
            allow_nan=False,
            ensure_ascii=False,
            separators=(",", ":"),
        )
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "bad_request", f"the body is not JSON: {error}") from error
    # Python's parser lets halves of surrogate pairs through; they stay themselves.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_deterministic(path: str, body: Mapping[str, Any]) -> bool:
    """Whether a request asks for the one most probable answer, so that any of them will do.

    Embeddings always do. Text does at temperature 0, given in the request (in Ollama's own API
    also by ``top_k`` 1), one answer, and no field that is not known to leave chance out. A seed
    with a temperature above 0 does not. Never raises, whatever is in the body.

    Args:
        path: that was asked; an unknown one is not deterministic.
        body: parsed from JSON.
    """
    said = {name for name, value in body.items() if _says_something(value)}
    if path in EMBEDDING_PATHS:
        return "input" in said
    if not said & {"prompt", "messages"} or not _holds_all(body.get("messages")):
        return False
    if path in OPENAI_PATHS:
        one = body.get("n") is None or _is_number(body["n"], 1)
        return said <= OPENAI_FIELDS and one and _is_number(body.get("temperature"), 0)
    options = body.get("options")
    if path not in OLLAMA_PATHS or not isinstance(options, Mapping):
        return False
    known = said <= OLLAMA_FIELDS and options.keys() <= OLLAMA_OPTIONS
    greedy = _is_number(options.get("temperature"), 0) or _is_number(options.get("top_k"), 1)
    return known and greedy


def _says_something(value: Any) -> bool:
    """Whether a field has content; clients send empty ones for what they do not use."""
    return value is not None and value not in ("", [], {})


def _is_number(value: Any, number: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == number


def _holds_all(messages: Any) -> bool:
    """Whether messages hold all that the model sees; what lies behind a link may change."""
    if not isinstance(messages, list):
        return messages is None
    contents = [message.get("content") for message in messages if isinstance(message, Mapping)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return all(map(_is_inside, parts))


def _is_inside(part: Any) -> bool:
    if not isinstance(part, Mapping):
        return False
    picture = part.get("image_url")
    url = picture.get("url") if isinstance(picture, Mapping) else picture
    shown = part.get("type") == "image_url" and isinstance(url, str) and url.startswith("data:")
    return part.get("type") == "text" or shown


def _json_object(text: bytes) -> dict[str, Any]:
    """Return an object, or an empty one if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
