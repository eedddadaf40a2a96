"""What goes from stage to stage: learned in the star, replaced, and brought back."""

import asyncio
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.swarm.boundaries import MOST_RECENT, Boundaries
from shoestring.swarm.gathering import Gatherer
from shoestring.swarm.pushing import MOST_BYTES, Inbox, Incoming
from shoestring.swarm.tensors import NUMBER_OF_OP, TENSOR
from shoestring.swarm.wire import TWO_U64, BadFrameError, Command, Frame, get_tensor, graph_compute

SIZE = 1024
HERE, THERE = 0, 1


def tensor(name, op="ADD"):
    """Word a tensor."""
    made = np.zeros(1, TENSOR)
    made["id"], made["name"], made["op"] = 1, name.encode(), NUMBER_OF_OP[op]
    return made.tobytes()


def graph(*names):
    """Return the frame of a graph."""
    data = graph_compute(0, [1], [tensor(name) for name in names])
    return Frame(int(Command.GRAPH_COMPUTE), len(data) - 9, bytearray(data[9:]))


def reading(name, size=SIZE):
    """Return the entry of a read."""
    (entry,) = Gatherer(None).feed(get_tensor(tensor(name), 0, size), 0.0)
    return entry


def star(boundaries, name, target, body):
    """Let a tensor be read at the first stage and set at another, as llama-server does."""
    entry = reading(name, len(body))
    boundaries.computed(HERE, None)
    carried = boundaries.read(HERE, entry)
    boundaries.answered(entry.reply, hashlib.sha256(body).digest())
    if target is not None:
        assert boundaries.set(target, body) is None
    return carried


def body_of(number):
    """Return bytes that are like no others."""
    return number.to_bytes(8, "little") * (SIZE // 8)


@pytest.fixture
def boundaries():
    """A chain of which one graph is known."""
    made = Boundaries()
    made.computed(HERE, graph("a", "l_out-3"))
    return made


def test_what_was_carried_once_is_replaced(boundaries):
    """And comes back where it is set, whatever the numbers in it."""
    assert star(boundaries, "l_out-3", THERE, body_of(1)) is None
    carried = star(boundaries, "l_out-3", None, body_of(2))
    assert (carried.target, carried.size) == (THERE, SIZE)
    placeholder = boundaries.replace(carried)
    assert (len(placeholder), boundaries.replaced) == (SIZE, 1)
    assert boundaries.set(THERE, body_of(3)) is None
    assert boundaries.set(THERE, placeholder) is carried
    assert (boundaries.set(THERE, placeholder), boundaries.away) == (None, frozenset())


def test_a_prompts_graph_teaches_a_tokens(boundaries):
    """Shapes are not what it is known by; names and operations are."""
    star(boundaries, "l_out-3", THERE, body_of(1))
    boundaries.computed(HERE, graph("a", "l_out-3"))
    assert star(boundaries, "l_out-3", None, body_of(2)) is not None
    boundaries.computed(HERE, graph("a", "b", "l_out-3"))
    assert star(boundaries, "l_out-3", None, body_of(3)) is None


def test_what_went_nowhere_is_never_replaced(boundaries):
    """Logits are looked at; also if the same bytes are set somewhere much later."""
    star(boundaries, "logits", None, body_of(0))
    for number in range(1, MOST_RECENT + 1):
        star(boundaries, f"other-{number}", None, body_of(number))
    assert boundaries.set(THERE, body_of(0)) is None
    assert star(boundaries, "logits", THERE, body_of(50)) is None
    assert star(boundaries, "logits", THERE, body_of(51)) is None


def test_what_one_graph_gives_twice_is_never_replaced(boundaries):
    """The second time it may be for the user's own machine."""
    star(boundaries, "l_out-3", THERE, body_of(1))
    assert star(boundaries, "l_out-3", None, body_of(2)) is not None
    assert boundaries.read(HERE, reading("l_out-3")) is None
    assert star(boundaries, "l_out-3", None, body_of(3)) is None


def test_what_is_set_at_the_same_stage_is_not_carried(boundaries):
    """There is no way from a stage to itself."""
    star(boundaries, "l_out-3", HERE, body_of(1))
    assert star(boundaries, "l_out-3", None, body_of(2)) is None


def test_small_reads_are_not_replaced(boundaries):
    """They are cheap, and may be numbers that are looked at."""
    star(boundaries, "ids", THERE, b"x" * 64)
    assert star(boundaries, "ids", None, b"y" * 64) is None


def test_a_placeholder_that_does_not_come_back_is_the_last(boundaries):
    """Who waits for it learns its name, and its kind is read truly from then on."""
    star(boundaries, "l_out-3", THERE, body_of(1))
    boundaries.replace(star(boundaries, "l_out-3", None, body_of(2)))
    away = boundaries.away
    assert (len(away), boundaries.lose(away)) == (1, ["l_out-3"])
    assert boundaries.lose(away) == []
    assert star(boundaries, "l_out-3", None, body_of(3)) is None


def test_who_waits_is_told_when_one_comes_back(boundaries):
    """An answer is held until then."""
    told = []
    boundaries.on_back.add(lambda: told.append(len(boundaries.away)))
    star(boundaries, "l_out-3", THERE, body_of(1))
    boundaries.set(THERE, boundaries.replace(star(boundaries, "l_out-3", None, body_of(2))))
    assert told == [0]


class Pipe:
    """Stands for a transport that remembers whether it is read."""

    def __init__(self):
        """It is read."""
        self.reads, self.aborted = True, False

    def is_closing(self):
        """Tell."""
        return self.aborted

    def is_reading(self):
        """Tell."""
        return self.reads

    def pause_reading(self):
        """Note."""
        self.reads = False

    def resume_reading(self):
        """Note."""
        self.reads = True

    def abort(self):
        """Note."""
        self.aborted = True


def incoming(inbox):
    """Return a link that pushes, its transport, and what was refused."""
    refused = []
    link = Incoming(inbox, refused.append)
    pipe = Pipe()
    link.connection_made(pipe)
    return link, pipe, refused


@given(st.data())
def test_tickets_are_given_in_their_order_however_they_come(data):
    """Early, late, twice, and in pieces."""
    sizes = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=5))
    inbox, got = Inbox(), []
    link, _, refused = incoming(inbox)
    stream = b"".join(
        TWO_U64.pack(ticket, size) + bytes([ticket]) * size
        for ticket, size in enumerate(sizes)
        for _ in range(data.draw(st.integers(1, 2)))
    )
    wanted = 0
    while stream or wanted < len(sizes):
        if wanted < len(sizes) and len(got) == wanted and (not stream or data.draw(st.booleans())):
            inbox.want(wanted, sizes[wanted], got.append)
            wanted += 1
        elif stream:
            count = data.draw(st.integers(1, len(stream)))
            link.data_received(stream[:count])
            stream = stream[count:]
    assert got == [bytes([ticket]) * size for ticket, size in enumerate(sizes)]
    assert refused == []


def test_what_was_not_asked_for_is_held_up_to_a_bound(monkeypatch):
    """Then the link is not read until some of it is taken."""
    monkeypatch.setattr("shoestring.swarm.pushing.HELD_BYTES", 100)
    inbox, got = Inbox(), []
    link, pipe, _ = incoming(inbox)
    for ticket in range(3):
        link.data_received(TWO_U64.pack(ticket, 50) + bytes(50))
    assert not pipe.reads
    inbox.want(0, 50, got.append)
    assert (pipe.reads, len(got)) == (True, 1)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ((1, 8), TWO_U64.pack(1, 9) + bytes(9)),
        ((1, 8), TWO_U64.pack(1, MOST_BYTES + 1)),
        ((1, 8), TWO_U64.pack(1, 2**63)),
    ],
    ids=["another size", "too large", "much too large"],
)
def test_a_node_that_pushes_what_cannot_be_is_refused(wanted, said):
    """Its link ends at once."""
    inbox = Inbox()
    link, pipe, refused = incoming(inbox)
    inbox.want(*wanted, lambda _data: None)
    link.data_received(said)
    assert (pipe.aborted, [error.reason for error in refused]) == (True, ["ticket"])


def test_tickets_rise():
    """One that was had cannot be asked for again."""
    inbox = Inbox()
    inbox.want(5, 0, lambda _data: None)
    inbox.put(5, b"")
    with pytest.raises(BadFrameError, match="ticket 5 after 5"):
        inbox.want(5, 0, lambda _data: None)


def test_the_links_of_a_session_end_with_it():
    """Nothing is pushed to nobody."""

    async def end():
        inbox = Inbox()
        _, pipe, _ = incoming(inbox)
        inbox.end()
        return pipe.aborted

    assert asyncio.run(end())
