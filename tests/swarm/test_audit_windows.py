"""Windows as they are recorded, run again, and what follows, without a worker."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import pytest
from blake3 import blake3
from click.testing import CliRunner

from shoestring.errors import BadValueError
from shoestring.swarm import stage as stages
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.audit import running
from shoestring.swarm.audit.auditor import MOST_WAITING, Auditor
from shoestring.swarm.audit.evidence import Evidence, keep, read
from shoestring.swarm.audit.places import Places
from shoestring.swarm.audit.proofs import MOST_RECEIPTS, Proofs
from shoestring.swarm.audit.running import NotRunError
from shoestring.swarm.audit.sampling import Chance
from shoestring.swarm.audit.standing import Standing
from shoestring.swarm.audit.windows import Recording
from shoestring.swarm.auditing import make_auditor, standing_of, without_excluded
from shoestring.swarm.cli_audit import audit
from shoestring.swarm.identity import load_identity
from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.proof.agreeing import Asked
from shoestring.swarm.proof.paying import Paying
from shoestring.swarm.proof.receipts import Hand
from shoestring.swarm.proof.windows import Windows
from shoestring.swarm.remote import Remote, Seat
from shoestring.swarm.spares import Need, Spare, Spares
from shoestring.swarm.stage import Stage
from shoestring.swarm.wire import TWO_U64, Answer, Command, Frame
from shoestring.testing.rpc_frames import tensor
from tests.swarm.receipts import WIDTH, Link, activation, frame_of, parties_in
from tests.swarm.receipts import read as read_words


def read_of(name="l_out-3"):
    """Return an entry that reads an activation."""
    head = bytearray(tensor(8, buffer=1, name=name.encode()) + TWO_U64.pack(0, 32))
    frame = Frame(int(Command.GET_TENSOR), len(head), head)
    return Entry(frame, reply=Reply(frame, 0.0))


@pytest.fixture
def node(tmp_path):
    """A node's id."""
    return load_identity(tmp_path / "node.key").id


def seat_of(folder, name):
    """Return a session at a node of this name."""
    identity = load_identity(folder / f"{name}.key")
    address = PeerAddress(identity.id, "127.0.0.1", 1)
    return Seat(Remote(name, address, identity.certificate), f"session of {name}")


def window_of(done, *members, count=2, **settings):
    """Return a closed window of so many questions, and their replies."""
    recording = Recording(0, (), done, members=members, **settings)
    entries = [read_of(f"l_out-{number}") for number in range(count)]
    for entry in entries:
        recording.add(entry)
    recording.close()
    return recording, [entry.reply for entry in entries]


def test_a_member_is_compared_by_its_own_data_alone():
    """Those that were given on are the first one's; a mirror that answered otherwise has none."""
    recording, replies = window_of(lambda _: None, "first", "mirror")
    for reply in replies:
        recording.hear(reply, bytes(32))
    for reply, data in zip(replies, (bytes(32), b"\1" * 32), strict=True):
        recording.answered("first", reply, blake3(bytes(32)).digest())
        recording.answered("mirror", reply, blake3(data).digest())
    assert recording.given("first").data == (bytes(32), bytes(32))
    assert recording.given("mirror").data == (bytes(32), None)
    assert recording.differs


def test_a_window_waits_for_a_slow_mirror_until_it_is_lost():
    """Else nobody would ever run again what it said."""
    done = []
    recording, replies = window_of(done.append, "fast", "slow")
    for reply in replies:
        recording.answered("fast", reply, b"d")
    assert done == []
    recording.answered("slow", replies[0], b"d")
    recording.lost("slow")
    assert done == [recording]
    assert recording.seats == ["fast", "slow"]
    done.clear()
    recording, replies = window_of(done.append, "fast", "slow")
    for reply in replies:
        recording.answered("fast", reply, b"d")
    recording.wait_no_more()  # the conversation ends
    assert done == [recording]


def test_members_that_differ_are_audited_whatever_was_drawn(tmp_path):
    """And those that agree only if it was drawn; a dropped window is nobody's any more."""
    seats = seat_of(tmp_path, "ana"), seat_of(tmp_path, "ben")

    async def scenario(digests):
        said = []
        auditor = Auditor(
            Chance(0.0), Standing(tmp_path / "audits.json"), tmp_path,
            lambda *one: said.append(one), places=(), kinds={},
        )  # fmt: skip
        async with auditor:
            recording = auditor.record(0, list, seats, is_first=True)
            dropped = auditor.record(0, list, seats, is_first=False)
            for one in (recording, dropped):
                entry = read_of()
                one.add(entry)
                one.close()
                if one is dropped:
                    auditor.drop(dropped)
                for seat, digest in zip(seats, digests, strict=True):
                    one.answered(seat, entry.reply, digest)
            await auditor.idle()
            assert auditor.record(0, list, seats[:1], is_first=False) is None
        return said, auditor.counts

    said, counts = asyncio.run(scenario((b"d", b"e")))
    assert [(what, who) for what, who, _ in said] == [
        ("not audited", "ana"),
        ("not audited", "ben"),
    ]
    assert counts["windows"] == 3
    said, counts = asyncio.run(scenario((b"d", b"d")))
    assert said == []
    stood = Standing(tmp_path / "audits.json").all()
    assert stood[seats[0].remote.address.id].windows == 6
    assert stood[seats[0].remote.address.id].share == 0


def test_a_window_in_which_nothing_was_asked_for_is_counted_and_takes_no_place(tmp_path):
    """The last stage gives nothing for the first parts of a long prompt."""
    seats = (seat_of(tmp_path, "ana"),)

    async def scenario():
        auditor = Auditor(
            Chance(1.0), Standing(tmp_path / "audits.json"), tmp_path, print, places=(), kinds={},
        )  # fmt: skip
        async with auditor:
            for _ in range(2 * MOST_WAITING):
                auditor.record(0, list, seats, is_first=False).close()
            await auditor.idle()
        return auditor.counts

    assert asyncio.run(scenario()) == {"windows": 2 * MOST_WAITING, "unasked": 2 * MOST_WAITING}


class Stands:
    """A place that answers as it is told, or never; at the end its last receipt comes."""

    kind = "one"

    def __init__(self, name, peer):
        """Begin."""
        self.name, self.peer = name, peer
        self.asked, self.paid, self.begun = 0, [], asyncio.Event()

    @asynccontextmanager
    async def open(self, listening, keep=None):  # noqa: ARG002 - of the protocol
        """Of places: a replica of which nothing is heard."""
        self.asked += 1
        self.begun.set()
        try:
            yield SimpleNamespace(tell=list)
        finally:
            await asyncio.sleep(0)
            keep("the last receipt")

    def pay(self, receipts):
        """Of places."""
        self.paid += receipts


def test_a_place_that_dawdles_costs_one_window_its_time_and_is_put_aside(monkeypatch):
    """It is told; after a while it is asked again."""
    monkeypatch.setattr(running, "LEAST_S", 0.01)
    recording, _ = window_of(lambda _: None, count=0)
    slow, aside, now_s = Stands("slow", "p"), [], [100.0]
    places = Places(
        [slow], None, lambda *said: aside.append(said), lambda *_: None, clock=lambda: now_s[0]
    )
    how = {"besides": {None}, "without": (), "last": (), "kind": "one", "here_first": False}

    async def ask():
        with pytest.raises(NotRunError) as error:
            await places.run(recording, [], **how)
        return str(error.value)

    assert "slow was not done in" in asyncio.run(ask())
    assert "nobody else" in asyncio.run(ask())
    assert [who for who, _ in aside] == ["slow"]
    now_s[0] += 601
    assert "slow was not done in" in asyncio.run(ask())
    assert slow.asked == 2
    places.bar("p")
    now_s[0] += 601
    assert "nobody else" in asyncio.run(ask())


def test_a_spare_that_is_taken_runs_no_window_any_more(tmp_path):
    """An answer waits for its worker; it did not fail, and is not put aside."""
    spare = seat_of(tmp_path, "ben").remote
    spares, aside = Spares([Spare(spare, 1)]), []
    slow = Stands("ben", spare.address.id)
    places = Places([slow], None, lambda *said: aside.append(said), spares.use)
    recording, _ = window_of(lambda _: None, count=0)
    how = {"besides": {None}, "without": (), "last": (), "kind": "one", "here_first": False}

    async def scenario():
        running = asyncio.create_task(places.run(recording, [], **how))
        await slow.begun.wait()
        assert spares.take(Need(1)) == spare
        with pytest.raises(NotRunError, match="needed for an answer"):
            await running

    asyncio.run(scenario())
    assert aside == []


def test_who_ran_a_window_when_the_chain_ended_is_paid(tmp_path):
    """What it computed until then, by the receipt that comes as it is left."""
    slow = Stands("ben", "p")
    auditor = Auditor(
        Chance(1.0), Standing(tmp_path / "audits.json"), tmp_path, lambda *_: None,
        places=[slow], kinds={},
    )  # fmt: skip

    async def scenario():
        async with auditor:
            seat = seat_of(tmp_path, "ana")
            recording = auditor.record(0, list, [seat], is_first=True)
            entry = read_of()
            recording.add(entry)
            recording.close()
            recording.answered(seat, entry.reply, b"d")
            await slow.begun.wait()

    asyncio.run(scenario())
    assert slow.paid == ["the last receipt"]


@pytest.mark.parametrize("change", [
    lambda said: said | {"first": 5}, lambda said: said | {"first": -1},
    lambda said: said | {"first": "0"}, lambda said: said | {"names": "l"},
    lambda said: said | {"names": {"0": "x"}}, lambda said: said | {"digests": {"x": ["zz"]}},
    lambda said: said | {"digests": []}, lambda said: said | {"activations": [1]},
    lambda said: said | {"relative": float("nan")}, lambda said: said | {"receipts": [1]},
    lambda said: said | {"names": ["\ud800"]}, lambda said: [said], lambda _: {"version": 1},
])  # fmt: skip
def test_crafted_evidence_is_refused_in_one_line(tmp_path, node, change):
    """Whatever it says of itself."""
    digest = sha256(b"x").hexdigest()
    written = Evidence(node, (digest,), ("l_out-1",), (0,), (),
                       {node: (digest,), "x": ("ab" * 32,)}, 0, None, ())  # fmt: skip
    path = keep(tmp_path / "evidence", written, 1_795_000_000.0)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(BadValueError, match="is no evidence"):
        read(path)
    assert CliRunner().invoke(audit, ["evidence", str(path)]).exception.__class__ is BadValueError


def settled(folder, fill=0):
    """Return the receipt of a window, and what was told and answered in it."""
    link = Link(*parties_in(folder)[:2])
    link.step(fill)
    link.settle()
    data = bytes([fill]) * 4 * WIDTH, bytes([fill + 1]) * 4 * WIDTH
    return link.here[0], *(blake3(one).digest() for one in data)


def test_what_no_root_covers_is_not_said_to_be_signed(tmp_path):
    """A copy of the caches is no activation; and inputs must be those of the receipt."""
    receipt, told, given = settled(tmp_path)
    made = Evidence(
        receipt.receipt.terms.node, (), ("l_out-3", "cache_k_l0"), (0,), (told.hex(),),
        {receipt.receipt.terms.node: (given.hex(), given.hex()), "x": ("ab" * 32, "cd" * 32)},
        0, None, (receipt.line.decode(),),
    )  # fmt: skip
    assert made.signed_by_node()
    path = keep(tmp_path / "evidence", made, 1_795_000_000.0)
    said = CliRunner().invoke(audit, ["evidence", str(path)])
    assert (said.exit_code, said.output.splitlines()) == (0, [
        "answer 0, l_out-3:", f"  {made.node} gave {given.hex()}", f"  x gave {'ab' * 32}",
    ])  # fmt: skip
    for other in ({}, {"x": (given.hex(), "cd" * 32)}, {"x": (None, "cd" * 32)}):
        with pytest.raises(BadValueError, match="nobody gave another answer"):
            replace(made, digests={made.node: made.digests[made.node], **other})
    assert not replace(made, first=1).signed_by_node()
    assert not replace(made, inputs=(given.hex(),)).signed_by_node()


def answered(folder, carried=None):
    """Return who answered a window as :func:`settled` says, and the window."""
    its = parties_in(folder)[1]
    remote = Remote("ana", PeerAddress(its.id, "127.0.0.1", 1), its.certificate)
    seat = Seat(remote, "0123456789abcdef")
    recording = Recording(0, (), lambda _: None, members=[seat])
    frame, body = frame_of(activation(2, 1, 0))
    recording.add(Entry(frame, body, carried=carried))
    frame, _ = frame_of(read_words("l_out-3", 4 * WIDTH))
    asked = Entry(frame, reply=Reply(frame, 0.0))
    recording.add(asked)
    recording.answered(seat, asked.reply, blake3(b"\1" * 4 * WIDTH).digest())
    return seat, recording


def test_a_receipt_that_is_on_its_way_is_waited_for(tmp_path):
    """One of other roots or sessions is not it, and where not all is known there is none."""
    (signed, _, _), (other, _, _) = settled(tmp_path), settled(tmp_path, fill=7)
    seat, recording = answered(tmp_path)
    (asked,) = [one.entry.reply for one in recording.questions()]
    other_seat = replace(seat, session="f" * 16)
    recording.answered(other_seat, asked, recording.digests(seat)[0])

    async def scenario():
        proofs = Proofs()
        proofs.keep(other)
        finding = asyncio.create_task(proofs.find(recording, seat))
        elsewhere = asyncio.create_task(proofs.find(recording, other_seat))
        await asyncio.sleep(0.01)
        proofs.keep(signed)
        assert await finding is signed
        recording.add(read_of())
        assert await proofs.find(recording, seat) is None
        assert not elsewhere.done()
        elsewhere.cancel()

    asyncio.run(scenario())


def test_an_input_that_comes_here_after_what_it_led_to_is_proven_too(tmp_path):
    """What a node was pushed may reach it, and its answer us, before the same bytes reach us."""
    signed, told, _ = settled(tmp_path)
    pushed = Reply(frame_of(read_words("l_out-2", 4 * WIDTH))[0], 0.0)
    seat, recording = answered(tmp_path, carried=SimpleNamespace(reply=pushed))

    async def scenario():
        proofs = Proofs()
        finding = asyncio.create_task(proofs.find(recording, seat))
        await asyncio.sleep(0.01)
        pushed.digest = told
        proofs.keep(signed)
        async with asyncio.timeout(5):
            return await finding

    assert asyncio.run(scenario()) is signed


class Recites(Stands):
    """A place that answers each question with the same byte."""

    def __init__(self, name, byte, *, peer=None, meanwhile=None):
        """Begin."""
        super().__init__(name, peer)
        self.byte, self.meanwhile = byte, meanwhile

    @asynccontextmanager
    async def open(self, listening, keep=None):  # noqa: ARG002 - of the protocol
        """Of places."""

        def tell(entries):
            if self.meanwhile is not None:
                self.meanwhile()
            for entry in entries:
                if entry.frame.command == Command.PING:
                    listening.start(None, entry.reply, Answer(Command.PING, 0, b""))
                elif entry.reply is not None:
                    data = bytes([self.byte]) * entry.reply.size
                    listening.data(entry.reply, 0, data)
                    listening.finish(None, entry.reply, blake3(data).digest())

        yield SimpleNamespace(tell=tell)


def audited(tmp_path, receipts, *, told=0, route=None, meanwhile=()):
    """Audit a window that a node answered with ones where two others say twos."""
    client, its, _ = parties_in(tmp_path)
    seat = Seat(
        Remote("ana", PeerAddress(its.id, "127.0.0.1", 1), its.certificate), "0123456789abcdef"
    )
    said, expelled = [], []
    auditor = Auditor(
        Chance(1.0), Standing(tmp_path / "audits.json"), tmp_path / "evidence",
        lambda *one: said.append(one), places=[
            Recites("ben", 2, peer=client.id, meanwhile=lambda: [*map(auditor.keep, meanwhile)])
        ],
        here=Recites("this machine", 2), kinds={its.id: "one"},
    )  # fmt: skip
    auditor.stages = [
        SimpleNamespace(members=[], spares=Spares(), expel=lambda *how: expelled.append(how))
    ]

    async def scenario():
        async with auditor:
            recording = auditor.record(0, list, [seat], is_first=False)
            frame, body = frame_of(activation(2, 1, told))
            carried = None
            if route is not None:
                reply = SimpleNamespace(kept=body, digest=blake3(body).digest())
                source = SimpleNamespace(source=SimpleNamespace(name=route))
                carried = SimpleNamespace(route=source, reply=reply)
            recording.add(Entry(frame, b"" if carried else body, carried=carried))
            frame, _ = frame_of(read_words("l_out-3", 4 * WIDTH))
            asked = Entry(frame, reply=Reply(frame, 0.0))
            recording.add(asked)
            recording.close()
            for one in receipts:
                auditor.keep(one)
            data = b"\1" * 4 * WIDTH
            recording.hear(asked.reply, data)
            recording.answered(seat, asked.reply, blake3(data).digest())
            await auditor.idle()

    asyncio.run(scenario())
    return said, expelled, Standing(tmp_path / "audits.json").excluded()


def test_who_signed_for_the_very_window_is_excluded(tmp_path):
    """With evidence that shows it."""
    signed, _, _ = settled(tmp_path)
    said, expelled, excluded = audited(tmp_path, [signed])
    node = signed.receipt.terms.node
    assert [what for what, _, _ in said] == ["cheats"]
    assert (expelled[0][0], excluded) == (node, {node})
    (file,) = (tmp_path / "evidence").iterdir()
    assert read(file).signed_by_node()
    assert Standing(tmp_path / "audits.json").all()[node].evidence == (file.name,)


def test_receipts_that_come_while_a_window_is_run_again_push_none_out(tmp_path):
    """A chain of many stages signs more in that time than are kept."""
    (signed, _, _), (other, _, _) = settled(tmp_path), settled(tmp_path, fill=7)
    said, expelled, _ = audited(tmp_path, [signed], meanwhile=[other] * 2 * MOST_RECEIPTS)
    assert [what for what, _, _ in said] == ["cheats"]
    assert len(expelled) == 1


def test_nobody_is_excluded_for_what_a_neighbour_pushed_to_it(tmp_path, monkeypatch):
    """The node signed for other inputs than we know of: either of the two is wrong, and named."""
    monkeypatch.setattr("shoestring.swarm.audit.auditor.WAIT_S", 0.01)
    signed, _, _ = settled(tmp_path)
    said, expelled, excluded = audited(tmp_path, [signed], told=9, route="zoe")
    assert [what for what, _, _ in said] == ["undecided"]
    assert "it or zoe, which sent it inputs, is wrong" in said[0][2]
    assert (expelled, excluded) == ([], frozenset())


def test_a_cheat_is_excluded_though_nothing_can_be_kept_of_it(tmp_path):
    """Its evidence has no room; that is told."""
    signed, _, _ = settled(tmp_path)
    (tmp_path / "evidence").write_text("in the way")
    said, expelled, excluded = audited(tmp_path, [signed])
    assert [what for what, _, _ in said] == ["cheats", "not kept"]
    assert len(expelled) == 1
    assert excluded == {signed.receipt.terms.node}


class Peer:
    """A replica of a stage that is being expelled from."""

    def __init__(self, seat):
        """Begin."""
        self.seat, self.name = seat, seat.remote.name


class Talks:
    """A connection that has one session, and ends what it loses."""

    is_over = False

    def __init__(self, stage, seat):
        """Begin."""
        self.stage, self.replicas, self.joining, self.tried = stage, [Peer(seat)], set(), set()
        self.ended = False

    def lose(self, replica, _why):
        """Of conversations."""
        self.replicas.remove(replica)
        self.stage.recruit(self, replica)

    def end(self):
        """Of conversations."""
        self.ended = True


def test_all_connections_of_an_expelled_node_go_on_at_a_spare(tmp_path, monkeypatch):
    """Though it still serves another when the first one loses it."""
    cheat, spare = seat_of(tmp_path, "ana"), seat_of(tmp_path, "ben")
    joined = []

    async def scenario():
        stage = Stage(
            load_identity(tmp_path / "client.key"), [cheat.remote],
            Spares([Spare(spare.remote, 1)]), None, None, None, Windows(None), None,
            number=0, need=Need(1), tell=lambda _: None,
        )  # fmt: skip

        def begin(talks, remote, _wait_s):
            joined.append((talks, remote))
            talks.joining.add(remote)

        monkeypatch.setattr(stage, "_begin", begin)
        talks = [Talks(stage, cheat), Talks(stage, cheat)]
        stage.conversations.update(talks)
        stage.expel(cheat.remote.address.id, "it cheats")
        assert not any(one.ended for one in talks)
        assert {remote for _, remote in joined} == {spare.remote}
        assert {id(one) for one, _ in joined} == set(map(id, talks))
        assert stage.members == [spare.remote]

    asyncio.run(scenario())


def test_a_node_that_was_expelled_while_it_joined_is_let_in_no_more(tmp_path, monkeypatch):
    """Its session is ended before it is told anything."""
    cheat = seat_of(tmp_path, "ana").remote
    told, aborted = [], []

    async def scenario():
        stage = Stage(
            load_identity(tmp_path / "client.key"), [cheat], Spares(), None, None, None,
            Windows(None), None, number=0, need=Need(1), tell=told.append,
        )  # fmt: skip

        async def opening(*_how, **_settings):
            stage.expel(cheat.address.id, "it cheats")
            link = SimpleNamespace(abort=lambda: aborted.append(cheat))
            return SimpleNamespace(link=link, session="s", stores=False, terms=None)

        monkeypatch.setattr(stages, "open_session", opening)
        talks = Talks(stage, Seat(cheat, "s"))
        talks.replicas.clear()
        stage.opened(talks)
        await asyncio.gather(*stage._tasks)
        assert talks.ended

    monkeypatch.setattr(Stage, "_borrow", lambda *_: asyncio.sleep(0))
    asyncio.run(scenario())
    assert aborted == [cheat]
    assert [(one.what, one.who) for one in told] == [("unreachable", "ana")]


def test_who_is_excluded_gets_no_part_and_one_alone_is_not_audited(tmp_path):
    """It is said; and a share of 0 sends nothing to anybody."""
    seen = [SimpleNamespace(remote=seat_of(tmp_path, name).remote, numerics="one")
            for name in ("ana", "ben", "cas")]  # fmt: skip
    home = SimpleNamespace(folder=tmp_path, identity=lambda: load_identity(tmp_path / "c.key"))
    said = []
    standing = standing_of(home)
    standing.exclude(seen[0].remote.address.id, "ana", "wrong")
    left = without_excluded(standing, seen, said.append)
    assert [one.remote.name for one in left] == ["ben", "cas"]
    assert said == ["ana was found to cheat: `shoestring swarm audit show` says how"]
    paying = Paying(Asked(), Hand(home.identity(), lambda _: None))
    assert make_auditor(home, 0.5, left, paying, 1, said.append) is not None
    assert make_auditor(home, 0.5, left[:1], paying, 1, said.append) is None
    assert make_auditor(home, 0.0, left, paying, 1, said.append) is None
