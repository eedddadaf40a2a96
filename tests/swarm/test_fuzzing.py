"""The fuzzer of sessions: its judge finds what gets past a firewall, and any bytes are an input."""

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.swarm.firewall import TO_WORKER, Firewall
from shoestring.swarm.own_commands import HELD, Shelf
from shoestring.swarm.proof.earning import ACCEPTED, Earner
from shoestring.swarm.session import Session
from shoestring.swarm.wire import ALLOC, COMPUTES, TWO_U64, U64, Command, Frame
from shoestring.testing import rpc_frames, rpc_fuzz
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
from shoestring.testing.rpc_fuzz import (
    EQUIPPED,
    Counts,
    Target,
    changed,
    seeds_of,
    spots_of,
    worded,
)
from shoestring.testing.rpc_judge import STOCK, FaultError
from shoestring.testing.rpc_relay import Heard
from shoestring.testing.rpc_session import claim_of, taking

FRAMES = 100_000
"""Changed ones that CI puts: under a minute of one core."""
TENSOR = tensor(16)
LARGE = tensor(1024, offset=4096)
"""As large as a weight that a store keeps."""
AT_WORKER = rpc_frames.changed(TENSOR, buffer=POINTER, data=BASE)
RECORDED = [
    frame(Command.HELLO, bytes(24)),
    frame(Command.ALLOC_BUFFER, ALLOC.pack(0, BUFFER_BYTES)),
    frame(Command.BUFFER_GET_BASE, U64.pack(1)),
    setting(TENSOR, body=64),
    setting(LARGE, body=4096),
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
    inputs = seeds_of(spots)
    for data in inputs:
        target(data)
    own = [seed for spot in spots for seed in spot.seeds if seed.command not in STOCK]
    stock = sum(len(spot.seeds) for spot in spots) - len(own)
    counts = target.counts
    # Once bare and once equipped; graphs once more, before a receipt.
    assert counts.inputs == len(inputs)
    assert counts.frames >= 2 * (stock + len(own))
    assert counts.reached >= 2 * stock
    # Receipts are worded for each graph; all else was recorded.
    assert counts.changed == sum(seed.command in COMPUTES for spot in spots for seed in spot.seeds)


def test_a_hundred_thousand_changed_frames_do_no_harm(spots, target):
    """Bare and equipped sessions, every one judged; frames that only repeat seeds do not count."""
    number = 0
    while target.counts.changed < FRAMES:
        number += 1
        target(changed(Random(number), spots))
    counts = target.counts
    assert counts.inputs == number
    assert counts.frames > counts.changed >= FRAMES
    assert counts.frames > counts.reached > 0
    assert {"buffer", "bounds", "command", "unpaid", "terms"} <= counts.refused.keys()


def test_what_a_refusal_kept_from_the_firewall_is_not_counted(target):
    """A count is of frames that were judged, not of those that were cut."""
    seed = worded(RECORDED[3])
    target(b"\1\0" + seed + b"\x7f" + bytes(8) + seed)
    assert (target.counts.frames, target.counts.changed, target.counts.reached) == (1, 1, 0)
    # In parts of 16 bytes the first comes before, and is judged and passed on.
    target(b"\1\1" + seed + b"\x7f" + bytes(8) + seed)
    assert (target.counts.frames, target.counts.changed, target.counts.reached) == (3, 2, 1)


def test_inputs_of_an_earlier_run_are_counted_apart(spots, target):
    """They are judged all the same."""
    again = Counts()
    target(seeds_of(spots)[0], again)
    assert (again.inputs, target.counts.inputs) == (1, 0)
    assert again.frames == 1


def test_an_equipped_session_has_receipts_and_a_store(target, monkeypatch):
    """A graph and a claim that fits are signed for; a weight that is held is set."""
    signed, held = [], []
    judge, take = Earner.judge, Shelf.take

    def judging(self, claim):
        signed.append(judge(self, claim))
        return signed[-1]

    async def taking_note(self, frame, feed):
        held.append(await take(self, frame, feed))
        return held[-1]

    monkeypatch.setattr(Earner, "judge", judging)
    monkeypatch.setattr(Shelf, "take", taking_note)
    graph_seed = RECORDED[6]
    said = worded(graph_seed) + worded(claim_of(graph_seed)) + worded(taking(RECORDED[4]))
    target(bytes((1, EQUIPPED)) + said)
    assert [answer[:1] for answer in signed] == [ACCEPTED]
    assert held == [HELD]
    assert target.counts.refused == {}
    target(b"\1\0" + said)
    assert target.counts.refused == {"terms": 1}


def test_what_never_ends_is_a_fault(target, monkeypatch):
    """Frames behind it would wait for ever, and nothing of it would be judged."""

    async def hang(_self, _frame, _feed):
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(rpc_fuzz, "WORK_S", 0.05)
    monkeypatch.setattr(Shelf, "take", hang)
    with pytest.raises(FaultError, match="had not ended"):
        target(bytes((1, EQUIPPED)) + worded(taking(RECORDED[4])))


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


def test_the_longest_frame_can_be_changed_and_worded():
    """A command with a longer head in its place says no more than a header holds."""
    longest = Frame(int(Command.SET_TENSOR), 2**64 - 1, bytearray(305))
    for seed in range(2_000):
        assert worded(rpc_frames.mutate(Random(seed), longest))


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
