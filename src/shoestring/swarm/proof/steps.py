"""Where a step of llama-server begins, and how many positions it computes, as frames declare it.

A step begins where ``inp_pos`` is set, which has one number a position. Where a session never sets
it (a stage without attention) each graph is a step, and the rows of its activations count.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from shoestring.swarm.tensors import NUMBER_OF_TYPE
from shoestring.swarm.wire import NAME_AT, NAME_BYTES, U32, Command, tensor_name

if TYPE_CHECKING:
    from shoestring.swarm.wire import Frame

COMPUTES: Final = frozenset({int(Command.GRAPH_COMPUTE), int(Command.GRAPH_RECOMPUTE)})
SETS: Final = frozenset({int(Command.SET_TENSOR), int(Command.SET_PACKED), int(Command.SET_PUSHED)})
MOST_PARTS: Final = 64
"""Graphs that one step may have at one stage; those beyond it count as steps."""
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


class Steps:
    """Counts the steps of one session, or of one connection of llama-server.

    Attributes:
        count: of steps that were computed.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kinds: dict[bytes, Kind] = {}
        self._positions = self._rows = 0
        """That were declared since the last graph."""
        self._has_positions = False
        self._parts = 0
        """Graphs since the last step began."""

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

    def compute(self) -> int:
        """Note a graph; return the positions of the step that it begins, 0 if it begins none."""
        declared = self._positions if self._has_positions else max(self._rows, 1)
        self._positions = self._rows = 0
        self._parts += 1
        if not declared and self._parts <= MOST_PARTS:
            return 0
        self._parts = 0
        self.count += 1
        return max(declared, 1)


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
