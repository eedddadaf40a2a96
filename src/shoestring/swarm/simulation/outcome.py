"""What came of a run: costs, times, income, fairness, the book, and what attackers got.

Everything is in micro-credits, seconds and counts. What nobody can know is null: a share of none, a
quantile of too few.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shoestring.swarm.simulation.demand import PROFILES
from shoestring.swarm.simulation.devices import KINDS, MODELS
from shoestring.swarm.simulation.fairness import gini, jain
from shoestring.swarm.simulation.figures import Answers, quantiles, ratio, rounded, series
from shoestring.swarm.simulation.judging import WINDOW_TOKENS
from shoestring.swarm.simulation.places import REGIONS
from shoestring.swarm.simulation.scenario import HOUR_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.simulation.demand import Demand
    from shoestring.swarm.simulation.judging import Judge
    from shoestring.swarm.simulation.market import Market
    from shoestring.swarm.simulation.money import Money
    from shoestring.swarm.simulation.scenario import Scenario
    from shoestring.swarm.simulation.tally import Tally
    from shoestring.swarm.simulation.world import World

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

VERSION: Final = 1


def outcome_of(
    scenario: Scenario, world: World, demand: Demand, tally: Tally, market: Market, judge: Judge,
    money: Money, ledger: dict[str, int | str | bool], *, partial: bool,
) -> dict[str, Any]:  # fmt: skip
    """Return what came of a run, ready for JSON."""
    answers = Answers(tally, demand)
    every = np.ones(len(answers.number), bool)
    reasons = {why: answers.why.count(why) for why in sorted(set(answers.why))}
    if answers.lost.any():
        reasons["lost"] = int(answers.lost.sum())
    victims = np.array([demand.is_victim(one) for one in range(scenario.requests)])
    pooled = (demand.place >= len(REGIONS)).astype(np.int64)
    models = [name.partition(":")[0] for name in MODELS]
    gained = np.array([
        money.income.get(peer, 0) + money.rewards.get(peer, 0) for peer in world.ids
    ], dtype=np.float64)  # fmt: skip
    found: dict[str, Any] = rounded({
        "version": VERSION,
        "scenario": asdict(scenario),
        "partial": partial,
        "all": answers.described(every, len(answers.refused)),
        "unserved": reasons,
        "saved_nodes": int(answers.of["saved"].sum()),
        "by_model": answers.by(demand.model, models),
        "by_profile": answers.by(demand.profile, [one.name for one in PROFILES]),
        "by_place": answers.by(pooled, ("at home", "in a local network")),
        "victims": answers.described(
            victims[answers.number], int(victims[answers.refused].sum())
        ),
        "income": _income(world, tally, gained),
        "groups": {
            name: _group(world, tally, money, group) for name, group in world.groups.items()
        },
        "audits": _audits(scenario, judge, money),
        "identities_again": tally.identities,
        "paid_to_itself_micro": tally.paid_to_itself,
        "routing": {
            "lists_made": market.lists_made, "searches": market.searches,
            "above_exact": quantiles(np.array(market.gaps)), "compared": len(market.gaps),
        },
        "ledger": ledger,
        "series": series(scenario, tally, answers),
    })  # fmt: skip
    return found


def _income(world: World, tally: Tally, gained: Floats) -> dict[str, Any]:
    there = tally.uptime > 0
    owners = np.bincount(world.owner, weights=gained, minlength=len(world.owners))
    owned = np.bincount(world.owner, minlength=len(world.owners)) > 0
    return {
        "nodes": int(there.sum()),
        "gini_nodes": gini(gained[there]), "jain_nodes": jain(gained[there]),
        "owners": int(owned.sum()),
        "gini_owners": gini(owners[owned]), "jain_owners": jain(owners[owned]),
        "by_device": {
            one.name: _earned(tally, gained, world.kind == number)
            for number, one in enumerate(KINDS)
        },
        "by_region": {
            one.name: _earned(tally, gained, world.region == number)
            for number, one in enumerate(REGIONS)
        },
        "by_place": {
            "at home": _earned(tally, gained, world.pool < 0),
            "in a local network": _earned(tally, gained, world.pool >= 0),
        },
        "richest_tenth_share": ratio(
            float(np.sort(gained[there])[::-1][: max(1, int(there.sum()) // 10)].sum()),
            float(gained[there].sum()),
        ),
        "nothing_share": ratio(int((gained[there] == 0).sum()), int(there.sum())),
    }  # fmt: skip


def _earned(tally: Tally, gained: Floats, mine: Bools) -> dict[str, Any]:
    hours = float(tally.uptime[mine].sum()) / HOUR_S
    micro = float(gained[mine].sum())
    return {"nodes": int(mine.sum()), "micro": round(micro), "micro_an_hour": ratio(micro, hours)}


def _group(world: World, tally: Tally, money: Money, group: Bools) -> dict[str, Any]:
    """Return what would-be attackers got, and what all others did."""
    mine = {world.ids[node] for node in np.flatnonzero(group).tolist()}
    if world.groups["sybil"] is group:  # and what they got under names that were given up
        mine |= money.income.keys() - set(world.ids)
    answers = sum(micro for peer, micro in money.income.items() if peer in mine)
    rewards = sum(micro for peer, micro in money.rewards.items() if peer in mine)
    return {
        "nodes": int(group.sum()),
        "hours": float(tally.uptime[group].sum()) / HOUR_S,
        "answers_micro": answers,
        "rewards_micro": rewards,
        "others_answers_micro": sum(money.income.values()) - answers,
        "others_rewards_micro": sum(money.rewards.values()) - rewards,
    }


def _audits(scenario: Scenario, judge: Judge, money: Money) -> dict[str, Any]:
    """Return what was audited, and of cheats by how often they are wrong how soon they were found.

    ``bound_windows`` is ``1 / (p q)``: so many windows one serves in the mean until it is found.
    """
    by_share: dict[str, Any] = {}
    for share in sorted({one.wrong_share for one in judge.cheats.values()}):
        mine = {peer: one for peer, one in judge.cheats.items() if one.wrong_share == share}
        found = [one for one in mine.values() if one.found_s is not None]
        hours = [((one.found_s or 0.0) - one.begun_s) / HOUR_S for one in found]
        by_share[f"{share:g}"] = {
            "cheats": len(mine),
            "found": len(found),
            "windows": sum(one.windows for one in mine.values()),
            "windows_for_each_found": ratio(sum(one.windows for one in mine.values()), len(found)),
            "bound_windows": ratio(1.0, scenario.audit_share * share),
            "hours_until_found": quantiles(np.array(hours)),
            "earned_micro": sum(money.income.get(peer, 0) for peer in mine),
        }
    return {
        "audit_share": scenario.audit_share,
        "false_alarms": scenario.false_alarms,
        "window_tokens": WINDOW_TOKENS,
        "windows": judge.windows,
        "windows_audited": judge.audits,
        "sessions_audited": judge.sessions_audited,
        "audited_layer_tokens": judge.audited_layer_tokens,
        "excluded_now": int(judge.excluded.sum()),
        "honest_excluded": judge.honest_excluded,
        "cheats": by_share,
    }
