"""A node as a process: listens, keeps workers ready, and ends in order."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

from shoestring.paths import cache_dir
from shoestring.swarm.audit.attesting import UPTIME_FILE, Attestations, Attestor
from shoestring.swarm.booking import Booking
from shoestring.swarm.crossing import Crossings
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.places import book_of
from shoestring.swarm.lending import Lending
from shoestring.swarm.listening import Listener
from shoestring.swarm.node import Node, Stock
from shoestring.swarm.proof.keeping import FOLDER, ReceiptFiles
from shoestring.swarm.proof.receipts import Hand
from shoestring.swarm.store import open_store
from shoestring.swarm.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.node import Offer
    from shoestring.swarm.owner import Owner
    from shoestring.swarm.proof.receipts import Receipt, Signed
    from shoestring.swarm.worker_settings import WorkerSettings


STORE_FOLDER = "swarm/weights"
"""Of the cache: weights can be sent again."""


async def serve_node(
    home: Home,
    worker: WorkerSettings,
    offer: Offer,
    *,
    host: str,
    port: int,
    store_bytes: int | None = None,
    owner: Owner | None = None,
    ready: Callable[[int], None],
    say: Callable[[str], None],
) -> None:
    """Serve peers until SIGINT or SIGTERM.

    Args:
        home: who this node is and whom it knows.
        worker: of each session.
        offer: what peers are told and given.
        host: to listen on.
        port: likewise; 0: any free one.
        store_bytes: of weights that are kept; 0: none are. None: as the disk has room.
        owner: whose machine it is, being watched; None: nobody else uses it.
        ready: told the port once peers are answered.
        say: given a line for whatever an owner would want to know.

    Raises:
        UserError: the worker, the port or a file cannot be used.
    """
    peers = home.peers(say)
    identity, say_there = home.identity(), _from_any_thread(say)
    stock = None
    if store_bytes != 0:
        folder = cache_dir() / STORE_FOLDER
        store = await asyncio.to_thread(open_store, folder, store_bytes, say=say_there)
        stock = Stock(store, identity)
    receipts = ReceiptFiles(home.folder / FOLDER, say_there)
    booking = Booking(partial(book_of, home), partial(_earn, identity.id), _earned, say_there)

    def keep(signed: Signed) -> None:
        receipts.keep(signed)
        booking.keep(signed)

    hand = Hand(identity, keep, why_not=receipts.why_not)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, booking.close)
        stack.enter_context(closing(receipts))
        booking.make_up(receipts)  # what a process before this one died over
        pool = await stack.enter_async_context(WorkerPool(worker))
        first = await pool.take()  # that it can be started here is found out before anybody asks
        await first.stop()
        for what, why in (first.protections.lacks if first.protections else {}).items():
            say(f"the worker's room lacks {what}: {why} (docs/swarm-sandbox.md)")
        node = Node(peers, pool, offer, stock=stock, owner=owner, hand=hand, say=say)
        async with Listener(
            identity, peers, on_link=node.answer, host=host, port=port,
            invitations=home.invitations(), say=say,
        ) as listener:  # fmt: skip
            node.attestor = Attestor(identity, Attestations(home.folder / UPTIME_FILE))
            node.crossings = Crossings(identity, listener.admit_for, listener.end_admission)
            if stock is not None:
                node.lending = Lending(
                    identity, stock.store, listener.admit_for, listener.end_admission
                )
            ready(listener.port)
            await until_told()


def _earn(node: str, book: Book, receipt: Receipt, fresh: int) -> None:
    """Book what a client owes this node for a window; of what others computed for it nothing."""
    if receipt.terms.node == node:
        terms, reference = receipt.terms, f"{receipt.terms.session}.{receipt.window}"
        answers.earn(book, terms.client, node, fresh, reference=reference)


def _earned(book: Book, receipt: Receipt) -> int:
    """Return what is booked of a session."""
    return book.parts_of("earn", receipt.terms.session)


def _from_any_thread(say: Callable[[str], None]) -> Callable[[str], None]:
    """Have lines said where all others are said."""
    loop = asyncio.get_running_loop()

    def say_there(line: str) -> None:
        loop.call_soon_threadsafe(say, line)

    return say_there


async def until_told() -> None:
    """Wait for SIGINT or SIGTERM."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, told.set)
    try:
        await told.wait()
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
