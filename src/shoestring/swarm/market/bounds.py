"""How good a route can be at best, and with each seller on it: Lagrange's bound.

Limits are put into the goal at a price (multipliers), and each layer is bought at one price ``c``
from whoever asks less, each at most once and up to what it serves. What that comes to no route can
beat, whatever the multipliers are; good ones are searched for. A seller's *excess* is by how much
any route with it lies above that floor, at least, and excesses of the sellers of a route add up: so
most sellers are out of the question before any route is built.

J. E. Beasley and N. Christofides, "An algorithm for the resource constrained shortest path
problem", Networks 19 (1989), bound and reduce so; here the layers to be covered are relaxed, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.costs import Costs

    Floats = NDArray[np.float64]

ROUNDS: Final = 6
STEPS: Final = 12
GROWTH: Final = 8.0
NEAR: Final = 1e-4
"""Share of a bound that is not worth another step."""
TINY: Final = 1e-12
MARGIN: Final = 1e-9
"""For sums of floats that bound sums of whole numbers."""


@dataclass(frozen=True)
class Bounds:
    """What is known before any route is built.

    Attributes:
        floor: no route within the limits scores less.
        multipliers: scores of a micro-credit, a second a token, a second to the first token (3,).
        layer_price: score at which a layer is bought.
        excess: of each seller.
        ease: how much below the layers' price each seller is; 0 or less.
    """

    floor: float
    multipliers: Floats
    layer_price: float
    excess: Floats
    ease: Floats

    def take(self, places: NDArray[np.int64]) -> Bounds:
        """Return those of some sellers."""
        return replace(self, excess=self.excess[places], ease=self.ease[places])


def most_within(weights: Floats, limits: Floats) -> float:
    """Return what no route within the limits scores more than; infinite: there is no such."""
    counts = weights > 0
    return float(weights[counts] @ limits[counts])


@dataclass(frozen=True)
class _Relaxed:
    score: float
    used: Floats
    layer_price: float


class Relaxation:
    """Layers bought from whoever asks least, wherever they lie in the model.

    Args:
        costs: of sellers, who serve enough layers together.
        layers: to be bought.
    """

    def __init__(self, costs: Costs, layers: int) -> None:
        self.costs = costs
        self._layers = layers
        self._alpha, self._beta = costs.alpha(), costs.beta()
        self._rates = self._beta + self._alpha / costs.most

    @cached_property
    def as_star(self) -> Relaxation:
        """The same sellers where nobody knows a way to another."""
        return Relaxation(self.costs.as_star(), self._layers)

    def least(self, what: int) -> float:
        """Return the least of one cost alone: 0 the price, 1 a token, 2 the first token."""
        return self._solve(np.eye(3)[what]).score

    def hopeless(self, limits: Floats) -> bool:
        """Tell whether even sums of the shares of limits show that none keeps all; else some may.

        Args:
            limits: micro-credits and seconds (3,); infinite: none.
        """
        given = np.isfinite(limits)
        shares = given / np.where(given, np.maximum(limits, TINY), 1.0)
        return self._solve(shares).score > float(given.sum()) * (1 + MARGIN)

    def strain(self, limits: Floats) -> Bounds:
        """Return bounds of the share that routes take of all limits together.

        Limits are weighed against each other, so that who keeps all takes a share of one at most:
        if the floor is above one, some limit is always broken (Farkas' lemma). The weights are
        those by which the least of one cost within the other limits is highest.

        Args:
            limits: micro-credits and seconds (3,), one at least; infinite: none.
        """
        given = np.isfinite(limits)
        which = int(given.argmax())
        others = limits.copy()
        others[which] = np.inf
        weights = self.bounds(np.eye(3)[which], others).multipliers
        weights = weights / max(float(weights[given] @ limits[given]), TINY)
        return self._at(weights, np.zeros(3), np.full(3, np.inf))

    def bounds(self, weights: Floats, limits: Floats, *, aim: float = 1.0) -> Bounds:
        """Return the best bound that was found.

        Args:
            weights: scores of a micro-credit, a second a token, a second to the first token (3,).
            limits: of the three; infinite: none.
            aim: multipliers are sought for so large a share of them; the bound is of them whole.
                The search ends where no route can keep that share.
        """
        given = np.isfinite(limits)
        wanted = np.where(given, limits * aim, 0)
        most = most_within(weights, limits * aim)
        multipliers = np.zeros(3)
        bought = [self._solve(weights).used]
        before = -np.inf
        for _ in range(ROUNDS if given.sum() > 1 else 1):
            for which in np.flatnonzero(given).tolist():
                now = self._settle(weights, multipliers, wanted, which, bought)
                if now > most:
                    return self._at(weights, multipliers, limits)
            if not given.any() or now - before <= NEAR * abs(now):
                break
            before = now
        return self._at(weights, multipliers, limits)

    def _settle(
        self,
        weights: Floats,
        multipliers: Floats,
        limits: Floats,
        which: int,
        bought: list[Floats],
    ) -> float:
        """Set one multiplier to where the bound is highest; return the bound, infinite if it grows.

        What was bought at other multipliers bounds the bound by a line: it is asked where those
        meet, until they meet on it. What is bought there is added to them.
        """
        likely = max(float(weights @ bought[0]), TINY) / max(float(bought[0][which]), TINY)
        for _ in range(STEPS):
            used = np.array(bought)
            before = float(multipliers[which])
            multipliers[which] = 0
            height = used @ (weights + multipliers) - multipliers @ limits
            at, most = _highest(height, used[:, which] * (1 - MARGIN) - limits[which])
            multipliers[which] = max(before * GROWTH, likely) if np.isinf(at) else at
            relaxed = self._solve(weights + multipliers)
            bought.append(relaxed.used)
            now = relaxed.score - float(multipliers @ limits)
            if most - now <= NEAR * abs(now):
                return now
        return np.inf if np.isinf(most) else now

    def _solve(self, weights: Floats) -> _Relaxed:
        rates = weights @ self._rates
        count = min(len(rates), self._layers)  # each serves one layer at least
        chosen = np.argpartition(rates, count - 1)[:count]
        chosen = chosen[np.argsort(rates[chosen])]
        sums = np.cumsum(self.costs.most[chosen])
        last = int(np.searchsorted(sums, self._layers))
        chosen = chosen[: last + 1]
        layers = self.costs.most[chosen].astype(np.float64)
        layers[-1] -= sums[last] - self._layers
        used = self._rates[:, chosen] @ layers
        return _Relaxed(float(weights @ used), used, float(rates[chosen[-1]]))

    def _at(self, weights: Floats, multipliers: Floats, limits: Floats) -> Bounds:
        priced = weights + multipliers
        layer_price = self._solve(priced).layer_price
        visit, layer = priced @ self._alpha, priced @ self._beta - layer_price
        # Linear in the layers taken: the best is one, or as many as can be.
        value = visit + np.minimum(layer, layer * self.costs.most)
        ease = np.minimum(value, 0)
        given = np.isfinite(limits)
        paid = float(multipliers[given] @ limits[given])
        bought = layer_price * self._layers + float(ease.sum())
        # Of large multipliers little is left, and that of rounding, too.
        floor = bought - paid - MARGIN * (abs(bought) + abs(paid))
        return Bounds(floor, priced, layer_price, np.maximum(value, 0), ease)


def _highest(height: Floats, slope: Floats) -> tuple[float, float]:
    """Return where the lowest of lines is highest, from nothing on, and how high; or infinity."""
    up, down = slope > 0, slope <= 0
    if not down.any():
        return np.inf, np.inf
    if not up.any():
        return 0.0, float(height.min())
    rise, fall = slope[up][:, None], slope[down]
    begin, end = height[up][:, None], height[down]
    at = np.maximum((end - begin) / (rise - fall), 0)
    meet = np.minimum(begin + rise * at, end + fall * at)
    lowest = int(meet.argmin())
    return float(at.ravel()[lowest]), float(meet.ravel()[lowest])
