"""The fuzzer of sessions: its judge finds what gets past a firewall, and any bytes are an input."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.swarm.firewall import TO_WORKER, Firewall
from shoestring.swarm.session import Session
from shoestring.swarm.wire import ALLOC, TWO_U64, U64, Command
from shoestring.testing import rpc_frames
from shoestring.testing.rpc_frames import (
    BASE,
    BUFFER_BYTES,
    HELLO_ANSWER,
    POINTER,
    RULES,
    frame,
    getting,
    graph,
    setting,
    tensor,
)
from shoestring.testing.rpc_fuzz import Target, changed, seeds_of, spots_of, worded
from shoestring.testing.rpc_judge import FaultError
from shoestring.testing.rpc_relay import Heard

INPUTS = 2_000
TENSOR = tensor(16)
AT_WORKER = rpc_frames.changed(TENSOR, buffer=POINTER, data=BASE)
RECORDED = [
    frame(Command.HELLO, bytes(24)),
    frame(Command.ALLOC_BUFFER, ALLOC.pack(0, BUFFER_BYTES)),
    frame(Command.BUFFER_GET_BASE, U64.pack(1)),
    setting(TENSOR, body=64),
    getting(TENSOR, size=64),
    graph(TENSOR, tensor(16, offset=64, op="SCALE", src=[TENSOR])),
    frame(Command.GRAPH_RECOMPUTE, bytes(4)),
    frame(Command.FREE_BUFFER, U64.pack(1)),
]


@pytest.fixture
def spots():
    """The places of a session with one buffer."""
    made = TWO_U64.pack(POINTER, BUFFER_BYTES)
    told = TWO_U64.pack(1, BUFFER_BYTES)
    heard = Heard(
        requests=RECORDED,
        answers=[
            (Command.HELLO, HELLO_ANSWER, HELLO_ANSWER),
            (Command.ALLOC_BUFFER, made, told),
            (Command.BUFFER_GET_BASE, U64.pack(BASE), U64.pack(1 << 40)),
            (Command.GET_TENSOR, b"", b""),
        ],
    )
    return spots_of(heard, RULES)


@pytest.fixture
def target(spots):
    """What a fuzzer calls."""
    made = Target(spots, RULES)
    yield made
    made.close()


def test_recorded_frames_reach_the_worker(spots, target):
    """Without and with a buffer, and with a graph; those that we changed do not, or as they may."""
    assert [(len(spot.places), spot.has_graph) for spot in spots] == [
        (0, False),
        (1, False),
        (1, True),
    ]
    for data in seeds_of(spots):
        target(data)
    stock = sum(len(spot.seeds) for spot in spots) - 6
    assert target.frames == target.inputs == stock + 6
    assert target.reached >= stock
    for number in range(INPUTS):
        target(changed(Random(number), spots))
    assert target.refused["buffer"] > 0
    assert target.frames > target.inputs == INPUTS + stock + 6
    assert target.frames > target.reached + target.refused.total() // 2


@given(st.binary(max_size=900))
def test_any_bytes_are_an_input(data):
    """And are refused, or do no harm."""
    # A session of its own: hypothesis does not make fixtures anew.
    heard = Heard(requests=RECORDED[:2], answers=[(Command.HELLO, HELLO_ANSWER, HELLO_ANSWER)] * 2)
    heard.answers[1] = (
        Command.ALLOC_BUFFER, TWO_U64.pack(POINTER, BUFFER_BYTES), TWO_U64.pack(1, BUFFER_BYTES)
    )  # fmt: skip
    target = Target(spots_of(heard, RULES), RULES)
    try:
        target(data)
        target(data[:2] + worded(RECORDED[1]) + data[2:])
    finally:
        target.close()


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (getting(tensor(16, buffer=2)), "points to"),
        (getting(tensor(16, offset=BUFFER_BYTES - 8)), "points to"),
        (getting(AT_WORKER, offset=BUFFER_BYTES), "are of no buffer"),
        (frame(Command.FREE_BUFFER, U64.pack(POINTER + 1)), "is no buffer"),
        (frame(Command.TAKE, bytes(344)), "reached the worker"),
        (frame(Command.SET_TENSOR_HASH, bytes(312)), "reached the worker"),
        (frame(Command.HELLO, b"\1" * 24), "carries something"),
        (frame(Command.GET_ALIGNMENT, b"\1\0\0\0"), "for device 1"),
        (frame(Command.ALLOC_BUFFER, ALLOC.pack(0, 1 << 40)), "bytes in 2 buffers"),
        (frame(Command.GRAPH_RECOMPUTE, bytes(4)), "never computed"),
    ],
)
def test_the_judge_finds_what_a_firewall_lets_through(target, monkeypatch, said, fault):
    """One that lets all of it through."""
    monkeypatch.setattr(Firewall, "request", lambda _self, _frame: TO_WORKER)
    with pytest.raises(FaultError, match=fault):
        target(b"\1\0" + worded(said))


def test_an_agent_that_fails_is_a_fault(target, monkeypatch):
    """Also where a session takes note of it and ends."""

    async def fail():
        raise KeyError("nothing")

    monkeypatch.setattr(Session, "_take", lambda self, _frame, _out: self._wait_for(fail))
    take = frame(Command.TAKE, TENSOR + TWO_U64.pack(0, 64) + bytes(32))
    with pytest.raises(FaultError, match="failed here: KeyError"):
        target(b"\1\0" + worded(take))
