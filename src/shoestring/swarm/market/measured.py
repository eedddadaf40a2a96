"""What was seen of each node: its round trip, its speed, and whether its answers were good.

Old measurements count less and less: half after :data:`HALF_LIFE_S`. What was never measured is
claimed by the node and predicted by the planner, of which the worse counts
(:mod:`shoestring.swarm.market.sellers`). Trust is the share of good answers with a prior of
:data:`PRIOR_GOOD` good ones of :data:`PRIOR_ALL`: who was never seen has half, and all that was
seen fades back to that (the mean of a beta distribution, with forgetting; A. Josang and R. Ismail,
"The beta reputation system", 2002).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import public_key_of
from shoestring.swarm.private_files import OwnersFile, changing, read_records, write_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

What = Literal["rtt_s", "layer_s", "prompt_layer_s"]

MEASURED_FILE: Final = "measured.json"
HALF_LIFE_S: Final = 86_400.0
PRIOR_GOOD: Final = 1.0
PRIOR_ALL: Final = 2.0
FORGOTTEN: Final = 1e-3
"""What counts less than this is as if it never was."""
LONGEST_S: Final = 1_000.0
MOST_NODES: Final = 16_384


@dataclass(frozen=True)
class Mean:
    """A mean of what was measured, each by its age.

    Attributes:
        value: in seconds.
        weight: how many fresh measurements it is worth.
        at_s: when it was worth that, in seconds since 1970.
    """

    value: float
    weight: float
    at_s: float

    def weight_at(self, now_s: float) -> float:
        """Return what it is worth later."""
        return faded(self.weight, now_s - self.at_s)

    def with_one(self, value: float, now_s: float) -> Mean:
        """Return the mean with one more measurement."""
        before = self.weight_at(now_s)
        return Mean((self.value * before + value) / (before + 1), before + 1, now_s)


@dataclass(frozen=True)
class Record:
    """What was seen of one node.

    Attributes:
        node: its peer id.
        rtt_s: round trip.
        layer_s: seconds a layer and token of an answer, by model.
        prompt_layer_s: likewise of a prompt.
        good: answers and audits that were right, by their age.
        bad: that were not.
        judged_s: when they counted so much, in seconds since 1970.
    """

    node: str
    rtt_s: Mean | None = None
    layer_s: dict[str, Mean] | None = None
    prompt_layer_s: dict[str, Mean] | None = None
    good: float = 0.0
    bad: float = 0.0
    judged_s: float = 0.0

    def trust(self, now_s: float) -> float:
        """Return the share of good answers to be expected, 0 to 1."""
        age_s = now_s - self.judged_s
        good, bad = faded(self.good, age_s), faded(self.bad, age_s)
        return (good + PRIOR_GOOD) / (good + bad + PRIOR_ALL)

    def mean(self, what: What, model: str, now_s: float) -> float | None:
        """Return what was measured; None: never, or too long ago."""
        held = getattr(self, what)
        mean = held if what == "rtt_s" else (held or {}).get(model)
        return mean.value if mean is not None and mean.weight_at(now_s) >= FORGOTTEN else None


def faded(weight: float, age_s: float) -> float:
    """Return what is left of a weight; a clock that was set back makes nothing younger."""
    return float(weight * 0.5 ** (max(0.0, age_s) / HALF_LIFE_S))


class Measured(OwnersFile):
    """The file of them.

    Args:
        path: the file; it may come later.
        now: seconds since 1970.
    """

    def all(self) -> dict[str, Record]:
        """Return what was seen, by node.

        Raises:
            BadValueError: the file cannot be used.
        """
        mend = "remove it; nodes are then measured anew, and trusted as strangers"
        return {one.node: one for one in read_records(self._path, _record, mend=mend)}

    def saw(
        self, node: str, *, model: str = "", times: Iterable[tuple[What, float]] = (),
        good: int = 0, bad: int = 0,
    ) -> Record:  # fmt: skip
        """Add what was seen of a node.

        Args:
            node: its peer id.
            model: which the times are of; a round trip is of none.
            times: in seconds.
            good: answers or audits that were right.
            bad: that were not.

        Raises:
            BadValueError: a value cannot be, or the file cannot be used.
        """
        if good < 0 or bad < 0:
            raise BadValueError(f"good {good}, bad {bad}: give counts")
        times = tuple(times)

        def seen(record: Record, now_s: float) -> Record:
            for what, value in times:
                record = _with_time(record, what, model, value, now_s)
            age_s = now_s - record.judged_s
            return replace(
                record, good=faded(record.good, age_s) + good,
                bad=faded(record.bad, age_s) + bad, judged_s=now_s,
            )  # fmt: skip

        return self._change({node: seen})[node]

    def saw_ways(self, rtt_s: Mapping[str, float]) -> None:
        """Add the round trips of many nodes, in one writing of the file.

        Args:
            rtt_s: seconds by peer id.

        Raises:
            BadValueError: a value cannot be, or the file cannot be used.
        """
        if rtt_s:
            self._change({node: partial(_with_way, value) for node, value in rtt_s.items()})

    def _change(self, how: Mapping[str, Callable[[Record, float], Record]]) -> dict[str, Record]:
        """Put other records of some nodes into the file; return all."""
        for node in how:
            public_key_of(node)
        now_s = self._now()
        with changing(self._path):
            records = self.all()
            for node, changed in how.items():
                records[node] = changed(records.get(node, Record(node)), now_s)
            if len(records) > MOST_NODES:
                known = sorted(records.values(), key=lambda one: (one.node in how, one.judged_s))
                for one in known[: len(records) - MOST_NODES]:
                    del records[one.node]
            write_records(self._path, (asdict(one) for one in records.values()))
        return records


def _with_time(record: Record, what: What, model: str, value: float, now_s: float) -> Record:
    if not 0 < value <= LONGEST_S:
        raise BadValueError(f"{what}: {value}: give seconds, above 0, at most {LONGEST_S:g}")
    if what == "rtt_s":
        before = record.rtt_s or Mean(value, 0.0, now_s)
        return replace(record, rtt_s=before.with_one(value, now_s))
    held = dict(getattr(record, what) or {})
    before = held.get(model, Mean(value, 0.0, now_s))
    held[model] = before.with_one(value, now_s)
    if what == "layer_s":
        return replace(record, layer_s=held)
    return replace(record, prompt_layer_s=held)


def _with_way(rtt_s: float, record: Record, now_s: float) -> Record:
    return _with_time(record, "rtt_s", "", rtt_s, now_s)


def _record(content: dict[str, Any]) -> Record:
    if content.keys() != {one.name for one in fields(Record)}:
        raise BadValueError("a record of other fields")
    public_key_of(content["node"])
    rtt = content["rtt_s"]
    return Record(
        node=content["node"],
        rtt_s=None if rtt is None else _mean(rtt),
        layer_s=_means(content["layer_s"]),
        prompt_layer_s=_means(content["prompt_layer_s"]),
        good=float(content["good"]),
        bad=float(content["bad"]),
        judged_s=float(content["judged_s"]),
    )


def _means(content: dict[str, Any] | None) -> dict[str, Mean] | None:
    return None if content is None else {model: _mean(mean) for model, mean in content.items()}


def _mean(content: dict[str, Any]) -> Mean:
    return Mean(**{name: float(content[name]) for name in ("value", "weight", "at_s")})
