"""The money of a simulated day, in the book of :mod:`shoestring.swarm.ledger` and by its own rules.

The book is a file in a folder of its own. Its keeper's key follows from the seed, so that its last
hash is the same in each run. Entries are booked one by one and many to a transaction: a pool that
lives is synced at each, which a simulated one needs not be.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.book import Book
from shoestring.swarm.ledger.rewards import pay_out, share_out
from shoestring.swarm.ledger.verifying import verify
from shoestring.swarm.private_files import make_once
from shoestring.swarm.simulation.scenario import BEGUN_S

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from shoestring.swarm.ledger.rewards import Service
    from shoestring.swarm.simulation.scenario import Scenario

PURSE: Final = 100_000_000_000
"""Micro-credits that each user begins with: nobody runs out in a day."""
TOGETHER: Final = 4_000
"""Answers to a transaction."""


class Money:
    """The book of one run; its ``with`` closes it.

    Args:
        scenario: what is simulated.
        folder: an empty one.

    Attributes:
        now_s: simulated seconds; whoever runs the events sets it.
        income: micro-credits of each peer id for answers, refunds taken off.
        rewards: micro-credits of each peer id out of the pool's.
    """

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        key = Ed25519PrivateKey.from_private_bytes(scenario.key("keeper"))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        make_once(folder / "identity.key", pem)
        self.now_s = 0.0
        self.income: dict[str, int] = {}
        self.rewards: dict[str, int] = {}
        self.sums = dict.fromkeys(("held", "captured", "released", "refunded", "rewarded"), 0)
        self._users: set[str] = set()
        self._identity = load_identity(folder / "identity.key")
        self._scenario = scenario
        self._book = Book(folder / "ledger.db", self._identity, now=self._now)
        self._open = ExitStack()
        self._booked = 0

    def __enter__(self) -> Self:
        self._open.enter_context(self._book.writing())
        if self._scenario.rewards_micro:
            answers.fund_rewards(self._book, self._scenario.rewards_micro, reference="rewards")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)
        self._book.close()

    def hold(self, user: str, most: int, reference: str) -> None:
        """Set aside what an answer may cost at most; a new user is funded first."""
        if user not in self._users:
            self._users.add(user)
            answers.fund(self._book, user, PURSE, reference=f"purse-{user}")
        if most:
            answers.hold(self._book, user, most, reference=reference)
            self.sums["held"] += most

    def settle(self, user: str, shares: Mapping[str, int], most: int, reference: str) -> int:
        """Pay the nodes of an answer and give back the rest; return what was paid."""
        paid = sum(shares.values())
        if most:
            answers.capture(self._book, user, shares, reference=reference)
            if paid < most:
                answers.release(self._book, user, reference=reference)
        for peer, part in shares.items():
            self.income[peer] = self.income.get(peer, 0) + part
        self.sums["captured"] += paid
        self.sums["released"] += most - paid
        self._booked += 1
        if self._booked % TOGETHER == 0:
            self._open.close()
            self._open.enter_context(self._book.writing())
        return paid

    def refund(self, user: str, shares: Mapping[str, int], reference: str) -> None:
        """Take back what those got who were found to cheat."""
        if sum(shares.values()):
            answers.refund(self._book, user, shares, reference=reference)
        for peer, part in shares.items():
            self.income[peer] -= part
        self.sums["refunded"] += sum(shares.values())

    def reward(self, services: Mapping[str, Service], over_s: float, reference: str) -> None:
        """Share out what the pool pays for a time; in as many entries as it takes."""
        micro = int(self._scenario.rewards_micro * over_s / self._scenario.lasts_s)
        shares = share_out(micro, services)
        pay_out(self._book, shares, reference=reference)
        for peer, part in shares.items():
            self.rewards[peer] = self.rewards.get(peer, 0) + part
            self.sums["rewarded"] += part

    def verified(self) -> dict[str, int | str | bool]:
        """Read the whole book as ``swarm ledger verify`` does, and say what it holds."""
        self._open.close()
        found = verify(self._book, self._identity.id)
        return {
            "entries": found.entries, "hash": found.hash, "right": found.fault is None,
            "fault": "" if found.fault is None else found.fault.what,
            "sum_micro": sum(self._book.balances().values()),
            "users": len(self._users), "funded_micro": PURSE * len(self._users),
            **{f"{name}_micro": micro for name, micro in self.sums.items()},
        }  # fmt: skip

    def _now(self) -> float:
        return BEGUN_S + self.now_s
