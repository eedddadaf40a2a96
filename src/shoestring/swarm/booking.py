"""Receipts become entries of the book: each window of a session once, while no step waits for it.

A window is booked with what its session came to beyond the window before. So a session's entries
sum to what its last receipt says, and an entry that is tried again is a double claim, which changes
nothing: what a process died over is made up for from the files of receipts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.ledger.book import DoubleClaimError
from shoestring.swarm.proof.receipts import amount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.proof.keeping import ReceiptFiles
    from shoestring.swarm.proof.receipts import Receipt, Signed

    Enter = Callable[[Book, Receipt, int], object]
    """Books a window: the book, its receipt, and the micro-credits that are new."""

Done = TypeVar("Done")


def session_of(receipt: Receipt) -> tuple[str, str]:
    """Return what tells sessions apart: the node's id, and its name for the session."""
    return receipt.terms.node, receipt.terms.session


class Booking:
    """A book that is written in a thread of its own, opened when it is first needed.

    Args:
        open_book: opens it.
        enter: books a window.
        say: told, from that thread, what is not booked.
    """

    def __init__(
        self, open_book: Callable[[], Book], enter: Enter, say: Callable[[str], None]
    ) -> None:
        self._open_book, self._enter, self._say = open_book, enter, say
        self._book: Book | None = None
        self._came_to: dict[tuple[str, str], int] = {}
        self._thread = ThreadPoolExecutor(1, "booking")

    def do(self, work: Callable[[Book], Done]) -> Future[Done]:
        """Have something done with the book, after all that was asked for before."""
        return self._thread.submit(lambda: work(self._opened()))

    def keep(self, signed: Signed) -> None:
        """Have the next window of a session booked; all windows of a session come here."""
        receipt, key = signed.receipt, session_of(signed.receipt)
        owed = amount(receipt)
        fresh = owed - self._came_to.get(key, 0)
        self._came_to[key] = owed
        if fresh > 0:
            self._thread.submit(self._try, receipt, fresh)

    def make_up(self, files: ReceiptFiles) -> Future[None]:
        """Have all booked that files of receipts prove and that was not booked yet."""
        return self._thread.submit(self._make_up, files)

    def close(self) -> None:
        """Return when all is booked."""
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _opened(self) -> Book:
        if self._book is None:
            self._book = self._open_book()
        return self._book

    def _try(self, receipt: Receipt, fresh: int) -> None:
        try:
            enter_once(self._enter, self._opened(), receipt, fresh)
        except ShoestringError as error:
            self._say(f"a receipt is not booked: {error}")

    def _make_up(self, files: ReceiptFiles) -> None:
        for path in files.sessions():
            try:
                receipts = [signed.receipt for signed in files.read(path)]
            except BadValueError as error:
                self._say(f"receipts are not booked: {error}")
                continue
            for receipt, fresh in growths(receipts):
                self._try(receipt, fresh)

    def _close(self) -> None:
        if self._book is not None:
            self._book.close()


def growths(receipts: Iterable[Receipt]) -> Iterable[tuple[Receipt, int]]:
    """Yield each receipt that is owed more than the one before, with the difference.

    Args:
        receipts: of one session, from the first on.
    """
    before = 0
    for receipt in receipts:
        owed = amount(receipt)
        if owed > before:
            yield receipt, owed - before
        before = owed


def enter_once(enter: Enter, book: Book, receipt: Receipt, fresh: int) -> None:
    """Book a window, or find it booked.

    Raises:
        RefusedEntryError: an account has not so much.
    """
    try:
        enter(book, receipt, fresh)
    except DoubleClaimError:
        return
