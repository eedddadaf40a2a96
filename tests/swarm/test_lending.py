"""Weights from node to node: a client names them to both, and sends none; nobody else gains."""

import asyncio
import base64
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.digests import file_sha256
from shoestring.models.header import read_header
from shoestring.swarm import borrowing, feeding, lending
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.borrowing import Lenders, weights_of_part
from shoestring.swarm.feeding import fetch_blobs
from shoestring.swarm.lending import LOANS_PER_PEER, Lending
from shoestring.swarm.link import LinkError
from shoestring.swarm.manifest import PAGE_BLOBS, listed, named_blobs
from shoestring.swarm.node import FEEDS, Offer, Stock
from shoestring.swarm.node import Node as Agent
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


@pytest.fixture
def parties(tmp_path):
    """A client and two nodes that it may use, which do not know each other."""
    friend, made = Node(tmp_path / "friend"), []
    for name in ("lender", "taker"):
        node = Node(tmp_path / name)
        node.knows(friend, rights=("use",))
        store = Store(tmp_path / name / "weights", GIB, say=node.said.append)
        made.append(Party(node, store, SimpleNamespace(paused=False)))
    return friend, *made


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


async def fill(friend, lender, taker, lenders=None):
    """Have a node filled by what the other keeps; return what was told."""
    told = []
    lenders = lenders or Lenders(friend.identity, lambda: [taker.remote, lender.remote])
    weights = [Weight(memoryview(part)) for part in PARTS]
    await lenders.fill(taker.remote, weights, lambda *words: told.append(words))
    return told


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
    monkeypatch.setattr(borrowing, "PATIENCE_S", 0.5)
    monkeypatch.setattr(lending, "SAY_S", 0.0)
    reads = Reading.part

    async def scenario(friend, lender, taker):
        first = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(self):
            if self._store is lender.store and first.is_set():
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0.2), loop).result(HEAR_S)
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
    """Of much alone; slower than a thin line is never asked for."""
    lenders = Lenders(None, list)
    least = lenders.least_bytes_per_s
    lenders.sent(1_000, 1e-6)
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


def test_a_node_gives_to_so_many_at_a_time(parties, tmp_path):
    """The rest of its link is its sessions'; who comes then is told, and the client sends."""

    async def scenario(friend, lender, taker):
        links = []
        for number in range(FEEDS):
            other = Node(tmp_path / f"other-{number}")
            lender.node.knows(other, rights=("use",))
            link, _ = await ask(other.identity, lender.remote, {"do": "manifest"}, HEAR_S)
            links.append(link)  # and asks for no more
        async with lent(friend, lender, taker):
            with pytest.raises(RefusedError) as refused:
                await fetch(taker, lender.remote)
        for link in links:
            link.abort()
        return refused.value.word

    for number in range(PAGE_BLOBS + 1):
        put(parties[1].store, number.to_bytes(4, "little") * KIB)
    assert run(parties, scenario) == "busy"


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
    monkeypatch.setattr(borrowing, "MANIFESTS_S", 2 * HEAR_S)
    monkeypatch.setattr(borrowing, "PATIENCE_S", 2 * HEAR_S)


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
            loads = [weights_of_part(small_model.path, weights, (0, 99), has_output=True)]
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


def test_the_weights_of_a_part_are_those_of_its_layers(small_model):
    """The output counts as one more; without a tensor of its own it is the embeddings'."""
    weights = Weights(small_model.path)
    names = {
        id(weights.find(tensor.name, tensor.data_bytes)): tensor.name
        for tensor in read_header(small_model.path).tensors
    }

    def part(*layers, has_output=False):
        found = weights_of_part(small_model.path, weights, layers, has_output=has_output)
        return sorted(names[id(one)] for one in found)

    assert {name.split(".")[1] for name in part(3, 5)} == {"3", "4"}
    assert part(3, 3) == []
    assert part(3, 3, has_output=True) == ["token_embd.weight"]
    assert len(part(3, 5)) == 2 * len(part(3, 4)) > 10
