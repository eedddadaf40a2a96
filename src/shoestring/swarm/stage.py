"""A stage of a chain at the client: an endpoint on loopback that llama-server takes for a worker.

A stage has members, nodes that hold its layers; more than one is a mirror. Each connection of
llama-server has a session at every member (:mod:`shoestring.swarm.conversation`). Who is lost is
replaced by a spare, for all connections to come.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from shoestring.errors import ShoestringError
from shoestring.swarm.borrowing import Lenders
from shoestring.swarm.boundaries import Boundaries
from shoestring.swarm.conversation import Conversation
from shoestring.swarm.proof.paying import Payer
from shoestring.swarm.proof.windows import Windows
from shoestring.swarm.rehearsing import rehearse
from shoestring.swarm.remote import QUEUE_S, RefusedError, Seat, open_session
from shoestring.swarm.replica import LEAVE_S, Replica
from shoestring.swarm.routes import Routes
from shoestring.swarm.watching import watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from types import TracebackType
    from typing import Any

    from shoestring.swarm.audit.auditor import Auditor
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.proof.paying import Paying
    from shoestring.swarm.remote import Opened, Remote
    from shoestring.swarm.spares import Need, Spares
    from shoestring.swarm.weights import Weight, Weights

HOST = "127.0.0.1"
SAY_AGAIN_S = 10.0
RECRUIT_S = 10.0
"""For a worker of one that takes another's place: an answer waits."""


@dataclass(frozen=True)
class Event:
    """Something that happened at a stage.

    Attributes:
        at_s: when, on the loop's clock (``time.monotonic``).
        stage: number of it.
        what: ``joined`` (it begins to be told), ``ready`` (it knows all), ``rehearsed`` (it was
            sent the weights for later, if it keeps any), ``borrowed`` (it got weights from another
            node), ``not lent`` (it should have, and is sent them), ``lost``, ``silent``
            (nobody can replace it), ``unreachable``, ``differs``, ``misspoken``, ``misread`` (what
            was computed from a placeholder is thrown away), ``pushes``, ``no way``, ``disputes``
            (it signs no receipts, and there are none of its session any more).
        who: a node's name.
        why: in a few words, or nothing.
    """

    at_s: float
    stage: int
    what: str
    who: str
    why: str


@asynccontextmanager
async def standing_stages(
    identity: Identity,
    members: Sequence[Sequence[Remote]],
    spares: Spares,
    weights: Weights,
    *,
    needs: Sequence[Need],
    tell: Callable[[Event], None],
    model_bytes: int | None = None,
    pushes: bool = True,
    loads: Sequence[Sequence[Weight]] = (),
    lenders: Sequence[Remote] = (),
    paying: Paying | None = None,
    auditor: Auditor | None = None,
) -> AsyncIterator[list[Stage]]:
    """Let the stages of one chain listen while the block lasts.

    Args:
        identity: ours.
        members: of each stage.
        spares: of all.
        weights: of the model.
        needs: what a spare must have, for each stage.
        tell: given what happens.
        model_bytes: for nodes that give a share of it; None: not told.
        pushes: activations go from node to node where they can; else all come here (a star).
        loads: weights that each stage will be told, as far as that is known before.
        lenders: nodes beside the members that may keep weights.
        paying: for receipts; None: there are none.
        auditor: who has windows of receipts run again; None: nobody.
    """
    stages: list[Stage] = []

    boundaries, windows = Boundaries(), Windows(paying, auditor)
    routes = Routes(
        identity,
        lambda number: stages[number].leader(),
        lambda number, *words: stages[number].tell(*words),
    )
    routes.is_used = pushes
    its_lenders = Lenders(
        identity, lambda: [*(one for stage in stages for one in stage.members), *lenders]
    )
    try:
        async with AsyncExitStack() as stack:
            for number, (its, need) in enumerate(zip(members, needs, strict=True)):
                stage = Stage(
                    identity, its, spares, weights, boundaries, routes, windows, its_lenders,
                    number=number, need=need, tell=tell, model_bytes=model_bytes,
                    load=loads[number] if loads else (),
                )  # fmt: skip
                stages.append(await stack.enter_async_context(stage))
            if auditor is not None:
                auditor.stages = stages
            yield stages
    finally:
        routes.close()
        await spares.close()


class Stage:
    """Listens for llama-server while its ``async with`` lasts.

    Args:
        identity: ours.
        members: whose workers compute it, one or more.
        spares: who replaces one that is lost.
        weights: of the model.
        boundaries: of all stages.
        routes: between them.
        windows: of all stages.
        lenders: of the chain.
        number: of the stage, from 0.
        need: what a spare must have.
        tell: given what happens.
        model_bytes: for nodes that give a share of it; None: not told.
        load: weights that it will be told, as far as that is known.

    Attributes:
        number: as given.
        on_cpu: its nodes compute on processors.
        routes: as given.
        spares: as given.
        port: on loopback.
        members: as they are now.
        conversations: that are there.
    """

    def __init__(
        self,
        identity: Identity,
        members: Sequence[Remote],
        spares: Spares,
        weights: Weights,
        boundaries: Boundaries,
        routes: Routes,
        windows: Windows,
        lenders: Lenders,
        *,
        number: int,
        need: Need,
        tell: Callable[[Event], None],
        model_bytes: int | None = None,
        load: Sequence[Weight] = (),
    ) -> None:
        self.number = number
        self.on_cpu = need.on_cpu
        self.port = 0
        self.members = list(members)
        self.conversations: set[Conversation] = set()
        self._identity = identity
        self.spares = spares
        self.routes = routes
        self._weights, self._boundaries, self._windows = weights, boundaries, windows
        self._replicas: set[Replica] = set()
        """Those whose link has not ended."""
        self._need = need
        self._tell_all = tell
        self._model_bytes = model_bytes
        self._lenders, self._load = lenders, load
        self._loading: set[Conversation] = set()
        """Those that compute nothing yet: no answer waits for them."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._expelled: set[str] = set()
        """Peer ids."""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._conversation, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for conversation in tuple(self.conversations):
            conversation.end()
        with suppress(TimeoutError):  # for their last receipts
            async with asyncio.timeout(LEAVE_S):
                for replica in self._replicas:
                    await replica.gone.wait()

    def opened(self, conversation: Conversation) -> None:
        """Open sessions at all members for a new connection of llama-server."""
        self.conversations.add(conversation)
        self._loading.add(conversation)
        for remote in tuple(self.members):
            self._begin(conversation, remote, QUEUE_S)
        self._end_if_alone(conversation)

    def recruit(self, conversation: Conversation, lost: Replica) -> None:
        """Put a spare in the place of one that is lost; without one, and nobody left, end it."""
        self._find_other(conversation, lost.seat.remote)

    def computes(self, conversation: Conversation) -> None:
        """Let a spare learn the weights: llama-server has loaded them."""
        entries = conversation.told()
        self._loading.discard(conversation)
        for replica in conversation.replicas:
            self._lenders.sent(replica.weights_sent_bytes, replica.weights_took_s)

        async def rehearsal(remote: Remote) -> None:
            try:
                await self._borrow(conversation, remote)
                await rehearse(self._identity, remote, entries, model_bytes=self._model_bytes)
            except ShoestringError as error:
                self.tell("unreachable", remote.name, str(error))
            else:
                self.tell("rehearsed", remote.name, "")

        self.spares.rehearse(self._need, rehearsal)

    def closed(self, conversation: Conversation) -> None:
        """Forget a connection."""
        self.conversations.discard(conversation)
        self._loading.discard(conversation)

    def has_spare(self) -> bool:
        """Tell whether anybody could hold this stage who does not."""
        return self.spares.has(self._need)

    def expel(self, peer: str, why: str) -> None:
        """Go on without a node, by its peer id; nothing more is signed for it."""
        self._expelled.add(peer)
        self.spares.forget(peer)
        for remote in tuple(self.members):  # first, so that who loses it finds the other
            if remote.address.id == peer:
                self._replace(remote)
        for conversation in tuple(self.conversations):
            for replica in tuple(conversation.replicas):
                if replica.seat.remote.address.id == peer:
                    conversation.lose(replica, why)

    def leader(self) -> Replica | None:
        """Return who answers first now, if any knows all."""
        ready = (
            replica
            for conversation in self.conversations
            for replica in conversation.replicas
            if not replica.is_behind
        )
        return next(ready, None)

    def tell(self, what: str, who: str, why: str) -> None:
        """Tell what happened, and when."""
        now_s = asyncio.get_running_loop().time()
        self._tell_all(Event(now_s, self.number, what, who, why))

    def _conversation(self) -> Conversation:
        return Conversation(self, self._weights, self._boundaries, self.routes, self._windows)

    def _begin(self, conversation: Conversation, remote: Remote, wait_s: float) -> None:
        conversation.tried.add(remote)
        conversation.joining.add(remote)
        self._run(self._join(conversation, remote, wait_s))

    async def _join(self, conversation: Conversation, remote: Remote, wait_s: float) -> None:
        """Open a session and let it answer; else find another node."""
        try:
            if conversation in self._loading:  # else an answer waits: weights are sent at once
                await self._borrow(conversation, remote)
            paying = self._windows.paying
            opened = await open_session(
                self._identity, remote, model_bytes=self._model_bytes,
                asked=None if paying is None else paying.asked_of(remote.address.id),
                wait_s=wait_s,
            )  # fmt: skip
            if remote.address.id in self._expelled:  # meanwhile
                opened.link.abort()
                raise RefusedError("expelled", f"{remote.name} was found to cheat")
            seat, payer = Seat(remote, opened.session), self._payer(remote, opened)
            replica = Replica(seat, conversation, stores=opened.stores, payer=payer)
            if opened.link.hand_over(replica).is_closing():
                raise RefusedError("word", f"{remote.name} spoke before it was spoken to")
            self._replicas = {one for one in self._replicas if not one.gone.is_set()} | {replica}
        except ShoestringError as error:
            self.tell("unreachable", remote.name, str(error))
            conversation.joining.discard(remote)
            self._find_other(conversation, remote)
            return
        conversation.joining.discard(remote)
        if conversation.is_over:
            replica.drop()
            return
        self.tell("joined", remote.name, "")
        conversation.join(replica)
        self._run(self._watch(conversation, replica))

    def _payer(self, remote: Remote, opened: Opened) -> Payer | None:
        """Return what has a session's receipts signed, if there are any."""
        paying = self._windows.paying
        if paying is None:
            return None
        if opened.terms is None:
            self.tell("disputes", remote.name, "it agreed to no terms: its session has no receipts")
            return None
        return Payer(opened.terms, paying.hand, partial(self.tell, "disputes", remote.name))

    async def _borrow(self, conversation: Conversation, remote: Remote) -> None:
        """Let a node have from others the weights that it is to be told."""
        told = [one.weight for one in conversation.told() if one.weight is not None]
        await self._lenders.fill(remote, told or self._load, self.tell)

    def _find_other(self, conversation: Conversation, remote: Remote) -> None:
        """Have another node in the place of one that a connection lost, or could not have."""
        if conversation.is_over:
            return
        if remote in self.members and not self._serves_another(conversation, remote):
            self._replace(remote)
        for member in self.members:
            if member not in conversation.tried:
                self._begin(conversation, member, RECRUIT_S)
        self._end_if_alone(conversation)

    def _replace(self, remote: Remote) -> None:
        """Put a spare in the place of a member, if there is one."""
        self.members.remove(remote)
        if (spare := self.spares.take(self._need)) is not None:
            self.members.append(spare)

    def _serves_another(self, conversation: Conversation, remote: Remote) -> bool:
        """Tell whether a node is well, and only had no place for one more connection."""
        return any(
            replica.seat.remote == remote
            for other in self.conversations - {conversation}
            for replica in other.replicas
        )

    def _end_if_alone(self, conversation: Conversation) -> None:
        if not conversation.replicas and not conversation.joining:
            conversation.end()

    async def _watch(self, conversation: Conversation, replica: Replica) -> None:
        """Replace a node that does nothing any more, if there is who could."""
        told_s = -math.inf
        async for why in watch(self._identity, replica.seat, partial(self.routes.wanted, replica)):
            if replica not in conversation.replicas:
                return
            if len(conversation.replicas) > 1 or self.has_spare():
                conversation.lose(replica, why)
                return
            if (now_s := asyncio.get_running_loop().time()) >= told_s + SAY_AGAIN_S:
                told_s = now_s
                self.tell("silent", replica.name, f"{why}; there is nobody to replace it")

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
