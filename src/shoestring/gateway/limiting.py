"""May this key, from this address, ask now, and how much?

A request is admitted by all of its limits or refused by one, with when to ask again and at no cost.
What it will use is not known before: an estimate is set aside and settled at its end.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from shoestring.gateway.addresses import limit_address
from shoestring.gateway.counters import NEVER, Ask, Budget, Verdict
from shoestring.gateway.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.gateway.counters import Counters, Rate, Reason, State
    from shoestring.gateway.keys import Key, KeyLimits, Period

TOO_MANY: Final = 429
MINUTE_S: Final = 60
SAID: Final[dict[Reason, str]] = {
    "rate_limit": "this key may make {0.requests_per_minute} requests a minute",
    "token_limit": "this key may use {0.tokens_per_minute} tokens a minute, and this request may"
    " use {0.tokens}",
    "concurrency": "this key may have {0.concurrent} requests running at a time",
    "budget": "this key may use {0.budget.limit} tokens in its period, and this request may use"
    " {0.tokens}",
    "address_rate_limit": "this address may make {0.address_requests_per_minute} requests a minute",
    "address_concurrency": "this address may have {0.address_concurrent} requests running at a"
    " time",
}


@dataclass
class Lease:
    """What an admitted request holds until it is settled.

    Attributes:
        ask: what was counted; None: nothing.
        headers: of the answer.
    """

    ask: Ask | None
    headers: dict[str, str] = field(default_factory=dict)


class Limiter:
    """Admits and refuses.

    Args:
        counters: the book.
        address_requests_per_minute: of one address (IPv6: of its /64), whatever keys it uses.
        address_concurrent: the same, of requests that run at the same time.
        default: the limits of a key that has none of its own.
        utc: what date it is, for budgets.
    """

    def __init__(
        self,
        counters: Counters,
        *,
        address_requests_per_minute: int | None,
        address_concurrent: int | None,
        default: KeyLimits,
        utc: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._counters = counters
        self._address_requests_per_minute = address_requests_per_minute
        self._address_concurrent = address_concurrent
        self._default = default
        self._utc = utc

    async def admit(self, key: Key, address: str, *, tokens: int) -> Lease:
        """Count a request.

        Args:
            key: who asks.
            address: from where.
            tokens: how many it may use, read and written.

        Raises:
            Refusal: 429, with ``retry_after_s`` unless it can never be admitted.
        """
        own, default = key.limits, self._default
        ask = Ask(
            id=secrets.token_hex(12),
            key=key.id,
            address=limit_address(address),
            tokens=tokens,
            requests_per_minute=_first(own.requests_per_minute, default.requests_per_minute),
            tokens_per_minute=_first(own.tokens_per_minute, default.tokens_per_minute),
            concurrent=_first(own.concurrent, default.concurrent),
            budget=self._budget(key),
            address_requests_per_minute=self._address_requests_per_minute,
            address_concurrent=self._address_concurrent,
        )
        return await self._admit(ask)

    async def settle(self, lease: Lease, *, tokens: int) -> None:
        """Free what a request held and count what it used; later calls change nothing."""
        ask, lease.ask = lease.ask, None
        if ask is not None:
            await self._counters.settle(ask, tokens)

    async def count_address(self, address: str) -> None:
        """Count a request that no key answers for, for example a failed sign-in.

        Raises:
            Refusal: 429.
        """
        ask = Ask(
            id=secrets.token_hex(12),
            key="",
            address=limit_address(address),
            tokens=0,
            address_requests_per_minute=self._address_requests_per_minute,
        )
        await self.settle(await self._admit(ask), tokens=0)

    async def budget_used(self, key: Key) -> int | None:
        """Return the tokens of a key's budget that are used or set aside; None: it has none."""
        budget = self._budget(key)
        return None if budget is None else await self._counters.budget_used(budget)

    def state(self) -> State:
        """Say whether the common book is there: ``ok``, ``lost``, or ``none`` of them is used."""
        return self._counters.state()

    def replicas(self) -> int:
        """Return how many gateways count in the same book."""
        return self._counters.replicas()

    async def _admit(self, ask: Ask) -> Lease:
        if not (ask.counts_key() or ask.counts_address() or ask.budget):
            return Lease(None)
        verdict = await self._counters.admit(ask)
        headers = _headers(verdict)
        if verdict.refused is None:
            return Lease(ask, headers)
        retry_after_s = None if verdict.wait_s == NEVER else verdict.wait_s
        message = SAID[verdict.refused].format(ask) + _advice(retry_after_s)
        raise Refusal(TOO_MANY, verdict.refused, message, retry_after_s, headers)

    def _budget(self, key: Key) -> Budget | None:
        limits = key.limits if key.limits.budget_tokens is not None else self._default
        if limits.budget_tokens is None:
            return None
        name, left_s = period_now(limits.budget_period, self._utc())
        return Budget(f"{key.id}:{name}", limits.budget_tokens, left_s)


def period_now(period: Period, now: datetime) -> tuple[str, float]:
    """Return the name of the period that runs now, and the seconds until it ends.

    Example:
        >>> period_now("month", datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
        ('2026-12', 60.0)
    """
    if period == "ever":
        return "ever", NEVER
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return f"{now:%Y-%m-%d}", (midnight + timedelta(days=1) - now).total_seconds()
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return f"{now:%Y-%m}", (next_month - now).total_seconds()


def duration_text(seconds: float) -> str:
    """Return a duration as OpenAI writes it in its headers.

    Example:
        >>> [duration_text(s) for s in (0.35, 1, 8.64, 90.5)]
        ['350ms', '1s', '8.64s', '1m30.5s']
    """
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds / 1000, MINUTE_S)
    return f"{minutes:.0f}m{rest:.5g}s" if minutes else f"{rest:.5g}s"


def _first(own: int | None, default: int | None) -> int | None:
    return default if own is None else own


def _advice(retry_after_s: float | None) -> str:
    if retry_after_s is None:
        return ": ask for fewer tokens, or have the limit raised"
    return f": ask again in {duration_text(retry_after_s)}"


def _headers(verdict: Verdict) -> dict[str, str]:
    return {
        **_rate_headers("requests", verdict.requests),
        **_rate_headers("tokens", verdict.tokens),
    }


def _rate_headers(kind: str, rate: Rate | None) -> dict[str, str]:
    if rate is None:
        return {}
    return {
        f"x-ratelimit-limit-{kind}": str(rate.limit),
        f"x-ratelimit-remaining-{kind}": str(rate.remaining),
        f"x-ratelimit-reset-{kind}": duration_text(rate.reset_s),
    }
