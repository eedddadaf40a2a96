"""Greeting peers: who answers is measured, who lies or dawdles is left out, who moved is found."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from shoestring.engines.launch import free_port
from shoestring.errors import BadValueError
from shoestring.swarm import chains
from shoestring.swarm.link import LinkError
from shoestring.swarm.market.looking import greet_sellers
from shoestring.swarm.market.measured import Measured
from shoestring.swarm.proof.receipts import VERSION
from shoestring.swarm.survey import PINGS, survey
from shoestring.swarm.words import WORD_BYTES
from tests.swarm.nodes import HEAR_S, Node

GIB = 1 << 30
TRUE = {
    "ok": True, "version": "0", "rpc": [7, 0], "receipts": VERSION, "engine_sha256": "a" * 64,
    "kind": "cpu", "title": "a processor", "generation": None, "bandwidth_bytes_per_s": 2e10,
    "compute_flops": None, "threads": 1, "memory_bytes": GIB, "free": 1, "waiting": 0,
}  # fmt: skip


@pytest.fixture
def owner(tmp_path):
    """Who is greeted."""
    return Node(tmp_path / "owner")


@pytest.fixture
def friend(tmp_path, owner):
    """Who greets."""
    made = Node(tmp_path / "friend")
    owner.knows(made, rights=("use",))
    return made


def answering(told, pings=None):
    """Return what answers a link: a greeting, and then the numbers that come, or others."""

    async def answer(link):
        await link.hear(HEAR_S)
        await link.say(told)
        for _ in range(PINGS):
            word = await link.hear(HEAR_S)
            await link.say(word if pings is None else pings(word))

    return answer


def ask(owner, friend, answer, *, places=None, **settings):
    """Greet an owner who answers so; return who was seen and who was not."""

    async def scenario():
        async with owner.listener(answer) as listener:
            here = f"127.0.0.1:{listener.port}"
            known = (here,) if places is None else places
            peer = replace(friend.record_of(owner, rights=("serve",)), addresses=known)

            async def look(ids):
                assert ids == (owner.identity.id,)
                return {owner.identity.id: (here,)}

            if settings.pop("looks", False):
                settings["look"] = look
            return by_name(await survey(friend.identity, [peer], **settings))

    return asyncio.run(scenario())


def by_name(found):
    """Return who was seen, and why others were not, by their names."""
    seen, failed = found
    return seen, {peer.name: error for peer, error in failed.items()}


def test_a_peer_that_answers_is_seen_as_it_describes_itself(owner, friend):
    """With a round trip that was measured, not told."""
    (one,), failed = ask(owner, friend, answering({**TRUE, "link_latency_s": 0.0}))
    assert (one.free, one.why_not, one.share, failed) == (1, None, None, {})
    assert (one.device.memory_bytes, one.device.title) == (GIB, "a processor")
    assert one.device.bandwidth_bytes_per_s == 2e10
    assert one.device.link_latency_s > 0


def test_a_peer_that_pauses_or_shares_says_so(owner, friend):
    """Why nothing begins there, and how much of a model it would hold."""
    told = {**TRUE, "free": 0, "why_not": "paused: the owner uses the machine", "share": 0.1}
    (one,), _ = ask(owner, friend, answering(told))
    assert (one.free, one.share) == (0, 0.1)
    assert one.why_not == "paused: the owner uses the machine"


@pytest.mark.parametrize("free", [True, -1, 1.0, "1", None, 10**18, [1]])
def test_sessions_that_cannot_be_are_none(owner, friend, free):
    """A liar gets no session by promising many."""
    (one,), _ = ask(owner, friend, answering({**TRUE, "free": free}))
    assert one.free == 0


@pytest.mark.parametrize("number", [-1, 0, 1e300, True, "fast", [1], {"a": 1}, 10**20])
def test_speeds_that_cannot_be_are_not_known(owner, friend, number):
    """The planner then takes what is common, not what is claimed."""
    told = {**TRUE, "bandwidth_bytes_per_s": number, "compute_flops": number, "share": number}
    (one,), _ = ask(owner, friend, answering(told))
    assert one.device.bandwidth_bytes_per_s is None
    assert one.device.compute_flops is None
    assert one.share is None or 0 < one.share <= 1


@pytest.mark.parametrize("size", [None, 0, -GIB, True, 1.5e9, "8GiB", 1 << 60])
def test_memory_that_cannot_be_is_refused(owner, friend, size):
    """A plan needs that number."""
    seen, failed = ask(owner, friend, answering({**TRUE, "memory_bytes": size}))
    assert (seen, list(failed)) == ([], ["a friend"])
    assert "how much memory" in str(failed["a friend"])


@pytest.mark.parametrize("name", ["title", "generation", "engine_sha256", "why_not"])
def test_words_of_a_peer_cannot_write_on_our_terminal(owner, friend, name):
    """Escapes and line ends go, and what is too long is cut."""
    (one,), _ = ask(owner, friend, answering({**TRUE, name: "\x1b[2Jgone\n" + "x" * 9_999}))
    shown = {
        "title": one.device.title,
        "generation": one.device.generation,
        "engine_sha256": one.engine_sha256,
        "why_not": one.why_not,
    }[name]
    assert shown.isprintable()
    assert len(shown) <= 200


@pytest.mark.parametrize(
    "pings",
    [
        lambda word: {"ping": word["ping"] + 1},
        lambda _: {"ping": None},
        lambda _: {"ping": True},
        lambda _: {},
    ],
)
def test_a_ping_that_was_not_sent_measures_nothing(owner, friend, pings):
    """Who answers early would look near."""
    seen, failed = ask(owner, friend, answering(TRUE, pings))
    assert not seen
    assert "was not asked" in str(failed["a friend"])


@pytest.mark.parametrize("size", [WORD_BYTES + 1, (1 << 32) - 1])
def test_a_huge_word_ends_the_greeting(owner, friend, size):
    """Nothing of it is kept."""

    async def answer(link):
        await link.hear(HEAR_S)

        class Flood(asyncio.Protocol):
            def connection_made(self, transport):
                transport.write(size.to_bytes(4, "little") + b"[" * 100)

        link.hand_over(Flood())
        await link.until_closed()

    seen, failed = ask(owner, friend, answer)
    assert not seen
    assert failed["a friend"].reason == "word"


def test_a_slow_peer_is_left_out_and_holds_nobody_up(owner, friend):
    """It takes the greeting, and says nothing."""

    async def answer(link):
        await link.hear(HEAR_S)
        await link.until_closed()

    seen, failed = ask(owner, friend, answer, greet_s=0.2)
    assert not seen
    assert failed["a friend"].reason == "timeout"
    assert "0.2 s" in str(failed["a friend"])


def test_a_peer_of_many_places_gets_no_more_time(owner, friend):
    """However many it names, one greeting is as long as any other's."""
    came = []

    async def scenario():
        async def answer(link):
            came.append(await link.hear(HEAR_S))
            await link.until_closed()

        async with owner.listener(answer) as listener:
            places = (f"127.0.0.1:{listener.port}",) * 8
            peer = replace(friend.record_of(owner, rights=("serve",)), addresses=places)
            return await survey(friend.identity, [peer], greet_s=1.0)

    seen, failed = by_name(asyncio.run(scenario()))
    assert (seen, failed["a friend"].reason, len(came)) == ([], "timeout", 1)


def test_a_peer_of_other_engines_is_left_out(owner, friend):
    """Its worker would not understand a frame."""
    seen, failed = ask(owner, friend, answering({**TRUE, "rpc": [6, 0]}))
    assert not seen
    assert "another RPC" in str(failed["a friend"])


@pytest.mark.parametrize("told", [VERSION - 1, None])
def test_a_peer_of_other_receipts_is_left_out(owner, friend, told):
    """Before it has a part of any plan: it would sign for nothing. An older one does not say."""
    seen, failed = ask(owner, friend, answering({**TRUE, "receipts": told}))
    assert not seen
    assert "receipts of another version" in str(failed["a friend"])


def test_who_cannot_be_greeted_is_on_no_board_for_that_reason(owner, friend, tmp_path):
    """A peer of other receipts did answer: it is not called silent."""
    peers = friend.record_of(owner, rights=("serve",)), friend.record_of(friend, rights=("use",))

    async def scenario():
        async with owner.listener(answering({**TRUE, "receipts": None})) as listener:
            here = replace(peers[0], addresses=(f"127.0.0.1:{listener.port}",))
            measured = Measured(tmp_path / "measured.json")
            return await greet_sellers(friend.identity, [here, peers[1]], measured, None, None)

    greeted = asyncio.run(scenario())
    assert (greeted.free, greeted.predicted) == ({}, {})
    assert list(greeted.why_not) == [owner.identity.id]
    assert "receipts of another version" in greeted.why_not[owner.identity.id]


def test_a_peer_that_refuses_is_left_out_with_its_reason(owner, friend):
    """Made fit for a line."""
    refusal = {"ok": False, "reason": "rights", "message": "ask\x07 its owner"}
    seen, failed = ask(owner, friend, answering(refusal))
    assert not seen
    assert str(failed["a friend"]) == "ask its owner"


def test_a_node_that_was_removed_is_told_what_to_do(owner, friend):
    """The other side says nothing to it any more."""
    owner.peers.remove(friend.identity.id)
    seen, failed = ask(owner, friend, answering(TRUE))
    assert not seen
    assert failed["a friend"].reason == "refused"
    assert "ask for a new invitation" in str(failed["a friend"])


def test_a_peer_that_only_uses_us_is_not_asked(owner, friend):
    """It offers nothing."""

    async def scenario():
        return await survey(friend.identity, [friend.record_of(owner, rights=("use",))])

    assert asyncio.run(scenario()) == ([], {})
    assert owner.links == []


def test_a_peer_that_moved_is_found_by_its_key(owner, friend):
    """At the place that somebody named, after the one that was known."""
    gone = f"127.0.0.1:{free_port()}"
    (one,), failed = ask(owner, friend, answering(TRUE), places=(gone,), looks=True)
    assert not failed
    assert one.remote.address.place != gone
    assert one.remote.address.id == owner.identity.id


def test_a_peer_without_an_address_is_found_too(owner, friend):
    """One that had none when it joined."""
    (one,), failed = ask(owner, friend, answering(TRUE), places=(), looks=True)
    assert (one.free, failed) == (1, {})


def test_a_peer_without_an_address_is_told_of(owner, friend):
    """Where nobody looks for it."""
    seen, failed = ask(owner, friend, answering(TRUE), places=())
    assert not seen
    assert isinstance(failed["a friend"], BadValueError)


def test_a_liar_about_a_place_gains_nothing(owner, friend, tmp_path):
    """Another key answers there: nothing is said to it, and the first trouble is told."""
    liar = Node(tmp_path / "liar")
    liar.knows(friend)
    gone = f"127.0.0.1:{free_port()}"

    async def scenario():
        async with liar.listener() as listener:

            async def look(_):
                return {owner.identity.id: (f"127.0.0.1:{listener.port}",)}

            peer = replace(friend.record_of(owner, rights=("serve",)), addresses=(gone,))
            return await survey(friend.identity, [peer], look=look)

    seen, failed = by_name(asyncio.run(scenario()))
    assert (seen, liar.links) == ([], [])
    assert gone in str(failed["a friend"])
    assert isinstance(failed["a friend"], LinkError)


def test_who_answers_is_not_looked_for(owner, friend):
    """No multicast for nothing."""

    async def scenario():
        async with owner.listener(answering(TRUE)) as listener:

            async def look(ids):
                raise AssertionError(ids)

            peer = replace(
                friend.record_of(owner, rights=("serve",)),
                addresses=(f"127.0.0.1:{listener.port}",),
            )
            return await survey(friend.identity, [peer], look=look, soon_s=HEAR_S)

    (one,), failed = asyncio.run(scenario())
    assert (one.free, failed) == (1, {})


def test_a_peer_that_answers_late_at_home_is_taken_all_the_same(owner, friend):
    """Looking elsewhere costs it nothing."""
    looked = asyncio.Event()

    async def answer(link):
        await link.hear(HEAR_S)
        await looked.wait()
        await link.say(TRUE)
        for _ in range(PINGS):
            await link.say(await link.hear(HEAR_S))

    async def scenario():
        async with owner.listener(answer) as listener:

            async def look(ids):
                looked.set()
                return dict.fromkeys(ids, ())

            peer = replace(
                friend.record_of(owner, rights=("serve",)),
                addresses=(f"127.0.0.1:{listener.port}",),
            )
            return await survey(friend.identity, [peer], look=look, soon_s=0.0)

    (one,), failed = asyncio.run(scenario())
    assert (one.free, failed) == (1, {})


@pytest.mark.parametrize(
    ("why_not", "words", "waits"),
    [("its owner pauses it", "its owner pauses it", False), (None, "serves all that it can", True)],
)
def test_a_plan_says_why_a_peer_has_no_part_and_waits_for_the_busy_alone(
    tmp_path, monkeypatch, why_not, words, waits
):
    """After a loss: a peer's last session may be ending; an owner's pause is not waited for."""
    peer = SimpleNamespace(remote=SimpleNamespace(name="otto"), free=0, why_not=why_not)
    greeted, said = [], []

    async def greet(*_args, **_settings):
        greeted.append(len(greeted))
        return [peer], {}

    monkeypatch.setattr(chains, "survey", greet)
    monkeypatch.setattr(chains, "AGAIN_S", 0.0)
    monkeypatch.setattr(chains, "FREE_S", 0.1)
    monkeypatch.setattr(chains, "usable_devices", lambda *_: ((), {}))
    record = SimpleNamespace(active=list)
    home = SimpleNamespace(identity=lambda: None, peers=lambda _say: record, folder=tmp_path)
    wanted = chains.Wanted("shape:tipo-100m:q4_k_m", 512, 1, None, 0, None)
    planned = chains.Chains(wanted, home, None, tell=None, planned=None, say=said.append)
    said.clear()  # what it said of this machine

    assert asyncio.run(planned._survey(patiently=True)) == []
    assert (len(greeted) > 1) == waits
    (line,) = said
    assert line.startswith("otto: ")
    assert words in line
