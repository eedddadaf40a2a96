"""What a stage's worker was told, so that another can be brought to the same state.

Frames carry no addresses (docs/decisions/0006), so whoever is told the same in the same order
holds the same. Weights are not kept: they are named by where they stand in the model's file.

What grows with the answer is the cache of keys and values. Once a copy of it is here, what led to
it need not be told again (:meth:`Journal.condense`): what made the buffers, the weights, the last
inputs and the last graph (which a GRAPH_RECOMPUTE would run again) are told, then the copy, then
what came after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.swarm.caches import Caches
from shoestring.swarm.wire import (
    BUFFER_AT,
    COMPUTES,
    DATA_AT,
    TENSOR_BYTES,
    U32,
    U64,
    Command,
    Frame,
    answer_bytes,
    tensor_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.swarm.boundaries import Carried
    from shoestring.swarm.weights import Weight

STRUCTURE = frozenset(
    {
        Command.HELLO,
        Command.ALLOC_BUFFER,
        Command.BUFFER_GET_BASE,
        Command.FREE_BUFFER,
        Command.BUFFER_CLEAR,
        Command.INIT_TENSOR,
        Command.MEMSET_TENSOR,
    }
)
SPLITS = 8
"""Graphs of which one step may consist at one stage."""
QUESTIONS = frozenset(
    {
        Command.GET_ALIGNMENT,
        Command.GET_MAX_SIZE,
        Command.GET_TENSOR,
        Command.GET_DEVICE_MEMORY,
        Command.GET_ALLOC_SIZE,
        Command.DEVICE_COUNT,
    }
)
"""Requests that change nothing: told again only while their answer is owed."""


class Reply:
    """The answer to one request: given out once, by whoever has the next of it first.

    Attributes:
        command: of the request.
        size: of the whole answer.
        asked_s: when llama-server asked, on the loop's clock.
        payload: of an answer without data, once it is here.
        had_bytes: of its data that were given out.
        digest: of its data, once all were here.
        kept: its data, where llama-server was given a placeholder instead.
        away: placeholders that must come back before it is given out.
    """

    __slots__ = ("asked_s", "away", "command", "digest", "had_bytes", "kept", "payload", "size")

    def __init__(self, frame: Frame, asked_s: float) -> None:
        self.command = frame.command
        self.size = answer_bytes(frame)
        self.asked_s = asked_s
        self.payload: bytes | None = None
        self.had_bytes = 0
        self.digest: bytes | None = None
        self.kept: bytearray | None = None
        self.away: frozenset[bytes] = frozenset()

    @property
    def begun(self) -> bool:
        """Whether its start was given out."""
        return self.payload is not None

    @property
    def complete(self) -> bool:
        """Whether all of it was given out."""
        return self.payload is not None and len(self.payload) + self.had_bytes == self.size

    def fresh(self, at: int, data: bytes) -> bytes:
        """Return what of these data, which begin at ``at``, was not given out; now it is."""
        end = at + len(data)
        if end <= self.had_bytes:
            return b""
        new = data[self.had_bytes - at :] if at < self.had_bytes else data
        self.had_bytes = end
        return new


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """One frame of llama-server's, whole.

    Attributes:
        frame: its body follows it.
        body: empty where it has none, or where it is a weight.
        weight: what stands in the model's file instead of the body.
        reply: None where nothing is answered.
        carried: what it reads or sets, if that goes from node to node.
    """

    frame: Frame
    body: bytes = b""
    weight: Weight | None = None
    reply: Reply | None = None
    carried: Carried | None = None

    @property
    def data(self) -> bytes | bytearray:
        """Its body; of what is carried and set here, once it is here."""
        if self.carried is None or self.reply is not None or self.carried.reply.kept is None:
            return self.body
        return self.carried.reply.kept

    @property
    def is_done(self) -> bool:
        """Whether it was a question and has its answer."""
        return self.frame.command in QUESTIONS and self.reply is not None and self.reply.complete


class Journal:
    """The entries of one connection of llama-server, in their order.

    Attributes:
        caches: what one step leaves to the next; what they were copied as is told too.
    """

    def __init__(self) -> None:
        self.caches = Caches()
        self._before: list[Entry] = []
        """Up to where the caches were copied."""
        self._after: list[tuple[int, Entry]] = []
        """With the number of each; questions that were answered may be missing."""
        self._count = 0

    def add(self, entry: Entry) -> None:
        """Note what is told now."""
        if self._after and self._after[-1][1].is_done:
            self._after.pop()
        self._count += 1
        self._after.append((self._count, entry))
        self.caches.see(entry.frame, entry.body)

    def entries(self) -> list[Entry]:
        """Return what a fresh worker must be told to be where the others are."""
        copied = [Entry(frame, body) for frame, body in self.caches.frames()]
        after = [entry for _, entry in self._after if not entry.is_done]
        return [*self._before, *copied, *after]

    @property
    def mark(self) -> int:
        """How many entries were added."""
        return self._count

    def condense(self, mark: int) -> None:
        """Forget what led to a state of which the caches now hold a copy.

        Args:
            mark: as it was when the copy was asked for.
        """
        led = [entry for number, entry in self._after if number <= mark]
        self._before = _lasting([*self._before, *led], self.caches)
        self._after = [(number, entry) for number, entry in self._after if number > mark]


def _lasting(entries: Sequence[Entry], caches: Caches) -> list[Entry]:
    """Return what of these still counts when the state that they led to is set from a copy.

    Graphs come last: they are computed once more, and must find the last inputs. What the scheduler
    copied here (``backend#name#number``) long before the last graph came is none of its inputs:
    every step sets all of them, and their places and sizes change with the graph.
    """
    freed = {
        U64.unpack_from(entry.frame.head)[0]
        for entry in entries
        if entry.frame.command == Command.FREE_BUFFER
    }
    found: list[Entry] = []
    graphs: list[Entry] = []
    seen: set[tuple[int, ...]] = set()
    forgotten = False  # a worker forgets its graphs when a buffer is freed
    computed = 0  # times, before the last graph came
    for entry in reversed(entries):
        head, command = entry.frame.head, entry.frame.command
        forgotten |= command == Command.FREE_BUFFER
        if command in STRUCTURE:
            found.append(entry)
        elif command == Command.SET_TENSOR:
            buffer = U64.unpack_from(head, BUFFER_AT)[0]
            is_old = computed > SPLITS and "#" in tensor_name(head)
            place = U64.unpack_from(head, DATA_AT)[0] + U64.unpack_from(head, TENSOR_BYTES + 1)[0]
            size = entry.frame.size - len(head)
            key: tuple[int, ...] = (command, place, size)
            if not (key in seen or buffer in freed or is_old or caches.hold(place, size)):
                found.append(entry)
            seen.add(key)
        elif command == Command.GRAPH_COMPUTE:
            key = (command, U32.unpack_from(head)[0])
            if key not in seen and not forgotten:
                graphs.append(entry)
            seen.add(key)
        computed += bool(graphs) and command in COMPUTES
    return [*found[::-1], *graphs[::-1]]
