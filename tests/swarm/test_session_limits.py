"""What peers cannot make a node do: hold much, wait for ever, keep guests, or look around for them.

Sessions stand between ends that are not there; words go over real links.
"""

import asyncio
import base64
from contextlib import asynccontextmanager, nullcontext
from types import SimpleNamespace

import pytest

from shoestring.digests import file_sha256
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.crossing import MOST_EXPECTED, Crossings, Sitting, take_push
from shoestring.swarm.link import Link, LinkError
from shoestring.swarm.node import Node as Agent
from shoestring.swarm.node import Offer, Stock
from shoestring.swarm.packing import PACKER, PART_BYTES
from shoestring.swarm.pushing import Outgoing
from shoestring.swarm.remote import Remote, open_session
from shoestring.swarm.session import Session
from shoestring.swarm.sides import HIGH_BYTES
from shoestring.swarm.store import Store
from shoestring.swarm.wire import Command, request
from shoestring.swarm.worker_pool import WorkerPool
from shoestring.swarm.worker_settings import WorkerSettings
from shoestring.testing.engines import need_program
from tests.swarm.clients import DEVICE, RULES, TENSOR, WEIGHT, Pipe, a_session, sha256, u64, until
from tests.swarm.nodes import HEAR_S, Node

BODIES = 40


def packed(size, declared=None):
    """Word a SET_PACKED of zeros."""
    body = PACKER.compress(bytes(size), PACKER.FLUSH_FRAME)
    return request(Command.SET_PACKED, TENSOR + u64(0, declared or size) + body)


def test_few_packed_bytes_never_become_one_huge_write():
    """A worker that does not read gets no more; when it does, the rest comes, part for part."""

    async def scenario():
        async with a_session(None) as session:
            client, worker = session.client.transport, session.worker.transport
            writes, before = [], worker.written
            session.take_requests(packed(PART_BYTES) * BODIES)
            assert not client.reading
            while worker.written > before:
                writes.append(worker.written - before)
                before = worker.written
                session.worker.resume_writing()
            return writes, client.reading

    writes, is_read = asyncio.run(scenario())
    assert max(writes) < HIGH_BYTES + 2 * PART_BYTES
    assert sum(writes) > BODIES * PART_BYTES
    assert is_read


def test_what_cannot_be_is_refused_when_its_turn_comes():
    """Also if that is when the worker reads again."""

    async def scenario():
        async with a_session(None) as session:
            session.take_requests(packed(PART_BYTES) + packed(PART_BYTES, PART_BYTES // 2))
            assert session.refused is None
            session.worker.resume_writing()
            return session.refused.reason

    assert asyncio.run(scenario()) == "packed"


def test_an_error_of_ours_ends_a_session_with_a_word(tmp_path):
    """Its frames would wait for ever."""

    class Broken(Store):
        def read(self, sha256, size):
            raise RuntimeError(f"{size} bytes of {sha256[:1]!r}")

    async def scenario():
        async with a_session(Broken(tmp_path / "weights", 1 << 30, say=str)) as session:
            session.take_requests(
                request(Command.TAKE, TENSOR + u64(0, len(WEIGHT)) + sha256(WEIGHT))
            )
            async with asyncio.timeout(HEAR_S):
                return await session.ended()

    assert asyncio.run(scenario()).startswith("failed here: RuntimeError: ")


class Way(Pipe):
    """Where something is pushed to."""

    def __init__(self):
        """It takes all."""
        super().__init__(None, asyncio.Event())
        self.HIGH, self.aborted = 1 << 30, False

    def get_write_buffer_size(self):
        """Of asyncio."""
        return 0

    def abort(self):
        """Note it."""
        self.aborted = True


def way():
    """Return what pushes, and its transport."""
    outgoing, pipe = Outgoing(), Way()
    outgoing.connection_made(pipe)
    return outgoing, pipe


def test_a_way_that_opens_in_an_answer_gets_none_of_it():
    """It was not told how much comes under which ticket; the next it gets whole."""

    async def scenario():
        async with a_session(None) as session:
            (first, first_pipe), (second, second_pipe) = way(), way()
            session.push_to(first)
            for ticket in (1, 2):
                session.take_requests(request(Command.GET_PUSH, TENSOR + u64(0, 64, ticket)))
            session.take_answers(u64(64) + bytes(32))
            session.push_to(second)
            session.take_answers(bytes(32))
            got = first_pipe.written, first_pipe.aborted, second_pipe.written
            session.take_answers(u64(64) + bytes(64))
            return got, second_pipe.written

    assert asyncio.run(scenario()) == ((16 + 32, True, 0), 16 + 64)


def test_a_way_to_a_session_that_is_over_ends():
    """It took longer to open than the session lasted."""

    async def scenario():
        async with a_session(None) as session:
            session.end("enough")
            outgoing, pipe = way()
            session.push_to(outgoing)
            return pipe.aborted

    assert asyncio.run(scenario())


# Words about pushing.


def certificate(node):
    """Word a node's."""
    return base64.b64encode(node.identity.certificate).decode()


@pytest.fixture
def parties(tmp_path):
    """A node, its friend, and another node."""
    made = [Node(tmp_path / name) for name in ("owner", "friend", "other")]
    made[0].knows(made[1])
    made[2].knows(made[0])
    return made


@asynccontextmanager
async def crossings(owner):
    """Let a node answer words about one session; yields where, the session, and its ways."""
    sitting = Sitting("", None, Session(RULES), "one")

    async def answer(link):
        word = await link.hear(HEAR_S)
        if word["do"] == "push":
            await take_push(link, sitting)
        else:
            await (ways.expect if word["do"] == "expect" else ways.route)(link, sitting, word)

    async with owner.listener(answer) as listener:
        ways = Crossings(owner.identity, listener.admit_for, listener.end_admission, owner.clock)
        yield listener.port, sitting, ways
        sitting.session.end("enough")


async def told(asker, owner, port, word):
    """Say a word to a node; return why it says no, or None."""
    link = await asker.link_to(owner, port)
    try:
        await link.say(word)
        answer = await link.hear(HEAR_S)
    finally:
        link.abort()
    return answer.get("reason")


def expecting(node, stage=0):
    """Word that a node may push, as a stage's."""
    return {"do": "expect", "certificate": certificate(node), "stage": stage}


def test_a_key_may_be_expected_again_and_of_other_stages_up_to_a_bound(parties):
    """What is said twice counts once."""
    owner, friend, other = parties

    async def scenario():
        async with crossings(owner) as (port, _, _):
            stages = [0, 0, *range(MOST_EXPECTED + 1), 0]
            return [await told(friend, owner, port, expecting(other, one)) for one in stages]

    assert asyncio.run(scenario()) == [None] * (2 + MOST_EXPECTED) + ["busy", None]


@pytest.mark.parametrize("stage", [None, "0", 0.5, True])
def test_a_key_is_expected_as_the_node_of_a_stage(parties, stage):
    """Without, nobody would know whose place it takes."""
    owner, friend, other = parties

    async def scenario():
        async with crossings(owner) as (port, sitting, _):
            return await told(friend, owner, port, expecting(other, stage)), sitting.expected

    assert asyncio.run(scenario()) == ("word", {})


@asynccontextmanager
async def pushing(node, owner, port):
    """Yield what a node pushes to the session by."""
    link = await node.link_to(owner, port)
    await link.say({"do": "push"})
    assert (await link.hear(HEAR_S))["ok"] is True
    outgoing = Outgoing()
    link.hand_over(outgoing)
    try:
        yield outgoing
    finally:
        outgoing.abort()


def push(outgoing, ticket, data):
    """Send a ticket's data."""
    outgoing.begin(ticket, len(data))
    outgoing.add(data)


@pytest.mark.parametrize("is_peer", [False, True])
def test_who_lost_its_place_pushes_nothing_in_anothers_name(parties, tmp_path, is_peer):
    """Neither what it sent ahead nor what it sends now; another stage's node goes on."""
    owner, friend, lost = parties
    recruit, third = Node(tmp_path / "recruit"), Node(tmp_path / "third")
    if is_peer:
        owner.knows(lost)

    async def scenario():
        got, news = [], asyncio.Event()
        async with crossings(owner) as (port, sitting, _):
            inbox = sitting.session.inbox

            async def wanted(ticket):
                inbox.want(ticket, 8, lambda data: got.append(data) or news.set())
                await until(lambda: inbox.wanted is None, news)
                news.clear()

            for word in (expecting(lost), expecting(third, stage=1)):
                assert await told(friend, owner, port, word) is None
            async with pushing(lost, owner, port) as late, pushing(third, owner, port) as other:
                for ticket in (1, 3, 4):
                    push(late, ticket, b"garbage!")
                await wanted(1)
                assert await told(friend, owner, port, expecting(recruit)) is None
                async with pushing(recruit, owner, port) as right:
                    for ticket in (3, 4):
                        push(right, ticket, b"theright")
                    await wanted(3)
                    push(late, 5, b"garbage!")
                    push(right, 5, b"theright")
                    for ticket in (4, 5):
                        await wanted(ticket)
                    push(other, 6, b"another!")
                    await wanted(6)
                    with pytest.raises(LinkError) if not is_peer else nullcontext():
                        assert await told(lost, owner, port, {"do": "push"}) == "session"
        return got

    got = asyncio.run(asyncio.wait_for(scenario(), HEAR_S))
    assert got == [b"garbage!", *[b"theright"] * 3, b"another!"]


def test_who_loses_its_place_while_it_comes_in_pushes_nothing(parties, monkeypatch):
    """It was let in a moment before."""
    owner, friend, lost = parties
    say = Link.say

    async def scenario():
        async with crossings(owner) as (port, sitting, ways):

            async def say_slowly(link, word):
                await say(link, word)
                if sitting.expected == {0: lost.identity.id} and link.peer_id == lost.identity.id:
                    ways._dismiss(sitting, 0)

            assert await told(friend, owner, port, expecting(lost)) is None
            monkeypatch.setattr(Link, "say", say_slowly)
            async with pushing(lost, owner, port):
                return dict(sitting.session.inbox._links)

    owner.knows(lost)
    assert asyncio.run(scenario()) == {}


def test_who_was_let_in_for_a_session_is_out_when_it_is_over(parties):
    """Else guests would fill the node."""
    owner, friend, other = parties

    async def scenario():
        async with crossings(owner) as (port, sitting, ways):
            await told(friend, owner, port, expecting(other))
            before = await told(other, owner, port, {"do": "push"})
            ways.end(sitting)
            with pytest.raises(LinkError) as refused:
                await told(other, owner, port, {"do": "push"})
            return before, refused.value.reason

    assert asyncio.run(scenario()) == (None, "closed")


def test_a_node_full_of_guests_says_so(parties, monkeypatch):
    """And breaks nothing off."""
    owner, friend, other = parties
    monkeypatch.setattr("shoestring.swarm.listening.MAX_GUESTS", 0)

    async def scenario():
        async with crossings(owner) as (port, sitting, _):
            return await told(friend, owner, port, expecting(other)), sitting.expected

    assert asyncio.run(scenario()) == ("busy", {})
    assert owner.said == []


@pytest.mark.parametrize(
    ("host", "there"),
    [
        ("localhost", "two"),
        ("lab.example", "two"),
        ("127.1", "two"),
        ("127.0.0.1", "x" * 63_000),
        ("127.0.0.1", "x" * 65),
        ("127.0.0.1", ""),
        ("127.0.0.1", None),
        ("127.0.0.1", ["two"]),
    ],
)
def test_a_route_goes_to_an_address_and_a_session(parties, host, there, monkeypatch):
    """No name is looked up for a peer, and nothing is connected to for what cannot be said."""
    owner, friend, other = parties

    async def never(*_):
        raise AssertionError(host)

    monkeypatch.setattr("shoestring.swarm.crossing.open_push", never)

    async def scenario():
        async with crossings(owner) as (port, _, _):
            word = route_to(other, 7000, host) | {"session_there": there}
            return await told(friend, owner, port, word)

    assert asyncio.run(scenario()) == "word"


def route_to(other, port, host="127.0.0.1"):
    """Word a way to another node's session."""
    to = f"{other.identity.id}@{host}:{port}"
    return {"do": "route", "to": to, "certificate": certificate(other), "session_there": "two"}


def test_who_comes_from_afar_routes_to_no_place_of_this_machine(parties, monkeypatch):
    """Its word is refused before anything is tried."""
    owner, friend, other = parties
    monkeypatch.setattr("shoestring.swarm.link.Link.host", "192.0.2.7")

    async def never(*_):
        raise AssertionError

    monkeypatch.setattr("shoestring.swarm.crossing.open_push", never)

    async def scenario():
        async with crossings(owner) as (port, _, _):
            return await told(friend, owner, port, route_to(other, 7000))

    assert asyncio.run(scenario()) == "word"


@pytest.mark.parametrize("answer", [None, {"ok": False, "reason": "session"}, {"ok": 1}])
def test_who_asks_for_a_route_is_not_told_what_is_there(parties, answer, monkeypatch):
    """Nobody, or one that refuses: it is the same, as late; and no link is left behind."""
    owner, friend, other = parties
    monkeypatch.setattr("shoestring.swarm.crossing.ROUTE_S", 2.0)

    async def scenario():
        closed = asyncio.Event()

        async def refuse(link):
            await link.hear(HEAR_S)
            await link.say(answer)
            await link.until_closed()
            closed.set()

        async with crossings(owner) as (port, _, _), other.listener(refuse) as listener:
            there = listener.port
            if answer is None:
                other.peers.remove(owner.identity.id)
                closed.set()
            reason = await told(friend, owner, port, route_to(other, there))
            await closed.wait()
            return reason

    assert asyncio.run(asyncio.wait_for(scenario(), HEAR_S)) == "unreachable"


def test_one_route_is_opened_at_a_time_and_none_for_a_session_that_is_over(parties):
    """A way that comes about too late is ended at once."""
    owner, friend, other = parties

    async def scenario():
        asked, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def slow(link):
            await link.hear(HEAR_S)
            asked.set()
            await go_on.wait()
            await link.say({"ok": True})
            await link.until_closed()
            ended.set()

        async with crossings(owner) as (port, sitting, _), other.listener(slow) as listener:
            word = route_to(other, listener.port)
            first = asyncio.create_task(told(friend, owner, port, word))
            await asked.wait()
            second = await told(friend, owner, port, word)
            sitting.session.end("enough")
            go_on.set()
            await first
            await ended.wait()
            return second

    assert asyncio.run(asyncio.wait_for(scenario(), HEAR_S)) == "busy"


@pytest.mark.engine
def test_a_session_that_ends_takes_its_guests_along_and_tells_what_it_moved(parties):
    """At a node with a real worker."""
    owner, friend, other = parties
    program = need_program("ggml-rpc-server")
    digest = file_sha256(program)

    async def scenario():
        news = asyncio.Event()

        def say(line):
            owner.said.append(line)
            news.set()

        async with WorkerPool(WorkerSettings(program, digest, threads=1)) as pool:
            agent = Agent(owner.peers, pool, Offer(RULES, digest, DEVICE, 1), say=say)
            async with owner.listener(agent.answer) as listener:
                agent.crossings = Crossings(
                    owner.identity, listener.admit_for, listener.end_admission, owner.clock
                )
                address = PeerAddress(owner.identity.id, "127.0.0.1", listener.port)
                remote = Remote("owner", address, owner.identity.certificate)
                opened = await open_session(friend.identity, remote)
                word = expecting(other) | {"session": opened.session}
                assert await told(friend, owner, listener.port, word) is None
                push = {"do": "push", "session": opened.session}
                assert await told(other, owner, listener.port, push) is None
                opened.link.abort()
                await until(lambda: owner.said, news)
                with pytest.raises(LinkError):
                    await told(other, owner, listener.port, push)

    asyncio.run(scenario())
    assert owner.said[0].startswith("session of a friend ended: the client hung up (heard ")


# Weights.


def test_one_peer_has_one_place_for_weights_for_a_while(parties, tmp_path, monkeypatch):
    """And none while the owner uses the machine."""
    owner, friend, other = parties
    owner.knows(other)
    monkeypatch.setattr("shoestring.swarm.manifest.PAGE_BLOBS", 1)
    store = Store(tmp_path / "weights", 1 << 30, say=str)
    for data in (b"one" * 2_000, b"two" * 2_000):
        store.write(sha256(data), len(data)).add(data)
    whose = SimpleNamespace(paused=False)
    agent = Agent(
        owner.peers, SimpleNamespace(is_broken=False), Offer(RULES, "a" * 64, DEVICE, 1),
        stock=Stock(store, owner.identity), owner=whose, say=str,
    )  # fmt: skip

    async def scenario():
        async with owner.listener(agent.answer) as listener:
            ask = {"do": "manifest"}
            first = await friend.link_to(owner, listener.port)
            await first.say(ask)
            await first.hear(HEAR_S)
            of_friend = await told(friend, owner, listener.port, ask)
            of_other = await told(other, owner, listener.port, ask)
            first.abort()
            whose.paused = True
            paused = await told(other, owner, listener.port, ask)
            whose.paused = False
            monkeypatch.setattr("shoestring.swarm.node.MANIFEST_S", 2.0)
            slow = await other.link_to(owner, listener.port)
            await slow.say(ask)
            await slow.hear(HEAR_S)
            with pytest.raises(LinkError) as ended:
                await slow.hear(9.0)  # less than the 10 s that one page may take
            return of_friend, of_other, paused, ended.value.reason

    assert asyncio.run(scenario()) == ("busy", None, "paused", "closed")
