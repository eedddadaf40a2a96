"""Receipts on disk: one private file a session, written in a thread, never while a step waits.

Each is on the disk before the next is taken. What a crash cut off at a file's end is said, and what
stands before it counts: later receipts hold all that the lost one said.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError
from shoestring.models.downloads import sync
from shoestring.swarm.private_files import OWNER_ONLY, read_private
from shoestring.swarm.proof.books import read_good

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.swarm.proof.receipts import Signed

FOLDER: Final = "receipts"
MOST_FILES: Final = 4_096
MOST_BYTES: Final = 64 << 20
"""Of one session's file: some thirty thousand windows."""
MOST_TOTAL_BYTES: Final = 1 << 30
"""Of all files."""
NAME: Final = re.compile(r"[0-9a-f]{16}-[a-z2-7]{52}\.jsonl")


class ReceiptFiles:
    """A folder of receipts.

    Args:
        folder: made when the first comes.
        say: told, from another thread, what could not be kept.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._thread: ThreadPoolExecutor | None = None
        self._total_bytes = 0
        """As it was when the last session began, and what was written since."""

    def keep(self, signed: Signed) -> None:
        """Have a receipt written, after those that were given before."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "receipts")
        self._thread.submit(self._write, signed)

    def close(self) -> None:
        """Return when all are written."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def sessions(self) -> list[Path]:
        """Return the files that there are, the oldest first."""
        if not self._folder.is_dir():
            return []
        found = [path for path in self._folder.iterdir() if NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def why_not(self) -> str | None:
        """Return why one more session's receipts cannot all be kept; None: they can."""
        try:
            _check_total(self._bytes_before_one_more() + MOST_BYTES)
        except BadValueError as error:
            return str(error)
        except OSError as error:
            return f"files of receipts cannot be counted: {error.strerror}"
        return None

    def read(self, path: Path) -> list[Signed]:
        """Return a session's receipts; of a damaged file those before the damage, which is said.

        Raises:
            BadValueError: the file cannot be read, or has not one receipt.
        """
        content = read_private(path)
        if content is None:
            raise BadValueError(f"{path} is not there")
        found, why = read_good(content)
        if not found:
            raise BadValueError(f"{path}: {why}: no receipt of it counts")
        if why is not None:
            self._say(f"{path}: {why}; the {len(found)} receipts before that count")
        return found

    def _write(self, signed: Signed) -> None:
        terms, window = signed.receipt.terms, signed.receipt.window
        # A name is the node's choice, so two nodes may choose the same; one of them may not.
        path = self._folder / f"{terms.session}-{terms.node}.jsonl"
        line = signed.line + b"\n"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not window:
                self._total_bytes = self._bytes_before_one_more()
            _check_total(self._total_bytes + len(line))
            how = os.O_CREAT | os.O_EXCL if not window else 0
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | how
            descriptor = os.open(path, flags, OWNER_ONLY)
            try:
                _append(descriptor, line)
            except (OSError, BadValueError):
                if not window:
                    path.unlink()  # or the next one would begin the file in the middle
                raise
            finally:
                os.close(descriptor)
            if not window:
                sync(self._folder)
            self._total_bytes += len(line)
        except FileExistsError:
            self._say(f"a receipt is not kept in {path}: {terms.node} had a session of this name")
        except (OSError, BadValueError) as error:
            self._say(f"a receipt is not kept in {path}: {error}")

    def _bytes_before_one_more(self) -> int:
        """Return how many bytes all files have; other processes make some.

        Raises:
            BadValueError: there may be no more files.
        """
        files = self.sessions()
        if len(files) >= MOST_FILES:
            raise BadValueError(f"there are {MOST_FILES} files of receipts: move the oldest away")
        return sum(path.stat().st_size for path in files)


def _check_total(total_bytes: int) -> None:
    if total_bytes > MOST_TOTAL_BYTES:
        raise BadValueError(
            f"all files of receipts have {MOST_TOTAL_BYTES} bytes: move the oldest away"
        )


def _append(descriptor: int, line: bytes) -> None:
    """Add a line, whole or not at all, and bring it onto the disk."""
    size = os.fstat(descriptor).st_size
    if size + len(line) > MOST_BYTES:
        raise BadValueError(f"it has no room for more than {MOST_BYTES} bytes: ask anew")
    try:
        while line:  # a full disk takes a part first
            line = line[os.write(descriptor, line) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
