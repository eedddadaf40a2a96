"""A node's weights by their SHA-256: kept as they pass, read when a client names them again.

One file each, named by its digest in hexadecimal, in 256 folders by the first two digits. Nothing
that a peer says is in a path but these digits. What lies here is believed by nobody: a content is
hashed each time that it is read, and one that is not what its name says is removed and counts as
absent. So nothing need be brought onto the disk at once, and a crash costs no more than a weight.

The quota is kept by removing what was used longest ago (a file's time of modification is that of
its last use). Every sixteenth of the quota that was added the folder is looked through; so several
processes may share one, and are above the quota by a sixteenth each at most.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from shoestring.errors import BadValueError
from shoestring.swarm.store_contents import PARTIAL, Reading, Writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUOTA_BYTES: Final = 20 << 30
DISK_SHARE: Final = 10
"""Of what a disk has free, with what is kept already, weights take a tenth unless told."""
LEAST_BYTES: Final = 4_096
"""Of what is kept: less than a block of the disk is sooner sent."""
MOST_BLOBS: Final = 65_536
"""Files at a time; a model of 60 layers has 1,000."""
LOOKS: Final = 16
"""So often the folder is looked through while a quota's worth is added."""
FORGOTTEN_S: Final = 7_200.0
"""No session leaves half a weight so long untouched: of a process that died."""
LOCK_FILE: Final = "lock"
FOLDER_NAME: Final = re.compile("[0-9a-f]{2}")
BLOB_NAME: Final = re.compile("[0-9a-f]{64}")
PRIVATE: Final = 0o700


class Blob(NamedTuple):
    """A content that is kept.

    Attributes:
        sha256: hexadecimal.
        size: bytes.
        used_s: when it was last used, in seconds since 1970.
    """

    sha256: str
    size: int
    used_s: float


def open_store(folder: Path, quota_bytes: int | None, *, say: Callable[[str], None]) -> Store:
    """Return a node's store.

    Args:
        folder: made if it is not there.
        quota_bytes: None: :data:`QUOTA_BYTES`, or less where the disk is small.
        say: as of :class:`Store`.

    Raises:
        BadValueError: as :class:`Store`.
    """
    store = Store(folder, QUOTA_BYTES if quota_bytes is None else quota_bytes, say=say)
    if quota_bytes is not None:
        return store
    usable_bytes = shutil.disk_usage(folder).free + store.held_bytes()
    return Store(folder, min(QUOTA_BYTES, usable_bytes // DISK_SHARE), say=say)


class Store:
    """A folder of weights; all that it does may wait for the disk, and belongs into a thread.

    Args:
        folder: made if it is not there, for its owner alone.
        quota_bytes: of all that is kept.
        say: given a line when something was wrong with the disk; called in any thread.
        most_blobs: files at a time.

    Raises:
        BadValueError: the folder cannot be made or used.
    """

    def __init__(
        self,
        folder: Path,
        quota_bytes: int,
        *,
        say: Callable[[str], None],
        most_blobs: int = MOST_BLOBS,
    ) -> None:
        self.folder = folder
        self.quota_bytes = quota_bytes
        self._most_blobs = most_blobs
        self._say = say
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._room_bytes = self._room_blobs = 0
        """That may be added before the folder is looked through."""
        try:
            folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            folder.chmod(PRIVATE)
        except OSError as error:
            raise BadValueError(
                f"cannot keep weights in {folder}: {error.strerror}; "
                "set SHOESTRING_CACHE to a folder of yours"
            ) from error

    def read(self, sha256: bytes, size: int) -> Reading | None:
        """Return how to read a content; None: it is not here, or not of this size."""
        path = self._path(sha256.hex())
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            self.complain(error)
            return None
        return Reading(self, path, sha256, size) if found == size else None

    def write(self, sha256: bytes, size: int) -> Writing | None:
        """Return how to keep a content; None: it is here, or not to be kept."""
        if not self.may_keep(size) or self.read(sha256, size) is not None:
            return None
        return Writing(self, sha256, size)

    def may_keep(self, size: int) -> bool:
        """Tell whether a content of so many bytes would be kept."""
        return LEAST_BYTES <= size <= self.quota_bytes

    def blobs(self) -> list[Blob]:
        """Return what is kept, in the order of the digests."""
        return sorted(self._look())

    def held_bytes(self) -> int:
        """Return how much is kept, in whole blocks of the disk."""
        return sum(_on_disk(blob.size) for blob in self._look())

    def take_in(self, partial: Path, sha256: bytes, size: int) -> None:
        """Give a whole file its name, and make room for it; of its writers.

        Raises:
            OSError: the disk does not let it.
        """
        path = self._path(sha256.hex())
        with self._lock:
            self._room_bytes -= _on_disk(size)
            self._room_blobs -= 1
            if self._room_bytes < 0 or self._room_blobs < 0:
                self._make_room(_on_disk(size))
            path.parent.mkdir(mode=PRIVATE, exist_ok=True)
            partial.replace(path)

    def complain(self, error: OSError) -> None:
        """Say once what is wrong with the disk."""
        trouble = f"weights in {self.folder}: {error.strerror or error}"
        if trouble not in self._said:
            self._said.add(trouble)
            self._say(f"{trouble}; they will be sent again")

    def drop(self, path: Path) -> None:
        """Remove what is not what its name says."""
        path.unlink(missing_ok=True)
        self._say(f"weight {path.name[:16]} was damaged on the disk: removed, to be sent again")

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def _make_room(self, needed: int) -> None:
        """Remove what was used longest ago, so that this fits and a sixteenth beside it."""
        with _alone(self.folder / LOCK_FILE):
            kept = sorted(self._look(), key=lambda blob: blob.used_s, reverse=True)
            held, count = sum(_on_disk(blob.size) for blob in kept), len(kept)
            spare, spare_blobs = self.quota_bytes // LOOKS, self._most_blobs // LOOKS
            while kept and (
                held > self.quota_bytes - spare - needed
                or count > self._most_blobs - spare_blobs - 1
            ):
                oldest = kept.pop()
                self._path(oldest.sha256).unlink(missing_ok=True)
                held, count = held - _on_disk(oldest.size), count - 1
        self._room_bytes = min(spare, max(0, self.quota_bytes - held - needed))
        self._room_blobs = min(spare_blobs, max(0, self._most_blobs - count - 1))

    def _look(self) -> Iterator[Blob]:
        """Go through the folder; what a process left half written long ago is removed."""
        for folder in _entries(self.folder):
            if FOLDER_NAME.fullmatch(folder.name):
                for entry in _entries(folder.path):
                    seen = _stat(entry)
                    if seen is not None and BLOB_NAME.fullmatch(entry.name):
                        yield Blob(entry.name, seen.st_size, seen.st_mtime)
            elif folder.name.startswith(PARTIAL):
                seen = _stat(folder)
                if seen is not None and time.time() - seen.st_mtime > FORGOTTEN_S:
                    Path(folder.path).unlink(missing_ok=True)


def _on_disk(size: int) -> int:
    return -(-size // LEAST_BYTES) * LEAST_BYTES


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):  # removed meanwhile; not ours
        return []


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # to make room, by another process
        return None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold off other processes that make room."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
