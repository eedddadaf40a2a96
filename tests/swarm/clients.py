"""Clients of a node that word their own frames, and sessions between ends that are not there."""

import asyncio
import hashlib
import os
from contextlib import asynccontextmanager

from shoestring.hardware.devices import Device
from shoestring.swarm.firewall import Rules
from shoestring.swarm.remote import open_session
from shoestring.swarm.session import Session
from shoestring.swarm.store_contents import PART_BYTES
from shoestring.swarm.wire import (
    ALLOC,
    TWO_U64,
    U64,
    Command,
    get_tensor,
    request,
    set_tensor_start,
)
from shoestring.testing.rpc_frames import tensor
from tests.swarm.nodes import HEAR_S, Collector

GIB = 1 << 30
KIB = 1 << 10
DEVICE = Device("cpu", "cpu", "a processor", 8 * GIB, 20e9, None, None, 0.0, None, "a test")
RULES = Rules(memory_bytes=4 * GIB, device_memory_bytes=4 * GIB)
WEIGHT = os.urandom(5 * PART_BYTES + 4 * KIB)
ROW = len(WEIGHT) // 4
TENSOR = tensor(ROW, buffer=1)
"""Where WEIGHT goes: floats at the begin of the first buffer."""


def sha256(data):
    """Return the digest of bytes."""
    return hashlib.sha256(data).digest()


class Client(Collector):
    """A session that words its own frames, with one buffer."""

    @classmethod
    @asynccontextmanager
    async def of(cls, friend, remote):
        """Open a session, with a buffer as long as the weight; end it after the block."""
        opened = await open_session(friend.identity, remote)
        client = cls()
        client.stores = opened.stores
        client.out = opened.link.hand_over(client)
        client.out.write(request(Command.HELLO, bytes(24)))
        client.out.write(request(Command.ALLOC_BUFFER, ALLOC.pack(0, len(WEIGHT))))
        client.out.write(request(Command.BUFFER_GET_BASE, U64.pack(1)))
        await client.answers(28, 16, 8)
        try:
            yield client
        finally:
            client.out.abort()
            await client.ended

    async def answers(self, *sizes):
        """Return the next answers, which are so long."""
        whole = await self.has(sum(sizes) + 8 * len(sizes))
        found = []
        for size in sizes:
            assert int.from_bytes(whole[:8], "little") == size
            found.append(whole[8 : 8 + size])
            whole = whole[8 + size :]
        self.got = self.got[sum(sizes) + 8 * len(sizes) :]
        return found

    def take(self, data=WEIGHT, offset=0, name=None):
        """Ask for bytes by their digest."""
        region = TWO_U64.pack(offset, len(data))
        self.out.write(request(Command.TAKE, TENSOR + region + (name or sha256(data))))

    def set(self, data=WEIGHT):
        """Send bytes."""
        self.out.write(set_tensor_start(TENSOR, 0, len(data)) + data)

    async def content(self):
        """Return what the worker has."""
        self.out.write(get_tensor(TENSOR, 0, len(WEIGHT)))
        return (await self.answers(len(WEIGHT)))[0]


class Pipe(asyncio.Transport):
    """Takes a little, and is never read; tells when it is full, and when it is read from."""

    HIGH = 4 * KIB

    def __init__(self, side, news):
        self.side, self.news, self.reading, self.written = side, news, True, 0

    @property
    def is_full(self):
        """Whether its other side ought to read."""
        return self.written > self.HIGH

    def is_reading(self):
        """Of asyncio."""
        return self.reading

    def pause_reading(self):
        """Of asyncio."""
        self.reading = False

    def resume_reading(self):
        """Of asyncio."""
        self.reading = True
        self.news.set()

    def is_closing(self):
        """Of asyncio."""
        return False

    def abort(self):
        """Of asyncio."""

    def set_write_buffer_limits(self, high=None, low=None):
        """Of asyncio."""

    def write(self, data):
        """Count it; it is never read."""
        self.written += len(data)
        if self.is_full:
            self.side.pause_writing()
        self.news.set()


def u64(*numbers):
    """Word numbers."""
    return b"".join(U64.pack(number) for number in numbers)


@asynccontextmanager
async def a_session(store, news=None):
    """Open one that has a buffer of the weight's length."""
    session = Session(RULES, store)
    for side in (session.client, session.worker):
        side.connection_made(Pipe(side, news or asyncio.Event()))
    session.take_requests(request(Command.HELLO, bytes(24)))
    session.take_answers(u64(28) + bytes([7, 0, 0]) + bytes(25))
    session.take_requests(request(Command.ALLOC_BUFFER, ALLOC.pack(0, len(WEIGHT))))
    session.take_answers(u64(16, 4096, len(WEIGHT)))
    session.take_requests(request(Command.BUFFER_GET_BASE, u64(1)))
    session.take_answers(u64(8, 1 << 20))
    try:
        yield session
    finally:
        session.end("enough")
        await session.close()


async def until(is_so, news, limit_s=HEAR_S):
    """Wait until something is so, which an event tells."""
    async with asyncio.timeout(limit_s):
        while not is_so():
            news.clear()
            await news.wait()
