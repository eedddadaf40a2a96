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
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.costs import Costs

    Floats = NDArray[np.float64]

ROUNDS: Final = 4
STEPS: Final = 9
GROWTH: Final = 8.0
NEAR: Final = 1e-3
HEAVIER: Final = 4.0
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
        self._most = costs.most
        self._layers = layers
        self._alpha, self._beta = costs.alpha(), costs.beta()
        self._rates = self._beta + self._alpha / costs.most

    def least(self, what: int) -> float:
        """Return the least of one cost alone: 0 the price, 1 a token, 2 the first token."""
        return self._solve(np.eye(3)[what]).score

    def impossible(self, limits: Floats, tries: int) -> bool:
        """Tell whether it is proven that nothing keeps all limits; else something may.

        Limits are weighed against each other: if the least sum of weighted shares of them is above
        one, some limit is always broken (Farkas' lemma). Those that are broken weigh more next.

        Args:
            limits: micro-credits and seconds (3,); infinite: none.
            tries: so many ways to weigh them.
        """
        given = np.isfinite(limits)
        per_limit = given / np.where(given, np.maximum(limits, TINY), 1.0)
        weighs = given / max(1, given.sum())
        for _ in range(tries):
            relaxed = self._solve(weighs * per_limit)
            if relaxed.score > 1 + MARGIN:
                return True
            weighs *= np.clip(relaxed.used * per_limit, 1 / HEAVIER, HEAVIER)
            weighs /= max(float(weighs.sum()), TINY)
        return False

    def bounds(self, weights: Floats, limits: Floats, *, aim: float = 1.0) -> Bounds:
        """Return the best bound that was found.

        Args:
            weights: scores of a micro-credit, a second a token, a second to the first token (3,).
            limits: of the three; infinite: none.
            aim: multipliers are sought for so large a share of them; the bound is of them whole.
        """
        wanted = limits * aim
        multipliers = np.zeros(3)
        best, best_score = multipliers.copy(), -np.inf
        given = np.isfinite(limits)
        for _ in range(ROUNDS):
            relaxed = self._solve(weights + multipliers)
            score = relaxed.score - float(multipliers[given] @ wanted[given])
            if score > best_score:
                best, best_score = multipliers.copy(), score
            off = np.where(given, relaxed.used / np.maximum(wanted, 1e-12) - 1, 0)
            off = np.where((off < 0) & (multipliers == 0), 0, off)
            worst = int(np.argmax(np.abs(off)))
            if abs(off[worst]) <= NEAR:
                break
            self._settle(weights, multipliers, wanted, worst)
        return self._at(weights, best, limits)

    def _settle(self, weights: Floats, multipliers: Floats, limits: Floats, which: int) -> None:
        """Set one multiplier so that its limit is just kept, or next to it."""
        limit = limits[which]
        multipliers[which] = 0
        at_zero = self._solve(weights + multipliers)
        if at_zero.used[which] <= limit:
            return
        low, high = 0.0, max(at_zero.score, 1e-12) / max(at_zero.used[which], 1e-12)
        for _ in range(STEPS):
            multipliers[which] = high
            if self._solve(weights + multipliers).used[which] <= limit:
                break
            low, high = high, high * GROWTH
        for _ in range(STEPS):
            middle = (low + high) / 2 if low == 0 else float(np.sqrt(low * high))
            multipliers[which] = middle
            kept = self._solve(weights + multipliers).used[which] <= limit
            low, high = (low, middle) if kept else (middle, high)
        multipliers[which] = high

    def _solve(self, weights: Floats) -> _Relaxed:
        rates = weights @ self._rates
        count = min(len(rates), self._layers)  # each serves one layer at least
        chosen = np.argpartition(rates, count - 1)[:count]
        chosen = chosen[np.argsort(rates[chosen])]
        sums = np.cumsum(self._most[chosen])
        last = int(np.searchsorted(sums, self._layers))
        chosen = chosen[: last + 1]
        layers = self._most[chosen].astype(np.float64)
        layers[-1] -= sums[last] - self._layers
        used = self._rates[:, chosen] @ layers
        return _Relaxed(float(weights @ used), used, float(rates[chosen[-1]]))

    def _at(self, weights: Floats, multipliers: Floats, limits: Floats) -> Bounds:
        priced = weights + multipliers
        layer_price = self._solve(priced).layer_price
        visit, layer = priced @ self._alpha, priced @ self._beta - layer_price
        # Linear in the layers taken: the best is one, or as many as can be.
        value = visit + np.minimum(layer, layer * self._most)
        ease = np.minimum(value, 0)
        given = np.isfinite(limits)
        paid = float(multipliers[given] @ limits[given])
        floor = layer_price * self._layers + float(ease.sum()) - paid
        return Bounds(floor, priced, layer_price, np.maximum(value, 0), ease)
