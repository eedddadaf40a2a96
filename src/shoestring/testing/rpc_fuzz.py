"""A node's session put to any bytes, with a worker that is not there and judges what reaches it.

What a fuzzer gives is a place in a recorded session, how the bytes are cut, and the bytes:
``u8 place | u8 cut | stream``. They go through the session as from a link, splitter, firewall and
all. With the highest bit of ``cut`` the session has terms, a store and a way to another node. The
worker answers as one would, and has its own idea of its buffers: what points elsewhere,
or is no frame for a stock worker, is a fault; so is whatever ends the session but a refusal.
"""

from __future__ import annotations

import asyncio
import pickle  # nosec B403
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shoestring.swarm.wire import (
    COMPUTES,
    HEAD_BYTES,
    HEADER,
    SETTLE_BYTES,
    Command,
    Frame,
)
from shoestring.testing.rpc_frames import mutate
from shoestring.testing.rpc_judge import FaultError, Judge, Place
from shoestring.testing.rpc_relay import Replayed, again
from shoestring.testing.rpc_session import (
    CONTENT,
    End,
    Equipment,
    Watched,
    claim_of,
    taking,
)

if TYPE_CHECKING:
    import random

    from shoestring.swarm.firewall import Firewall, Rules
    from shoestring.testing.rpc_relay import Heard

FRAME_BYTES: Final = 32_768
"""Of a recorded frame that is a seed, and of what a fuzzer gives."""
SEEDS: Final = 4
"""Of each command at each place."""
BODY_BYTES: Final = 64
"""Of a body that comes; more may have been said."""
WORK_S: Final = 30.0
"""In which what a session began must have ended, on a machine that does much else too."""
CUT_BYTES: Final = 16
EQUIPPED: Final = 0x80
"""Of the second byte of an input: the session has all that a node may give to one."""


@dataclass
class Spot:
    """A place in a recorded session.

    Attributes:
        state: of the firewall there, pickled: a copy is made for each input.
        places: of the buffers that are there.
        has_graph: one was computed that may be computed again.
        seeds: frames that were said there.
    """

    state: bytes
    places: list[Place]
    has_graph: bool
    seeds: list[Frame] = field(default_factory=list)


def spots_of(heard: Heard, rules: Rules) -> list[Spot]:
    """Return the places of a session where its buffers are others, or there is a graph or none."""
    replayed, found, has_graph = Replayed(heard, rules), dict[Any, Spot](), False
    taken: Counter[tuple[Any, int]] = Counter()
    for frame in heard.requests:
        places = [place for place in replayed.places.values() if place[1]]
        key = (*places, has_graph)
        if frame.command != Command.HELLO and len(places) == len(replayed.places):
            if key not in found:
                found[key] = Spot(_state(replayed.firewall), places, has_graph)
            if taken[key, frame.command] < SEEDS and len(frame.head) < FRAME_BYTES:
                taken[key, frame.command] += 1
                found[key].seeds += [again(frame), *_own(frame)]
        replayed.go_on(again(frame))
        has_graph |= frame.command == Command.GRAPH_COMPUTE
        has_graph &= frame.command != Command.FREE_BUFFER
    return list(found.values())


def worded(frame: Frame) -> bytes:
    """Return a frame as it goes over the wire; of its body no more than a little comes."""
    body = min(frame.size - len(frame.head), BODY_BYTES)
    return frame.start() + bytes(body)


def seeds_of(spots: list[Spot]) -> list[bytes]:
    """Return the recorded frames as inputs, each where it was said; graphs with a receipt too."""
    found = []
    for number, spot in enumerate(spots):
        for frame in spot.seeds:
            said = worded(frame)
            found += [bytes((number, 0)) + said, bytes((number, EQUIPPED)) + said]
            if frame.command in COMPUTES:
                found.append(bytes((number, EQUIPPED)) + said + worded(claim_of(frame)))
    return found


def changed(rng: random.Random, spots: list[Spot], given: bytes = b"") -> bytes:
    """Return an input of a few frames, of which at least one was changed.

    Args:
        rng: of a seed.
        spots: where they may be said.
        given: an input whose first frame is changed; none: a seed is.
    """
    number = given[0] % len(spots) if given else rng.randrange(len(spots))
    frame = _first(given[2:]) or rng.choice(spots[number].seeds)
    frames = [worded(mutate(rng, again(frame)))]
    while rng.random() < 0.3:  # noqa: PLR2004 - some of them follow what changed the state
        frames.insert(rng.randrange(2), worded(rng.choice(spots[number].seeds)))
    cut = rng.choice((0, 0, 0, rng.randrange(EQUIPPED))) | rng.choice((0, EQUIPPED))
    return bytes((number, cut)) + b"".join(frames)


@dataclass
class Counts:
    """What came of inputs.

    Attributes:
        inputs: so many were given.
        frames: so many of them were judged: passed, answered by the agent, or refused.
        changed: those of the frames that are none of the recorded ones.
        reached: so many reached the worker.
        refused: inputs, by the firewall's or the splitter's reason.
    """

    inputs: int = 0
    frames: int = 0
    changed: int = 0
    reached: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Target:
    """What a fuzzer calls, again and again; each time it is a session of its own.

    Args:
        spots: of a recorded session.
        rules: of the firewall.

    Attributes:
        counts: of all inputs but those that were given other counts.
    """

    def __init__(self, spots: list[Spot], rules: Rules) -> None:
        self.counts = Counts()
        self._spots, self._rules = spots, rules
        seeds = [frame for spot in spots for frame in spot.seeds]
        self._known = frozenset(bytes(frame.start()) for frame in seeds)
        self._folder = tempfile.TemporaryDirectory()
        self._equipment = Equipment(Path(self._folder.name))
        self._loop = asyncio.new_event_loop()
        self._trouble: list[str] = []
        self._loop.set_exception_handler(lambda _loop, what: self._trouble.append(str(what)))

    def __call__(self, data: bytes, counts: Counts | None = None) -> None:
        """Put one input to a session.

        Args:
            data: the input.
            counts: where it is counted; None: with all others.

        Raises:
            FaultError: the firewall or the agent failed.
        """
        if len(data) > 2:  # noqa: PLR2004 - the place and the cut
            self._loop.run_until_complete(self._run(data, counts or self.counts))
            if self._trouble:
                trouble, self._trouble = "; ".join(self._trouble), []
                raise FaultError(trouble)

    def close(self) -> None:
        """End the loop, and leave nothing behind."""
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._folder.cleanup()

    async def _run(self, data: bytes, counts: Counts) -> None:
        spot = self._spots[data[0] % len(self._spots)]
        cut, equipment = data[1] % EQUIPPED, self._equipment if data[1] & EQUIPPED else None
        session = Watched(self._rules, self._known, equipment)
        judge = Judge(spot.places, self._rules, has_graph=spot.has_graph)
        # A recorded state in the place of a new one: it would take dozens of frames to come there.
        vars(vars(session)["_firewall"]).update(pickle.loads(spot.state))  # noqa: S301 # nosec B301
        session.client.connection_made(End())
        session.worker.connection_made(End(judge))
        try:
            for part in _parts(data[2:], cut * CUT_BYTES):
                if not session.client.transport.is_closing():  # type: ignore[union-attr]
                    session.client.data_received(part)
                    await _settle(session, judge)
            session.end("")
            how = await session.ended()
        finally:
            session.end("")
            await session.close()
        counts.inputs += 1
        counts.frames += session.judged
        counts.changed += session.changed
        counts.reached += judge.frames
        if session.refused is not None:
            counts.refused[session.refused.reason] += 1
        if how.startswith("failed here"):
            raise FaultError(how)


async def _settle(session: Watched, judge: Judge) -> None:
    """Let the worker answer, and what the session began come to its end or a push be awaited.

    Raises:
        FaultError: it comes to none.
    """
    while True:
        while judge.answers:
            session.worker.data_received(judge.answers.popleft())
        work = session.work
        # One that is done and still there has ended the session.
        if work is None or work.done() or session.inbox.wanted is not None:
            return
        done, _ = await asyncio.wait({work}, timeout=WORK_S)
        if not done:
            raise FaultError(f"what a frame began had not ended after {WORK_S:g} s")


def _parts(stream: bytes, cut: int) -> list[bytes]:
    step = cut or len(stream)
    return [stream[at : at + step] for at in range(0, len(stream), step)]


def _first(stream: bytes) -> Frame | None:
    """Return the first frame of a stream, if its head is there."""
    if len(stream) < HEADER.size:
        return None
    command, size = HEADER.unpack_from(stream)
    head = HEAD_BYTES.get(command, size)
    if head > size or HEADER.size + head > len(stream):
        return None
    return Frame(command, size, bytearray(stream[HEADER.size : HEADER.size + head]))


def _own(frame: Frame) -> list[Frame]:
    """Return what no llama-server says, but a client of ours, of what is set or read."""
    if frame.command == Command.SET_TENSOR and frame.size - len(frame.head) >= len(CONTENT):
        return [taking(frame)]
    if frame.command != Command.GET_TENSOR:
        return []
    with_more = {
        Command.TAKE: 32,
        Command.GET_PUSH: 8,
        Command.SET_PUSHED: 8,
        Command.SET_PACKED: 0,
    }
    found = [
        Frame(int(command), len(frame.head) + more, bytearray(frame.head) + bytes(more))
        for command, more in with_more.items()
    ]
    found[-1] = found[-1]._replace(size=found[-1].size + BODY_BYTES)
    ping, settle = bytearray(HEAD_BYTES[Command.PING]), bytearray(SETTLE_BYTES[0])
    return [
        *found,
        Frame(int(Command.PING), len(ping), ping),
        Frame(int(Command.SETTLE), len(settle), settle),
    ]


def _state(firewall: Firewall) -> bytes:
    """Return what a session changes in its firewall."""
    kept = {name: value for name, value in vars(firewall).items() if not _is_table(value)}
    return pickle.dumps(kept)


def _is_table(value: Any) -> bool:
    """Tell whether it is what to do for each command: methods of one firewall."""
    return isinstance(value, dict) and any(map(callable, value.values()))
