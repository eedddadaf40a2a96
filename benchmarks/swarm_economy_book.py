"""A bill in a book: held before, captured after, the rest released; and what the book refuses.

The amounts are those of receipts that both ends signed. Somebody with the file then changes an
entry, as far as a file can be changed, and the book is verified.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger.accounts import income, wallet
from shoestring.swarm.ledger.answers import capture, fund, hold, refund, release
from shoestring.swarm.ledger.book import Book, RefusedEntryError
from shoestring.swarm.ledger.reading import BOOK_FILE, open_reading
from shoestring.swarm.ledger.verifying import verify
from shoestring.swarm.proof.books import ReceiptBook

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from swarm_economy_receipts import Sold

    from shoestring.swarm.identity import Identity

FUNDED: Final = 25_000_000
ANSWER: Final = "answer-1"


def book_it(folder: Path, sold: Sold) -> dict[str, Any]:
    """Hold the bill before, capture the one after, release the rest; then try what is wrong."""
    assert sold.before is not None, "it was made"
    keeper, owner = sold.user, load_identity(folder / "wallet.key").id
    claims = ReceiptBook()
    shares = {key.id: claims.claim(chain) for key, chain in zip(sold.nodes, sold.mine, strict=True)}
    names = {owner: "user", **{key.id: f"node{number}"
                               for number, key in enumerate(sold.nodes, start=1)}}  # fmt: skip
    refused: list[dict[str, Any]] = []

    def try_to(what: str, entry: Callable[[], object]) -> None:
        try:
            entry()
        except RefusedEntryError as error:
            refused.append({"what": what, "reason": named(str(error), names)})
        else:
            refused.append({"what": what, "reason": None})

    with closing(Book(folder / BOOK_FILE, keeper)) as book:
        entries = [fund(book, owner, FUNDED, reference="credits-1"),
                   hold(book, owner, sold.before.micro, reference=ANSWER)]  # fmt: skip
        first = next(iter(shares))
        more = {first: sold.before.micro + 1}
        try_to("capture more than is held", lambda: capture(book, owner, more, reference=ANSWER))
        entries.append(capture(book, owner, shares, reference=ANSWER))
        try_to("capture it again", lambda: capture(book, owner, shares, reference=ANSWER))
        rest = release(book, owner, reference=ANSWER)
        entries += [] if rest is None else [rest]
        try_to("hold more than the wallet has",
               lambda: hold(book, owner, FUNDED + 1, reference="answer-2"))  # fmt: skip
        more = {first: shares[first] + 1}
        try_to("refund more than the node got", lambda: refund(book, owner, more, reference=ANSWER))
        balances = {"user": book.balance(wallet(owner)),
                    **{names[peer]: book.balance(income(peer)) for peer in shares}}  # fmt: skip
    return {
        "entries": [
            {"number": one.number, "kind": one.kind, "sha256": one.sha256().hex(),
             "previous": one.previous.hex(),
             "postings": [[named(account, names), micro] for account, micro in one.postings]}
            for one in entries
        ],
        "balances": balances, "refused": refused, "verified": verified(folder / BOOK_FILE, keeper),
        "changed": verified(changed(folder, entries[2].number), keeper),
    }  # fmt: skip


def named(text: str, names: dict[str, str]) -> str:
    """Return a text with people's names for peer ids."""
    for peer, name in names.items():
        text = text.replace(peer, name)
    return text


def verified(path: Path, keeper: Identity) -> dict[str, Any]:
    """Return what verifying a book finds."""
    book = open_reading(path)
    assert book is not None, "something was booked"
    with closing(book):
        found = verify(book, keeper.id)
    fault = None if found.fault is None else {"entry": found.fault.number, "what": found.fault.what}
    return {"entries": found.entries, "fault": fault}


def changed(folder: Path, number: int) -> Path:
    """Return a copy of the book in which somebody with the file changed an entry's memo."""
    path = folder / "changed" / BOOK_FILE
    path.parent.mkdir()
    shutil.copy(folder / BOOK_FILE, path)
    with closing(sqlite3.connect(path)) as connection:
        texts = [sql for (sql,) in connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'trigger'")]  # fmt: skip
        names = [name for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'")]  # fmt: skip
        for name in names:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE entries SET memo = 'changed' WHERE number = ?", (number,))
        for sql in texts:
            connection.execute(sql)
        connection.commit()
    return path
