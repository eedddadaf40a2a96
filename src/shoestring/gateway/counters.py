"""What is counted of each key and each address, and who keeps the book.

Requests and tokens are counted over a moving window: at no time do more than the limit lie in the
last 60 s. What runs is counted by its id, a budget by its period. A question is answered whole: a
request that is refused leaves nothing behind, whatever other limit had let it pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, Protocol

WINDOW_S: Final = 60.0
NEVER: Final = math.inf
GUESS_S: Final = 1.0  # nobody knows when a running request ends
LOST_RETRY_S: Final = 5.0  # nor when the common book is back

State = Literal["none", "ok", "lost"]
Reason = Literal["rate_limit", "token_limit", "concurrency", "budget", "address_rate_limit",
                 "address_concurrency"]  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """A key's budget in the period that runs now.

    Attributes:
        name: of key and period, for example ``k3y:2026-11``.
        limit: in tokens.
        left_s: until the next period begins; infinite where there is none.
    """

    name: str
    limit: int
    left_s: float


@dataclass(frozen=True)
class Ask:
    """What a request wants to have counted; a limit that is None is neither kept nor counted.

    Attributes:
        id: of this request, never used twice.
        tokens: set aside until it is known how many were used.
    """

    id: str
    key: str
    address: str
    tokens: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    budget: Budget | None = None
    address_requests_per_minute: int | None = None
    address_concurrent: int | None = None

    def counts_key(self) -> bool:
        """Whether a limit holds for its key in the next minute; a budget is counted apart."""
        limits = (self.requests_per_minute, self.tokens_per_minute, self.concurrent)
        return any(limit is not None for limit in limits)

    def counts_address(self) -> bool:
        """Whether a limit holds for its address."""
        limits = (self.address_requests_per_minute, self.address_concurrent)
        return any(limit is not None for limit in limits)


@dataclass(frozen=True)
class Rate:
    """What is left of a limit.

    Attributes:
        limit: in any 60 s.
        remaining: of it now.
        reset_s: until all of it is there again, if nothing more is asked.
    """

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True)
class Used:
    """What all replicas counted together: of a key, a budget and an address."""

    requests: int
    tokens: int
    running: int
    budget: int
    address_requests: int
    address_running: int


@dataclass(frozen=True)
class Verdict:
    """The answer to an :class:`Ask`.

    Attributes:
        refused: why, or None where it is admitted; of several reasons the one that lasts longest.
        wait_s: until the same would be admitted, if nothing else happens; infinite: never.
        requests, tokens: for the headers; None where there is no such limit.
    """

    refused: Reason | None = None
    wait_s: float = 0.0
    requests: Rate | None = None
    tokens: Rate | None = None


class Counters(Protocol):
    """A book of what is admitted; :meth:`settle` closes what :meth:`admit` opened, once."""

    async def admit(self, ask: Ask) -> Verdict:
        """Count a request unless a limit is in the way."""

    async def settle(self, ask: Ask, tokens: int) -> None:
        """Free what a request held, and count the tokens that it used."""

    async def budget_used(self, budget: Budget) -> int:
        """Return the tokens of a budget that are used or set aside."""

    def state(self) -> State:
        """Say whether the common book is there; ``none``: this one is no common one."""

    def replicas(self) -> int:
        """Return how many gateways count in this book, as of when it was last seen."""
