"""Routes built seller by seller: beginnings (labels) that another beats in everything are dropped.

A label is a beginning of a route: the layers that it covers, its price, its two times, and whom it
uses. Each round makes all labels longer by one seller. A label goes

* if a limit cannot be kept with it: its cost and the least that the rest can cost are above;
* if its floor (:mod:`shoestring.swarm.market.bounds`) is not below the best route that is known;
* if another covers the same layers, leaves it nobody that the other has used, and costs no more;
* if its last two sellers could change places, and stand in the other order than the pool has them:
  the same route is built in the pool's order.

If then there are more than are to be kept, those of the lowest floors stay; the lowest floor of
those that went is the proven bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.random import default_rng

from shoestring.swarm.ledger.amounts import PER_TOKENS
from shoestring.swarm.market.beginnings import UNITS, Found, Labels, Longer, least_of_rest, lowest
from shoestring.swarm.market.board import NANOSECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.beginnings import Goal
    from shoestring.swarm.market.bounds import Bounds
    from shoestring.swarm.market.costs import Costs

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

SLACK: Final = 1 + 1e-9
"""For sums of floats that bound sums of whole numbers."""
WIDER: Final = 6
"""So many times the labels that are kept may come next to each, and are compared in each round."""
MORE: Final = 16
"""So many times the labels that are kept are made in each round."""
NEIGHBOURS: Final = 8
"""Labels before each that it is compared with."""


class Search:
    """Routes over a pool of sellers.

    Args:
        places: of the pool among all sellers.
        costs: of the pool.
        bounds: of the same sellers.
        goal: what is wanted.
        saved_ns: of each two as neighbours (n, n); None: a star.
    """

    def __init__(
        self,
        places: Ints,
        costs: Costs,
        bounds: Bounds,
        goal: Goal,
        saved_ns: Ints | None,
    ) -> None:
        self._places = places
        self._of, self._bounds, self._goal = costs, bounds, goal
        self._saved_ns = saved_ns
        priced = bounds.multipliers
        self._visit = priced @ costs.visit() - bounds.ease
        self._layer = priced @ costs.layer() - bounds.layer_price
        self._least_visit = priced @ costs.alpha() - bounds.ease
        self._least_layer = priced @ costs.beta() - bounds.layer_price
        self._second_ns = float(priced[1] + priced[2] * costs.trips) / NANOSECONDS
        self._credit_ns = costs.credit_ns()
        self._rest = least_of_rest(costs, goal.layers)
        self._scale = goal.weights / UNITS
        self._limits = goal.limits
        # What neither counts nor is limited cannot make a label better.
        self._counts = np.flatnonzero((goal.weights > 0) | np.isfinite(goal.limits))
        self._free_everywhere = saved_ns is None and bool(
            np.all((costs.first == 0) & (costs.end == goal.layers))
        )
        self._pinned: Bools = np.zeros(len(costs), dtype=bool)
        if saved_ns is not None:
            self._pinned = saved_ns.sum(axis=1) > 0
        numbers = default_rng(0)
        self._numbers = numbers.integers(1 << 63, size=len(costs), dtype=np.uint64)
        self._numbers_at = numbers.integers(1 << 63, size=goal.layers + 1, dtype=np.uint64)
        self._segments = self._all_segments()

    def best(self, known: Found, width: int, *, greedy: bool = False) -> tuple[Found, float]:
        """Return the best route, and the lowest floor of labels that were dropped for their number.

        Args:
            known: a route; nothing above it is looked at.
            width: so many labels are kept of each length.
            greedy: each seller takes as many layers as it can: quick, and no proof.
        """
        labels = self._empty()
        history: list[Longer] = []
        dropped = np.inf if greedy else self._left_out(width)
        best = known
        while len(labels.at):
            room = self._room(best)
            if greedy:
                options, lost = self._greedy(labels), np.inf
            else:
                options, lost = self._segments_after(labels, room, width)
            dropped = min(dropped, lost)
            longer = self._longer(labels, options, room)
            best = self._finished(best, longer, history)
            open_ones = (longer.at < self._goal.layers) & (longer.excess < self._room(best))
            places, lost = self._fewer(longer, np.flatnonzero(open_ones), width)
            longer = longer.take(places)
            dropped = min(dropped, lost)
            labels = self._labels(labels, longer)
            history.append(longer)
        return best, self._bounds.floor + dropped

    def _left_out(self, width: int) -> float:
        """Return the lowest excess of what is not tried after any label."""
        _, _, excess = self._segments
        return float(excess[WIDER * width]) if len(excess) > WIDER * width else np.inf

    def _room(self, best: Found) -> float:
        """Return how much excess is still worth looking at."""
        if not np.isfinite(best.score):
            return np.inf
        return float(best.score - self._bounds.floor)

    def _empty(self) -> Labels:
        none = np.zeros(1, dtype=np.int64)
        return Labels(
            at=none, costs=np.zeros((1, 3), dtype=np.int64), excess=np.zeros(1),
            used=np.zeros((1, len(self._of)), dtype=bool), users=np.zeros(1, dtype=np.uint64),
            last=none - 1, taken=none,
        )  # fmt: skip

    def _all_segments(self) -> tuple[Ints, Ints, Floats]:
        """Return sellers, layers and excesses of all that can be bought of one, by excess."""
        seller = np.repeat(np.arange(len(self._of)), self._of.most)
        ends = np.cumsum(self._of.most)
        layers = np.arange(len(seller)) - np.repeat(ends - self._of.most, self._of.most) + 1
        excess = self._least_visit[seller] + layers * self._least_layer[seller]
        excess += self._rounding(seller, layers)
        order = np.argsort(excess)
        return seller[order], layers[order], excess[order]

    def _excess(self, seller: Ints, layers: Ints) -> Floats:
        """Return that of so many layers, the way by the client."""
        excess: Floats = self._visit[seller] + layers * self._layer[seller]
        excess += self._rounding(seller, layers)
        return excess

    def _rounding(self, seller: Ints, layers: Ints) -> Floats:
        """Return what rounding a price up adds to the score."""
        exact = layers * self._of.unit[seller]
        added: Floats = self._bounds.multipliers[0] * ((-exact % PER_TOKENS) / PER_TOKENS)
        return added

    def _segments_after(
        self, labels: Labels, room: float, width: int
    ) -> tuple[tuple[Ints, Ints, Ints], float]:
        """Return (label, seller, layers) of what may come next, and the lowest floor of what not.

        The floor is an excess.
        """
        seller, layers, excess = self._segments
        count = min(int(np.searchsorted(excess, room)), WIDER * width)
        seller, layers, excess = seller[:count], layers[:count], excess[:count]
        # Small numbers, and rows taken whole: this is where a search spends its time.
        at = labels.at.astype(np.int16)[:, None]
        fits = at >= self._of.first[seller].astype(np.int16)
        fits &= at <= (self._of.end[seller] - layers).astype(np.int16)
        fits &= ~labels.used.take(seller, axis=1)
        floor = labels.excess[:, None] + excess
        fits &= floor < room
        found, lost = lowest(floor.ravel(), np.flatnonzero(fits), MORE * width)
        parent, segment = np.divmod(found, max(1, count))
        return (parent, seller[segment], layers[segment]), lost

    def _greedy(self, labels: Labels) -> tuple[Ints, Ints, Ints]:
        at = labels.at[:, None]
        layers = np.minimum(self._of.most, self._of.end - at)
        parent, seller = np.nonzero((at >= self._of.first) & (layers > 0) & ~labels.used)
        return parent, seller, layers[parent, seller]

    def _longer(self, labels: Labels, options: tuple[Ints, Ints, Ints], room: float) -> Longer:
        """Return the longer labels that may still lead to a better route."""
        of = self._of
        parent, seller, layers = options
        fits = ~self._swapped(labels, parent, seller, layers)
        parent, seller, layers = parent[fits], seller[fits], layers[fits]
        at = labels.at[parent] + layers
        costs = labels.costs[parent]
        costs[:, 0] += -(-layers * of.unit[seller] // PER_TOKENS)
        costs[:, 1] += of.hop_ns[seller] + layers * of.layer_ns[seller]
        costs[:, 2] += of.prompt_hop_ns[seller] + layers * of.prompt_layer_ns[seller]
        excess = labels.excess[parent] + self._excess(seller, layers)
        if self._saved_ns is not None:
            excess += self._chained(labels.last[parent], seller, at, costs)
        credit = np.where(at < self._goal.layers, self._credit_ns[seller], 0)
        users = labels.users[parent] + self._numbers[seller]
        longer = Longer(parent, seller, layers, at, costs, excess, users)
        return longer.take(np.flatnonzero((excess < room) & self._keeps_limits(at, costs, credit)))

    def _keeps_limits(self, at: Ints, costs: Ints, credit: Ints) -> Bools:
        """Tell which could keep the limits if the rest cost the least that it can."""
        borne = (0, credit, credit * self._of.trips)
        keeps = np.ones(len(at), dtype=bool)
        for which in np.flatnonzero(np.isfinite(self._limits)).tolist():
            least = costs[:, which] + self._rest[which, self._goal.layers - at] - borne[which]
            # A float may lie above the whole number that it bounds.
            keeps &= least <= self._limits[which] * SLACK + 1
        return keeps

    def _chained(self, last: Ints, seller: Ints, at: Ints, costs: Ints) -> Floats:
        """Take off what neighbours save; return by how much that changes the excess.

        What those behind the last may bear of its way is off until it is known who comes next.
        """
        assert self._saved_ns is not None, "a chain"
        saved = np.where(last >= 0, self._saved_ns[last, seller], 0)
        costs[:, 1] -= saved
        costs[:, 2] -= np.rint(saved * self._of.trips).astype(np.int64)
        before = np.where(last >= 0, self._credit_ns[last], 0)
        now = np.where(at < self._goal.layers, self._credit_ns[seller], 0)
        excess: Floats = (before - now - saved) * self._second_ns
        return excess

    def _swapped(self, labels: Labels, parent: Ints, seller: Ints, layers: Ints) -> Bools:
        """Tell which are built in the other order, too, of the same cost."""
        last = labels.last[parent]
        begin = labels.at[parent] - labels.taken[parent]
        end = labels.at[parent] + layers
        can = (self._of.first[seller] <= begin) & (self._of.end[last] >= end)
        return (last > seller) & can & ~self._pinned[last] & ~self._pinned[seller]

    def _finished(self, best: Found, longer: Longer, history: list[Longer]) -> Found:
        """Return the best of the routes that are whole now, and of the one known before."""
        whole = np.flatnonzero(longer.at == self._goal.layers)
        whole = whole[np.all(longer.costs[whole] <= self._limits, axis=1)]
        scores = longer.costs[whole] @ self._scale
        if not len(whole) or scores.min() >= best.score:
            return best
        place = int(np.argmin(scores))
        label = int(whole[place])
        steps = []
        for of_length in (longer, *reversed(history)):
            seller = self._places[of_length.seller[label]]
            steps.append((int(seller), int(of_length.layers[label])))
            label = int(of_length.parent[label])
        costs = longer.costs[whole[place]].tolist()
        return Found(float(scores[place]), tuple(reversed(steps)), *costs)

    def _fewer(self, longer: Longer, places: Ints, width: int) -> tuple[Ints, float]:
        """Return which labels stay, and the lowest excess of those that were too many."""
        places, lost = lowest(longer.excess, places, WIDER * width)
        places = self._undominated(longer, places)
        places, lost_now = lowest(longer.excess, places, width)
        return places, min(lost, lost_now)

    def _undominated(self, longer: Longer, places: Ints) -> Ints:
        """Return the labels that none of those near to them beats."""
        seller, at = longer.seller[places], longer.at[places]
        # Where all serve all layers, a label goes on with sellers behind its last alone.
        alike = self._numbers[seller] if self._free_everywhere else longer.users[places]
        alike = alike + self._numbers_at[at]
        if self._saved_ns is not None:
            alike += self._numbers[seller] << np.uint64(1)
        costs = [longer.costs[places, which] for which in self._counts]
        order = np.lexsort((*costs[::-1], alike))
        group = alike[order]
        _, *others = (cost[order] for cost in costs)
        alive = np.ones(len(order), dtype=bool)
        # Sorted so, a label can only be beaten by one before it, whose first cost is no more.
        for back in range(1, min(len(alive), NEIGHBOURS + 1)):
            beaten = group[back:] == group[:-back]
            if not beaten.any():
                break
            for cost in others:
                beaten &= cost[back:] >= cost[:-back]
            alive[back:] &= ~beaten
        return places[order[alive]]

    def _labels(self, before: Labels, longer: Longer) -> Labels:
        used = before.used[longer.parent]
        used[np.arange(len(used)), longer.seller] = True
        return Labels(
            longer.at, longer.costs, longer.excess, used, longer.users, longer.seller, longer.layers
        )
