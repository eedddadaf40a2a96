"""llama-server's frames, whole: what it sends to a stage, as entries of a journal.

A body is collected, for it may have to be sent again; one that lies in the model's file is
compared with it as it comes, and not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.splitting import Splitter
from shoestring.swarm.wire import ANSWERED, TENSOR_BYTES, U64, Command, Frame, tensor_name

if TYPE_CHECKING:
    from shoestring.swarm.weights import Weight, Weights


class Gatherer:
    """Makes entries of a stream of requests.

    Args:
        weights: of the model that llama-server loads.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._splitter = Splitter()
        self._frame: Frame | None = None
        """Whose body has not come whole."""
        self._parts: list[bytes] = []
        self._left = 0
        self._weight: Weight | None = None
        """With which the body agrees so far."""

    def feed(self, data: bytes, now_s: float) -> list[Entry]:
        """Take the next bytes; return the frames that they complete.

        Raises:
            BadFrameError: llama-server says what it never said before.
        """
        found: list[Entry] = []
        for piece in self._splitter.feed(data):
            if isinstance(piece, Frame):
                self._begin(piece)
            else:
                self._add(piece)
            if not self._left:
                found.append(self._end(now_s))
        return found

    def _begin(self, frame: Frame) -> None:
        self._frame = frame
        self._left = frame.size - len(frame.head)
        offset = U64.unpack_from(frame.head, TENSOR_BYTES + 1)[0] if self._left else 1
        if frame.command == Command.SET_TENSOR and offset == 0:
            self._weight = self._weights.find(tensor_name(frame.head), self._left)

    def _add(self, part: bytes) -> None:
        if self._weight is not None:
            at = len(self._weight.data) - self._left
            if self._weight.data[at : at + len(part)].tobytes() == part:
                self._left -= len(part)
                return
            self._parts.append(self._weight.data[:at].tobytes())
            self._weight = None
        self._parts.append(part)
        self._left -= len(part)

    def _end(self, now_s: float) -> Entry:
        frame, weight = self._frame, self._weight
        assert frame is not None
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._frame = self._weight = None
        self._parts = []
        reply = Reply(frame, now_s) if frame.command in ANSWERED else None
        return Entry(frame, body, weight, reply)
