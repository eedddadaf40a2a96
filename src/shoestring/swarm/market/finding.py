"""The best star, and what chains make of it.

A way that nobody measured costs what the star costs, so the star's route is a chain's, too. Only
where ways were measured can a chain be better: the star's route is put in the order of the shortest
ways, then chains are sought among the groups of sellers that are worth a visit.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.beginnings import UNITS, Found
from shoestring.swarm.market.bounds import Relaxation
from shoestring.swarm.market.chains import Chains, least_score
from shoestring.swarm.market.labels import Search
from shoestring.swarm.market.orders import shortest_order
from shoestring.swarm.market.pools import chain_pool, pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.beginnings import Goal
    from shoestring.swarm.market.bounds import Bounds
    from shoestring.swarm.market.costs import Costs
    from shoestring.swarm.market.routes import Effort
    from shoestring.swarm.market.ways import Ways

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

NEARLY: Final = 1 + 1e-9
NODES: Final = 40
"""So many are looked at for chains."""
DEAREST: Final = 2.0
"""A layer of a chain is bought for at most so many times what one of a star is."""
TIGHTER: Final = (0.95, 0.85, 0.7)
AT_ONCE, WEIGHED = 2, 12
"""So many ways to weigh limits are tried before anything else, and where no route was found."""


class Finder:
    """Searches for the best route over the sellers of a market.

    Args:
        costs: theirs; they serve enough layers together.
        relaxation: of the same.
        goal: what is wanted.
        effort: how long is searched.
        rtt_ns: round trips by slot.
        ways: measured between sellers: a chain; None: a star.
    """

    def __init__(
        self,
        costs: Costs,
        relaxation: Relaxation,
        goal: Goal,
        effort: Effort,
        *,
        rtt_ns: Ints,
        ways: Ways | None,
    ) -> None:
        self._costs, self._relaxation = costs, relaxation
        self._goal, self._effort = goal, effort
        self._rtt_ns, self._ways = rtt_ns, ways
        self._limits = goal.limits / UNITS

    def best(self) -> tuple[Found, float]:
        """Return the best route that was found, and a score that no route is below.

        It is infinite where no route keeps the limits.
        """
        if any(
            self._relaxation.least(which) > self._limits[which] * NEARLY
            for which in np.flatnonzero(np.isfinite(self._limits)).tolist()
        ) or self._relaxation.impossible(self._limits, AT_ONCE):
            return Found(), np.inf
        return self._star() if self._ways is None else self._chain(self._ways)

    @cached_property
    def bounds(self) -> Bounds:
        """What is known before any route is built."""
        return self._bounds(1.0)

    def _bounds(self, aim: float) -> Bounds:
        return self._relaxation.bounds(self._goal.weights, self._limits, aim=aim)

    def _star(self) -> tuple[Found, float]:
        search, left_out = self._search(self.bounds)
        first, _ = search.best(Found(), self._effort.first_labels, greedy=True)
        if not first.steps:
            if self._relaxation.impossible(self._limits, WEIGHED):
                return Found(), np.inf
            first = self._with_room()
        found, floor = search.best(first, self._effort.labels)
        return found, min(floor, self.bounds.floor + left_out)

    def _with_room(self) -> Found:
        """Return a route sought as if limits were tighter, and so more likely to keep them."""
        for tighter in TIGHTER:
            search, _ = self._search(self._bounds(tighter))
            found, _ = search.best(Found(), self._effort.first_labels, greedy=True)
            if found.steps:
                return found
        return Found()

    def _search(self, bounds: Bounds) -> tuple[Search, float]:
        places, left_out = pool(self._costs, bounds, self._goal.layers, self._effort.nodes)
        costs = self._costs.take(places)
        saved = None if self._ways is None else self._ways.saved_ns(costs.slots, self._rtt_ns)
        return Search(places, costs, bounds.take(places), self._goal, saved), left_out

    def _chain(self, ways: Ways) -> tuple[Found, float]:
        """Make the best star shorter along ways, then look for better chains near to it."""
        costs = self._costs.as_star()
        star = Finder(
            costs, Relaxation(costs, self._goal.layers), self._goal, self._effort,
            rtt_ns=self._rtt_ns, ways=None,
        )  # fmt: skip
        found, _ = star.best()
        if not found.steps and self._relaxation.impossible(self._limits, WEIGHED):
            return Found(), np.inf
        guide = star.bounds if found.steps else self.bounds
        found, floor = self._linked(self._shorter(found, ways), guide, ways)
        if self._effort.chain_labels:
            search, left_out = self._search(self.bounds)
            found, proven = search.best(found, self._effort.chain_labels)
            floor = max(floor, min(proven, self.bounds.floor + left_out))
        return found, floor

    def _shorter(self, found: Found, ways: Ways) -> Found:
        """Return a route gone along the ways between its neighbours, in a better order if any."""
        if not found.steps:
            return found
        places, layers = np.array(found.steps).T
        costs = self._costs.take(places)
        saved_ns = ways.saved_ns(costs.slots, self._rtt_ns)
        for order in (shortest_order(costs, layers, saved_ns), np.arange(len(layers))):
            sums = costs.sums(order, layers[order], saved_ns[order[:-1], order[1:]])
            # Times of a prompt are rounded way by way: a shorter order can be longer by that.
            if np.all(sums <= self._goal.limits):
                break
        steps = zip(places[order].tolist(), layers[order].tolist(), strict=True)
        return Found(self._goal.score(sums), tuple(steps), *sums.tolist())

    def _linked(self, found: Found, guide: Bounds, ways: Ways) -> tuple[Found, float]:
        """Return the best of a route and of chains near to it, and what none scores below.

        Limits are priced as the guide has them, then lower or higher as they are kept or not.
        """
        taken = np.array([place for place, _ in found.steps], dtype=np.int64)
        places = chain_pool(self._costs, guide, taken, min(NODES, self._effort.nodes))
        costs = self._costs.take(places)
        chains = Chains(places, costs, self._goal, ways.saved_ns(costs.slots, self._rtt_ns))
        prices = guide.multipliers - self._goal.weights
        low, high, share = 0.0, np.inf, 1.0
        for _ in range(self._effort.chains if prices.any() else 1):
            found, kept = chains.best(found, self._goal.weights + share * prices)
            low, high = (low, share) if kept else (share, high)
            share = low * 2 if np.isinf(high) else (low + high) / 2
        return self._shorter(found, ways), self._floor(guide)

    def _floor(self, guide: Bounds) -> float:
        """Return what no chain within the limits scores less than, by some prices of theirs."""
        given = np.isfinite(self._limits)
        prices = guide.multipliers - self._goal.weights
        least = least_score(
            self._costs, self._goal.layers, guide.multipliers, DEAREST * guide.layer_price
        )
        return least - float(prices[given] @ self._limits[given])
