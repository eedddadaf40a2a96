"""The nodes of one operation and their sources, side by side, and what may be asked of them.

What a kernel touches follows from three ways to walk over a tensor: by all its strides, then it
stays in its extent; by rows whose numbers it takes to lie side by side (:attr:`Part.rows`); or
over rows that it takes to lie ``nb[1]`` from each other throughout (:attr:`Part.flat`). For the
last ``ggml_is_contiguous`` is not enough: it lets ``nb[1]`` be anything where ``ne[1]`` is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from shoestring.swarm.tensors import DIMENSIONS, NUMBER_OF_TYPE, TYPE_COUNT

if TYPE_CHECKING:
    from typing import Any

    from shoestring.swarm.firewall_graph import Columns

    # NDArray[np.int64] and NDArray[np.bool_]; numpy's own types say Any of most that is done here.
    Whole = Any
    Truths = Any


@dataclass(frozen=True)
class Part:
    """The same operand of several nodes; arrays have one entry a node, ``ne`` and ``nb`` four rows.

    Where an operand is not there the values are another tensor's; :attr:`here` says so.
    """

    columns: Columns
    at: Whole

    @cached_property
    def here(self) -> Truths:
        """Whether there is one."""
        return self.at >= 0

    @cached_property
    def ne(self) -> Whole:
        """Numbers along each side."""
        return self.columns.ne[self.at].T

    @cached_property
    def nb(self) -> Whole:
        """Bytes from one to the next along each side."""
        return self.columns.nb[self.at].T

    @cached_property
    def kind(self) -> Whole:
        """Type's number."""
        return self.columns.kind[self.at]

    @cached_property
    def block(self) -> Whole:
        """How many numbers are stored together."""
        return self.columns.block[self.at]

    @cached_property
    def size(self) -> Whole:
        """Bytes of a block."""
        return self.columns.size[self.at]

    @cached_property
    def elements(self) -> Whole:
        """How many numbers."""
        return self.ne.prod(axis=0)

    @cached_property
    def empty(self) -> Truths:
        """Whether it has no number."""
        return self.elements == 0

    @cached_property
    def rows(self) -> Truths:
        """Whether the numbers of a row lie side by side (``ggml_is_contiguous_rows``)."""
        return (self.nb[0] == self.size) | (self.ne[0] <= self.block)

    @cached_property
    def packed(self) -> Truths:
        """Whether numbers lie side by side also where a row has one; many kernels assert it."""
        return self.nb[0] == self.size

    @cached_property
    def flat(self) -> Truths:
        """Whether all rows, each ``nb[1]`` after the one before, lie in the tensor's extent."""
        ne, nb = self.ne, self.nb
        last = (np.maximum(ne[1:].prod(axis=0), 1) - 1) * nb[1]
        return self.rows & (last <= ((np.maximum(ne[1:], 1) - 1) * nb[1:]).sum(axis=0))

    @cached_property
    def contiguous(self) -> Truths:
        """Whether all numbers lie side by side (``ggml_is_contiguous``)."""
        ne, nb = self.ne, self.nb
        step = self.size * (ne[0] // self.block)
        right = self.rows.copy()
        for side in (1, 2, 3):
            right &= (ne[side] == 1) | (nb[side] == step)
            step = step * ne[side]
        return right

    @cached_property
    def upright(self) -> Truths:
        """Whether it is contiguous, and no stride is shorter than the one before it; or empty."""
        return self.contiguous & (self.empty | (self.nb[:-1] <= self.nb[1:]).all(axis=0))

    def of(self, *types: str) -> Truths:
        """Whether it is of one of these types."""
        return _among(types)[self.kind]

    def shaped(self, *ne: Whole | int) -> Truths:
        """Whether its sides are these; those that are not given are 1."""
        right = np.ones(len(self.at), bool)
        for side, wanted in enumerate((*ne, 1, 1, 1)[:DIMENSIONS]):
            right &= self.ne[side] == wanted
        return right

    def like(self, other: Part) -> Truths:
        """Whether the sides are the other's."""
        return (self.ne == other.ne).all(axis=0)

    def repeats(self, whole: Part) -> Truths:
        """Whether it fills the other by being repeated (``ggml_can_repeat``)."""
        fits = divides(self.ne, whole.ne).all(axis=0)
        return np.where(self.empty, whole.empty, fits)


@dataclass(frozen=True)
class Nodes:
    """All nodes of one operation in a graph."""

    columns: Columns
    at: Whole

    @cached_property
    def out(self) -> Part:
        """What they compute."""
        return Part(self.columns, self.at)

    def src(self, number: int) -> Part:
        """Their source of a number."""
        return Part(self.columns, self.columns.src[self.at, number])

    @cached_property
    def params(self) -> Whole:
        """Their ``op_params``; 16 rows."""
        return self.columns.tensors["op_params"][self.at].T


@cache
def _among(types: tuple[str, ...]) -> Truths:
    """Return for each type's number whether it is one of these."""
    table = np.zeros(TYPE_COUNT, bool)
    table[[NUMBER_OF_TYPE[name] for name in types]] = True
    return table


def divides(part: Whole, whole: Whole) -> Truths:
    """Whether ``whole`` is a multiple of ``part``, which is not 0."""
    return (part > 0) & (whole % np.maximum(part, 1) == 0)
