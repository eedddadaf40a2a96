"""Receipts of real sessions: llama-server over real workers, in a star and in a chain."""

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace

import pytest
import requests

from shoestring.digests import file_sha256
from shoestring.errors import EngineLostError
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.conversation import Conversation
from shoestring.swarm.crossing import Crossings
from shoestring.swarm.node import Node as Agent
from shoestring.swarm.node import Offer
from shoestring.swarm.proof.agreeing import FREE, Asked, Price
from shoestring.swarm.proof.books import check_stages
from shoestring.swarm.proof.earning import Earner
from shoestring.swarm.proof.figures import Layers
from shoestring.swarm.proof.keeping import ReceiptFiles
from shoestring.swarm.proof.paying import Payer, Paying
from shoestring.swarm.proof.receipts import Hand, amount
from shoestring.swarm.remote import Remote
from shoestring.swarm.spares import Need, Spare, Spares
from shoestring.swarm.stage import standing_stages
from shoestring.swarm.weights import Weights
from shoestring.swarm.wire import Command
from shoestring.swarm.worker_pool import WorkerPool
from shoestring.swarm.worker_settings import WorkerSettings
from shoestring.testing.engines import need_program
from tests.swarm.nodes import Node
from tests.swarm.test_chain import answers
from tests.swarm.test_node import DEVICE, GIB, RULES

pytestmark = pytest.mark.engine
PRICE = Price(price_in=3_000, price_out=20_000)
ASKED = Asked(most=PRICE, window_steps=8)
PREDICTED = 12
"""Of each of the three answers."""


@asynccontextmanager
async def selling(owner, files, price=PRICE):
    """Let a node serve at a price, and keep its receipts."""
    program = need_program("ggml-rpc-server")
    digest = file_sha256(program)
    offer = Offer(RULES, digest, DEVICE, threads=1, price=price)
    async with WorkerPool(WorkerSettings(program, digest, threads=1)) as pool:
        hand = Hand(owner.identity, files.keep)
        agent = Agent(owner.peers, pool, offer, hand=hand, say=owner.said.append)
        async with owner.listener(agent.answer) as listener:
            agent.crossings = Crossings(
                owner.identity, listener.admit_for, listener.end_admission, owner.clock
            )
            address = PeerAddress(owner.identity.id, "127.0.0.1", listener.port)
            yield Remote(owner.folder.name, address, owner.identity.certificate)


class Swarm:
    """What became of a chain: its answers, events, and receipts at both ends."""

    def __init__(self, folder):
        """Begin with nothing."""
        self.folder, self.told, self.said = folder, [], []
        self.owners, self.kept = [], {}

    def files(self, name):
        """Return a party's receipts."""
        if name not in self.kept:
            self.kept[name] = ReceiptFiles(self.folder / name / "receipts", self.told.append)
        return self.kept[name]

    def receipts(self, name):
        """Return the sessions that a party keeps, those with steps alone, the oldest first."""
        files = self.files(name)
        return [files.read(path) for path in files.sessions()]

    def of(self, what):
        """Return why this happened, each time that it did."""
        return [event.why for event in self.told if getattr(event, "what", None) == what]


def run(folder, model, between=None, *, spares=0, asked=ASKED, ask=answers, price=PRICE, **more):
    """Ask three times over two stages; return all that became of it."""
    swarm = Swarm(folder)

    async def scenario():
        friend = Node(folder / "friend")
        async with AsyncExitStack() as stack:
            remotes = []
            for number in range(2 + spares):
                owner = Node(folder / f"owner{number}")
                owner.knows(friend, rights=("use",))
                friend.knows(owner)
                swarm.owners.append(owner)
                files = stack.enter_context(closing(swarm.files(owner.folder.name)))
                remotes.append(await stack.enter_async_context(selling(owner, files, price)))
            mine = stack.enter_context(closing(swarm.files("friend")))
            stages = await stack.enter_async_context(
                standing_stages(
                    friend.identity, [[one] for one in remotes[:2]],
                    Spares(Spare(one, GIB) for one in remotes[2:]), Weights(model),
                    needs=[Need(GIB), Need(GIB)], tell=swarm.told.append,
                    paying=Paying(asked, Hand(friend.identity, mine.keep)), **more,
                )
            )  # fmt: skip
            loop = asyncio.get_running_loop()

            def call_between():
                if between is not None:
                    asyncio.run_coroutine_threadsafe(between(stages), loop).result()

            try:
                swarm.said = await asyncio.to_thread(ask, stages, model, folder, call_between)
            finally:
                print(*swarm.told, *(owner.said for owner in swarm.owners), sep="\n")

    asyncio.run(scenario())
    return swarm


def stages_of(swarm):
    """Return the sessions of the client's, in the order of their layers."""
    chains = swarm.receipts("friend")
    return sorted(chains, key=lambda chain: chain[-1].receipt.layers.first)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("pushes", [False, True])
def test_both_ends_hold_the_same_receipts(small_model, tmp_path, pushes):
    """In a star and in a chain: complete, and what one stage gave out the next one was given."""
    swarm = run(tmp_path, small_model.path, pushes=pushes)
    assert len(set(swarm.said)) == 1
    assert bool(swarm.of("pushes")) is pushes
    assert swarm.of("disputes") == []
    first, second = stages_of(swarm)
    assert [first, second] == swarm.receipts("owner0") + swarm.receipts("owner1")
    assert check_stages([first, second]) == len(first) == len(second)
    for chain in (first, second):
        figures = chain[-1].receipt.figures
        assert figures.tokens_out == figures.steps >= 3 * PREDICTED, "a prompt gives the first one"
        assert amount(chain[-1].receipt) > 0
    layers = [chain[-1].receipt.layers for chain in (first, second)]
    assert layers == [
        Layers(1, 9, head=False, computed=9),
        Layers(10, 17, head=True, computed=8),
    ]


def test_a_lost_nodes_place_is_taken_by_one_with_receipts_of_its_own(
    small_model, tmp_path, monkeypatch
):
    """In mid-answer: all three sessions are whole, and the windows of whoever stayed go on."""
    finish, lost = Conversation.finish, []

    def finish_and_lose(self, replica, reply, digest):
        finish(self, replica, reply, digest)
        if replica.name == "owner1" and self.steps > 20 and not lost:
            lost.append(self)
            self.lose(replica, "the test says so")

    monkeypatch.setattr(Conversation, "finish", finish_and_lose)
    swarm = run(tmp_path, small_model.path, spares=1)
    assert (len(set(swarm.said)), len(lost)) == (1, 1)
    assert swarm.of("disputes") == []
    chains = {chain[0].receipt.terms.node: chain for chain in swarm.receipts("friend")}
    first, second, spare = (chains[owner.identity.id] for owner in swarm.owners)
    assert ([first], [spare]) == (swarm.receipts("owner0"), swarm.receipts("owner2"))
    assert swarm.receipts("owner1") == [second]
    assert 0 < check_stages([first, second]) <= len(second)
    # How many windows of the two hold the same steps depends on pauses; none contradicts another.
    assert check_stages([first, spare]) < len(first)
    assert spare[-1].receipt.step == first[-1].receipt.step


def test_a_wrong_tally_is_a_dispute_about_the_first_frame_that_differs(
    small_model, tmp_path, monkeypatch
):
    """The node meters another graph than it was told: no receipt of it counts at either end."""
    note, graphs = Earner.note, []

    def note_wrongly(self, frame):
        graphs.append(frame.command == Command.GRAPH_RECOMPUTE)
        wrong = graphs.count(True) == 5 and graphs[-1]
        note(self, frame._replace(size=frame.size + 1) if wrong else frame)

    monkeypatch.setattr(Earner, "note", note_wrongly)
    swarm = run(tmp_path, small_model.path, price=FREE, pushes=False)
    (why,) = swarm.of("disputes")
    assert re.search(r"frame \d+ of the window differs, GRAPH_RECOMPUTE", why)
    assert len(set(swarm.said)) == 1, "a free node goes on"
    assert len(swarm.receipts("friend")) == 2
    for name in ("owner0", "owner1"):
        (chain,) = swarm.receipts(name)
        assert chain in swarm.receipts("friend")


def test_a_node_with_a_price_computes_one_window_for_who_does_not_sign(
    small_model, tmp_path, monkeypatch
):
    """A client that never settles is stopped, and so is its llama-server."""
    monkeypatch.setattr(Payer, "claim", lambda _self: None)
    monkeypatch.setattr(Payer, "is_full", False)
    computed = []
    note = Earner.note

    def count(self, frame):
        note(self, frame)
        computed.append((self, self._tally.open_steps))

    monkeypatch.setattr(Earner, "note", count)

    def ask(*given):
        with pytest.raises((requests.RequestException, EngineLostError)):
            answers(*given)
        return []

    swarm = run(tmp_path, small_model.path, ask=ask, pushes=False)
    ended = [line for owner in swarm.owners for line in owner.said if "refused" in line]
    assert "refused: unpaid: 8 steps are not signed for" in ended[0]
    assert max(steps for _, steps in computed) == ASKED.window_steps
    assert swarm.receipts("friend") == []


@pytest.mark.usefixtures("unhurried")
def test_a_slow_signature_holds_back_the_steps_that_the_node_would_not_compute(
    small_model, tmp_path
):
    """A window that is as short as can be: every step but one waits for a receipt."""
    swarm = run(tmp_path, small_model.path, asked=replace(ASKED, window_steps=2))
    assert len(set(swarm.said)) == 1
    first, second = stages_of(swarm)
    assert check_stages([first, second]) == len(first) == len(second)
    assert len(first) >= first[-1].receipt.figures.steps - 1
