"""Bytes that travel packed: what shrinks and what does not, and what a node lets be unpacked."""

import asyncio
import re
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from shoestring.swarm.packing import LEAST_BYTES, PART_BYTES, WINDOW_LOG, Unpacker, packed
from shoestring.swarm.wire import (
    TENSOR_BYTES,
    TWO_U64,
    BadFrameError,
    Command,
    Frame,
    get_tensor,
    request,
    set_tensor_start,
)
from shoestring.testing.rpc_frames import tensor
from tests.swarm.clients import KIB, TENSOR, WEIGHT, Client, a_session, until
from tests.swarm.nodes import HEAR_S, Node
from tests.swarm.test_node import serving

STILL_S = 0.2
"""In which what waits for somebody to read does not go on."""
PLAIN = tensor(64 * KIB)


def setting(body, offset=0):
    """Word the SET_TENSOR of a body."""
    head = bytearray(set_tensor_start(PLAIN, offset, len(body))[9:])
    return Frame(int(Command.SET_TENSOR), len(head) + len(body), head)


def packing(small, size, offset=0):
    """Word a SET_PACKED that says that it holds so many bytes."""
    head = bytearray(PLAIN + TWO_U64.pack(offset, size))
    return Frame(int(Command.SET_PACKED), len(head) + len(small), head)


def unpacked(frame, small, cuts=()):
    """Return what a body holds that comes in parts, and the parts in which it is given out."""
    unpacker = Unpacker(frame)
    edges = [0, *sorted(cuts), len(small)]
    parts = [small[a:b] for a, b in pairwise(edges) if a < b]
    return [found for part in parts for found in unpacker.unpack(part)]


def mask(tokens, cells):
    """Return a causal mask as llama.cpp makes it for a prompt: half precision, 0 or -inf."""
    seen = np.arange(cells)[None, :] <= np.arange(tokens)[:, None]
    return np.where(seen, np.float16(0), np.float16("-inf")).tobytes()


@pytest.mark.parametrize(("tokens", "cells", "times"), [(512, 512, 200), (1, 1024, 40)])
def test_a_mask_shrinks_and_is_the_same_again(tokens, cells, times):
    """A prompt's 200 times and more, one token's 40."""
    body = mask(tokens, cells)
    frame, small = packed(setting(body, offset=64), body)
    assert len(small) * times < len(body)
    assert frame.command == Command.SET_PACKED
    assert frame.size == len(frame.head) + len(small)
    assert TWO_U64.unpack_from(frame.head, TENSOR_BYTES) == (64, len(body))
    assert b"".join(unpacked(frame, small)) == body
    start = Unpacker(frame).start
    assert start == set_tensor_start(PLAIN, 64, len(body))


def test_what_does_not_shrink_is_left_as_it_is():
    """Activations, caches, what is small, and other commands."""
    rng = np.random.default_rng(1)
    numbers = rng.standard_normal(640 * 358).astype(np.float32)
    assert packed(setting(numbers.tobytes()), numbers.tobytes()) is None
    assert packed(setting(numbers.astype(np.float16).tobytes()), numbers.tobytes()) is None
    small = bytes(LEAST_BYTES - 1)
    assert packed(setting(small), small) is None
    assert packed(request_frame(Command.GET_TENSOR), b"") is None
    # Zeros where the sample is taken do not fool it.
    mixed = rng.bytes(8 * KIB) + bytes(KIB) + rng.bytes(8 * KIB)
    assert packed(setting(mixed), mixed) is None


def request_frame(command):
    """Word a frame of a tensor, an offset and a size."""
    head = bytearray(PLAIN + TWO_U64.pack(0, 4))
    return Frame(int(command), len(head), head)


@given(
    st.binary(min_size=1, max_size=64),
    st.integers(1, 3 * PART_BYTES // 64),
    st.data(),
)
def test_however_it_comes_in_parts_it_is_the_same(pattern, times, data):
    """And it is given out in bounded parts."""
    body = pattern * times
    small = zstd.compress(body)
    cuts = data.draw(st.lists(st.integers(0, len(small)), max_size=8))
    found = unpacked(packing(small, len(body)), small, cuts)
    assert b"".join(found) == body
    assert max(map(len, found)) <= PART_BYTES


@given(st.binary(min_size=1, max_size=200), st.integers(0, 1000))
def test_what_is_no_zstd_is_refused(junk, size):
    """Whatever it is; nothing but the one error."""
    with pytest.raises(BadFrameError) as refused:
        unpacked(packing(junk, size), junk)
    assert refused.value.reason == "packed"


@given(st.binary(min_size=1_500, max_size=1_500), st.data())
def test_what_was_changed_is_refused_or_has_the_declared_size(body, data):
    """A flipped bit may unpack to something else, never to more or less."""
    small = bytearray(zstd.compress(body[:100] * 15))
    at = data.draw(st.integers(0, len(small) - 1))
    small[at] ^= 1 << data.draw(st.integers(0, 7))
    with suppress(BadFrameError):
        assert len(b"".join(unpacked(packing(small, 1_500), bytes(small)))) == 1_500


BODY = b"0123456789" * 1000


@pytest.mark.parametrize(
    ("small", "size", "why"),
    [
        (zstd.compress(BODY), len(BODY) - 1, "more than"),
        (zstd.compress(BODY), len(BODY) + 1, "1 of 10001 bytes did not come"),
        (zstd.compress(BODY)[:-1], len(BODY), "did not come"),
        (zstd.compress(BODY) + b"!", len(BODY), "after"),
        (zstd.compress(BODY) * 2, 2 * len(BODY), "after"),
        (b"", 0, "nothing"),
    ],
)
def test_a_body_holds_what_was_declared_and_nothing_else(small, size, why):
    """No byte more or less, and one frame."""
    with pytest.raises(BadFrameError, match=why):
        unpacked(packing(small, size), small)


def test_a_body_of_many_gigabytes_is_unpacked_no_further_than_declared():
    """The first part too many ends it: what it would become is never there."""
    small = zstd.compress(bytes(64 * PART_BYTES))
    parts = Unpacker(packing(small, 2 * PART_BYTES)).unpack(small)
    assert [len(next(parts)) for _ in range(2)] == [PART_BYTES] * 2
    with pytest.raises(BadFrameError, match="more than"):
        next(parts)


def test_a_window_that_is_too_large_is_refused():
    """A node remembers 2 MiB of what it unpacked, however much a client would have it."""
    options = {
        int(zstd.CompressionParameter.window_log): WINDOW_LOG + 1,
        int(zstd.CompressionParameter.content_size_flag): 0,
    }
    body = bytes(4 << WINDOW_LOG)
    packer = zstd.ZstdCompressor(options=options)
    small = packer.compress(body[:1]) + packer.compress(body[1:]) + packer.flush()
    with pytest.raises(BadFrameError, match="no zstd"):
        unpacked(packing(small, len(body)), small)


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


def set_packed(body, size=None):
    """Word a SET_PACKED into the client's buffer."""
    small = zstd.compress(body)
    region = TWO_U64.pack(0, len(body) if size is None else size)
    return request(Command.SET_PACKED, TENSOR + region + small)


@pytest.mark.engine
@pytest.mark.parametrize("size", [64 * KIB, len(WEIGHT)])
def test_a_worker_gets_what_was_packed(owner, friend, size):
    """At once or bit by bit; and what comes after it does not overtake it."""
    body = WEIGHT[: size // 2] + bytes(size - size // 2)

    async def scenario():
        async with serving(owner) as remote, Client.of(friend, remote) as client:
            for _ in range(3):
                client.out.write(set_packed(WEIGHT[::-1]) + set_packed(body))
                client.out.write(get_tensor(TENSOR, 0, size))
                assert await client.answers(size) == [body]

    asyncio.run(scenario())


@pytest.mark.engine
@pytest.mark.parametrize("size", [64 * KIB, 2 * PART_BYTES])
def test_what_holds_more_than_it_says_ends_its_session_alone(owner, friend, size):
    """The next one is served."""

    async def scenario():
        async with serving(owner) as remote:
            async with Client.of(friend, remote) as client:
                client.out.write(set_packed(bytes(len(WEIGHT)), size))
                await asyncio.wait_for(asyncio.shield(client.ended), HEAR_S)
                await asyncio.wait_for(owner.news.wait(), HEAR_S)
            async with Client.of(friend, remote) as client:
                client.set()
                assert await client.content() == WEIGHT

    asyncio.run(scenario())
    assert re.search("refused: packed: more than the", owner.said[0])


def test_a_worker_that_does_not_read_stops_what_is_unpacked():
    """A few bytes that become gigabytes wait in their packed form."""

    async def scenario():
        news = asyncio.Event()
        async with a_session(None, news) as session:
            client, worker = session.client.transport, session.worker.transport
            session.take_requests(set_packed(bytes(len(WEIGHT))) + request(Command.PING, bytes(8)))
            await until(lambda: worker.is_full, news)
            with pytest.raises(TimeoutError):
                await until(lambda: worker.written > 2 * PART_BYTES, news, limit_s=STILL_S)
            assert not client.reading
            while worker.written < len(WEIGHT):
                before = worker.written
                session.worker.resume_writing()
                await until(lambda before=before: worker.written > before, news)

    asyncio.run(scenario())
