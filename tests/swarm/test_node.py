"""A node and a stage: what a peer gets, in which order, and how sessions end."""

import asyncio
import re
from contextlib import asynccontextmanager, suppress

import psutil
import pytest

from shoestring.digests import file_sha256
from shoestring.hardware.devices import Device
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.crossing import Crossings
from shoestring.swarm.firewall import Rules
from shoestring.swarm.link import LinkError
from shoestring.swarm.node import IDLE_S, Offer, Stock
from shoestring.swarm.node import Node as Agent
from shoestring.swarm.queueing import MAX_WAITING_PER_PEER, BusyError, GoneError, Turns
from shoestring.swarm.remote import RefusedError, Remote, open_session
from shoestring.swarm.session import Session
from shoestring.swarm.spares import Need, Spare, Spares
from shoestring.swarm.stage import standing_stages
from shoestring.swarm.weights import Weights
from shoestring.swarm.wire import Command, request
from shoestring.swarm.worker_pool import WorkerPool
from shoestring.swarm.worker_settings import WorkerSettings
from shoestring.testing.engines import need_program
from shoestring.testing.rpc_real import answer_over, real_worker
from tests.swarm.nodes import HEAR_S, Node

GIB = 1 << 30
RULES = Rules(memory_bytes=4 * GIB, device_memory_bytes=4 * GIB)
DEVICE = Device("cpu", "cpu", "a processor", 8 * GIB, 20e9, None, None, 0.0, None, "a test")
pytestmark = pytest.mark.engine


@pytest.fixture
def owner(tmp_path):
    """The node's."""
    return Node(tmp_path / "owner")


@pytest.fixture
def friend(tmp_path, owner):
    """Who may use it."""
    made = Node(tmp_path / "friend")
    owner.knows(made, rights=("use",))
    return made


@asynccontextmanager
async def serving(owner, store=None, *, sessions=1, idle_s=IDLE_S):
    """Let the node serve; yields where, as its friends know it."""
    program = need_program("ggml-rpc-server")
    digest = file_sha256(program)
    settings = WorkerSettings(program, digest, threads=1)
    offer = Offer(RULES, digest, DEVICE, threads=1)
    stock = None if store is None else Stock(store, owner.identity)
    owner.news = asyncio.Event()

    def say(line):
        owner.said.append(line)
        owner.news.set()

    async with WorkerPool(settings) as pool:
        agent = Agent(
            owner.peers, pool, offer, sessions=sessions, idle_s=idle_s, stock=stock, say=say
        )
        async with owner.listener(agent.answer) as listener:
            agent.crossings = Crossings(
                owner.identity, listener.admit_for, listener.end_admission, owner.clock
            )
            address = PeerAddress(owner.identity.id, "127.0.0.1", listener.port)
            yield Remote("owner", address, owner.identity.certificate)


@asynccontextmanager
async def stage_of(friend, members, model, spares=()):
    """Let a stage of a friend's chain listen; what happens is told to the friend."""
    async with standing_stages(
        friend.identity, [members], Spares(Spare(one, 4 * GIB) for one in spares), Weights(model),
        needs=[Need(GIB)], tell=friend.said.append,
    ) as (stage,):  # fmt: skip
        yield stage


async def until_said(owner, pattern):
    """Wait until the owner has heard a line that matches."""
    async with asyncio.timeout(HEAR_S):
        while not any(re.search(pattern, line) for line in owner.said):
            owner.news.clear()
            await owner.news.wait()


def test_an_answer_over_a_node_is_the_workers_own(owner, friend, small_model, tmp_path):
    """Through the link, the firewall and the room, by another worker: the same text, twice."""
    with real_worker(tmp_path) as port:
        direct = answer_over(port, small_model.path, tmp_path)

    async def twice():
        async with (
            serving(owner) as remote,
            stage_of(friend, [remote], small_model.path) as stage,
        ):
            return [
                await asyncio.to_thread(answer_over, stage.port, small_model.path, tmp_path)
                for _ in range(2)
            ]

    assert asyncio.run(twice()) == [direct, direct]
    assert len(direct) > 10
    ended = "session of a friend ended: the client hung up (heard "
    assert owner.said
    assert all(line.startswith(ended) for line in owner.said)


def test_who_may_not_use_a_node_gets_no_session(owner, tmp_path):
    """A peer whose layers we use need not be one that uses ours."""
    other = Node(tmp_path / "other")
    owner.knows(other, rights=("serve",))

    async def ask():
        async with serving(owner) as remote:
            await open_session(other.identity, remote)

    with pytest.raises(RefusedError, match="may not use this node") as refused:
        asyncio.run(ask())
    assert refused.value.word == "rights"


def test_what_a_node_offers_is_told_and_round_trips_can_be_measured(owner, friend):
    """The engine's digest and the memory, and each number back."""

    async def greet():
        async with serving(owner) as remote:
            link = await friend.link_to(owner, remote.address.port)
            await link.say({"do": "hello"})
            told = await link.hear(HEAR_S)
            await link.say({"ping": 7})
            back = await link.hear(HEAR_S)
            link.abort()
            return told, back

    told, back = asyncio.run(greet())
    assert told["engine_sha256"] == file_sha256(need_program("ggml-rpc-server"))
    assert (told["memory_bytes"], told["free"], told["rpc"]) == (4 * GIB, 1, [7, 0])
    assert back == {"ok": True, "ping": 7}


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (b"\xff" * 64, "command"),
        (request(Command.DEVICE_COUNT), "hello"),
        (request(Command.HELLO, bytes(24)) + request(Command.BUFFER_CLEAR, bytes(9)), "buffer"),
        (request(Command.HELLO, bytes(24)) + request(Command.PING, bytes(8))
         + request(Command.TAKE, bytes(344)), "strides"),
        (b"\x06" + b"\xff" * 8, "size"),
    ],
)  # fmt: skip
def test_what_may_not_be_said_ends_the_session_and_not_the_node(owner, friend, frames, reason):
    """The next session is served as if nothing had been."""

    async def attack():
        async with serving(owner) as remote:
            link = (await open_session(friend.identity, remote)).link
            ended = asyncio.get_running_loop().create_future()

            class Attacker(asyncio.Protocol):
                def connection_lost(self, exc):
                    ended.set_result(exc)

            link.hand_over(Attacker()).write(frames)
            await asyncio.wait_for(ended, HEAR_S)
            (await open_session(friend.identity, remote)).link.abort()
            await until_said(owner, "client hung up")

    asyncio.run(attack())
    assert re.search(f"session of a friend ended: refused: {reason}", owner.said[0])


def test_a_dead_worker_ends_its_session_alone(owner, friend):
    """Both are told, and the next session gets another worker."""

    async def kill():
        program = need_program("ggml-rpc-server")
        async with serving(owner) as remote:
            link = (await open_session(friend.identity, remote)).link
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if child.name() == program.name:
                        child.kill()
            with pytest.raises(LinkError) as lost:
                await link.hear(HEAR_S)
            assert lost.value.reason == "closed"
            (await open_session(friend.identity, remote)).link.abort()

    asyncio.run(kill())
    assert re.search("session of a friend ended: .*(killed|SIGKILL|worker)", owner.said[0])


@pytest.mark.parametrize("owed", [False, True])
def test_who_asks_and_does_not_read_is_not_read_from(owed):
    """Answers that are made by the agent itself would pile up in it."""

    class Transport(asyncio.Transport):
        reading = True

        def is_reading(self):
            return self.reading

        def pause_reading(self):
            self.reading = False

        def resume_reading(self):
            self.reading = True

        def is_closing(self):
            return False

        def set_write_buffer_limits(self, high=None, low=None):
            pass

        def write(self, data):
            pass

    async def flood():
        session = Session(RULES)
        for side in (session.client, session.worker):
            side.connection_made(Transport())
        session.take_requests(request(Command.HELLO, bytes(24)))
        if not owed:
            session.take_answers((28).to_bytes(8, "little") + bytes([7, 0, 0]) + bytes(25))
            session.client.pause_writing()
        session.take_requests(request(Command.PING, bytes(8)) * 5_000)
        return session.client.transport.reading

    assert not asyncio.run(flood())


def test_a_session_that_says_nothing_is_ended(owner, friend):
    """Others wait for its place."""

    async def idle():
        async with serving(owner, idle_s=0.1) as remote:
            link = (await open_session(friend.identity, remote)).link
            ended = asyncio.get_running_loop().create_future()

            class Silent(asyncio.Protocol):
                def connection_lost(self, exc):
                    ended.set_result(exc)

            link.hand_over(Silent()).write(request(Command.HELLO, bytes(24)))
            await asyncio.wait_for(ended, HEAR_S)
            await until_said(owner, "nothing was said")

    asyncio.run(idle())


def test_who_hangs_up_while_waiting_leaves_the_queue():
    """Else its own next tries would find its places taken."""

    async def scenario():
        turns, served = Turns(1), []

        async def come():
            async with turns.place("a", asyncio.create_task(asyncio.sleep(0))):
                served.append("a")

        async with turns.place("x"):
            with pytest.raises(GoneError):
                await come()
            assert turns.waiting == 0
        assert (served, turns.free) == ([], 1)

    asyncio.run(scenario())


def test_sessions_wait_in_turns_between_peers():
    """A peer with many waiting delays another's one by one turn."""

    async def scenario():
        turns, served = Turns(1), []

        async def come(peer):
            async with turns.place(peer):
                served.append(peer)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group, turns.place("x"):
            for peer in "aaab":
                group.create_task(come(peer))
            for _ in range(5):
                await asyncio.sleep(0)
            assert (turns.waiting, turns.free) == (4, 0)
        assert (served, turns.waiting, turns.free) == (["a", "b", "a", "a"], 0, 1)

    asyncio.run(scenario())


def test_one_peer_cannot_take_all_places_to_wait():
    """It is told so; another may still wait."""

    async def scenario():
        turns = Turns(1)

        async def come(peer):
            async with turns.place(peer):
                pass

        async with turns.place("x"):
            waiting = [asyncio.create_task(come("a")) for _ in range(MAX_WAITING_PER_PEER)]
            await asyncio.sleep(0)
            with pytest.raises(BusyError, match="end some"):
                await come("a")
            waiting.append(asyncio.create_task(come("b")))
            await asyncio.sleep(0)
            assert turns.waiting == MAX_WAITING_PER_PEER + 1
            waiting[0].cancel()
            await asyncio.sleep(0)
            assert turns.waiting == MAX_WAITING_PER_PEER
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (turns.waiting, turns.free) == (0, 1)

    asyncio.run(scenario())
