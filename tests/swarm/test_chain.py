"""A chain of two nodes: activations go from one to the other, and the answer is the same."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import requests

from shoestring.engines.discovery import find_program
from shoestring.swarm import watching
from shoestring.swarm.boundaries import Boundaries
from shoestring.swarm.conversation import Conversation
from shoestring.swarm.pushing import Outgoing
from shoestring.swarm.remote import Remote
from shoestring.swarm.replica import Replica
from shoestring.swarm.spares import Need, Spare, Spares
from shoestring.swarm.stage import standing_stages
from shoestring.swarm.store import Store
from shoestring.swarm.weights import Weights
from shoestring.swarm.wire import Command, tensor_name
from shoestring.testing.live_server import live_server
from tests.swarm.nodes import Node
from tests.swarm.test_node import GIB, serving

pytestmark = pytest.mark.engine
ASKS = {Command.GET_TENSOR, Command.GET_ALLOC_SIZE}
COPIES = 5
"""Before a node is lost: some tokens of an answer."""
ASKED = {
    "prompt": "Once upon a time there was a ship. " * 8, "n_predict": 12, "temperature": 1,
    "seed": 7, "cache_prompt": False, "ignore_eos": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """However busy this machine is, no node is taken for lost; those that are, a test loses."""
    monkeypatch.setattr(watching, "SILENT_S", 30.0)


@asynccontextmanager
async def chain(folder, model, *, spares=0, keeps=False, **settings):
    """Let two nodes serve a stage each; yields the stages and what was told."""
    friend, told = Node(folder / "friend"), []
    async with AsyncExitStack() as stack:
        remotes = []
        for number in range(2 + spares):
            owner = Node(folder / f"owner{number}")
            owner.knows(friend, rights=("use",))
            friend.knows(owner)
            store = Store(owner.folder / "weights", GIB, say=told.append) if keeps else None
            there = await stack.enter_async_context(serving(owner, store))
            remotes.append(Remote(f"owner{number}", there.address, there.certificate))
        stages = await stack.enter_async_context(
            standing_stages(
                friend.identity, [[one] for one in remotes[:2]],
                Spares(Spare(one, GIB) for one in remotes[2:]), Weights(model),
                needs=[Need(GIB, on_cpu=True)] * 2, tell=told.append, **settings,
            )
        )  # fmt: skip
        yield stages, told


def server_over(stages, model, folder, context=512):
    """Run a llama-server over the stages."""

    def command(port):
        return (
            str(find_program("llama-server")), "-m", str(model), "--host", "127.0.0.1",
            "--port", str(port), "--rpc", ",".join(f"127.0.0.1:{one.port}" for one in stages),
            "--device", "RPC0,RPC1", "-ngl", "18", "-c", str(context), "-np", "1", "-t", "1",
            "--fit", "off",
        )  # fmt: skip

    return live_server(command, log_path=folder / "llama-server.log")


def answers(stages, model, folder, between=lambda: None):
    """Return what one llama-server over the stages says, three times."""
    with server_over(stages, model, folder) as server:
        said = [server.complete(ASKED)["content"] for _ in range(2)]
        between()
        return [*said, server.complete(ASKED)["content"]]


def run(folder, model, between=None, **settings):
    """Return the three answers over a chain, how many reads were replaced, and what was told."""

    async def ask():
        async with chain(folder, model, **settings) as (stages, told):
            loop = asyncio.get_running_loop()

            def call_between():
                if between is not None:
                    asyncio.run_coroutine_threadsafe(between(stages), loop).result()

            try:
                said = await asyncio.to_thread(answers, stages, model, folder, call_between)
            finally:
                print(*told, sep="\n")
            return said, Counter(event.what for event in told)

    return asyncio.run(ask())


@pytest.fixture
def replaced(monkeypatch):
    """Count the reads that are answered with a placeholder."""
    counted = []
    replace = Boundaries.replace

    def count(self, carried):
        counted.append(carried.key[1])
        return replace(self, carried)

    monkeypatch.setattr(Boundaries, "replace", count)
    return counted


@pytest.fixture
def star(small_model, tmp_path):
    """Return the answer where all activations come to the client."""
    said, told = run(tmp_path / "star", small_model.path, pushes=False)
    assert (len(set(said)), told["pushes"]) == (1, 0)
    return said[0]


def test_activations_go_from_node_to_node(star, small_model, tmp_path, replaced):
    """After the star has shown which they are; the text is the same."""
    said, told = run(tmp_path, small_model.path)
    assert said == [star] * 3
    assert told["pushes"] == 1
    assert len(replaced) > len(said) * ASKED["n_predict"]
    assert all(name.startswith(("l_out-", "norm-")) for name in replaced)


BEGIN = "The captain counted the days and wrote them down, one after another. " * 48
"""More than the window of Gemma's sliding attention, so that llama-server must come back to it."""
CONTEXT = 1024


def go_on(folder, model):
    """Ask two questions of one begin; return what is said, how much was kept, what nodes hear."""
    heard = []

    async def ask():
        async with chain(folder, model) as (stages, told):
            tell = Replica.tell

            def note(self, entries):
                entries = list(entries)
                heard.extend((one.frame.command, tensor_name(one.frame.head)) for one in entries
                             if one.frame.command in ASKS)  # fmt: skip
                tell(self, entries)

            def both():
                with server_over(stages, model, folder, CONTEXT) as server:
                    for end in ("Then the wind fell.", "One day nothing was left to count."):
                        asked = ASKED | {"prompt": BEGIN + end, "cache_prompt": True}
                        yield server.complete(asked)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Replica, "tell", note)
                try:
                    return await asyncio.to_thread(lambda: list(both()))
                finally:
                    print(*told, sep="\n")

    said = asyncio.run(ask())
    return [one["content"] for one in said], said[1]["timings"]["cache_n"], heard


def test_states_of_a_prompt_are_read_from_the_copy(small_model, tmp_path, monkeypatch):
    """As they are at the nodes, without a round trip for each tensor, or for sizes of tensors."""
    said, kept, heard = go_on(tmp_path / "copied", small_model.path)
    assert kept > CONTEXT // 2
    assert not [name for command, name in heard if name.startswith("cache_")]
    assert Command.GET_ALLOC_SIZE not in dict(heard)

    monkeypatch.setattr("shoestring.swarm.copying.Copying.takes", lambda _self, _entry: False)
    truly_said, truly_kept, truly_heard = go_on(tmp_path / "read", small_model.path)
    assert (truly_said, truly_kept) == (said, kept)
    assert [name for _, name in truly_heard if name.startswith("cache_")]


def test_what_a_node_does_not_push_comes_from_the_client(star, small_model, tmp_path, monkeypatch):
    """The way between the nodes looks open and carries nothing."""
    monkeypatch.setattr(Outgoing, "begin", lambda _self, _ticket, _size: None)
    monkeypatch.setattr(Outgoing, "add", _only_ours(Outgoing.add))
    monkeypatch.setattr("shoestring.swarm.routes.OVERDUE_S", 0.01)
    said, told = run(tmp_path, small_model.path)
    assert said == [star] * 3
    assert told["lost"] == 0


def test_the_end_of_one_stage_is_the_end_of_all(small_model, tmp_path, monkeypatch):
    """Nobody waits for what a lost node was to push, and nothing is computed from zeros."""
    given = []
    replace = Boundaries.replace

    def lose(self, carried):
        given.append(carried)
        if len(given) == ASKED["n_predict"]:
            loop = asyncio.get_running_loop()
            loop.call_soon(carried.by.lose, carried.by.replicas[0], "the test says so")
        return replace(self, carried)

    monkeypatch.setattr(Boundaries, "replace", lose)
    with pytest.raises(requests.RequestException):
        run(tmp_path, small_model.path)


def test_a_chain_is_mended_where_it_breaks(star, small_model, tmp_path, replaced):
    """Another node takes the second's place, and the first pushes to it."""

    async def break_second(stages):
        (conversation,) = stages[1].conversations
        conversation.lose(conversation.replicas[0], "the test says so")

    said, told = run(tmp_path, small_model.path, break_second, spares=1)
    assert said == [star] * 3
    assert (told["lost"], told["pushes"]) == (1, 2)
    assert replaced


def test_a_spare_has_the_weights_before_it_is_needed(small_model, tmp_path, monkeypatch):
    """Taking another's place, it is sent none of them."""
    joined = []
    join = Conversation.join
    monkeypatch.setattr(
        Conversation, "join", lambda self, one: (joined.append(one), join(self, one))
    )

    async def break_second(stages):
        rehearsing = [task for its in stages[1].spares.rehearsing.values() for task in its]
        await asyncio.gather(*rehearsing)
        (conversation,) = stages[1].conversations
        conversation.lose(conversation.replicas[0], "the test says so")

    said, told = run(tmp_path, small_model.path, break_second, spares=1, keeps=True)
    assert (len(set(said)), told["rehearsed"], told["lost"]) == (1, 2, 1)
    spare = joined[-1]
    assert (spare.name, spare.weights_sent_bytes) == ("owner2", 0)
    assert spare.weights_held_bytes > 1 << 20


def test_a_copy_and_what_came_after_it_are_the_whole_state(
    star, small_model, tmp_path, monkeypatch
):
    """A node is lost in mid-answer, when what led to the copy is long forgotten."""
    monkeypatch.setattr("shoestring.swarm.copying.COPY_AFTER_S", 0.0)
    monkeypatch.setattr("shoestring.swarm.copying.COPY_SHARE", 0)
    finish, lost = Conversation.finish, []

    def finish_and_lose(self, replica, reply, digest):
        finish(self, replica, reply, digest)
        if self.counts["copies"] > COPIES and not lost:
            lost.append(self.counts["copies"])
            self.lose(replica, "the test says so")

    monkeypatch.setattr(Conversation, "finish", finish_and_lose)
    said, told = run(tmp_path, small_model.path, spares=1)
    assert said == [star] * 3
    assert (told["lost"], len(lost)) == (1, 1)


def _only_ours(add):
    """Let through what the client delivers, which comes whole, and drop what a node pushes."""

    def add_whole(self, data):
        if int.from_bytes(data[8:16], "little") == len(data) - 16:
            add(self, data)

    return add_whole
