"""The agent of a node: lets peers in, gives each session a fresh worker, and watches over both."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError, EngineLostError, ShoestringError
from shoestring.report.units import size
from shoestring.swarm.crossing import Sitting, take_push
from shoestring.swarm.feeding import FEEDS, give_blobs
from shoestring.swarm.link import LinkError
from shoestring.swarm.manifest import tell_manifest
from shoestring.swarm.owner import PAUSED, session_rules
from shoestring.swarm.proof.agreeing import FREE, agreed_terms, read_asked
from shoestring.swarm.proof.earning import Earner
from shoestring.swarm.proof.receipts import VERSION as RECEIPT_VERSION
from shoestring.swarm.proof.unsigned import Unsigned
from shoestring.swarm.queueing import BusyError, GoneError, Turns
from shoestring.swarm.session import Session
from shoestring.swarm.watching import report
from shoestring.swarm.wire import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.hardware.devices import Device
    from shoestring.swarm.audit.attesting import Attestor
    from shoestring.swarm.crossing import Crossings
    from shoestring.swarm.firewall import Rules
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.lending import Lending
    from shoestring.swarm.link import Link
    from shoestring.swarm.owner import Owner
    from shoestring.swarm.peers import Peer, Peers
    from shoestring.swarm.proof.agreeing import Asked, Price
    from shoestring.swarm.proof.receipts import Hand
    from shoestring.swarm.store import Store
    from shoestring.swarm.worker import Worker
    from shoestring.swarm.worker_pool import WorkerPool

WORD_S: Final = 10.0
IDLE_S: Final = 1_800.0
SESSION_BYTES: Final = 8
OF_SESSIONS: Final = ("watch", "expect", "route")
"""Words about a session, for its owner."""
OF_WEIGHTS: Final = ("manifest", "fetch", "lend", "borrow")
"""Words about weights that are kept."""
MANIFESTS: Final = 8
"""Peers that are told at a time which weights are kept."""
MANIFEST_S: Final = 60.0
"""In which a peer must have heard which weights are kept."""
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
        share: of each session's model, the most that it holds; None: what the rules allow.
        price: that it takes.
    """

    rules: Rules
    engine_sha256: str
    device: Device
    threads: int
    share: float | None = None
    price: Price = FREE

    def words(self) -> dict[str, Any]:
        """Return what peers are told of it."""
        return {
            "version": version("shoestring"),
            "rpc": list(VERSION),
            "receipts": RECEIPT_VERSION,
            "engine_sha256": self.engine_sha256,
            "kind": self.device.kind,
            "title": self.device.title,
            "generation": self.device.generation,
            "bandwidth_bytes_per_s": self.device.bandwidth_bytes_per_s,
            "compute_flops": self.device.compute_flops,
            "threads": self.threads,
            "memory_bytes": self.rules.memory_bytes,
            "share": self.share,
            **asdict(self.price),
        }


@dataclass(frozen=True)
class Stock:
    """Weights that a node keeps.

    Attributes:
        store: where.
        identity: who says so.
    """

    store: Store
    identity: Identity


class Node:
    """Answers links of peers that may use this machine.

    Args:
        peers: who may do what.
        pool: of workers.
        offer: to each session.
        stock: weights that it keeps; None: none.
        owner: whose machine it is; None: nobody else uses it.
        hand: that signs receipts; None: there are none, and nothing is taken.
        sessions: at a time.
        idle_s: how long a session may say nothing.
        say: given a line for whatever an owner would want to know.

    Attributes:
        crossings: for activations from and to other nodes; None: none go.
        lending: for weights from and to other nodes; None: none go at a client's word.
        attestor: says to challengers that we are here; None: nobody is told.
    """

    def __init__(
        self,
        peers: Peers,
        pool: WorkerPool,
        offer: Offer,
        *,
        stock: Stock | None = None,
        owner: Owner | None = None,
        hand: Hand | None = None,
        sessions: int = 1,
        idle_s: float = IDLE_S,
        say: Callable[[str], None],
    ) -> None:
        self.crossings: Crossings | None = None
        self.lending: Lending | None = None
        self.attestor: Attestor | None = None
        self._peers = peers
        self._pool = pool
        self._offer = offer
        self._stock = stock
        self._owner = owner
        self._hand = hand
        if hand is None and not offer.price.is_free:
            raise BadValueError(f"a price of {offer.price} and nobody to sign receipts: give both")
        self._fed: set[str] = set()
        """Peer ids of those that fetch weights now."""
        self._told: set[str] = set()
        """Peer ids of those that hear now which are kept."""
        self._unsigned = Unsigned()
        self._unkept: str | None = None
        """Why no receipts could be kept when that was asked last."""
        self._turns = Turns(sessions)
        self._idle_s = idle_s
        self._say = say
        self._sittings: dict[str, Sitting] = {}
        """The sessions that are, by the name that their owners were told."""

    async def answer(self, link: Link) -> None:
        """Do what a link came for; for :class:`~shoestring.swarm.listening.Listener`.

        Raises:
            LinkError: it ended, or said what is no word.
        """
        word = await link.hear(WORD_S)
        if word.get("do") == "push":
            await self._take_push(link, word)
            return
        peer = self._user(link, word)
        if peer is None:
            await link.refuse("rights", "you may not use this node: ask its owner")
            return
        if word.get("do") == "hello":
            await self._greet(link)
        elif word.get("do") == "session":
            await self._serve(link, peer.name, word)
        elif word.get("do") == "attest" and self.attestor is not None:
            await self.attestor.answer(link, word)
        elif word.get("do") in OF_SESSIONS:
            await self._answer_about(link, word)
        elif word.get("do") in OF_WEIGHTS:
            await self._open_stock(link, word)
        else:
            await link.refuse(
                "word",
                f"do: one of hello, session, push, {', '.join((*OF_WEIGHTS, *OF_SESSIONS))}",
            )

    async def _greet(self, link: Link) -> None:
        """Say what is offered, and then the same number back for each that comes."""
        why_not = await self._why_no_session() or self._unsigned.why_not(link.peer_id)
        free = 0 if why_not else self._turns.free
        state = {"free": free, "waiting": self._turns.waiting, "why_not": why_not}
        await link.say({"ok": True, **self._offer.words(), **state})
        for _ in range(PINGS):
            try:
                word = await link.hear(WORD_S)
            except LinkError:
                return  # it has measured enough
            number = word.get("ping")
            await link.say({"ok": True, "ping": number if isinstance(number, int) else None})

    async def _answer_about(self, link: Link, word: dict[str, Any]) -> None:
        """Do what is asked about a session by its owner."""
        sitting = self._sittings.get(str(word.get("session")))
        if sitting is None or sitting.owner != link.peer_id:
            await link.refuse("session", "you have no such session here")
        elif word["do"] == "watch":
            await link.say({"ok": True})
            with suppress(LinkError):  # it has heard enough
                await report(link, sitting)
        elif self.crossings is None:
            await link.refuse("push", "this node pushes nothing to others")
        elif word["do"] == "expect":
            await self.crossings.expect(link, sitting, word)
        else:
            await self.crossings.route(link, sitting, word)

    async def _take_push(self, link: Link, word: dict[str, Any]) -> None:
        """Let a session's owner, or whom it expects, push to it."""
        sitting = self._sittings.get(str(word.get("session")))
        if sitting is None:
            await link.refuse("session", "no such session expects you")
            return
        await take_push(link, sitting)

    def _user(self, link: Link, word: dict[str, Any]) -> Peer | None:
        """Return whose right to use this node counts: who lends what is fetched, or who asks."""
        by = None
        if self.lending is not None and word.get("do") == "fetch":
            by = self.lending.voucher(link.peer_id, word)
        peer = self._peers.find(by or link.peer_id)
        return peer if peer is not None and "use" in peer.rights else None

    async def _open_stock(self, link: Link, word: dict[str, Any]) -> None:
        """Say under our signature which weights are kept, or have some come or go."""
        if self._stock is None:
            await link.refuse("store", "this node keeps no weights")
            return
        if why_not := self._why_not():
            await link.refuse("paused", why_not)
            return
        if word["do"] in {"lend", "borrow"}:
            await self._answer_loan(link, word)
            return
        tells = word["do"] == "manifest"
        its, most = (self._told, MANIFESTS) if tells else (self._fed, FEEDS)
        if link.peer_id in its or len(its) >= most:
            await link.refuse("busy", f"one at a time of a peer, {most} in all: try again")
            return
        its.add(link.peer_id)
        try:
            with suppress(LinkError, TimeoutError):  # it has heard enough, or dawdles
                if tells:
                    async with asyncio.timeout(MANIFEST_S):
                        await tell_manifest(link, self._stock.identity, self._stock.store)
                else:
                    await give_blobs(
                        link, self._stock.store, word,
                        lambda: self._may_go_on() and self._user(link, word) is not None,
                    )  # fmt: skip
        finally:
            its.discard(link.peer_id)

    async def _answer_loan(self, link: Link, word: dict[str, Any]) -> None:
        """Have a peer's weights fetched from here, or to here."""
        if self.lending is None:
            await link.refuse("store", "this node has no weights sent at a peer's word")
        elif word["do"] == "lend":
            await self.lending.lend(link, word)
        else:
            await self.lending.borrow(link, word, self._may_go_on)

    def _may_go_on(self) -> bool:
        return self._why_not() is None

    def _why_not(self) -> str | None:
        """Return why nothing is given now, as peers are told; None: something is."""
        if self._owner is not None and self._owner.paused:
            return PAUSED
        return "no worker can be started here" if self._pool.is_broken else None

    async def _why_no_session(self) -> str | None:
        """Return why no session can begin now, as peers are told; None: one can."""
        if why_not := self._why_not():
            return why_not
        if self._offer.price.is_free or self._hand is None or self._hand.why_not is None:
            return None
        why_not = await asyncio.to_thread(self._hand.why_not)  # it looks at every file
        if why_not is not None and self._unkept is None:
            self._say(f"no session begins from now on: no receipts can be kept: {why_not}")
        self._unkept = why_not
        return None if why_not is None else f"no receipts can be kept here: {why_not}"

    async def _serve(self, link: Link, name: str, word: dict[str, Any]) -> None:
        try:
            rules = session_rules(self._offer.rules, word, self._offer.share)
        except BadValueError as error:
            await link.refuse("share", str(error))
            return
        try:
            asked = read_asked(word.get("terms"), self._offer.price)
        except BadValueError as error:
            await link.refuse("price", str(error))
            return
        if why_not := await self._why_no_session():
            await link.refuse("paused", why_not)
            return
        gone = asyncio.create_task(link.until_closed())
        try:
            async with self._turns.place(link.peer_id, gone):
                gone.cancel()
                await self._serve_now(link, name, rules, asked)
        except BusyError as error:
            await link.refuse("busy", str(error))
        except GoneError:
            return
        finally:
            gone.cancel()

    async def _serve_now(self, link: Link, name: str, rules: Rules, asked: Asked | None) -> None:
        if link.is_closed:
            return  # it did not wait
        if why_not := await self._why_no_session():  # since it began to wait
            await link.refuse("paused", why_not)
            return
        if why_not := self._unsigned.why_not(link.peer_id):
            self._say(f"no session for {name}: {why_not}")
            await link.refuse("unpaid", why_not)
            return
        try:
            worker = await self._pool.take()
        except ShoestringError as error:
            self._say(f"no worker for {name}: {error}")
            await link.refuse("worker", "this node has no worker to give: ask another")
            return
        try:
            with self._owner.holding(worker) if self._owner else nullcontext():
                how = await self._carry(link, worker, rules, asked)
        except EngineLostError as error:
            how = f"the worker is lost: {error}"
        finally:
            await worker.stop()
        self._say(f"session of {name} ended: {how}")

    async def _carry(self, link: Link, worker: Worker, rules: Rules, asked: Asked | None) -> str:
        """Carry a session to its end; return how it ended."""
        name = secrets.token_hex(SESSION_BYTES)
        terms, earner = self._agree(link, name, asked)
        session = Session(rules, self._stock.store if self._stock else None, earner)
        connection = await worker.connect()
        sitting = Sitting(link.peer_id, worker, session, name)
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[Any]] = []
        try:
            await loop.create_connection(lambda: session.worker, sock=connection)
            self._sittings[name] = sitting
            told = {"session": name, "stores": self._stock is not None}
            told |= {"memory_bytes": rules.memory_bytes, "terms": terms}
            await link.say({"ok": True, **self._offer.words(), **told})
            link.hand_over(session.client)
            dying = asyncio.create_task(worker.ended())
            ending = asyncio.create_task(session.ended())
            tasks = [dying, ending, asyncio.create_task(self._watch(session))]
            await asyncio.wait({dying, ending}, return_when=asyncio.FIRST_COMPLETED)
            if session.refused is None and dying.done():
                return dying.result()
            return f"{await session.ended()} ({_traffic(session)})"
        finally:
            self._sittings.pop(name, None)
            if self.crossings is not None:
                self.crossings.end(sitting)
            session.end("the session was ended here")
            if earner is not None and (steps := earner.unsigned_steps):
                self._unsigned.leave(link.peer_id, steps)
                self._say(f"{steps} steps of session {name} are not signed for")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await session.close()

    def _agree(
        self, link: Link, name: str, asked: Asked | None
    ) -> tuple[dict[str, Any] | None, Earner | None]:
        """Return a session's terms as its client is told them, and what has it paid for."""
        hand, price = self._hand, self._offer.price
        if hand is None:
            return None, None
        if asked is None or link.peer_id == hand.identity.id:
            return None, None if price.is_free else Earner(None, hand)
        terms = agreed_terms(
            asked, price, session=name, client=link.peer_id, node=hand.identity.id,
            engine=self._offer.engine_sha256,
        )  # fmt: skip
        return asdict(terms), Earner(terms, hand)

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


def _traffic(session: Session) -> str:
    """Say how much a session moved: over its link, and out of the store and into it."""
    shelf = session.shelf
    return (
        f"heard {size(session.heard_bytes)}, told {size(session.told_bytes)}, "
        f"took {size(shelf.taken_bytes)} of weights, kept {size(shelf.kept_bytes)}"
    )
