"""What Redis is told when it is back: what a replica admitted, what ended, what was spent.

What it knows already changes nothing: each request has a mark there, and what each replica spent
of a budget a field of its own.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

from shoestring.gateway.counters import NEVER
from shoestring.gateway.counters_scripts import (
    ADMIT,
    RESTORE,
    SETTLE,
    asked,
    asked_of,
    budget_name,
    names,
    settled,
)
from shoestring.gateway.tallies import DAY_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoestring.gateway.counters import Ask
    from shoestring.gateway.counters_memory import Held, Spent
    from shoestring.gateway.redis_line import RedisLine

AT_ONCE: Final = 100


async def replay(
    line: RedisLine,
    prefix: str,
    replica: str,
    now_s: float,
    held: Sequence[Held],
    void: Sequence[Ask],
) -> None:
    """Tell of requests.

    Args:
        line: to Redis.
        prefix: of all names there.
        replica: who tells.
        now_s: on the clock of ``held``.
        held: what was admitted, told in the order of its times.
        void: what was refused here but may have been admitted there.

    Raises:
        RedisLostError: it is gone again; all can be told once more.
    """
    await asyncio.gather(
        *(line.run(SETTLE, names(prefix, ask), settled(ask, 0, replica)) for ask in void)
    )
    in_time = sorted(held, key=lambda one: one.at_s)
    for first in range(0, len(in_time), AT_ONCE):
        some = in_time[first : first + AT_ONCE]
        calls = [_told(line, prefix, replica, now_s, one) for one in some]
        await asyncio.gather(*(call for told in calls for call in told))


async def restore(line: RedisLine, prefix: str, replica: str, spent: Sequence[Spent]) -> None:
    """Tell what a replica spent of each budget.

    Raises:
        RedisLostError: it is gone again.
    """
    await asyncio.gather(
        *(
            line.run(RESTORE, [budget_name(prefix, one.name)], [replica, one.tokens, _keep_s(one)])
            for one in spent
            if one.left_s > 0
        )
    )


def _told(
    line: RedisLine, prefix: str, replica: str, now_s: float, held: Held
) -> Iterator[asyncio.Future[Any]]:
    keys = names(prefix, held.ask)
    admitted = asked(held.ask, replica, age_s=now_s - held.at_s)
    yield line.run(ADMIT, asked_of(prefix, held.ask), admitted)
    if held.settled_s is not None:
        yield line.run(
            SETTLE, keys, settled(held.ask, held.used_tokens, "", now_s - held.settled_s)
        )


def _keep_s(spent: Spent) -> int:
    return -1 if spent.left_s == NEVER else math.ceil(spent.left_s + DAY_S)
