"""The fastest way to lay a model over memories in a row: which layers where, exactly.

Layers go to *places* in the engine's order, each place a run of neighbouring layers or none, and
the output goes where the last run ends (llama.cpp: layers first on the CPU, then on each GPU), or
stays on the host::

    seconds a token = sum over places in use (enter + sum of the layers there)
    bytes at a place = fixed, once in use, + weights and caches of the layers there

Of all splits whose bytes are within every room the one of the fewest seconds is found by dynamic
programming over places and runs. Experts may lie in RAM while the rest of their layer is on a GPU:
llama.cpp does that for the first ``k`` layers (``--n-cpu-moe``); every ``k`` is tried. Of equally
fast splits it is the one with the smallest ``k``, then the one whose fullest place is the least
full, then the one that puts more at the end of the row.

Safety margins are the caller's, in the rooms. The search is in :mod:`shoestring.plan.split_search`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from shoestring.plan.split_search import find_fastest, find_needed, least_of
from shoestring.plan.split_sums import MOST, Sums

if TYPE_CHECKING:
    from collections.abc import Sequence

Run: TypeAlias = tuple[int, int]
"""First layer and the one after the last; equal: none."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A memory that holds layers and computes them.

    Attributes:
        name: in messages.
        room_bytes: free for the model and its buffers.
        layer_s: seconds a token of each layer, with its experts.
        fixed_bytes: taken once if anything is computed here (buffers for the work, a context).
        enter_s: seconds a token, once, if a layer or the output is here (link, launches).
        host: whether it is the RAM of the engine itself: the embedding lies there, and experts
            that are taken from other places do.
        takes_output: whether the output may be here; where it stays on the host, nobody is asked.
        output_bytes: taken if the output is here; where it is the embedding, 0 on the host.
        output_s: seconds a token of the output.
        expert_s: what of ``layer_s`` the experts take; empty: nothing.
        hop_s: seconds a token for each layer here whose experts are computed on the host.
        stream_bytes: taken once if experts of layers here are on the host: prompts bring them.
        least_layers: so many layers it has to get.
        most_layers: so many it may get; None: all.
    """

    name: str
    room_bytes: int
    layer_s: tuple[float, ...]
    fixed_bytes: int = 0
    enter_s: float = 0.0
    host: bool = False
    takes_output: bool = True
    output_bytes: int = 0
    output_s: float = 0.0
    expert_s: tuple[float, ...] = ()
    hop_s: float = 0.0
    stream_bytes: int = 0
    least_layers: int = 0
    most_layers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A model and a row of places for it.

    Attributes:
        weights_bytes: of each layer, experts included.
        cache_bytes: KV cache of each layer; it lies where the layer does.
        places: in the engine's order: the first of them gets the first layers.
        embedding_bytes: and whatever else the host holds in any case.
        expert_bytes: the part of each layer's weights that are experts; empty: none.
        expert_layers: so many first layers keep their experts on the host; None: what is best.
        output_stays: the host computes the output, wherever the last layers are.

    Raises:
        ValueError: not exactly one place is the host, something has no value for each layer, or a
            time is negative or no number.
    """

    weights_bytes: tuple[int, ...]
    cache_bytes: tuple[int, ...]
    places: tuple[Place, ...]
    embedding_bytes: int = 0
    expert_bytes: tuple[int, ...] = ()
    expert_layers: int | None = None
    output_stays: bool = False

    def __post_init__(self) -> None:
        if [place.host for place in self.places].count(True) != 1:
            raise ValueError("exactly one place is the host")
        for place in self.places:
            times = (*place.layer_s, *place.expert_s, place.enter_s, place.output_s, place.hop_s)
            if not all(0 <= time_s < math.inf for time_s in times):
                raise ValueError(f"{place.name}: a time is negative or no number")
            for values in (place.layer_s, place.expert_s, self.expert_bytes):
                if values and len(values) != self.layers:
                    raise ValueError(f"{place.name}: {len(values)} values, {self.layers} layers")
            if any(self.expert_bytes) and any(place.layer_s) and not place.expert_s:
                raise ValueError(f"{place.name}: what the experts take is missing")
        for weights, experts in zip(self.weights_bytes, self.expert_bytes, strict=False):
            if not 0 <= experts <= weights:
                raise ValueError(f"{experts} bytes of experts in a layer of {weights}")

    @property
    def layers(self) -> int:
        """Of the model, without the output."""
        return len(self.weights_bytes)

    @property
    def host(self) -> Place:
        """The place with the embedding."""
        return next(place for place in self.places if place.host)

    @cached_property
    def tick_s(self) -> float:
        """Seconds of a tick, a power of two: the slowest split takes less than ``MOST`` of them."""
        slowest = sum(self.host.expert_s)
        for place in self.places:
            slowest += place.enter_s + place.output_s + place.hop_s * self.layers
            slowest += sum(place.layer_s)
        return math.ldexp(1.0, math.frexp(slowest)[1]) / MOST if slowest else 1.0


@dataclass(frozen=True)
class Split:
    """A model laid out, and what that takes.

    Attributes:
        runs: the layers of each place, in the order of the places.
        output: index of the place that computes the output.
        expert_layers: so many first layers keep their experts on the host.
        used_bytes: on each place.
        over_bytes: by how much that is more than its room; 0: it fits.
        place_s: seconds a token on each place; experts on the host count where their layer is.
        token_s: seconds a token.
    """

    runs: tuple[Run, ...]
    output: int
    expert_layers: int
    used_bytes: tuple[int, ...]
    over_bytes: tuple[int, ...]
    place_s: tuple[float, ...]
    token_s: float

    @property
    def last(self) -> int:
        """Index of the last place in use; llama.cpp counts the output there, wherever it is."""
        used = [index for index, (first, end) in enumerate(self.runs) if first < end]
        return max(self.output, *used)

    @property
    def fits(self) -> bool:
        """Whether every place has room for its part."""
        return not any(self.over_bytes)


class Shortage(NamedTuple):
    """The least that would make a model fit: more room on one place.

    Attributes:
        place: which.
        needed_bytes: the smallest room there with which some split fits.
    """

    place: Place
    needed_bytes: int


def best_split(problem: Problem) -> Split | None:
    """Return the fastest split that fits; None: none does."""
    sums = Sums(problem)
    found = find_fastest(sums, _expert_layers(problem))
    if found is None:
        return None
    runs, output, expert_layers = found
    return _score(sums, runs, _host_if_stays(problem, output), expert_layers)


def score(
    problem: Problem, runs: Sequence[Run], *, output: int | None = None, expert_layers: int = 0
) -> Split:
    """Return what a given split takes, whether it fits or not.

    Args:
        problem: what its places may get is not looked at.
        runs: of each place, in order, together all layers.
        output: index of its place; None: where the last layers are. Where it stays, the host's.
        expert_layers: so many first layers keep their experts on the host.
    """
    if output is None:
        output = max(index for index, (first, end) in enumerate(runs) if first < end)
    return _score(Sums(problem), runs, _host_if_stays(problem, output), expert_layers)


def find_shortages(*problems: Problem) -> list[Shortage]:
    """Return the places on which more room alone would do, the one with the least more first.

    Args:
        problems: one, or several ways to lay a model over the same rooms, any of which will do.
    """
    ways = [find_needed(Sums(problem), _expert_layers(problem)) for problem in problems]
    shortages = [
        Shortage(place, size)
        for place, size in zip(problems[0].places, least_of(ways), strict=True)
        if size is not None
    ]
    return sorted(shortages, key=lambda each: each.needed_bytes - each.place.room_bytes)


def why_not(*problems: Problem) -> str:
    """Say in one line what the least is with which a model would fit that fits nowhere.

    Args:
        problems: as :func:`find_shortages` takes them.
    """
    shortages = find_shortages(*problems)
    if not shortages:
        return "does not fit: more room on any one place alone would not do"
    # A card does not grow; RAM may.
    named = [shortages[0], *(each for each in shortages[1:] if each.place.host)]
    return "does not fit: it needs at least " + ", or ".join(
        f"{_hundredths(needed):.2f} GiB on {place.name} "
        f"({-_hundredths(-place.room_bytes):.2f} GiB are free)"
        for place, needed in named
    )


def _hundredths(size: int) -> float:
    """Return GiB, rounded up: what is said to do has to do."""
    return math.ceil(size * 100 / 2**30) / 100


def _host_if_stays(problem: Problem, output: int) -> int:
    return problem.places.index(problem.host) if problem.output_stays else output


def _expert_layers(problem: Problem) -> list[int]:
    """Return the numbers of layers with experts in RAM that make a difference."""
    if problem.expert_layers is not None:
        return [min(problem.expert_layers, problem.layers)]
    return [0, *(layer + 1 for layer, size in enumerate(problem.expert_bytes) if size)]


def _score(sums: Sums, runs: Sequence[Run], output: int, expert_layers: int) -> Split:
    problem, places = sums.problem, sums.problem.places
    used, ticks = [], []
    for index, (first, end) in enumerate(runs):
        part = sums.of(index, expert_layers)
        size, spent = part.measure(first, end, output=index == output)
        used.append(size)
        ticks.append(spent)
    return Split(
        runs=tuple(runs),
        output=output,
        expert_layers=expert_layers,
        used_bytes=tuple(used),
        over_bytes=tuple(
            max(0, size - place.room_bytes) for size, place in zip(used, places, strict=True)
        ),
        place_s=tuple(spent * problem.tick_s for spent in ticks),
        token_s=sum(ticks) * problem.tick_s,
    )
