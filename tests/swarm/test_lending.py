"""Weights from node to node: a client names them to both, and sends none; nobody else gains."""

import asyncio
import base64
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.digests import file_sha256
from shoestring.models.header import read_header
from shoestring.swarm import borrowing, feeding, lending, watching
from shoestring.swarm import stage as stage_module
from shoestring.swarm.addresses import PeerAddress, is_nearer
from shoestring.swarm.borrowing import SURE_BYTES, Lenders, weights_of_part
from shoestring.swarm.feeding import FEEDS, fetch_blobs
from shoestring.swarm.lending import LOANS_PER_PEER, Lending
from shoestring.swarm.link import Link, LinkError
from shoestring.swarm.manifest import PAGE_BLOBS, hear_manifest, listed, named_blobs
from shoestring.swarm.node import Node as Agent
from shoestring.swarm.node import Offer, Stock
from shoestring.swarm.remote import RefusedError, Remote, ask
from shoestring.swarm.spares import Need, Spare, Spares
from shoestring.swarm.stage import standing_stages
from shoestring.swarm.store import Store
from shoestring.swarm.store_contents import PART_BYTES, Reading
from shoestring.swarm.weights import Weight, Weights
from shoestring.swarm.worker_pool import WorkerPool
from shoestring.swarm.worker_settings import WorkerSettings
from shoestring.testing.engines import need_program
from tests.swarm.clients import DEVICE, GIB, KIB, RULES, WEIGHT, sha256
from tests.swarm.nodes import HEAR_S, Collector, Node
from tests.swarm.test_store import counting, files, load_and_ask, path_of, put

PARTS = [WEIGHT[at : at + PART_BYTES] for at in range(0, 5 * PART_BYTES, PART_BYTES)]
NAMED = {sha256(part).hex(): PART_BYTES for part in PARTS}


@dataclass
class Party:
    """A node that keeps weights, and an owner who may pause it."""

    node: Node
    store: Store
    owner: SimpleNamespace
    remote: Remote | None = None
    agent: Agent | None = None


@pytest.fixture
def parties(tmp_path):
    """A client and two nodes that it may use, which do not know each other."""
    friend = Node(tmp_path / "friend")
    return friend, *more_parties(friend, tmp_path, "lender", "taker")


@asynccontextmanager
async def keeping(party, pool=None):
    """Let a node answer about weights, and with a pool about sessions."""
    node = party.node
    agent = Agent(
        node.peers, pool or SimpleNamespace(is_broken=False), Offer(RULES, "0" * 64, DEVICE, 1),
        stock=Stock(party.store, node.identity), owner=None if pool else party.owner,
        say=node.said.append,
    )  # fmt: skip
    async with node.listener(agent.answer) as listener:
        agent.lending = Lending(
            node.identity, party.store, listener.admit_for, listener.end_admission, node.clock
        )
        address = PeerAddress(node.identity.id, "127.0.0.1", listener.port)
        party.remote = Remote(node.folder.name, address, node.identity.certificate)
        party.agent = agent
        yield party.remote


def shown(node):
    """Return a node's certificate as words have it."""
    return base64.b64encode(node.identity.certificate).decode()


@asynccontextmanager
async def lent(friend, lender, taker, blobs=NAMED):
    """Have a node lend weights to another while the block lasts."""
    word = {"do": "lend", "certificate": shown(taker.node), "blobs": listed(blobs)}
    link, _ = await ask(friend.identity, lender.remote, word, HEAR_S)
    try:
        yield link
    finally:
        link.abort()


async def fetch(party, remote, blobs=NAMED, store=None):
    """Fetch as a node; return how many bytes came."""
    parts = fetch_blobs(party.node.identity, remote, blobs, store or party.store)
    return sum([count async for count in parts])


def borrow_word(lender, **fields):
    """Return the word that has a node borrow."""
    word = {"do": "borrow", "from": str(lender.remote.address), "blobs": listed(NAMED)}
    return {**word, "certificate": shown(lender.node), **fields}


async def borrow(friend, taker, word):
    """Have a node borrow; return all that it says about it."""
    link, first = await ask(friend.identity, taker.remote, word, HEAR_S)
    said = [first]
    try:
        while said[-1].get("over") is None and said[-1]["ok"]:
            said.append(await link.hear(HEAR_S))
    finally:
        link.abort()
    return said


def run(parties, scenario):
    """Run a scenario with both nodes there."""

    async def both():
        _, lender, taker = parties
        async with keeping(lender), keeping(taker):
            return await scenario(*parties)

    return asyncio.run(both())


WEIGHTS = [Weight(memoryview(part)) for part in PARTS]


async def fill(friend, lender, taker, lenders=None):
    """Have a node filled by what the other keeps; return what was told."""
    told = []
    lenders = lenders or Lenders(friend.identity, lambda: [taker.remote, lender.remote])
    await lenders.fill(taker.remote, WEIGHTS, lambda *words: told.append(words))
    return told


def more_parties(friend, folder, *names):
    """Return nodes more that the client may use."""
    made = []
    for name in names:
        node = Node(folder / name)
        node.knows(friend, rights=("use",))
        store = Store(folder / name / "weights", GIB, say=node.said.append)
        made.append(Party(node, store, SimpleNamespace(paused=False)))
    return made


@pytest.fixture
def hasty(monkeypatch):
    """What fails at once is said sooner: nobody is to wait for it here."""
    monkeypatch.setattr(lending, "BEGIN_S", 2.0)


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    """However busy this machine is, what others keep is waited for."""
    monkeypatch.setattr(borrowing, "MANIFESTS_S", 2 * HEAR_S)


# From store to store.


def test_weights_come_from_another_nodes_store_but_for_those_that_it_has_not(parties):
    """What is here already does not come again; nobody is asked where nothing is missing."""

    async def scenario(friend, lender, taker):
        ours = replace(taker, node=friend)
        unknown = {sha256(b"unknown").hex(): 5 * KIB}
        nowhere = replace(
            lender.remote, address=PeerAddress(lender.node.identity.id, "127.0.0.1", 1)
        )
        some = dict(sorted(NAMED.items())[:4])
        return await fetch(ours, lender.remote, some | unknown), await fetch(ours, nowhere, some)

    for part in PARTS:
        put(parties[1].store, part)
    put(parties[2].store, next(part for part in PARTS if sha256(part).hex() == min(NAMED)))
    assert run(parties, scenario) == (3 * PART_BYTES, 0)
    assert files(parties[2].store) == sorted(NAMED)[:4]


def test_a_weight_that_was_damaged_is_not_kept_and_ends_it(parties):
    """It is removed where it lay; what came before it is kept."""

    async def scenario(friend, lender, taker):
        with pytest.raises(LinkError, match="did not send"):
            await fetch(replace(taker, node=friend), lender.remote)

    _, lender, taker = parties
    for part in PARTS:
        put(lender.store, part)
    damaged = sorted(PARTS, key=lambda part: sha256(part).hex())[2]
    path_of(lender.store, damaged).write_bytes(damaged[::-1])
    run(parties, scenario)
    assert files(taker.store) == sorted(NAMED)[:2]
    assert sha256(damaged).hex() not in files(lender.store)


FIRST, SECOND = sorted(PARTS[:2], key=lambda part: sha256(part).hex())


@pytest.mark.parametrize(
    ("sent", "kept", "reason"),
    [
        (b"\1" + FIRST + b"\1" + SECOND + b"more", [FIRST, SECOND], None),
        (b"\0" + b"\1" + SECOND, [SECOND], None),
        (b"\0\0", [], None),
        (b"\1" + FIRST + b"\1" + SECOND[:-1], [FIRST], "closed"),
        (b"\1" + FIRST + b"\1" + SECOND[::-1], [FIRST], "word"),
        (b"\1" + SECOND + b"\1" + FIRST, [], "word"),
        (b"", [], "closed"),
    ],
)
def test_a_node_that_sends_something_else_is_not_believed(parties, sent, kept, reason):
    """Less, other bytes; what it sends beyond is not read."""
    friend, lender, taker = parties

    async def answer(link):
        await link.hear(HEAR_S)
        await link.say({"ok": True})
        heard = Collector()
        link.hand_over(heard).write(sent)
        if reason == "closed":
            link.close()
        await heard.ended

    async def scenario():
        async with lender.node.listener(answer) as listener:
            address = PeerAddress(lender.node.identity.id, "127.0.0.1", listener.port)
            remote = Remote("lender", address, lender.node.identity.certificate)
            blobs = {sha256(part).hex(): PART_BYTES for part in PARTS[:2]}
            try:
                await fetch(replace(taker, node=friend), remote, blobs)
            except LinkError as error:
                return error.reason

    assert asyncio.run(scenario()) == reason
    assert files(taker.store) == sorted(sha256(part).hex() for part in kept)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=70) | st.just("ab" * 32),
        lambda inner: st.lists(inner, max_size=4),
    )
)
def test_what_names_no_weights_is_no_word_about_them(said):
    """Whatever is said, what is read out of it is digests that rise, and sizes."""
    found = named_blobs(said)
    assert found is None or (len(found) and listed(found) == [tuple(one) for one in said])


def test_weights_are_named_as_they_are_listed_and_not_too_many_at_once():
    """Nor twice, nor none at all."""
    blobs = {f"{number:064x}": number for number in range(PAGE_BLOBS)}
    said = [list(one) for one in listed(blobs)]
    assert named_blobs(said) == blobs
    assert named_blobs([*said, ["f" * 64, 1]]) is None
    assert named_blobs(said[::-1]) is None
    assert named_blobs([said[0], said[0]]) is None
    assert named_blobs([]) is None


# At the word of a client.


def test_a_client_sends_less_than_a_hundredth_of_what_another_node_has(parties):
    """All words of both links of the client, both ways, and what the taker asks of the lender."""
    big = [WEIGHT[number:] + bytes(8 * number) for number in range(8)]

    async def scenario(friend, lender, taker):
        async with (
            counting(taker.remote) as (to_taker, at_taker),
            counting(lender.remote) as (to_lender, at_lender),
        ):
            told = []
            lenders = Lenders(friend.identity, lambda: [to_lender])
            weights = [Weight(memoryview(one)) for one in big]
            await lenders.fill(to_taker, weights, lambda *words: told.append(words[:2]))
            await lenders.fill(to_taker, weights, lambda *words: told.append(words[:2]))
            return told, at_taker, at_lender

    for one in big:
        put(parties[1].store, one)
    told, at_taker, at_lender = run(parties, scenario)
    total = sum(map(len, big))
    assert told == [("borrowed", "taker")]
    assert files(parties[2].store) == sorted(sha256(one).hex() for one in big)
    assert at_lender["out"] > total > 100 * (at_taker["bytes"] + at_lender["in"])


def test_a_key_that_was_let_in_fetches_what_was_named_and_does_nothing_else(parties):
    """Before and after nothing at all; and only as long as who said so may use the node."""

    async def scenario(friend, lender, taker):
        named, other = dict(list(NAMED.items())[:2]), dict(list(NAMED.items())[2:])

        async def reasons(*words):
            found = []
            for word in words:
                try:
                    link, _ = await ask(taker.node.identity, lender.remote, word, HEAR_S)
                    link.abort()
                except RefusedError as error:
                    found.append(error.word)
                else:
                    found.append("served")
            return found

        with pytest.raises(LinkError) as before:
            await fetch(taker, lender.remote, named)
        async with lent(friend, lender, taker, named) as loan:
            said = await reasons(
                {"do": "fetch", "blobs": listed(NAMED)},
                {"do": "fetch", "blobs": listed(other)},
                {"do": "fetch", "blobs": [[name, 5] for name, _ in listed(named)]},
                {"do": "hello"}, {"do": "session"}, {"do": "manifest"},
                {"do": "lend", "certificate": shown(friend), "blobs": listed(named)},
                borrow_word(lender),
            )  # fmt: skip
            assert said == ["rights"] * 8
            got = await fetch(taker, lender.remote, named)
            lender.node.knows(friend, rights=("serve",))
            assert await reasons({"do": "fetch", "blobs": listed(named)}) == ["rights"]
            loan.abort()
        async with asyncio.timeout(HEAR_S):
            while True:
                try:
                    await reasons({"do": "hello"})
                except LinkError as after:
                    return before.value.reason, got, after.reason

    for part in PARTS:
        put(parties[1].store, part)
    assert run(parties, scenario) == ("closed", 2 * PART_BYTES, "closed")


def test_who_may_not_use_a_node_has_nothing_lent_or_borrowed_there(parties, tmp_path):
    """A peer whose layers we use need not be one that uses ours."""

    async def scenario(_friend, lender, taker):
        other = Node(tmp_path / "other")
        for party in (lender, taker):
            party.node.knows(other, rights=("serve",))
        lend = {"do": "lend", "certificate": shown(taker.node), "blobs": listed(NAMED)}
        for party, word in ((lender, lend), (taker, borrow_word(lender))):
            with pytest.raises(RefusedError, match="may not use this node"):
                await ask(other.identity, party.remote, word, HEAR_S)

    run(parties, scenario)


@pytest.mark.parametrize(
    "fields",
    [
        {"from": "A" * 52 + "@127.0.0.1:7000"},
        {"from": None},
        {"from": "localhost"},
        {"from": "lab.example"},
        {"certificate": "no certificate"},
        {"blobs": []},
        {"blobs": [["../../etc/passwd", 5000]]},
    ],
)
def test_a_word_to_borrow_names_an_address_a_key_and_weights(parties, fields):
    """Names are not looked up."""

    async def scenario(friend, lender, taker):
        host = fields.get("from")
        if host in {"localhost", "lab.example"}:
            said = {"from": f"{lender.node.identity.id}@{host}:{lender.remote.address.port}"}
        else:
            said = fields
        with pytest.raises(RefusedError, match="borrow from"):
            await borrow(friend, taker, borrow_word(lender, **said))

    run(parties, scenario)


@pytest.mark.usefixtures("hasty")
def test_why_a_node_gets_nothing_is_not_told(parties):
    """A closed port, another's key and a refusal look alike: a peer sees no network through us."""

    async def scenario(friend, lender, taker):
        closed = str(PeerAddress(lender.node.identity.id, "127.0.0.1", 1))
        other = str(PeerAddress(friend.identity.id, "127.0.0.1", lender.remote.address.port))
        return [
            (await borrow(friend, taker, borrow_word(lender, **fields)))[-1]
            for fields in (
                {},  # the lender was told nothing
                {"from": closed},
                {"from": other, "certificate": shown(friend)},
            )
        ]

    said = run(parties, scenario)
    assert said[0] == said[1] == said[2]
    assert said[0]["reason"] == "unreachable"


@pytest.mark.usefixtures("hasty")
def test_a_lender_that_lies_gains_nothing_and_the_client_is_told(parties):
    """What it sent is not kept, and it is not asked again."""

    async def scenario(friend, lender, taker):
        lenders = Lenders(friend.identity, lambda: [lender.remote])
        told = await fill(friend, lender, taker, lenders)
        return told, await fill(friend, lender, taker, lenders)

    _, lender, taker = parties
    for part in PARTS:
        put(lender.store, part)
        path_of(lender.store, part).write_bytes(bytes(PART_BYTES))
    [(what, who, why)], again = run(parties, scenario)
    assert (what, who, again) == ("not lent", "taker", [])
    assert "by lender: this node does not get them" in why
    assert files(taker.store) == []


@pytest.mark.usefixtures("hasty")
def test_a_lender_that_dawdles_is_left(parties, monkeypatch):
    """The taker itself ends it, whatever the client does."""
    monkeypatch.setattr(feeding, "FEED_S", 0.3)
    over = asyncio.Event()

    async def scenario(friend, lender, taker):
        async def dawdle(link):
            await link.hear(HEAR_S)
            await link.say({"ok": True})
            link.hand_over(asyncio.Protocol()).write(b"\1")
            await over.wait()

        friend.knows(taker.node)
        async with friend.listener(dawdle) as listener:
            at = str(PeerAddress(friend.identity.id, "127.0.0.1", listener.port))
            word = borrow_word(lender, certificate=shown(friend), **{"from": at})
            said = await borrow(friend, taker, word)
            over.set()
            return said

    assert run(parties, scenario)[-1]["reason"] == "unreachable"


class Words:
    """A link on which a node says words one after another."""

    def __init__(self, *said):
        self.said = list(said)

    async def hear(self, _timeout_s):
        """Return the next."""
        return self.said.pop(0)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ([{"ok": True, "bytes": 10}, {"ok": True, "bytes": 20, "over": True}], 20),
        ([{"ok": True, "bytes": 101}], "what it was not to get"),
        ([{"ok": True, "bytes": -1}], "what it was not to get"),
        ([{"ok": True, "bytes": True}], "what it was not to get"),
        ([{"ok": True, "over": True}], "what it was not to get"),
        ([{"ok": False, "reason": "unreachable", "message": "no"}], "no"),
    ],
)
def test_what_a_node_says_about_a_loan_is_heard_within_bounds(parties, said, found):
    """A number that cannot be ends it."""
    friend, _, taker = parties
    lenders = Lenders(friend.identity, list)
    remote = Remote("taker", PeerAddress(taker.node.identity.id, "127.0.0.1", 1), b"")
    following = lenders._follow(Words(*said), remote, 100)
    if isinstance(found, int):
        assert asyncio.run(following) == found
        return
    with pytest.raises(LinkError, match=found):
        asyncio.run(following)


def test_a_loan_that_is_slower_than_sending_is_left(parties, monkeypatch):
    """What came whole is kept; the rest is the client's to send."""
    monkeypatch.setattr(borrowing, "PATIENCE_S", 2.0)  # a busy machine needs some for one part
    monkeypatch.setattr(lending, "SAY_S", 0.0)
    reads = Reading.part

    async def scenario(friend, lender, taker):
        first = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(self):
            if self._store is lender.store and first.is_set():
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0.8), loop).result(HEAR_S)
            loop.call_soon_threadsafe(first.set)
            return reads(self)

        monkeypatch.setattr(Reading, "part", slow)
        lenders = Lenders(friend.identity, lambda: [lender.remote])
        lenders.sent(GIB, 1.0)
        return await fill(friend, lender, taker, lenders)

    for part in PARTS:
        put(parties[1].store, part)
    [(what, _, why)] = run(parties, scenario)
    assert what == "not lent"
    assert "which we send sooner" in why
    kept = files(parties[2].store)
    assert 0 < len([name for name in kept if name in NAMED]) < len(PARTS)


def test_how_fast_we_sent_is_the_least_that_a_loan_must_be():
    """Of more than buffers hold; slower than a thin line is never asked for."""
    lenders = Lenders(None, list)
    least = lenders.least_bytes_per_s
    lenders.sent(SURE_BYTES - 1, 1e-3)
    lenders.sent(GIB, GIB)
    lenders.sent(GIB, 0.0)
    assert lenders.least_bytes_per_s == least
    lenders.sent(GIB, 2.0)
    assert lenders.least_bytes_per_s == GIB / 2


def test_a_little_is_sent_and_not_borrowed(parties):
    """Nobody is asked what it keeps."""

    async def scenario(friend, lender, taker):
        async with counting(taker.remote) as (counted, passed):
            lenders = Lenders(friend.identity, lambda: [lender.remote])
            weights = [Weight(memoryview(WEIGHT[: 64 * KIB]))]
            await lenders.fill(counted, weights, None)
            return passed["bytes"]

    put(parties[1].store, WEIGHT[: 64 * KIB])
    assert run(parties, scenario) == 0


@pytest.mark.parametrize("which", [1, 2], ids=["lender", "taker"])
def test_an_owner_who_needs_the_machine_is_not_asked(parties, which):
    """Nothing is told: it is as if it kept nothing."""
    for part in PARTS:
        put(parties[1].store, part)
    parties[which].owner.paused = True
    assert run(parties, fill) == []
    assert files(parties[2].store) == []


@pytest.mark.parametrize("which", [1, 2], ids=["lender", "taker"])
def test_an_owner_who_comes_back_in_mid_loan_stops_it(parties, monkeypatch, which):
    """Of many weights some came whole; they are kept."""
    reads, count = Reading.part, []

    def part(self):
        count.append(self)
        if len(count) == 4:
            parties[which].owner.paused = True
        return reads(self)

    monkeypatch.setattr(Reading, "part", part)
    for one in PARTS:
        put(parties[1].store, one)
    run(parties, fill)
    kept = [name for name in files(parties[2].store) if name in NAMED]
    assert 0 < len(kept) < len(PARTS)
    assert kept == files(parties[2].store)


@pytest.mark.usefixtures("hasty")
def test_an_owner_who_comes_back_in_mid_weight_stops_it_there(parties, monkeypatch):
    """However large it is."""
    reads, count = Reading.part, []

    def part(self):
        count.append(self)
        parties[1].owner.paused |= len(count) == 2
        return reads(self)

    async def scenario(friend, lender, taker):
        named = {sha256(WEIGHT).hex(): len(WEIGHT)}
        async with lent(friend, lender, taker, named):
            return await borrow(friend, taker, borrow_word(lender, blobs=listed(named)))

    monkeypatch.setattr(Reading, "part", part)
    put(parties[1].store, WEIGHT)
    assert run(parties, scenario)[-1]["reason"] == "unreachable"
    assert (files(parties[2].store), len(count)) == ([], 2)


def test_loans_have_bounds(parties, tmp_path):
    """So many for a peer; one node borrows for a peer at a time, and no more than it keeps."""

    async def scenario(friend, lender, taker):
        async with AsyncExitStack() as stack:
            for _ in range(LOANS_PER_PEER):
                await stack.enter_async_context(lent(friend, lender, taker))
            with pytest.raises(RefusedError) as one_more:
                await stack.enter_async_context(lent(friend, lender, taker))
        over, ended = asyncio.Event(), asyncio.Event()

        async def silent(link):
            await over.wait()
            link.abort()
            ended.set()

        friend.knows(taker.node)
        async with friend.listener(silent) as listener:
            at = str(PeerAddress(friend.identity.id, "127.0.0.1", listener.port))
            word = borrow_word(lender, certificate=shown(friend), **{"from": at})
            first, _ = await ask(friend.identity, taker.remote, word, HEAR_S)
            with pytest.raises(RefusedError) as second:
                await borrow(friend, taker, borrow_word(lender))
            first.abort()
            over.set()
            await ended.wait()
        taker.store.quota_bytes = 2 * PART_BYTES
        other = Node(tmp_path / "other")
        taker.node.knows(other, rights=("use",))
        with pytest.raises(RefusedError) as too_much:
            await borrow(other, taker, borrow_word(lender))
        return [caught.value.word for caught in (one_more, second, too_much)]

    assert run(parties, scenario) == ["busy", "busy", "size"]


@pytest.mark.usefixtures("hasty")
def test_a_node_gives_to_so_many_at_a_time(parties, tmp_path):
    """The rest of its link is its sessions'; who comes then is told, and what it keeps is told."""

    async def scenario(friend, lender, taker):
        links = []
        for number in range(FEEDS):
            other = Node(tmp_path / f"other-{number}")
            lender.node.knows(other, rights=("use",))
            word = {"do": "fetch", "blobs": listed(NAMED)}
            link, _ = await ask(other.identity, lender.remote, word, HEAR_S)
            links.append(link)  # and reads nothing
        async with lent(friend, lender, taker):
            with pytest.raises(RefusedError) as refused:
                await fetch(taker, lender.remote)
            said = await borrow(friend, taker, borrow_word(lender))
        told = await hear_manifest(friend.identity, lender.remote)
        for link in links:
            link.abort()
        return refused.value.word, said[-1]["reason"], told.keys() == NAMED.keys()

    for part in PARTS:
        put(parties[1].store, part)
    assert run(parties, scenario) == ("busy", "busy", True)


@pytest.mark.usefixtures("patient")
def test_three_nodes_borrow_from_one_in_turns(parties, tmp_path, monkeypatch):
    """It gives to two at a time: the third waits, and is lent all of it too."""
    reads, released, reading = Reading.part, threading.Event(), threading.Semaphore(0)

    def part(self):
        reading.release()
        released.wait(HEAR_S)
        return reads(self)

    async def scenario(friend, lender, takers):
        lenders = Lenders(friend.identity, lambda: [lender.remote])
        begun = [asyncio.create_task(fill(friend, lender, one, lenders)) for one in takers[:2]]
        for _ in begun:
            await asyncio.to_thread(reading.acquire, timeout=HEAR_S)
        third = asyncio.create_task(fill(friend, lender, takers[2], lenders))
        await asyncio.wait({third}, timeout=0.5)  # else it would be refused by now
        released.set()
        return await asyncio.gather(*begun, third)

    async def all_of_them():
        friend, lender, taker = parties
        takers = [taker, *more_parties(friend, tmp_path, "second", "third")]
        async with AsyncExitStack() as stack:
            for one in (lender, *takers):
                await stack.enter_async_context(keeping(one))
            told = await scenario(friend, lender, takers)
        return told, [files(one.store) for one in takers]

    for one in PARTS:
        put(parties[1].store, one)
    monkeypatch.setattr(Reading, "part", part)
    told, kept = asyncio.run(all_of_them())
    assert [[what for what, *_ in its] for its in told] == [["borrowed"]] * 3
    assert kept == [sorted(NAMED)] * 3


@pytest.mark.usefixtures("patient")
def test_where_one_lender_fails_the_next_is_asked(parties, tmp_path, monkeypatch):
    """What it has too comes from there."""
    monkeypatch.setattr(lending, "BEGIN_S", 5.0)  # the one that fails is waited for

    async def scenario(friend, lender, taker):
        [other] = more_parties(friend, tmp_path, "other")
        for part in PARTS:
            put(lender.store, part)
            path_of(lender.store, part).write_bytes(bytes(PART_BYTES))
            put(other.store, part)
        async with keeping(other):
            lenders = Lenders(friend.identity, lambda: [lender.remote, other.remote])
            return await fill(friend, lender, taker, lenders)

    assert [what for what, *_ in run(parties, scenario)] == ["not lent", "borrowed"]
    assert files(parties[2].store) == sorted(NAMED)


@pytest.mark.usefixtures("patient")
def test_a_busy_lender_is_asked_another_time(parties, tmp_path, monkeypatch):
    """It is told; what was refused for good, or lent, is not tried again."""
    monkeypatch.setattr(lending, "BEGIN_S", 5.0)  # the busy one is waited for

    async def scenario(friend, lender, taker):
        links = []
        for number in range(FEEDS):
            other = Node(tmp_path / f"other-{number}")
            lender.node.knows(other, rights=("use",))
            word = {"do": "fetch", "blobs": listed(NAMED)}
            links.append((await ask(other.identity, lender.remote, word, HEAR_S))[0])
        lenders = Lenders(friend.identity, lambda: [lender.remote])
        found = [await fill(friend, lender, taker, lenders)]
        for link in links:
            link.abort()
        while lender.agent._fed:  # noqa: ASYNC110 - nothing tells that their ends were noticed
            await asyncio.sleep(0)
        return [*found, *[await fill(friend, lender, taker, lenders) for _ in range(2)]]

    for part in PARTS:
        put(parties[1].store, part)
    told = run(parties, scenario)
    assert [[what for what, *_ in its] for its in told] == [["not lent"], ["borrowed"], []]


def test_a_node_that_does_not_say_in_time_what_it_keeps_is_told(parties, monkeypatch):
    """As an event, and it is asked the next time."""
    monkeypatch.setattr(borrowing, "MANIFESTS_S", 0.0)

    async def scenario(friend, lender, taker):
        lenders = Lenders(friend.identity, lambda: [lender.remote])
        late = await fill(friend, lender, taker, lenders)
        monkeypatch.setattr(borrowing, "MANIFESTS_S", 2 * HEAR_S)
        monkeypatch.setattr(borrowing, "PATIENCE_S", 2 * HEAR_S)
        return late, await fill(friend, lender, taker, lenders)

    for part in PARTS:
        put(parties[1].store, part)
    late, again = run(parties, scenario)
    assert [(what, who) for what, who, _ in late] == [("not lent", "taker"), ("not lent", "lender")]
    assert [what for what, *_ in again] == ["borrowed"]


def test_nothing_is_hashed_before_somebody_may_have_it(parties):
    """A part of a model has gigabytes; a thread at it takes the processor from answers."""

    async def scenario(friend, lender, taker):
        weights = [Weight(memoryview(part)) for part in PARTS]
        lenders = Lenders(friend.identity, lambda: [lender.remote])
        await lenders.fill(taker.remote, weights, None)
        return [weight._sha256 for weight in weights]

    put(parties[1].store, WEIGHT[: 64 * KIB])
    assert run(parties, scenario) == [None] * len(PARTS)


class Passing:
    """A link on which a node says how far it is, while the clock goes on by a second a word."""

    def __init__(self, monkeypatch, *counts):
        self.now_s, self.counts = 0.0, list(counts)
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.now_s)

    async def hear(self, _timeout_s):
        """Return the next word."""
        self.now_s += 1.0
        return {"ok": True, "bytes": self.counts.pop(0)}


@pytest.mark.parametrize("counts", [[GIB] * 20, [*range(0, 100 * GIB, GIB)][:10] + [9 * GIB] * 10])
def test_a_loan_that_stands_still_is_left_however_fast_it_was(parties, monkeypatch, counts):
    """Between any two words so far apart: what came before does not count again."""
    friend, _, taker = parties
    remote = Remote("taker", PeerAddress(taker.node.identity.id, "127.0.0.1", 1), b"")

    async def follow():
        link = Passing(monkeypatch, *counts)
        try:
            await Lenders(friend.identity, list)._follow(link, remote, 100 * GIB)
        except LinkError as error:
            return str(error), link.now_s

    why, now_s = asyncio.run(follow())
    assert "which we send sooner" in why
    assert now_s < len(counts)


def test_loans_end_soon_after_we_would_have_sent_it_all():
    """By what is known of our line; where nothing is, nobody waits for hours."""
    lenders = Lenders(None, list)
    assert lenders._limit_s(100 * GIB) == borrowing.UNKNOWN_S
    assert lenders._limit_s(PART_BYTES) == 2 * borrowing.PATIENCE_S + 1
    lenders.sent(GIB, 1.0)
    assert lenders._limit_s(100 * GIB) == 2 * borrowing.PATIENCE_S + 100


# What a peer may learn or do by it.


@pytest.mark.parametrize(
    ("host", "than", "found"),
    [
        ("127.0.0.1", "192.168.1.5", True),
        ("::1", "2001:db8::1", True),
        ("::ffff:127.0.0.1", "::ffff:10.0.0.2", True),
        ("0.0.0.0", "10.0.0.2", True),
        ("::", "10.0.0.2", True),
        ("169.254.169.254", "10.0.0.2", True),
        ("fe80::1%eth0", "10.0.0.2", True),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        ("127.0.0.1", "fe80::2%eth0", True),
        ("127.0.0.1", "::ffff:127.0.0.1", False),
        ("10.77.0.3", "127.0.0.1", False),
        ("10.77.0.3", "10.77.0.1", False),
    ],
)
def test_a_peer_has_nobody_connect_where_only_neighbours_reach(host, than, found):
    """Not to a machine's own services, nor to devices on its wire."""
    assert is_nearer(host, than) is found


def test_who_comes_from_afar_borrows_from_no_place_of_this_machine(parties, monkeypatch):
    """Its word is refused before anything is tried."""
    monkeypatch.setattr(Link, "host", "192.0.2.7")

    async def scenario(friend, lender, taker):
        with pytest.raises(RefusedError, match="that you can reach"):
            await borrow(friend, taker, borrow_word(lender))

    run(parties, scenario)


def test_failures_of_all_kinds_are_told_at_the_same_time(parties, monkeypatch):
    """Not before so long, however soon they are seen; and only so many a minute."""
    monkeypatch.setattr(lending, "BEGIN_S", 0.7)

    async def scenario(friend, lender, taker):
        loop = asyncio.get_running_loop()
        closed = str(PeerAddress(lender.node.identity.id, "127.0.0.1", 1))
        waits, reasons = [], []
        for _ in range(lending.BORROWS_A_MINUTE):
            begun_s = loop.time()
            said = await borrow(friend, taker, borrow_word(lender, **{"from": closed}))
            waits.append(loop.time() - begun_s)
            reasons.append(said[-1]["reason"])
        with pytest.raises(RefusedError) as refused:
            await borrow(friend, taker, borrow_word(lender))
        return waits, reasons, refused.value.word

    waits, reasons, word = run(parties, scenario)
    assert min(waits) >= lending.BEGIN_S
    assert set(reasons) == {"unreachable"}
    assert word == "busy"


def test_a_loan_ends_with_its_word_also_for_a_peer_that_may_not_use_the_node(parties, monkeypatch):
    """Its link stays, since it is admitted; what comes over it does not."""
    reads, count = Reading.part, []
    ended = threading.Event()

    async def scenario(friend, lender, taker):
        lender.node.knows(taker.node, rights=("serve",))
        loop = asyncio.get_running_loop()
        named = {sha256(WEIGHT).hex(): len(WEIGHT)}
        async with AsyncExitStack() as stack:
            loan = await stack.enter_async_context(lent(friend, lender, taker, named))

            async def end():
                loan.abort()
                while lender.agent.lending._loans:  # noqa: ASYNC110 - nothing tells when
                    await asyncio.sleep(0)
                ended.set()

            def part(self):
                count.append(self)
                if len(count) == 2:
                    asyncio.run_coroutine_threadsafe(end(), loop)
                    ended.wait(HEAR_S)
                return reads(self)

            monkeypatch.setattr(Reading, "part", part)
            with pytest.raises(LinkError, match="ended the link"):
                await fetch(taker, lender.remote, named)

    put(parties[1].store, WEIGHT)
    run(parties, scenario)
    assert len(count) == 2


def test_a_peer_that_was_removed_comes_in_on_nobodys_word(parties):
    """Neither before nor after its removal."""

    async def scenario(friend, lender, taker):
        lender.node.knows(taker.node, rights=("serve",))
        lender.node.peers.remove(taker.node.identity.id)
        word = {"do": "lend", "certificate": shown(taker.node), "blobs": listed(NAMED)}
        with pytest.raises(RefusedError, match="not let in"):
            await ask(friend.identity, lender.remote, word, HEAR_S)
        lender.node.knows(taker.node, rights=("serve",))
        async with lent(friend, lender, taker):
            lender.node.peers.remove(taker.node.identity.id)
            with pytest.raises(LinkError):
                await fetch(taker, lender.remote)

    for part in PARTS:
        put(parties[1].store, part)
    run(parties, scenario)
    assert files(parties[2].store) == []


# With the real engine.


@asynccontextmanager
async def serving_two(parties):
    """Let both nodes give sessions too."""
    program = need_program("ggml-rpc-server")
    settings = WorkerSettings(program, file_sha256(program), threads=1)
    async with (
        WorkerPool(settings) as first,
        WorkerPool(settings) as second,
        keeping(parties[1], first),
        keeping(parties[2], second),
    ):
        yield


@pytest.fixture
def patient(monkeypatch):
    """However busy this machine is, nodes are waited for."""
    monkeypatch.setattr(borrowing, "PATIENCE_S", 2 * HEAR_S)
    monkeypatch.setattr(lending, "BEGIN_S", HEAR_S)
    monkeypatch.setattr(watching, "SILENT_S", HEAR_S)


@pytest.mark.engine
@pytest.mark.usefixtures("patient")
def test_a_second_chain_is_sent_next_to_nothing_of_what_the_first_had(
    parties,
    small_model,
    tmp_path,
    patient,  # noqa: ARG001
):
    """Less than a hundredth of the weights goes over the link to the fresh node, and it answers."""
    friend, lender, taker = parties
    weights = Weights(small_model.path)
    events = []

    async def answer(remote, **settings):
        async with (
            counting(remote) as (counted, passed),
            standing_stages(
                friend.identity, [[counted]], Spares(), weights, needs=[Need(0)],
                tell=events.append, **settings,
            ) as (stage,),
        ):  # fmt: skip
            return await asyncio.to_thread(
                load_and_ask, stage.port, small_model.path, tmp_path, passed
            )

    async def scenario():
        async with serving_two(parties):
            first = await answer(lender.remote)
            tensors = read_header(small_model.path).tensors
            found = (weights.find(one.name, one.data_bytes) for one in tensors)
            loads = [[weight for weight in found if weight is not None]]
            return first, await answer(taker.remote, loads=loads, lenders=[lender.remote])

    (text, all_bytes), (again, loaded_bytes) = asyncio.run(scenario())
    assert text == again
    assert loaded_bytes < all_bytes / 100
    loans = [(one.what, one.who) for one in events if one.what in {"borrowed", "not lent"}]
    assert loans == [("borrowed", "taker")]


@pytest.mark.engine
@pytest.mark.usefixtures("patient")
def test_a_spare_learns_its_weights_from_the_node_that_it_may_replace(
    parties,
    small_model,
    tmp_path,
    patient,  # noqa: ARG001
):
    """The client sends it less than a hundredth, and it can take the other's place."""
    friend, lender, taker = parties
    events = []

    async def scenario():
        async with (
            serving_two(parties),
            counting(taker.remote) as (counted, passed),
            standing_stages(
                friend.identity, [[lender.remote]], Spares([Spare(counted, GIB)]),
                Weights(small_model.path), needs=[Need(GIB)], tell=events.append,
            ) as (stage,),
        ):  # fmt: skip
            await asyncio.to_thread(load_and_ask, stage.port, small_model.path, tmp_path, passed)
            await asyncio.gather(*(one for its in stage.spares.rehearsing.values() for one in its))
            return passed["bytes"]

    sent_bytes = asyncio.run(scenario())
    held_bytes = taker.store.held_bytes()
    assert held_bytes > 200e6
    assert sent_bytes < held_bytes / 100
    told = [(one.what, one.who) for one in events if one.who == "taker"]
    assert told[:2] == [("borrowed", "taker"), ("rehearsed", "taker")]


class Talk(SimpleNamespace):
    """What a stage uses of a conversation; each is itself alone, as they are kept in sets."""

    __hash__ = object.__hash__


@pytest.mark.parametrize(("computes", "found"), [(False, ["lender", "taker"]), (True, [])])
def test_who_joins_in_mid_answer_is_sent_its_weights(parties, monkeypatch, computes, found):
    """It borrows while llama-server loads; then an answer waits, and nobody for a loan."""
    filled = []

    async def fill(_self, taker, _weights, _tell):
        filled.append(taker.name)

    async def nobody(*_args, **_settings):
        raise LinkError("closed", "nobody is there")

    monkeypatch.setattr(Lenders, "fill", fill)
    monkeypatch.setattr(stage_module, "open_session", nobody)
    monkeypatch.setattr(Spares, "rehearse", lambda *_args: None)
    friend, lender, taker = parties
    for party in (lender, taker):
        address = PeerAddress(party.node.identity.id, "127.0.0.1", 1)
        party.remote = Remote(party.node.folder.name, address, party.node.identity.certificate)

    async def scenario():
        async with standing_stages(
            friend.identity, [[lender.remote]], Spares([Spare(taker.remote, GIB)]), None,
            needs=[Need(GIB)], tell=lambda _event: None,
        ) as (stage,):  # fmt: skip
            over = asyncio.Event()
            conversation = Talk(
                told=list, is_over=False, joining=set(), tried=set(), replicas=[], end=over.set
            )
            stage.opened(conversation)
            if computes:
                stage.computes(conversation)
            await over.wait()

    asyncio.run(scenario())
    assert filled == found


def test_the_weights_of_a_part_are_those_of_its_layers(small_model):
    """And of nothing else: embedding and output stay with the client."""
    weights = Weights(small_model.path)
    names = {
        id(weights.find(tensor.name, tensor.data_bytes)): tensor.name
        for tensor in read_header(small_model.path).tensors
    }

    def part(*layers):
        found = weights_of_part(small_model.path, weights, layers)
        return sorted(names[id(one)] for one in found)

    assert {name.split(".")[1] for name in part(3, 5)} == {"3", "4"}
    assert part(3, 3) == []
    assert len(part(3, 5)) == 2 * len(part(3, 4)) > 10
