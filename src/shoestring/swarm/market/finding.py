"""The best star, and what chains make of it.

A way that nobody measured costs what the star costs, so the star's route is a chain's, too. Only
where ways were measured can a chain be better: the star's route is put in the order of the shortest
ways, then chains are sought among the groups of sellers that are worth a visit.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.beginnings import UNITS, Found
from shoestring.swarm.market.bounds import MARGIN, most_within
from shoestring.swarm.market.chains import Chains, least_score
from shoestring.swarm.market.labels import Search
from shoestring.swarm.market.orders import shortest_order
from shoestring.swarm.market.pools import chain_pool, pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.beginnings import Goal
    from shoestring.swarm.market.bounds import Bounds, Relaxation
    from shoestring.swarm.market.routes import Effort
    from shoestring.swarm.market.ways import Ways

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

NEARLY: Final = 1 + 1e-9
WHOLE: Final = 1 + MARGIN
"""Who takes a larger share of all limits together breaks one."""
NODES: Final = 40
"""So many are looked at for chains."""
DEAREST: Final = 2.0
"""A layer of a chain is bought for at most so many times what one of a star is."""


class Finder:
    """Searches for the best route over the sellers of a market.

    Args:
        relaxation: of what they ask for the layers.
        goal: what is wanted.
        effort: how long is searched.
        rtt_ns: round trips by slot.
        ways: measured between sellers: a chain; None: a star.
    """

    def __init__(
        self,
        relaxation: Relaxation,
        goal: Goal,
        effort: Effort,
        *,
        rtt_ns: Ints,
        ways: Ways | None,
    ) -> None:
        self._costs, self._relaxation = relaxation.costs, relaxation
        self._goal, self._effort = goal, effort
        self._rtt_ns, self._ways = rtt_ns, ways
        self._limits = goal.limits / UNITS
        self._given = np.flatnonzero(np.isfinite(goal.limits)).tolist()

    def best(self) -> tuple[Found, float]:
        """Return the best route that was found, and a score that no route is below.

        It is infinite where it is proven that no route keeps the limits.
        """
        if any(
            self._relaxation.least(one) > self._limits[one] * NEARLY for one in self._given
        ) or self._relaxation.hopeless(self._limits):
            return Found(), np.inf
        return self._star() if self._ways is None else self._chain(self._ways)

    @cached_property
    def bounds(self) -> Bounds:
        """What is known before any route is built."""
        return self._relaxation.bounds(self._goal.weights, self._limits)

    def _straining(self) -> tuple[Goal, Bounds]:
        """Return another goal, the least share of all limits together, and its bounds.

        Who keeps all limits takes a share of one at most, whatever it scores.
        """
        bounds = self._relaxation.strain(self._limits)
        return replace(self._goal, weights=bounds.multipliers), bounds

    def _star(self) -> tuple[Found, float]:
        most = Found(most_within(self._goal.weights, self._limits) * WHOLE)
        if self.bounds.floor > most.score:
            return Found(), np.inf
        search, left_out = self._search(self._goal, self.bounds)
        first, _ = search.best(most, self._effort.first_labels, greedy=True)
        if not first.steps and self._given:
            first, none = self._within_limits()
            if not first.steps:
                return first, np.inf if none else -np.inf
            first = self._with_less_room(first)
        found, floor = search.best(first, self._effort.labels)
        return found, min(floor, self.bounds.floor + left_out)

    def _within_limits(self) -> tuple[Found, bool]:
        """Return a route that keeps all limits, or whether it is proven that none does."""
        goal, bounds = self._straining()
        if bounds.floor > WHOLE:
            return Found(), True
        search, left_out = self._search(goal, bounds)
        found, floor = search.best(Found(WHOLE), self._effort.first_labels, greedy=True)
        if not found.steps:
            found, floor = search.best(Found(WHOLE), self._effort.labels)
        return self._scored(found), min(floor, bounds.floor + left_out) >= WHOLE

    def _with_less_room(self, known: Found) -> Found:
        """Return a better route, sought as if limits left half of the room that one leaves."""
        costs = np.array([known.price, known.token_ns, known.first_token_ns])
        aim = (1 + float((costs / np.maximum(self._goal.limits, 1)).max())) / 2
        bounds = self._relaxation.bounds(self._goal.weights, self._limits, aim=aim)
        search, _ = self._search(self._goal, bounds)
        return search.best(known, self._effort.first_labels, greedy=True)[0]

    def _scored(self, found: Found) -> Found:
        """Return a route that was found by another goal."""
        if not found.steps:
            return Found()
        sums = np.array([found.price, found.token_ns, found.first_token_ns])
        return replace(found, score=self._goal.score(sums))

    def _search(self, goal: Goal, bounds: Bounds) -> tuple[Search, float]:
        places, left_out = pool(self._costs, bounds, self._goal.layers, self._effort.nodes)
        costs = self._costs.take(places)
        saved = None if self._ways is None else self._ways.saved_ns(costs.slots, self._rtt_ns)
        return Search(places, costs, bounds.take(places), goal, saved), left_out

    def _chain(self, ways: Ways) -> tuple[Found, float]:
        """Make the best star shorter along ways, then look for better chains near to it."""
        star = Finder(
            self._relaxation.as_star, self._goal, self._effort, rtt_ns=self._rtt_ns, ways=None
        )
        found, _ = star.best()
        if found.steps or not self._given:
            found = self._linked(self._shorter(found, ways), self._goal, star.bounds, ways)
            floor = self._floor(star.bounds)
        else:
            goal, bounds = self._straining()
            if bounds.floor > WHOLE:
                return Found(), np.inf
            found = self._scored(self._linked(found, goal, bounds, ways))
            floor = self._floor(self.bounds) if found.steps else -np.inf
        if self._effort.chain_labels:
            search, left_out = self._search(self._goal, self.bounds)
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

    def _linked(self, found: Found, goal: Goal, guide: Bounds, ways: Ways) -> Found:
        """Return the best of a route and of chains near to it.

        Limits are priced as the guide has them, then lower or higher as they are kept or not.
        """
        taken = np.array([place for place, _ in found.steps], dtype=np.int64)
        places = chain_pool(self._costs, guide, taken, min(NODES, self._effort.nodes))
        costs = self._costs.take(places)
        chains = Chains(places, costs, goal, ways.saved_ns(costs.slots, self._rtt_ns))
        prices = guide.multipliers - goal.weights
        low, high, share = 0.0, np.inf, 1.0
        for _ in range(self._effort.chains if prices.any() else 1):
            found, kept = chains.best(found, goal.weights + share * prices)
            low, high = (low, share) if kept else (share, high)
            share = low * 2 if np.isinf(high) else (low + high) / 2
        return self._shorter(found, ways)

    def _floor(self, guide: Bounds) -> float:
        """Return what no chain within the limits scores less than, by some prices of theirs."""
        prices = guide.multipliers - self._goal.weights
        least = least_score(
            self._costs, self._goal.layers, guide.multipliers, DEAREST * guide.layer_price
        )
        return least - float(prices[self._given] @ self._limits[self._given])
