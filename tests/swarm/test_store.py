"""Weights that are kept: what is read is what was meant, the quota holds, and a link is spared."""

import asyncio
import hashlib
import os
import stat
import threading
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import rfc8785

from shoestring.engines.discovery import find_program
from shoestring.swarm import store_contents, weights
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.link import LinkError
from shoestring.swarm.manifest import PAGE_BLOBS, hear_manifest, read_page, tell_manifest
from shoestring.swarm.own_commands import MOST_MISSING, WRITING_BYTES
from shoestring.swarm.remote import RefusedError
from shoestring.swarm.spares import Need, Spares
from shoestring.swarm.stage import standing_stages
from shoestring.swarm.store import FORGOTTEN_S, LEAST_BYTES, QUOTA_BYTES, Store, open_store
from shoestring.swarm.store_contents import PART_BYTES
from shoestring.swarm.weights import Weight, Weights
from shoestring.swarm.wire import (
    TWO_U64,
    U64,
    Command,
    Frame,
    get_tensor,
    request,
    set_tensor_start,
)
from shoestring.swarm.words import LENGTH_BYTES, pack_word, read_word
from shoestring.testing.live_server import live_server
from shoestring.testing.rpc_frames import tensor
from tests.swarm.clients import (
    GIB,
    KIB,
    TENSOR,
    WEIGHT,
    Client,
    Pipe,
    a_session,
    sha256,
    u64,
    until,
)
from tests.swarm.nodes import HEAR_S, Node
from tests.swarm.test_node import serving


@pytest.fixture
def said():
    """Lines of a store."""
    return []


@pytest.fixture
def store(tmp_path, said):
    """A store with room for four weights."""
    return Store(tmp_path / "weights", 4 * len(WEIGHT), say=said.append)


def put(store, data, name=None):
    """Write bytes into a store, in two parts; return whether they were kept."""
    writing = store.write(name or sha256(data), len(data))
    writing.add(data[: len(data) // 3])
    writing.add(data[len(data) // 3 :])
    return writing.is_kept


def read(store, name, size=None):
    """Return what a store has under a name, or None, and whether it was good."""
    reading = store.read(name, len(WEIGHT) if size is None else size)
    if reading is None:
        return None
    found = b"".join(iter(reading.part, b""))
    return found, reading.is_good


def path_in(store, name):
    """Return where what has this digest lies."""
    return store.folder / name[:2] / name


def path_of(store, data):
    """Return where bytes lie."""
    return path_in(store, sha256(data).hex())


def files(store):
    """Return the names of all that lies in a store, but for its lock."""
    found = (path for path in store.folder.rglob("*") if path.is_file())
    return sorted(path.name for path in found if path.name != "lock")


def test_what_was_written_is_read_again_by_its_owner_alone(store):
    """In parts, as it was; folders and files are closed to others."""
    assert put(store, WEIGHT)
    assert read(store, sha256(WEIGHT)) == (WEIGHT, True)
    for path in (store.folder, *store.folder.rglob("*")):
        if path.name != "lock":
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_what_is_not_what_it_is_named_is_not_kept(store, said):
    """Nothing of it is left."""
    assert not put(store, WEIGHT, name=sha256(b"another"))
    assert files(store) == []
    assert read(store, sha256(b"another")) is None
    assert said == []


@pytest.mark.parametrize("keep", [len(WEIGHT), len(WEIGHT) - 1, 0])
def test_rot_is_found_removed_and_mended(store, said, keep):
    """A bit that flipped, and a file that was cut: absent, until it is written again."""
    put(store, WEIGHT)
    path = path_of(store, WEIGHT)
    rotten = bytearray(WEIGHT[:keep])
    if keep == len(WEIGHT):
        rotten[2 * PART_BYTES] ^= 4
    path.write_bytes(rotten)
    found = read(store, sha256(WEIGHT))
    if keep == len(WEIGHT):
        assert found == (bytes(rotten), False)
        assert files(store) == []
        assert len(said) == 1
        assert "damaged" in said[0]
    else:
        assert found is None
    assert put(store, WEIGHT)
    assert read(store, sha256(WEIGHT)) == (WEIGHT, True)


def test_what_vanishes_while_it_is_read_comes_in_its_size_and_is_not_good(store, said):
    """As when room is made meanwhile; nobody is told of damage."""
    put(store, WEIGHT)
    reading = store.read(sha256(WEIGHT), len(WEIGHT))
    first = reading.part()
    path_of(store, WEIGHT).unlink()
    rest = b"".join(iter(reading.part, b""))
    assert first + rest == WEIGHT[:PART_BYTES] + bytes(len(WEIGHT) - PART_BYTES)
    assert not reading.is_good
    assert said == []


def test_a_wrong_size_finds_nothing_and_removes_nothing(store):
    """Else a peer could have weights of others forgotten."""
    put(store, WEIGHT)
    assert store.read(sha256(WEIGHT), len(WEIGHT) - 4) is None
    assert read(store, sha256(WEIGHT)) == (WEIGHT, True)


def test_a_store_takes_a_tenth_of_the_disk_unless_told(tmp_path, said, monkeypatch):
    """What it holds already counts as free; of a large disk it takes no more than 20 GiB."""
    store = open_store(tmp_path / "weights", 100 * KIB, say=said.append)
    assert store.quota_bytes == 100 * KIB
    put(store, bytes(50 * KIB))
    for free_bytes, quota_bytes in ((10_000 * KIB, 1_000 * KIB), (1 << 50, QUOTA_BYTES)):
        usage = SimpleNamespace(free=free_bytes - store.held_bytes())
        monkeypatch.setattr("shutil.disk_usage", lambda _folder, usage=usage: usage)
        assert open_store(store.folder, None, say=said.append).quota_bytes == quota_bytes


def test_what_is_here_is_not_written_again(store):
    """Nor what is smaller than a block of the disk, or larger than the quota."""
    put(store, WEIGHT)
    assert store.write(sha256(WEIGHT), len(WEIGHT)) is None
    assert store.write(sha256(b"small"), LEAST_BYTES - 1) is None
    assert store.write(sha256(b"large"), store.quota_bytes + 1) is None


def aged(store, data, used_s):
    """Keep bytes that were last used then."""
    assert put(store, data)
    os.utime(path_of(store, data), (used_s, used_s))


def test_what_was_used_longest_ago_makes_room(tmp_path, said):
    """The quota holds at each moment; use counts, not age."""
    store = Store(tmp_path / "weights", 64 * KIB, say=said.append)
    blobs = [bytes([number]) * 8 * KIB for number in range(40)]
    for number, blob in enumerate(blobs):
        aged(store, blob, 1_000 + number)
        read(store, sha256(blobs[0]), 8 * KIB)  # now: long after
        assert store.held_bytes() <= 64 * KIB
    kept = {blob.sha256 for blob in store.blobs()}
    newest = [sha256(blob).hex() for blob in (blobs[0], *blobs[-5:])]
    assert set(newest) <= kept


def test_files_are_counted_too(tmp_path, said):
    """Many small weights take names and folders of the disk, if few bytes."""
    store = Store(tmp_path / "weights", GIB, say=said.append, most_blobs=20)
    for number in range(60):
        put(store, number.to_bytes(4, "little") * KIB)
        assert len(files(store)) <= 20
    assert len(files(store)) > 10


def test_two_stores_on_one_folder_keep_the_quota_but_for_a_sixteenth_each(tmp_path, said):
    """Two nodes of one user may share it."""
    both = [Store(tmp_path / "weights", 256 * KIB, say=said.append) for _ in range(2)]
    for number in range(200):
        put(both[number % 2], number.to_bytes(4, "little") * KIB)
        assert both[0].held_bytes() <= 256 * KIB * (1 + 2 / 16)


def test_several_writers_of_the_same_leave_one(store, said):
    """Whoever is last has the name; all of them hold the same bytes."""
    barrier = threading.Barrier(4)
    kept = []

    def write():
        writing = store.write(sha256(WEIGHT), len(WEIGHT))
        barrier.wait()
        for at in range(0, len(WEIGHT), PART_BYTES):
            writing.add(WEIGHT[at : at + PART_BYTES])
        kept.append(writing.is_kept)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept == [True] * 4
    assert files(store) == [sha256(WEIGHT).hex()]
    assert read(store, sha256(WEIGHT)) == (WEIGHT, True)
    assert said == []


def test_what_is_closed_in_another_thread_is_closed_after_what_it_writes(store, said, monkeypatch):
    """Else the bytes would go into whatever file has its number then."""
    writes, begun, go_on = os.write, threading.Event(), threading.Event()

    def slow(descriptor, data):
        begun.set()
        go_on.wait(HEAR_S)
        return writes(descriptor, data)

    monkeypatch.setattr(store_contents.os, "write", slow)
    writing = store.write(sha256(WEIGHT), len(WEIGHT))
    adding = threading.Thread(target=writing.add, args=(WEIGHT[:1000],))
    closing = threading.Thread(target=writing.close)
    adding.start()
    assert begun.wait(HEAR_S)
    closing.start()
    closing.join(0.2)  # without a lock it has ended by now
    go_on.set()
    for thread in (adding, closing):
        thread.join(HEAR_S)
    assert (said, files(store)) == ([], [])


def test_a_weight_is_hashed_while_a_thread_hashes_another(monkeypatch):
    """Whoever asks for one does not wait for all others."""
    begun, go_on = threading.Event(), threading.Event()
    slow, quick = Weight(memoryview(b"slow")), Weight(memoryview(b"quick"))

    def hashing(data):
        if data == b"slow":
            begun.set()
            go_on.wait(HEAR_S)
        return hashlib.sha256(data)

    monkeypatch.setattr(weights, "hashlib", SimpleNamespace(sha256=hashing))
    thread = threading.Thread(target=lambda: slow.sha256)
    thread.start()
    assert begun.wait(HEAR_S)
    found = []
    other = threading.Thread(target=lambda: found.append(quick.sha256))
    other.start()
    other.join(HEAR_S)
    had = list(found)
    go_on.set()
    thread.join(HEAR_S)
    assert had == [sha256(b"quick")]
    assert slow.sha256 == sha256(b"slow")


def test_what_others_put_there_is_left_alone_and_what_died_is_swept(store):
    """A half of a process that is gone is removed when room is made, another's is not."""
    (store.folder / "notes.txt").write_text("mine")
    (store.folder / "ab").mkdir()
    (store.folder / "ab" / "README").write_text("mine")
    for name, age_s in (("partial-old", FORGOTTEN_S + 60), ("partial-new", 0)):
        path = store.folder / name
        path.write_bytes(b"half")
        then_s = path.stat().st_mtime - age_s
        os.utime(path, (then_s, then_s))
    put(store, WEIGHT)
    assert files(store) == sorted(["README", sha256(WEIGHT).hex(), "notes.txt", "partial-new"])


def test_a_disk_that_does_not_take_it_is_told_once(tmp_path, said):
    """The weight is not kept; the session that it passes through need not know."""
    store = Store(tmp_path / "weights", GIB, say=said.append)
    store.folder.rmdir()
    assert not put(store, WEIGHT)
    assert not put(store, WEIGHT[: 8 * KIB])
    assert len(said) == 1
    assert "No such file" in said[0]


# The node.


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


@pytest.mark.engine
def test_a_weight_is_sent_once_and_then_taken(owner, friend, store):
    """The second session's worker has it, and its link carried next to nothing."""

    async def scenario():
        async with serving(owner, store) as remote:
            async with Client.of(friend, remote) as client:
                assert client.stores
                client.take()
                assert await client.answers(1) == [b"\0"]
                client.set()
                assert await client.content() == WEIGHT
            async with Client.of(friend, remote) as client:
                client.take()
                client.out.write(get_tensor(TENSOR, 0, len(WEIGHT)))  # may not overtake it
                assert await client.answers(1, len(WEIGHT)) == [b"\1", WEIGHT]

    asyncio.run(scenario())
    assert files(store) == [sha256(WEIGHT).hex()]


@pytest.mark.engine
def test_a_damaged_weight_is_answered_as_missing_and_sent_anew(owner, friend, store, said):
    """What the worker got of it is overwritten; the store has the right one again."""

    async def scenario():
        async with serving(owner, store) as remote, Client.of(friend, remote) as client:
            client.take()
            assert await client.answers(1) == [b"\0"]
            client.set()
            assert await client.content() == WEIGHT

    put(store, WEIGHT)
    path_of(store, WEIGHT).write_bytes(WEIGHT[:-1] + bytes([WEIGHT[-1] ^ 1]))
    asyncio.run(scenario())
    assert len(said) == 1
    assert read(store, sha256(WEIGHT)) == (WEIGHT, True)


@pytest.mark.engine
def test_what_comes_after_a_take_is_kept_only_if_it_is_what_was_named(owner, friend, store):
    """Other bytes go to the client's own worker, and nowhere else."""
    other = WEIGHT[::-1]

    async def scenario():
        async with serving(owner, store) as remote, Client.of(friend, remote) as client:
            client.take()
            await client.answers(1)
            client.set(other)
            assert await client.content() == other

    asyncio.run(scenario())
    assert files(store) == []


@pytest.mark.engine
def test_half_a_weight_leaves_nothing(owner, friend, tmp_path, said):
    """Its client hung up in the middle."""
    begun = threading.Event()

    class Watched(Store):
        def write(self, sha256, size):
            begun.set()
            return super().write(sha256, size)

    async def scenario():
        async with serving(owner, store) as remote, Client.of(friend, remote) as client:
            client.take()
            await client.answers(1)
            client.out.write(set_tensor_start(TENSOR, 0, len(WEIGHT)) + WEIGHT[:-1])
            await asyncio.to_thread(begun.wait, HEAR_S)

    store = Watched(tmp_path / "weights", GIB, say=said.append)
    asyncio.run(scenario())
    assert begun.is_set()
    assert files(store) == []


@pytest.mark.engine
def test_many_takes_at_once_are_answered_in_their_order(owner, friend, store):
    """Between answers of the worker and of the agent."""

    async def scenario():
        async with serving(owner, store) as remote, Client.of(friend, remote) as client:
            for number in range(256):
                client.take(name=None if number % 3 else sha256(b"unknown"))
                client.out.write(request(Command.GET_ALIGNMENT, bytes(4)))
                client.out.write(request(Command.PING, U64.pack(number)))
            told = await client.answers(*(1, 8, 8) * 256)
            assert [said[0] for said in told[::3]] == [bool(n % 3) for n in range(256)]
            assert [U64.unpack(said)[0] for said in told[2::3]] == list(range(256))
            assert len(set(told[1::3])) == 1

    put(store, WEIGHT)
    asyncio.run(scenario())


@pytest.mark.engine
@pytest.mark.parametrize(("offset", "less"), [(4, 0), (0, -4), ((1 << 64) - 4, 0)])
def test_a_take_for_a_place_outside_its_tensor_ends_the_session(owner, friend, store, offset, less):
    """By the firewall; the worker never heard of it."""
    size = len(WEIGHT) - less

    async def scenario():
        async with serving(owner, store) as remote, Client.of(friend, remote) as client:
            region = TWO_U64.pack(offset, size)
            client.out.write(request(Command.TAKE, TENSOR + region + sha256(WEIGHT)))
            await asyncio.wait_for(asyncio.shield(client.ended), HEAR_S)
            await asyncio.wait_for(owner.news.wait(), HEAR_S)

    put(store, WEIGHT)
    asyncio.run(scenario())
    assert "refused: bounds" in owner.said[0]


@pytest.mark.engine
def test_a_node_without_a_store_says_so_and_has_nothing(owner, friend):
    """A client that asks all the same is answered."""

    async def scenario():
        async with serving(owner) as remote:
            async with Client.of(friend, remote) as client:
                assert not client.stores
                client.take()
                assert await client.answers(1) == [b"\0"]
            with pytest.raises(RefusedError, match="keeps no weights"):
                await hear_manifest(friend.identity, remote)

    asyncio.run(scenario())


# What a node says that it holds.


@pytest.mark.engine
def test_a_manifest_says_what_is_held_page_by_page(owner, friend, tmp_path, said):
    """Signed by the node; all of it, however much."""
    store = Store(tmp_path / "weights", GIB, say=said.append)
    for number in range(1_100):
        put(store, number.to_bytes(4, "little") * KIB)

    async def scenario():
        async with serving(owner, store) as remote:
            return await hear_manifest(friend.identity, remote)

    held = asyncio.run(scenario())
    assert held == {blob.sha256: 4 * KIB for blob in store.blobs()}
    assert len(held) == 1_100


class Said:
    """A link that keeps what is said, and asks for more."""

    def __init__(self):
        self.words = []

    async def say(self, word):
        """Keep it, as it comes over a wire."""
        packed = pack_word(word)
        self.words.append(read_word(packed[LENGTH_BYTES:]))

    async def hear(self, _timeout_s):
        """Ask for more."""
        return {"more": True}


@pytest.fixture
def words(owner, store):
    """The words of a manifest of one weight, and of an empty one."""
    link = Said()
    asyncio.run(tell_manifest(link, owner.identity, store, lambda: 1_800_000_000.9))
    put(store, WEIGHT)
    asyncio.run(tell_manifest(link, owner.identity, store, lambda: 1_800_000_000.9))
    return link.words


def test_a_page_is_believed_if_its_node_signed_it(owner, words):
    """With the time at which it did."""
    empty, full = (read_page(word, owner.identity.id, "") for word in words)
    assert (empty.blobs, empty.is_last, empty.at_s) == ({}, True, 1_800_000_000)
    assert full.blobs == {sha256(WEIGHT).hex(): len(WEIGHT)}


def changed(word, **fields):
    """Return a word that says something else under the same signature."""
    return {**word, "manifest": {**word["manifest"], **fields}}


@pytest.mark.parametrize(
    "forge",
    [
        lambda _word: {},
        lambda word: {**word, "manifest": None},
        lambda word: {**word, "signature": "no hexadecimal"},
        lambda word: {**word, "signature": "00" * 64},
        lambda word: changed(word, at_s=1_900_000_000),
        lambda word: changed(word, at_s=1 << 60),
        lambda word: changed(word, last=False),
        lambda word: changed(word, more=1),
        lambda word: changed(word, blobs=[]),
    ],
)
def test_a_page_that_was_changed_is_not_believed(owner, words, forge):
    """Nor is what is no page at all."""
    with pytest.raises(LinkError, match="nothing of it is believed"):
        read_page(forge(words[1]), owner.identity.id, "")


def test_a_page_of_another_node_or_another_place_is_not_believed(owner, friend, words):
    """Else one could be shown for the other."""
    with pytest.raises(LinkError, match="signature"):
        read_page(words[1], friend.identity.id, "")
    with pytest.raises(LinkError, match="order"):
        read_page(words[1], owner.identity.id, "00")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"blobs": [["ab" * 32, 1], ["ab" * 32, 1]]}, "order"),
        ({"blobs": [["ff" * 32, 1], ["ab" * 32, 1]]}, "order"),
        ({"blobs": [["../../etc/passwd", 1]]}, "entries"),
        ({"blobs": [["ab" * 32, -1]]}, "entries"),
        ({"blobs": [["ab" * 32, "1"]]}, "entries"),
        ({"blobs": [["ab" * 32]]}, "entries"),
        ({"blobs": "ab"}, "length"),
        ({"blobs": [], "last": False}, "length"),
        ({"blobs": [[f"{n:064x}", 1] for n in range(PAGE_BLOBS + 1)]}, "length"),
        ({"at_s": "now"}, "order"),
        ({"node": "another"}, "signature"),
    ],
)
def test_what_a_node_signed_may_be_wrong_all_the_same(owner, words, fields, wrong):
    """A signature says who said it, not that it can be."""
    said = {**words[1]["manifest"], **fields}
    signature = owner.identity.sign("manifest", rfc8785.dumps(said)).hex()
    with pytest.raises(LinkError, match=wrong):
        read_page({"manifest": said, "signature": signature}, owner.identity.id, "")


# One session, between ends that are not there.

MOST_READS = 100
STILL_S = 0.2
"""In which what waits for somebody to read does not go on."""


@pytest.mark.parametrize("is_held", [False, True])
def test_who_asks_for_weights_and_does_not_read_is_not_read_from(store, is_held):
    """Neither answers pile up nor what a worker is slow to take."""
    asked = request(Command.TAKE, TENSOR + u64(0, len(WEIGHT)) + sha256(WEIGHT))

    async def flood():
        news = asyncio.Event()
        async with a_session(store, news) as session:
            client, worker = session.client.transport, session.worker.transport
            for _ in range(MOST_READS):
                session.take_requests(asked * 64)
                await until(lambda: client.reading or client.is_full or worker.is_full, news)
                if not client.reading:
                    break
            with pytest.raises(TimeoutError):
                await until(lambda: worker.written > 2 * PART_BYTES, news, limit_s=STILL_S)
            return client.reading, client.written, worker.written

    if is_held:
        put(store, WEIGHT)
    is_read, answered_bytes, set_bytes = asyncio.run(flood())
    assert not is_read
    assert answered_bytes < 2 * Pipe.HIGH
    assert set_bytes < 2 * PART_BYTES


def test_who_asks_for_ever_more_and_sends_nothing_is_forgotten_in_part(store):
    """The first weights that were missing are not kept when they come after all."""

    async def scenario():
        async with a_session(store) as session:
            tensors = [tensor(2 * KIB, offset=4 * number) for number in range(MOST_MISSING + 2)]
            heads = [bytearray(one + u64(0, 8 * KIB) + bytes(32)) for one in tensors]
            for head in heads:
                frame = Frame(int(Command.TAKE), len(head), head)
                assert await session.shelf.take(frame, None) == b"\0"
            frames = [
                Frame(int(Command.SET_TENSOR), 305 + 8 * KIB, bytearray(one + b"\0" + u64(0)))
                for one in tensors
            ]
            return [session.shelf.awaits(frame) for frame in frames]

    assert asyncio.run(scenario()) == [False] * 2 + [True] * MOST_MISSING


def test_a_slow_disk_holds_up_who_sends(tmp_path, said):
    """What waits to be written is bounded; once it is written the client is read again."""
    may_write = threading.Event()

    class Slow(Store):
        def write(self, sha256, size):
            assert may_write.wait(HEAR_S)
            return super().write(sha256, size)

    async def scenario():
        news = asyncio.Event()
        async with a_session(Slow(tmp_path / "slow", GIB, say=said.append), news) as session:
            client, shelf = session.client.transport, session.shelf
            session.worker.transport.HIGH = GIB
            written = client.written
            asked = request(Command.TAKE, TENSOR + u64(0, len(WEIGHT)) + sha256(WEIGHT))
            session.take_requests(asked)
            await until(lambda: client.written > written, news)
            session.take_requests(set_tensor_start(TENSOR, 0, len(WEIGHT)))
            sent = 0
            while client.reading and sent < len(WEIGHT):
                session.take_requests(WEIGHT[sent : sent + 64 * KIB])
                sent += 64 * KIB
            stopped_at = sent
            may_write.set()
            while sent < len(WEIGHT):
                await until(lambda: client.reading, news)
                session.take_requests(WEIGHT[sent : sent + 64 * KIB])
                sent += 64 * KIB
            return stopped_at, shelf

    stopped_at, shelf = asyncio.run(scenario())
    assert WRITING_BYTES < stopped_at <= WRITING_BYTES + 64 * KIB < len(WEIGHT)
    assert shelf.kept_bytes == len(WEIGHT)
    assert said == []


# The real client.


@asynccontextmanager
async def counting(remote):
    """Relay links to a node; yields where, and the bytes that went through: in, out and both."""
    passed = Counter()
    tasks = set()

    async def carry(reader, writer, way):
        while data := await reader.read(PART_BYTES):
            passed["bytes"] += len(data)
            passed[way] += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def relay(reader, writer):
        tasks.add(asyncio.current_task())
        there, to_there = await asyncio.open_connection("127.0.0.1", remote.address.port)
        try:
            await asyncio.gather(carry(reader, to_there, "in"), carry(there, writer, "out"))
        except (ConnectionError, asyncio.CancelledError):
            return  # asyncio's server would complain of a task that was cancelled
        finally:
            to_there.close()
            writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        address = PeerAddress(remote.address.id, "127.0.0.1", port)
        yield replace(remote, address=address), passed
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def load_and_ask(port, model, folder, passed):
    """Return what a model says, and the bytes that had passed once it was loaded."""

    def command(http_port):
        return (
            str(find_program("llama-server")), "-m", str(model), "--host", "127.0.0.1",
            "--port", str(http_port), "--rpc", f"127.0.0.1:{port}", "--device", "RPC0",
            "-ngl", "99", "-c", "512", "-np", "1", "-t", "1", "--no-warmup", "--fit", "off",
        )  # fmt: skip

    asked = {"prompt": "A ship left the harbour at noon", "n_predict": 12, "temperature": 0}
    with live_server(command, log_path=folder / "llama-server.log") as server:
        loaded_bytes = passed["bytes"]
        return str(server.complete(asked)["content"]), loaded_bytes


@pytest.mark.engine
def test_the_second_load_of_a_model_moves_next_to_nothing(
    owner, friend, small_model, tmp_path, said
):
    """Below a hundredth of its bytes; a damaged weight alone comes anew; all answers are equal."""
    store = Store(tmp_path / "weights", GIB, say=said.append)

    async def answer(remote):
        async with (
            counting(remote) as (counted, passed),
            standing_stages(
                friend.identity, [[counted]], Spares(), Weights(small_model.path),
                needs=[Need(0)], tell=lambda _event: None,
            ) as (stage,),
        ):  # fmt: skip
            settings = (stage.port, small_model.path, tmp_path, passed)
            return await asyncio.to_thread(load_and_ask, *settings)

    async def scenario():
        async with serving(owner, store) as remote:
            first, second = await answer(remote), await answer(remote)
            largest = max(store.blobs(), key=lambda blob: blob.size)
            with path_in(store, largest.sha256).open("r+b") as file:
                file.seek(largest.size // 2)
                file.write(b"rot!")
            return largest.size, [first, second, await answer(remote)]

    largest_bytes, answers = asyncio.run(scenario())
    texts, loaded_bytes = zip(*answers, strict=True)
    assert len(texts[0]) > 10
    assert len(set(texts)) == 1
    assert loaded_bytes[0] > store.held_bytes() > 200e6
    assert loaded_bytes[1] < loaded_bytes[0] / 100
    assert largest_bytes < loaded_bytes[2] < largest_bytes + loaded_bytes[0] / 100
    assert len(said) == 1
