"""SET_PACKED: bytes of a tensor that travel as one zstd frame.

Masks of attention are nearly all one number and shrink a hundred times; activations and caches do
not shrink at all. What a client says that it packed is unpacked in parts, never more than was
declared, and with a small window: a frame that would expand without end costs nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from shoestring.swarm.wire import (
    OFFSET_AT,
    TENSOR_BYTES,
    TWO_U64,
    U64,
    BadFrameError,
    Command,
    Frame,
    set_tensor_start,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_BYTES = 1_024
"""Of a body that is worth it."""
SAMPLE_BYTES = 256
SAMPLE_KINDS = 48
"""Different bytes in a sample: masks have 3, indices 33, embeddings 77 and more."""
WORTH = 2
"""So many times a body must shrink."""
LEVEL = 1
PART_BYTES = 1 << 20
WINDOW_LOG = 21
"""Of 2 MiB: all that a node remembers while it unpacks."""
PACKING: dict[int, int] = {
    zstd.CompressionParameter.compression_level: LEVEL,
    zstd.CompressionParameter.window_log: WINDOW_LOG,
}
PACKER = zstd.ZstdCompressor(options=PACKING)
"""Every frame by itself; to make one anew would cost more than to use it."""
UNPACKING: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}


def packed(frame: Frame, body: bytes | bytearray) -> tuple[Frame, bytes] | None:
    """Return the SET_PACKED for a SET_TENSOR; None: its body does not shrink enough.

    Args:
        frame: SET_TENSOR.
        body: all of it.
    """
    if frame.command != Command.SET_TENSOR or len(body) < LEAST_BYTES:
        return None
    middle = len(body) // 2
    if len(set(body[middle : middle + SAMPLE_BYTES])) > SAMPLE_KINDS:
        return None
    small = PACKER.compress(body, zstd.ZstdCompressor.FLUSH_FRAME)
    if len(small) * WORTH > len(body):
        return None
    offset = U64.unpack_from(frame.head, OFFSET_AT + 1)[0]
    head = frame.head[:TENSOR_BYTES] + TWO_U64.pack(offset, len(body))
    return Frame(int(Command.SET_PACKED), len(head) + len(small), head), small


class Unpacker:
    """The body of one SET_PACKED, unpacked as it comes.

    Args:
        frame: SET_PACKED, with the worker's addresses.

    Attributes:
        size: bytes of what it unpacks to, as declared.
        start: of the SET_TENSOR that the worker gets; what is unpacked follows it.

    Raises:
        BadFrameError: there is no body.
    """

    def __init__(self, frame: Frame) -> None:
        offset, self.size = TWO_U64.unpack_from(frame.head, OFFSET_AT)
        self.start = set_tensor_start(bytes(frame.head[:TENSOR_BYTES]), offset, self.size)
        self._to_come = frame.size - len(frame.head)
        self._left = self.size
        self._zstd = zstd.ZstdDecompressor(options=UNPACKING)
        if not self._to_come:
            raise BadFrameError("packed", "nothing where packed data should be")

    def unpack(self, part: bytes) -> Iterator[bytes]:
        """Yield what the next part of the body holds, at most :data:`PART_BYTES` at a time.

        Raises:
            BadFrameError: it is not zstd, or not of the declared size.
        """
        self._to_come -= len(part)
        while not self._zstd.eof:
            # One byte more than there may be shows that there is more.
            found = self._decompress(part, min(PART_BYTES, self._left + 1))
            part = b""
            self._left -= len(found)
            if self._left < 0:
                raise BadFrameError("packed", f"more than the {self.size} bytes declared")
            if found:
                yield found
            elif self._zstd.needs_input:
                break
        if self._zstd.eof and (self._zstd.unused_data or self._to_come):
            raise BadFrameError("packed", "bytes after the packed data")
        if not self._to_come and (self._left or not self._zstd.eof):
            raise BadFrameError("packed", f"{self._left} of {self.size} bytes did not come")

    def _decompress(self, part: bytes, most: int) -> bytes:
        try:
            return self._zstd.decompress(part, most)
        except zstd.ZstdError as error:
            raise BadFrameError("packed", f"what was packed is no zstd: {error}") from error
