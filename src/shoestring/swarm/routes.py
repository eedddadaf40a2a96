"""Ways for activations from one stage's node to the next one's.

The client tells the one node whom to let in, and the other where to connect; both ends are pinned
to the keys that the client knows. A way that breaks, or was never there, costs time and nothing
else: the client has the bytes too, and sends them itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shoestring.errors import ShoestringError
from shoestring.swarm.link import LinkError
from shoestring.swarm.pushing import Outgoing
from shoestring.swarm.remote import open_push, open_route
from shoestring.swarm.wire import TWO_U64

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from shoestring.swarm.boundaries import Carried
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.replica import Replica

OVERDUE_S: Final = 0.5
"""After its bytes came to us, the next node should have them, too."""
AGAIN_S: Final = 5.0


class Route:
    """A way between two sessions.

    Args:
        identity: ours.
        source: whose output goes over it.
        target: who gets it.

    Attributes:
        source: as given.
        target: as given.
        is_open: activations may go over it.
        was_open: the nodes have shaken hands.
        is_doubted: what went in at one end is not what came out at the other.
        opening: opens it, or has; None: nobody began to.
    """

    def __init__(self, identity: Identity, source: Replica, target: Replica) -> None:
        self.source, self.target = source, target
        self.is_open = self.was_open = self.is_doubted = False
        self.opening: asyncio.Task[None] | None = None
        self._identity = identity
        self._ours: Outgoing | None = None
        self._lock = asyncio.Lock()

    async def open(self, stage: int) -> None:
        """Have the nodes connect.

        Args:
            stage: number of the source's.

        Raises:
            ShoestringError: one of them does not.
        """
        await open_route(self._identity, self.source.seat, self.target.seat, stage)
        self.is_open = self.was_open = True

    async def deliver(self, carried: Carried) -> None:
        """Send to the target ourselves what the source does not.

        Raises:
            ShoestringError: it cannot be reached.
        """
        assert carried.reply.kept is not None
        async with self._lock:
            if self._ours is None or not self._ours.is_open:
                link = await open_push(self._identity, self.target.seat)
                self._ours = Outgoing()
                link.hand_over(self._ours)
        self._ours.add(TWO_U64.pack(carried.ticket, carried.size) + bytes(carried.reply.kept))
        if not self._ours.is_open:
            raise LinkError("closed", f"{self.target.name} does not take what is sent to it")

    def doubt(self, why: str) -> None:
        """Use it no more, and sign nothing for who sent: which of the two lies, nobody can tell."""
        self.is_open, self.is_doubted = False, True
        self.source.stop_signing(f"{self.target.name} says otherwise than it: {why}")

    def close(self) -> None:
        """End what of it is ours, and let in nobody for it any more."""
        if self.opening is not None:
            self.opening.cancel()
        if self._ours is not None:
            self._ours.abort()


@dataclass
class Here:
    """An activation whose bytes are here.

    Attributes:
        carried: it.
        since_s: when they came, or were sent on by us, on the loop's clock.
    """

    carried: Carried
    since_s: float


class Routes:
    """All ways of one chain.

    Args:
        identity: ours.
        replica_at: the replica of a stage that leads, or None.
        tell: given a stage's number, what happened, who, and why.

    Attributes:
        is_used: else all activations come to the client, ways or not.
    """

    def __init__(
        self,
        identity: Identity,
        replica_at: Callable[[int], Replica | None],
        tell: Callable[[int, str, str, str], None],
    ) -> None:
        self.is_used = True
        self._identity = identity
        self._replica_at = replica_at
        self._tell = tell
        self._routes: dict[tuple[int, int], Route] = {}
        self._barred: dict[tuple[Replica, Replica], float] = {}
        self._here: dict[int, Here] = {}
        """Activations whose bytes are here, by ticket, until the next node has surely had them."""
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, source_stage: int, target_stage: int) -> Route | None:
        """Return the way between two stages as they are now; without one, begin to open it."""
        if not self.is_used:
            return None
        source, target = self._replica_at(source_stage), self._replica_at(target_stage)
        if source is None or target is None:
            return None
        key = source_stage, target_stage
        route = self._routes.get(key)
        is_same = route is not None and route.source is source and route.target is target
        if route is not None and is_same and route.is_doubted:
            return None
        broken = route is not None and route.was_open and not route.is_open
        if route is None or not is_same or broken:
            now_s = asyncio.get_running_loop().time()
            if self._barred.get((source, target), 0.0) > now_s:
                return None
            self._barred = {
                pair: until_s for pair, until_s in self._barred.items() if until_s > now_s
            }
            self._barred[source, target] = now_s + AGAIN_S
            if route is not None:
                route.close()
            route = self._routes[key] = Route(self._identity, source, target)
            route.opening = self._run(self._open(source_stage, key, route))
        return route if route.is_open else None

    def came(self, carried: Carried) -> None:
        """Note that an activation's bytes are here: the next node should have them, too."""
        if carried.route is not None:
            self._here = {
                ticket: one
                for ticket, one in self._here.items()
                if one.carried.route is not None and not one.carried.route.target.has_taken(ticket)
            }
            self._here[carried.ticket] = Here(carried, asyncio.get_running_loop().time())

    def wanted(self, target: Replica, ticket: int) -> None:
        """Send what a node still waits for though its bytes are here; its way is not used again."""
        here = self._here.get(ticket)
        now_s = asyncio.get_running_loop().time()
        if here is None or now_s < here.since_s + OVERDUE_S:
            return
        route = here.carried.route
        if route is None or route.target is not target:
            return
        here.since_s = now_s
        route.is_open = False
        self._barred[route.source, target] = now_s + AGAIN_S
        self._run(self._deliver(here.carried, route))

    def close(self) -> None:
        """End all ways."""
        for task in tuple(self._tasks):
            task.cancel()
        for route in self._routes.values():
            route.close()

    async def _open(self, stage: int, key: tuple[int, int], route: Route) -> None:
        try:
            await route.open(stage)
        except ShoestringError as error:
            if self._routes.get(key) is route:
                del self._routes[key]
            self._tell(stage, "no way", route.target.name, str(error))
        else:
            self._tell(stage, "pushes", route.source.name, f"to {route.target.name}")

    async def _deliver(self, carried: Carried, route: Route) -> None:
        try:
            await route.deliver(carried)
        except ShoestringError as error:
            route.target.give_up(f"cannot be given what it waits for: {error}")

    def _run(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
