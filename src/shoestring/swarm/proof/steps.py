"""Where a step of llama-server begins, how many positions it computes, and through which layers.

A step begins where ``inp_pos`` is set, which has one number a position. Where a session never sets
it (a stage without attention) each graph is a step, and the rows of its activations count. A step
begins also, whatever is set, where a graph is computed again, or uses weights or caches that a
graph of the same step has used: names are a client's to choose, work is not.

How many positions a step has, its graphs show (:mod:`~shoestring.swarm.proof.graphs`); what is
declared counts where they show none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from shoestring.swarm.proof.figures import Layers
from shoestring.swarm.proof.graphs import Seen, see_graph
from shoestring.swarm.tensors import NUMBER_OF_TYPE
from shoestring.swarm.wire import NAME_AT, NAME_BYTES, U32, Command, tensor_name

if TYPE_CHECKING:
    from shoestring.swarm.wire import Frame

SETS: Final = frozenset({int(Command.SET_TENSOR), int(Command.SET_PACKED), int(Command.SET_PUSHED)})
MOST_PARTS: Final = 64
"""Graphs that one step may have at one stage; those beyond it count as steps."""
MOST_PLACES: Final = 65_536
"""Weights and caches that one step may use, likewise."""
MOST_NAMES: Final = 4_096
F32: Final = U32.pack(NUMBER_OF_TYPE["F32"])
TYPE_AT: Final = 8
COLUMNS_AT: Final = 20
ROWS_AT: Final = 24
COPY: Final = re.compile(r"[^#]*#(.*)#\d+")
"""What the scheduler calls a tensor of one backend at another."""
ACTIVATION: Final = re.compile(r".*-\d+|result_.*")
POSITIONS: Final = "inp_pos"


class Kind(NamedTuple):
    """What a tensor is, by its name and type.

    Attributes:
        name: its own, without what the scheduler adds.
        is_copy: the scheduler copied it here.
        is_activation: it is what one layer gives the next, or what comes out of the last.
    """

    name: str
    is_copy: bool
    is_activation: bool


class Computed(NamedTuple):
    """What a graph adds to a session's figures.

    Attributes:
        steps: 1 where it begins one, else 0.
        tokens_in: positions beyond the first of its step.
        tokens_out: the first of its step.
    """

    steps: int
    tokens_in: int
    tokens_out: int


class Steps:
    """Counts the steps of one session, or of one connection of llama-server.

    Attributes:
        count: of steps that were computed.
        layers: that were computed.
    """

    def __init__(self) -> None:
        self.count = 0
        self.layers = Layers()
        self._kinds: dict[bytes, Kind] = {}
        self._positions = self._rows = 0
        """That were declared since the last graph."""
        self._has_positions = False
        self._parts = 0
        """Graphs since the last step began."""
        self._graphs: dict[int, Seen] = {}
        """What the last graph of each device does."""
        self._step = Seen()
        """What the graphs of this step do together."""
        self._included: Seen | None = None
        """Whose layers were counted last."""
        self._counted = 0
        """Positions of this step that were counted."""

    def kind(self, head: bytearray) -> Kind:
        """Return what the tensor is that a head begins with."""
        raw = bytes(head[TYPE_AT : TYPE_AT + U32.size] + head[NAME_AT : NAME_AT + NAME_BYTES])
        known = self._kinds.get(raw)
        if known is None:
            if len(self._kinds) >= MOST_NAMES:
                self._kinds.clear()
            known = self._kinds[raw] = kind_of(head)
        return known

    def set(self, kind: Kind, head: bytearray) -> None:
        """Note what the scheduler sets before a graph."""
        if kind.name == POSITIONS:
            self._positions, self._has_positions = U32.unpack_from(head, COLUMNS_AT)[0], True
        elif kind.is_activation:
            self._rows = max(self._rows, U32.unpack_from(head, ROWS_AT)[0])

    def compute(self, frame: Frame) -> Computed:
        """Note a graph, or one that is computed again; return what it adds.

        Raises:
            BadFrameError: it is a graph that is none.
        """
        seen = self._see(frame)
        declared = self._positions if self._has_positions else max(self._rows, 1)
        self._positions = self._rows = 0
        self._parts += 1
        if declared or frame.command == Command.GRAPH_RECOMPUTE or self._is_again(seen):
            self._step, self._parts, self._counted = seen, 0, max(seen.positions or declared, 1)
            added = Computed(1, self._counted - 1, 1)
            self.count += 1
        else:
            shown = seen.positions if seen.computes else 0  # else it only moves caches
            added = Computed(0, max(0, shown - self._counted), 0)
            self._step, self._counted = self._step.plus(seen), max(shown, self._counted)
        if self._step is not self._included:  # a token computes what the one before did
            self._include(self._step)
        return added

    def _is_again(self, seen: Seen) -> bool:
        """Tell whether a graph cannot be of the step that is going on."""
        places = self._step.places
        is_much = self._parts > MOST_PARTS or len(places) > MOST_PLACES
        return is_much or not places.isdisjoint(seen.places)

    def _see(self, frame: Frame) -> Seen:
        """Return what is computed now, by the device that does it."""
        device = U32.unpack_from(frame.head)[0]
        if frame.command == Command.GRAPH_COMPUTE:
            self._graphs[device] = see_graph(frame.head)
        return self._graphs.get(device, Seen())

    def _include(self, step: Seen) -> None:
        known, self._included = self.layers, step
        numbers = {*step.blocks, known.first, known.last}
        found = sorted(number for number in numbers if number is not None)
        first, last = (found[0], found[-1]) if found else (None, None)
        self.layers = Layers(first, last, known.head or step.head, max(known.computed, step.depth))


def kind_of(head: bytearray) -> Kind:
    """Return what the tensor is that a head begins with."""
    whole = tensor_name(head)
    copied = COPY.fullmatch(whole)
    name = copied[1] if copied else whole
    is_floats = head[TYPE_AT : TYPE_AT + U32.size] == F32
    return Kind(name, copied is not None, is_floats and ACTIVATION.fullmatch(name) is not None)


def sets_activation(frame: Frame) -> bool:
    """Tell whether a frame sets an activation; such a one is never packed."""
    if frame.command != Command.SET_TENSOR:
        return False
    kind = kind_of(frame.head)
    return kind.is_copy and kind.is_activation
