"""The order of a route's sellers: two change places, or one goes elsewhere, while that shortens it.

The order changes neither the price nor what layers take; ways alone become shorter.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.costs import Costs

    Ints = NDArray[np.int64]

MOST: Final = 24
"""Routes of more sellers stay as they are: changes grow as the square."""


def shortest_order(costs: Costs, layers: Ints, saved_ns: Ints) -> Ints:
    """Return an order of sellers that no one change makes shorter, by their place here.

    Args:
        costs: of the sellers, in an order that they can serve in.
        layers: that each takes.
        saved_ns: of each two as neighbours (n, n).
    """
    order = np.arange(len(layers))
    if len(order) > MOST or not saved_ns.any():
        return order
    changes = _changes(len(layers))
    saved = -1
    while True:
        orders = order[changes]
        ends = np.cumsum(layers[orders], axis=1)
        serves = (ends - layers[orders] >= costs.first[orders]) & (ends <= costs.end[orders])
        savings = saved_ns[orders[:, :-1], orders[:, 1:]].sum(axis=1)
        savings[~serves.all(axis=1)] = -1
        best = int(savings.argmax())
        if savings[best] <= saved:
            return order
        order, saved = orders[best], int(savings[best])


@cache
def _changes(count: int) -> Ints:
    """Return the order as it is, and with one change (n, count)."""
    same = list(range(count))
    found = {tuple(same)}
    for one in range(count):
        for other in range(count):
            moved = [place for place in same if place != one]
            moved.insert(other, one)
            swapped = same.copy()
            swapped[one], swapped[other] = other, one
            found |= {tuple(moved), tuple(swapped)}
    return np.array(sorted(found))
