"""A node as a process: listens, keeps workers ready, and ends in order."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from shoestring.swarm.listening import Listener
from shoestring.swarm.node import Node
from shoestring.swarm.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.swarm.home import Home
    from shoestring.swarm.node import Offer
    from shoestring.swarm.worker_settings import WorkerSettings


async def serve_node(
    home: Home,
    worker: WorkerSettings,
    offer: Offer,
    *,
    host: str,
    port: int,
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
        ready: told the port once peers are answered.
        say: given a line for whatever an owner would want to know.

    Raises:
        UserError: the worker, the port or a file cannot be used.
    """
    peers = home.peers(say)
    async with WorkerPool(worker) as pool:
        first = await pool.take()  # that it can be started here is found out before anybody asks
        await first.stop()
        node = Node(peers, pool, offer, say=say)
        async with Listener(
            home.identity(), peers, on_link=node.answer, host=host, port=port,
            invitations=home.invitations(), say=say,
        ) as listener:  # fmt: skip
            ready(listener.port)
            await until_told()


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
