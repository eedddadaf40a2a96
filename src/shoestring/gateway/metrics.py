"""What Prometheus is told, under OpenTelemetry's GenAI names where there is one.

``gen_ai_server_*`` and the token metrics count what engines made; answers from memory are counted
by the cache's own metrics, so that a warm cache makes no engine look fast. Names, labels and bucket
bounds are those of open-telemetry/semantic-conventions-genai, ``docs/gen-ai/gen-ai-metrics.md``
(status: development; read at 004902b), written as Prometheus writes them: dots are underscores, a
unit ends the name, ``{token}`` is none. ``docs/gateway-metrics.md`` lists all of them.

No label holds what a user wrote, a key, or an address. Each metric has at most
:data:`LABEL_SETS` sets of labels; what comes after those is counted under ``other``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from shoestring.gateway.readings import OTHER, ReadAtScrape, label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prometheus_client.metrics import MetricWrapperBase

    from shoestring.gateway.activity import Outcome
    from shoestring.gateway.readings import Readings

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
LABEL_SETS = 100

# The conventions' bounds, and behind them ours: without a GPU a long answer takes minutes.
DURATION_BOUNDS_S = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    163.84, 327.68, 655.36,
)  # fmt: skip
TTFT_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0,
)  # fmt: skip
TPOT_BOUNDS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 10.0,
)  # fmt: skip
TOKEN_BOUNDS = tuple(4**power for power in range(14))
"""1, 4, 16, ... 67,108,864."""

OPERATIONS = {
    "chat": "chat",
    "completion": "text_completion",
    "generate": "text_completion",  # Ollama's /api/generate and the note's /generate: text to text
    "embeddings": "embeddings",
}
"""Our words, and the conventions' for them."""
_GEN_AI = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "variant",
)


Series = TypeVar("Series", bound="MetricWrapperBase")


class _Bounded(Generic[Series]):
    """A metric that has at most ``limit`` sets of labels, and one more for all others."""

    def __init__(self, metric: Series, labels: int, limit: int) -> None:
        self._metric = metric
        self._others = (OTHER,) * labels
        self._limit = limit
        self._known: dict[tuple[str, ...], Series] = {}

    def of(self, *labels: str) -> Series:
        """Return the series of these labels."""
        found = self._known.get(labels)
        if found is None:
            kept = tuple(label(value) for value in labels)
            found = self._known.get(kept)
            if found is None:
                if len(self._known) >= self._limit:
                    return self._metric.labels(*self._others)
                found = self._known[kept] = self._metric.labels(*kept)
        return found


class Metrics:
    """All metrics of one replica.

    Args:
        registry: theirs alone, so that no library adds its own.
        readings: called at each scrape, in the event loop's thread; must not wait.
        version: of the package.
        label_sets: how many sets of labels a metric may have before ``other``.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        readings: Callable[[], Readings],
        *,
        version: str,
        label_sets: int = LABEL_SETS,
    ) -> None:
        # One more series for each counter, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry
        self._limit = label_sets
        self._duration = self._histogram(
            "gen_ai_server_request_duration_seconds",
            "From a request's last byte to its answer's last, the queue included.",
            (*_GEN_AI, "error_type"),
            DURATION_BOUNDS_S,
        )
        self._ttft = self._histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From a request's last byte to its answer's first text, the queue included.",
            _GEN_AI,
            TTFT_BOUNDS_S,
        )
        self._tpot = self._histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time after the first token, divided by the tokens after the first.",
            _GEN_AI,
            TPOT_BOUNDS_S,
        )
        self._usage = self._histogram(
            "gen_ai_client_token_usage",
            "Tokens of one answer that an engine made, as it counted them.",
            (*_GEN_AI, "gen_ai_token_type"),
            TOKEN_BOUNDS,
        )
        self._requests = self._counter(
            "shoestring_gateway_requests_total",
            "Requests that have ended, from memory too; status 499: the client left.",
            ("operation", "model", "variant", "status"),
        )
        self._tokens = self._counter(
            "shoestring_gateway_tokens_total",
            "Tokens that engines read (input) and made (output), as they counted them.",
            ("type", "model", "variant"),
        )
        self._saved = self._counter(
            "shoestring_gateway_cached_tokens_total",
            "Tokens of answers from memory, which no engine had to read or make again.",
            ("type", "model"),
        )
        self._rejections = self._counter(
            "shoestring_gateway_rejections_total",
            "Requests that were turned away, by reason.",
            ("reason",),
        )
        self._cache = self._counter(
            "shoestring_gateway_cache_requests_total",
            "Requests by what the cache did: hit, miss, bypass, joined.",
            ("result",),
        )
        self._active = self._gauge(
            "shoestring_gateway_active_requests", "Begun and not ended.", ("model",)
        )
        self._queue = self._histogram(
            "shoestring_gateway_queue_seconds",
            "Waited for an engine's slot, whether it came or not.",
            ("engine",),
            DURATION_BOUNDS_S,
        )
        build = Gauge(
            "shoestring_gateway_build_info", "The version.", ("version",), registry=registry
        )
        build.labels(version).set(1)
        ProcessCollector(registry=registry)
        registry.register(ReadAtScrape(readings))

    def began(self, model: str) -> None:
        """Count a request as active.

        Args:
            model: as asked; ``other`` where it is none of ours. Its outcome must name the same.
        """
        self._active.of(model).inc()

    def ended(self, outcome: Outcome) -> None:
        """Count a request that began; each once."""
        self._active.of(outcome.model).dec()
        operation = outcome.operation if outcome.operation in OPERATIONS else OTHER
        self._requests.of(operation, outcome.model, outcome.variant, _status(outcome.status)).inc()
        self._cache.of(outcome.cache).inc()
        if outcome.cache in {"hit", "joined"}:
            self._count_saved(outcome)
        elif outcome.engine:
            self._queue.of(outcome.engine).observe(outcome.queue_s)
            self._count_made(outcome)

    def rejected(self, reason: str) -> None:
        """Count a request that was turned away, whether it began or not.

        Args:
            reason: the short word of the refusal.
        """
        self._rejections.of(reason).inc()

    def render(self) -> bytes:
        """Return all metrics as Prometheus reads them (:data:`CONTENT_TYPE`)."""
        return generate_latest(self._registry)

    def _count_made(self, outcome: Outcome) -> None:
        """Count what an engine did."""
        labels = (
            OPERATIONS.get(outcome.operation, OTHER),
            outcome.provider,
            outcome.model,
            outcome.answered_by,
            outcome.variant,
        )
        self._duration.of(*labels, _error_type(outcome)).observe(outcome.duration_s)
        for kind, tokens in (("input", outcome.input_tokens), ("output", outcome.output_tokens)):
            if tokens is not None:
                self._usage.of(*labels, kind).observe(tokens)
                self._tokens.of(kind, outcome.model, outcome.variant).inc(tokens)
        if outcome.ttft_s is None or not outcome.inferred:
            return
        self._ttft.of(*labels).observe(outcome.ttft_s)
        if outcome.output_tokens is not None and outcome.output_tokens > 1:
            after_s = outcome.duration_s - outcome.ttft_s
            self._tpot.of(*labels).observe(after_s / (outcome.output_tokens - 1))

    def _count_saved(self, outcome: Outcome) -> None:
        for kind, tokens in (("input", outcome.input_tokens), ("output", outcome.output_tokens)):
            if tokens is not None:
                self._saved.of(kind, outcome.model).inc(tokens)

    def _counter(self, name: str, what: str, labels: Sequence[str]) -> _Bounded[Counter]:
        metric = Counter(name, what, labels, registry=self._registry)
        return _Bounded(metric, len(labels), self._limit)

    def _gauge(self, name: str, what: str, labels: Sequence[str]) -> _Bounded[Gauge]:
        metric = Gauge(name, what, labels, registry=self._registry)
        return _Bounded(metric, len(labels), self._limit)

    def _histogram(
        self, name: str, what: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> _Bounded[Histogram]:
        metric = Histogram(name, what, labels, registry=self._registry, buckets=bounds)
        return _Bounded(metric, len(labels), self._limit)


def _status(status: int) -> str:
    return str(status) if 100 <= status < 600 else OTHER  # noqa: PLR2004


def _error_type(outcome: Outcome) -> str:
    """Return the conventions' ``error.type``; empty, which is no label at all, for success."""
    if outcome.client_left:
        return "client_left"
    if outcome.failure is not None:
        return outcome.failure
    return _status(outcome.status) if outcome.status >= 400 else ""  # noqa: PLR2004
