"""Who takes part: nodes with their device, place, owner, habits, and who of them would attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from shoestring.swarm.simulation.devices import KINDS, MODELS, speed
from shoestring.swarm.simulation.places import (
    HOME_ACCESS_S,
    LAN_S,
    POOL_ACCESS_S,
    REGIONS,
    between_s,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.simulation.scenario import Scenario

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

POOLED: Final = 0.2
"""Of all nodes, those in a local network with others: a company's, or a house of students."""
POOL_NODES: Final = 50
COMPANIES: Final = 0.5
"""Of the pools; the others are houses in which everybody owns their own."""
NEAR_MODEL: Final = 0.7
"""Of a region's nodes, those that hold the model that most use there."""
WHOLE_FILE: Final = 0.5
"""Of the nodes, those that hold all layers; the others hold half of them, one after another."""
STRATEGIES: Final = ("fixed", "cost-plus", "undercut", "load")
STRATEGY_SHARES: Final = (0.25, 0.35, 0.2, 0.2)
FIXED, COST_PLUS, UNDERCUT, LOAD = range(len(STRATEGIES))
WRONG_SHARES: Final = (1.0, 0.25, 0.05)
"""How often cheats answer wrongly, a third of them each: shares of their windows."""
NEWCOMERS: Final = 0.1
GROUP_SHARES: Final = {"lazy": 0.10, "eclipse": 0.04, "collusion": 0.01}
SYBIL_SHARE: Final = 0.10
"""Identities that a sybil adds, as a share of the nodes."""
SYBIL_KIND, SYBIL_WRONG = 1, 0.5
WAR_REGION, WAR_KINDS, WAR_SHARE = 0, 4, 0.4


@dataclass(frozen=True)
class World:
    """Nodes, by their number; all columns are of one length (n,).

    Attributes:
        region: where each is.
        pool: of which local network; -1: at home.
        kind: of device.
        model: of which it holds layers.
        first: the first one.
        end: the one after the last.
        most: layers of one session.
        sessions: at once.
        layer_s: seconds a layer and token of an answer.
        prompt_layer_s: likewise of a prompt.
        cost_in: micro-credits of power a million tokens of prompts and layer.
        cost_out: likewise of answers.
        access_s: of its line, there and back.
        lan_s: within its local network.
        strategy: of its prices.
        margin: price over cost at the beginning.
        wrong_share: of its windows that are wrong, whoever attacks; 0: honest.
        newcomer: nobody knows it yet.
        owner: number of its owner.
        ids: peer ids.
        owners: of owners, by their number.
        pool_region: where each local network is.
        pool_owner: number of the company's owner; -1: everybody there has their own.
        groups: who takes part in an attack, if there is one.
        between_s: round trips of regions.
    """

    region: Ints
    pool: Ints
    kind: Ints
    model: Ints
    first: Ints
    end: Ints
    most: Ints
    sessions: Ints
    layer_s: Floats
    prompt_layer_s: Floats
    cost_in: Floats
    cost_out: Floats
    access_s: Floats
    lan_s: Floats
    strategy: Ints
    margin: Floats
    wrong_share: Floats
    newcomer: Bools
    owner: Ints
    ids: list[str]
    owners: list[str]
    pool_region: Ints
    pool_owner: Ints
    groups: dict[str, Bools]
    between_s: Floats

    def __len__(self) -> int:
        return len(self.region)

    def region_of(self, place: int) -> int:
        """Return the region of a place that is asked from."""
        pool = place - len(REGIONS)
        return place if pool < 0 else int(self.pool_region[pool])

    def rtt_s(self, place: int, nodes: Ints) -> Floats:
        """Return round trips from a place to some nodes."""
        pool = place - len(REGIONS)
        access_s = sum(HOME_ACCESS_S) / 2 if pool < 0 else POOL_ACCESS_S
        between_s: Floats = self.between_s[self.region_of(place), self.region[nodes]]
        far: Floats = between_s + access_s + self.access_s[nodes]
        if pool < 0:
            return far
        near: Floats = np.where(self.pool[nodes] == pool, self.lan_s[nodes], far)
        return near


def make_world(scenario: Scenario) -> World:
    """Draw the nodes of a scenario; the same ones with an attack, but for those that it adds."""
    draws = scenario.draws("world")
    honest = scenario.nodes
    added = round(honest * SYBIL_SHARE) if scenario.attack == "sybil" else 0
    pools = max(1, round(honest * POOLED / POOL_NODES))
    shares = np.array([region.share for region in REGIONS])
    pool_region = draws.choice(len(REGIONS), pools, p=shares)
    company = draws.random(pools) < COMPANIES
    region = draws.choice(len(REGIONS), honest, p=shares)
    pool = np.full(honest, -1)
    pool[: pools * POOL_NODES] = np.repeat(np.arange(pools), POOL_NODES)
    region = np.where(pool >= 0, pool_region[pool], region)
    kind = draws.choice(len(KINDS), honest, p=[one.share for one in KINDS])
    near = np.array([one.model for one in REGIONS])[region]
    model = np.where(
        draws.random(honest) < NEAR_MODEL, near, draws.integers(0, len(MODELS), honest)
    )
    model = np.where(pool >= 0, near, model)
    given = draws.random(honest)
    held = draws.random((2, honest))
    access_s = np.where(pool >= 0, POOL_ACCESS_S, draws.uniform(*HOME_ACCESS_S, honest))
    lan_s = draws.uniform(*LAN_S, honest)
    strategy = draws.choice(len(STRATEGIES), honest, p=STRATEGY_SHARES)
    margin = np.maximum(1.05, draws.lognormal(np.log(1.6), 0.25, honest))
    newcomer = draws.random(honest) < NEWCOMERS
    pool_owner = np.where(company, np.arange(pools), -1)
    owner = _owners(draws, pool, pool_owner)
    wrong_share = np.where(
        draws.random(honest) < scenario.cheats, draws.choice(WRONG_SHARES, honest), 0.0
    )
    groups = _groups(scenario, region, kind, pool)
    lazy = draws.choice(WRONG_SHARES, honest)
    if scenario.attack == "lazy":
        wrong_share = np.where(groups["lazy"], lazy, wrong_share)
    sybil = _sybils(scenario, added, int(owner.max()) + 1)

    def whole(column: np.ndarray, name: str) -> np.ndarray:
        return np.concatenate([column, sybil[name]])

    region, pool, kind = whole(region, "region"), whole(pool, "pool"), whole(kind, "kind")
    model, owner = whole(model, "model"), whole(owner, "owner")
    groups = {name: np.concatenate([of, np.zeros(added, bool)]) for name, of in groups.items()}
    groups["sybil"] = np.arange(honest + added) >= honest
    if scenario.attack in ("eclipse", "eclipse-pinned"):
        owner = np.where(groups["eclipse"], int(owner.max()) + 1, owner)
    first, end, most = _layers(model, kind, whole(given, "given"), np.concatenate(
        [held, np.zeros((2, added))], axis=1
    ))  # fmt: skip
    speeds = [speed(int(one), int(of)) for one, of in zip(model, kind, strict=True)]
    return World(
        region=region, pool=pool, kind=kind, model=model, first=first, end=end, most=most,
        sessions=np.array([one.sessions for one in KINDS])[kind],
        layer_s=np.array([one.layer_s for one in speeds]),
        prompt_layer_s=np.array([one.prompt_layer_s for one in speeds]),
        cost_in=np.array([one.cost_in for one in speeds]),
        cost_out=np.array([one.cost_out for one in speeds]),
        access_s=whole(access_s, "access_s"), lan_s=whole(lan_s, "lan_s"),
        strategy=whole(strategy, "strategy"), margin=whole(margin, "margin"),
        wrong_share=whole(wrong_share, "wrong_share"), newcomer=whole(newcomer, "newcomer"),
        owner=owner,
        ids=[scenario.peer_id(f"node {number}") for number in range(honest + added)],
        owners=[scenario.peer_id(f"owner {number}") for number in range(int(owner.max()) + 1)],
        pool_region=pool_region, pool_owner=pool_owner, groups=groups, between_s=between_s(),
    )  # fmt: skip


def _owners(draws: np.random.Generator, pool: Ints, pool_owner: Ints) -> Ints:
    """Return an owner of each node: a company's own its pool, people up to three each."""
    people = np.sort(draws.integers(0, max(1, len(pool) // 2), len(pool)))
    private = len(pool_owner) + draws.permutation(people)
    return np.where((pool >= 0) & (pool_owner[pool] >= 0), pool_owner[pool], private)


def _groups(scenario: Scenario, region: Ints, kind: Ints, pool: Ints) -> dict[str, Bools]:
    """Return who would take part in which attack; none in two of those that are drawn."""
    order = scenario.draws("groups").permutation(len(region))
    groups, at = {}, 0
    for name, share in GROUP_SHARES.items():
        count = max(1, round(share * len(region)))
        groups[name] = np.zeros(len(region), bool)
        groups[name][order[at : at + count]] = True
        at += count
    fits = np.flatnonzero((region == WAR_REGION) & (kind < WAR_KINDS) & (pool < 0))
    groups["price-war"] = np.zeros(len(region), bool)
    groups["price-war"][fits[: round(WAR_SHARE * len(fits))]] = True
    return groups


def _sybils(scenario: Scenario, count: int, owner: int) -> dict[str, np.ndarray]:
    """Return the columns of one owner's many identities."""
    draws = scenario.draws("sybil")
    region = draws.integers(0, len(REGIONS), count)
    return {
        "region": region, "pool": np.full(count, -1), "kind": np.full(count, SYBIL_KIND),
        "model": np.array([one.model for one in REGIONS])[region],
        "owner": np.full(count, owner), "given": draws.random(count),
        "access_s": draws.uniform(*HOME_ACCESS_S, count), "lan_s": np.full(count, LAN_S[1]),
        "strategy": np.full(count, COST_PLUS), "margin": np.full(count, 1.05),
        "wrong_share": np.full(count, SYBIL_WRONG), "newcomer": np.ones(count, bool),
    }  # fmt: skip


def _layers(model: Ints, kind: Ints, given: Floats, held: Floats) -> tuple[Ints, Ints, Ints]:
    """Return the first layer that each holds, the one after the last, and how many it computes."""
    whole = np.array([speed(one, 0).layers for one in range(len(MODELS))])[model]
    layer_bytes = np.array([speed(one, 0).layer_bytes for one in range(len(MODELS))])[model]
    least, most = np.array([one.gives_bytes for one in KINDS], dtype=np.int64)[kind].T
    count = ((least + given * (most - least)) // layer_bytes).astype(np.int64)
    count = np.minimum(np.maximum(count, 1), whole)
    holds = np.where(held[0] < WHOLE_FILE, whole, np.maximum(whole // 2, count))
    first = np.floor(held[1] * (whole - holds + 1)).astype(np.int64)
    return first, first + holds, count
