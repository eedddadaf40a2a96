"""Chains along measured ways: layer by layer, the best route that ends at each seller.

Limits are put into the goal at prices (multipliers), so that a route has one score. A state is how
far a route got and who computed last, since a way is shorter from some sellers than from others;
of all routes to a state the best is kept, and none that comes to a seller twice. That one may have
used whom a better end of the route would need, so nothing is proven by it: it makes a known route
better, and :func:`least_score` says what no chain can be below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.beginnings import Found
from shoestring.swarm.market.board import NANOSECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.beginnings import Goal
    from shoestring.swarm.market.costs import Costs

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

HALVINGS: Final = 8
ENDS: Final = 6
"""So many last sellers are tried."""


class Chains:
    """Chains over a pool of sellers.

    Args:
        places: of the pool among all sellers.
        costs: of the pool.
        goal: what is wanted.
        saved_ns: of each two as neighbours (n, n).
    """

    def __init__(self, places: Ints, costs: Costs, goal: Goal, saved_ns: Ints) -> None:
        self._places, self._of, self._goal = places, costs, goal
        self._saved_ns = saved_ns
        self._visit, self._layer = costs.visit(), costs.layer()
        self._counts = np.arange(1, int(costs.most.max()) + 1)[:, None]
        at = np.arange(goal.layers)[:, None, None]
        self._serves: Bools = (costs.first <= at) & (at + self._counts <= costs.end)
        self._serves &= self._counts <= costs.most

    def best(self, known: Found, multipliers: Floats) -> tuple[Found, bool]:
        """Return the better of a known route and of the chains that are best at some prices.

        Args:
            known: a route.
            multipliers: scores of a micro-credit, a second a token, a second to the first (3,).

        Returns:
            It, and whether any of those chains keeps the limits.
        """
        score, coming = self._states(multipliers)
        kept = False
        for last in np.argsort(score[self._goal.layers])[:ENDS].tolist():
            if not np.isfinite(score[self._goal.layers, last]):
                break
            found = self._ending(coming, last)
            if found is not None:
                kept = True
                known = min(known, found, key=lambda one: one.score)
        return known, kept

    def _states(self, multipliers: Floats) -> tuple[Floats, Ints]:
        """Return scores, and who came before (-1: nobody) and how many layers, of all states.

        Shapes (layers and more, n): scores; (2, layers and more, n): the others.
        """
        of, layers, sellers = self._of, self._goal.layers, len(self._of)
        longest = len(self._counts)
        score = np.full((layers + longest, sellers), np.inf)
        coming = np.full((2, *score.shape), -1)
        # The last seller is nobody.
        used = np.zeros((layers + 1, sellers + 1, sellers), dtype=bool)
        more = multipliers @ self._visit + self._counts * (multipliers @ self._layer)
        saved = self._saved_ns * float(multipliers[1] + multipliers[2] * of.trips) / NANOSECONDS
        everybody = np.arange(sellers)
        here, last = np.zeros(sellers), np.full(sellers, -1)
        for at in range(layers):
            if at > 0:
                ends = np.flatnonzero(np.isfinite(score[at]))
                if not len(ends):
                    continue
                by, count = coming[:, at, ends]
                now = used[at - count, by]
                now[np.arange(len(ends)), ends] = True
                used[at, ends] = now
                reached = score[at, ends, None] - saved[ends]
                reached[now] = np.inf
                nearest = reached.argmin(axis=0)
                here, last = reached[nearest, everybody], ends[nearest]
            ahead = slice(at + 1, at + 1 + longest)
            longer = here + more
            better = longer < score[ahead]
            better &= self._serves[at]
            np.copyto(score[ahead], longer, where=better)
            np.copyto(coming[0, ahead], last, where=better)
            np.copyto(coming[1, ahead], self._counts, where=better)
        return score, coming

    def _ending(self, coming: Ints, last: int) -> Found | None:
        """Return the chain that ends at a seller; None: it breaks a limit."""
        steps, at, seller = [], self._goal.layers, last
        while at > 0:
            before, count = coming[:, at, seller].tolist()
            steps.append((seller, count))
            at, seller = at - count, before
        steps.reverse()
        sellers, layers = np.array(steps).T
        saved_ns = self._saved_ns[sellers[:-1], sellers[1:]]
        sums = self._of.sums(sellers, layers, saved_ns)
        if np.any(sums > self._goal.limits):
            return None
        named = zip(self._places[sellers].tolist(), layers.tolist(), strict=True)
        return Found(self._goal.score(sums), tuple(named), *sums.tolist())


def least_score(costs: Costs, layers: int, multipliers: Floats, dearest: float) -> float:
    """Return what no chain scores less than.

    Layers are bought at one price from groups of sellers who know their ways to each other: who
    takes any of a group goes there by its shortest round trip at least, once.

    Args:
        costs: of all sellers.
        layers: to be bought.
        multipliers: scores of a micro-credit, a second a token, a second to the first (3,).
        dearest: a layer is not bought for more; whatever it is, the bound holds.
    """
    group, hop_ns = costs.visited()
    visits = np.zeros(int(group.max()) + 1)
    visits[group] = hop_ns * float(multipliers[1] + multipliers[2] * costs.trips) / NANOSECONDS
    each = multipliers @ costs.layer()
    low, high = float(each.min()), dearest
    best = -np.inf
    for _ in range(HALVINGS):
        price = (low + high) / 2
        gain = np.minimum(each - price, 0) * costs.most
        value = np.minimum(visits + np.bincount(group, gain, len(visits)), 0)
        best = max(best, price * layers + float(value.sum()))
        bought = int(costs.most[(gain < 0) & (value[group] < 0)].sum())
        low, high = (low, price) if bought >= layers else (price, high)
    return best
