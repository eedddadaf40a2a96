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
        # Of the longest run of one seller first, as rows of what was reached before come.
        self._counts = np.arange(int(costs.most.max()), 0, -1)[:, None]
        at = np.arange(goal.layers + 1)[:, None]
        self._too_early: Bools = costs.first > at
        self._too_late: Bools = costs.end < at

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

        Shapes (layers + 1, n): scores; (2, layers + 1, n): the others.
        """
        layers, sellers, longest = self._goal.layers, len(self._of), len(self._counts)
        more = multipliers @ self._visit + self._counts * (multipliers @ self._layer)
        more[self._counts > self._of.most] = np.inf
        saved = self._saved_ns * float(multipliers[1] + multipliers[2] * self._of.trips)
        saved /= NANOSECONDS
        everybody = np.arange(sellers)
        score = np.full((layers + 1, sellers), np.inf)
        coming = np.full((2, *score.shape), -1)
        # By layers and who comes next: the least score, and who was the last. That is nobody first.
        here, last = np.full(score.shape, np.inf), np.full(score.shape, -1)
        here[0, ~self._too_early[0]] = 0
        used = np.zeros((layers + 1, sellers + 1, sellers), dtype=bool)
        for at in range(1, layers + 1):
            begin = max(0, at - longest)
            longer = here[begin:at] + more[begin - at :]
            before = longer.argmin(axis=0)
            score[at] = longer[before, everybody]
            score[at, self._too_late[at]] = np.inf
            before += begin
            by = last[before, everybody]
            coming[0, at], coming[1, at] = by, at - before
            now = used[at, :-1]
            now[:] = used[before, by]
            now[everybody, everybody] = True
            reached = np.where(now, np.inf, score[at, :, None] - saved)
            nearest = reached.argmin(axis=0)
            last[at], here[at] = nearest, reached[nearest, everybody]
            here[at, self._too_early[at]] = np.inf
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
    # Whoever is not worth a visit at the highest price is not at a lower one.
    gain = np.minimum(each - dearest, 0) * costs.most
    worth = visits + np.bincount(group, gain, len(visits)) < 0
    asked = np.flatnonzero(worth[group] & (gain < 0))
    visits, group = visits[worth], (np.cumsum(worth) - 1)[group[asked]]
    low, high = float(each.min()), dearest
    each, most = each[asked], costs.most[asked]
    best = -np.inf
    for _ in range(HALVINGS):
        price = (low + high) / 2
        gain = np.minimum(each - price, 0) * most
        value = np.minimum(visits + np.bincount(group, gain, len(visits)), 0)
        best = max(best, price * layers + float(value.sum()))
        bought = int(most[(gain < 0) & (value[group] < 0)].sum())
        low, high = (low, price) if bought >= layers else (price, high)
    return best
