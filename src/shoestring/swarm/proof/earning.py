"""The node's end of a session's receipts: compares what the client worded with its own, and signs.

The answer to a SETTLE is ``0x01`` and the node's signature, or ``0x00``, ``u32`` length, a JSON
object ``{"reason", "message", "receipt"}``, and the leaves of the node's own window, 32 bytes each:
so the client can name the first frame that is not the same.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError
from shoestring.swarm.proof.reading import read_receipt
from shoestring.swarm.proof.receipts import (
    SIGNATURE_BYTES,
    canonical,
    check_client,
    countersign,
    next_receipt,
)
from shoestring.swarm.proof.tally import HELD_BYTES, MOST_BEHIND, Tally
from shoestring.swarm.wire import COMPUTES, U32, WITH_DATA, BadFrameError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.swarm.proof.receipts import Hand, Receipt
    from shoestring.swarm.proof.tally import Record
    from shoestring.swarm.proof.terms import Terms
    from shoestring.swarm.wire import Frame

ACCEPTED: Final = b"\1"
REFUSED: Final = b"\0"
DAY_S: Final = 86_400


class Earner:
    """Meters one session at its node.

    Args:
        terms: of it; None: there are none, and nothing is computed. For sessions of a node with a
            price that are there to prepare.
        hand: that signs.
        now: seconds since 1970.
    """

    def __init__(
        self, terms: Terms | None, hand: Hand, now: Callable[[], float] = time.time
    ) -> None:
        self._terms, self._hand, self._now = terms, hand, now
        self._tally = Tally()
        self._last: Receipt | None = None
        self._heard: Record | None = None
        """Of the last frame, if it is metered."""
        self._asked: deque[Record | None] = deque()
        """Of what the worker is asked for."""
        self._told: Record | None = None
        """Of the answer that comes."""
        self._behind: list[Callable[[], None]] = []
        """What was taken and is not metered yet."""
        self._behind_bytes = 0
        """Of data among that."""
        self._has_compute = self._has_told = False
        """Some of that is a graph, or of an answer."""
        self._has_refused = False

    @property
    def unsigned_steps(self) -> int:
        """How many steps were computed for a price and are not signed for."""
        return self._tally.open_steps if self._is_priced else 0

    def note(self, frame: Frame) -> None:
        """Take the next frame, before anything in it is changed.

        Like all that comes and goes it is metered by :meth:`catch_up`, when nobody waits for it.

        Raises:
            BadFrameError: it would compute what nobody signs for.
        """
        if frame.command in COMPUTES:
            if self._has_compute:
                self.catch_up()  # it may be a step, which counts
            self._check_paid()
            self._has_compute = True
        self._behind.append(partial(self._note, frame))

    def hear(self, part: bytes) -> None:
        """Take the next of the last frame's body, or of what was pushed in its place."""
        self._behind.append(partial(self._hear, part))
        self._behind_bytes += len(part)

    def begin(self) -> None:
        """Take note that the next answer with data begins."""
        self._behind.append(self._begin)

    def tell(self, part: bytes) -> None:
        """Take the next of its data."""
        self._behind.append(partial(self._tell, part))
        self._has_told = True

    @property
    def is_due(self) -> bool:
        """Whether to catch up once all that was taken has gone on.

        The worker computes then, or has answered; what is set before a graph waits for the graph.
        """
        is_much = len(self._behind) >= MOST_BEHIND or self._behind_bytes >= HELD_BYTES
        return is_much or self._has_compute or self._has_told

    def catch_up(self) -> None:
        """Meter what was taken, and hash what is whole.

        Raises:
            BadFrameError: a graph is none.
        """
        behind, self._behind, self._behind_bytes = self._behind, [], 0
        self._has_compute = self._has_told = False
        for meter in behind:
            meter()

    def judge(self, claim: bytes) -> bytes:
        """Return the answer to a SETTLE: our signature, or what it should have said.

        Args:
            claim: a receipt's body, and the client's signature of it.

        Raises:
            BadFrameError: one was refused before; nothing is signed any more.
        """
        if self._has_refused:
            raise BadFrameError("disputed", "SETTLE after one that was refused")
        self.catch_up()
        try:
            receipt = self._signed(claim)
            own, leaves = self._own(receipt)
            if own != receipt:
                self._has_refused = True
                return _refusal("differs", "the node has other figures", own, leaves)
            signed = countersign(self._hand.identity, receipt, claim[-SIGNATURE_BYTES:])
        except BadValueError as error:
            self._has_refused = True
            return _refusal("receipt", str(error))
        self._tally.settle(len(leaves))
        self._last = receipt
        self._hand.keep(signed)
        return ACCEPTED + signed.by_node

    def _note(self, frame: Frame) -> None:
        self._heard = self._tally.note(frame)
        if frame.command in WITH_DATA:
            self._asked.append(self._heard)

    def _hear(self, part: bytes) -> None:
        if self._heard is not None and self._heard.add(part):
            self._heard.end()

    def _begin(self) -> None:
        self._told = self._asked.popleft()

    def _tell(self, part: bytes) -> None:
        if self._told is not None and self._told.add(part):
            self._told.end()

    def _signed(self, claim: bytes) -> Receipt:
        """Return what this session's client signed; before that nothing is compared."""
        receipt = read_receipt(claim[:-SIGNATURE_BYTES])
        if receipt.terms != self._terms:
            raise BadValueError("a receipt of other terms than this session's")
        check_client(receipt, claim[-SIGNATURE_BYTES:])
        return receipt

    @property
    def _is_priced(self) -> bool:
        return self._terms is not None and bool(self._terms.price_in or self._terms.price_out)

    def _check_paid(self) -> None:
        terms = self._terms
        if terms is None:
            raise BadFrameError("price", "this node has a price: nothing is computed without terms")
        if not self._is_priced:
            return
        if self._tally.is_lost or self._tally.open_steps >= terms.window_steps:
            raise BadFrameError(
                "unpaid", f"{self._tally.open_steps} steps are not signed for: no more is computed"
            )

    def _own(self, receipt: Receipt) -> tuple[Receipt, tuple[bytes, ...]]:
        """Return the receipt that we would word where the client's window ends."""
        settled = 0 if self._last is None else self._last.figures.frames
        frames = receipt.figures.frames - settled
        if self._terms is None or self._tally.is_lost:
            raise BadValueError("this session is not metered: there is nothing to sign")
        if not 0 < frames <= self._tally.open_frames:
            raise BadValueError(
                f"{receipt.figures.frames} frames; {settled} are settled and "
                f"{self._tally.open_frames} are not"
            )
        if not self._tally.is_complete(frames):
            raise BadValueError("the window has questions that were not answered yet")
        if self._last is not None and receipt.step < self._last.step:
            raise BadValueError(f"step {receipt.step} after step {self._last.step}")
        if abs(receipt.at_s - self._now()) > DAY_S:
            raise BadValueError(
                f"at_s {receipt.at_s}: more than a day from this node's clock; set both clocks"
            )
        window = self._tally.window(frames)
        own = next_receipt(self._terms, self._last, window, step=receipt.step, at_s=receipt.at_s)
        return own, window.leaves


def _refusal(
    reason: str, message: str, own: Receipt | None = None, leaves: tuple[bytes, ...] = ()
) -> bytes:
    said = canonical(
        {
            "reason": reason,
            "message": message[:500],
            "receipt": None if own is None else asdict(own),
        }
    )
    return REFUSED + U32.pack(len(said)) + said + b"".join(leaves)
