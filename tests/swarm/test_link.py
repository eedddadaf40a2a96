"""Links: admitted keys talk; whoever else comes, in whatever way, reaches nobody."""

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
import subprocess

import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError, MissingError
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.certificates import certificate_text, make_certificate, peer_id_of
from shoestring.swarm.door import Attempts, Bounds, Door, neighbourhood
from shoestring.swarm.identity import _pem
from shoestring.swarm.link import ALPN, LinkError, connect
from shoestring.swarm.peers import Peer
from shoestring.swarm.private_files import changing, write_records
from shoestring.swarm.words import WORD_BYTES, pack_word
from tests.swarm.nodes import (
    HEAR_S,
    Collector,
    Echo,
    Node,
    answer_to,
    hostile_context,
    talking,
)
from tests.swarm.test_identity import named

HELLO = pack_word({"do": "hello"})
LOOPS = {"asyncio": None, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def node(tmp_path):
    """The node that listens."""
    return Node(tmp_path / "node")


@pytest.fixture
def friend(tmp_path, node):
    """A node that the listener has admitted."""
    friend = Node(tmp_path / "friend")
    node.knows(friend)
    return friend


@pytest.fixture
def stranger(tmp_path):
    """A node that it has not."""
    return Node(tmp_path / "stranger")


@pytest.fixture(params=LOOPS)
def run(request):
    """Run a coroutine on either loop."""

    def run(work):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(work)

    return run


async def until(true):
    """Wait for what other tasks do; the test's own time-out ends a wait in vain."""
    while not true():  # noqa: ASYNC110 - the listener tells nobody
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("host", "listens"), [("127.0.0.1", "::"), ("::1", "::1"), ("::1", "::")])
def test_friends_talk_by_words_and_then_by_bytes(run, node, friend, host, listens):
    """Over IPv4 and IPv6; what comes after the word, even with it, is the protocol's."""
    if listens == "::" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")

    async def work():
        async with node.listener(host=listens) as listener:
            link = await friend.link_to(node, listener.port, host)
            await link.say({"do": "hello", "n": 1})
            heard = await link.hear(HEAR_S)
            collector = Collector()
            transport = link.hand_over(collector)
            transport.write(b"x" * 300_000)
            assert await collector.has(300_000) == b"x" * 300_000
            link.close()
            assert await collector.ended is None
            return link.peer_id, heard

    peer_id, heard = run(work())
    assert peer_id == node.identity.id
    assert heard == {"ok": True, "heard": {"do": "hello", "n": 1}, "purposes": []}
    assert node.links == [friend.identity.id]


def test_bytes_that_came_with_the_word_are_fed_first(run, node, friend):
    """In order, though they were more than is held before a word is heard."""
    more = bytes(range(256)) * 4_096

    async def work():
        async with node.listener() as listener:
            link = await friend.link_to(node, listener.port)
            link._open().write(HELLO + more)
            assert (await link.hear(HEAR_S))["ok"]
            collector = Collector()
            link.hand_over(collector)
            assert await collector.has(len(more)) == more
            link.abort()
            await collector.ended

    run(work())


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(1, 400), max_size=5), word=st.dictionaries(
    st.text("abc", max_size=3), st.text("xyz", max_size=100), max_size=5))  # fmt: skip
def test_a_word_in_any_pieces_is_one_word(tmp_path_factory, cuts, word):
    """Wherever TLS records end."""
    node = Node(tmp_path_factory.mktemp("node"))
    friend = Node(tmp_path_factory.mktemp("friend"))
    node.knows(friend)

    async def work():
        async with node.listener() as listener:
            link = await friend.link_to(node, listener.port)
            rest = pack_word(word)
            for cut in cuts:
                link._open().write(rest[:cut])
                rest = rest[cut:]
                await asyncio.sleep(0)
            link._open().write(rest)
            heard = await link.hear(HEAR_S)
            link.abort()
            return heard["heard"]

    assert asyncio.run(work()) == word


def test_a_key_that_was_not_admitted_reaches_nobody(run, node, friend, stranger):
    """OpenSSL ends its handshake; friends are heard before and after."""

    async def work():
        async with node.listener() as listener:
            assert await friend.is_heard_by(node, listener.port)
            assert not await stranger.is_heard_by(node, listener.port)
            assert await friend.is_heard_by(node, listener.port)
            return listener.refused

    refused = run(work())
    assert node.links == [friend.identity.id] * 2
    assert refused["handshake"] == 1


def test_another_key_at_a_peers_place_is_told_nothing(run, node, friend, stranger):
    """Not even who we are: our certificate is shown to the pinned key alone."""
    stranger.knows(friend)

    async def work():
        async with stranger.listener() as trap:
            with pytest.raises(LinkError) as said:
                await friend.link_to(node, trap.port)
            await until(trap.refused.total)
            return said.value, dict(trap.refused)

    error, refused = run(work())
    assert error.reason == "key"
    assert node.identity.id in str(error)
    assert refused == {"handshake": 1}  # in the handshake: ours ended it
    assert stranger.links == []


def test_a_link_by_another_peers_certificate_is_our_own_mistake(node, friend, stranger):
    """Nothing is connected."""
    with pytest.raises(BadValueError, match="certificate that was given"):
        asyncio.run(
            connect(
                friend.identity,
                PeerAddress(node.identity.id, "127.0.0.1", 9),
                certificate=stranger.identity.certificate,
            )
        )


def test_nobody_there_and_no_answer_are_told_apart(node, friend):
    """By the error's reason."""

    async def work():
        reasons = []
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            address = PeerAddress(node.identity.id, "127.0.0.1", port)
            certificate = node.identity.certificate
            with pytest.raises(LinkError) as said:
                await connect(friend.identity, address, certificate=certificate, timeout_s=0.2)
            reasons.append(said.value.reason)
        with pytest.raises(LinkError) as said:
            await connect(friend.identity, address, certificate=certificate)
        return [*reasons, said.value.reason]

    assert asyncio.run(work()) == ["timeout", "unreachable"]


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x0e" + (24).to_bytes(8, "little") + bytes(24), HELLO,
     bytes(5_000), b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000],
    ids=["HTTP", "RPC", "word", "zeros", "great record"],
)  # fmt: skip
def test_what_is_no_tls_reaches_nobody(run, node, friend, said):
    """It is ended, with a TLS alert at most."""

    async def work():
        async with node.listener() as listener:
            answer = await answer_to(listener.port, None, said)
            assert await friend.is_heard_by(node, listener.port)
            return answer

    assert len(run(work())) <= 7
    assert node.links == [friend.identity.id]


@pytest.mark.parametrize(
    "how",
    [
        {"tls": ssl.TLSVersion.TLSv1_2},
        {"alpn": ()},
        {"alpn": ("h2",)},
        {"alpn": ("shoestring-swarm/2", "http/1.1")},
    ],
    ids=["TLS 1.2", "no ALPN", "h2", "next version"],
)
def test_an_admitted_key_that_does_not_speak_as_we_do_reaches_nobody(run, node, friend, how):
    """The same with our own settings is heard."""

    async def work():
        async with node.listener() as listener:
            answer = await answer_to(listener.port, hostile_context(friend.identity, **how), HELLO)
            assert await friend.is_heard_by(node, listener.port)
            return answer

    assert run(work()) == b""
    assert node.links == [friend.identity.id]


def test_a_server_that_does_not_speak_as_we_do_is_told_nothing(node, friend):
    """Though it has the right key: the link is ended before a word."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    node.identity.show_in(context)

    async def work():
        got, done = asyncio.get_running_loop().create_future(), asyncio.Event()

        async def serve(reader, writer):
            with contextlib.suppress(ConnectionError):
                got.set_result(await reader.read())
            writer.transport.abort()
            done.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        async with server:
            with pytest.raises(LinkError, match="does not speak"):
                await friend.link_to(node, server.sockets[0].getsockname()[1])
            await done.wait()
            assert not got.done() or got.result() == b""

    asyncio.run(work())


def test_certificates_that_only_resemble_an_admitted_one_reach_nobody(
    run, node, friend, stranger, tmp_path
):
    """Of the right key with another subject; of the right subject; signed by an admitted key."""
    key, its = friend.identity._key, stranger.identity._key
    authority = named(key, friend.identity.id)
    attacks = {
        "right key, other subject": (key, [named(key, "somebody")]),
        "right key, an authority's": (key, [authority]),
        "other key, right subject": (its, [named(its, friend.identity.id)]),
        "signed by an admitted key": (
            its,
            [
                named(its, stranger.identity.id, issuer=friend.identity.id, signer=key),
                friend.identity.certificate,
            ],
        ),
        "the admitted certificate behind ours": (
            its, [stranger.identity.certificate, friend.identity.certificate]
        ),
    }  # fmt: skip

    async def work():
        answers = {}
        async with node.listener() as listener:
            for name, (private, chain) in attacks.items():
                files = pem_files(tmp_path, private, chain)
                context = hostile_context(chain=files)
                answers[name] = await answer_to(listener.port, context, HELLO)
        return answers

    assert set(run(work()).values()) == {b""}
    assert node.links == []


def pem_files(folder, key, chain):
    """Write what OpenSSL wants of a certificate chain and its key."""
    (folder / "key.pem").write_bytes(_pem(key))
    (folder / "chain.pem").write_text("".join(map(ssl.DER_cert_to_PEM_cert, chain)))
    return folder / "chain.pem", folder / "key.pem"


class Recorder:
    """Relays a connection, and keeps what the client sent."""

    def __init__(self, port):
        """Relay to a port of loopback."""
        self._port = port
        self.sent = bytearray()

    async def __call__(self, reader, writer):
        """Relay one connection."""
        async with talking(self._port) as (its_reader, its_writer):
            await asyncio.gather(
                self._pass(reader, its_writer, self.sent), self._pass(its_reader, writer, None)
            )
        writer.transport.abort()

    async def _pass(self, reader, writer, kept):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if kept is not None:
                    kept += data
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


def test_a_recorded_handshake_opens_nothing(node, friend):
    """Its first flight alone, or all that the client ever sent."""

    async def work():
        async with node.listener() as listener:
            recorder = Recorder(listener.port)
            async with await asyncio.start_server(recorder, "127.0.0.1", 0) as relay:
                assert await friend.is_heard_by(node, relay.sockets[0].getsockname()[1])
            assert node.links == [friend.identity.id]
            first_flight = 5 + int.from_bytes(recorder.sent[3:5], "big")
            assert recorder.sent[0] == 22
            assert len(recorder.sent) > first_flight
            for replayed in (recorder.sent[:first_flight], recorder.sent):
                before = listener.refused.total()
                async with talking(listener.port) as (reader, writer):
                    writer.write(replayed)
                    if replayed is not recorder.sent:
                        assert await reader.read(1)  # it is answered, with other random bytes
                    writer.write_eof()
                    await until(lambda before=before: listener.refused.total() > before)

    asyncio.run(work())
    assert node.links == [friend.identity.id]


def test_slow_strangers_end_and_keep_nobody_waiting(run, node, friend):
    """That say nothing, or one byte at a time; each is ended by the listener."""

    async def silent(port):
        return await answer_to(port, None)

    async def slow(port):
        async with talking(port) as (_, writer):
            with contextlib.suppress(ConnectionError):
                for byte in b"\x16\x03\x01\x01\x00\x01" + bytes(10_000):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.02)
                    if writer.is_closing():  # uvloop's transport does not bear a write then
                        return
                pytest.fail("a handshake of one byte a time was waited for")

    async def work():
        async with node.listener(bounds=Bounds(handshake_s=5.0)) as listener:
            strangers = [asyncio.create_task(way(listener.port)) for way in (silent, slow) * 5]
            assert await friend.is_heard_by(node, listener.port)
            await asyncio.gather(*strangers)
            return listener.refused["handshake"]

    assert run(work()) == 10
    assert node.links == [friend.identity.id]


def test_a_friend_that_says_nothing_is_ended(run, node, friend):
    """Before anybody hears of it; half a word is nothing."""

    async def work():
        async with node.listener(bounds=Bounds(first_word_s=0.2)) as listener:
            for said in (b"", HELLO[:-1]):
                link = await friend.link_to(node, listener.port)
                link._open().write(said)
                with pytest.raises(LinkError) as error:
                    await link.hear(HEAR_S)
                assert error.value.reason == "closed"
            return listener.refused["timeout"]

    assert run(work()) == 2
    assert node.links == []


def test_a_thousand_half_open_connections_keep_no_friend_out(run, node, friend):
    """They push each other out, from the friend's own address, too; and no open link."""
    ended = []

    async def on_link(link):
        await node.echo(link)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(link)

    async def work():
        async with node.listener(on_link, bounds=Bounds(handshake_s=600.0)) as listener:
            link = await friend.link_to(node, listener.port)
            await link.say({"do": "hello"})
            await link.hear(HEAR_S)
            echoed = Collector()
            transport = link.hand_over(echoed)
            with contextlib.ExitStack() as opened:
                await asyncio.to_thread(half_open, listener.port, opened)
                heard = [await friend.is_heard_by(node, listener.port) for _ in range(3)]
                transport.write(b"abc")
                await echoed.has(3)
                link.abort()
                assert ended == []
                return heard, len(listener._door)

    def half_open(port, opened):
        for _ in range(1_000):
            half = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            half.send(b"\x16\x03\x01")

    heard, standing = run(work())
    assert heard == [True] * 3
    assert standing <= Bounds().at_the_door_per_address


def test_the_most_crowded_address_gives_way():
    """An address with one connection stays, whatever comes from others."""

    class Task:
        def __init__(self):
            self.gone = False

        def cancel(self):
            self.gone = True

    door = Door(in_all=10, per_address=4)
    lonely, crowd, last = Task(), [Task() for _ in range(6)], [Task() for _ in range(8)]
    door.enter(lonely, "a")
    for task in crowd:
        door.enter(task, "b")
    assert [task.gone for task in crowd] == [True] * 2 + [False] * 4
    for number, task in enumerate(last):
        door.enter(task, f"c{number}")
    assert not lonely.gone
    assert [task.gone for task in crowd] == [True] * 5 + [False]
    assert not any(task.gone for task in last)
    door.leave(lonely)
    assert len(door) == 9


def test_attempts_are_counted_over_a_minute():
    """By address and in all; refused ones do not prolong it."""
    now = [0.0]
    attempts = Attempts(in_all=3, per_address=2, now=lambda: now[0])

    assert [attempts.allow("a") for _ in range(3)] == [True, True, False]
    assert [attempts.allow(address) for address in "bcd"] == [True, False, False]
    now[0] = 59.0
    assert not attempts.allow("c")
    now[0] = 60.0
    assert attempts.allow("c")


def test_addresses_of_one_customer_are_one():
    """An IPv4 address, also as IPv6 writes it; a /64."""
    assert neighbourhood("10.0.0.1") == neighbourhood("::ffff:10.0.0.1") == "10.0.0.1"
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::ffff:1")
    assert neighbourhood("2001:db8::1") != neighbourhood("2001:db8:0:1::1")
    assert neighbourhood("fe80::1%eth0") == neighbourhood("fe80::2")


@pytest.mark.parametrize("by", ["this process", "another process", "its expiry"])
def test_a_removed_peers_open_link_ends_and_it_cannot_come_back(run, node, friend, by):
    """Though another protocol has the bytes."""

    async def work():
        async with node.listener(bounds=Bounds(recheck_s=0.02)) as listener:
            link = await friend.link_to(node, listener.port)
            await link.say({"do": "hello"})
            await link.hear(HEAR_S)
            collector = Collector()
            link.hand_over(collector).write(b"abc")
            await collector.has(3)
            if by == "this process":
                node.peers.remove("a friend")
            elif by == "another process":
                Node(node.folder).peers.remove("a friend")
            else:
                record = node.record_of(friend)
                node.peers.admit(Peer(**{**vars(record), "expires_s": node.now_s + 1}))
                node.now_s += 1
            await collector.ended
            assert not await friend.is_heard_by(node, listener.port)

    run(work())
    assert node.links == [friend.identity.id]


def test_the_links_of_a_peer_are_ended_by_name_and_of_nobody_else(run, node, friend, stranger):
    """At once, whatever their state, and counted."""
    node.knows(stranger)

    async def work():
        async with node.listener() as listener:
            links = []
            for who in (friend, friend, stranger):
                link = await who.link_to(node, listener.port)
                await link.say({"do": "hello"})
                await link.hear(HEAR_S)
                links.append(link)
            assert listener.end_links_of(friend.identity.id) == 2
            for link in links[:2]:
                with pytest.raises(LinkError):
                    await link.hear(HEAR_S)
            kept = Collector()
            links[2].hand_over(kept).write(b"abc")
            await kept.has(3)
            assert listener.end_links_of(friend.identity.id) == 0
            links[2].abort()
            await kept.ended

    run(work())


def test_a_link_whose_peer_was_removed_during_its_handshake_is_not_served(node, friend):
    """The live list is asked after OpenSSL let it through."""

    async def work():
        async with node.listener(bounds=Bounds(recheck_s=600.0)) as listener:
            context = listener._current_context()
            node.peers.remove("a friend")
            listener._current_context = lambda: context  # as it was when the handshake began
            assert not await friend.is_heard_by(node, listener.port)
            return listener.refused

    assert asyncio.run(work()) == {"not admitted": 1}
    assert node.links == []


def test_there_is_nothing_to_resume(node, friend):
    """No ticket comes, and a session of an earlier link saves no handshake."""

    def talk(port, context, session):
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            context.wrap_socket(raw, session=session) as tls,
        ):
            tls.sendall(HELLO)
            return tls.recv(4), tls.session, tls.session_reused

    async def work():
        context = hostile_context(friend.identity)
        async with node.listener() as listener:
            heard, session, _ = await asyncio.to_thread(talk, listener.port, context, None)
            assert heard
            assert not session.has_ticket
            heard, _, reused = await asyncio.to_thread(talk, listener.port, context, session)
            assert heard
            assert not reused
            node.peers.remove("a friend")
            with contextlib.suppress(OSError):  # an alert, or a reset, as the wire has it
                assert (await asyncio.to_thread(talk, listener.port, context, session))[0] == b""

    asyncio.run(work())
    assert node.links == [friend.identity.id] * 2


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_what_openssl_sees_of_a_listener(node, friend, stranger):
    """TLS 1.3 alone, ed25519, our ALPN, no ticket, and no name of an admitted peer."""
    node.knows(stranger)

    def ask(port, *options):
        asked = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options],
            input=b"", capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        return (asked.stdout + asked.stderr).decode(errors="replace")

    async def work():
        async with node.listener(invitations=node.invitations) as listener:
            port = listener.port
            return [
                await asyncio.to_thread(ask, port, *options)
                for options in (("-alpn", ALPN), ("-tls1_2",), ("-tls1_1",))
            ]

    seen, *older = asyncio.run(work())
    assert "TLSv1.3" in seen
    assert f"ALPN protocol: {ALPN}" in seen
    assert "No client certificate CA names sent" in seen
    assert "New Session Ticket" not in seen
    assert friend.identity.id not in seen
    assert all("Cipher is (NONE)" in one for one in older)
    assert node.links == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ((WORD_BYTES + 1).to_bytes(4, "little"), "65537 bytes"),
        (b"\xff\xff\xff\xff" + bytes(100_000), "bytes"),
        ((2).to_bytes(4, "little") + b"[]", "no object"),
        ((5).to_bytes(4, "little") + b"hello", "no JSON"),
        ((60_000).to_bytes(4, "little") + b"[" * 60_000, "deeper"),
    ],
    ids=["too long", "far too long", "list", "text", "deep"],
)
def test_what_is_no_word_ends_the_link(run, node, friend, said, why):
    """With a reason that repeats nothing of it, and no other link suffers."""
    heard = []

    async def on_link(link):
        try:
            await link.hear(HEAR_S)
        except LinkError as error:
            heard.append(str(error))
            raise

    async def work():
        async with node.listener(on_link) as listener:
            link = await friend.link_to(node, listener.port)
            link._open().write(said)
            with pytest.raises(LinkError):
                await link.hear(HEAR_S)
            await until(lambda: listener.refused["word"] == 1)

    run(work())
    assert all(why in one for one in heard)


def test_a_client_that_hears_no_word_says_why(node, friend):
    """A node of another version, say."""

    async def on_link(link):
        link._open().write(b"\xff\xff\xff\xff")
        await asyncio.Event().wait()

    async def work():
        async with node.listener(on_link) as listener:
            link = await friend.link_to(node, listener.port)
            await link.say({"do": "hello"})
            with pytest.raises(LinkError, match="4294967295 bytes") as error:
                await link.hear(HEAR_S)
            assert error.value.reason == "word"
            with pytest.raises(LinkError, match="has ended"):
                await link.say({})

    asyncio.run(work())


def test_who_does_not_hear_is_not_spoken_to_for_ever(run, node, friend, monkeypatch):
    """What nobody hears is left on the wire; who says more than fits there gets an error."""
    monkeypatch.setattr("shoestring.swarm.link.SAY_S", 0.2)

    ended = []

    async def on_link(link):
        try:
            while True:
                await link.say({"more": "x" * 60_000})
        except LinkError as error:
            ended.append((error.reason, link.is_closed))

    async def work():
        async with node.listener(on_link) as listener:
            link = await friend.link_to(node, listener.port)
            await link.say({"do": "hello"})
            await until(lambda: ended)
            held = len(link._held)
            link.abort()
            return held

    assert run(work()) < 10 * WORD_BYTES
    assert ended == [("timeout", True)]


def test_a_guest_comes_for_its_purposes_only_and_while_they_last(run, node, stranger, friend):
    """A key that no file has: its links say what for; a friend's say nothing of the sort."""

    async def purposes(who, listener):
        link = await who.link_to(node, listener.port)
        await link.say({"do": "push"})
        heard = (await link.hear(HEAR_S))["purposes"]
        collector = Collector()
        link.hand_over(collector)
        return heard, collector

    async def work():
        async with node.listener(bounds=Bounds(recheck_s=600.0)) as listener:
            certificate = stranger.identity.certificate
            for purpose in ("push 1", "push 2"):
                peer_id = listener.admit_for(certificate, purpose, node.now_s + 60)
            assert peer_id == stranger.identity.id
            heard, collector = await purposes(stranger, listener)
            assert heard == ["push 1", "push 2"]
            assert (await purposes(friend, listener))[0] == []
            listener.end_admission(peer_id, "push 1")
            assert not collector.ended.done()
            later, its = await purposes(stranger, listener)
            assert later == ["push 2"]
            node.now_s += 60
            listener.recheck()
            await asyncio.gather(collector.ended, its.ended)
            assert not await stranger.is_heard_by(node, listener.port)
            listener.end_admission(peer_id, "push 2")

    run(work())
    assert node.peers.find(stranger.identity.id) is None


def test_a_guest_of_which_the_purpose_ended_is_out(run, node, stranger):
    """At once."""

    async def work():
        async with node.listener() as listener:
            peer_id = listener.admit_for(stranger.identity.certificate, "push", node.now_s + 60)
            link = await stranger.link_to(node, listener.port)
            await link.say({"do": "push"})
            await link.hear(HEAR_S)
            listener.end_admission(peer_id, "push")
            with pytest.raises(LinkError):
                await link.hear(HEAR_S)
            with pytest.raises(BadValueError):
                listener.admit_for(b"no certificate", "push", node.now_s + 60)

    run(work())


def test_a_peer_has_a_bounded_number_of_links(run, node, friend):
    """One more is refused; when one ends there is room again."""

    async def opened(listener):
        link = await friend.link_to(node, listener.port)
        await link.say({"do": "hello"})
        await link.hear(HEAR_S)
        return link

    async def work():
        async with node.listener(bounds=Bounds(links_per_peer=2)) as listener:
            links = [await opened(listener) for _ in range(2)]
            assert not await friend.is_heard_by(node, listener.port)
            assert listener.refused == {"too many links": 1}
            links.pop().abort()
            await until(lambda: len(listener._open_links()) == 1)
            links.append(await opened(listener))
            for link in links:
                link.abort()

    run(work())


def test_an_error_of_one_link_is_said_and_ends_no_other(run, node, friend):
    """Nor the listener."""

    async def on_link(link):
        if (await link.hear(HEAR_S))["do"] == "break":
            raise ValueError("broken")
        await link.say({"ok": True})

    async def work():
        async with node.listener(on_link) as listener:
            link = await friend.link_to(node, listener.port)
            await link.say({"do": "break"})
            with pytest.raises(LinkError):
                await link.hear(HEAR_S)
            assert await friend.is_heard_by(node, listener.port)

    run(work())
    assert node.said == [f"a link of {friend.identity.id} ended: ValueError: broken"]


def test_a_link_that_was_not_handed_over_is_closed_when_nobody_uses_it(run, node, friend):
    """What was said last is still heard."""

    async def on_link(link):
        await link.hear(HEAR_S)
        await link.say({"ok": False, "why": "x" * 60_000})

    async def work():
        async with node.listener(on_link) as listener:
            link = await friend.link_to(node, listener.port)
            await link.say({"do": "hello"})
            assert (await link.hear(HEAR_S))["ok"] is False
            with pytest.raises(LinkError, match="has ended"):
                await link.hear(HEAR_S)
            with pytest.raises(LinkError, match="has ended"):
                link.hand_over(Echo())

    run(work())


def test_a_listener_that_ends_leaves_nothing(run, node, friend):
    """Its links are ended, its port is free again, and strangers at its door are gone."""

    async def work():
        async with node.listener() as listener:
            port = listener.port
            link = await friend.link_to(node, port)
            await link.say({"do": "hello"})
            await link.hear(HEAR_S)
            at_the_door = socket.create_connection(("127.0.0.1", port))
            await until(lambda: len(listener._door) == 1)
        with pytest.raises(LinkError):
            await link.hear(HEAR_S)
        at_the_door.close()
        async with node.listener(port=port) as again:
            assert again.port == port
            with pytest.raises(MissingError, match="another port"):
                await node.listener(port=port).__aenter__()

    run(work())


def test_who_comes_as_a_listener_ends_is_gone_too(run, node):
    """Its connection was accepted, but nothing was done with it yet."""

    async def work():
        begins = asyncio.Event()
        listener = node.listener()
        async with listener:
            start = listener._start

            def starting(coroutine):
                begins.set()  # who waits for it goes on before the task begins
                return start(coroutine)

            listener._start = starting
            with socket.create_connection(("127.0.0.1", listener.port)) as at_the_door:
                await begins.wait()
                await listener.__aexit__(None, None, None)
                at_the_door.setblocking(False)
                loop = asyncio.get_running_loop()
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.wait_for(loop.sock_recv(at_the_door, 1), HEAR_S) == b""

    run(work())


def test_nagle_is_off_and_keepalive_on_on_both_sides(run, node, friend):
    """A frame leaves when it is written, and who lost power is missed."""
    seen = []

    def options(link):
        wire = link._open().get_extra_info("socket")
        return (
            wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0,
            wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0,
        )

    async def on_link(link):
        seen.append(options(link))

    async def work():
        async with node.listener(on_link) as listener:
            link = await friend.link_to(node, listener.port)
            seen.append(options(link))
            await link.say({"do": "hello"})
            with pytest.raises(LinkError):
                await link.hear(HEAR_S)

    run(work())
    assert seen == [(True, True)] * 2


def test_all_peers_that_a_file_can_hold_are_known_to_a_handshake(node, friend, tmp_path):
    """OpenSSL finds each among a thousand: every certificate has a subject of its own."""
    record = json.loads((node.folder / "peers.json").read_text())["records"][0]
    records = [record]
    for _ in range(1_023):
        key = Ed25519PrivateKey.generate()
        peer_id = peer_id_of(key.public_key().public_bytes_raw())
        certificate = certificate_text(make_certificate(key))
        records.append({**record, "id": peer_id, "certificate": certificate})
    with changing(node.folder / "peers.json"):
        write_records(node.folder / "peers.json", records)

    async def work():
        async with node.listener() as listener:
            return await friend.is_heard_by(node, listener.port)

    assert asyncio.run(work())
    other = Node(tmp_path / "other")
    with pytest.raises(BadValueError, match="1024 peers"):
        node.knows(other)
