"""A key is admitted by all of its limits, or refused by one with when to ask again."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.gateway.counters_memory import MemoryCounters
from shoestring.gateway.errors import Refusal
from shoestring.gateway.keys import Key, KeyLimits
from shoestring.gateway.limiting import Lease, Limiter, duration_text, period_now

ADDRESS = "203.0.113.5"
NOW = datetime(2026, 11, 30, 23, 0, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    now_s = 50.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def key(identity: str = "k", **limits: Any) -> Key:
    """A key with these limits."""
    return Key(id=identity, name="team", scopes=frozenset({"inference"}), models=(),
               limits=KeyLimits(**limits), created_utc="2026-11-01T00:00:00Z", expires_utc=None,
               revoked_utc=None, secret_sha256="0" * 64)  # fmt: skip


def limiter(counters: MemoryCounters | None = None, **fields: Any) -> Limiter:
    """A limiter without limits but those that are named."""
    arguments = {"address_requests_per_minute": None, "address_concurrent": None,
                 "default": KeyLimits(), "utc": lambda: NOW}  # fmt: skip
    return Limiter(counters or MemoryCounters(clock=Clock()), **{**arguments, **fields})


def admit(limits: Limiter, who: Key, *, address: str = ADDRESS, tokens: int = 10) -> Lease:
    """Admit one request now."""
    return asyncio.run(limits.admit(who, address, tokens=tokens))


def refusal(limits: Limiter, who: Key, *, address: str = ADDRESS, tokens: int = 10) -> Refusal:
    """Return why a request is refused."""
    with pytest.raises(Refusal) as caught:
        admit(limits, who, address=address, tokens=tokens)
    return caught.value


@pytest.mark.parametrize(
    ("own", "of_address", "reason", "retry_after_s"),
    [
        ({"requests_per_minute": 1}, {}, "rate_limit", 60.0),
        ({"tokens_per_minute": 15}, {}, "token_limit", 60.0),
        ({"concurrent": 1}, {}, "concurrency", 1.0),
        ({"budget_tokens": 15}, {}, "budget", 3600.0),
        ({"budget_tokens": 15, "budget_period": "day"}, {}, "budget", 3600.0),
        ({"budget_tokens": 15, "budget_period": "ever"}, {}, "budget", None),
        ({}, {"address_requests_per_minute": 1}, "address_rate_limit", 60.0),
        ({}, {"address_concurrent": 1}, "address_concurrency", 1.0),
    ],
)
def test_each_limit_refuses_with_its_reason(own, of_address, reason, retry_after_s):
    """Status, word, time to wait, and a line that says which limit it is."""
    limits, who = limiter(**of_address), key(**own)
    admit(limits, who)

    refused = refusal(limits, who)

    assert (refused.status, refused.reason) == (429, reason)
    assert refused.retry_after_s == retry_after_s
    assert "\n" not in refused.message
    assert "{" not in refused.message


def test_the_longest_wait_is_told():
    """Of two limits in the way, the one that lasts longer gives reason and time."""
    limits, who = limiter(), key(concurrent=1, requests_per_minute=1)
    admit(limits, who)

    assert refusal(limits, who).reason == "rate_limit"


def test_too_large_for_ever_says_so():
    """A request that no waiting helps gets no Retry-After."""
    refused = refusal(limiter(), key(tokens_per_minute=100), tokens=101)

    assert (refused.reason, refused.retry_after_s) == ("token_limit", None)
    assert refused.message == (
        "this key may use 100 tokens a minute, and this request may use 101: "
        "ask for fewer tokens, or have the limit raised"
    )


def test_headers_are_those_of_openai():
    """Limit, what remains and when it is whole again, on answers and refusals."""
    clock = Clock()
    limits, who = limiter(MemoryCounters(clock=clock)), key(requests_per_minute=2,
                                                            tokens_per_minute=100)  # fmt: skip
    admit(limits, who)
    clock.now_s += 8.5
    expected = {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "80",
        "x-ratelimit-reset-tokens": "1m0s",
    }
    assert admit(limits, who).headers == expected

    clock.now_s += 0.5
    refused = refusal(limits, who)

    assert refused.retry_after_s == 51.0
    assert refused.headers == expected | {
        "x-ratelimit-reset-requests": "59.5s", "x-ratelimit-reset-tokens": "59.5s"}  # fmt: skip


def test_a_key_without_its_own_limit_has_the_common_one():
    """Each field by itself; the period comes with the budget."""
    limits = limiter(default=KeyLimits(requests_per_minute=1, concurrent=9, budget_tokens=30,
                                       budget_period="ever"))  # fmt: skip
    own = key("own", requests_per_minute=2, budget_tokens=100, budget_period="day")
    for _ in range(2):
        admit(limits, own)
    admit(limits, key("other"))

    assert refusal(limits, own).reason == "rate_limit"
    assert refusal(limits, key("other")).reason == "rate_limit"
    assert refusal(limits, key("third"), tokens=31).reason == "budget"
    assert asyncio.run(limits.budget_used(own)) == 20


def test_no_limit_counts_nothing():
    """Where nothing is limited, nothing is kept and no header is sent."""
    counters = MemoryCounters(clock=Clock())
    lease = admit(limiter(counters), key())

    assert (lease.headers, counters.kept()) == ({}, 0)
    asyncio.run(limiter(counters).settle(lease, tokens=5))
    assert asyncio.run(limiter(counters).budget_used(key())) is None


def test_settling_again_changes_nothing():
    """The second time is late or a mistake; the first one counts."""
    limits, who = limiter(), key(budget_tokens=100)
    lease = admit(limits, who, tokens=50)

    for tokens in (20, 0, 90):
        asyncio.run(limits.settle(lease, tokens=tokens))

    assert asyncio.run(limits.budget_used(who)) == 20


def test_an_ipv6_customer_is_one_address():
    """The 2^64 addresses of one /64 share a limit; the next /64 does not."""
    limits = limiter(address_requests_per_minute=1)
    admit(limits, key("a"), address="2001:db8::1")

    assert refusal(limits, key("b"), address="2001:db8::2").reason == "address_rate_limit"
    admit(limits, key("b"), address="2001:db8:0:1::1")


def test_failed_sign_ins_count_with_the_address():
    """Guessing keys uses up the address's requests, and holds no place."""
    limits = limiter(address_requests_per_minute=3, address_concurrent=1)
    for _ in range(3):
        asyncio.run(limits.count_address(ADDRESS))

    with pytest.raises(Refusal) as caught:
        asyncio.run(limits.count_address(ADDRESS))
    assert caught.value.reason == "address_rate_limit"
    assert refusal(limits, key()).reason == "address_rate_limit"


@pytest.mark.parametrize(
    ("period", "now", "expected"),
    [
        ("day", datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC), ("2026-12-31", 30.0)),
        ("month", datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC), ("2026-12", 30.0)),
        ("month", datetime(2028, 2, 28, tzinfo=UTC), ("2028-02", 2 * 86_400.0)),
        ("month", datetime(2026, 1, 31, tzinfo=UTC), ("2026-01", 86_400.0)),
        ("ever", datetime(2026, 1, 31, tzinfo=UTC), ("ever", float("inf"))),
    ],
)
def test_periods_are_those_of_utc(period, now, expected):
    """Days and months of the calendar, leap years included."""
    assert period_now(period, now) == expected


def test_a_new_period_is_a_new_budget():
    """What was spent last month is no matter; what began then is settled there."""
    moment = [NOW]
    limits, who = limiter(utc=lambda: moment[0]), key(budget_tokens=100)
    lease = admit(limits, who, tokens=100)
    moment[0] = datetime(2026, 12, 1, tzinfo=UTC)
    admit(limits, who, tokens=90)

    asyncio.run(limits.settle(lease, tokens=0))

    assert asyncio.run(limits.budget_used(who)) == 90


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0001, "1ms"), (0.35, "350ms"), (0.9999, "1s"), (1, "1s"), (8.64, "8.64s"),
     (59.9999, "1m0s"), (90.5, "1m30.5s"), (3600, "60m0s")],
)  # fmt: skip
def test_durations_read_as_openais(seconds, text):
    """In milliseconds below a second; rounded up, so that nobody comes too early."""
    assert duration_text(seconds) == text


@given(st.floats(0, 3e6))
def test_a_duration_is_never_short(seconds: float):
    """What is written, read again, is at least what was meant."""
    text = duration_text(seconds)
    if text.endswith("ms"):
        read = float(text.removesuffix("ms")) / 1000
    else:
        minutes, _, rest = text.removesuffix("s").rpartition("m")
        read = 60 * int(minutes or 0) + float(rest)
    assert seconds <= read + 1e-9 < seconds + 0.0011
