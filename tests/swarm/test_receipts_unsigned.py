"""What a node computes for a peer that signs for nothing, over all of its sessions."""

import asyncio
import re
import socket
from contextlib import asynccontextmanager, closing

import pytest

from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.node import Node as Agent
from shoestring.swarm.node import Offer
from shoestring.swarm.proof.agreeing import FREE, Asked, Price
from shoestring.swarm.proof.keeping import ReceiptFiles
from shoestring.swarm.proof.receipts import Hand
from shoestring.swarm.proof.terms import WINDOW_STEPS
from shoestring.swarm.proof.unsigned import FORGOTTEN_S, MOST_STEPS, Unsigned
from shoestring.swarm.remote import RefusedError, Remote, open_session
from shoestring.swarm.survey import greet
from shoestring.swarm.wire import Command, request
from shoestring.testing.rpc_frames import HELLO_ANSWER, graph, tensor, tensor_id, words
from tests.swarm.nodes import Collector, Node
from tests.swarm.test_node import DEVICE, RULES, until_said

PRICE = Price(price_in=3_000, price_out=20_000)
HELLO = request(Command.HELLO, bytes(24))
LEAF = tensor(8, buffer=0)
STEP = words(graph(LEAF, nodes=[tensor_id(LEAF)]))
"""Each graph is a step where no positions are ever set."""


class Idle:
    """A worker that says hello and computes nothing."""

    def __init__(self):
        """Begin."""
        self._ours, self._theirs = socket.socketpair()

    async def connect(self):
        """Of workers."""
        for side in (self._ours, self._theirs):
            side.setblocking(False)
        return self._ours

    async def ended(self):
        """Of workers: never."""
        loop = asyncio.get_running_loop()
        await loop.sock_recv(self._theirs, 1)
        await loop.sock_sendall(
            self._theirs, len(HELLO_ANSWER).to_bytes(8, "little") + HELLO_ANSWER
        )
        await asyncio.Event().wait()

    async def stop(self):
        """Of workers."""
        self._theirs.close()


class Pool:
    """Of workers that are idle."""

    is_broken = False

    async def take(self):
        """Of pools."""
        return Idle()


@asynccontextmanager
async def selling(folder, price=PRICE, **hand):
    """Let a node serve at a price; yields a friend, where, and the owner."""
    owner, friend = Node(folder / "owner"), Node(folder / "friend")
    owner.knows(friend, rights=("use",))
    offer = Offer(RULES, "ab" * 32, DEVICE, threads=1, price=price)
    its = Hand(owner.identity, lambda _signed: None, **hand)
    owner.news = asyncio.Event()

    def say(line):
        owner.said.append(line)
        owner.news.set()

    agent = Agent(owner.peers, Pool(), offer, hand=its, say=say)
    async with owner.listener(agent.answer) as listener:
        address = PeerAddress(owner.identity.id, "127.0.0.1", listener.port)
        yield friend, Remote("owner", address, owner.identity.certificate), owner


async def hang_up_after(steps, friend, remote, owner):
    """Have steps computed in a session of one's own, sign for none, and hang up."""
    opened = await open_session(friend.identity, remote, asked=Asked(PRICE))
    owner.said.clear()
    side = Collector()
    transport = opened.link.hand_over(side)
    transport.write(HELLO + STEP * steps)
    await side.has(len(HELLO_ANSWER))
    transport.close()
    await until_said(owner, " ended: ")


def test_who_hangs_up_without_signing_has_some_windows_and_not_one_each_time(tmp_path):
    """However many sessions it opens: what it left is told, then it gets none, and knows before."""

    async def scenario():
        async with selling(tmp_path) as (friend, remote, owner):
            for _ in range(MOST_STEPS // WINDOW_STEPS):
                greeted = await greet(friend.identity, remote)
                assert (greeted.free, greeted.why_not) == (1, None)
                await hang_up_after(WINDOW_STEPS, friend, remote, owner)
                assert re.fullmatch("32 steps of session .* are not signed for", owner.said[0])
            with pytest.raises(RefusedError, match="256 steps of your sessions") as refused:
                await open_session(friend.identity, remote, asked=Asked(PRICE))
            greeted = await greet(friend.identity, remote)
            return refused.value.word, owner.said[-1], greeted

    word, said, greeted = asyncio.run(scenario())
    assert word == "unpaid"
    assert said.startswith("no session for a friend: 256 steps")
    assert greeted.free == 0
    assert greeted.why_not.startswith("256 steps of your sessions")


def test_a_free_node_counts_nothing_of_that(tmp_path):
    """Nobody owes it anything."""

    async def scenario():
        async with selling(tmp_path, FREE) as (friend, remote, owner):
            for _ in range(3):
                await hang_up_after(WINDOW_STEPS, friend, remote, owner)
                assert not any("signed for" in line for line in owner.said)

    asyncio.run(scenario())


def test_steps_are_forgotten_after_a_day_and_are_each_peers_own():
    """From the first of them on; a peer that left few may come again."""
    now_s = [100.0]
    left = Unsigned(lambda: now_s[0])
    left.leave("ana", MOST_STEPS - 1)
    assert left.why_not("ana") is None
    now_s[0] += FORGOTTEN_S / 2
    left.leave("ana", 1)
    left.leave("ben", 1)
    assert "256 steps" in left.why_not("ana")
    assert "come again in 12.0 h" in left.why_not("ana")
    assert left.why_not("ben") is None
    now_s[0] += FORGOTTEN_S / 2
    assert left.why_not("ana") is None
    left.leave("ana", MOST_STEPS - 1)
    assert left.why_not("ana") is None, "the old ones are forgotten"


def test_an_owner_hears_once_each_time_that_no_receipts_can_be_kept(tmp_path):
    """However many peers ask meanwhile: nobody else could make room."""
    why_not = [None, "full", "full", None, "full"]

    async def scenario():
        async with selling(tmp_path, why_not=lambda: why_not.pop(0)) as (friend, remote, owner):
            while why_not:
                await greet(friend.identity, remote)
            return owner.said

    said = "no session begins from now on: no receipts can be kept: full"
    assert asyncio.run(scenario()) == [said, said]


def test_a_node_that_can_keep_no_receipts_begins_no_session_for_a_price(tmp_path, monkeypatch):
    """It would compute what it could never show; a free one goes on."""
    monkeypatch.setattr("shoestring.swarm.proof.keeping.MOST_FILES", 0)

    async def scenario(price):
        with closing(ReceiptFiles(tmp_path / "receipts", print)) as files:
            async with selling(tmp_path, price, why_not=files.why_not) as (friend, remote, _):
                seen = await greet(friend.identity, remote)
                if price is FREE:
                    (await open_session(friend.identity, remote, asked=Asked())).link.abort()
                else:
                    with pytest.raises(RefusedError, match="no receipts can be kept here"):
                        await open_session(friend.identity, remote, asked=Asked(price))
                return seen.free, seen.why_not

    free, why_not = asyncio.run(scenario(PRICE))
    assert (free, "move the oldest away" in why_not) == (0, True)
    assert asyncio.run(scenario(FREE)) == (1, None)
