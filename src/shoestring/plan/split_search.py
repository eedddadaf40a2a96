"""Dynamic programming over places and runs: the fastest split, and the least that one needs.

``reached[end]`` is the least ticks with which the places so far hold all units before ``end``; the
next place takes the units from some ``first`` on. Where many numbers of layers with experts in RAM
are to be tried, only that least is found at first, for all numbers at once: those starts of a run
that leave it within its room are neighbours, and the least over neighbours comes from a table of
the least over every 1, 2, 4, 8 ... of them. The runs themselves are traced for the winner alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.plan.split_sums import MOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoestring.plan.split_sums import Flags, Ints, Part, Sums


def find_fastest(
    sums: Sums, expert_layers: Sequence[int]
) -> tuple[list[tuple[int, int]], int, int] | None:
    """Return the runs of the fastest split, its output's place and its layers of experts in RAM.

    Args:
        sums: of the problem.
        expert_layers: the numbers of layers to try, ascending.

    Returns:
        None where no split fits.
    """
    best = 0
    if len(expert_layers) > 1:
        best = int(_least_ticks(sums, expert_layers).argmin())
    found = _trace(sums, expert_layers[best])
    return None if found is None else (*found, expert_layers[best])


def find_needed(sums: Sums, expert_layers: Sequence[int]) -> list[int | None]:
    """Return for each place the least room with which a split fits, the other rooms being given."""
    return least_of([[*_needed(sums, number)] for number in expert_layers])


def least_of(cases: Sequence[Sequence[int | None]]) -> list[int | None]:
    """Return for each place the least room of several cases, None where there is none in any."""
    return [
        min((size for size in sizes if size is not None), default=None)
        for sizes in zip(*cases, strict=True)
    ]


def _trace(sums: Sums, expert_layers: int) -> tuple[list[tuple[int, int]], int] | None:
    """Return the fastest runs, of equal ones those whose fullest place is the least full."""
    import numpy as np

    reached = np.full(len(sums.units), MOST)
    reached[0] = 0
    fullest = np.zeros(len(sums.units))
    starts = []
    for index in range(len(sums.problem.places)):
        part = sums.of(index, expert_layers)
        ticks = (reached[:, None] + part.costs()).clip(max=MOST)
        full = np.maximum(fullest[:, None], part.demands() / max(part.room_bytes, 1))
        reached = ticks.min(axis=0)
        full = np.where(ticks == reached, full, np.inf)
        starts.append(full.argmin(axis=0))
        fullest = full.min(axis=0)
    return _follow(starts, sums.problem.layers) if reached[-1] < MOST else None


def _follow(starts: Sequence[Ints], layers: int) -> tuple[list[tuple[int, int]], int]:
    """Return the runs, from the last to the first, and the place of the output."""
    runs: list[tuple[int, int]] = []
    end, output = layers + 1, 0
    for index in reversed(range(len(starts))):
        first = int(starts[index][end])
        if first <= layers < end:
            output = index
        runs.insert(0, (min(first, layers), min(end, layers)))
        end = first
    return runs, output


def _least_ticks(sums: Sums, expert_layers: Sequence[int]) -> Ints:
    """[case] ticks of the fastest split, ``MOST`` where none fits."""
    import numpy as np

    cases = np.array(expert_layers)[:, None]
    reached = np.full((len(cases), len(sums.units)), MOST)
    reached[:, 0] = 0
    for index in range(len(sums.problem.places)):
        reached = _extend(reached, sums.of(index, cases))
    least: Ints = reached[:, -1]
    return least


def _extend(reached: Ints, part: Part) -> Ints:
    """[case, end] the least ticks with one more place."""
    import numpy as np

    table = _table(reached - part.ticks_to)
    least = np.where(_may_be_empty(part), reached, MOST)
    for low, high in _windows(part):
        found = _least_between(table, low, high) + part.ticks_to + part.enter_ticks
        least = np.minimum(least, found)
    return least.clip(max=MOST)


def _may_be_empty(part: Part) -> Flags:
    """[case, 1] whether the place may get nothing."""
    allowed: Flags = (part.base_bytes <= part.room_bytes) & (part.place.least_layers <= 0)
    return allowed


def _windows(part: Part) -> Iterator[tuple[Ints, Ints]]:
    """Yield [case, end] the first start, and the one after the last, of runs that have room.

    Runs from the first layers on take more room where their experts are on the host.
    """
    import numpy as np

    units = np.arange(part.bytes_to.shape[1])
    layers = units.clip(max=len(units) - 2)
    most, least = part.place.most_layers, part.place.least_layers
    low = units * 0 if most is None else layers - most
    high = units if least <= 0 else np.minimum(units, layers - least + 1)
    # Where the output may not be, no run ends after it.
    high = high * (part.takes_output | (units < units[-1]))
    streams = (part.away_to < part.away_to[:, -1:]).sum(axis=1, keepdims=True)
    room = part.room_bytes - part.base_bytes - part.fixed_bytes
    whole = part.bytes_to[0] + part.away_to[0]  # the same in all cases
    earliest = np.searchsorted(whole, whole - room)
    yield np.maximum(np.maximum(low, streams), earliest), high + streams * 0
    room = room - (part.away_to > 0) * part.stream_bytes
    yield np.maximum(low, _earliest(part.bytes_to, room)), np.minimum(high, streams)


def _earliest(bytes_to: Ints, room: Ints) -> Ints:
    """[case, end] the earliest start whose run to this end takes no more than the room."""
    import numpy as np

    cases, boundaries = bytes_to.shape
    rows = np.arange(cases)[:, None]
    apart = rows * (bytes_to[:, -1].max() + 1)  # one search in all rows, one above the other
    found = np.searchsorted((bytes_to + apart).ravel(), bytes_to + apart - room)
    earliest: Ints = (found - rows * boundaries).clip(0, boundaries)
    return earliest


def _table(values: Ints) -> Ints:
    """[level, case, first] the least of 2 ** level neighbours from a first on."""
    import numpy as np

    levels = [values]
    width = 1
    while 2 * width <= values.shape[1]:
        wider = levels[-1].copy()
        wider[:, :-width] = np.minimum(wider[:, :-width], wider[:, width:])
        levels.append(wider)
        width *= 2
    return np.stack(levels)


def _least_between(table: Ints, low: Ints, high: Ints) -> Ints:
    """[case, end] the least from ``low`` to before ``high``, ``MOST`` of none."""
    import numpy as np

    _, cases, starts = table.shape
    widths = np.maximum(high - low, 1)
    level = np.frexp(widths)[1] - 1  # of the largest power of two that is no wider
    row = (level * cases + np.arange(cases)[:, None]) * starts
    last = np.maximum(high - (1 << level), 0)
    first = np.minimum(low, starts - 1)
    least = np.minimum(table.take(row + first), table.take(row + last))
    return np.where(low < high, least, MOST)


def _needed(sums: Sums, expert_layers: int) -> Iterator[int | None]:
    import numpy as np

    parts = [sums.of(index, expert_layers) for index in range(len(sums.problem.places))]
    fitting = [part.fitting() for part in parts]
    before = sums.units == 0
    after = [sums.units == sums.units[-1]]
    for fits in reversed(fitting):
        after.insert(0, (fits & after[0][None, :]).any(axis=1))
    for part, fits, rest in zip(parts, fitting, after[1:], strict=True):
        possible = part.allowed() & before[:, None] & rest[None, :]
        yield int(np.min(part.demands()[possible])) if possible.any() else None
        before = (before[:, None] & fits).any(axis=0)
