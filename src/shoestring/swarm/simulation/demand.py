"""What users ask for, when, from where: more in their evening, and of the model next to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.market.requests import Preference, Request
from shoestring.swarm.simulation.devices import HOME, MODELS, speed
from shoestring.swarm.simulation.places import REGIONS
from shoestring.swarm.simulation.scenario import HOUR_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.simulation.scenario import Scenario
    from shoestring.swarm.simulation.world import World

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

FROM_POOLS: Final = 0.25
"""Of the requests, those from within a local network."""
USERS: Final = 25
"""At each place; the first at home of each region is the one that is eclipsed, if any is."""
PEAK_HOUR: Final = 20.0
SWING: Final = 0.7
MINUTE_S: Final = 60
SIZES: Final = ((256, 160), (1024, 320))
"""Tokens of the prompt, and of the answer at most."""
SIZE_SHARES: Final = (0.7, 0.3)
SHORTEST: Final = 0.3
"""Of the answer at most, what it is at least."""
JITTER: Final = 0.1
"""Standard deviation of the logarithm of how much slower than predicted an answer is."""
AT_HOME: Final = 1
"""First layers that users compute themselves, so that nobody reads their prompt off the wire."""
NEAR_MODEL: Final = 0.8
DEAR: Final = 6
"""Users in a hurry pay at most so many times what the power of the usual card costs."""
USUAL: Final = 1


@dataclass(frozen=True)
class Profile:
    """A kind of user.

    Attributes:
        name: for readers.
        share: of the requests.
        prefer: the cheapest, or the fastest route.
        max_tpot_s: by model; None: any.
        max_ttft_s: None: any.
        least_trust: of nodes.
    """

    name: str
    share: float
    prefer: Preference
    max_tpot_s: tuple[float, float, float] | None = None
    max_ttft_s: float | None = None
    least_trust: float = 0.0


PROFILES: Final = (
    Profile("cheap", 0.4, "price", (1.5, 1.5, 2.0)),
    Profile("careful", 0.4, "price", (0.3, 0.45, 0.7), 15.0, 0.6),
    Profile("fast", 0.2, "latency"),
    Profile("own", 0.0, "latency"),
)
"""The last one is of companies: on their own nodes, and none else; a third of what they ask."""
FAST, OWN = 2, 3
OWN_SHARE: Final = 1 / 3


@dataclass(frozen=True)
class Demand:
    """Requests in the order in which they come; all columns are of one length (n,).

    Attributes:
        at_s: simulated seconds.
        place: where they are asked.
        model: which.
        profile: of the user.
        size: of prompt and answer.
        user: at that place.
        share: of the answer at most, what it will be.
        slower: than predicted.
    """

    at_s: Floats
    place: Ints
    model: Ints
    profile: Ints
    size: Ints
    user: Ints
    share: Floats
    slower: Floats

    def is_victim(self, number: int) -> bool:
        """Tell whether who asks is the one whom an eclipse is for."""
        return bool(self.user[number] == 0 and self.place[number] < len(REGIONS))


def make_demand(scenario: Scenario, world: World) -> Demand:
    """Draw what is asked in all hours; the same with an attack and without."""
    draws, count = scenario.draws("demand"), scenario.requests
    region, at_s = _when(scenario, draws)
    place, pools = region.copy(), draws.random(count)
    own = draws.random(count) < OWN_SHARE
    for number in range(len(REGIONS)):
        here = np.flatnonzero(world.pool_region == number)
        asked = np.flatnonzero((region == number) & (pools < FROM_POOLS))
        if len(here):
            place[asked] = len(REGIONS) + here[
                (pools[asked] / FROM_POOLS * len(here)).astype(np.int64)
            ]  # fmt: skip
    pool = np.maximum(place - len(REGIONS), -1)
    company = (pool >= 0) & (world.pool_owner[pool] >= 0)
    near = np.array([one.model for one in REGIONS])[region]
    other = draws.integers(0, len(MODELS), count)
    model = np.where((pool >= 0) | (draws.random(count) < NEAR_MODEL), near, other)
    profile = draws.choice(len(PROFILES), count, p=[one.share for one in PROFILES])
    return Demand(
        at_s=at_s,
        place=place,
        model=model,
        profile=np.where(company & own, OWN, profile),
        size=draws.choice(len(SIZES), count, p=SIZE_SHARES),
        user=draws.integers(0, USERS, count),
        share=draws.uniform(SHORTEST, 1.0, count),
        slower=np.exp(np.abs(draws.normal(0.0, JITTER, count))),
    )


def _when(scenario: Scenario, draws: np.random.Generator) -> tuple[Ints, Floats]:
    """Return regions and times, by local time of day."""
    minute = np.arange(scenario.lasts_s // MINUTE_S)
    weights = np.stack([
        region.share * (1 + SWING * np.cos(2 * np.pi * (
            minute * MINUTE_S / HOUR_S + region.longitude / 15 - PEAK_HOUR
        ) / 24))
        for region in REGIONS
    ])  # fmt: skip
    cumulated = np.cumsum(weights.ravel())
    drawn = draws.random(scenario.requests) * cumulated[-1]
    cell = np.searchsorted(cumulated, drawn)
    at_s = (cell % len(minute) + draws.random(scenario.requests)) * MINUTE_S
    order = np.argsort(at_s, kind="stable")
    return (cell // len(minute))[order], at_s[order]


def request_of(
    model: int, profile: int, size: int, *, owners: frozenset[str] | None = None
) -> Request:
    """Return what the market is asked.

    Args:
        model: index of it.
        profile: of the user.
        size: of prompt and answer.
        owners: whose nodes alone the user sees, or wants; None: all.
    """
    of, (prompt, output) = PROFILES[profile], SIZES[size]
    home, usual = speed(model, HOME), speed(model, USUAL)
    bought = home.layers - AT_HOME
    dear = DEAR * bought * (prompt * usual.cost_in + output * usual.cost_out) / 1_000_000
    return Request(
        model=MODELS[model],
        first=AT_HOME,
        end=home.layers,
        prompt_tokens=prompt,
        output_tokens=output,
        max_price=round(dear) if profile == FAST else None,
        max_tpot_s=None if of.max_tpot_s is None else of.max_tpot_s[model],
        max_ttft_s=of.max_ttft_s,
        least_trust=of.least_trust,
        prefer=of.prefer,
        owners=owners,
        home_tpot_s=AT_HOME * home.layer_s + home.output_s,
        home_ttft_s=AT_HOME * home.prompt_layer_s * prompt + home.output_s,
    )
