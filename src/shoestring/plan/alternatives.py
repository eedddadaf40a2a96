"""How else people lay a model out, scored by the same sums as the best split.

::

    equal        every card the same share of the layers
    by memory    shares as the free memory, what llama.cpp does without ``--tensor-split``
    by hand      the user's own shares, as after ``--tensor-split``
    from back    cards filled from the last to the first, the rest in RAM, what ``--fit`` does

Shares become layers by llama.cpp's own rule (``src/llama-model.cpp``, ``load_tensors``), in the
numbers of 32 bits that it uses: the output counts as one more layer, and layers that are on no
card are the first ones. Its ``--fit`` fills whole layers, then parts of one more; here whole ones.
All of it holds for rows that begin with the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.plan.split import score
from shoestring.plan.split_sums import MOST, Sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.plan.split import Problem, Run, Split

ALIKE = 0.0005
"""Splits whose times differ by a smaller share are as fast."""
NAMED = 3
"""So many places that are too small are named, those that lack most."""
LEAST_SHARE = 1e-30
"""Below it a number of 32 bits has no digits left to divide by."""


@dataclass(frozen=True)
class Alternative:
    """Another way, beside the best one.

    Attributes:
        name: of the way.
        split: with as much on cards as the best one has.
        mended: where that does not fit, what the same way does with as much as fits; None: nothing
            fits, or nothing has to be mended.
        reason: in one line, why it is no better.
    """

    name: str
    split: Split
    mended: Split | None
    reason: str


def list_alternatives(problem: Problem, best: Split) -> list[Alternative]:
    """Return the ways that need nothing from the user; without cards there are none.

    Args:
        problem: whose first place is the host.
        best: the split that they are held against; where it leaves the cards alone, shares of
            them are none.
    """
    rooms = [max(0, min(place.room_bytes, MOST - 1)) for place in problem.places if not place.host]
    ways = []
    if count_gpu_layers(problem, best) and any(rooms):
        ways = [
            by_shares(problem, best, "equal", [1.0] * len(rooms)),
            by_shares(problem, best, "by memory", rooms),
        ]
    if rooms:
        back = fill_from_back(problem)
        ways.append(Alternative("from back", back, None, compare(problem, back, best)))
    return ways


def by_shares(
    problem: Problem,
    best: Split,
    name: str,
    shares: Sequence[float],
    *,
    gpu_layers: int | None = None,
) -> Alternative:
    """Score a model that is shared out, with a number of layers on cards.

    Args:
        problem: whose first place is the host.
        best: the split that it is held against; as many layers keep their experts in RAM.
        name: of the way.
        shares: of the places that are not the host, in their order.
        gpu_layers: as after ``--n-gpu-layers``, the output counts; None: as many as the best has.
    """

    def lay(number: int) -> Split:
        runs, output = share_out(problem, shares, number)
        return score(problem, runs, output=output, expert_layers=best.expert_layers)

    wanted = count_gpu_layers(problem, best) if gpu_layers is None else gpu_layers
    split = lay(wanted)
    if split.fits:
        return Alternative(name, split, None, compare(problem, split, best))
    tried = ((wanted - fewer, lay(wanted - fewer)) for fewer in range(1, wanted + 1))
    number, mended = next(((number, lower) for number, lower in tried if lower.fits), (0, None))
    reason = compare(problem, split, best)
    if mended is not None:
        reason += f"; with {number} layers on GPUs it fits: {compare(problem, mended, best)}"
    return Alternative(name, split, mended, reason)


def share_out(problem: Problem, shares: Sequence[float], gpu_layers: int) -> tuple[list[Run], int]:
    """Return the runs and the place of the output that llama.cpp makes of shares.

    Args:
        problem: whose first place is the host.
        shares: of the other places, in their order.
        gpu_layers: as after ``--n-gpu-layers``; more than there are: all, and the output.

    Raises:
        BadValueError: a share is negative or no number, all are 0, or the layers are negative.
    """
    import numpy as np

    _check(shares, gpu_layers)
    layers = problem.layers
    counted = min(gpu_layers, layers + 1) if shares else 0
    first = max(0, layers + 1 - counted)
    ends = np.cumsum(np.array(shares or (1.0,), dtype=np.float32), dtype=np.float32)
    ends /= ends[-1]
    parts = np.arange(layers + 1 - first).astype(np.float32) / np.float32(max(counted, 1))
    cards = np.searchsorted(ends, parts, side="right") + 1
    on_card = np.arange(len(parts)) < counted
    places = [0] * first + [int(card) for card in np.where(on_card, cards, 0)]
    counts = [places[:layers].count(index) for index in range(len(problem.places))]
    return [*pairwise([0, *accumulate(counts)])], places[layers]


def _check(shares: Sequence[float], gpu_layers: int) -> None:
    given = ",".join(f"{share:g}" for share in shares)
    if gpu_layers < 0:
        raise BadValueError(f"--n-gpu-layers {gpu_layers}: give a number from 0 on")
    if not all(0 <= share < MOST for share in shares):
        raise BadValueError(f"--tensor-split {given}: give each device a share from 0 on")
    if shares and not max(shares) > LEAST_SHARE:
        raise BadValueError(f"--tensor-split {given}: give at least one device a share")


def fill_from_back(problem: Problem) -> Split:
    """Fill the last card with the output and the last layers, then the one before it, and so on.

    As few experts as possible are left in RAM if that brings every layer onto a card; if nothing
    does, all of them are.
    """
    sums = Sums(problem)
    numbers = [number for number, size in enumerate(problem.expert_bytes, 1) if size]
    for number in [0, *numbers]:
        edges = _fill(sums, number)
        if edges[1] == 0:
            break
    inner = [min(edge, problem.layers) for edge in edges]
    output = max(index for index, edge in enumerate(edges[:-1]) if edge <= problem.layers)
    return score(problem, [*pairwise(inner)], output=output, expert_layers=number)


def _fill(sums: Sums, expert_layers: int) -> list[int]:
    """Return the boundaries of the runs of units, the output being the last unit."""
    edges = [sums.problem.layers + 1]
    for index in range(len(sums.problem.places) - 1, 0, -1):
        fits = sums.of(index, expert_layers).fitting()[:, edges[0]]
        edges.insert(0, int(fits.argmax()) if fits.any() else edges[0])
    return [0, *edges]


def count_gpu_layers(problem: Problem, split: Split) -> int:
    """Return the number for ``--n-gpu-layers``: all that is not on the host.

    The output is counted with the last layers, even where it stays on the host.
    """
    cards = [
        end - first
        for place, (first, end) in zip(problem.places, split.runs, strict=True)
        if not place.host
    ]
    return sum(cards) + (not problem.places[split.last].host)


def compare(problem: Problem, split: Split, best: Split) -> str:
    """Say in one line why a split is no better than the best."""
    if not split.fits:
        over = zip(split.over_bytes, problem.places, strict=True)
        lacking = sorted((pair for pair in over if pair[0]), key=lambda pair: -pair[0])
        named = [f"{place.name} lacks {-(-size // 2**20):,} MiB" for size, place in lacking]
        more = [f"{len(named) - NAMED} more places"] if len(named) > NAMED else []
        return f"does not fit: {', '.join(named[:NAMED] + more)}"
    slower = split.token_s / best.token_s - 1 if best.token_s else 0.0
    if slower < -ALIKE:
        return f"{-slower:.1%} faster, by other rules than the plan's"
    return f"{slower:.1%} slower" if slower > ALIKE else "as fast"
