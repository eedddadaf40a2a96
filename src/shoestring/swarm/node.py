"""The agent of a node: lets peers in, gives each session a fresh worker, and watches over both."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import EngineLostError, ShoestringError
from shoestring.swarm.link import LinkError
from shoestring.swarm.queueing import BusyError, GoneError, Turns
from shoestring.swarm.session import Session
from shoestring.swarm.wire import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.hardware.devices import Device
    from shoestring.swarm.firewall import Rules
    from shoestring.swarm.link import Link
    from shoestring.swarm.peers import Peers
    from shoestring.swarm.worker import Worker
    from shoestring.swarm.worker_pool import WorkerPool

WORD_S: Final = 10.0
IDLE_S: Final = 1_800.0
PINGS: Final = 1_000
"""Words that one greeting may hold, and so round trips that a client may measure by it."""


@dataclass(frozen=True)
class Offer:
    """What a node gives to one session.

    Attributes:
        rules: of the firewall.
        engine_sha256: of its worker's program.
        device: that its worker computes on.
        threads: of the worker.
    """

    rules: Rules
    engine_sha256: str
    device: Device
    threads: int

    def words(self) -> dict[str, Any]:
        """Return what peers are told of it."""
        return {
            "version": version("shoestring"),
            "rpc": list(VERSION),
            "engine_sha256": self.engine_sha256,
            "kind": self.device.kind,
            "title": self.device.title,
            "generation": self.device.generation,
            "bandwidth_bytes_per_s": self.device.bandwidth_bytes_per_s,
            "compute_flops": self.device.compute_flops,
            "threads": self.threads,
            "memory_bytes": self.rules.memory_bytes,
        }


class Node:
    """Answers links of peers that may use this machine.

    Args:
        peers: who may do what.
        pool: of workers.
        offer: to each session.
        sessions: at a time.
        idle_s: how long a session may say nothing.
        say: given a line for whatever an owner would want to know.
    """

    def __init__(
        self,
        peers: Peers,
        pool: WorkerPool,
        offer: Offer,
        *,
        sessions: int = 1,
        idle_s: float = IDLE_S,
        say: Callable[[str], None],
    ) -> None:
        self._peers = peers
        self._pool = pool
        self._offer = offer
        self._turns = Turns(sessions)
        self._idle_s = idle_s
        self._say = say

    async def answer(self, link: Link) -> None:
        """Do what a link came for; for :class:`~shoestring.swarm.listening.Listener`.

        Raises:
            LinkError: it ended, or said what is no word.
        """
        word = await link.hear(WORD_S)
        peer = self._peers.find(link.peer_id)
        if peer is None or "use" not in peer.rights:
            await _refuse(link, "rights", "you may not use this node: ask its owner")
            return
        if word.get("do") == "hello":
            await self._greet(link)
        elif word.get("do") == "session":
            await self._serve(link, peer.name)
        else:
            await _refuse(link, "word", "do: one of hello, session")

    async def _greet(self, link: Link) -> None:
        """Say what is offered, and then the same number back for each that comes."""
        state = {"free": self._turns.free, "waiting": self._turns.waiting}
        await link.say({"ok": True, **self._offer.words(), **state})
        for _ in range(PINGS):
            try:
                word = await link.hear(WORD_S)
            except LinkError:
                return  # it has measured enough
            number = word.get("ping")
            await link.say({"ok": True, "ping": number if isinstance(number, int) else None})

    async def _serve(self, link: Link, name: str) -> None:
        gone = asyncio.create_task(link.until_closed())
        try:
            async with self._turns.place(link.peer_id, gone):
                gone.cancel()
                await self._serve_now(link, name)
        except BusyError as error:
            await _refuse(link, "busy", str(error))
        except GoneError:
            return
        finally:
            gone.cancel()

    async def _serve_now(self, link: Link, name: str) -> None:
        if link.is_closed:
            return  # it did not wait
        try:
            worker = await self._pool.take()
        except ShoestringError as error:
            self._say(f"no worker for {name}: {error}")
            await _refuse(link, "worker", "this node has no worker to give: ask another")
            return
        try:
            how = await self._carry(link, worker)
        except EngineLostError as error:
            how = f"the worker is lost: {error}"
        finally:
            await worker.stop()
        self._say(f"session of {name} ended: {how}")

    async def _carry(self, link: Link, worker: Worker) -> str:
        """Carry a session to its end; return how it ended."""
        session = Session(self._offer.rules)
        connection = await worker.connect()
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[Any]] = []
        try:
            await loop.create_connection(lambda: session.worker, sock=connection)
            await link.say({"ok": True, **self._offer.words()})
            link.hand_over(session.client)
            dying = asyncio.create_task(worker.ended())
            ending = asyncio.create_task(session.ended())
            tasks = [dying, ending, asyncio.create_task(self._watch(session))]
            await asyncio.wait({dying, ending}, return_when=asyncio.FIRST_COMPLETED)
            if session.refused is None and dying.done():
                return dying.result()
            return await session.ended()
        finally:
            session.end("the session was ended here")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, session: Session) -> None:
        """End a session in which nothing is said for too long: others wait for its place."""
        now_s = asyncio.get_running_loop().time
        while True:
            limit_s = self._idle_s if session.begun else WORD_S
            left_s = session.moved_s + limit_s - now_s()
            if left_s <= 0:
                session.end(f"nothing was said for {limit_s:g} s")
                return
            await asyncio.sleep(left_s)


async def _refuse(link: Link, reason: str, message: str) -> None:
    refusal: Mapping[str, Any] = {"ok": False, "reason": reason, "message": message}
    await link.say(refusal)
