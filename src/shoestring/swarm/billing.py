"""A client's budget: set aside before it begins, paid out by receipts, the rest given back.

::

    hold      the budget, under a reference of this run
    capture   what a window of a session came to, under REFERENCE.NODE.SESSION.WINDOW
    release   the rest, at the end

What is held for a run that died is settled by the next one (``settling.py``).

A receipt names the one before by its hash: that tells sessions apart, whatever their nodes call
them.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.accounts import wallet
from shoestring.swarm.ledger.amounts import credits_text
from shoestring.swarm.ledger.bills import Line, bill_after
from shoestring.swarm.ledger.places import owner_of
from shoestring.swarm.proof.receipts import amount
from shoestring.swarm.settling import BEGINNING, NotSettledError, pay_rest, settling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.bills import Bill
    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.proof.receipts import Receipt, Signed

SIGNED_S: Final = 1.0
"""Without a receipt: then an answer is signed for. A window closes 0.3 s after the last word."""


class BudgetSpentError(ShoestringError):
    """A budget does not pay for what comes next."""


class Billing:
    """One run's budget, while its ``with`` lasts.

    Args:
        home: whose wallet pays, and who keeps the receipts.
        micro: of the budget.
        used_up: told once, when a window would cost more than is left.
        say: given a line for the user, from any thread.

    Raises:
        BadValueError: there is no wallet, or it has less.
    """

    def __init__(
        self,
        home: Home,
        micro: int,
        used_up: Callable[[BudgetSpentError], None],
        say: Callable[[str], None],
    ) -> None:
        self._home, self._micro, self._used_up, self._say = home, micro, used_up, say
        self._owner = owner_of(home).id
        self._reference = f"{BEGINNING}{secrets.token_hex(6)}"
        self._promised: dict[str, int] = {}
        """What each session comes to, by the hash of the last receipt that we signed."""
        self._last: dict[str, tuple[Receipt, Receipt | None]] = {}
        """The last receipt of each session that both signed, by its hash; and the one last told."""
        self._news = asyncio.Event()
        self._is_used_up = False
        self._lasting = self._last_long()

    def __enter__(self) -> Self:
        self._lasting.__enter__()
        return self

    def __exit__(self, *how: object) -> None:
        self._lasting.__exit__(None, None, None)

    @property
    def left(self) -> int:
        """Micro-credits of the budget that nothing is signed for."""
        return self._micro - sum(self._promised.values())

    def allows(self, receipt: Receipt) -> bool:
        """Tell whether a receipt is within the budget; then it counts as signed."""
        owed = amount(receipt)
        fresh = owed - self._promised.get(receipt.prev, 0)
        if fresh <= self.left:
            self._promised.pop(receipt.prev, None)
            self._promised[receipt.digest] = owed
            return True
        if not self._is_used_up:
            self._is_used_up = True
            self._used_up(BudgetSpentError(
                f"the budget of {credits_text(self._micro)} credits is used up: the next part of "
                f"the answer costs {credits_text(fresh)} and {credits_text(self.left)} are left; "
                "give more by --budget"
            ))  # fmt: skip
        return False

    def keep(self, signed: Signed) -> None:
        """Keep a receipt that both signed, and have it booked."""
        self._files.keep(signed)
        self._booking.keep(signed)
        _, told = self._last.pop(signed.receipt.prev, (None, None))
        self._last[signed.receipt.digest] = signed.receipt, told
        self._news.set()

    def bill(self) -> Bill:
        """Return what the run did cost so far."""
        return bill_after([
            Line(one.terms.node, one.layers.count, one.figures.tokens_in, one.figures.tokens_out,
                 one.terms.price_in, one.terms.price_out)
            for one, _ in self._last.values()
        ])  # fmt: skip

    async def until_signed(self) -> None:
        """Wait until no receipt has come for a second."""
        while True:
            self._news.clear()
            try:
                async with asyncio.timeout(SIGNED_S):
                    await self._news.wait()
            except TimeoutError:
                return

    async def each_answer(self, tell: Callable[[str], None]) -> None:
        """Tell what was paid each time that receipts came and then none; for ever."""
        while True:
            await self._news.wait()
            await self.until_signed()
            tell(self.line())

    def line(self) -> str:
        """Return what was computed and paid since the last line, as both signed it."""
        fresh = [(one, told) for one, told in self._last.values() if one is not told]
        self._last = {digest: (one, one) for digest, (one, _) in self._last.items()}
        tokens_in, tokens_out = (
            max((getattr(one.figures, name) - _figure(told, name) for one, told in fresh),
                default=0)
            for name in ("tokens_in", "tokens_out")
        )  # fmt: skip
        paid = sum(amount(one) - (0 if told is None else amount(told)) for one, told in fresh)
        nodes = {one.terms.node for one, _ in fresh}
        return (
            f"{tokens_in} tokens in, {tokens_out} out: {credits_text(paid)} credits, "
            f"{len(nodes)} node{_s(nodes)}; {credits_text(self.left)} left of "
            f"{credits_text(self._micro)}"
        )

    @contextmanager
    def _last_long(self) -> Iterator[None]:
        """Hold the budget, and give back what is left of it."""
        with settling(self._home, self._reference, self._say) as (self._booking, self._files):
            self._booking.do(self._hold).result()
            yield
            self._files.close()
            try:
                free = pay_rest(self._booking, self._files, self._owner, self._reference)
            except NotSettledError as error:
                self._say(str(error))
                return
        paid, nodes = self._micro - free, {one.terms.node for one, _ in self._last.values()}
        self._say(
            f"paid {credits_text(paid)} credits to {len(nodes)} node{_s(nodes)}; "
            f"{credits_text(free)} of the budget are free again"
        )

    def _hold(self, book: Book) -> None:
        if not self._micro:
            raise BadValueError("--budget 0: nobody is paid by it: give more, or leave it out")
        with book.writing():
            free = book.balance(wallet(self._owner))
            if free < self._micro:
                raise BadValueError(
                    f"--budget {credits_text(self._micro)}: the wallet has {credits_text(free)} "
                    "credits free: give at most that, or `shoestring swarm wallet fund`"
                )
            answers.hold(book, self._owner, self._micro, reference=self._reference)


def _s(several: set[str]) -> str:
    return "" if len(several) == 1 else "s"


def _figure(receipt: Receipt | None, name: str) -> int:
    return 0 if receipt is None else int(getattr(receipt.figures, name))
