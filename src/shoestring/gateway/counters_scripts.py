"""The scripts of the common book: what they are given, and what their answers mean.

The moving window of requests is that of ``limits``: its own scripts run inside ours, on its own
lists, because a hit that another limit then refuses could not be taken back from outside, and each
call would be a round trip more. Time is Redis's own, so the replicas' clocks do not matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from limits.aio.storage.redis.bridge import RedisBridge

from shoestring.gateway.counters import NEVER, WINDOW_S, Rate, Used, Verdict
from shoestring.gateway.redis_line import Script

if TYPE_CHECKING:
    from shoestring.gateway.counters import Ask

RUNNING_BELIEVED_S: Final = 30  # a request, after its replica's last beat
NO_LIMIT: Final = -1
FOLDER: Final = Path(__file__).parent / "redis_scripts"


def _script(name: str, before: str = "") -> Script:
    return Script(before + (FOLDER / f"{name}.lua").read_text(encoding="utf-8"))


def _function(name: str, text: bytes) -> str:
    return f"local function {name}(KEYS, ARGV)\n{text.decode()}\nend\n"


ADMIT: Final = _script(
    "admit",
    _function("acquire", RedisBridge.SCRIPT_ACQUIRE_MOVING_WINDOW)
    + _function("counted", RedisBridge.SCRIPT_MOVING_WINDOW),
)
SETTLE: Final = _script("settle")
BEAT: Final = _script("beat")
RESTORE: Final = _script("restore")


def names(prefix: str, ask: Ask) -> list[str]:
    """Return the names of all that a request is counted in, as settle.lua lists them."""
    budget = ask.budget.name if ask.budget else ""
    return [
        f"{prefix}:mark:{ask.id}",
        f"{prefix}:hits:key:{ask.key}",
        f"{prefix}:tokens:{ask.key}",
        f"{prefix}:sum:{ask.key}",
        f"{prefix}:running:key:{ask.key}",
        budget_name(prefix, budget),
        f"{prefix}:hits:address:{ask.address}",
        f"{prefix}:running:address:{ask.address}",
    ]


def asked_of(prefix: str, ask: Ask) -> list[str]:
    """Return the names that admit.lua is given."""
    return [*names(prefix, ask), epoch_name(prefix)]


def epoch_name(prefix: str) -> str:
    """Return the name of what says since when all is counted."""
    return f"{prefix}:epoch"


def budget_name(prefix: str, budget: str) -> str:
    """Return the name of what is spent of a budget."""
    return f"{prefix}:budget:{budget}"


def running_in(prefix: str, ask: Ask) -> list[str]:
    """Return the names of the sets that hold a request while it runs."""
    _, _, _, _, of_key, _, _, of_address = names(prefix, ask)
    limits = ((of_key, ask.concurrent), (of_address, ask.address_concurrent))
    return [name for name, limit in limits if limit is not None]


def asked(ask: Ask, replica: str, *, epoch: str = "", age_s: float = -1.0) -> list[str | float]:
    """Return the arguments of admit.lua.

    Args:
        ask: the request.
        replica: where it came.
        epoch: that a question is asked of.
        age_s: how long ago it was admitted there; negative: it asks to be.
    """
    limits = (
        ask.requests_per_minute,
        ask.tokens_per_minute,
        ask.concurrent,
        ask.budget.limit if ask.budget else None,
        ask.address_requests_per_minute,
        ask.address_concurrent,
    )
    left_s = ask.budget.left_s if ask.budget else NEVER
    return [
        ask.id,
        ask.tokens,
        *(NO_LIMIT if limit is None else limit for limit in limits),
        -1 if left_s == NEVER else left_s,
        replica,
        RUNNING_BELIEVED_S,
        age_s,
        epoch,
    ]


def settled(ask: Ask, tokens: int, replica: str, age_s: float = 0) -> list[str | float]:
    """Return the arguments of settle.lua; ``replica`` is empty where no budget is to be counted."""
    counts_tokens = int(ask.tokens_per_minute is not None)
    return [ask.id, ask.tokens, tokens, age_s, counts_tokens, replica if ask.budget else ""]


def heard(ask: Ask, reply: list[Any]) -> tuple[Verdict, Used]:
    """Return what admit.lua answered."""
    reason, wait_s, *counts, hit_age_s, tokens_age_s = reply
    used = Used(*counts)
    verdict = Verdict(
        refused=reason or None,
        wait_s=NEVER if float(wait_s) < 0 else float(wait_s),
        requests=_rate(ask.requests_per_minute, used.requests, float(hit_age_s)),
        tokens=_rate(ask.tokens_per_minute, used.tokens, float(tokens_age_s)),
    )
    return verdict, used


def _rate(limit: int | None, used: int, newest_age_s: float) -> Rate | None:
    if limit is None:
        return None
    return Rate(limit, max(0, limit - used), max(0.0, WINDOW_S - newest_age_s))
