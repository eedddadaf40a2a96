"""One content of a node's store: read in parts and doubted, or written in parts and then named."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shoestring.swarm.store import Store

PART_BYTES: Final = 1 << 20
PARTIAL: Final = "partial-"
"""How names of files begin that are not whole."""


class Reading:
    """A content read in parts; as many bytes come as its size says, right or wrong.

    No file is kept open: whoever stops in the middle leaves nothing behind.

    Attributes:
        size: bytes.
        is_good: once all parts were read: they are what the digest names. Else the file is gone.
    """

    def __init__(self, store: Store, path: Path, sha256: bytes, size: int) -> None:
        self.size = size
        self.is_good = False
        self._store = store
        self._path = path
        self._sha256 = sha256
        self._hash = hashlib.sha256()
        self._at = 0

    def part(self) -> bytes:
        """Return the next bytes, at most :data:`PART_BYTES`; none: these were all.

        What cannot be read comes as zeros, and is not good.
        """
        wanted = min(PART_BYTES, self.size - self._at)
        if not wanted:
            return b""
        part = self._bytes(wanted)
        self._hash.update(part)
        self._at += wanted
        if self._at == self.size:
            self._finish()
        return part

    def _bytes(self, wanted: int) -> bytes:
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(self._at)
                return (file.read(wanted) or b"").ljust(wanted, b"\0")
        except FileNotFoundError:  # to make room
            return bytes(wanted)
        except OSError as error:
            self._store.complain(error)
            return bytes(wanted)

    def _finish(self) -> None:
        self.is_good = self._hash.digest() == self._sha256
        try:
            if self.is_good:
                os.utime(self._path)
            elif self._path.exists():
                self._store.drop(self._path)
        except FileNotFoundError:  # to make room
            return
        except OSError as error:
            self._store.complain(error)


class Writing:
    """A content that is written in parts, and kept only if it is what its digest names.

    It may be closed in one thread while another still writes, as where a task is cancelled.

    Attributes:
        size: bytes.
        is_kept: it is whole, and lies in the store.
    """

    def __init__(self, store: Store, sha256: bytes, size: int) -> None:
        self.size = size
        self.is_kept = False
        self._store = store
        self._sha256 = sha256
        self._left = size
        self._hash = hashlib.sha256()
        self._file: tuple[int, Path] | None = None
        self._is_over = False
        self._lock = threading.Lock()

    def add(self, part: bytes) -> None:
        """Write the next bytes; with the last ones it is decided whether they are kept."""
        with self._lock:
            if self._is_over:
                return
            self._hash.update(part)
            self._left -= len(part)
            try:
                self._write(part)
                if not self._left:
                    self._finish()
            except OSError as error:
                self._store.complain(error)
                self._close()

    def close(self) -> None:
        """Write no more, and leave nothing behind of what was not kept."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._is_over = True
        if self._file is None:
            return
        descriptor, path = self._file
        self._file = None
        os.close(descriptor)
        if not self.is_kept:
            path.unlink(missing_ok=True)

    def _write(self, part: bytes) -> None:
        if self._file is None:
            descriptor, name = tempfile.mkstemp(prefix=PARTIAL, dir=self._store.folder)
            self._file = (descriptor, Path(name))
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(self._file[0], rest) :]

    def _finish(self) -> None:
        if self._file is not None and self._hash.digest() == self._sha256:
            self._store.take_in(self._file[1], self._sha256, self.size)
            self.is_kept = True
        self._close()
