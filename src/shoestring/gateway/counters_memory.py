"""One process's book of counters; also the copy that a replica keeps of what it admitted itself.

``limits`` has a memory of its own, which is not used: in 5.8 each hit visits every caller in
threads (69 ms of CPU a hit at 1000 callers, measured on 2 cores), it cannot take back what another
limit refuses, and it reads the wall clock.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from shoestring.gateway.counters import WINDOW_S, Rate, Verdict
from shoestring.gateway.tallies import WHOLE, Entry, Purse, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shoestring.gateway.counters import Ask, Budget, Reason, State
    from shoestring.gateway.tallies import Share, Window

T = TypeVar("T")


@dataclass
class Held:
    """A request that was admitted here, kept while it runs and while it lies in a window."""

    ask: Ask
    at_s: float
    tokens: Entry
    used_tokens: int = 0
    settled_s: float | None = None

    def is_over(self, now_s: float) -> bool:
        """Whether it ended, and nothing of it lies in a window any more."""
        return self.settled_s is not None and self.settled_s + WINDOW_S <= now_s


@dataclass(frozen=True)
class Spent:
    """What one process counted of a budget.

    Attributes:
        left_s: until its period ends; negative: it is over.
    """

    name: str
    tokens: int
    left_s: float


class MemoryCounters:
    """One process's book.

    Args:
        clock: seconds that never go back.
        spent: from before this process began.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, spent: Iterable[Spent] = ()
    ) -> None:
        self._clock = clock
        self._keys: OrderedDict[str, Tally] = OrderedDict()
        self._addresses: OrderedDict[str, Tally] = OrderedDict()
        self._purses = OrderedDict(
            (one.name, Purse(own=one.tokens, ends_s=clock() + one.left_s)) for one in spent
        )
        self._held: OrderedDict[str, Held] = OrderedDict()

    async def admit(self, ask: Ask) -> Verdict:
        """Count a request unless a limit is in the way."""
        return self.decide(ask)

    async def settle(self, ask: Ask, tokens: int) -> None:
        """Free what a request held, and count the tokens that it used."""
        self.finish(ask.id, tokens)

    async def budget_used(self, budget: Budget) -> int:
        """Return the tokens of a budget that are used or set aside."""
        return self._purses.get(budget.name, Purse()).used()

    def state(self) -> State:
        """Return ``none``: other processes do not see this book."""
        return "none"

    def replicas(self) -> int:
        """Return 1: each process has its own book."""
        return 1

    def decide(self, ask: Ask, share: Share = WHOLE) -> Verdict:
        """Count a request unless a limit is in the way, of which only ``share`` is ours."""
        now_s = self._clock()
        key, address = self._keys.get(ask.key, Tally()), self._addresses.get(ask.address, Tally())
        key.sweep(now_s)
        address.sweep(now_s)
        purse = self._purse(ask.budget)
        waits: dict[Reason, float] = {
            "rate_limit": key.requests.wait_s(1, ask.requests_per_minute, share, now_s),
            "token_limit": key.tokens.wait_s(ask.tokens, ask.tokens_per_minute, share, now_s),
            "concurrency": key.place_wait_s(ask.concurrent, share, now_s),
            "budget": purse.wait_s(ask.budget, ask.tokens, share, now_s),
            "address_rate_limit": address.requests.wait_s(
                1, ask.address_requests_per_minute, share, now_s
            ),
            "address_concurrency": address.place_wait_s(ask.address_concurrent, share, now_s),
        }
        reason = max(waits, key=waits.__getitem__)
        if not waits[reason]:
            self.note(ask)
            key = self._keys.get(ask.key, key)
        return Verdict(
            refused=reason if waits[reason] else None,
            wait_s=waits[reason],
            requests=_rate(key.requests, ask.requests_per_minute, share, now_s),
            tokens=_rate(key.tokens, ask.tokens_per_minute, share, now_s),
        )

    def note(self, ask: Ask) -> None:
        """Count a request, whatever the limits say."""
        now_s, tokens = self._clock(), None
        if ask.counts_key():
            key = self._keys.setdefault(ask.key, Tally())
            key.running.add(ask.id)
            key.requests.add(now_s, 1)
            tokens = key.tokens.add(now_s, ask.tokens)
        if ask.counts_address():
            address = self._addresses.setdefault(ask.address, Tally())
            address.running.add(ask.id)
            address.requests.add(now_s, 1)
        if ask.budget is not None:
            purse = self._purses.setdefault(ask.budget.name, Purse())
            purse.own += ask.tokens
            purse.ends_s = now_s + ask.budget.left_s
        self._held[ask.id] = Held(ask, now_s, tokens or Entry(now_s, ask.tokens))
        self._tidy(now_s)

    def saw(self, budget: Budget, used: int) -> None:
        """Note what the common book says of a budget."""
        purse = self._purses.setdefault(budget.name, Purse())
        purse.saw(used)
        purse.ends_s = self._clock() + budget.left_s

    def keep(self) -> None:
        """Note what was counted when the common book was lost."""
        now_s = self._clock()
        for tally in chain(self._keys.values(), self._addresses.values()):
            tally.keep(now_s)

    def finish(self, request: str, tokens: int) -> bool:
        """Free what a request held; return False where that was done before, or it held nothing."""
        held = self._held.get(request)
        if held is None or held.settled_s is not None:
            return False
        ask, now_s = held.ask, self._clock()
        held.used_tokens, held.settled_s = tokens, now_s
        surplus = tokens - ask.tokens
        if key := self._keys.get(ask.key):
            key.running.discard(request)
            if surplus > 0:
                key.tokens.add(now_s, surplus)
            else:
                key.tokens.refund(held.tokens, -surplus, now_s)
        if address := self._addresses.get(ask.address):
            address.running.discard(request)
        if ask.budget is not None and (purse := self._purses.get(ask.budget.name)):
            purse.own += surplus
        self._tidy(now_s)
        return True

    def held(self) -> list[Held]:
        """Return what runs, and what still lies in a window."""
        now_s = self._clock()
        return [held for held in self._held.values() if not held.is_over(now_s)]

    def now_s(self) -> float:
        """Return the time by the clock that :class:`Held` is stamped with."""
        return self._clock()

    def spent(self) -> list[Spent]:
        """Return what this process counted of each budget."""
        now_s = self._clock()
        return [Spent(name, one.own, one.ends_s - now_s) for name, one in self._purses.items()]

    def kept(self) -> int:
        """Return how many keys, addresses, requests and budgets are kept."""
        return len(self._keys) + len(self._addresses) + len(self._held) + len(self._purses)

    def _purse(self, budget: Budget | None) -> Purse:
        return Purse() if budget is None else self._purses.get(budget.name, Purse())

    def _tidy(self, now_s: float) -> None:
        # Two of each at a time: what is kept stays bounded, and no request pays for a clean-up.
        for _ in range(2):
            for tallies in (self._keys, self._addresses):
                _pass(tallies, lambda tally: tally.is_empty(now_s))
            _pass(self._held, lambda held: held.is_over(now_s))
            _pass(self._purses, lambda purse: purse.is_over(now_s))


def _pass(kept: OrderedDict[str, T], is_over: Callable[[T], bool]) -> None:
    """Drop the first, or send it to the end."""
    if kept:
        name = next(iter(kept))
        kept.move_to_end(name)
        if is_over(kept[name]):
            del kept[name]


def _rate(window: Window, limit: int | None, share: Share, now_s: float) -> Rate | None:
    if limit is None:
        return None
    return Rate(share.of(limit), window.left(limit, share, now_s), window.reset_s(share, now_s))
