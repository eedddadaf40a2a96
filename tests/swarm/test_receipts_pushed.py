"""Receipts of what goes from node to node, and of windows that close late."""

import asyncio
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from blake3 import blake3

from shoestring.swarm.boundaries import LEAST_BYTES, Boundaries, Carried
from shoestring.swarm.conversation import Conversation
from shoestring.swarm.firewall import Rules
from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.proof.agreeing import FREE, Asked
from shoestring.swarm.proof.books import check_stages
from shoestring.swarm.proof.earning import Earner
from shoestring.swarm.proof.paying import Payer, Paying
from shoestring.swarm.proof.receipts import Hand
from shoestring.swarm.proof.windows import QUIET_S, Windows
from shoestring.swarm.replica import Replica
from shoestring.swarm.routes import Route, Routes
from shoestring.swarm.session import Session
from shoestring.swarm.spares import Need
from shoestring.swarm.splitting import Splitter
from shoestring.swarm.stage import Stage
from shoestring.swarm.wire import HEADER, OFFSET_AT, TWO_U64, U64, Command, Frame
from tests.swarm.receipts import (
    AGAIN,
    WIDTH,
    Link,
    activation,
    frame_of,
    graph,
    parties_in,
    positions,
    read,
    set_copy,
)
from tests.swarm.test_journal import NoWeights
from tests.swarm.test_reads import Wire as SilentWire

SIZE = 4 * WIDTH


@pytest.fixture(scope="module")
def parties(tmp_path_factory):
    """Client, node, and another."""
    return parties_in(tmp_path_factory.mktemp("parties"))


def replica_named(name, payer=None):
    """Return a session at a node."""
    seat = SimpleNamespace(remote=SimpleNamespace(name=name), session="")
    heard = SimpleNamespace(settle=lambda _replica: None)
    return Replica(seat, heard, stores=False, payer=payer)


def carried_over(route):
    """Return an activation on its way."""
    reply = Reply(frame_of(read("l_out-2", SIZE))[0], 0.0)
    reply.kept = bytearray()
    return Carried((0, "l_out-2", b""), reply, 1, SIZE, 1, route=route)


def came(carried, data):
    """Have its bytes come to us."""
    carried.reply.payload, carried.reply.kept = b"", bytearray(data)
    carried.reply.had_bytes, carried.reply.digest = SIZE, b"\7" * 32
    carried.came()


def test_a_window_is_claimed_once_what_was_pushed_is_here_too(parties):
    """It was closed before, and nothing more is said to this node or by it."""
    claims = []

    async def scenario():
        payer = Link(*parties[:2]).payer
        target = replica_named("target", payer)
        transport = SimpleNamespace(
            write=claims.append, is_closing=lambda: False, set_write_buffer_limits=lambda **_: None
        )
        target.connection_made(transport)
        carried = carried_over(Route(None, replica_named("source"), target))
        said = [frame_of(one) for one in (positions(1), graph([3]), activation(2, 1, 0))]
        entries = [Entry(frame, body) for frame, body in said[:2]]
        entries.append(Entry(said[2][0], b"", carried=carried))
        end = Entry(Frame(int(Command.SETTLE), U64.size, bytearray(U64.pack(1))))
        target.tell([*entries, end])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        claims.clear()
        came(carried, bytes(SIZE))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    (claim,) = claims
    assert HEADER.unpack_from(claim)[0] == Command.SETTLE


class Wire(SilentWire):
    """An end of a connection, which may be ended."""

    is_over = False

    def is_closing(self):
        """Of transports."""
        return self.is_over

    def abort(self):
        """Of transports."""
        self.is_over = True


def stage_of(number, boundaries, route, payer, windows=None):
    """Return a connection of llama-server's to a stage of one node, and the node's session."""

    def nothing(*_how):
        """Of hosts."""

    host = SimpleNamespace(
        number=number, on_cpu=True, opened=nothing, recruit=nothing, closed=nothing,
        computes=nothing, has_spare=lambda: False, tell=nothing,
    )  # fmt: skip
    routes = SimpleNamespace(find=lambda *_stages: route(), came=nothing)
    windows = windows or Windows(None)
    conversation = Conversation(host, NoWeights(), boundaries, routes, windows)
    conversation.connection_made(Wire())
    seat = SimpleNamespace(remote=SimpleNamespace(name=f"node {number}"), session="")
    replica = Replica(seat, conversation, stores=False, payer=payer)
    replica.connection_made(Wire())
    conversation.join(replica)
    return conversation, replica


async def sign_all(replica, earner, pushed=b"", answers=()):
    """Let a node hear what it was sent, and sign what is claimed until nothing is."""
    splitter, heard = Splitter(), 0
    given = replica._transport.given
    while heard < len(given):
        pieces, heard = splitter.feed(bytes(given[heard:])), len(given)
        for piece in pieces:
            if not isinstance(piece, Frame):
                earner.hear(piece)
            elif piece.command == Command.SETTLE:
                answer = earner.judge(bytes(piece.head))
                replica.data_received(U64.pack(len(answer)) + answer)
            else:
                earner.note(piece)
                earner.hear(pushed if piece.command == Command.SET_PUSHED else b"")
                if piece.command == Command.GET_TENSOR:
                    earner.begin()
                    earner.tell(next(answers))
        await asyncio.sleep(0)


@pytest.mark.parametrize("came_before", [0, 9])
def test_what_was_pushed_is_signed_for_though_its_bytes_come_after_the_end(parties, came_before):
    """llama-server has gone; the source's answer comes a moment later, all of it or the rest."""
    links = Link(*parties[:2]), Link(*parties[::2])
    rows = LEAST_BYTES // (4 * WIDTH)
    size = 4 * WIDTH * rows

    async def scenario():
        boundaries, nodes = Boundaries(), []
        first, source = stage_of(0, boundaries, lambda: Route(None, *nodes), links[0].payer)
        second, target = stage_of(1, boundaries, lambda: None, links[1].payer)
        nodes += source, target

        def step(graph, answer):
            """Let what the first stage gives be set at the second."""
            first.data_received(positions(rows) + graph + read("l_out-2", size))
            source.data_received(answer)
            set_it = set_copy("l_out-2", first._transport.given[-size:], ne=(WIDTH, rows, 1, 1))
            second.data_received(positions(rows) + set_it + graph)

        answer = U64.pack(size) + bytes(range(64)) * (size // 64)
        step(graph([2]), answer)
        step(AGAIN, answer[:came_before])
        first.end()
        source.data_received(answer[came_before:])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await sign_all(target, links[1].earner, answer[U64.size :])

    asyncio.run(scenario())
    assert links[1].disputes == []
    assert links[1].here[-1].receipt.figures.steps == 2


def test_what_was_finished_is_signed_though_the_last_step_never_will_be(parties):
    """Its stage before is lost: what it was to push comes to nobody."""
    link = Link(*parties[:2])
    link.tell(graph([3]))
    link.step(1)
    link.payer.cut(2)
    link.tell(positions(1))
    link.tell(AGAIN)
    carried = carried_over(Route(None, replica_named("source"), replica_named("target")))
    set_frame, _ = frame_of(activation(2, 1, 0))
    head = set_frame.head[:OFFSET_AT] + TWO_U64.pack(0, SIZE) + U64.pack(1)
    link.tell(HEADER.pack(Command.SET_PUSHED, len(head)) + head, carried=carried)
    link.tell(AGAIN)
    link.payer.cut_last(4)
    sign_what_is_here(link)
    assert link.disputes == []
    assert [(one.receipt.step, one.receipt.figures.steps) for one in link.here] == [(2, 2), (2, 3)]


@pytest.mark.parametrize("comes", [False, True])
def test_windows_that_were_closed_are_signed_if_what_they_wait_for_comes_after_the_end(
    parties, comes
):
    """Of a slow mirror some answers may come, and the last never; roots are compared of none."""
    link = Link(*parties[:2])
    link.tell(graph([3]))
    owed = []
    for step in (1, 2, 3, 4):
        if step in {2, 4}:
            frame, body = frame_of(read("l_out-3", SIZE))
            owed.append(Reply(frame, 0.0))
            link.payer.note(frame, body, Entry(frame, body, reply=owed[-1]))
            link.earner.note(frame)
            link.earner.begin()
            link.earner.tell(bytes(SIZE))
        link.step(step)
        if step < 4:
            link.payer.cut(step)
    link.payer.cut_last(4)
    sign_what_is_here(link)
    if comes:
        link.payer.answered(owed[0], blake3(bytes(SIZE)).digest())
        sign_what_is_here(link)
    signed = [(one.receipt.step, one.receipt.figures.steps) for one in link.here]
    assert signed == [(1, 2), *([(1, 3), (1, 4)] if comes else [])]
    assert link.disputes == []
    assert link.earner.unsigned_steps == (1 if comes else 3)


def sign_what_is_here(link):
    """Have signed what can be."""
    while (claim := link.payer.claim()) is not None:
        link.payer.hear(link.earner.judge(claim))


def test_of_what_was_pushed_either_of_two_nodes_may_lie(parties):
    """So neither is signed for, and nothing goes that way any more."""
    first, second = Link(*parties[:2]), Link(*parties[::2])
    source = replica_named("source", first.payer)
    target = replica_named("target", second.payer)

    async def scenario():
        routes = Routes(None, lambda number: (source, target)[number], lambda *_: None)
        route = routes._routes[0, 1] = Route(None, source, target)
        route.is_open = route.was_open = True
        assert routes.find(0, 1) is route
        second.tell(graph([3]))
        set_frame, _ = frame_of(activation(2, 1, 0))
        head = set_frame.head[:OFFSET_AT] + TWO_U64.pack(0, SIZE) + U64.pack(1)
        carried = carried_over(route)
        came(carried, bytes(SIZE))
        said = HEADER.pack(Command.SET_PUSHED, len(head)) + head
        second.tell(said, carried=carried)
        second.earner.hear(b"\1" * SIZE)
        second.settle(1)
        return routes.find(0, 1)

    assert asyncio.run(scenario()) is None
    (accused,) = second.disputes
    assert "SET_PUSHED l_out-2, which source sent: it or source lies" in accused
    (other,) = first.disputes
    assert other.startswith("target says otherwise than it:")
    first.payer.cut(1)
    assert first.payer.claim() is None


def test_what_a_window_holds_is_signed_though_an_answer_took_long(monkeypatch):
    """The last token of a large model takes longer than the quiet that closes a window."""
    timers, now = [], [0.0]
    loop = SimpleNamespace(
        time=lambda: now[0],
        call_later=lambda after_s, call: timers.append((now[0] + after_s, call)) or timers[-1],
    )
    monkeypatch.setattr("shoestring.swarm.proof.windows.asyncio.get_running_loop", lambda: loop)
    closed = []

    class Connection:
        number, steps, is_between_steps = 0, 1, False

        def close_window(self, *, is_whole):
            closed.append(now[0])
            assert is_whole

    one = Connection()
    windows = Windows(Paying(Asked(), None))
    windows.open(one)
    windows.move(0.0, begins_step=True)
    for _ in range(5):
        now[0], call = timers.pop()
        call()
        assert timers, "it looks again"
    assert closed == []
    one.is_between_steps = True
    now[0], call = timers.pop()
    call()
    assert len(closed) == 1
    assert closed[0] <= 7 * QUIET_S
    assert timers == []


def test_a_window_is_closed_for_its_age_where_a_step_begins_and_nowhere_else(parties, monkeypatch):
    """Else the receipt of a step could be signed before what it gave was asked for."""
    closed, windows = [], Windows(Paying(Asked(), None))
    monkeypatch.setattr(
        Conversation, "close_window", lambda one, *, is_whole: closed.append((one.steps, is_whole))
    )

    async def scenario():
        here, _ = stage_of(0, Boundaries(), lambda: None, Link(*parties[:2]).payer, windows)
        for said in (positions(1), activation(2, 1, 0), graph([3]), read("l_out-3", SIZE)):
            windows._closed_s = -math.inf
            here.data_received(said)
        here.replicas[0].data_received(U64.pack(SIZE) + bytes(SIZE))
        before = list(closed)
        here.data_received(positions(1))
        here.end()
        here.connection_lost(None)
        return before

    assert asyncio.run(scenario()) == []
    assert closed == [(1, True)]


def test_a_silence_between_a_graph_and_what_is_read_of_it_accuses_nobody(parties, monkeypatch):
    """The window that it closes is signed, and compared with none; a later one is again."""
    links = Link(*parties[:2]), Link(*parties[::2])
    windows, boundaries = Windows(Paying(Asked(), None)), Boundaries()

    async def scenario():
        (first, source), (second, target) = (
            stage_of(number, boundaries, lambda: None, link.payer, windows)
            for number, link in enumerate(links)
        )

        def be_silent():
            windows._moved_s = -math.inf
            windows._look()

        def step(fill, *, is_held_up=False):
            """Let llama-server compute one, and be held up in the middle."""
            graphs = (graph([2]), graph([3])) if fill == 1 else (AGAIN, AGAIN)
            first.data_received(positions(1) + activation(1, 1, fill) + graphs[0])
            if is_held_up:
                be_silent()
            first.data_received(read("l_out-2", SIZE))
            source.data_received(U64.pack(SIZE) + bytes([fill]) * SIZE)
            second.data_received(positions(1) + activation(2, 1, fill) + graphs[1])
            second.data_received(read("l_out-3", SIZE))
            target.data_received(U64.pack(SIZE) + bytes([fill]) * SIZE)
            be_silent()

        with monkeypatch.context() as all_told_first:
            all_told_first.setattr(Replica, "_settle", lambda _: None)
            step(1, is_held_up=True)
            step(2)
            step(3)
        fills = [bytes([fill]) * SIZE for fill in (1, 2, 3)]
        for replica, link in zip((source, target), links, strict=True):
            replica._settle()
            await sign_all(replica, link.earner, answers=iter(fills))
        first.connection_lost(None)
        second.connection_lost(None)

    asyncio.run(scenario())
    assert [one.receipt.step for one in links[0].here] == [0, 2, 3]
    assert [one.receipt.step for one in links[1].here] == [1, 2, 3]
    assert check_stages([link.here for link in links]) == 1


def test_while_nobody_reads_what_llama_server_says_it_is_not_silent(parties):
    """Its words wait behind a node that takes no more: a window that is closed then has no end."""

    async def scenario():
        here, replica = stage_of(0, Boundaries(), lambda: None, Link(*parties[:2]).payer)
        here.data_received(positions(1) + activation(2, 1, 0) + graph([3]))
        found = [here.is_between_steps]
        replica.pause_writing()
        found.append(here.is_between_steps)
        replica.resume_writing()
        return [*found, here.is_between_steps]

    assert asyncio.run(scenario()) == [True, False, True]


def test_who_agrees_to_no_terms_is_told_of(parties):
    """Its session has no receipts, and whoever pays hears it."""
    told = []

    async def scenario():
        windows = Windows(Paying(Asked(), Hand(parties[0], [].append)))
        stage = Stage(
            parties[0], [], None, None, None, None, windows, None,
            number=0, need=Need(0), tell=told.append,
        )  # fmt: skip
        return stage._payer(SimpleNamespace(name="node"), SimpleNamespace(terms=None))

    assert asyncio.run(scenario()) is None
    ((what, who),) = [(event.what, event.who) for event in told]
    assert (what, who) == ("disputes", "node")


def told_replica(payer, write):
    """Return a session at a node that ``write`` is given the words of, and its end."""
    replica, wire = replica_named("node", payer), Wire()
    wire.write = write
    replica.connection_made(wire)
    return replica


def entry_of(request_bytes, *, reply=False):
    """Return what a journal has of a request."""
    frame, body = frame_of(request_bytes)
    return Entry(frame, body, reply=Reply(frame, 0.0) if reply else None)


def test_what_is_told_at_once_goes_on_before_any_of_it_is_metered(parties, monkeypatch):
    """A graph, too, though something follows it: the node would wait for our counting."""
    done, meter = [], Payer._meter

    def metered(payer, *what):
        done.append("metered")
        meter(payer, *what)

    monkeypatch.setattr(Payer, "_meter", metered)
    replica = told_replica(Link(*parties[:2]).payer, lambda _: done.append("written"))
    replica.tell(
        [*map(entry_of, (positions(1), graph([3]))), entry_of(read("l", SIZE), reply=True)]
    )
    assert done[0] == "written"
    assert done.count("written") == 1
    assert done.count("metered") == 3


def test_a_lost_session_is_promised_nothing(parties, monkeypatch):
    """Its window was to be claimed a moment later; the budget is not charged for it."""
    monkeypatch.setattr("shoestring.swarm.replica.SETTLE_AFTER_S", 0.0)
    asked, link = [], Link(*parties[:2])
    hand = replace(link.payer._hand, allows=lambda receipt: asked.append(receipt) or True)
    payer = Payer(link.terms, hand, [].append)

    async def scenario(*, is_lost):
        replica = told_replica(payer, lambda _: None)
        end = Entry(Frame(int(Command.SETTLE), U64.size, bytearray(U64.pack(1))))
        replica.tell([*map(entry_of, (positions(1), graph([3]))), end])
        if is_lost:
            replica.drop()
        for _ in range(3):
            await asyncio.sleep(0)
        return len(asked)

    assert asyncio.run(scenario(is_lost=True)) == 0
    assert asyncio.run(scenario(is_lost=False)) == 1


def test_the_firewall_sees_a_frame_before_it_is_metered(parties):
    """What is refused is not even read as a graph."""
    metered = []

    class Meter(Earner):
        def note(self, frame):
            metered.append(frame)

    async def scenario():
        terms = Link(*parties[:2], price=FREE).terms
        session = Session(Rules(1 << 20, 1 << 20), None, Meter(terms, Hand(parties[1], print)))
        session.take_requests(AGAIN)
        return session.refused

    assert asyncio.run(scenario()).reason == "hello"
    assert metered == []
