"""What nodes do by themselves: when they come and go, and what they ask for.

Sessions are Weibull with a shape below one, as they were found in file-sharing networks (D.
Stutzbach and R. Rejaie, "Understanding churn in peer-to-peer networks", IMC 2006); their means, and
the exponential times between them, are assumed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.board import MOST_PRICE
from shoestring.swarm.simulation.scenario import HOUR_S
from shoestring.swarm.simulation.world import FIXED, LOAD, UNDERCUT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.simulation.scenario import Scenario
    from shoestring.swarm.simulation.world import World

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

SHAPE: Final = 0.6
AT_HOME_S, IN_POOL_S = 3.0 * HOUR_S, 10.0 * HOUR_S
"""Means of a session."""
AT_HOME_UP, IN_POOL_UP = 0.55, 0.90
"""Shares of the time that they are there."""
SHORTEST_S: Final = 60.0
REPRICED_S: Final = 4 * HOUR_S
"""How long a quote holds."""
LEAST_MARGIN, MOST_MARGIN = 1.05, 8.0
LIST_MARGIN: Final = 1.6
BELOW: Final = 0.97
BUSY, IDLE = 0.3, 0.05
DEARER, CHEAPER = 1.15, 0.93


def sessions_of(scenario: Scenario, node: int, *, pooled: bool) -> list[float]:
    """Return when a node comes, goes, comes, ...: seconds, rising; who is there at 0 comes at 0."""
    draws = scenario.draws("churn", node)
    mean_s, up = (IN_POOL_S, IN_POOL_UP) if pooled else (AT_HOME_S, AT_HOME_UP)
    scale_s, down_s = mean_s / math.gamma(1 + 1 / SHAPE), mean_s * (1 - up) / up
    at_s = 0.0 if draws.random() < up else float(draws.exponential(down_s))
    times = [at_s]
    while at_s < scenario.lasts_s:
        at_s += max(SHORTEST_S, float(scale_s * draws.weibull(SHAPE)))
        times.append(at_s)
        at_s += max(SHORTEST_S, float(draws.exponential(down_s)))
        times.append(at_s)
    return times


def first_margins(world: World) -> Floats:
    """Return prices over costs as nodes begin: who has a fixed price has the region's."""
    margin = world.margin.copy()
    for near in _neighbourhoods(world):
        fixed = near[world.strategy[near] == FIXED]
        usual = float(np.median(world.cost_out[near])) * LIST_MARGIN
        margin[fixed] = np.maximum(LEAST_MARGIN, usual / world.cost_out[fixed])
    return np.minimum(margin, MOST_MARGIN)


def next_margins(world: World, margin: Floats, asked: Floats, busy: Floats) -> Floats:
    """Return prices over costs after a while.

    Args:
        world: whose.
        margin: until now, by each one's strategy.
        asked: until now, as attackers changed theirs: who undercuts goes by these.
        busy: share of the time since then that each was serving.
    """
    found = margin.copy()
    load = world.strategy == LOAD
    found[load & (busy > BUSY)] *= DEARER
    found[load & (busy < IDLE)] *= CHEAPER
    price = asked * world.cost_out
    for near in _neighbourhoods(world):
        under = near[world.strategy[near] == UNDERCUT]
        low = float(np.quantile(price[near], 0.25)) * BELOW
        found[under] = low / world.cost_out[under]
    return np.clip(found, LEAST_MARGIN, MOST_MARGIN)


def prices(margin: Floats, cost: Floats) -> Ints:
    """Return what is asked, in micro-credits a million tokens and layer."""
    return np.minimum(np.rint(margin * cost), MOST_PRICE).astype(np.int64)


def _neighbourhoods(world: World) -> list[Ints]:
    """Return the nodes of each region and model."""
    key = world.region * (int(world.model.max()) + 1) + world.model
    return [np.flatnonzero(key == one) for one in np.unique(key).tolist()]
