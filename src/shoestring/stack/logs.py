"""Logs that do not grow for ever."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_BYTES = 5_000_000
KEPT = 2


def rotate(path: Path, *, limit_bytes: int = LIMIT_BYTES, kept: int = KEPT) -> bool:
    """Copy a log that is too long to ``NAME.1`` and empty it; return whether it was.

    It is emptied, not moved, because a running server holds it open (for appending). Lines that
    are written between the two steps are lost.

    Args:
        path: the log; it may not be there.
        limit_bytes: up to this size nothing is done.
        kept: how many old ones are kept; ``NAME.1`` is the newest.
    """
    if not path.is_file() or path.stat().st_size <= limit_bytes:
        return False
    for number in range(kept, 1, -1):
        older = path.with_name(f"{path.name}.{number - 1}")
        if older.is_file():
            older.replace(path.with_name(f"{path.name}.{number}"))
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
    return True
