"""Receipts on disk: one private file a session, written in a thread, never while a step waits."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError
from shoestring.swarm.private_files import OWNER_ONLY, read_private
from shoestring.swarm.proof.books import read_receipts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.swarm.proof.receipts import Signed

FOLDER: Final = "receipts"
MOST_FILES: Final = 4_096
MOST_BYTES: Final = 64 << 20
"""Of one session's file: some thirty thousand windows."""
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

    def read(self, path: Path) -> list[Signed]:
        """Return a session's receipts.

        Raises:
            BadValueError: the file cannot be read, or is not whole.
        """
        content = read_private(path)
        if content is None:
            raise BadValueError(f"{path} is not there")
        try:
            return read_receipts(content)
        except BadValueError as error:
            raise BadValueError(f"{path}: {error}") from error

    def _write(self, signed: Signed) -> None:
        terms = signed.receipt.terms
        # A name is the node's choice, so two nodes may choose the same.
        path = self._folder / f"{terms.session}-{terms.node}.jsonl"
        line = signed.line + b"\n"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not signed.receipt.window:
                self._check_room()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            descriptor = os.open(path, flags, OWNER_ONLY)
            with os.fdopen(descriptor, "ab") as file:
                _check_length(file.tell() + len(line))
                file.write(line)
        except (OSError, BadValueError) as error:
            self._say(f"a receipt is not kept in {path}: {error}")

    def _check_room(self) -> None:
        if len(self.sessions()) >= MOST_FILES:
            raise BadValueError(
                f"there are {MOST_FILES} files: settle them, or move the oldest away"
            )


def _check_length(size: int) -> None:
    if size > MOST_BYTES:
        raise BadValueError(f"it has no room for more than {MOST_BYTES} bytes: ask anew")
