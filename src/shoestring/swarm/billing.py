"""A client's budget: set aside before it begins, paid out by receipts, the rest given back.

::

    hold      the budget, under a reference of this run
    capture   what a window of a session came to, under REFERENCE.NODE.SESSION.WINDOW
    release   the rest, at the end

Receipts of the run are kept in a folder of its reference, which is locked as long as the run lasts.
What is held for a run that died is settled by the next one: its receipts say what is owed.
"""

from __future__ import annotations

import asyncio
import fcntl
import secrets
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.auditing import standing_of
from shoestring.swarm.booking import Booking, session_of
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.accounts import held, wallet
from shoestring.swarm.ledger.amounts import credits_text
from shoestring.swarm.ledger.bills import Line, bill_after
from shoestring.swarm.ledger.places import book_of, book_path, owner_of, reading_of
from shoestring.swarm.ledger.wallets import WALLET_FILE
from shoestring.swarm.proof.keeping import FOLDER, ReceiptFiles
from shoestring.swarm.proof.receipts import amount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shoestring.swarm.audit.standing import Standing
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.bills import Bill
    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.proof.receipts import Receipt, Signed

BEGINNING: Final = "budget."
NODE_CHARACTERS: Final = 16
"""Of a peer id, in a reference: 80 bits."""
SIGNED_S: Final = 1.0
"""Without a receipt: then an answer is signed for. A window closes 0.3 s after the last word."""
LOCK_FILE: Final = "lock"


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
        self._promised: dict[tuple[str, str], int] = {}
        """By session, what the last receipt that we signed says."""
        self._sunk = 0
        """Signed in sessions of whose name their node made another one."""
        self._last: dict[tuple[str, str], Receipt] = {}
        """By session, the last one that both signed."""
        self._told: dict[tuple[str, str], Receipt] = {}
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
        return self._micro - self._sunk - sum(self._promised.values())

    def allows(self, receipt: Receipt) -> bool:
        """Tell whether a receipt is within the budget; then it counts as signed."""
        key, owed = session_of(receipt), amount(receipt)
        if not receipt.window:
            self._sunk += self._promised.pop(key, 0)
        fresh = owed - self._promised.get(key, 0)
        if fresh <= self.left:
            self._promised[key] = owed
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
        self._last[session_of(signed.receipt)] = signed.receipt
        self._news.set()

    def bill(self) -> Bill:
        """Return what the run did cost so far."""
        return bill_after([
            Line(one.terms.node, one.layers.count, one.figures.tokens_in, one.figures.tokens_out,
                 one.terms.price_in, one.terms.price_out)
            for one in self._last.values()
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
        fresh = {key: one for key, one in self._last.items() if one != self._told.get(key)}
        before = {key: self._told[key] for key in fresh if key in self._told}
        self._told |= fresh
        tokens_in, tokens_out = (
            max((getattr(one.figures, name) - _figure(before.get(key), name)
                 for key, one in fresh.items()), default=0)
            for name in ("tokens_in", "tokens_out")
        )  # fmt: skip
        paid = _owed(fresh) - _owed(before)
        nodes = {node for node, _ in fresh}
        return (
            f"{tokens_in} tokens in, {tokens_out} out: {credits_text(paid)} credits, "
            f"{len(nodes)} node{_s(nodes)}; {credits_text(self.left)} left of "
            f"{credits_text(self._micro)}"
        )

    @contextmanager
    def _last_long(self) -> Iterator[None]:
        """Hold the budget, and give back what is left of it."""
        folder = _folder(self._home, self._reference)
        capture = partial(_capture, standing_of(self._home), self._owner, self._reference)
        with (
            _alone(folder),
            closing(Booking(partial(book_of, self._home), capture, self._say)) as self._booking,
        ):
            self._booking.do(self._hold).result()
            with closing(ReceiptFiles(folder, self._say)) as self._files:
                yield
            self._booking.make_up(self._files).result()
            free = self._booking.do(partial(_release, self._owner, self._reference)).result()
        paid, nodes = self._micro - free, {node for node, _ in self._last}
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


def settle_left(home: Home, say: Callable[[str], None]) -> None:
    """Settle what is held for runs that died: receipts are paid, and the rest is free again.

    Args:
        home: whose wallet paid.
        say: given a line for each.

    Raises:
        BadValueError: the wallet or the book cannot be used.
    """
    if not (home.folder / WALLET_FILE).exists():
        return
    owner = owner_of(home).id
    beginning = held(owner, "")
    with reading_of(book_path(home)) as book:
        found = {} if book is None else book.balances(held(owner, BEGINNING))
    for account in found:
        reference = account.removeprefix(beginning)
        folder = _folder(home, reference)
        try:
            with (
                _alone(folder),
                closing(Booking(
                    partial(book_of, home),
                    partial(_capture, standing_of(home), owner, reference), say,
                )) as booking,
                closing(ReceiptFiles(folder, say)) as files,
            ):  # fmt: skip
                booking.make_up(files).result()
                free = booking.do(partial(_release, owner, reference)).result()
        except BlockingIOError:
            continue  # that run lasts
        say(f"a run had ended before its end: {reference} is paid, {credits_text(free)} are free")


def _capture(
    standing: Standing, owner: str, reference: str, book: Book, receipt: Receipt, fresh: int
) -> None:
    """Pay for a window, but not to who was found to cheat: what is held for it is freed."""
    node, session = session_of(receipt)
    if not standing.payable({node: fresh}):
        return
    part = f"{node[:NODE_CHARACTERS]}.{session}.{receipt.window}"
    answers.capture(book, owner, {node: fresh}, reference=reference, part=part)


def _release(owner: str, reference: str, book: Book) -> int:
    """Give back what is still held; return how much."""
    entry = answers.release(book, owner, reference=reference)
    return 0 if entry is None else entry.postings[-1][1]


def _owed(receipts: dict[tuple[str, str], Receipt]) -> int:
    return sum(amount(one) for one in receipts.values())


def _s(several: set[str]) -> str:
    return "" if len(several) == 1 else "s"


def _figure(receipt: Receipt | None, name: str) -> int:
    return 0 if receipt is None else int(getattr(receipt.figures, name))


def _folder(home: Home, reference: str) -> Path:
    return home.folder / FOLDER / reference


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only one who settles what a folder's receipts say; the kernel notices our death.

    Raises:
        BlockingIOError: another process is.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
