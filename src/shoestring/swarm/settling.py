"""What is held for a run becomes payments by its receipts, and what is left of it is free again.

Receipts of a run are kept in a folder of its reference, which is locked as long as the run lasts.
Of a run that died they say what is owed. As long as one of them cannot be booked, what is left of
the hold stays: it would pay for it.
"""

from __future__ import annotations

import fcntl
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError
from shoestring.swarm.auditing import standing_of
from shoestring.swarm.booking import Booking
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.accounts import held
from shoestring.swarm.ledger.amounts import credits_text
from shoestring.swarm.ledger.places import book_of, book_path, owner_of, reading_of
from shoestring.swarm.ledger.wallets import WALLET_FILE
from shoestring.swarm.proof.keeping import FOLDER, ReceiptFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shoestring.swarm.audit.standing import Standing
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.proof.receipts import Receipt

BEGINNING: Final = "budget."
NODE_CHARACTERS: Final = 16
"""Of a peer id, in a reference: 80 bits."""
LOCK_FILE: Final = "lock"


class RunLastsError(BadValueError):
    """What is held for a run is not settled: more may be signed."""


class NotSettledError(BadValueError):
    """What is held for a run that ended stays so: not all of its receipts could be booked."""


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
    beginning = held(owner_of(home).id, "")
    with reading_of(book_path(home)) as book:
        found = {} if book is None else book.balances(beginning + BEGINNING)
    for account in found:
        reference = account.removeprefix(beginning)
        try:
            free = settle(home, reference, say)
        except RunLastsError:
            continue
        except NotSettledError as error:
            say(str(error))
            continue
        say(f"a run had ended before its end: {reference} is paid, {credits_text(free)} are free")


def settle(home: Home, reference: str, say: Callable[[str], None]) -> int:
    """Pay what the receipts of a run that ended prove, and give back the rest of what is held.

    Args:
        home: whose wallet pays.
        reference: of what is held.
        say: told, from another thread, what is not booked.

    Returns:
        Micro-credits that are free again.

    Raises:
        RunLastsError: it has not ended.
        NotSettledError: a receipt could not be booked; what is left stays held.
        BadValueError: the wallet or the book cannot be used.
    """
    with settling(home, reference, say) as (booking, files):
        return pay_rest(booking, files, owner_of(home).id, reference)


@contextmanager
def settling(
    home: Home, reference: str, say: Callable[[str], None]
) -> Iterator[tuple[Booking, ReceiptFiles]]:
    """Be the only one who pays for a run: by what its files hold, out of what is held for it."""
    folder, owner = home.folder / FOLDER / reference, owner_of(home).id
    capture = partial(_capture, standing_of(home), owner, reference)
    with (
        _alone(folder),
        closing(Booking(
            partial(book_of, home), capture, partial(_captured, reference), say
        )) as booking,
        closing(ReceiptFiles(folder, say)) as files,
    ):  # fmt: skip
        yield booking, files


def pay_rest(booking: Booking, files: ReceiptFiles, owner: str, reference: str) -> int:
    """Pay what is not paid yet, and give back what is then held; return how much."""
    if booking.make_up(files).result():
        raise NotSettledError(
            f"what is left of {reference} stays held, for not all of its receipts could be booked: "
            "the next `shoestring swarm up` or `chat` tries again, as does `shoestring swarm "
            f"wallet release {reference}`; or move their file away: then the rest is free"
        )
    return booking.do(partial(_release, owner, reference)).result()


def _capture(
    standing: Standing, owner: str, reference: str, book: Book, receipt: Receipt, fresh: int
) -> None:
    """Pay for a window, but not to who was found to cheat: what is held for it is freed."""
    node = receipt.terms.node
    if not standing.payable({node: fresh}):
        return
    part = f"{_session(receipt)}.{receipt.window}"
    answers.capture(book, owner, {node: fresh}, reference=reference, part=part)


def _captured(reference: str, book: Book, receipt: Receipt) -> int:
    """Return what was paid for a session."""
    return book.parts_of("capture", f"{reference}.{_session(receipt)}")


def _session(receipt: Receipt) -> str:
    """Return what a session is called beside others of its run."""
    return f"{receipt.terms.node[:NODE_CHARACTERS]}.{receipt.terms.session}"


def _release(owner: str, reference: str, book: Book) -> int:
    """Give back what is still held; return how much."""
    entry = answers.release(book, owner, reference=reference)
    return 0 if entry is None else entry.postings[-1][1]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only one who settles what a folder's receipts say; the kernel notices our death.

    Raises:
        RunLastsError: another process is.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunLastsError(
                f"{folder.name} has not ended: end that `shoestring swarm up` or `chat`; it "
                "releases the rest itself"
            ) from error
        yield
