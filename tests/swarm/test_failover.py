"""Failover with real parts: whoever is lost in mid-answer, the user's text is the undisturbed one.

Nodes are processes on loopback, the model is the small real one. A few of each fault;
``benchmarks/swarm_faults.py`` makes them by the dozen, at random moments, with times, and pulls
cables.
"""

import asyncio
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from shoestring.swarm import watching
from shoestring.swarm.spares import Need, Spare, Spares
from shoestring.swarm.stage import HOST, Event, standing_stages
from shoestring.swarm.weights import Weights
from shoestring.testing.engines import need_program

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MEMORY_BYTES = 1 << 30
SEED = 7
TOKENS, AFTER_PARTS = 32, 5
pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_the_path():
    """Benchmarks are scripts that import each other by name."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def nodes_and_user():
    """Two nodes for all tests."""
    need_program("llama-server")
    need_program("ggml-rpc-server")
    from swarm_hosts import running_swarm

    with running_swarm(2) as swarm:
        yield swarm


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A node that a busy machine holds up is not taken for lost."""
    monkeypatch.setattr(watching, "SILENT_S", 5.0)


@pytest.fixture
def swarm(nodes_and_user):
    """The nodes; the first is hit, and as it was before once the test is over."""
    yield nodes_and_user
    nodes_and_user.mend(nodes_and_user.nodes[0])


@dataclass
class Seen:
    """What the user saw."""

    undisturbed: str
    disturbed: str
    error: str | None
    events: list[Event]

    def of(self, what):
        """Return who this happened to, in order."""
        return [event.who for event in self.events if event.what == what]


def answer_while(swarm, model, strike, *, members, spares=0):
    """Ask the same twice, strike in the middle of the second answer; return what the user saw."""
    from swarm_user import Told, hear, llama_server

    async def ask():
        told = Told()
        remotes = [node.remote for node in swarm.nodes]
        stages = standing_stages(
            swarm.identity, [remotes[:members]],
            Spares(Spare(one, MEMORY_BYTES) for one in remotes[members : members + spares]),
            Weights(model), needs=[Need(MEMORY_BYTES)], tell=told,
        )  # fmt: skip
        log = swarm.folder / "llama-server.log"
        async with (
            stages as [stage],
            llama_server([f"{HOST}:{stage.port}"], model, log) as server,
        ):
            calm = await asyncio.to_thread(hear, server, SEED, tokens=TOKENS)
            await told.until_ready(stage, members)
            timer = threading.Timer(0.0, strike)
            hit = await asyncio.to_thread(hear, server, SEED, AFTER_PARTS, timer, tokens=TOKENS)
        assert calm.error is None
        return Seen(calm.text, hit.text, hit.error, told.events)

    return asyncio.run(ask())


def kill(node):
    """End the node's process alone, at once."""
    return node.family()[0].kill


def test_a_killed_nodes_part_is_computed_by_a_spare(swarm, small_model):
    """It is told all that was said before, and the answer goes on."""
    seen = answer_while(swarm, small_model.path, kill(swarm.nodes[0]), members=1, spares=1)
    assert (seen.disturbed, seen.error) == (seen.undisturbed, None)
    assert seen.of("lost") == ["node1"]
    assert seen.of("ready")[-1] == "node2"


def test_a_killed_mirror_is_not_missed(swarm, small_model):
    """The other's answers are the same, and there already."""
    seen = answer_while(swarm, small_model.path, kill(swarm.nodes[0]), members=2)
    assert (seen.disturbed, seen.error) == (seen.undisturbed, None)
    assert seen.of("lost") == ["node1"]
    assert seen.of("differs") == []


def test_a_killed_workers_part_is_computed_by_a_spare(swarm, small_model):
    """The node says so by ending the session."""
    node = swarm.nodes[0]

    def strike():
        node.worker().kill()

    seen = answer_while(swarm, small_model.path, strike, members=1, spares=1)
    assert (seen.disturbed, seen.error) == (seen.undisturbed, None)
    assert seen.of("lost") == ["node1"]


@pytest.mark.parametrize("whole", [True, False], ids=["node", "worker"])
def test_what_stands_still_is_replaced(swarm, small_model, whole):
    """A node that is stopped says nothing any more; a worker that is stopped, its node tells."""
    node = swarm.nodes[0]

    def freeze():
        if whole:
            node.signal(signal.SIGSTOP)
        else:
            node.worker().suspend()

    seen = answer_while(swarm, small_model.path, freeze, members=1, spares=1)
    assert (seen.disturbed, seen.error) == (seen.undisturbed, None)
    assert seen.of("lost") == ["node1"]
    assert seen.of("ready")[-1] == "node2"


def test_without_anybody_left_the_answer_ends_in_an_error_and_the_loss_is_told(swarm, small_model):
    """The user does not take a short text for a whole one."""
    seen = answer_while(swarm, small_model.path, kill(swarm.nodes[0]), members=1)
    assert seen.error is not None
    assert seen.undisturbed.startswith(seen.disturbed)
    assert seen.of("lost") == ["node1"]
