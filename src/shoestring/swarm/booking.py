"""Receipts become entries of the book: each window of a session once, while no step waits for it.

A window is booked with what its session came to beyond the window before. So a session's entries
sum to what its last receipt says, and an entry that is tried again is a double claim, which changes
nothing: what a process died over is made up for from the files of receipts. Of a file whose session
has that sum already nothing but the last receipt is read.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.ledger.book import DoubleClaimError
from shoestring.swarm.private_files import read_private
from shoestring.swarm.proof.reading import read_signed
from shoestring.swarm.proof.receipts import amount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from pathlib import Path

    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.proof.keeping import ReceiptFiles
    from shoestring.swarm.proof.receipts import Receipt, Signed

    Enter = Callable[[Book, Receipt, int], object]
    """Books a window: the book, its receipt, and the micro-credits that are new."""
    Booked = Callable[[Book, Receipt], int]
    """Returns what the entries of a receipt's session sum to, in micro-credits."""
    Say = Callable[[str], None]

Done = TypeVar("Done")


class Booking:
    """A book that is written in a thread of its own, opened when it is first needed.

    Args:
        open_book: opens it.
        enter: books a window.
        booked: tells what is booked of a session.
        say: told, from that thread, what is not booked.
    """

    def __init__(
        self, open_book: Callable[[], Book], enter: Enter, booked: Booked, say: Say
    ) -> None:
        self._open_book, self._enter, self._booked, self._say = open_book, enter, booked, say
        self._book: Book | None = None
        self._came_to: dict[str, int] = {}
        """What each session came to, by the SHA-256 of its last receipt: names may be alike."""
        self._is_closing = False
        self._thread = ThreadPoolExecutor(1, "booking")

    def do(self, work: Callable[[Book], Done]) -> Future[Done]:
        """Have something done with the book, after all that was asked for before."""
        return self._thread.submit(lambda: work(self._opened()))

    def keep(self, signed: Signed) -> None:
        """Have the next window of a session booked; all windows of a session come here."""
        receipt, owed = signed.receipt, amount(signed.receipt)
        fresh = owed - self._came_to.pop(receipt.prev, 0)
        self._came_to[receipt.digest] = owed
        if fresh > 0:
            self._thread.submit(self._book_next, receipt, fresh)

    def make_up(self, files: ReceiptFiles) -> Future[int]:
        """Have all booked that files of receipts prove and that was not booked yet.

        Returns:
            How many files it could not book all of; what it was is said. If it is closed
            meanwhile, the files that are left wait for the next time.
        """
        return self._thread.submit(self._make_up, files)

    def close(self) -> None:
        """Return when all that was kept is booked."""
        self._is_closing = True
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _opened(self) -> Book:
        if self._book is None:
            self._book = self._open_book()
        return self._book

    def _book_next(self, receipt: Receipt, fresh: int) -> None:
        error = self._book_once(receipt, fresh)
        if error is not None:
            self._say(f"a receipt is not booked: {error}")

    def _book_once(self, receipt: Receipt, fresh: int) -> ShoestringError | None:
        """Book a window, or find it booked; return why it is not."""
        try:
            self._enter(self._opened(), receipt, fresh)
        except DoubleClaimError:
            return None
        except ShoestringError as error:
            return error
        return None

    def _make_up(self, files: ReceiptFiles) -> int:
        left = 0
        for path in files.sessions():
            if self._is_closing:
                break
            try:
                left += not (self._is_done(path) or self._book_file(files, path))
            except ShoestringError as error:
                self._say(f"receipts are not booked: {error}")
                left += 1
        return left

    def _is_done(self, path: Path) -> bool:
        """Tell whether nothing of a file is to be proved: its last receipt says what is booked.

        Nor of one whose process died over the first receipt: there is nothing to wait for.
        """
        content = read_private(path) or b""
        if b"\n" not in content:
            self._say(f"{path}: no whole receipt is in it: it proves nothing; remove it")
            return True
        try:
            receipt = read_signed(content.removesuffix(b"\n").rpartition(b"\n")[2]).receipt
        except BadValueError:
            return False  # whoever reads all of it says how it is damaged
        owed = amount(receipt)
        return not owed or self._booked(self._opened(), receipt) == owed

    def _book_file(self, files: ReceiptFiles, path: Path) -> bool:
        receipts = [signed.receipt for signed in files.read(path)]
        tried = [self._book_once(receipt, fresh) for receipt, fresh in growths(receipts)]
        errors = [error for error in tried if error is not None]
        if errors:
            self._say(f"{path}: {len(errors)} receipts are not booked: {errors[0]}")
        return not errors

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
