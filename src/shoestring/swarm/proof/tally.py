"""What a session's frames add up to; the same at both ends of a link.

Metered are the frames of steps alone, as they are on the link, in the order in which they are told:
graphs, what the scheduler of llama.cpp sets for them (tensors named ``backend#name#number``), and
activations that are read. What only prepares (buffers, weights, caches that are copied or set) is
not. So weights that a node had already, and those that were sent, come to the same.

A frame's *leaf* is ``SHA-256(u8 command | u64 size | head | BLAKE3(data))``; its data are its body
as sent, the data of its answer, or what another node pushed. An activation (F32, named
``name-<layer>`` or ``result_...``) is also a leaf of the in- or the out-root, by the BLAKE3 of its
data alone: which is the same where it leaves one stage and where it enters the next.

Tokens are positions, as :mod:`~shoestring.swarm.proof.steps` counts them. What a graph rotates
(ROPE) is believed before what is declared: names are a client's to choose, shapes are checked. A
step of one position is output, of more is input. Layers are those of which a graph uses weights
(``blk.<layer>.``); the output head counts as one.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from shoestring.swarm.proof.merkle import root_of
from shoestring.swarm.proof.steps import COMPUTES, SETS, Steps
from shoestring.swarm.tensors import NUMBER_OF_OP, read_graph
from shoestring.swarm.wire import (
    HEADER,
    OFFSET_AT,
    U64,
    WITH_DATA,
    Command,
)

if TYPE_CHECKING:
    from shoestring.swarm.wire import Frame

MOST_RECORDS: Final = 16_384
"""Frames that are not settled; a window of 32 steps has some hundreds."""
HELD_BYTES: Final = 1 << 20
"""Of an answer that is being passed on, before it is hashed."""
ROPE: Final = NUMBER_OF_OP["ROPE"]
STEPS: Final = 1
"""Where steps are among the figures."""
BLOCK: Final = re.compile(rb"blk\.(\d{1,4})\.")
HEADS: Final = (b"output.weight", b"token_embd.weight")
"""Of a model whose output has weights of its own, and of one that uses its embeddings again."""


@dataclass(frozen=True)
class Figures:
    """What a run of frames comes to.

    Attributes:
        frames: that were metered.
        steps: of llama-server's, each of one or more positions.
        tokens_in: positions of steps of more than one.
        tokens_out: positions of steps of one.
        bytes_in: of the frames, and of what other nodes pushed in their place.
        bytes_out: of the answers.
    """

    frames: int = 0
    steps: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def plus(self, other: Figures) -> Figures:
        """Return both together."""
        return Figures(
            self.frames + other.frames,
            self.steps + other.steps,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
        )


@dataclass(frozen=True)
class Layers:
    """Which layers graphs used.

    Attributes:
        first: number of a block; None: of none.
        last: likewise.
        head: the output head was among them.
    """

    first: int | None = None
    last: int | None = None
    head: bool = False

    @property
    def count(self) -> int:
        """How many there are, the head counted as one."""
        blocks = 0 if self.first is None or self.last is None else self.last - self.first + 1
        return blocks + self.head


@dataclass(frozen=True)
class Window:
    """What a run of frames comes to, and its roots.

    Attributes:
        figures: of the run.
        layers: of the session so far.
        in_root: over the activations that were set, by the BLAKE3 of their data.
        out_root: over those that were read.
        leaves: of all its frames.
    """

    figures: Figures
    layers: Layers
    in_root: bytes
    out_root: bytes
    leaves: tuple[bytes, ...]

    @property
    def wire_root(self) -> bytes:
        """The root over all frames."""
        return root_of(self.leaves)


class Record:
    """One metered frame, whose data may still come.

    Attributes:
        leaf: of it; None: its data are not known yet.
        data: BLAKE3 of an activation's; None: it is none, or not known yet.
        adds: to each of the :class:`Figures`, in their order.
        layers: of the session once it was told.
    """

    __slots__ = (
        "_command", "_hash", "_held", "_held_bytes", "_is_activation", "_left", "_name", "_parts",
        "adds", "data", "layers", "leaf",
    )  # fmt: skip

    def __init__(
        self,
        frame: Frame,
        name: str,
        adds: tuple[int, ...],
        layers: Layers,
        *,
        data_bytes: int,
        is_activation: bool,
    ) -> None:
        self._command, self._name, self._is_activation = frame.command, name, is_activation
        self._hash = hashlib.sha256(HEADER.pack(frame.command, frame.size))
        self._hash.update(frame.head)
        self._parts = blake3()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._left = data_bytes
        self.adds, self.layers = adds, layers
        self.leaf: bytes | None = None
        self.data: bytes | None = None
        if not data_bytes:
            self.end()

    @property
    def name(self) -> str:
        """What it is, for people."""
        return f"{Command(self._command).name} {self._name}".strip()

    @property
    def enters(self) -> bool:
        """Whether it is an activation that is set."""
        return self._is_activation and self._command in SETS

    @property
    def leaves(self) -> bool:
        """Whether it is an activation that is read."""
        return self._is_activation and self._command in WITH_DATA

    def add(self, part: bytes) -> bool:
        """Take the next of its data; return whether they are whole now, and wait for :meth:`end`.

        They are hashed later, when nobody waits for them.
        """
        if not part:
            return False  # nothing was to come, and it is hashed
        self._held.append(part)
        self._held_bytes += len(part)
        self._left -= len(part)
        if self._held_bytes >= HELD_BYTES:
            self._hash_held()
        return not self._left

    def end(self) -> None:
        """Hash what is whole."""
        self._hash_held()
        self.fill(self._parts.digest())

    def fill(self, digest: bytes) -> None:
        """Take the BLAKE3 of its data."""
        self._hash.update(digest)
        self.leaf = self._hash.digest()
        if self._is_activation:
            self.data = digest

    def _hash_held(self) -> None:
        for part in self._held:
            self._parts.update(part)
        self._held, self._held_bytes = [], 0


class Tally:
    """Meters one session.

    Attributes:
        open_frames: that are not settled.
        open_steps: likewise.
        is_lost: there was too much of it, and nothing is metered any more.
    """

    def __init__(self) -> None:
        self.open_frames = self.open_steps = 0
        self.is_lost = False
        self._records: deque[Record] = deque()
        self._steps = Steps()
        self._layers = Layers()
        self._rotated = 0
        """Positions that the last graph rotates."""

    def note(self, frame: Frame) -> Record | None:
        """Take the next frame as it is on the link; return its record if it is metered.

        The record's data are the caller's to give, but for a graph, which has none.

        Raises:
            BadFrameError: it is a graph that is none.
        """
        command = frame.command
        if command in COMPUTES:
            record = self._compute(frame)
        elif command in SETS or command in WITH_DATA:
            noted = self._set_or_read(frame)
            if noted is None:
                return None
            record = noted
        else:
            return None
        if self.is_lost or len(self._records) >= MOST_RECORDS:
            self.is_lost = True
            self._records.clear()
            return None
        self._records.append(record)
        self.open_frames += 1
        self.open_steps += record.adds[STEPS]
        return record

    def is_complete(self, frames: int) -> bool:
        """Tell whether the data of so many frames, of those not settled, are known."""
        return frames <= len(self._records) and all(
            record.leaf is not None for record in islice(self._records, frames)
        )

    def window(self, frames: int) -> Window:
        """Return what the first so many of the open frames come to; they must be complete."""
        records = list(islice(self._records, frames))
        return Window(
            Figures(*map(sum, zip(*(record.adds for record in records), strict=True))),
            records[-1].layers if records else Layers(),
            root_of(record.data for record in records if record.enters and record.data),
            root_of(record.data for record in records if record.leaves and record.data),
            tuple(record.leaf for record in records if record.leaf),
        )

    def name(self, number: int) -> str:
        """Return what one of the open frames is, for people."""
        return self._records[number].name

    def settle(self, frames: int) -> None:
        """Forget so many of the open frames: both ends have signed for them."""
        for _ in range(frames):
            record = self._records.popleft()
            self.open_frames -= 1
            self.open_steps -= record.adds[STEPS]

    def _compute(self, frame: Frame) -> Record:
        if frame.command == Command.GRAPH_COMPUTE:
            self._see_graph(frame)
        declared = self._steps.compute()
        positions = declared and (self._rotated or declared)
        is_one = positions == 1
        adds = (1, positions > 0, 0 if is_one else positions, is_one, HEADER.size + frame.size, 0)
        return Record(frame, "", adds, self._layers, data_bytes=0, is_activation=False)

    def _see_graph(self, frame: Frame) -> None:
        tensors = read_graph(frame.head).tensors
        numbers = set() if self._layers.first is None else {self._layers.first, self._layers.last}
        head = self._layers.head
        for name in set(tensors["name"].tolist()):
            if (block := BLOCK.match(name)) is not None:
                numbers.add(int(block[1]))
            head |= name in HEADS
        known = sorted(number for number in numbers if number is not None)
        self._layers = Layers(known[0], known[-1], head) if known else Layers(None, None, head)
        rotated = tensors["ne"][tensors["op"] == ROPE, 2]
        self._rotated = int(rotated.max()) if len(rotated) else 0

    def _set_or_read(self, frame: Frame) -> Record | None:
        head, reads = frame.head, frame.command in WITH_DATA
        kind = self._steps.kind(head)
        if not (kind.is_activation if reads else kind.is_copy):
            return None
        size_in, size_out, data_bytes = HEADER.size + frame.size, 0, frame.size - len(head)
        if reads or frame.command == Command.SET_PUSHED:
            data_bytes = U64.unpack_from(head, OFFSET_AT + U64.size)[0]
        if reads:
            size_out = U64.size + data_bytes
        else:
            size_in = HEADER.size + len(head) + data_bytes
            self._steps.set(kind, head)
        adds = (1, 0, 0, 0, size_in, size_out)
        # What was packed is not what the stage before gave out.
        is_one = kind.is_activation and frame.command != Command.SET_PACKED
        return Record(
            frame, kind.name, adds, self._layers, data_bytes=data_bytes, is_activation=is_one
        )
