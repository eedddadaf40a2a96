"""How evenly something is spread, in one number each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def gini(values: ArrayLike) -> float | None:
    """Return Gini's coefficient: 0 all have the same, towards 1 one has all.

    Half of the mean difference of any two, over the mean. None: nobody has anything.

    Args:
        values: 0 or more each.
    """
    ranked = np.sort(np.asarray(values, dtype=np.float64))
    total = float(ranked.sum())
    if not total:
        return None
    count = len(ranked)
    weights = 2 * np.arange(1, count + 1) - count - 1
    return float(weights @ ranked / (count * total))


def jain(values: ArrayLike) -> float | None:
    """Return Jain's index: 1 all have the same, 1/n one has all.

    R. Jain, D. Chiu and W. Hawe, "A quantitative measure of fairness and discrimination for
    resource allocation in shared computer systems", DEC-TR-301 (1984). None: nobody has anything.

    Args:
        values: 0 or more each.
    """
    of = np.asarray(values, dtype=np.float64)
    squares = float(of @ of)
    return float(of.sum() ** 2 / (len(of) * squares)) if squares else None
