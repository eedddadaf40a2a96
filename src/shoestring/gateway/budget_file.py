"""Budgets that outlive one process: a small file beside its own book of counters.

With Redis they lie there. Without it, this file is written every few seconds and at the end, whole
or not at all; after a crash what was spent since the last time is forgotten. One process, one file.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from shoestring.errors import BadValueError
from shoestring.gateway.counters import NEVER
from shoestring.gateway.counters_memory import MemoryCounters, Spent
from shoestring.models.downloads import write_whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SAVE_S: Final = 5.0
LOG = structlog.get_logger()


@asynccontextmanager
async def counting_with_file(path: Path) -> AsyncIterator[MemoryCounters]:
    """Count in memory, from the budgets in a file on; keep it up to date until the block ends.

    Raises:
        BadValueError: the file is damaged.
    """
    counters = MemoryCounters(spent=read_spent(path, datetime.now(UTC)))
    ended = asyncio.Event()
    saving = asyncio.create_task(_save_until(ended, path, counters))
    try:
        yield counters
    finally:
        ended.set()
        await saving


def read_spent(path: Path, now: datetime) -> list[Spent]:
    """Return what a file says was spent of budgets that still run; none where there is no file.

    Raises:
        BadValueError: it is damaged.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["spent"]
        spent = [Spent(row["name"], int(row["tokens"]), _left_s(row, now)) for row in rows]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadValueError(
            f"{path}: is damaged ({error}); delete it to begin all budgets anew"
        ) from error
    return [one for one in spent if one.left_s > 0]


def write_spent(path: Path, spent: list[Spent], now: datetime) -> None:
    """Write what was spent of budgets that still run."""
    rows = [
        {"name": one.name, "tokens": one.tokens, "ends_utc": _end_utc(one.left_s, now)}
        for one in spent
        if one.left_s > 0
    ]
    write_whole(path, json.dumps({"spent": rows}, indent=1))


async def _save_until(ended: asyncio.Event, path: Path, counters: MemoryCounters) -> None:
    is_last = False
    while not is_last:
        with suppress(TimeoutError):
            async with asyncio.timeout(SAVE_S):
                await ended.wait()
        is_last = ended.is_set()
        try:
            await asyncio.to_thread(write_spent, path, counters.spent(), datetime.now(UTC))
        except OSError as error:  # the next time may do better
            LOG.warning("budgets_not_saved", error=str(error))


def _left_s(row: dict[str, str | None], now: datetime) -> float:
    ends = row["ends_utc"]
    return NEVER if ends is None else (datetime.fromisoformat(ends) - now).total_seconds()


def _end_utc(left_s: float, now: datetime) -> str | None:
    return None if left_s == NEVER else (now + timedelta(seconds=left_s)).isoformat()
