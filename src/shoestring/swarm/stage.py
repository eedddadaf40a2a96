"""A stage of a chain at the client: an endpoint on loopback that llama-server takes for a worker.

A stage has members, nodes that hold its layers; more than one is a mirror. Each connection of
llama-server has a session at every member (:mod:`shoestring.swarm.conversation`). Who is lost is
replaced by a spare, for all connections to come.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from shoestring.errors import ShoestringError
from shoestring.swarm.boundaries import Boundaries
from shoestring.swarm.conversation import Conversation
from shoestring.swarm.rehearsing import rehearse
from shoestring.swarm.remote import QUEUE_S, Seat, open_session
from shoestring.swarm.replica import Replica
from shoestring.swarm.routes import Routes
from shoestring.swarm.watching import watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from types import TracebackType
    from typing import Any

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.remote import Remote
    from shoestring.swarm.spares import Need, Spares
    from shoestring.swarm.weights import Weights

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
            sent the weights for later, if it keeps any), ``lost``, ``silent``
            (nobody can replace it), ``unreachable``, ``differs``, ``misspoken``, ``misread`` (what
            was computed from a placeholder is thrown away), ``pushes``, ``no way``.
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
    """
    stages: list[Stage] = []

    boundaries = Boundaries()
    routes = Routes(
        identity,
        lambda number: stages[number].leader(),
        lambda number, *words: stages[number].tell(*words),
    )
    routes.is_used = pushes
    try:
        async with AsyncExitStack() as stack:
            for number, (its, need) in enumerate(zip(members, needs, strict=True)):
                stage = Stage(
                    identity, its, spares, weights, boundaries, routes,
                    number=number, need=need, tell=tell, model_bytes=model_bytes,
                )  # fmt: skip
                stages.append(await stack.enter_async_context(stage))
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
        number: of the stage, from 0.
        need: what a spare must have.
        tell: given what happens.
        model_bytes: for nodes that give a share of it; None: not told.

    Attributes:
        number: as given.
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
        *,
        number: int,
        need: Need,
        tell: Callable[[Event], None],
        model_bytes: int | None = None,
    ) -> None:
        self.number = number
        self.port = 0
        self.members = list(members)
        self.conversations: set[Conversation] = set()
        self._identity = identity
        self.spares = spares
        self.routes = routes
        self._weights, self._boundaries = weights, boundaries
        self._need = need
        self._tell_all = tell
        self._model_bytes = model_bytes
        self._tasks: set[asyncio.Task[None]] = set()
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

    def opened(self, conversation: Conversation) -> None:
        """Open sessions at all members for a new connection of llama-server."""
        self.conversations.add(conversation)
        for remote in tuple(self.members):
            self._begin(conversation, remote, QUEUE_S)
        self._end_if_alone(conversation)

    def recruit(self, conversation: Conversation, lost: Replica) -> None:
        """Put a spare in the place of one that is lost; without one, and nobody left, end it."""
        self._find_other(conversation, lost.seat.remote)

    def computes(self, conversation: Conversation) -> None:
        """Let a spare learn the weights: llama-server has loaded them."""
        entries = conversation.told()

        async def rehearsal(remote: Remote) -> None:
            try:
                await rehearse(self._identity, remote, entries, model_bytes=self._model_bytes)
            except ShoestringError as error:
                self.tell("unreachable", remote.name, str(error))
            else:
                self.tell("rehearsed", remote.name, "")

        self.spares.rehearse(self._need, rehearsal)

    def closed(self, conversation: Conversation) -> None:
        """Forget a connection."""
        self.conversations.discard(conversation)

    def has_spare(self) -> bool:
        """Tell whether anybody could hold this stage who does not."""
        return self.spares.has(self._need)

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
        return Conversation(self, self._weights, self._boundaries, self.routes)

    def _begin(self, conversation: Conversation, remote: Remote, wait_s: float) -> None:
        conversation.tried.add(remote)
        conversation.joining.add(remote)
        self._run(self._join(conversation, remote, wait_s))

    async def _join(self, conversation: Conversation, remote: Remote, wait_s: float) -> None:
        """Open a session and let it answer; else find another node."""
        try:
            opened = await open_session(
                self._identity, remote, model_bytes=self._model_bytes, wait_s=wait_s
            )
            seat = Seat(remote, opened.session)
            replica = Replica(seat, conversation, stores=opened.stores)
            opened.link.hand_over(replica)
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

    def _find_other(self, conversation: Conversation, remote: Remote) -> None:
        """Have another node in the place of one that a connection lost, or could not have."""
        if conversation.is_over:
            return
        if remote in self.members and not self._serves_another(conversation, remote):
            self.members.remove(remote)
            if (spare := self.spares.take(self._need)) is not None:
                self.members.append(spare)
        for member in self.members:
            if member not in conversation.tried:
                self._begin(conversation, member, RECRUIT_S)
        self._end_if_alone(conversation)

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
