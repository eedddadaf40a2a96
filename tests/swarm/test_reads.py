"""Reads of caches that llama-server makes: what is copied for them, and what is answered when."""

import asyncio
from types import SimpleNamespace

import pytest

from shoestring.swarm.boundaries import Boundaries
from shoestring.swarm.conversation import Conversation
from shoestring.swarm.journal import Journal
from shoestring.swarm.kept_bytes import KEPT_BYTES, KeptBytes
from shoestring.swarm.proof.windows import Windows
from shoestring.swarm.wire import U32, Answer, Command, get_tensor, graph_compute, request
from tests.swarm.test_journal import (
    CACHE,
    INPUT,
    NUMBERS,
    READ,
    ROW_BYTES,
    WRITE,
    NoWeights,
    set_input,
    set_rows,
    tensor,
)

BIG_AT = (1 << 40) + (1 << 20)
BIG_ROWS = 1 << 16
BIG = tensor(11, "cache_k_l1", ne=(32, BIG_ROWS), data=BIG_AT)
BIG_READ = tensor(
    12, "cache_k_l1 (view)", op="VIEW", ne=(32, BIG_ROWS), data=BIG_AT, src=(11,), view=11
)
BIG_WRITE = tensor(14, "w", op="SET_ROWS", data=BIG_AT, ne=(32, BIG_ROWS), src=(5, 3, 11), view=11)
GRAPH = graph_compute(0, [2, 4, 12, 14], [CACHE, READ, NUMBERS, WRITE, INPUT, BIG, BIG_READ,
                                          BIG_WRITE])  # fmt: skip
READ_ALL = get_tensor(CACHE, 0, 8 * ROW_BYTES)
SIZE_OF = request(Command.GET_ALLOC_SIZE, bytes(U32.size) + CACHE * 11)


class Node:
    """A session that is told things, and asked for bytes of tensors; it answers when it is let."""

    is_behind = is_full = False
    backlog = 0
    name = "ana"

    def __init__(self):
        """Begin."""
        self.told, self.asked, self.seat = [], [], "a seat"

    def tell(self, entries):
        """Of replicas."""
        self.told += entries

    def ask(self, tensor, _offset, size, answered):
        """Of replicas."""
        self.asked.append((tensor, size, answered))

    def answer(self):
        """Answer what it was asked for, with ones."""
        asked, self.asked = self.asked, []
        for _, size, answered in asked:
            answered(b"\1" * size)

    def set_reading(self, *, on):
        """Of replicas."""

    def leave(self):
        """Of replicas."""


class Wire:
    """Llama-server's end: what it was given."""

    def __init__(self):
        """Begin."""
        self.given = bytearray()

    def write(self, data):
        """Of transports."""
        self.given += data

    def is_closing(self):
        """Of transports."""
        return False

    def is_reading(self):
        """Of transports."""
        return True

    def set_write_buffer_limits(self, high):
        """Of transports."""

    def pause_reading(self):
        """Of transports."""

    def resume_reading(self):
        """Of transports."""

    def abort(self):
        """Of transports."""


def talk(say):
    """Let a computed conversation hear more; ``say`` is given it, its node and its wire."""

    def nothing(*_how):
        """Of hosts."""

    async def scenario():
        host = SimpleNamespace(
            number=0, on_cpu=True, opened=nothing, recruit=nothing, closed=nothing,
            computes=nothing, has_spare=lambda: False, tell=nothing,
        )  # fmt: skip
        routes = SimpleNamespace(find=nothing, came=nothing)
        its = Conversation(host, NoWeights(), Boundaries(), routes, Windows(None))
        wire, node = Wire(), Node()
        its.connection_made(wire)
        its.join(node)
        its.data_received(set_input(1) + set_rows(0, 1) + GRAPH)
        node.told.clear()
        return say(its, node, wire)

    return asyncio.run(scenario())


def test_a_read_copies_caches_of_its_kind_alone():
    """Not the large one of the layers with full attention; and nothing of it is for a recruit."""

    def say(its, node, wire):
        before = its.told()
        its.data_received(READ_ALL)
        assert [(tensor, size) for tensor, size, _ in node.asked] == [(CACHE, 8 * ROW_BYTES)]
        node.answer()
        its._flush()
        size = 8 * ROW_BYTES
        start = Answer(Command.GET_TENSOR, size, b"").start()
        assert bytes(wire.given) == start + b"\1" * size
        assert its.told() == before
        its.data_received(READ_ALL)
        assert (node.asked, node.told) == ([], [])

    talk(say)


def test_little_of_much_is_read_from_the_node():
    """All that the cache lacks would come before the first byte of it."""

    def say(its, node, _wire):
        its.data_received(get_tensor(BIG, 0, 64))
        assert node.asked == []
        assert [entry.frame.command for entry in node.told] == [Command.GET_TENSOR]

    talk(say)


def test_small_reads_of_little_are_copied():
    """Some builds read a cache in many parts: one round trip for all of them."""

    def say(its, node, _wire):
        its.data_received(get_tensor(CACHE, 0, 2))
        assert len(node.asked) == 1

    talk(say)


@pytest.mark.parametrize("after", [
    SIZE_OF, request(Command.SET_TENSOR_HASH, CACHE + bytes(16)),
])  # fmt: skip
def test_no_answer_overtakes_a_read_that_waits(after):
    """What is answered here comes after it, too; and no window is closed meanwhile."""

    def say(its, node, wire):
        its.data_received(READ_ALL)
        assert not its.is_between_steps
        its.data_received(after)
        assert bytes(wire.given) == b""
        assert node.told[0].frame.command == Command.GET_TENSOR
        assert len(node.told) == 2

    talk(say)


def test_a_read_of_nothing_is_answered():
    """By whoever; nobody waits for its data."""

    def say(its, node, wire):
        its.data_received(get_tensor(CACHE, 0, 0))
        assert (node.told, node.asked) == ([], [])
        assert bytes(wire.given) == Answer(Command.GET_TENSOR, 0, b"").start()
        assert its.is_between_steps

    talk(say)


def test_what_was_given_of_a_copy_stays_as_it_was():
    """A recording keeps where it began while the copy goes on; nothing is copied for it."""
    kept = Journal().caches
    assert list(kept.frames()) == []
    copy = KeptBytes()
    copy.put(0, b"a" * (KEPT_BYTES + 10))
    parts = list(copy.parts())
    copy.put(KEPT_BYTES + 4, b"bb")
    now = list(copy.parts())
    assert parts[0][1] is now[0][1]
    assert (parts[1][1], now[1][1]) == (b"a" * 10, b"aaaabbaaaa")
    assert copy.get(KEPT_BYTES - 1, KEPT_BYTES + 6) == b"aaaaabb"
    copy.change(3, 4)
    assert copy.get(0, 4) is None
    assert copy.get(4, 8) == b"aaaa"
