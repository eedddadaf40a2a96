"""The tensors that one step of llama.cpp leaves to the next, and a copy of them at the client.

They are the caches of keys and values, and the states of recurrent layers. Which they are, what is
read of them and which rows are written, the graphs say: tensors that nothing computes and that
something is written into, views of them, and SET_ROWS into them by rows that llama-server sets
before. So only what changed since the last copy is asked for, which for a token is some rows; where
that cannot be seen it is the whole tensor.

There are two copies of each. One is of all caches at one moment, for a recruit: it is told with
what came after that moment, so all of it must be as it was then. The other is for llama-server,
which reads caches of one kind: it is as new as each of them was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shoestring.swarm.firewall_tensors import see_tensor
from shoestring.swarm.kept_bytes import KeptBytes
from shoestring.swarm.tensors import EMPTY_OPS, NUMBER_OF_OP, NUMBER_OF_TYPE, read_graph
from shoestring.swarm.wire import (
    BUFFER_AT,
    COMPUTES,
    DATA_AT,
    TENSOR_BYTES,
    TWO_U64,
    U32,
    U64,
    Command,
    Frame,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NONE: Final = NUMBER_OF_OP["NONE"]
SET_ROWS: Final = NUMBER_OF_OP["SET_ROWS"]
VIEWS: Final = tuple(NUMBER_OF_OP[name] for name in EMPTY_OPS)
ROW_NUMBERS: Final = {NUMBER_OF_TYPE["I64"]: "<i8", NUMBER_OF_TYPE["I32"]: "<i4"}
TYPE_AT: Final = 8
PART_BYTES: Final = 4 << 20
"""That are asked for at once."""
WRITES: Final = frozenset(
    {Command.SET_TENSOR, Command.MEMSET_TENSOR, Command.COPY_TENSOR, Command.INIT_TENSOR}
)


@dataclass(eq=False)
class Cache:
    """One such tensor.

    Attributes:
        tensor: as it is worded.
        extent: bytes of it.
        used: bytes from its begin that some graph has read, or that were copied into it by
            COPY_TENSOR: from what, is gone when a recruit is told.
        told: the copy for a recruit.
        read: the copy for llama-server.
    """

    tensor: bytes
    extent: int
    used: int = 0
    told: KeptBytes = field(default_factory=KeptBytes)
    read: KeptBytes = field(default_factory=KeptBytes)

    def change(self, start: int, end: int) -> None:
        """Note that bytes were written."""
        self.told.change(start, end)
        self.read.change(start, end)


@dataclass(frozen=True)
class Piece:
    """Bytes of a cache that are asked for, for one of its copies."""

    cache: Cache
    copy: KeptBytes
    start: int
    size: int


class Caches:
    """All of one connection of llama-server's."""

    def __init__(self) -> None:
        self._found: dict[int, Cache] = {}
        """By address."""
        self._rows: dict[int, list[tuple[Cache, int, int]]] = {}
        """Caches that are written by rows, with the bytes of one and where the first begins, by the
        address of the rows."""
        self._numbers: dict[int, tuple[int, int]] = {}
        """The least and the greatest of what was set last, of whole numbers, by address."""
        self._in_place: list[Cache] = []
        """Those that the last graph writes without saying where."""

    def see(self, frame: Frame, body: bytes) -> None:
        """Note what a frame does to them."""
        command = frame.command
        if command == Command.GRAPH_COMPUTE:
            self._see_graph(frame)
        if command in COMPUTES:
            self._see_compute()
        elif command in WRITES:
            self._see_write(frame, body)
        elif command in (Command.BUFFER_CLEAR, Command.FREE_BUFFER):
            self._see_buffer(frame)

    def pieces(self, place: int | None = None) -> list[Piece]:
        """Return what a copy lacks; from now on it counts as not lacking.

        Args:
            place: address of bytes that llama-server reads: what its copy lacks of all caches like
                this one, for it reads them together. None: what the copy for a recruit lacks.
        """
        found: list[Piece] = []
        extent = None if place is None else self._at(place).extent
        for cache in self._found.values():
            if extent not in (None, cache.extent):
                continue
            copy = cache.told if extent is None else cache.read
            ranges, copy.changed = copy.lacks(cache.used), []
            for start, end in ranges:
                found += _cut(cache, copy, start, end)
        return found

    def take(self, pieces: Sequence[Piece], data: Sequence[bytes]) -> None:
        """Put what was asked for into the copy."""
        for piece, part in zip(pieces, data, strict=True):
            piece.copy.put(piece.start, part)

    def forget(self, pieces: Sequence[Piece]) -> None:
        """Count what was asked for and did not come as lacking again."""
        for piece in pieces:
            piece.copy.change(piece.start, piece.start + piece.size)

    def lacking(self, place: int) -> int:
        """Return how many bytes llama-server's copy lacks of the cache at an address."""
        cache = self._at(place)
        return sum(end - start for start, end in cache.read.lacks(cache.used))

    def include(self, place: int, size: int) -> bool:
        """Tell whether bytes are of one of them."""
        return any(
            address <= place and place + size <= address + cache.extent
            for address, cache in self._found.items()
        )

    def current(self, place: int, size: int) -> bytes | None:
        """Return bytes of one of them from a copy; None: both lack some of them."""
        for address, cache in self._found.items():
            start, end = place - address, place - address + size
            if start >= 0 and end <= cache.extent:
                data = cache.read.get(start, end)
                return cache.told.get(start, end) if data is None else data
        return None

    def hold(self, place: int, size: int) -> bool:
        """Tell whether bytes lie in what was copied for a recruit."""
        return any(
            address <= place and place + size <= address + cache.told.size
            for address, cache in self._found.items()
        )

    def frames(self) -> Iterator[tuple[Frame, bytes]]:
        """Yield what sets them as they were copied for a recruit."""
        for cache in self._found.values():
            for at, data in cache.told.parts():
                head = bytearray(cache.tensor + b"\0" + U64.pack(at))
                yield Frame(int(Command.SET_TENSOR), len(head) + len(data), head), data

    def _at(self, place: int) -> Cache:
        """Return the cache at an address, which is one's (:meth:`include`)."""
        return next(
            cache for address, cache in self._found.items()
            if address <= place < address + cache.extent
        )  # fmt: skip

    def _see_graph(self, frame: Frame) -> None:
        tensors = read_graph(frame.head).tensors
        writes = (tensors["view_src"] != 0) & ~np.isin(tensors["op"], VIEWS)
        kept = (tensors["view_src"] == 0) & (tensors["op"] == NONE) & (tensors["buffer"] != 0)
        kept &= np.isin(tensors["id"], tensors["view_src"][writes]) | np.isin(
            tensors["data"], np.array(list(self._found), dtype="<u8")
        )
        by_id: dict[int, Cache] = {}
        for row in np.flatnonzero(kept):
            if b"#" not in tensors["name"][row]:  # those the scheduler copies here each time
                by_id[int(tensors["id"][row])] = self._cache(tensors[row].tobytes())
        ids = np.array(list(by_id), dtype="<u8")
        place_of = dict(zip(tensors["id"].tolist(), tensors["data"].tolist(), strict=True))
        self._rows, self._in_place = {}, []
        for row in np.flatnonzero(np.isin(tensors["view_src"], ids)):
            self._see_view(tensors[row], by_id[int(tensors["view_src"][row])], place_of)
        direct = np.isin(tensors["src"], ids).any(axis=1) & ~np.isin(tensors["op"], VIEWS)
        for row in np.flatnonzero(direct & (tensors["op"] != SET_ROWS)):
            for source in tensors["src"][row].tolist():
                if source in by_id:
                    by_id[source].used = by_id[source].extent

    def _see_compute(self) -> None:
        for cache in self._in_place:
            cache.change(0, cache.extent)
        for address, written in self._rows.items():
            numbers = self._numbers.get(address)
            for cache, row_bytes, start in written:
                if numbers is None or not row_bytes:
                    cache.change(0, cache.extent)
                else:
                    first, last = numbers
                    end = start + (last + 1) * row_bytes
                    cache.change(start + first * row_bytes, min(end, cache.extent))

    def _see_view(self, tensor: Any, cache: Cache, place_of: dict[int, int]) -> None:
        if tensor["op"] in VIEWS:
            end = int(tensor["view_offs"]) + see_tensor(bytearray(tensor.tobytes())).extent
            cache.used = min(max(cache.used, end), cache.extent)
        elif tensor["op"] == SET_ROWS:
            rows_at = place_of.get(int(tensor["src"][1]), 0)
            written = (cache, int(tensor["nb"][1]), int(tensor["view_offs"]))
            self._rows.setdefault(rows_at, []).append(written)
        else:
            self._in_place.append(cache)

    def _cache(self, tensor: bytes) -> Cache:
        address = U64.unpack_from(tensor, DATA_AT)[0]
        extent = see_tensor(bytearray(tensor)).extent
        cache = self._found.get(address)
        if cache is None or (cache.extent, _buffer(cache.tensor)) != (extent, _buffer(tensor)):
            cache = self._found[address] = Cache(tensor, extent)
        return cache

    def _see_write(self, frame: Frame, body: bytes) -> None:
        head = frame.head
        at = TENSOR_BYTES if frame.command == Command.COPY_TENSOR else 0
        address = U64.unpack_from(head, at + DATA_AT)[0]
        if frame.command == Command.SET_TENSOR:
            address += U64.unpack_from(head, TENSOR_BYTES + 1)[0]
            size = frame.size - len(head)
            self._see_numbers(address, U32.unpack_from(head, TYPE_AT)[0], body)
        elif frame.command == Command.MEMSET_TENSOR:
            offset, size = TWO_U64.unpack_from(head, TENSOR_BYTES)
            address += offset
        else:
            size = see_tensor(head, at).extent
        for place, cache in self._found.items():
            if place < address + size and address < place + cache.extent:
                start, end = max(0, address - place), min(cache.extent, address + size - place)
                cache.change(start, end)
                if frame.command == Command.COPY_TENSOR:
                    cache.used = max(cache.used, end)

    def _see_numbers(self, address: int, number: int, body: bytes) -> None:
        """Note what may be the rows that the next graph writes; which are, it says itself."""
        kind = ROW_NUMBERS.get(number)
        if kind is None or not body:
            self._numbers.pop(address, None)
        else:
            rows = np.frombuffer(body, kind)
            self._numbers[address] = int(rows.min()), int(rows.max())

    def _see_buffer(self, frame: Frame) -> None:
        number = U64.unpack_from(frame.head)[0]
        for address, cache in tuple(self._found.items()):
            if _buffer(cache.tensor) != number:
                continue
            if frame.command == Command.FREE_BUFFER:
                del self._found[address]
            else:
                cache.change(0, cache.extent)


def _buffer(tensor: bytes) -> int:
    return int(U64.unpack_from(tensor, BUFFER_AT)[0])


def _cut(cache: Cache, copy: KeptBytes, start: int, end: int) -> Iterator[Piece]:
    for at in range(start, end, PART_BYTES):
        yield Piece(cache, copy, at, min(PART_BYTES, end - at))
