"""The pages of a book of counters: windows, what runs, what a budget has left.

A replica's own book also notes what the others had counted when the common one was last seen, so
that all together stay within a limit while that is out of reach. Each may then admit its share of
the limit, or one request where that alone is larger.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shoestring.gateway.counters import GUESS_S, LOST_RETRY_S, NEVER, WINDOW_S

if TYPE_CHECKING:
    from shoestring.gateway.counters import Budget

DAY_S: Final = 86_400.0


@dataclass
class Entry:
    """An amount, and when it was counted."""

    at_s: float
    amount: int


def most(own_then: int, others: int, limit: int, replicas: int) -> int:
    """Return how much one replica may have counted: what it had, and its share of what was left."""
    return own_then + max(0, limit - own_then - others) // replicas


@dataclass
class Window:
    """What was counted in the last 60 s, oldest first.

    Attributes:
        others: the same of other replicas, when the common book was last seen.
        own_then: ours at that time.
        others_until_s: when that says nothing any more.
    """

    total: int = 0
    entries: deque[Entry] = field(default_factory=deque)
    others: int = 0
    own_then: int = 0
    others_until_s: float = -math.inf

    def sweep(self, now_s: float) -> None:
        """Forget what is older."""
        while self.entries and self.entries[0].at_s + WINDOW_S <= now_s:
            self.total -= self.entries.popleft().amount
        if self.others_until_s <= now_s:
            self.others = self.own_then = 0

    def add(self, now_s: float, amount: int) -> Entry:
        """Count ``amount`` from now on."""
        entry = Entry(now_s, amount)
        self.entries.append(entry)
        self.total += amount
        return entry

    def refund(self, entry: Entry, amount: int, now_s: float) -> None:
        """Take ``amount`` back, unless its window is over."""
        if entry.at_s + WINDOW_S > now_s:
            entry.amount -= amount
            self.total -= amount

    def saw(self, total: int, now_s: float) -> None:
        """Note what all replicas counted together."""
        self.sweep(now_s)
        self.others, self.own_then = max(0, total - self.total), self.total
        self.others_until_s = now_s + WINDOW_S

    def wait_s(self, amount: int, limit: int | None, replicas: int, now_s: float) -> float:
        """Return how long it takes until ``amount`` more fits; 0: it does."""
        if limit is None:
            return 0.0
        if amount > limit:
            return NEVER
        share_s = self._until_s(max(0, limit // replicas - amount), now_s)
        if self.others_until_s <= now_s:
            return share_s
        room = most(self.own_then, self.others, limit, replicas) - amount
        if self.own_then + self.others + amount <= limit:
            room = max(0, room)
        blind_s = max(self._until_s(limit - amount, now_s), self.others_until_s - now_s)
        return max(share_s, min(self._until_s(room, now_s), blind_s))

    def left(self, limit: int, replicas: int, now_s: float) -> int:
        """Return how much fits now, of the share."""
        left = limit // replicas - self.total
        if self.others_until_s > now_s:
            left = min(left, most(self.own_then, self.others, limit, replicas) - self.total)
        return max(0, left)

    def reset_s(self, now_s: float) -> float:
        """Return how long it takes until nothing is counted."""
        return self.entries[-1].at_s + WINDOW_S - now_s if self.entries else 0.0

    def _until_s(self, room: int, now_s: float) -> float:
        """Return how long it takes until no more than ``room`` is counted."""
        total = self.total
        if total <= room:
            return 0.0
        for entry in self.entries:
            total -= entry.amount
            if total <= room:
                return entry.at_s + WINDOW_S - now_s
        return NEVER


@dataclass
class Tally:
    """What is counted of one key or one address.

    Attributes:
        running: ids of requests.
        others_running, own_running_then: as in :class:`Window`.
    """

    requests: Window = field(default_factory=Window)
    tokens: Window = field(default_factory=Window)
    running: set[str] = field(default_factory=set)
    others_running: int = 0
    own_running_then: int = 0

    def sweep(self, now_s: float) -> None:
        """Forget what is too old."""
        self.requests.sweep(now_s)
        self.tokens.sweep(now_s)
        if self.requests.others_until_s <= now_s:
            self.others_running = self.own_running_then = 0

    def saw(self, requests: int, tokens: int, running: int, now_s: float) -> None:
        """Note what all replicas counted together."""
        self.requests.saw(requests, now_s)
        self.tokens.saw(tokens, now_s)
        self.others_running = max(0, running - len(self.running))
        self.own_running_then = len(self.running)

    def place_wait_s(self, limit: int | None, replicas: int) -> float:
        """Return how long it takes until one more may run; a guess, for nobody knows."""
        if limit is None:
            return 0.0
        own, total_then = len(self.running), self.own_running_then + self.others_running
        fits = own < most(self.own_running_then, self.others_running, limit, replicas)
        if own == 0:
            fits = total_then < limit
        return 0.0 if fits and own < max(1, limit // replicas) else GUESS_S

    def is_empty(self, now_s: float) -> bool:
        """Whether nothing would be lost with it."""
        self.sweep(now_s)
        return not (self.requests.entries or self.tokens.entries or self.running) and not (
            self.requests.others or self.tokens.others or self.others_running
        )


@dataclass
class Purse:
    """A budget as one process knows it.

    Attributes:
        own: tokens that this process counted.
        total: of all, when the common book was last seen.
        own_then: ``own`` at that time.
        ends_s: when its period is over.
    """

    own: int = 0
    ends_s: float = NEVER
    total: int = 0
    own_then: int = 0

    def is_over(self, now_s: float) -> bool:
        """Whether nothing that began in its period can still run."""
        return self.ends_s + DAY_S <= now_s

    def used(self) -> int:
        """Return what is used by all, as far as is known."""
        return self.total + self.own - self.own_then

    def saw(self, total: int) -> None:
        """Note what all replicas counted together."""
        self.total, self.own_then = total, self.own

    def wait_s(self, budget: Budget | None, tokens: int, replicas: int) -> float:
        """Return how long it takes until ``tokens`` more fit.

        Out of reach of the common book a replica may spend its share of what was left.
        """
        if budget is None:
            return 0.0
        if tokens > budget.limit:
            return NEVER
        if self.used() + tokens > budget.limit:
            return budget.left_s
        spent, left = self.own - self.own_then, budget.limit - self.total
        return LOST_RETRY_S if spent > 0 and spent + tokens > left // replicas else 0.0
