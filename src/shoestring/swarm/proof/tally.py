"""What a session's frames add up to; the same at both ends of a link.

Metered are the frames of steps alone, as they are on the link, in the order in which they are told:
graphs, what the scheduler of llama.cpp sets for them (tensors named ``backend#name#number``), and
activations that are read. What only prepares (buffers, weights, caches that are copied or set) is
not. So weights that a node had already, and those that were sent, come to the same.

A frame's *leaf* is ``SHA-256(u8 command | u64 size | head | BLAKE3(data))``; its data are its body
as sent, the data of its answer, or what another node pushed. All of a graph are data: some 300 KB,
which BLAKE3 hashes ten times as fast. An activation (F32, named
``name-<layer>`` or ``result_...``) is also a leaf of the in- or the out-root, by the BLAKE3 of its
data alone: which is the same where it leaves one stage and where it enters the next.

Tokens are positions: of each step one is output, the others are input. So whatever is put beside a
position costs something, and a prompt's step gives out the answer's first token. Where steps begin,
and how many positions and layers they have, is in :mod:`~shoestring.swarm.proof.steps`.
"""

from __future__ import annotations

import hashlib
from collections import deque
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from shoestring.swarm.proof.figures import Figures, Layers, Window
from shoestring.swarm.proof.merkle import root_of
from shoestring.swarm.proof.steps import SETS, Steps
from shoestring.swarm.wire import (
    COMPUTES,
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
"""Of data that an end may take before it meters them."""
MOST_BEHIND: Final = 256
"""Of what an end may take before it meters it; a token has some dozens."""
STEPS: Final = 1
"""Where steps are among the figures."""


class Record:
    """One metered frame, whose data may still come.

    Attributes:
        leaf: of it; None: its data are not known yet.
        data: BLAKE3 of an activation's; None: it is none, or not known yet.
        adds: to each of the :class:`Figures`, in their order.
        layers: of the session once it was told.
    """

    __slots__ = (
        "_command", "_hash", "_is_activation", "_left", "_name", "_parts",
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
        self._parts = blake3()
        (self._parts if frame.command in COMPUTES else self._hash).update(frame.head)
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
        """Take the next of its data; return whether all are here, and wait for :meth:`end`."""
        if not part:
            return False  # nothing was to come, and it is hashed
        self._parts.update(part)
        self._left -= len(part)
        return not self._left

    def end(self) -> None:
        """Say that its data are whole."""
        self.fill(self._parts.digest())

    def fill(self, digest: bytes) -> None:
        """Take the BLAKE3 of its data."""
        self._hash.update(digest)
        self.leaf = self._hash.digest()
        if self._is_activation:
            self.data = digest


class Tally:
    """Meters one session.

    Attributes:
        open_frames: that are not settled.
        open_steps: likewise.
        is_lost: there was too much of it, and nothing is metered any more; steps are counted.
    """

    def __init__(self) -> None:
        self.open_frames = self.open_steps = 0
        self.is_lost = False
        self._records: deque[Record] = deque()
        self._steps = Steps()

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
        self.open_steps += record.adds[STEPS]  # it is computed, signed for or not
        if self.is_lost or len(self._records) >= MOST_RECORDS:
            self.is_lost = True
            self._records.clear()
            return None
        self._records.append(record)
        self.open_frames += 1
        return record

    @property
    def whole_frames(self) -> int:
        """How many of the open frames have their data, up to the first that has not."""
        return sum(1 for _ in takewhile(lambda record: record.leaf is not None, self._records))

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

    def record(self, number: int) -> Record | None:
        """Return one of the open frames; None: it is lost."""
        return self._records[number] if number < len(self._records) else None

    def settle(self, frames: int) -> list[Record]:
        """Forget so many of the open frames, and return them: both ends have signed for them."""
        settled = [self._records.popleft() for _ in range(min(frames, len(self._records)))]
        self.open_frames -= len(settled)
        self.open_steps -= sum(record.adds[STEPS] for record in settled)
        return settled

    def _compute(self, frame: Frame) -> Record:
        adds = (1, *self._steps.compute(frame), HEADER.size + frame.size, 0)
        layers = self._steps.layers
        return Record(frame, "", adds, layers, data_bytes=0, is_activation=False)

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
            frame, kind.name, adds, self._steps.layers, data_bytes=data_bytes, is_activation=is_one
        )
