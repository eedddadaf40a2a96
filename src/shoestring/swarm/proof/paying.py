"""The client's end of a session's receipts: closes windows, words and signs them, and keeps them.

A window is closed after every so many steps, whichever answers are still owed: what it holds is
known by its number of frames. It is worded once all of its answers are here. So a receipt holds up
no step, and the next window may have begun. Half of what a node computes without a signature is a
window; the other half is on its way.
"""

from __future__ import annotations

import json
import struct
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError
from shoestring.swarm.proof.earning import ACCEPTED
from shoestring.swarm.proof.receipts import Signed, check_node, next_receipt, sign
from shoestring.swarm.proof.tally import Tally
from shoestring.swarm.remote import printable
from shoestring.swarm.wire import U32, Command

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.swarm.boundaries import Carried
    from shoestring.swarm.journal import Entry, Reply
    from shoestring.swarm.proof.agreeing import Asked
    from shoestring.swarm.proof.receipts import Hand, Receipt, Terms
    from shoestring.swarm.proof.tally import Record, Window
    from shoestring.swarm.wire import Frame

LEAF_BYTES: Final = 32


@dataclass(frozen=True)
class Paying:
    """What a chain's client wants receipts for, and what becomes of them.

    Attributes:
        asked: of every node.
        hand: that signs.
    """

    asked: Asked
    hand: Hand


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
        self._cuts: deque[tuple[int, int]] = deque()
        """Windows that are closed: the step, and the frames of the session until there."""
        self._step = 0
        self._unhashed: list[Record] = []
        self._asked: dict[Reply, Record] = {}
        self._claimed: tuple[Receipt, bytes, Window] | None = None
        self._is_broken = False

    @property
    def is_full(self) -> bool:
        """Whether the node would compute no more before a window is settled."""
        return not self._is_off and self._tally.open_steps >= self._terms.window_steps

    def note(self, frame: Frame, body: bytes | bytearray, entry: Entry) -> None:
        """Take the next frame, as it is sent.

        Args:
            frame: it.
            body: of it, as it is sent.
            entry: of llama-server's, for which it is.
        """
        record = None if self._is_off else self._tally.note(frame)
        if record is None:
            return
        self._frames += 1
        if record.leaf is not None:
            return
        if entry.reply is not None:
            self._asked[entry.reply] = record
        elif frame.command == Command.SET_PUSHED:
            assert entry.carried is not None, "another node's stage gives it"
            _fill_when_here(record, entry.carried)
        else:
            record.add(bytes(body))
            self._unhashed.append(record)

    def answered(self, reply: Reply, digest: bytes) -> None:
        """Take the BLAKE3 of the data of an answer."""
        if (record := self._asked.pop(reply, None)) is not None:
            record.fill(digest)

    def cut(self, step: int | None = None) -> None:
        """Close a window here, after this step of llama-server's; None: after the last one told."""
        self._step = max(self._step, step or 0)
        before = self._cuts[-1][1] if self._cuts else self._settled
        if self._frames > before:
            self._cuts.append((self._step, self._frames))

    def cut_if_none(self) -> None:
        """Close a window here if no closed one waits to be settled."""
        if not self._cuts:
            self.cut()

    def claim(self) -> bytes | None:
        """Return what a SETTLE says for the oldest closed window; None: nothing for now."""
        for record in self._unhashed:
            record.end()
        self._unhashed.clear()
        if self._is_off or self._claimed is not None or not self._cuts:
            return None
        step, frames = self._cuts[0]
        count = frames - self._settled
        if not self._tally.is_complete(count):
            return None
        window = self._tally.window(count)
        receipt = next_receipt(self._terms, self._last, window, step=step, at_s=int(self._now()))
        signature = sign(self._hand.identity, receipt)
        self._claimed = receipt, signature, window
        return receipt.body + signature

    def hear(self, answer: bytes) -> None:
        """Take the answer to the last claim."""
        assert self._claimed is not None, "an answer comes to a claim"
        receipt, signature, window = self._claimed
        self._claimed = None
        if answer[:1] != ACCEPTED:
            self._break(_explain(answer, receipt, window, self._tally.name))
            return
        signed = Signed(receipt, signature, answer[1:])
        try:
            check_node(signed)
        except BadValueError as error:
            self._break(str(error))
            return
        self._tally.settle(len(window.leaves))
        self._cuts.popleft()
        self._last = receipt
        self._hand.keep(signed)

    @property
    def has_open(self) -> bool:
        """Whether anything is not settled yet that could be."""
        return not self._is_off and (self._claimed is not None or bool(self._cuts))

    @property
    def _is_off(self) -> bool:
        return self._is_broken or self._tally.is_lost

    @property
    def _settled(self) -> int:
        return 0 if self._last is None else self._last.figures.frames

    def _break(self, why: str) -> None:
        self._is_broken = True
        self._dispute(why)


def _fill_when_here(record: Record, carried: Carried) -> None:
    """Meter what another node sends in our place once its bytes are here, too."""

    def fill() -> None:
        assert carried.reply.digest is not None, "its bytes are here"
        record.fill(carried.reply.digest)

    if carried.reply.digest is None:
        carried.waiting.append(fill)
    else:
        fill()


def _explain(answer: bytes, receipt: Receipt, window: Window, name_of: Callable[[int], str]) -> str:
    """Say what a node's refusal says, and which frame is the first that differs."""
    try:
        end = 1 + U32.size + U32.unpack_from(answer, 1)[0]
        said = json.loads(answer[1 + U32.size : end])
        message, own = said["message"], said["receipt"]
        figures = None if own is None else dict(own["figures"])
    except (ValueError, KeyError, TypeError, RecursionError, struct.error):
        return "it refused a receipt and said nothing that can be read"
    if figures is None:
        return f"it refused a receipt: {printable(message)}"
    leaves = answer[end:]
    for number, ours in enumerate(window.leaves):
        if leaves[number * LEAF_BYTES :][:LEAF_BYTES] != ours:
            return f"it refused a receipt: frame {number} of the window differs, {name_of(number)}"
    differing = [
        f"{name} {figures.get(name)!a:.40} there, {ours} here"
        for name, ours in asdict(receipt.figures).items()
        if figures.get(name) != ours
    ]
    return (
        f"it refused a receipt: every frame is the same, not {', '.join(differing) or 'the rest'}"
    )
