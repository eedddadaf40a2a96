"""The client's end of a session's receipts: closes windows, words and signs them, and keeps them.

A window is closed after every so many steps, whichever answers are still owed: what it holds is
known by its number of frames. It is worded once all of its answers are here. So a receipt holds up
no step, and the next window may have begun. Half of what a node computes without a signature is a
window; the other half is on its way.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.swarm.proof.disputes import read_refusal
from shoestring.swarm.proof.earning import ACCEPTED
from shoestring.swarm.proof.receipts import Signed, check_node, next_receipt, sign
from shoestring.swarm.proof.tally import HELD_BYTES, MOST_BEHIND, MOST_RECORDS, Tally
from shoestring.swarm.wire import COMPUTES, Command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.swarm.boundaries import Carried
    from shoestring.swarm.journal import Entry, Reply
    from shoestring.swarm.proof.agreeing import Asked, Price
    from shoestring.swarm.proof.figures import Window
    from shoestring.swarm.proof.receipts import Hand, Receipt
    from shoestring.swarm.proof.tally import Record
    from shoestring.swarm.proof.terms import Terms
    from shoestring.swarm.wire import Frame


@dataclass(frozen=True)
class Paying:
    """What a chain's client wants receipts for, and what becomes of them.

    Attributes:
        asked: of every node.
        hand: that signs.
        prices: offered to each node, by its peer id; to others what ``asked`` says.
    """

    asked: Asked
    hand: Hand
    prices: Mapping[str, Price] = field(default_factory=dict)

    def asked_of(self, node: str) -> Asked:
        """Return what one node is asked for, by its peer id."""
        return replace(self.asked, most=self.prices.get(node, self.asked.most))


class Payer:
    """Meters one session at its client.

    Args:
        terms: of it.
        hand: that signs.
        dispute: told once, in a line, why the node does not sign or signed what it must not; there
            are no receipts of this session from then on.
        now: seconds since 1970.
    """

    def __init__(
        self,
        terms: Terms,
        hand: Hand,
        dispute: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._terms, self._hand, self._dispute, self._now = terms, hand, dispute, now
        self._tally = Tally()
        self._last: Receipt | None = None
        self._frames = 0
        """Metered so far."""
        self._behind: list[tuple[Frame, bytes | bytearray, Entry]] = []
        """What is sent and not metered yet."""
        self._behind_bytes = 0
        """Of bodies among that."""
        self._has_compute = False
        """Some of that is a graph."""
        self._cuts: deque[tuple[int, int]] = deque()
        """Windows that are closed: the step, and the frames of the session until there."""
        self._step = 0
        self._asked: dict[Reply, Record] = {}
        self._pushed: dict[Record, Carried] = {}
        """What another node sent in our place, of the frames that are not settled."""
        self._claimed: tuple[Receipt, bytes, Window] | None = None
        self._is_broken = False
        self._is_spent = False
        """We sign no more: what was computed last costs more than may be paid."""

    @property
    def is_full(self) -> bool:
        """Whether the node would compute no more before a window is settled, or would be unpaid."""
        if self._has_compute:
            self.catch_up()  # it may be a step, which counts
        is_whole = not self._is_broken and self._tally.open_steps >= self._terms.window_steps
        return self._is_spent or is_whole

    def note(self, frame: Frame, body: bytes | bytearray, entry: Entry) -> None:
        """Take the next frame, as it is sent; :meth:`catch_up` meters it when nobody waits for it.

        Args:
            frame: it.
            body: of it, as it is sent.
            entry: of llama-server's, for which it is.
        """
        if not self._is_broken:
            self._behind.append((frame, body, entry))
            self._behind_bytes += len(body)
            self._has_compute |= frame.command in COMPUTES

    @property
    def is_due(self) -> bool:
        """Whether to catch up once all that was taken is sent.

        The node computes then; what is set before a graph waits for the graph.
        """
        is_much = len(self._behind) >= MOST_BEHIND or self._behind_bytes >= HELD_BYTES
        return is_much or self._has_compute

    def catch_up(self) -> None:
        """Meter and hash what was sent.

        Raises:
            BadFrameError: a graph is none.
        """
        behind, self._behind = self._behind, []
        self._behind_bytes, self._has_compute = 0, False
        for frame, body, entry in behind:
            self._meter(frame, body, entry)

    def answered(self, reply: Reply, digest: bytes) -> None:
        """Take the BLAKE3 of the data of an answer."""
        self.catch_up()
        if (record := self._asked.pop(reply, None)) is not None:
            record.fill(digest)

    def cut(self, step: int | None = None) -> None:
        """Close a window here, after this step of llama-server's; 0 or None: in mid-step."""
        self.catch_up()
        self._step = max(self._step, step or 0)
        self._cut_at(self._frames)

    def cut_last(self, step: int | None) -> None:
        """Close the last window, and one before what is not here: that may never come.

        Those that were closed after that stay, for it may come yet. But one of them is cut in two,
        so of none it is said any more after which step it ends: roots are compared by that.

        Args:
            step: as of :meth:`cut`; where something is not here, all ends in mid-step.
        """
        self.catch_up()
        whole = self._settled + self._tally.whole_frames
        if whole < self._frames:
            later = [frames for _, frames in self._cuts if frames > whole]
            self._cuts = deque(cut for cut in self._cuts if cut[1] <= whole)
            last_step = 0 if self._last is None else self._last.step
            self._step, step = self._cuts[-1][0] if self._cuts else last_step, None
            for frames in (whole, *later):
                self._cut_at(frames)
        self.cut(step)

    def cut_if_none(self) -> None:
        """Close a window here if no closed one waits to be settled."""
        if not self._cuts:
            self.cut()

    def claim(self) -> bytes | None:
        """Return what a SETTLE says for the oldest closed window; None: nothing for now."""
        self.catch_up()
        if self._is_broken or self._is_spent or self._claimed is not None or not self._cuts:
            return None
        step, frames = self._cuts[0]
        count = frames - self._settled
        if not self._tally.is_complete(count):
            return None
        window = self._tally.window(count)
        receipt = next_receipt(self._terms, self._last, window, step=step, at_s=int(self._now()))
        if self._hand.allows is not None and not self._hand.allows(receipt):
            self._is_spent = True
            return None
        signature = sign(self._hand.identity, receipt)
        self._claimed = receipt, signature, window
        return receipt.body + signature

    def hear(self, answer: bytes) -> None:
        """Take the answer to the last claim."""
        assert self._claimed is not None, "an answer comes to a claim"
        receipt, signature, window = self._claimed
        self._claimed = None
        if answer[:1] != ACCEPTED:
            self._hear_refusal(answer, receipt, window)
            return
        signed = Signed(receipt, signature, answer[1:])
        try:
            check_node(signed)
        except BadValueError as error:
            self.stop(str(error))
            return
        for record in self._tally.settle(len(window.leaves)):
            self._pushed.pop(record, None)
        self._cuts.popleft()
        self._last = receipt
        self._hand.keep(signed)

    @property
    def has_open(self) -> bool:
        """Whether anything is not settled yet that could be."""
        is_off = self._is_broken or self._is_spent
        return not is_off and (self._claimed is not None or bool(self._cuts))

    def stop(self, why: str) -> None:
        """Sign nothing more of this session."""
        if not self._is_broken:
            self._is_broken = True
            self._dispute(why)

    @property
    def _settled(self) -> int:
        return 0 if self._last is None else self._last.figures.frames

    def _cut_at(self, frames: int) -> None:
        if frames > (self._cuts[-1][1] if self._cuts else self._settled):
            self._cuts.append((self._step, frames))

    def _meter(self, frame: Frame, body: bytes | bytearray, entry: Entry) -> None:
        record = self._tally.note(frame)
        if self._tally.is_lost:
            self.stop(f"{MOST_RECORDS} frames are not signed for: nothing more is counted")
        if record is None:
            return
        self._frames += 1
        if record.leaf is not None:
            return
        if entry.reply is not None:
            self._asked[entry.reply] = record
        elif frame.command == Command.SET_PUSHED:
            assert entry.carried is not None, "another node's stage gives it"
            self._pushed[record] = entry.carried
            _fill_when_here(record, entry.carried)
        else:
            record.add(bytes(body))
            record.end()

    def _hear_refusal(self, answer: bytes, receipt: Receipt, window: Window) -> None:
        """Say what differs; of what another node sent here, either of the two may lie."""
        refusal = read_refusal(answer, receipt, window)
        record = None if refusal.frame is None else self._tally.record(refusal.frame)
        if record is None:
            self.stop(refusal.why)
            return
        why = f"{refusal.why}, {record.name}"
        carried = self._pushed.get(record)
        if carried is None or carried.route is None:
            self.stop(why)
            return
        source = carried.route.source.name
        self.stop(f"{why}, which {source} sent: it or {source} lies, nothing is signed for either")
        carried.route.doubt(why)


def _fill_when_here(record: Record, carried: Carried) -> None:
    """Meter what another node sends in our place once its bytes are here, too."""

    def fill() -> None:
        assert carried.reply.digest is not None, "its bytes are here"
        record.fill(carried.reply.digest)

    if carried.reply.digest is None:
        carried.waiting.append(fill)
    else:
        fill()
