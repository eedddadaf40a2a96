"""Bytes and seconds of runs of layers, from sums up to each layer: what a split is scored with.

A *unit* is a layer, or the output, which comes last. Sums up to each boundary between units give
what any run takes by one subtraction, for one run or for arrays of them.

An output that stays on the host takes the same there whatever else is split: its bytes are of what
the host holds in any case, and each place's last unit costs the host's time, not its own.

Seconds are added up as whole ticks, about 1e-18 of the largest total: so equal is equal, and no
result depends on the order of additions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from shoestring.plan.split import Place, Problem

    Ints: TypeAlias = NDArray[np.int64]
    Flags: TypeAlias = NDArray[np.bool_]

MOST = 1 << 60
"""Of bytes and ticks: four of them can be added in 64 bits. More room than this is as good."""


class Sums:
    """Sums up to each boundary, for all places and any number of layers with experts in RAM.

    Attributes:
        problem: whose sums they are.
        units: the boundaries: 0 before the first layer, last after the output.
        bytes_to: [place, boundary] of all units before it, experts included.
        ticks_to: [place, boundary] likewise.
        experts_to: [boundary] bytes of experts.
        detour_to: [place, boundary] ticks more where experts are on the host.
        enter_ticks: [place] once, if it is in use.
    """

    def __init__(self, problem: Problem) -> None:
        import numpy as np

        self.problem = problem
        self.units: Ints = np.arange(problem.layers + 2)
        experts = _values(problem.expert_bytes, problem.layers)
        held = np.add(problem.weights_bytes, problem.cache_bytes, dtype=np.int64)
        sizes, ticks, detours = [], [], []
        stays, host = problem.output_stays, problem.host
        for place in problem.places:
            output_s = host.output_s + host.enter_s if stays else place.output_s
            sizes.append([*held, 0 if stays else place.output_bytes])
            layers = self._in_ticks(place.layer_s)
            longer = layers * 0 if place.host else self._in_ticks(self._longer(place))
            ticks.append([*layers, *self._in_ticks([output_s])])
            detours.append([*np.maximum(longer * (experts > 0), -layers), 0])
        self.bytes_to = _add_up(sizes)
        self.ticks_to = _add_up(ticks)
        self.detour_to = _add_up(detours)
        self.experts_to = _add_up([[*experts, 0]])[0]
        self.enter_ticks = self._in_ticks(
            [0.0 if stays and place.host else place.enter_s for place in problem.places]
        )

    def _in_ticks(self, times: Sequence[float]) -> Ints:
        import numpy as np

        ticks: Ints = np.rint(np.array(times) / self.problem.tick_s).astype(np.int64)
        return ticks

    def _longer(self, place: Place) -> Any:
        """Seconds more of each layer of a place if its experts are computed on the host."""
        there = _values(self.problem.host.expert_s, self.problem.layers)
        return place.hop_s + there - _values(place.expert_s, self.problem.layers)

    def of(self, index: int, expert_layers: int | Ints) -> Part:
        """Return the sums of one place.

        Args:
            index: of the place.
            expert_layers: so many first layers keep their experts on the host; a number, or an
                array [case, 1] of them.
        """
        import numpy as np

        place = self.problem.places[index]
        until = np.minimum(self.units, expert_layers)
        away = self.experts_to[until]
        all_away = away[..., -1:] if place.host else away[..., -1:] * 0
        stays = place.host and self.problem.output_stays
        works = (all_away > 0) | stays  # the host computes these, even where it has no layer
        embedding = self.problem.embedding_bytes if place.host else 0
        embedding += place.output_bytes if stays else 0
        return Part(
            place=place,
            bytes_to=self.bytes_to[index] - away,
            ticks_to=self.ticks_to[index] + self.detour_to[index][until],
            away_to=away,
            base_bytes=embedding + all_away + works * place.fixed_bytes,
            fixed_bytes=~works * place.fixed_bytes,
            stream_bytes=0 if place.host else place.stream_bytes,
            enter_ticks=int(self.enter_ticks[index]),
            takes_output=place.takes_output or self.problem.output_stays,
        )


@dataclass(frozen=True)
class Part:
    """The sums of one place.

    Attributes:
        place: which.
        bytes_to: [(case,) boundary] of what lies there, without experts that are on the host.
        ticks_to: [(case,) boundary] likewise.
        away_to: [(case,) boundary] bytes of experts that are on the host.
        base_bytes: [(case,) 1] taken there in any case.
        fixed_bytes: [(case,) 1] taken once if it is in use.
        stream_bytes: taken once if experts of its layers are on the host.
        enter_ticks: once, if it is in use.
        takes_output: whether a run here may have the last unit.
    """

    place: Place
    bytes_to: Ints
    ticks_to: Ints
    away_to: Ints
    base_bytes: Ints
    fixed_bytes: Ints
    stream_bytes: int
    enter_ticks: int
    takes_output: bool

    @property
    def room_bytes(self) -> int:
        """Free there, as far as it can be counted with."""
        return min(self.place.room_bytes, MOST)

    def measure(self, first: int, end: int, *, output: bool) -> tuple[int, int]:
        """Return the bytes and the ticks of a run of layers, with or without the output."""
        busy = first < end or output
        away = int(self.away_to[end] - self.away_to[first])
        sums = (self.bytes_to, self.ticks_to)
        body, ticks = (int(to[end] - to[first]) + output * int(to[-1] - to[-2]) for to in sums)
        return (
            int(self._taken(body, busy=busy, away=away)[0]),
            ticks + busy * self.enter_ticks,
        )

    def demands(self) -> Ints:
        """[first, end] bytes that each run of units takes; where end < first nonsense."""
        return self._taken(
            _differences(self.bytes_to), busy=self._busy(), away=_differences(self.away_to)
        )

    def _taken(self, body: Any, *, busy: Any, away: Any) -> Ints:
        taken: Ints = (
            self.base_bytes + body + busy * self.fixed_bytes + (away > 0) * self.stream_bytes
        )
        return taken

    def costs(self) -> Ints:
        """[first, end] ticks of each run, ``MOST`` where it is not allowed or has no room."""
        import numpy as np

        ticks = _differences(self.ticks_to) + self._busy() * self.enter_ticks
        return np.where(self.fitting(), ticks, MOST)

    def fitting(self) -> Flags:
        """[first, end] whether each run is allowed and has room."""
        fits: Flags = self.allowed() & (self.demands() <= self.room_bytes)
        return fits

    def allowed(self) -> Flags:
        """[first, end] whether each run is one, of what the place may get."""
        first, end = self._boundaries()
        whole = len(self.bytes_to) - 2
        layers = end.clip(max=whole) - first.clip(max=whole)
        with_output = (first <= whole) & (end > whole)
        good: Flags = (first <= end) & (layers >= self.place.least_layers)
        good &= self.takes_output | ~with_output
        return good if self.place.most_layers is None else good & (layers <= self.place.most_layers)

    def _busy(self) -> Flags:
        first, end = self._boundaries()
        busy: Flags = first < end
        return busy

    def _boundaries(self) -> tuple[Ints, Ints]:
        import numpy as np

        boundaries: Ints = np.arange(len(self.bytes_to))
        return boundaries[:, None], boundaries[None, :]


def _add_up(sizes: Sequence[Sequence[int]]) -> Ints:
    """[row, boundary] sums of what comes before each boundary."""
    import numpy as np

    sums: Ints = np.cumsum(np.array([[0, *row] for row in sizes], dtype=np.int64), axis=1)
    return sums


def _differences(sums: Ints) -> Ints:
    """[first, end] what lies between."""
    between: Ints = sums[None, :] - sums[:, None]
    return between


def _values(values: Sequence[float], layers: int) -> Any:
    """Return a value for each layer; of nothing given, zeros."""
    import numpy as np

    return np.array(values or (0,) * layers)
