"""Who is looked at closely: the few sellers of a market whose excess is least."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.board import NANOSECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.bounds import Bounds
    from shoestring.swarm.market.costs import Costs

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

THIN: Final = 4
"""A layer served by fewer of those looked at gets more of them."""


def pool(costs: Costs, bounds: Bounds, layers: int, most: int) -> tuple[Ints, float]:
    """Return who is looked at closely, the cheapest a layer first, and the others' least excess."""
    value = bounds.excess + bounds.ease
    left_out = np.inf
    places = np.arange(len(costs))
    if len(costs) > most:
        places = np.argpartition(value, most)[:most]
        if (costs.group >= 0).any():
            places = _with_groups(costs, value, places)
        for layer in _thin(costs.take(places), layers):
            serves = np.flatnonzero((costs.first <= layer) & (costs.end > layer))
            best = serves[np.argsort(value[serves])[:THIN]]
            places = np.concatenate([places, best])
        looked_at = np.zeros(len(costs), dtype=bool)
        looked_at[places] = True
        places = np.flatnonzero(looked_at)
        left_out = float(bounds.excess[~looked_at].min(initial=np.inf))
    return places[np.argsort(value[places] / costs.most[places])], left_out


def _with_groups(costs: Costs, value: Floats, places: Ints) -> Ints:
    """Return the better half, and the others of their groups as far as there is room."""
    ranked = places[np.argsort(value[places])]
    best = ranked[: len(ranked) // 2]
    group = costs.group
    wanted = np.zeros(int(group.max()) + 1, dtype=bool)
    wanted[group[best[group[best] >= 0]]] = True
    others = np.flatnonzero((group >= 0) & wanted[group])
    others = others[np.argsort(value[others])]
    whole = list(dict.fromkeys([*best.tolist(), *others.tolist(), *ranked.tolist()]))
    return np.array(whole[: len(places)], dtype=np.int64)


def _thin(costs: Costs, layers: int) -> list[int]:
    """Return layers that few serve."""
    begins = np.bincount(costs.first, minlength=layers + 1)
    ends = np.bincount(costs.end, minlength=layers + 1)
    return np.flatnonzero(np.cumsum(begins - ends)[:layers] < THIN).tolist()


def chain_pool(costs: Costs, bounds: Bounds, taken: Ints, most: int) -> Ints:
    """Return who is looked at closely for chains: of groups that are worth a visit, and others.

    Args:
        costs: of all sellers.
        bounds: of what layers are bought at.
        taken: of a route that is known; they stay.
        most: so many, if they are not more.
    """
    group, hop_ns = costs.visited()
    priced = bounds.multipliers
    gain = np.minimum(priced @ costs.layer() - bounds.layer_price, 0) * costs.most
    visit = hop_ns * float(priced[1] + priced[2] * costs.trips) / NANOSECONDS
    value = np.bincount(group, gain)[group] + visit
    value[gain == 0] = np.inf
    value[taken] = -np.inf
    ranked = np.lexsort((gain, value))
    return ranked[: max(most, len(taken))]
