"""What a layer of a request costs and takes at each seller, in whole numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from shoestring.swarm.ledger.amounts import PER_TOKENS
from shoestring.swarm.market.board import NANOSECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.board import Board
    from shoestring.swarm.market.requests import Request
    from shoestring.swarm.market.ways import Ways

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """Of sellers, by their place in these arrays; layers count from the first that is bought.

    Attributes:
        slots: on the board.
        first: the first layer that each can serve.
        end: the one after the last.
        most: layers of one session.
        unit: price of a layer, in millionths of a micro-credit.
        hop_ns: a round trip.
        layer_ns: a layer, of a token.
        prompt_hop_ns: round trips of the prompt.
        prompt_layer_ns: a layer, of the whole prompt.
        group: of sellers who know their ways to each other; -1: none.
        group_hop_ns: the shortest round trip to one of the group.
        group_most: layers that the whole group serves, at most all.
        trips: round trips of the prompt.
    """

    slots: Ints
    first: Ints
    end: Ints
    most: Ints
    unit: Ints
    hop_ns: Ints
    layer_ns: Ints
    prompt_hop_ns: Ints
    prompt_layer_ns: Ints
    group: Ints
    group_hop_ns: Ints
    group_most: Ints
    trips: float

    def __len__(self) -> int:
        return len(self.slots)

    def take(self, places: Ints) -> Costs:
        """Return those of some sellers."""
        columns = {name: column for name, column in vars(self).items() if name != "trips"}
        return Costs(**{name: column[places] for name, column in columns.items()}, trips=self.trips)

    def as_star(self) -> Costs:
        """Return those of the same sellers where nobody knows a way to another."""
        none = np.zeros_like(self.group)
        return replace(self, group=none - 1, group_hop_ns=none, group_most=none + 1)

    def alpha(self) -> Floats:
        """Return what a visit costs, at least: micro-credits, seconds, seconds to first (3, n).

        Nothing in a group: some neighbour may have paid the way there.
        """
        alone = self.group < 0
        return self.visit() * alone

    def visit(self) -> Floats:
        """Return what a visit costs by way of the client, likewise."""
        none = np.zeros(len(self))
        return np.stack([none, self.hop_ns / NANOSECONDS, self.prompt_hop_ns / NANOSECONDS])

    def beta(self) -> Floats:
        """Return what a layer costs, at least: micro-credits, seconds, seconds to first (3, n).

        Neighbours of a group pay one round trip together at least, and share it by their layers:
        a layer bears what it would if the whole group was used.
        """
        shared_s = (self.group >= 0) * self.group_hop_ns / (self.group_most * NANOSECONDS)
        none = np.zeros(len(self))
        return self.layer() + np.stack([none, shared_s, shared_s * self.trips])

    def layer(self) -> Floats:
        """Return what a layer costs beside all ways, likewise."""
        return np.stack([
            self.unit / PER_TOKENS, self.layer_ns / NANOSECONDS, self.prompt_layer_ns / NANOSECONDS
        ])  # fmt: skip

    def credit_ns(self) -> Ints:
        """Return what of a way may be borne by sellers that come behind each in its group."""
        return np.where(self.group >= 0, (self.hop_ns + self.group_hop_ns) // 2 + 1, 0)

    def sums(self, places: Ints, layers: Ints, saved_ns: Ints) -> Ints:
        """Return what a route costs: micro-credits, nanoseconds a token and to the first (3,).

        Args:
            places: of its sellers, in order.
            layers: of each.
            saved_ns: by each two neighbours.
        """
        return np.array([
            (-(-layers * self.unit[places] // PER_TOKENS)).sum(),
            (self.hop_ns[places] + layers * self.layer_ns[places]).sum() - saved_ns.sum(),
            (self.prompt_hop_ns[places] + layers * self.prompt_layer_ns[places]).sum()
            - np.rint(saved_ns * self.trips).astype(np.int64).sum(),
        ])  # fmt: skip

    def visited(self) -> tuple[Ints, Ints]:
        """Return groups, who is in none by itself in one, and the shortest round trip to each."""
        alone = self.group < 0
        new = self.group.max(initial=-1) + np.cumsum(alone)
        return np.where(alone, new, self.group), np.where(alone, self.hop_ns, self.group_hop_ns)

    def uncovered(self, layers: int) -> tuple[int, ...]:
        """Return the layers that nobody here serves."""
        begins = np.bincount(self.first, minlength=layers + 1)
        ends = np.bincount(self.end, minlength=layers + 1)
        return tuple(np.flatnonzero(np.cumsum(begins - ends)[:layers] == 0).tolist())


def costs_of(
    board: Board,
    request: Request,
    slots: Ints,
    *,
    rtt_ns: Ints | None = None,
    ways: Ways | None = None,
) -> Costs:
    """Return what sellers ask and take for a request.

    Args:
        board: where they are.
        request: what is bought.
        slots: theirs.
        rtt_ns: round trips by slot; None: the board's.
        ways: measured between sellers; None: a star.
    """
    first = np.maximum(board.column("first")[slots] - request.first, 0)
    end = np.minimum(board.column("end")[slots], request.end) - request.first
    rtt = (board.column("rtt_ns") if rtt_ns is None else rtt_ns)[slots]
    trips = request.trips_to_first
    most = np.minimum(board.column("most")[slots], end - first)
    group = np.full_like(slots, -1) if ways is None else ways.groups(slots)
    group_hop, group_most = _of_groups(group, rtt, most)
    prompt_layer = board.column("prompt_layer_ns")[slots] * request.prompt_tokens
    return Costs(
        slots=slots,
        first=first,
        end=end,
        most=most,
        unit=board.column("price_in")[slots] * request.prompt_tokens
        + board.column("price_out")[slots] * request.output_tokens,
        hop_ns=rtt,
        layer_ns=board.column("layer_ns")[slots],
        prompt_hop_ns=np.rint(rtt * trips).astype(np.int64),
        prompt_layer_ns=np.rint(prompt_layer).astype(np.int64),
        group=group,
        group_hop_ns=group_hop,
        group_most=np.minimum(group_most, request.layers),
        trips=trips,
    )


def _of_groups(group: Ints, rtt: Ints, most: Ints) -> tuple[Ints, Ints]:
    """Return the shortest round trip and all layers of each one's group."""
    count = int(group.max(initial=-1)) + 2
    hop = np.full(count, np.iinfo(np.int64).max)
    layers = np.zeros(count, dtype=np.int64)
    np.minimum.at(hop, group, rtt)  # the last place is that of -1
    np.add.at(layers, group, most)
    return np.where(group >= 0, hop[group], 0), layers[group]
