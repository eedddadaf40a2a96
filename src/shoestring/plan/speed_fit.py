"""Finds the constants of the law of :mod:`shoestring.plan.speed_terms`, and how far it is off.

What is fitted is the logarithm of the time, so an error of a tenth counts the same on a Raspberry
Pi and an H100. Every constant is held near a value by a spring (a normal prior; :data:`PRIORS`): a
generation of one card is mostly its driver's mean, one of ten is mostly its own. Rows that disagree
by much count less (a pseudo-Huber weight). The springs are the same for all folds; those of GPUs
were not tuned on the errors. Which terms the law has, and how far rows of processors are trusted,
was chosen among a few variants by the errors on these same rows (``docs/speed.md`` lists them).

Errors are those of devices that the fit has not seen: each is left out in turn, under all its
labels. The half-width of an interval is the quantile of these errors, with the correction for a
finite number (split conformal, (n + 1) * 80 % of them rounded up).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from shoestring.plan.speed_terms import add_up

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from shoestring.plan.speed_terms import Constants, Term

    Floats: TypeAlias = NDArray[np.float64]
    Priors: TypeAlias = Mapping[str, tuple[float, float]]

PRIORS: Priors = {
    "memory": (0.07, 0.1),
    "memory/driver": (0.0, 0.15),
    "memory/generation": (0.0, 0.08),
    "compute": (0.0, 1.0),
    "compute/family": (0.0, 0.7),
    "launch": (1.0, 1.0),
    "launch/driver": (0.0, 0.5),
    "launch/generation": (0.0, 0.3),
    "launch/old": (0.0, 1.0),
    "launch/experts": (0.0, 0.7),
    "fill": (1.0, 1.0),
    "fill/driver": (0.0, 0.5),
    "fill/generation": (0.0, 0.3),
    "fill/flash": (0.0, 0.3),
    "fill/wide": (0.0, 0.3),
    "fill/old": (0.0, 1.0),
}
"""Mean and standard deviation of a constant, by the first parts of its name, on GPUs."""
PROCESSOR_PRIORS: Priors = {
    "memory": (0.5, 0.5),
    "memory/driver": (0.0, 0.01),
    "memory/generation": (0.0, 0.2),
    "memory/type": (0.0, 0.4),
    "launch": (1.0, 0.5),
    "launch/driver": (0.0, 0.01),
    "launch/generation": (0.0, 0.01),
    "choice": (0.0, 0.3),
    "fill": (1.0, 1.0),
    "fill/driver": (0.0, 0.01),
    "fill/generation": (0.0, 0.3),
    "fill/type": (0.0, 0.5),
}
"""The same on processors."""
COVERED = 0.8
"""Share of devices whose speed lies in the interval."""
ROUNDS = 50
STEP = 0.7
"""The most that a constant moves in one round."""
DONE = 1e-8


@dataclass(frozen=True)
class Noise:
    """How far rows lie from a right law, as a share.

    Attributes:
        usual: the standard deviation.
        large: from which error on a row counts less and less.
    """

    usual: float
    large: float


DECODE_NOISE = Noise(0.08, 0.15)
PREFILL_NOISE = Noise(0.15, 0.3)
PROCESSOR_NOISE = Noise(0.4, 0.6)
"""Of rows of many engines, builds and numbers of threads."""


@dataclass(frozen=True)
class Timed:
    """A measured time and what the law says of it.

    Attributes:
        group: what is left out together.
        terms: of the law.
        seconds: measured.
    """

    group: Hashable
    terms: tuple[Term, ...]
    seconds: float


def fit_constants(rows: Sequence[Timed], priors: Priors, noise: Noise) -> dict[str, float]:
    """Return the constants of the law for which the rows are likeliest.

    Args:
        rows: at least one.
        priors: of each constant, by the first parts of its name.
        noise: of the rows.
    """
    import numpy as np

    names = sorted({name for row in rows for term in row.terms for name in term.names})
    springs = [_spring(name, priors) for name in names]
    means = np.array([mean for mean, _ in springs])
    weights = np.array([deviation**-2 for _, deviation in springs])
    table = _Table(rows, names)
    values = means.copy()
    for _ in range(ROUNDS):
        off, slopes = table.linearise(values)
        trust = 1 / np.sqrt(1 + (off / noise.large) ** 2) / noise.usual**2
        pull = slopes.T @ (trust * off) - weights * (values - means)
        step = np.linalg.solve((slopes * trust[:, None]).T @ slopes + np.diag(weights), pull)
        largest = float(np.abs(step).max())
        values += step * min(1.0, STEP / max(largest, DONE))
        if largest < DONE:
            break
    return {name: float(value) for name, value in zip(names, values, strict=True)}


class _Table:
    """All terms of all rows as arrays."""

    def __init__(self, rows: Sequence[Timed], names: Sequence[str]) -> None:
        import numpy as np

        places = {name: place for place, name in enumerate(names)}
        terms = [(index, term) for index, row in enumerate(rows) for term in row.terms]
        self._rows = np.array([index for index, _ in terms])
        self._starts = np.flatnonzero(np.diff(self._rows, prepend=-1))
        self._base = np.array([term.base_s for _, term in terms])
        self._times = np.zeros((len(terms), len(names)))
        for line, (_, term) in enumerate(terms):
            for name, times in term.names.items():
                self._times[line, places[name]] = times
        self._measured = np.log([row.seconds for row in rows])

    def linearise(self, values: Floats) -> tuple[Floats, Floats]:
        """Return how far each row is off, as a logarithm, and its slope by each constant."""
        import numpy as np

        parts = self._base * np.exp(self._times @ values)
        totals = np.add.reduceat(parts, self._starts)
        shares = parts / totals[self._rows]
        slopes = np.add.reduceat(self._times * shares[:, None], self._starts)
        return self._measured - np.log(totals), slopes


def _spring(name: str, priors: Priors) -> tuple[float, float]:
    """Return mean and deviation of a constant: those of the longest first parts of its name."""
    parts = name.split("/")
    for length in range(len(parts), 0, -1):
        found = priors.get("/".join(parts[:length]))
        if found is not None:
            return found
    raise KeyError(name)


def leave_out(
    rows: Sequence[Timed],
    priors: Priors,
    noise: Noise,
    group: Callable[[Timed], Hashable] = lambda row: row.group,
) -> list[float]:
    """Return for each row the predicted speed over the measured one, less 1.

    Args:
        rows: to fit and to judge.
        priors: as in :func:`fit_constants`.
        noise: likewise.
        group: rows of which one value are predicted by a fit of all others.
    """
    errors = [math.nan] * len(rows)
    for left in dict.fromkeys(group(row) for row in rows):
        constants = fit_constants([row for row in rows if group(row) != left], priors, noise)
        for index, row in enumerate(rows):
            if group(row) == left:
                errors[index] = error_of(row, constants)
    return errors


def error_of(row: Timed, constants: Constants) -> float:
    """Return by which share a predicted speed is above the measured one."""
    return row.seconds / add_up(row.terms, constants) - 1


def half_width(errors: Iterable[float]) -> float:
    """Return the half-width of an interval of logarithms that covers 80 % of unseen devices."""
    sizes = sorted(abs(math.log1p(error)) for error in errors)
    return sizes[min(len(sizes), math.ceil((len(sizes) + 1) * COVERED)) - 1]
