"""Attacks on a simulated pool: each does what is told of it, and no money is made of nothing."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from shoestring.swarm.simulation import running
from shoestring.swarm.simulation.attacks import attacked_margins, shown_owners
from shoestring.swarm.simulation.behaviour import first_margins, next_margins, prices, sessions_of
from shoestring.swarm.simulation.demand import make_demand
from shoestring.swarm.simulation.judging import Judge
from shoestring.swarm.simulation.market import Market
from shoestring.swarm.simulation.money import Money
from shoestring.swarm.simulation.running import simulate
from shoestring.swarm.simulation.scenario import ATTACKS
from shoestring.swarm.simulation.world import make_world
from tests.swarm.pools import SMALL


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_leaves_the_book_right(attack):
    """Whatever is tried, no money is made of nothing."""
    outcome = simulate(replace(SMALL, attack=attack))
    ledger = outcome["ledger"]
    assert ledger["right"]
    assert ledger["sum_micro"] == 0


def test_a_sybil_asks_a_little_more_than_its_power_and_less_than_most():
    """From the first hour on, as the attack is told."""
    world = make_world(replace(SMALL, attack="sybil"))
    margin, group = first_margins(world), world.groups["sybil"]
    assert group.any()
    assert (margin[group] == 1.05).all()
    again = next_margins(world, margin, margin, np.zeros(len(world)))
    assert (again[group] == 1.05).all()
    assert np.median(margin[~group]) > 1.3


@pytest.mark.parametrize("hours", [4, 8])
def test_a_price_war_is_for_nothing_from_a_quarter_to_the_half_then_dear(hours, monkeypatch):
    """However long the day is, on the boards that users route over."""
    scenario = replace(SMALL, hours=hours, requests=20, attack="price-war")
    world = make_world(scenario)
    group = np.flatnonzero(world.groups["price-war"])
    assert len(group)
    seen = []

    class Watched(Market):
        def set_prices(self, margin):
            super().set_prices(margin)
            asked = {
                world.ids[node]: tuple(
                    int(board.column(name)[board.slot(world.ids[node])])
                    for name in ("price_in", "price_out")
                )
                for model, board in enumerate(self.boards)
                for node in group[world.model[group] == model].tolist()
            }
            seen.append(asked)

    times = []

    def noted(*given):
        times.append(given[-1] / scenario.lasts_s)
        return attacked_margins(*given)

    monkeypatch.setattr(running, "Market", Watched)
    monkeypatch.setattr(running, "attacked_margins", noted)
    simulate(scenario)
    ids = [world.ids[node] for node in group.tolist()]
    raised = prices(3 * world.margin[group], world.cost_out[group]).tolist()
    assert {0.0, 0.25, 0.5} <= set(times)
    for at, asked in zip(times, seen, strict=True):
        mine = [asked[one] for one in ids]
        if at < 0.25:
            assert all(min(one) > 0 for one in mine)
        elif at < 0.5:
            assert all(one == (0, 0) for one in mine)
        else:
            assert [out for _, out in mine] == raised


def test_a_new_name_is_not_rewarded_for_what_the_old_one_did(monkeypatch):
    """Neither for its work nor for its hours."""
    done, renamed, rewarded = Counter(), {}, []
    serve, rename, reward = Judge.serve, Market.rename, Money.reward

    def noted_serve(self, node, peer, positions, layers, now_s):
        done[peer] += layers * positions
        return serve(self, node, peer, positions, layers, now_s)

    def noted_rename(self, node, now_s):
        rename(self, node, now_s)
        renamed[self._world.ids[node]] = now_s

    def noted_reward(self, services, over_s, reference):
        rewarded.append((self.now_s, dict(services)))
        reward(self, services, over_s, reference)

    monkeypatch.setattr(Judge, "serve", noted_serve)
    monkeypatch.setattr(Market, "rename", noted_rename)
    monkeypatch.setattr(Money, "reward", noted_reward)
    simulate(replace(SMALL, attack="sybil", audit_share=1.0, requests=600, hours=4))
    assert len(renamed) > 10
    work = Counter()
    for now_s, services in rewarded:
        for peer, one in services.items():
            work[peer] += one.layer_tokens
            assert one.uptime_s <= now_s - renamed.get(peer, 0.0)
    assert all(work[peer] <= done[peer] for peer in renamed)


def test_friends_under_an_eclipse_are_drawn_among_all_that_are_near():
    """Not the first ones by their number, who are companies; the same ones each time."""
    scenario = replace(SMALL, nodes=2_000, attack="eclipse-pinned")
    world = make_world(scenario)
    shown = shown_owners(scenario, world, 0, 0)
    near = (world.region == 0) & (world.model == 0) & ~world.groups["eclipse"]
    owners = np.unique(world.owner[near]).tolist()
    known = {place for place, owner in enumerate(owners) if world.owners[owner] in shown}
    assert len(known) == 20 < len(owners) / 2
    assert max(known) > len(owners) / 2
    assert shown == shown_owners(scenario, world, 0, 0)
    assert shown != shown_owners(replace(scenario, seed=2), world, 0, 0)


def test_an_eclipse_makes_its_victims_pay_more_and_friends_make_it_less():
    """A list of known owners is a bound on what can be asked."""
    many = replace(SMALL, nodes=600, requests=600, hours=4)
    free, alone, pinned = (
        simulate(replace(many, attack=attack))["victims"]
        for attack in (None, "eclipse", "eclipse-pinned")
    )
    assert free["served_share"] >= pinned["served_share"] >= alone["served_share"]
    assert alone["served_share"] > 0
    assert alone["million_tokens_micro"] > 2 * free["million_tokens_micro"]
    assert alone["million_tokens_micro"] > pinned["million_tokens_micro"]


def test_an_attack_changes_no_node_and_no_request_but_its_own():
    """So that the same seed with and without it can be compared."""
    plain, attacked = (replace(SMALL, attack=attack) for attack in (None, "sybil"))
    one, other = make_world(plain), make_world(attacked)
    assert other.ids[: len(one)] == one.ids
    assert np.array_equal(other.layer_s[: len(one)], one.layer_s)
    assert np.array_equal(make_demand(plain, one).at_s, make_demand(attacked, other).at_s)
    assert sessions_of(plain, 3, pooled=False) == sessions_of(attacked, 3, pooled=False)
