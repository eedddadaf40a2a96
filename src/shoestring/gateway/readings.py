"""What is counted elsewhere, read when Prometheus asks. A metric without a value is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

LABEL_LENGTH = 120
OTHER = "other"


@dataclass(frozen=True)
class EngineReading:
    """One engine at the moment of a scrape; None: not known, and then not told."""

    name: str
    up: bool | None
    active: int
    waiting: int
    slots: int
    memory_bytes: int | None


@dataclass(frozen=True)
class Readings:
    """What is read at a scrape and counted elsewhere.

    Attributes:
        redis: ``none`` where replicas do not count together.
        replicas: that do, as of when Redis was last seen.
        cache_entries: None where the cache is off or lost.
        cache_bytes: likewise.
        key_file_errors: how often the file of keys could not be read again.
    """

    engines: tuple[EngineReading, ...]
    redis: Literal["none", "ok", "lost"]
    replicas: int
    cache_entries: int | None
    cache_bytes: int | None
    key_file_errors: int
    draining: bool


class ReadAtScrape(Collector):
    """The metrics of the readings.

    Args:
        readings: called at each scrape.
    """

    def __init__(self, readings: Callable[[], Readings]) -> None:
        self._readings = readings

    def describe(self) -> list[Metric]:
        """Nothing: a registry asks so as not to read before the gateway stands."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read now."""
        now = self._readings()
        yield from _engine_metrics(now.engines)
        if now.redis != "none":
            yield _gauge("redis_up", "Whether Redis answers.", now.redis == "ok")
            yield _gauge("replicas", "Replicas that count together.", now.replicas)
        if now.cache_entries is not None:
            yield _gauge("cache_entries", "Answers kept.", now.cache_entries)
        if now.cache_bytes is not None:
            yield _gauge("cache_bytes", "Size of the answers kept.", now.cache_bytes)
        yield CounterMetricFamily(
            "shoestring_gateway_key_file_errors_total",
            "How often the file of keys could not be read again.",
            value=now.key_file_errors,
        )
        yield _gauge("draining", "Whether it is about to end.", now.draining)


def _engine_metrics(engines: tuple[EngineReading, ...]) -> Iterator[Metric]:
    for name, what, values in (
        ("engine_up", "Whether an engine answers.", [e.up for e in engines]),
        ("engine_active_requests", "Requests that it works on.", [e.active for e in engines]),
        ("engine_slots", "How many it works on at once.", [e.slots for e in engines]),
        ("queue_waiting", "Requests that wait for its slots.", [e.waiting for e in engines]),
        (
            "model_memory_bytes",
            "Memory of the models that it has loaded, as it says.",
            [e.memory_bytes for e in engines],
        ),
    ):
        family = GaugeMetricFamily(f"shoestring_gateway_{name}", what, labels=["engine"])
        for engine, value in zip(engines, values, strict=True):
            if value is not None:
                family.add_metric([label(engine.name)], float(value))
        yield family


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"shoestring_gateway_{name}", what, value=float(value))


def label(value: str) -> str:
    """Return a label that can be written: UTF-8, one line, not long."""
    short = value[:LABEL_LENGTH].encode("utf-8", "replace").decode("utf-8")
    return short if short.isprintable() else OTHER
