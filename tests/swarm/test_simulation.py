"""A simulated pool: the same seed gives the same bytes, the book is right, the sums agree."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise, takewhile

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.cli_simulate import ATTACKS as OFFERED
from shoestring.swarm.cli_simulate import simulate as command
from shoestring.swarm.simulation.behaviour import prices, sessions_of
from shoestring.swarm.simulation.demand import make_demand, request_of
from shoestring.swarm.simulation.devices import KINDS, MODELS, speed
from shoestring.swarm.simulation.fairness import gini, jain
from shoestring.swarm.simulation.figures import quantiles
from shoestring.swarm.simulation.judging import WINDOW_TOKENS, Judge
from shoestring.swarm.simulation.places import REGIONS, between_s
from shoestring.swarm.simulation.running import simulate
from shoestring.swarm.simulation.scenario import ATTACKS, HOUR_S, Scenario
from shoestring.swarm.simulation.world import make_world
from tests.swarm.pools import SMALL

HASHED = """
import hashlib, json
from shoestring.swarm.simulation.running import simulate
from shoestring.swarm.simulation.scenario import Scenario
outcome = simulate(Scenario(nodes=120, requests=20, hours=4, attack="sybil", audit_share=0.2))
print(hashlib.sha256(json.dumps(outcome).encode()).hexdigest())
"""


FEW = replace(SMALL, requests=30)
"""For what needs no more answers: those of so small a pool take long, as many find no route."""


@pytest.fixture(scope="module")
def outcome():
    """A small pool without attack."""
    return simulate(SMALL)


@pytest.fixture(scope="module")
def few():
    """The same pool, asked less."""
    return simulate(FEW)


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    """Whatever the hashes of strings are there."""
    found = {
        subprocess.run(
            [sys.executable, "-c", HASHED], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1


def test_another_seed_gives_another_day(few):
    """The seed is used."""
    other = simulate(replace(FEW, seed=2))
    assert other["ledger"]["hash"] != few["ledger"]["hash"]
    assert other["all"] != few["all"]


def test_the_book_is_right_and_its_sums_are_those_of_the_outcome(outcome):
    """What is held is captured or released, what is paid is somebody's income."""
    ledger = outcome["ledger"]
    assert ledger["right"]
    assert ledger["fault"] == ""
    assert ledger["sum_micro"] == 0
    assert ledger["held_micro"] == ledger["captured_micro"] + ledger["released_micro"]
    group = outcome["groups"]["lazy"]
    incomes = group["answers_micro"] + group["others_answers_micro"]
    assert incomes == ledger["captured_micro"] - ledger["refunded_micro"]
    assert group["rewards_micro"] + group["others_rewards_micro"] == ledger["rewarded_micro"]
    assert 0 < ledger["rewarded_micro"] <= SMALL.rewards_micro


def test_every_request_is_served_or_has_its_reason(outcome):
    """None is forgotten, in no division of them."""
    every = outcome["all"]
    assert every["asked"] == SMALL.requests
    unserved = sum(outcome["unserved"].values())
    assert every["served_share"] == pytest.approx(1 - unserved / SMALL.requests, rel=1e-4)
    for division in ("by_model", "by_profile", "by_place"):
        assert sum(one["asked"] for one in outcome[division].values()) == SMALL.requests
    assert sum(outcome["series"]["asked"]) == SMALL.requests
    assert len(outcome["series"]["asked"]) == SMALL.hours
    assert sum(outcome["series"]["paid_micro"]) == outcome["ledger"]["captured_micro"]


def test_an_outcome_is_json_without_infinities(outcome):
    """Nothing is said that JSON has no word for."""
    json.dumps(outcome, allow_nan=False)


def test_cheats_are_found_and_lose_what_they_earned_by_that_answer(outcome):
    """Without false alarms all that are excluded were wrong."""
    audits = outcome["audits"]
    found = sum(one["found"] for one in audits["cheats"].values())
    assert found > 0
    assert audits["excluded_now"] == found
    assert outcome["ledger"]["refunded_micro"] > 0


def test_a_cheat_is_found_as_often_as_is_stated():
    """In 1 - (1 - p q)^w of its sessions, within five standard deviations."""
    scenario = replace(SMALL, audit_share=0.1, cheats=1.0)
    world = make_world(scenario)
    judge, node, sessions = Judge(scenario, world), 0, 20_000
    found = sum(
        judge.serve(node, world.ids[node], 3 * WINDOW_TOKENS, 8, 0.0)[2] for _ in range(sessions)
    )
    stated = 1 - (1 - 0.1 * float(world.wrong_share[node])) ** 3
    assert abs(found - sessions * stated) < 5 * (sessions * stated * (1 - stated)) ** 0.5
    assert judge.excluded[node]
    assert judge.windows == 3 * sessions
    assert abs(judge.audits - 0.3 * sessions) < 5 * (3 * sessions * 0.1 * 0.9) ** 0.5
    looked = sessions * (1 - 0.9**3)
    assert abs(judge.sessions_audited - looked) < 5 * (looked * 0.9**3) ** 0.5


def test_who_is_found_was_wrong_and_looked_at():
    """Each session by itself: what is found is part of both, and all windows audited miss none."""
    scenario = replace(SMALL, audit_share=0.3, cheats=1.0)
    world = make_world(scenario)
    judge, node = Judge(scenario, world), int(np.argmin(world.wrong_share))
    seen = Counter(
        judge.serve(node, world.ids[node], 4 * WINDOW_TOKENS, 8, 0.0) for _ in range(2_000)
    )
    assert {(True, True, True), (True, True, False), (False, True, False)} <= seen.keys()
    assert not any(found and not (wrong and looked) for wrong, looked, found in seen)
    judge = Judge(replace(scenario, audit_share=1.0), world)
    for _ in range(200):
        wrong, looked, found = judge.serve(node, world.ids[node], WINDOW_TOKENS, 8, 0.0)
        assert looked
        assert found == wrong


def test_a_false_alarm_excludes_an_honest_node_as_often_as_is_assumed():
    """It is a probability for each audit of a right window; without any nobody is wronged."""
    honest = replace(FEW, cheats=0.0)
    right = simulate(honest)
    assert right["audits"]["excluded_now"] == 0
    assert right["audits"]["sessions_audited"] > 0
    wronged = simulate(replace(honest, audit_share=0.3, false_alarms=0.05))
    assert wronged["audits"]["honest_excluded"] == wronged["audits"]["excluded_now"] > 0
    assert wronged["ledger"]["refunded_micro"] > 0
    assert wronged["all"]["wrong_share"] == 0
    scenario = replace(honest, audit_share=0.5, false_alarms=0.1)
    world = make_world(scenario)
    judge, sessions = Judge(scenario, world), 20_000
    alarms = sum(judge.serve(0, world.ids[0], WINDOW_TOKENS, 8, 0.0)[2] for _ in range(sessions))
    assert abs(alarms - 0.05 * sessions) < 5 * (sessions * 0.05 * 0.95) ** 0.5
    assert judge.honest_excluded == 1


def test_trust_rises_with_good_audits_and_falls_with_bad_ones():
    """By the market's own rule; a new name begins as a stranger."""
    scenario = replace(SMALL, audit_share=1.0, cheats=0.0)
    world = make_world(scenario)
    judge, node = Judge(scenario, world), int(np.flatnonzero(world.newcomer)[0])
    before = judge.trust(node, 0.0)
    for _ in range(3):
        judge.serve(node, world.ids[node], WINDOW_TOKENS, 8, 0.0)
    assert judge.trust(node, 0.0) > before == 0.5
    judge.forget(node, 0.0)
    assert judge.trust(node, 0.0) == 0.5


def test_without_audits_nobody_is_found():
    """Finding is by audits alone."""
    audits = simulate(replace(FEW, audit_share=0.0))["audits"]
    assert audits["sessions_audited"] == 0
    assert audits["excluded_now"] == 0
    assert sum(one["cheats"] for one in audits["cheats"].values()) > 0


def test_nobody_cheats_where_no_cheat_is():
    """No answer is wrong then."""
    outcome = simulate(replace(FEW, cheats=0.0))
    assert outcome["all"]["wrong_share"] == 0
    assert outcome["audits"]["cheats"] == {}


def test_users_in_a_local_network_are_served_by_it_more_than_others(outcome):
    """As the note wants it; a company's own users are served there alone."""
    places = outcome["by_place"]
    assert places["in a local network"]["near_share"] > 0
    assert places["at home"]["near_share"] == 0
    own = outcome["by_profile"]["own"]
    assert own["asked"] == 0 or own["near_share"] in (None, 1)


def test_a_run_that_is_stopped_says_so_and_its_book_is_right():
    """What was until then is there."""
    asked = iter(range(10_000_000))
    outcome = simulate(SMALL, stopped=lambda: next(asked) > 250)
    assert outcome["partial"]
    assert outcome["ledger"]["right"]
    assert 0 < outcome["all"]["asked"] < SMALL.requests


def test_who_signs_for_nothing_takes_rewards_from_all_others(few):
    """The design does not hold this off; the pool bounds it."""
    attacked = simulate(replace(FEW, attack="collusion"))
    before, after = few["groups"]["collusion"], attacked["groups"]["collusion"]
    assert after["rewards_micro"] > 2 * before["rewards_micro"]
    assert attacked["ledger"]["rewarded_micro"] <= FEW.rewards_micro


def test_a_world_is_one_that_can_be():
    """Nodes compute what they hold, and local networks are near."""
    world = make_world(replace(SMALL, nodes=400))
    layers = np.array([speed(model, 0).layers for model in range(len(MODELS))])[world.model]
    assert (world.first >= 0).all()
    assert (world.end <= layers).all()
    assert (world.most >= 1).all()
    assert (world.most <= world.end - world.first).all()
    pool = int(world.pool[0])
    near = world.rtt_s(len(REGIONS) + pool, np.arange(len(world)))
    assert near[world.pool == pool].max() <= 0.002
    assert near[world.pool != pool].min() > 0.002
    assert (between_s() == between_s().T).all()


def test_speeds_are_those_of_the_planner():
    """Faster devices are faster, and models of more layers have them."""
    assert [speed(model, 0).layers for model in range(len(MODELS))] == [32, 48, 60]
    first, last = speed(0, 0), speed(0, len(KINDS) - 1)
    assert first.layer_s < last.layer_s
    assert first.prompt_layer_s < first.layer_s


def test_requests_come_in_order_and_more_in_the_evening():
    """By local time of their region."""
    scenario = Scenario(nodes=150, requests=20_000)
    demand = make_demand(scenario, make_world(scenario))
    assert (np.diff(demand.at_s) >= 0).all()
    assert demand.at_s[-1] < scenario.lasts_s
    hours = Counter((demand.at_s[demand.place == 3] // HOUR_S).astype(int).tolist())
    assert hours[20] > 2 * hours[8]


def test_a_request_keeps_what_its_user_wants():
    """Cheap, careful and fast ones differ; a company asks its own."""
    cheap, careful, fast = (request_of(0, profile, 0) for profile in range(3))
    assert (cheap.prefer, fast.prefer) == ("price", "latency")
    assert careful.least_trust > cheap.least_trust == 0
    assert fast.max_price is not None
    assert request_of(0, 3, 0, owners=frozenset({"a"})).owners == {"a"}


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=40))
@settings(deadline=None)
def test_fairness_is_between_its_ends(values):
    """Whoever has what."""
    uneven, even = gini(values), jain(values)
    assert uneven is None or -1e-9 <= uneven < 1
    assert even is None or 1 / len(values) - 1e-9 <= even <= 1 + 1e-9
    assert gini([7.0] * len(values)) == pytest.approx(0)
    assert jain([7.0] * len(values)) == pytest.approx(1)


def test_fairness_of_one_who_has_all():
    """Of four, that is three quarters, and a quarter."""
    assert gini([0, 0, 0, 8]) == pytest.approx(0.75)
    assert jain([0, 0, 0, 8]) == pytest.approx(0.25)
    assert gini([0, 0]) is None


def test_a_quantile_of_too_few_is_none():
    """Rather than a number that means nothing."""
    found = quantiles(np.arange(10.0))
    assert found["median"] == pytest.approx(4.5)
    assert found["p99"] is None
    assert quantiles(np.array([]))["mean"] is None


@given(st.integers(0, 2**63 - 1), st.integers(0, 10_000), st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_node_comes_before_it_goes(seed, node, pooled):
    """Times rise, and reach the end."""
    scenario = Scenario(seed=seed)
    times = sessions_of(scenario, node, pooled=pooled)
    assert all(one < other for one, other in pairwise(times))
    assert times[-1] >= scenario.lasts_s


def test_prices_are_whole_and_bounded():
    """As the market takes them."""
    found = prices(np.array([0.0, 2.0, 1e9]), np.array([1.0, 3.3, 1e9]))
    assert found.tolist() == [0, 7, 100_000_000]


@pytest.mark.parametrize(
    ("name", "value"),
    [("nodes", 5), ("requests", 0), ("seed", -1), ("hours", 0), ("audit_share", 1.5),
     ("cheats", float("nan")), ("false_alarms", -0.1), ("bin_s", 0), ("attack", "rain")],
)  # fmt: skip
def test_what_cannot_be_simulated_is_refused(name, value):
    """By its name and what it may be."""
    with pytest.raises(BadValueError, match=f"{name}.*give"):
        Scenario(**{name: value})


def test_the_command_offers_every_attack_and_writes_both_runs(tmp_path):
    """One without it, one with it."""
    assert OFFERED == ATTACKS
    path = tmp_path / "out.json"
    done = CliRunner().invoke(command, [
        "--nodes", "120", "--requests", "20", "--hours", "4", "--attack", "lazy",
        "--json", str(path),
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "a million tokens" in done.stdout
    assert "20 of 20 requests" in done.stderr
    written = json.loads(path.read_text())
    assert list(written["runs"]) == ["without attack", "lazy"]
    assert not written["partial"]


def test_ctrl_c_ends_with_what_there_is(tmp_path):
    """Its JSON is whole and says that it is partial; the status is that of an interrupt."""
    path = tmp_path / "out.json"
    call = "from shoestring.swarm.cli_simulate import simulate; simulate()"
    given = ["--nodes", "120", "--requests", "2000", "--hours", "4", "--json", str(path)]
    with subprocess.Popen(
        [sys.executable, "-c", call, *given], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        first = list(takewhile(lambda line: "simulated" not in line,
                               iter(process.stderr.readline, "")))  # fmt: skip
        assert process.poll() is None, first
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "partial" in told
    assert "a million tokens" in out
    written = json.loads(path.read_text())
    assert written["partial"]
    assert written["runs"]["without attack"]["ledger"]["right"]


def test_the_command_refuses_a_place_that_cannot_be_written(tmp_path):
    """Before anything is simulated."""
    done = CliRunner().invoke(command, ["--json", str(tmp_path / "none" / "out.json")])
    assert isinstance(done.exception, BadValueError)
    assert "cannot be written" in str(done.exception)
    assert "simulated" not in done.stderr
