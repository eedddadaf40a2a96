"""The pages of a book of counters: windows, what runs, what a budget has left.

Out of reach of the common book a replica knows what it admitted itself, not what the others did
(:class:`Share`). In the minute after the loss it admits only in the place of what it had counted
then: all together had stayed within the limit, so whatever was free may be the others' by now.
After that minute nobody's requests from before lie in a window any more, and each may admit its
share of the limit, or one request where that alone is larger.
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


@dataclass(frozen=True)
class Share:
    """What a replica may admit that is out of reach of the common book.

    Attributes:
        replicas: among which each limit is divided.
        strict_until_s: until then others' requests that it never heard of may lie in a window.
    """

    replicas: int
    strict_until_s: float

    def of(self, limit: int) -> int:
        """Return the share of a limit, at least one of it unless it is none."""
        return max(min(1, limit), limit // self.replicas)

    def strict_s(self, now_s: float) -> float:
        """Return how long it must not admit more than it had."""
        return max(0.0, self.strict_until_s - now_s)


WHOLE: Final = Share(1, -math.inf)
"""Of a book that is the only one."""


@dataclass
class Window:
    """What was counted in the last 60 s, oldest first.

    Attributes:
        kept: ``total`` when the common book was lost.
    """

    total: int = 0
    entries: deque[Entry] = field(default_factory=deque)
    kept: int = 0

    def sweep(self, now_s: float) -> None:
        """Forget what is older."""
        while self.entries and self.entries[0].at_s + WINDOW_S <= now_s:
            self.total -= self.entries.popleft().amount

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

    def wait_s(self, amount: int, limit: int | None, share: Share, now_s: float) -> float:
        """Return how long it takes until ``amount`` more fits; 0: it does."""
        if limit is None:
            return 0.0
        if amount > limit:
            return NEVER
        share_s = self._until_s(max(0, limit // share.replicas - amount), now_s)
        kept_s = min(share.strict_s(now_s), self._until_s(self.kept - amount, now_s))
        return max(share_s, kept_s)

    def left(self, limit: int, share: Share, now_s: float) -> int:
        """Return how much fits now, of the share."""
        most = limit // share.replicas
        if share.strict_s(now_s):
            most = min(most, self.kept)
        return max(0, most - self.total)

    def reset_s(self, share: Share, now_s: float) -> float:
        """Return how long it takes until all of the share is there."""
        newest_s = self.entries[-1].at_s + WINDOW_S - now_s if self.entries else 0.0
        return max(newest_s, share.strict_s(now_s))

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
        kept_running: how many ran when the common book was lost.
    """

    requests: Window = field(default_factory=Window)
    tokens: Window = field(default_factory=Window)
    running: set[str] = field(default_factory=set)
    kept_running: int = 0

    def sweep(self, now_s: float) -> None:
        """Forget what is too old."""
        self.requests.sweep(now_s)
        self.tokens.sweep(now_s)

    def keep(self, now_s: float) -> None:
        """Note what was counted when the common book was lost."""
        self.sweep(now_s)
        self.requests.kept, self.tokens.kept = self.requests.total, self.tokens.total
        self.kept_running = len(self.running)

    def place_wait_s(self, limit: int | None, share: Share, now_s: float) -> float:
        """Return how long it takes until one more may run; a guess, for nobody knows.

        One may always run: at the worst that is one more than the limit for each other replica.
        """
        if limit is None:
            return 0.0
        most = share.of(limit)
        if share.strict_s(now_s):
            most = min(most, max(1, self.kept_running))
        return 0.0 if len(self.running) < most else GUESS_S

    def is_empty(self, now_s: float) -> bool:
        """Whether nothing would be lost with it."""
        self.sweep(now_s)
        return not (self.requests.entries or self.tokens.entries or self.running)


@dataclass
class Purse:
    """A budget as one process knows it.

    Attributes:
        own: tokens that this process counted.
        total: of all, when the common book was last seen; None: it told nothing.
        own_then: ``own`` at that time.
        ends_s: when its period is over.
    """

    own: int = 0
    ends_s: float = NEVER
    total: int | None = None
    own_then: int = 0

    def is_over(self, now_s: float) -> bool:
        """Whether nothing that began in its period can still run."""
        return self.ends_s + DAY_S <= now_s

    def used(self) -> int:
        """Return what is used by all, as far as is known."""
        return (self.total or 0) + self.own - self.own_then

    def saw(self, total: int) -> None:
        """Note what all replicas counted together."""
        self.total, self.own_then = total, self.own

    def wait_s(self, budget: Budget | None, tokens: int, share: Share, now_s: float) -> float:
        """Return how long it takes until ``tokens`` more fit.

        Out of reach of the common book a replica may spend, after the minute that it is strict,
        its share of what was left; nothing of a budget that it was told nothing of.
        """
        if budget is None:
            return 0.0
        if tokens > budget.limit:
            return NEVER
        if self.used() + tokens > budget.limit:
            return budget.left_s
        if share is WHOLE:
            return 0.0
        strict_s = share.strict_s(now_s)
        if self.total is None:
            return max(strict_s, LOST_RETRY_S)
        spent, left = self.own - self.own_then, budget.limit - self.total
        over = spent > 0 and spent + tokens > left // share.replicas
        return max(strict_s, LOST_RETRY_S if over else 0.0)
