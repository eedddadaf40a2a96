"""Who sells layers of one model now: a table that changes one row at a time.

Rows keep their place (*slot*) as long as their seller is on the board, so that whoever routes for
many clients can hold round trips by slot. Times are kept in whole nanoseconds, so that sums do not
depend on their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoestring.swarm.market.requests import Request

NANOSECONDS: Final = 1_000_000_000
MOST_PRICE: Final = 100_000_000
"""Micro-credits a million tokens and layer: 100 credits."""
MOST_LAYER_S: Final = 1_000.0
MOST_RTT_S: Final = 1_000.0
LONGEST_NS: Final = 1 << 51
"""26 days: who takes longer for a layer of a prompt, or its way, sells nothing. So the times of
1,024 layers at as many nodes add up to less than 2^63."""
COLUMNS: Final = {
    "first": np.int64, "end": np.int64, "most": np.int64, "price_in": np.int64,
    "price_out": np.int64, "layer_ns": np.int64, "prompt_layer_ns": np.float64,
    "rtt_ns": np.int64, "trust": np.float64, "until_s": np.float64, "free": np.int64,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Seller:
    """A node that sells layers, as it is known here.

    Attributes:
        id: its peer id.
        first: the first layer that it can serve.
        end: the one after the last.
        most_layers: of one session.
        price_in: micro-credits a million tokens of prompts and layer.
        price_out: likewise of answers.
        layer_s: seconds a layer and token of an answer.
        prompt_layer_s: seconds a layer and token of a prompt.
        rtt_s: a round trip between it and whoever asks.
        trust: 0 to 1.
        until_s: from then on it sells nothing at this price, in seconds since 1970.
        free: sessions that it could begin now.
        owner: to whom it is linked, by the signatures of both; None: to nobody.
    """

    id: str
    first: int
    end: int
    most_layers: int
    price_in: int
    price_out: int
    layer_s: float
    prompt_layer_s: float
    rtt_s: float = 0.0
    trust: float = 1.0
    until_s: float = math.inf
    free: int = 1
    owner: str | None = None


class Board:
    """Sellers of layers of one model.

    Args:
        model: as quotes name it.
        layers: that it has.
    """

    def __init__(self, model: str, layers: int) -> None:
        self.model = model
        self.layers = layers
        self._slots: dict[str, int] = {}
        self._sellers: list[Seller | None] = []
        self._open: list[int] = []
        self._columns: dict[str, NDArray[Any]] = {
            name: np.zeros(64, kind) for name, kind in COLUMNS.items()
        }

    def __len__(self) -> int:
        """How many slots there are, empty ones among them: the length of each column."""
        return len(self._sellers)

    def put(self, seller: Seller) -> int:
        """Put a seller on the board, in the place of what it sold before; return its slot.

        Raises:
            BadValueError: a value cannot be.
        """
        check_seller(seller, self.layers)
        slot = self._slots.get(seller.id)
        if slot is None:
            slot = self._open.pop() if self._open else self._new_slot()
            self._slots[seller.id] = slot
        self._sellers[slot] = seller
        row = {
            "first": seller.first, "end": seller.end, "most": seller.most_layers,
            "price_in": seller.price_in, "price_out": seller.price_out,
            "layer_ns": round(seller.layer_s * NANOSECONDS),
            "prompt_layer_ns": seller.prompt_layer_s * NANOSECONDS,
            "rtt_ns": round(seller.rtt_s * NANOSECONDS), "trust": seller.trust,
            "until_s": seller.until_s, "free": seller.free,
        }  # fmt: skip
        for name, value in row.items():
            self._columns[name][slot] = value
        return slot

    def remove(self, seller_id: str) -> None:
        """Take a seller off the board; who is not on it stays off."""
        slot = self._slots.pop(seller_id, None)
        if slot is not None:
            self._sellers[slot] = None
            self._columns["free"][slot] = 0
            self._open.append(slot)

    def set_free(self, slot: int, sessions: int) -> None:
        """Say how many sessions a seller could begin now."""
        self._columns["free"][slot] = sessions

    def set_price(self, slot: int, price_in: int, price_out: int) -> None:
        """Change what a seller asks, in micro-credits a million tokens and layer."""
        self._columns["price_in"][slot] = price_in
        self._columns["price_out"][slot] = price_out

    def slot(self, seller_id: str) -> int | None:
        """Return where a seller is; None: not on the board."""
        return self._slots.get(seller_id)

    def seller(self, slot: int) -> Seller:
        """Return who is at a slot, as last put there; price and sessions may have changed since."""
        found = self._sellers[slot]
        assert found is not None, "the slot of a seller"
        return found

    def slots(self) -> dict[str, int]:
        """Return the slot of each seller by its id."""
        return dict(self._slots)

    def column(self, name: str) -> NDArray[Any]:
        """Return a value of all slots; see :data:`COLUMNS`. It is not to be written to."""
        return self._columns[name][: len(self._sellers)]

    def usable(
        self, request: Request, now_s: float, rtt_ns: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Return the slots that could serve a layer of a request, whatever it costs and takes.

        But for :data:`LONGEST_NS`: of what takes longer, sums could not be told in 64 bits.

        Args:
            request: what is to be bought.
            now_s: seconds since 1970.
            rtt_ns: round trips by slot; None: the board's.
        """
        way_ns = self.column("rtt_ns") if rtt_ns is None else rtt_ns
        fits = (
            (self.column("free") > 0)
            & (self.column("until_s") > now_s)
            & (self.column("trust") >= request.least_trust)
            & (self.column("first") < request.end)
            & (self.column("end") > request.first)
            & (self.column("prompt_layer_ns") * request.prompt_tokens <= LONGEST_NS)
            & (way_ns * request.trips_to_first <= LONGEST_NS)
        )
        slots = np.flatnonzero(fits)
        if request.owners is not None:
            owners = request.owners
            kept = [slot for slot in slots.tolist() if self.seller(slot).owner in owners]
            slots = np.array(kept, dtype=np.int64)
        return slots

    def _new_slot(self) -> int:
        slot = len(self._sellers)
        self._sellers.append(None)
        for name, column in self._columns.items():
            if slot >= len(column):
                self._columns[name] = np.concatenate([column, np.zeros_like(column)])
        return slot


def check_seller(seller: Seller, layers: int) -> None:
    """Refuse what no node can sell.

    Raises:
        BadValueError: a value cannot be.
    """
    if not 0 <= seller.first < seller.end <= layers:
        raise BadValueError(
            f"layers {seller.first} to {seller.end} of {seller.id}: the model has {layers}"
        )
    bounds = {
        "most_layers": (1, layers), "price_in": (0, MOST_PRICE), "price_out": (0, MOST_PRICE),
        "layer_s": (0, MOST_LAYER_S), "prompt_layer_s": (0, MOST_LAYER_S),
        "rtt_s": (0, MOST_RTT_S), "trust": (0, 1), "free": (0, 1 << 32),
    }  # fmt: skip
    for name, (least, most) in bounds.items():
        value = getattr(seller, name)
        if not least <= value <= most:  # NaN, too
            raise BadValueError(f"{name} of {seller.id}: {value}: from {least:g} to {most:g}")
