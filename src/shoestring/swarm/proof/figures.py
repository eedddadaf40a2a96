"""What receipts state: figures, layers, and the roots of one window."""

from __future__ import annotations

from dataclasses import dataclass

from shoestring.swarm.proof.merkle import root_of


@dataclass(frozen=True)
class Figures:
    """What a run of frames comes to.

    Attributes:
        frames: that were metered.
        steps: of llama-server's, each of one or more positions.
        tokens_in: positions of steps beyond the first of each.
        tokens_out: one of each step: what it gives out.
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
        first: number of a block by the names of weights; None: of none.
        last: likewise.
        head: the output head was among them.
        computed: at least so many were computed in one step, by what was done, whatever the names.
    """

    first: int | None = None
    last: int | None = None
    head: bool = False
    computed: int = 0

    @property
    def count(self) -> int:
        """How many are paid, the head counted as one."""
        blocks = 0 if self.first is None or self.last is None else self.last - self.first + 1
        return max(blocks + self.head, self.computed)


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
