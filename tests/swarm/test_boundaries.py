"""What goes from stage to stage: learned in the star, replaced, and brought back."""

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from shoestring.swarm.boundaries import MOST_RECENT, Boundaries
from shoestring.swarm.gathering import Gatherer
from shoestring.swarm.pushing import MOST_BYTES, MOST_LINKS, NOTE_BYTES, Inbox, Incoming
from shoestring.swarm.tensors import NUMBER_OF_OP, TENSOR
from shoestring.swarm.wire import TWO_U64, BadFrameError, Command, Frame, get_tensor, graph_compute

SIZE = 1024
HERE, THERE = 0, 1
US = "our connection"


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
    boundaries.computed(US, None)
    carried = boundaries.read(US, HERE, entry)
    boundaries.answered(entry.reply, blake3(body).digest())
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
    made.computed(US, graph("a", "l_out-3"))
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
    boundaries.computed(US, graph("a", "l_out-3"))
    assert star(boundaries, "l_out-3", None, body_of(2)) is not None
    boundaries.computed(US, graph("a", "b", "l_out-3"))
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
    assert boundaries.read(US, HERE, reading("l_out-3")) is None
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


def test_a_connection_that_ends_takes_its_own_placeholders_alone(boundaries):
    """Another that comes and goes at the same stage has none."""
    star(boundaries, "l_out-3", THERE, body_of(1))
    placeholder = boundaries.replace(star(boundaries, "l_out-3", None, body_of(2)))
    boundaries.forget("another connection")
    assert len(boundaries.away) == 1
    boundaries.forget(US)
    assert (boundaries.away, boundaries.set(THERE, placeholder)) == (frozenset(), None)


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


def incoming(inbox, by="a node"):
    """Return a link that pushes, and its transport."""
    link = Incoming(inbox, by)
    pipe = Pipe()
    link.connection_made(pipe)
    return link, pipe


@given(st.data())
def test_tickets_are_given_in_their_order_however_they_come(data):
    """Early, late, twice, and in pieces."""
    sizes = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=5))
    inbox, got = Inbox(), []
    link, pipe = incoming(inbox)
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
    assert not pipe.aborted


def test_what_was_not_asked_for_is_held_up_to_a_bound(monkeypatch):
    """Then the link is not read until some of it is taken."""
    monkeypatch.setattr("shoestring.swarm.pushing.HELD_BYTES", 2 * (50 + NOTE_BYTES))
    inbox, got = Inbox(), []
    link, pipe = incoming(inbox)
    for ticket in range(3):
        link.data_received(TWO_U64.pack(ticket, 50) + bytes(50))
    assert not pipe.reads
    inbox.want(0, 50, got.append)
    assert (pipe.reads, len(got)) == (True, 1)


def test_what_is_waited_for_comes_also_where_too_much_is_held(monkeypatch):
    """A neighbour that floods the session keeps nobody else from giving it what is right."""
    monkeypatch.setattr("shoestring.swarm.pushing.HELD_BYTES", 2 * (50 + NOTE_BYTES))
    inbox, got = Inbox(), []
    flood, right = incoming(inbox), incoming(inbox)
    inbox.want(1, 50, got.append)
    for ticket in range(2, 9):
        flood[0].data_received(TWO_U64.pack(ticket, 50) + bytes(50))
    assert right[1].reads
    right[0].data_received(TWO_U64.pack(1, 50) + b"1" * 50)
    assert (got, right[1].reads) == ([b"1" * 50], False)


def test_tickets_without_data_are_held_up_to_a_bound_too(monkeypatch):
    """Each is a note that takes memory."""
    monkeypatch.setattr("shoestring.swarm.pushing.HELD_BYTES", 100 * NOTE_BYTES)
    link, pipe = incoming(Inbox())
    for ticket in range(100):
        link.data_received(TWO_U64.pack(ticket, 0))
    assert pipe.reads
    link.data_received(TWO_U64.pack(100, 0))
    assert not pipe.reads


@pytest.mark.parametrize("size", [MOST_BYTES + 1, 2**63])
def test_a_node_that_pushes_what_cannot_be_loses_its_link_alone(size):
    """What was asked for still comes from another."""
    inbox, got = Inbox(), []
    link, pipe = incoming(inbox)
    inbox.want(1, 8, got.append)
    link.data_received(TWO_U64.pack(1, size))
    assert pipe.aborted
    incoming(inbox)[0].data_received(TWO_U64.pack(1, 8) + b"the data")
    assert got == [b"the data"]


@pytest.mark.parametrize("comes_first", [False, True])
def test_data_of_another_size_are_passed_over(comes_first):
    """A neighbour's, before or after they were asked for; the session's owner sends the true."""
    inbox, got = Inbox(), []
    if comes_first:
        inbox.put(1, "a node", b"wrong")
    inbox.want(1, 8, got.append)
    if not comes_first:
        inbox.put(1, "a node", b"wrong")
    assert got == []
    inbox.put(1, "the owner", b"the data")
    assert got == [b"the data"]


def test_links_of_a_key_are_few_and_take_no_others_place():
    """Each may hold a ticket that has not come whole; the oldest ends, it was left."""
    inbox, got = Inbox(), []
    _, owners = incoming(inbox, "the owner")
    links = [incoming(inbox) for _ in range(2 * MOST_LINKS)]
    assert [pipe.aborted for _, pipe in links] == [True] * MOST_LINKS + [False] * MOST_LINKS
    links[-1][0].connection_lost(None)
    assert not incoming(inbox)[1].aborted
    assert [pipe.aborted for _, pipe in links].count(False) == MOST_LINKS
    inbox.want(1, 8, got.append)
    incoming(inbox, "the owner")[0].data_received(TWO_U64.pack(1, 8) + b"the data")
    assert (got, owners.aborted) == ([b"the data"], False)


def test_of_who_may_push_no_more_nothing_is_left(monkeypatch):
    """What it pushed ahead would pass for another's; nor does it take the room of others."""
    monkeypatch.setattr("shoestring.swarm.pushing.HELD_BYTES", 4 * (8 + NOTE_BYTES))
    inbox, got = Inbox(), []
    (lost, pipe), (right, rights) = incoming(inbox, "lost"), incoming(inbox, "right")
    right.data_received(TWO_U64.pack(4, 8) + b"theright")
    for ticket in range(5, 10):
        lost.data_received(TWO_U64.pack(ticket, 8) + b"garbage!")
    assert not rights.reads
    inbox.forget("lost")
    assert (pipe.aborted, rights.aborted, rights.reads) == (True, False, True)
    lost.data_received(TWO_U64.pack(5, 8) + b"garbage!")
    for ticket in (4, 5):
        inbox.want(ticket, 8, got.append)
        right.data_received(TWO_U64.pack(ticket, 8) + b"theright")
    assert got == [b"theright"] * 2


def test_tickets_rise():
    """One that was had cannot be asked for again."""
    inbox = Inbox()
    inbox.want(5, 0, lambda _data: None)
    inbox.put(5, "a node", b"")
    with pytest.raises(BadFrameError, match="ticket 5 after 5"):
        inbox.want(5, 0, lambda _data: None)


def test_the_links_of_a_session_end_with_it():
    """Nothing is pushed to nobody, nor by one that came a moment too late."""
    inbox, got = Inbox(), []
    _, early = incoming(inbox)
    inbox.want(1, 0, got.append)
    inbox.end()
    link, late = incoming(inbox)
    link.data_received(TWO_U64.pack(1, 0))
    assert (early.aborted, late.aborted, got) == (True, True, [])
