"""Uptime: what counts, and what is refused."""

import asyncio
import json
import time
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.audit import attesting
from shoestring.swarm.audit.attesting import Attestations, Attestor, challenge
from shoestring.swarm.audit.standing import STANDING_FILE, Standing
from shoestring.swarm.audit.uptime import (
    AHEAD_S,
    SLOT_S,
    Attestation,
    answer,
    attest,
    read_attestation,
    score,
    service_of,
    slots_of,
)
from shoestring.swarm.cli_audit import audit
from shoestring.swarm.home import Home
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger.owning import Ownership
from shoestring.swarm.ledger.places import devices_of
from shoestring.swarm.ledger.rewards import Service, share_out
from shoestring.swarm.link import LinkError
from shoestring.swarm.proof.keeping import FOLDER, ReceiptFiles
from shoestring.swarm.remote import RefusedError, Remote, ask
from tests.swarm.nodes import Node
from tests.swarm.receipts import Link, layers_of, parties_in, positions

NOW_S = 1_795_000_000.0
NOON_S = int(NOW_S) // 86_400 * 86_400 + 43_200
NONCE = "0" * 64


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A node and four others."""
    folder = tmp_path_factory.mktemp("people")
    return [load_identity(folder / f"{number}.key") for number in range(5)]


def made(node, challenger, at_s=NOW_S, nonce=NONCE):
    """Return what both sign."""
    own = answer(node, challenger.id, nonce, at_s)
    told = {"ok": True, "at_s": own.at_s, "by_node": own.by_node}
    return attest(challenger, node.id, nonce, told, at_s)


def test_what_both_signed_counts_and_is_read_back(people):
    """By whoever knows the challenger."""
    one = made(people[0], people[1])
    assert one.fault(NOW_S, {people[1].id}) is None
    assert read_attestation(one.line) == one


def test_what_is_foreign_future_changed_or_half_signed_counts_for_nothing(people):
    """Each is named."""
    one, known = made(people[0], people[1]), {people[1].id}
    assert "whom we know" in one.fault(NOW_S, {people[2].id})
    assert "future" in one.fault(NOW_S - AHEAD_S - 1, known)
    assert "node has not" in replace(one, at_s=one.at_s + 1).fault(NOW_S, known)
    assert "node has not" in replace(one, node=people[2].id).fault(NOW_S, known)
    assert "challenger has not" in replace(one, by_challenger="").fault(NOW_S, known)
    stolen = replace(one, challenger=people[2].id)
    assert stolen.fault(NOW_S, {people[2].id}) == "the node has not signed it"


def test_nobody_attests_itself_and_no_other_time(people):
    """Neither by a key of its own nor by a clock that is wrong."""
    with pytest.raises(BadValueError, match="attests itself"):
        made(people[0], people[0])
    own = answer(people[0], people[1].id, NONCE, NOW_S)
    told = {"at_s": own.at_s, "by_node": own.by_node}
    with pytest.raises(BadValueError, match="clock"):
        attest(people[1], people[0].id, NONCE, told, NOW_S + AHEAD_S + 2)
    with pytest.raises(BadValueError, match="has not signed"):
        attest(people[1], people[0].id, "1" * 64, told, NOW_S)
    with pytest.raises(BadValueError, match="nonce"):
        answer(people[0], people[1].id, "0" * 63, NOW_S)


@given(st.binary(max_size=1_200))
def test_what_is_no_attestation_is_refused_in_one_way(line):
    """Whatever it is."""
    with pytest.raises(BadValueError):
        read_attestation(line)


@given(st.data())
def test_a_changed_byte_is_refused_or_counts_for_nothing(people, data):
    """Wherever it is."""
    one = made(people[0], people[1])
    at = data.draw(st.integers(0, len(one.line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != one.line[at]))
    line = one.line[:at] + bytes([byte]) + one.line[at + 1 :]
    try:
        found = read_attestation(line)
    except BadValueError:
        return
    assert found.fault(NOW_S, {people[1].id}) is not None


def test_a_slot_counts_by_two_and_by_no_owner_twice(people):
    """Replays, friends of one owner, and the node's own other key add nothing."""
    node, one, two, three, own = people
    known = {other.id for other in people}
    first = made(node, one)

    def slots(*given, owners=None):
        return slots_of(given, known=known, now_s=NOW_S, owners=owners)

    slot = int(NOW_S // SLOT_S)
    assert slots(first, first, made(node, one, nonce="1" * 64)) == {}
    assert slots(first, made(node, two)) == {node.id: {slot}}
    assert slots(first, made(node, two, NOW_S - SLOT_S)) == {}
    same = {one.id: "ana", two.id: "ana"}
    assert slots(first, made(node, two), owners=same) == {}
    assert slots(first, made(node, two), made(node, three), owners=same) == {node.id: {slot}}
    assert slots(first, made(node, own), owners={own.id: "me", node.id: "me"}) == {}


@given(st.sets(st.integers(0, 300)), st.integers(1, 300))
def test_a_score_is_a_share_and_old_slots_count_less(slots, end):
    """All give one, none nothing; one slot later is worth more."""
    now_s = end * SLOT_S + 1.0
    found = score(slots, 0, now_s)
    assert 0 <= found <= 1
    assert score(range(end), 0, now_s) == pytest.approx(1)
    assert score((), 0, now_s) == 0
    if end > 1:
        assert score({end - 1}, 0, now_s) > score({0}, 0, now_s)
    assert score(slots, 0, 0) is None


def test_rewards_go_by_what_was_attested(people):
    """In whole seconds of slots that count."""
    slot = int(NOW_S // SLOT_S)
    since_s = NOW_S - 10 * SLOT_S
    services = {
        people[0].id: service_of({slot - 1, slot - 2, slot - 99}, 0, since_s, NOW_S),
        people[1].id: service_of({slot - 3}, 0, since_s, NOW_S),
    }
    assert services[people[0].id] == Service(2 * SLOT_S, 0)
    assert share_out(300, services) == {people[0].id: 200, people[1].id: 100}


def test_over_a_link_both_keep_the_same(tmp_path):
    """The node answers, the challenger signs, and what another challenges is refused."""
    owner, friend = Node(tmp_path / "owner"), Node(tmp_path / "friend")
    owner.knows(friend, rights=("use",))
    kept = Attestations(tmp_path / "owner" / "uptime.jsonl")
    attestor, ended = Attestor(owner.identity, kept, owner.clock), asyncio.Event()

    async def scenario():
        async def on_link(link):
            await attestor.answer(link, await link.hear(5))
            ended.set()

        async with owner.listener(on_link) as listener:
            address = PeerAddress(owner.identity.id, "127.0.0.1", listener.port)
            remote = Remote("owner", address, owner.identity.certificate)
            with pytest.raises(RefusedError, match="nonce") as refused:
                await ask(friend.identity, remote, {"do": "attest", "nonce": "bad"}, 5)
            assert refused.value.word == "nonce"
            ended.clear()
            found = await challenge(friend.identity, remote, owner.clock)
            await asyncio.wait_for(ended.wait(), 10)
            with pytest.raises(LinkError, match="answered already"):
                await challenge(friend.identity, remote, owner.clock)
            owner.now_s += SLOT_S
            with pytest.raises(BadValueError, match="clock"):
                await challenge(friend.identity, remote, lambda: owner.now_s + 1_000)
            return found

    found = asyncio.run(scenario())
    assert list(kept.all()) == [found]
    assert found.fault(found.at_s, {friend.identity.id}) is None
    assert isinstance(found, Attestation)
    assert asdict(found)["node"] == owner.identity.id


def test_the_command_says_how_long_each_was_seen(tmp_path, people, monkeypatch):
    """Of files of several challengers; as what rewards read."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path))
    home = Home()
    mine = home.identity()
    ana = Node(tmp_path / "ana")
    home.peers(print).admit(ana.record_of(ana))
    at_s = time.time() - 2 * SLOT_S
    both = [made(people[0], mine, at_s), made(people[0], ana.identity, at_s)]
    file = tmp_path / "both.jsonl"
    file.write_bytes(b"".join(one.line + b"\n" for one in both))
    since = datetime.fromtimestamp(at_s - 86_400, UTC).strftime("%Y-%m-%d")
    asked = ["uptime", "--since", since, "--from", str(file)]
    said = CliRunner().invoke(audit, [*asked, "--json"])
    assert json.loads(said.output) == {people[0].id: {"uptime_s": SLOT_S, "layer_tokens": 0}}
    assert "score" in CliRunner().invoke(audit, asked).output


def test_no_challenger_crowds_out_the_others(tmp_path, people, monkeypatch):
    """One of both in a slot is kept; of a full file goes what it has most of, the oldest first."""
    monkeypatch.setattr(attesting, "MOST_LINES", 4)
    node, loud, quiet, *_ = people
    kept = Attestations(tmp_path / "uptime.jsonl")
    first = made(node, quiet)
    kept.add(first)
    for number in range(3):
        kept.add(made(node, loud, NOW_S, f"{number:064x}"))
    assert len(kept.all()) == 2
    for slot in range(1, 9):
        kept.add(made(node, loud, NOW_S + slot * SLOT_S))
    assert first in kept.all()
    assert [one.at_s for one in kept.all() if one.challenger == loud.id] == [
        int(NOW_S + slot * SLOT_S) for slot in (6, 7, 8)
    ]


def test_a_bad_line_costs_itself_and_owners_count_once(tmp_path, people, monkeypatch):
    """Two keys of one owner are one challenger; work is what receipts here say."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path))
    home = Home()
    mine, ana = home.identity(), Node(tmp_path / "ana")
    home.peers(print).admit(ana.record_of(ana))
    at_s = time.time() - 2 * SLOT_S
    lines = [made(people[0], one, at_s).line for one in (mine, ana.identity)]
    file = tmp_path / "both.jsonl"
    file.write_bytes(b"\n".join([lines[0], b"no attestation" * 200, lines[1]]))
    since = datetime.fromtimestamp(at_s - 86_400, UTC).strftime("%Y-%m-%d")
    asked = ["uptime", "--since", since, "--from", str(file), "--json"]
    said = CliRunner().invoke(audit, asked)
    assert json.loads(said.stdout) == {people[0].id: {"uptime_s": SLOT_S, "layer_tokens": 0}}
    assert "count for nothing" in said.stderr
    for device in (mine, ana.identity):
        own = Ownership(people[4].id, device.id, int(at_s), int(at_s) + 86_400)
        devices_of(home).keep(own.signed_by_owner(people[4]).signed_by_device(device))
    assert json.loads(CliRunner().invoke(audit, asked).stdout) == {}


DAY_S = 86_400


def session_of_days(folder, *days):
    """Keep a session's receipts, one of each of these days, and return them."""
    link = Link(*parties_in(folder)[:2])
    for day in days:
        link.tell(positions(2))
        link.tell(layers_of(3, 5, 2))
        link.payer._now = lambda day=day: NOON_S + day * DAY_S
        link.node_s = NOON_S + day * DAY_S
        link.settle()
    # A run with a budget has a folder of its own.
    with closing(ReceiptFiles(Home().folder / FOLDER / "budget.x", print)) as files:
        for signed in link.here:
            files.keep(signed)
    return [signed.receipt for signed in link.here]


def work_of(since, until, *more):
    """Return what the command says that nodes computed from one day to another."""
    period = [day_of(since)] if until is None else [day_of(since), "--until", day_of(until)]
    said = CliRunner().invoke(audit, ["uptime", "--since", *period, "--json", *more])
    assert said.exit_code == 0, said.output
    return {node: one["layer_tokens"] for node, one in json.loads(said.stdout).items()}


def day_of(number):
    """Return a day as the command takes it."""
    return datetime.fromtimestamp(NOON_S + number * DAY_S, UTC).strftime("%Y-%m-%d")


def test_a_session_over_several_periods_counts_once(tmp_path, monkeypatch):
    """Figures of a receipt are of the session until there: each period has what is new in it."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path))
    receipts = session_of_days(tmp_path, 0, 1, 1, 4)
    node = receipts[0].terms.node
    monkeypatch.setattr(time, "time", lambda: NOON_S + 5 * DAY_S)
    (whole,) = work_of(0, None).values()
    figures = receipts[-1].figures
    assert whole == (figures.tokens_in + figures.tokens_out) * receipts[-1].layers.count > 0
    days = [work_of(day, day + 1) for day in range(-1, 6) if day != 5]
    assert days == [{}, {node: whole // 4}, {node: whole // 2}, {}, {}, {node: whole // 4}]
    assert work_of(1, 5) == {node: whole * 3 // 4}


def test_a_period_ends_after_it_begins(tmp_path, monkeypatch):
    """And one that has yet to begin is none."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path))
    for since, until in (("2026-01-02", "2026-01-02"), ("2999-01-01", "2999-02-01")):
        said = CliRunner().invoke(audit, ["uptime", "--since", since, "--until", until])
        assert f"--since {since}" in str(said.exception)


def test_who_is_excluded_has_no_part_of_what_is_shared_out(tmp_path, monkeypatch):
    """Until it is forgiven."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path))
    node = session_of_days(tmp_path, 0)[0].terms.node
    monkeypatch.setattr(time, "time", lambda: NOON_S + 1)
    assert list(work_of(0, None)) == [node]
    standing = Standing(Home().folder / STANDING_FILE)
    standing.exclude(node, "ana", "answer 3 is wrong")
    assert work_of(0, None) == {}
    standing.forgive("ana")
    assert list(work_of(0, None)) == [node]
