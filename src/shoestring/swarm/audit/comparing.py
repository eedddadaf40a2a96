"""Whether two sides gave the same answers to a window.

Within a numerics class (the same program on the same kind of device) they give the same bytes, and
BLAKE3 tells. Between classes sums are rounded in another order, and activations are compared as
numbers: relative L2 distance ``|a - b| / |b|`` and cosine, both over one answer. The tolerances are
above what differing kernels of one model gave, and below what a cheat gives (benchmarks/
swarm_audit.py measures both); a cheat that stays below them is not found between classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shoestring.errors import ShoestringError
from shoestring.swarm.tensors import NUMBER_OF_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoestring.swarm.audit.windows import Given, Question

FLOATS: Final = {NUMBER_OF_TYPE["F32"]: "<f4", NUMBER_OF_TYPE["F16"]: "<f2"}


class IncomparableError(ShoestringError):
    """Two sides cannot be compared, and nothing is known of either."""


@dataclass(frozen=True)
class Tolerance:
    """How far apart two sides of differing classes may be.

    Attributes:
        relative: L2 distance by the L2 norm of the other, at most.
        cosine: at least.
    """

    relative: float = 0.25
    cosine: float = 0.97


@dataclass(frozen=True)
class Difference:
    """The first answer that differs.

    Attributes:
        number: of the question in the window, from 0.
        name: of the tensor.
        relative: L2 distance; None: it was compared by its bytes, or is not finite.
        cosine: likewise.
    """

    number: int
    name: str
    relative: float | None = None
    cosine: float | None = None

    def __str__(self) -> str:
        how = "" if self.relative is None else f", {self.relative:.2g} apart"
        return f"answer {self.number} ({self.name}{how})"


def first_difference(
    questions: Sequence[Question], one: Given, other: Given, tolerance: Tolerance | None
) -> Difference | None:
    """Return the first answer that two sides gave differently; None: they agree.

    Args:
        questions: of the window.
        one: who is looked at.
        other: who ran it again.
        tolerance: between classes; None: they are of one class.

    Raises:
        IncomparableError: no answer of both is there to be compared.
    """
    compared = 0
    for number, question in enumerate(questions):
        digests = one.digests[number], other.digests[number]
        if None in digests:
            continue
        if digests[0] == digests[1]:
            compared += 1
            continue
        if tolerance is None:
            return Difference(number, question.name)
        ours, theirs = (_numbers(question, side.data[number]) for side in (one, other))
        if ours is None or theirs is None:
            continue
        compared += 1
        distance = distance_of(ours, theirs)
        if distance is None:
            return Difference(number, question.name)
        if distance[0] > tolerance.relative or distance[1] < tolerance.cosine:
            return Difference(number, question.name, *distance)
    if not compared:
        raise IncomparableError("no answer of both sides is there: nothing was compared")
    return None


def distance_of(one: NDArray[Any], other: NDArray[Any]) -> tuple[float, float] | None:
    """Return relative L2 distance and cosine of two; None: one holds what is no finite number.

    Of two that are all zeros the distance is 0 and the cosine 1.
    """
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return None
    a, b = one.astype(np.float64), other.astype(np.float64)
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if 0 in norms:
        return (0.0, 1.0) if norms[0] == norms[1] else (float(max(norms) > 0), 0.0)
    return float(np.linalg.norm(a - b)) / norms[1], float(a @ b) / (norms[0] * norms[1])


def _numbers(question: Question, data: bytes | None) -> NDArray[Any] | None:
    """Return an answer's numbers; None: they are not there, or no floats."""
    kind = FLOATS.get(question.type)
    return None if data is None or kind is None else np.frombuffer(data, kind)
