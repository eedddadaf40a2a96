"""What every engine can do, and the raw record of one generation.

An engine is anything that answers prompts with a stream of tokens: a server in a process of our
own, a server that runs already, a pool of peers. The harness sees all of them through
:class:`Engine`; it never learns how one is launched.

A generation is recorded, not interpreted: :class:`Generation` holds what arrived and when, on one
monotonic clock, and every metric is computed from it later (``docs/metrics.md``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from shoestring.engines.transport import Cancellation

monotonic_ns = time.monotonic_ns

EventKind = Literal[
    "role", "empty", "reasoning", "answer", "finish", "usage", "done", "comment", "error"
]
FailureReason = Literal[
    "connect",
    "headers_timeout",
    "http_error",
    "stream_error",
    "stall",
    "deadline",
    "reset",
    "no_final_event",
    "malformed",
    "no_tokens",
]


@dataclass(frozen=True)
class Prompt:
    """One request to an engine.

    Attributes:
        text: the user's message.
        turns: the dialogue before it, oldest first: user and assistant in turn, so an even number.
        max_tokens: how many tokens the answer may have.
        fixed_length: ask the engine to go on after its end-of-text token, where it can, so that
            every answer has ``max_tokens``.
        temperature: 0 is greedy.
        seed: of the sampler, where the engine takes one.
        schema: a JSON schema that the answer has to fit, where the engine can see to it.
        thinking: ask for reasoning before the answer, or for none; None leaves it to the model.
    """

    text: str
    max_tokens: int
    fixed_length: bool = False
    temperature: float = 0.0
    seed: int | None = None
    turns: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    thinking: bool | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        """The dialogue as chat endpoints take it."""
        roles = ("user", "assistant")
        texts = (*self.turns, self.text)
        return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]

    @property
    def whole_text(self) -> str:
        """The dialogue as one text, for a model without a chat template."""
        return "\n\n".join((*self.turns, self.text))


@dataclass(frozen=True)
class Patience:
    """How long to wait for one request.

    Attributes:
        stall_s: longest time without a byte, from the connection on.
        request_s: longest time for the whole request.
    """

    stall_s: float = 60.0
    request_s: float = 600.0


@dataclass(frozen=True)
class Event:
    """One thing that arrived in a stream.

    Attributes:
        t_ns: when its last byte arrived, on the engine client's monotonic clock.
        kind: see ``docs/record-format.md``.
        size_bytes: UTF-8 length of the text that it carried.
    """

    t_ns: int
    kind: EventKind
    size_bytes: int


@dataclass(frozen=True)
class Failure:
    """Why a request failed: a reason that can be counted, and one line for people."""

    reason: FailureReason
    detail: str


@dataclass(frozen=True)
class Usage:
    """Tokens as the engine counted them; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True)
class NativeTimings:
    """The engine's own clock: prefill of the uncached prompt tokens, then decode.

    ``decode_s`` runs from the first token to the last, as llama.cpp counts it. ``load_s`` is what
    the request waited for the model, and ``total_s`` the whole of it; Ollama alone tells them.
    """

    prompt_tokens: int | None = None
    prompt_s: float | None = None
    decode_tokens: int | None = None
    decode_s: float | None = None
    cached_tokens: int | None = None
    load_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True)
class EngineMemory:
    """What an engine says that its model takes, in bytes; None where it does not say."""

    total_bytes: int | None
    vram_bytes: int | None


@dataclass(frozen=True)
class Generation:
    """The raw record of one request: what was sent and all that arrived.

    Times are nanoseconds of the monotonic clock; None where that point was not reached.
    ``intended_ns`` is when the request should have left, ``sent_ns`` when the kernel had its last
    byte, ``headers_ns`` when the response head had arrived, ``end_ns`` when the request was over.
    """

    intended_ns: int
    sent_ns: int | None
    headers_ns: int | None
    end_ns: int
    connect_s: float | None
    http_status: int | None
    events: tuple[Event, ...]
    failure: Failure | None
    finish_reason: str | None = None
    usage: Usage | None = None
    native: NativeTimings | None = None
    text: str = ""
    reasoning: str = ""
    truth: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """The stamps of the known-truth server, one an event that carried them; else empty."""


@dataclass(frozen=True)
class Span:
    """One step of a cold start, in seconds since the start was asked for."""

    name: str
    start_s: float
    end_s: float


class Recording(Protocol):
    """One request, taken down and not yet read: reading costs time that no slot shall wait for."""

    @property
    def broken(self) -> bool:
        """Whether the exchange itself went wrong, whatever its stream said."""

    def read(self) -> Generation:
        """Parse what arrived."""


class Engine(Protocol):
    """An engine that has one model.

    Used as a context manager it starts, loads, and at the end stops.
    """

    name: str
    model_id: str

    @property
    def pid(self) -> int | None:
        """The root of the engine's process tree, or None where it is not ours to see."""

    @property
    def options(self) -> dict[str, Any]:
        """The settings that bear on speed and memory, for the run's record."""

    def address(self) -> tuple[str, str | None]:
        """Return the base URL and the key of its server, for whoever asks it beside us."""

    def start(self) -> None:
        """Start the engine, or check that it is there. Raises MissingError where it is not."""

    def load(self) -> None:
        """Load the model and return when it can answer."""

    def unload(self) -> None:
        """Give the model's memory back."""

    def stop(self) -> None:
        """End what :meth:`start` started. May be called twice."""

    def spans(self) -> list[Span]:
        """The steps of the start so far, for the cold-start waterfall."""

    def version(self) -> str | None:
        """What the engine says it is, or None where it does not say."""

    def count_tokens(self, text: str) -> int | None:
        """Count the tokens of ``text`` by the model's tokenizer, or None without one."""

    def lost(self) -> str | None:
        """Say in one line why no more answers can come, or None while they can."""

    def healthy(self) -> bool:
        """Whether the engine would take a request now; asks it, and raises nothing."""

    def memory(self) -> EngineMemory | None:
        """What the engine says that its model takes, or None where it does not say."""

    def record(
        self,
        prompt: Prompt,
        *,
        patience: Patience = ...,
        intended_ns: int | None = None,
        cancellation: Cancellation | None = None,
        on_sent: Callable[[], None] = ...,
    ) -> Recording:
        """Send one prompt and take the stream down; nothing is parsed, nothing is raised.

        ``intended_ns`` is when the request should leave, by default now; ``on_sent`` is called
        when it has left.
        """

    def generate(
        self,
        prompt: Prompt,
        *,
        patience: Patience = ...,
        cancellation: Cancellation | None = None,
    ) -> Generation:
        """Send one prompt and return what came of it; failures are in it, not raised."""

    def __enter__(self) -> Self:
        """Start and load."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
