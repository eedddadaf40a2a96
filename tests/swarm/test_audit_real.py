"""Audits of real sessions: cheats are found and excluded, honest nodes never."""

import asyncio

import pytest

from shoestring.swarm import copying
from shoestring.swarm import node as nodes
from shoestring.swarm.audit.attesting import challenge
from shoestring.swarm.audit.evidence import read
from shoestring.swarm.audit.sampling import Chance
from shoestring.swarm.proof.agreeing import FREE
from shoestring.testing.audit_lab import ask_all, audit_lab, tiny_model
from shoestring.testing.cheating_worker import (
    FewerLayers,
    Honest,
    Overcounting,
    Perturbed,
    PoisonedCopies,
    Reused,
)
from shoestring.testing.engines import need_program

pytestmark = pytest.mark.engine
LAST = {7}
"""Of the layers that the audited stage has."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of random weights, and engines for it."""
    need_program("ggml-rpc-server")
    need_program("llama-server")
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def always():
    """Cheat in every step."""
    return True


CHEATS = {
    "a wrong output": lambda: Perturbed(0.1, always),
    "an output that is wrong by next to nothing": lambda: Perturbed(1e-6, always),
    "the last step's output again": lambda: Reused(always),
    "fewer layers": lambda: FewerLayers(LAST, always),
}


def run(folder, model, cheats=(), **settings):
    """Ask once; return what became of it."""

    async def scenario():
        async with audit_lab(folder, model, cheats, **settings) as lab:
            try:
                await ask_all(lab)
            finally:
                print(*lab.events, *lab.said, lab.auditor.counts, sep="\n")
        return lab

    return asyncio.run(scenario())


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("pushes", [False, True])
def test_honest_nodes_stand_every_audit(tiny, tmp_path, pushes):
    """In a star and in a chain: each window is run again at another node, and is the same."""
    lab = run(tmp_path, tiny, stages=2, pushes=pushes)
    audited = [who for who, _ in lab.of("audited")]
    assert set(audited) == {"node0", "node1"}
    assert len(audited) == len(lab.recordings) > 3
    assert bool(lab.of("pushes")) is pushes
    assert lab.standing.excluded() == frozenset()
    for number in range(2):
        stood = lab.standing.all()[lab.id(number)]
        assert (stood.same, stood.cheats) == (audited.count(f"node{number}"), 0)


@pytest.mark.parametrize("how", CHEATS)
def test_a_cheat_is_found_replaced_and_not_paid(tiny, tmp_path, how):
    """Its own signature is under the wrong answers; another node takes its place."""
    lab = run(tmp_path, tiny, [CHEATS[how]], spares=1, others=0)
    who, why = lab.of("cheats")[0]
    assert who == "node0"
    assert "is not what two others answer" in why
    assert lab.standing.excluded() == {lab.id(0)}
    evidence = read(min((tmp_path / "evidence").iterdir()))
    assert evidence.node == lab.id(0)
    assert evidence.signed_by_node()
    assert {who for who, _ in lab.of("lost")} == {"node0"}
    assert lab.of("joined")[-1][0] == "node1"
    assert lab.standing.payable({lab.id(0): 5, lab.id(1): 7}) == {lab.id(1): 7}
    assert lab.measured.all()[lab.id(0)].trust(0) < 0.5


@pytest.fixture
def copied(monkeypatch):
    """Copy the caches at every step."""
    monkeypatch.setattr(copying, "COPY_AFTER_S", 0.0)
    monkeypatch.setattr(copying, "COPY_SELDOM_S", 0.0)
    monkeypatch.setattr(copying, "COPY_SHARE", 0)


@pytest.mark.usefixtures("copied", "unhurried")
def test_a_true_copy_of_the_caches_is_what_others_have(tiny, tmp_path):
    """Windows that begin with one are the same elsewhere, and so is the copy itself."""
    lab = run(tmp_path, tiny)
    asked = [one.name for recording in lab.recordings for one in recording.questions()]
    assert any(name.startswith("cache_") for name in asked)
    assert len(lab.of("audited")) == len(lab.recordings)
    assert lab.standing.excluded() == frozenset()


@pytest.mark.usefixtures("copied")
def test_a_false_copy_of_the_caches_is_found(tiny, tmp_path):
    """Though all that the user was told is right."""
    lab = run(tmp_path, tiny, [PoisonedCopies], spares=1, others=0)
    who, why = lab.of("cheats")[0]
    assert (who, "(cache_" in why) == ("node0", True)
    assert lab.standing.excluded() == {lab.id(0)}


def test_an_auditor_that_lies_is_the_odd_one_out(tiny, tmp_path):
    """Who answered the user is honest, and this machine says so."""
    lab = run(tmp_path, tiny, [Honest, CHEATS["a wrong output"]])
    assert lab.standing.excluded() == {lab.id(1)}
    assert {who for who, _ in lab.of("cheats")} == {"node1"}


def test_two_that_differ_without_a_third_prove_nothing(tiny, tmp_path):
    """Nobody is excluded, and it is told."""
    lab = run(tmp_path, tiny, [CHEATS["a wrong output"]], here=False)
    assert lab.of("undecided")
    assert not lab.of("cheats")
    assert lab.standing.excluded() == frozenset()


def test_between_classes_a_rounding_passes_and_a_cheat_does_not(tiny, tmp_path):
    """Compared as numbers."""
    classes = {"kinds": ["one class", *["another class"] * 2], "here": False, "spares": 1}
    rounding = run(tmp_path / "a", tiny, [CHEATS[
        "an output that is wrong by next to nothing"]], **classes)  # fmt: skip
    assert rounding.of("audited")
    assert rounding.standing.all()[rounding.id(0)].undecided == 0
    assert rounding.standing.excluded() == frozenset()
    wrong = run(tmp_path / "b", tiny, [CHEATS["fewer layers"]], **classes)
    assert wrong.standing.excluded() == {wrong.id(0)}


def test_a_wrong_count_is_found_by_the_receipt_and_not_by_an_audit(tiny, tmp_path, monkeypatch):
    """Double entry: the first receipt of it is disputed, and no sum of it is signed."""
    monkeypatch.setattr(nodes, "Earner", Overcounting)
    lab = run(tmp_path, tiny, chance=Chance(0.0), price=FREE)
    assert "every frame is the same, not tokens_out" in lab.of("disputes")[0][1]
    assert lab.signed == []
    assert lab.recordings == []


def test_a_node_says_to_a_peer_that_it_is_there(tiny, tmp_path):
    """By a word of its own; what both signed counts."""

    async def scenario():
        async with audit_lab(tmp_path, tiny, others=0, here=False) as lab:
            return await challenge(lab.identity, lab.remotes[0]), lab

    found, lab = asyncio.run(scenario())
    assert found.node == lab.id(0)
    assert found.fault(found.at_s, {lab.identity.id}) is None
