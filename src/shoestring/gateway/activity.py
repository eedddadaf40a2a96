"""What the dashboard shows: the latest requests, a quarter of an hour of charts, each key's use.

Answers from memory (``hit``, ``joined``) are requests and no inference: they count in no TTFT, no
mean and no engine's tokens. Everything is bounded, whatever is asked and by whom; nothing outlives
the process.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from shoestring.gateway.bins import Bins

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.gateway.bins import Gauges, Series

Operation = Literal["chat", "completion", "embeddings", "generate"]
CacheUse = Literal["hit", "miss", "bypass", "joined"]

CLIENT_LEFT = 499
"""The status, never sent, of a request whose client went away; no error of ours."""
SERVICE_UNAVAILABLE = 503
RECENT = 500
KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one request.

    Attributes:
        request_id: as in the answer's ``X-Request-ID``.
        t_utc: when it came in.
        model: as asked; ``other`` where it is none of ours.
        variant: which target of an alias; empty where none was chosen.
        engine: by name; empty where none was chosen.
        provider: the engine's kind.
        status: of HTTP; 499 where the client left before it got one.
        failure: a counted word; None: all went well.
        queue_s: waited for a slot.
        ttft_s: from the request's last byte to the first text; None where none was sent.
        duration_s: from the request's last byte to the answer's.
        input_tokens: counted by the engine; None: not told.
        output_tokens: likewise.
        answered_by: the model that the engine was asked for; empty where none was.
        charged_input_tokens: of the key's budget: as counted, else by the prompt's length; None:
            not known, for whoever waited for the answer left, and an engine worked or goes on.
        charged_output_tokens: likewise; as counted, else a token for each part that was seen.
    """

    request_id: str
    t_utc: str
    key_id: str
    key_name: str
    address: str
    operation: Operation
    model: str
    variant: str
    engine: str
    provider: str
    status: int
    failure: str | None
    stream: bool
    cache: CacheUse
    queue_s: float
    ttft_s: float | None
    duration_s: float
    input_tokens: int | None
    output_tokens: int | None
    answered_by: str = ""
    charged_input_tokens: int | None = None
    charged_output_tokens: int | None = None

    @property
    def client_left(self) -> bool:
        """Whether nobody waited for the end."""
        return self.status == CLIENT_LEFT

    @property
    def failed(self) -> bool:
        """Whether a client that waited got no whole answer; a stream may break after 200."""
        return not self.client_left and (self.failure is not None or self.status >= 400)  # noqa: PLR2004

    @property
    def rejected(self) -> bool:
        """Whether it was turned away: by the caller's fault, or since there was no room."""
        fault = 400 <= self.status < 500  # noqa: PLR2004
        return self.failed and (fault or self.status == SERVICE_UNAVAILABLE)

    @property
    def inferred(self) -> bool:
        """Whether an engine made a whole answer for it."""
        whole = self.failure is None and self.status < 400  # noqa: PLR2004
        return whole and self.cache in {"miss", "bypass"}


@dataclass(frozen=True)
class Totals:
    """Since the start. ``mean_inference_s``: of whole answers by engines, the queue left out."""

    requests: int
    errors: int
    rejected: int
    mean_inference_s: float | None
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Use:
    """What a key did since the start. Tokens are those that it was sent, by engine or memory."""

    requests: int = 0
    rejected: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    last_used_utc: str | None = None


class Activity:
    """What happened lately.

    Args:
        clock: monotonic, in seconds.
        utc: seconds since 1970, for people only.
        chance: picks the sample of a bin with very many answers.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        utc: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        self._bins = Bins(clock, utc, chance or random.Random())
        self._recent: deque[Outcome] = deque(maxlen=RECENT)
        self._uses: OrderedDict[str, Use] = OrderedDict()
        self._totals = Totals(0, 0, 0, None, 0, 0)
        self._inferred = 0
        self._inference_s = 0.0

    def note(self, outcome: Outcome) -> None:
        """Count a request that has just ended."""
        self._recent.append(outcome)
        self._note_bin(outcome)
        self._note_totals(outcome)
        if outcome.key_id:
            self._note_use(outcome)

    def sample(self, gauges: Gauges) -> None:
        """Keep what stands now, for the charts; once in 5 s is enough."""
        self._bins.sample(gauges)

    def series(self) -> Series:
        """Return the last quarter of an hour, without the 5 s that are not over."""
        return self._bins.series()

    def recent(self, limit: int = RECENT) -> list[Outcome]:
        """Return the latest requests, newest first; at most 500 are kept."""
        found = list(self._recent)
        found.reverse()
        return found[: max(0, limit)]

    def totals(self) -> Totals:
        """Return the sums since the start."""
        mean_s = self._inference_s / self._inferred if self._inferred else None
        return replace(self._totals, mean_inference_s=mean_s)

    def use_of(self, key_id: str) -> Use:
        """Return what a key did; of more than 10,000 keys those longest unused are forgotten."""
        return self._uses.get(key_id, Use())

    def _note_bin(self, outcome: Outcome) -> None:
        self._bins.add(failed=outcome.failed)
        if not outcome.inferred:
            return
        if outcome.ttft_s is not None:
            self._bins.add_ttft(outcome.ttft_s)
        if outcome.output_tokens:
            began_s = outcome.queue_s if outcome.ttft_s is None else outcome.ttft_s
            self._bins.add_tokens(outcome.output_tokens, outcome.duration_s - began_s)

    def _note_totals(self, outcome: Outcome) -> None:
        before, made = self._totals, outcome.inferred
        if made:
            self._inferred += 1
            self._inference_s += outcome.duration_s - outcome.queue_s
        self._totals = Totals(
            before.requests + 1,
            before.errors + outcome.failed,
            before.rejected + outcome.rejected,
            None,
            before.input_tokens + (outcome.input_tokens or 0) * made,
            before.output_tokens + (outcome.output_tokens or 0) * made,
        )

    def _note_use(self, outcome: Outcome) -> None:
        before = self._uses.pop(outcome.key_id, Use())
        self._uses[outcome.key_id] = Use(
            before.requests + 1,
            before.rejected + outcome.rejected,
            before.input_tokens + (outcome.input_tokens or 0),
            before.output_tokens + (outcome.output_tokens or 0),
            outcome.t_utc,
        )
        if len(self._uses) > KEYS:
            self._uses.popitem(last=False)
