"""The owner comes first: when a node pauses, what that does to sessions, and how much they get."""

import asyncio
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from types import SimpleNamespace
from unittest.mock import patch

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.digests import file_sha256
from shoestring.errors import BadValueError
from shoestring.hardware.devices import Device
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.firewall import Rules
from shoestring.swarm.link import connect
from shoestring.swarm.node import Node as Agent
from shoestring.swarm.node import Offer
from shoestring.swarm.owner import (
    BUSY_SHARE,
    CALM_SHARE,
    CARD_BYTES,
    Judge,
    Machine,
    Owner,
    Patience,
    Reading,
    session_rules,
)
from shoestring.swarm.remote import RefusedError, Remote, Seat, open_session, open_watch
from shoestring.swarm.survey import greet
from shoestring.swarm.wire import Command, request
from shoestring.swarm.worker_pool import WorkerPool
from shoestring.swarm.worker_settings import WorkerSettings
from shoestring.testing.engines import need_program
from tests.swarm.nodes import HEAR_S, Node

BUSY, CALM, BATTERY = Reading(others_share=0.9), Reading(others_share=0.0), Reading(on_battery=True)
GIB = 1 << 30
RULES = Rules(memory_bytes=4 * GIB, device_memory_bytes=4 * GIB)
DEVICE = Device("cpu", "cpu", "a processor", 8 * GIB, 20e9, None, None, 0.0, None, "a test")


def judged(readings, *, computing=False, patience=None):
    """Return after each reading, one a second, whether the node pauses."""
    judge = Judge(patience or Patience(busy_s=3.0, calm_s=4.0))
    paused = []
    for second, reading in enumerate(readings):
        judge.take(reading, float(second), computing=computing)
        paused.append(judge.why is not None)
    return paused


def test_a_busy_machine_pauses_after_a_while_and_goes_on_after_a_longer_one():
    """Neither a start of a program nor a moment between two keys counts."""
    seen = judged([BUSY] * 5 + [CALM] * 6)
    assert seen == [False, False, False, True, True, True, True, True, True, False, False]


def test_a_moment_of_calm_begins_the_waiting_anew():
    """So does a moment of work, while it pauses."""
    assert not any(judged([BUSY, BUSY, CALM] * 4))
    assert all(judged([BUSY] * 4 + [CALM, CALM, BUSY] * 4)[3:])


def test_between_the_two_bounds_all_stays_as_it_was():
    """Else a load at the bound would stop and start sessions for ever."""
    between = Reading(others_share=(BUSY_SHARE + CALM_SHARE) / 2)
    assert not any(judged([between] * 20))
    assert all(judged([BUSY] * 4 + [between] * 20)[3:])


def test_a_battery_pauses_at_once():
    """There is no work to wait out; on power again it is calm that is waited for."""
    assert judged([CALM, BATTERY, CALM, CALM, CALM, CALM, CALM]) == [
        False, True, True, True, True, True, False,
    ]  # fmt: skip


def test_what_is_not_told_pauses_nothing():
    """A machine without a battery, a GPU or counters serves."""
    assert not any(judged([Reading()] * 20))


def test_a_gpu_that_computes_is_the_owners_unless_a_session_of_ours_runs():
    """Its utilisation is told of the whole GPU."""
    card = Reading(card_share=0.95)
    assert judged([card] * 5)[-1]
    assert not any(judged([card] * 5, computing=True))


def test_memory_that_others_take_of_the_gpu_pauses_even_while_we_compute():
    """What was taken at the start is the owner's screen; a game is more."""
    screen, game = Reading(card_others_bytes=GIB), Reading(card_others_bytes=GIB + CARD_BYTES)
    assert judged([screen] * 3 + [game] * 5, computing=True)[-1]
    assert not any(judged([screen] * 8, computing=True))
    assert judged([game] + [screen] + [game] * 5, computing=True)[-1]


@given(st.lists(st.sampled_from([BUSY, CALM, BATTERY, Reading()]), max_size=60))
def test_a_pause_never_ends_while_the_last_seconds_were_busy(readings):
    """Whatever came before, the owner does not share a machine that is in use."""
    paused = judged(readings)
    for at in range(1, len(readings)):
        in_use = any(one in (BUSY, BATTERY) for one in readings[max(0, at - 3) : at + 1])
        assert paused[at] or not paused[at - 1] or not in_use


class Worker:
    """Says what was done to it."""

    def __init__(self):
        """Nothing yet."""
        self.done = []

    def pause(self):
        """Note it."""
        self.done.append("pause")

    def resume(self):
        """Note it."""
        self.done.append("resume")


def test_workers_of_sessions_stand_still_while_it_pauses():
    """Those that run, and one that begins meanwhile; not one whose session is over."""
    owner = Owner(Reading, say=str, patience=Patience(0.0, 0.0))
    early, late, gone = Worker(), Worker(), Worker()
    with owner.holding(gone):
        pass
    with owner.holding(early):
        owner.take(BUSY)
        assert owner.paused
        with owner.holding(late):
            owner.take(BUSY)
            owner.take(CALM)
    assert not owner.paused
    assert (early.done, late.done, gone.done) == (["pause", "resume"], ["pause", "resume"], [])


def test_a_session_of_ours_does_not_pause_by_its_own_use_of_the_gpu():
    """And when it is held still for another reason, what the GPU does is the owner's."""
    owner = Owner(Reading, say=str, patience=Patience(0.0, 0.0))
    busy_card = Reading(card_share=0.9)
    with owner.holding(Worker()):
        owner.take(busy_card)
        assert not owner.paused
        owner.take(BATTERY)
        owner.take(busy_card)
        assert owner.paused


def test_an_owner_watches_by_itself_and_tells_each_change_once():
    """The readings come from a thread, and the lines say why."""
    said, changes = [], []

    async def scenario():
        readings = iter([CALM, BATTERY, BATTERY, CALM])
        over = asyncio.Event()

        def tell(paused):
            changes.append(paused)
            if not paused:
                over.set()

        async with Owner(
            lambda: next(readings, CALM), say=said.append, patience=Patience(0.0, 0.0), look_s=0.0
        ) as owner:
            owner.on_change(tell)
            await over.wait()

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert changes == [True, False]
    assert said == ["paused: the machine is on battery", "the pause is over"]


def watched(read, said, enough, workers=()):
    """Watch by readings until a line, or so many of them, was said."""

    async def scenario():
        over = asyncio.Event()

        def say(line):
            said.append(line)
            if len(said) >= enough:
                over.set()

        owner = Owner(read, say=say, patience=Patience(0.0, 0.0), look_s=0.0)
        with ExitStack() as held:
            for worker in workers:
                held.enter_context(owner.holding(worker))
            async with owner:
                await over.wait()

    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize("error", [OSError(5, "I/O error"), RuntimeError("NVML"), psutil.Error()])
def test_a_machine_that_cannot_be_read_is_watched_on(error):
    """It is said once, and the next reading counts."""
    readings = iter([error, error, CALM, error, BATTERY])

    def read():
        reading = next(readings, BATTERY)
        if isinstance(reading, Exception):
            raise reading
        return reading

    said = []
    watched(read, said, 2)
    assert said[0].startswith("how busy the machine is cannot be read: ")
    assert said[1:] == ["paused: the machine is on battery"]


def test_a_worker_that_cannot_be_held_still_spares_no_other():
    """Its owner is told."""

    class Lost(Worker):
        def pause(self):
            raise ProcessLookupError(3, "No such process")

    said, workers = [], [Lost(), Worker(), Lost(), Worker()]
    watched(lambda: BATTERY, said, 2, workers)
    assert [worker.done for worker in workers] == [[], ["pause"], [], ["pause"]]
    assert said[0].startswith("a worker cannot be held still")
    assert said[1] == "paused: the machine is on battery"


def test_a_watch_that_ends_is_told_of():
    """Whatever it was: nobody would pause for the owner any more."""

    def read():
        raise KeyError("index")

    said = []
    watched(read, said, 1)
    (line,) = said
    assert line.startswith("the machine's use is not watched any more: KeyError: 'index'; ")


def test_readings_wait_for_no_other_thread():
    """Those of the loop may all wait for a disk."""
    said, free = [], threading.Event()

    async def scenario():
        loop, paused = asyncio.get_running_loop(), asyncio.Event()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, free.wait)
        async with Owner(lambda: BATTERY, say=said.append, look_s=0.0) as owner:
            owner.on_change(lambda _: paused.set())
            await paused.wait()
        free.set()
        await busy

    try:
        asyncio.run(asyncio.wait_for(scenario(), 30))
    finally:
        free.set()
    assert said == ["paused: the machine is on battery"]


def test_a_gpu_that_is_not_told_of_is_nothing_known():
    """It may fall off its bus."""
    machine = Machine()
    machine._card, machine._cards = 0, SimpleNamespace(indices=[0], read=lambda **_: [])
    assert machine._card_use() == (None, None)


def test_our_own_work_is_not_the_owners():
    """A child that computes counts as ours, however busy it is."""
    machine = Machine()
    child = multiprocessing.get_context("spawn").Process(target=_compute, daemon=True)
    child.start()
    try:
        _until_it_computes(child.pid)
        machine.read()  # from here on the child is known
        process, before = psutil.Process(child.pid), psutil.cpu_times()
        used_s = sum(process.cpu_times()[:2])
        while sum(process.cpu_times()[:2]) - used_s < 1.0:
            process.cpu_percent(0.05)
        reading = machine.read()
        passed = sum(psutil.cpu_times()) - sum(before)
    finally:
        child.kill()
        child.join()
    all_share = 1 - (psutil.cpu_times().idle - before.idle) / passed
    assert 0.0 <= reading.others_share <= max(0.0, all_share - 0.8 * 1.0 / passed)
    assert reading.card_share is None
    assert reading.card_others_bytes is None


def _compute():
    while True:
        pass


def _until_it_computes(pid):
    process = psutil.Process(pid)
    while sum(process.cpu_times()[:2]) < 0.3:
        process.cpu_percent(0.05)


@pytest.mark.parametrize(
    ("battery", "expected"),
    [
        (None, None),
        (SimpleNamespace(power_plugged=None), None),
        (SimpleNamespace(power_plugged=True), False),
        (SimpleNamespace(power_plugged=False), True),
    ],
)
def test_a_battery_is_read_as_the_system_tells_it(monkeypatch, battery, expected):
    """No battery, and one that does not say, are nothing known."""
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert Machine().read().on_battery is expected


def test_a_battery_that_cannot_be_read_is_nothing_known(monkeypatch):
    """Containers hide half of what the kernel would say of it."""

    def fail():
        raise FileNotFoundError(2, "No such file", "/sys/class/power_supply")

    monkeypatch.setattr(psutil, "sensors_battery", fail, raising=False)
    assert Machine().read().on_battery is None


@asynccontextmanager
async def serving(tmp_path, owner_of, **settings):
    """Let a node with an owner serve; yields a friend of it, and where the friend finds it."""
    program = need_program("ggml-rpc-server")
    digest = file_sha256(program)
    home, friend = Node(tmp_path / "home"), Node(tmp_path / "friend")
    home.knows(friend, rights=("use",))
    offer = Offer(RULES, digest, DEVICE, 1, **settings)
    async with WorkerPool(WorkerSettings(program, digest, threads=1)) as pool:
        agent = Agent(home.peers, pool, offer, owner=owner_of, say=home.said.append)
        async with home.listener(agent.answer) as listener:
            address = PeerAddress(home.identity.id, "127.0.0.1", listener.port)
            yield friend, Remote("home", address, home.identity.certificate)


@pytest.mark.engine
def test_a_node_that_pauses_holds_its_sessions_still_and_begins_none(tmp_path):
    """Its peers are told why in one word, and nothing of what its owner does."""
    owner = Owner(Reading, say=str, patience=Patience(0.0, 0.0))

    async def scenario():
        async with serving(tmp_path, owner) as (friend, remote):
            opened = await open_session(friend.identity, remote)
            opened.link.hand_over(asyncio.Protocol()).write(request(Command.HELLO, bytes(24)))
            watch = await open_watch(friend.identity, Seat(remote, opened.session))
            runs = await watch.hear(HEAR_S)
            owner.take(BATTERY)
            while (still := await watch.hear(HEAR_S)) == runs:
                pass
            seen = await greet(friend.identity, remote)
            with pytest.raises(RefusedError, match="the owner uses the machine") as refused:
                await open_session(friend.identity, remote)
            owner.take(CALM)
            while (again := await watch.hear(HEAR_S)) == still:
                pass
            for link in (opened.link, watch):
                link.abort()
            return runs, still, again, seen, refused.value.word

    runs, still, again, seen, word = asyncio.run(scenario())
    assert [word["worker"] for word in (runs, still, again)] == ["runs", "stopped", "runs"]
    assert (seen.free, seen.why_not, word) == (0, "paused: the owner uses the machine", "paused")


@pytest.mark.engine
def test_a_session_that_waited_when_the_pause_began_does_not_begin(tmp_path):
    """It is told, and can go elsewhere."""
    owner = Owner(Reading, say=str, patience=Patience(0.0, 0.0))

    async def scenario():
        async with serving(tmp_path, owner) as (friend, remote):
            first = await open_session(friend.identity, remote)
            waiting = asyncio.create_task(open_session(friend.identity, remote))
            while (await greet(friend.identity, remote)).free or not await _waits(friend, remote):
                pass
            owner.take(BATTERY)
            first.link.abort()
            with pytest.raises(RefusedError) as refused:
                await waiting
            return refused.value.word

    assert asyncio.run(scenario()) == "paused"


async def _waits(friend, remote):
    link = await connect(friend.identity, remote.address, certificate=remote.certificate)
    try:
        await link.say({"do": "hello"})
        return (await link.hear(HEAR_S))["waiting"]
    finally:
        link.abort()


@pytest.mark.engine
def test_a_node_whose_workers_do_not_start_offers_none(tmp_path):
    """It is not asked again and again."""

    async def scenario():
        async with serving(tmp_path, None) as (friend, remote):
            with patch.object(WorkerPool, "is_broken", True):
                return await greet(friend.identity, remote)

    seen = asyncio.run(scenario())
    assert (seen.free, seen.why_not) == (0, "no worker can be started here")


@pytest.mark.engine
def test_a_node_that_shares_a_tenth_tells_so_and_keeps_to_it(tmp_path):
    """A session that does not say how large its model is gets nothing."""

    async def scenario():
        async with serving(tmp_path, None, share=0.1) as (friend, remote):
            seen = await greet(friend.identity, remote)
            with pytest.raises(RefusedError, match="model_bytes") as refused:
                await open_session(friend.identity, remote)
            link = await connect(friend.identity, remote.address, certificate=remote.certificate)
            await link.say({"do": "session", "model_bytes": 10 * GIB})
            told = await link.hear(HEAR_S)
            link.abort()
            return seen.share, refused.value.word, told["memory_bytes"]

    assert asyncio.run(scenario()) == (0.1, "share", GIB)


def test_a_session_gets_a_share_of_its_model_and_never_more_than_the_owner_gives():
    """A client that overstates its model gains nothing beyond the owner's memory."""
    assert session_rules(RULES, {"model_bytes": 10 * GIB}, 0.1).memory_bytes == GIB
    assert session_rules(RULES, {"model_bytes": 10 * GIB}, 0.1).device_memory_bytes == GIB
    assert session_rules(RULES, {"model_bytes": 900 * GIB}, 0.1) == RULES
    assert session_rules(RULES, {}, None) is RULES


@pytest.mark.parametrize("said", [None, 0, -1, True, 1.5, "9", [1], 1 << 60])
def test_a_model_whose_size_is_not_told_gets_no_session(said):
    """The message says what is missing."""
    with pytest.raises(BadValueError, match="model_bytes"):
        session_rules(RULES, {"model_bytes": said}, 0.1)


@given(st.integers(1, (1 << 50) - 1), st.floats(1e-6, 1.0))
def test_a_session_never_gets_nothing_and_never_more_than_its_share(size, share):
    """Down to one byte."""
    got = session_rules(RULES, {"model_bytes": size}, share).memory_bytes
    assert 1 <= got <= min(RULES.memory_bytes, max(1, size * share))
