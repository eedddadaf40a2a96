"""Nodes that have no part of a model yet, and may get one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    from shoestring.swarm.remote import Remote


@dataclass(frozen=True)
class Need:
    """What a node must have to hold a stage.

    Attributes:
        least_bytes: of memory.
        kind: of engine and device; two of one kind give the same bytes.
        on_cpu: it computes on processors, where a tensor takes no more than its own bytes.
    """

    least_bytes: int
    kind: str = ""
    on_cpu: bool = False


@dataclass(frozen=True)
class Spare:
    """A node in reserve.

    Attributes:
        remote: the node.
        offered_bytes: of memory.
        kind: as of :class:`Need`.
    """

    remote: Remote
    offered_bytes: int
    kind: str = ""

    def meets(self, need: Need) -> bool:
        """Tell whether it can hold a stage."""
        return self.offered_bytes >= need.least_bytes and self.kind == need.kind


class Spares:
    """All of one chain, the nearest first.

    Args:
        spares: at the begin.

    Attributes:
        rehearsing: what goes on at each.
    """

    def __init__(self, spares: Iterable[Spare] = ()) -> None:
        self._left = list(spares)
        self.rehearsing: dict[Remote, list[asyncio.Task[Any]]] = {}

    def has(self, need: Need) -> bool:
        """Tell whether one would do."""
        return any(spare.meets(need) for spare in self._left)

    def take(self, need: Need) -> Remote | None:
        """Return the first that does; it is a spare no longer."""
        for number, spare in enumerate(self._left):
            if spare.meets(need):
                del self._left[number]
                for task in self.rehearsing.pop(spare.remote, ()):
                    task.cancel()
                return spare.remote
        return None

    def forget(self, peer: str) -> None:
        """Never take a node, by its peer id."""
        for spare in self._left:
            if spare.remote.address.id == peer:
                for task in self.rehearsing.pop(spare.remote, ()):
                    task.cancel()
        self._left = [one for one in self._left if one.remote.address.id != peer]

    def rehearse(
        self, need: Need, rehearsal: Callable[[Remote], Coroutine[Any, Any, None]]
    ) -> None:
        """Let the node that would be taken first learn its part; it ends when it is taken."""
        first = next((spare.remote for spare in self._left if spare.meets(need)), None)
        if first is not None:
            task = asyncio.create_task(rehearsal(first))
            self.rehearsing.setdefault(first, []).append(task)

    def use(self, peer: str, task: asyncio.Task[Any]) -> None:
        """Note that something goes on at a node; if it is a spare, it ends when it is taken."""
        for spare in self._left:
            if spare.remote.address.id == peer:
                its = self.rehearsing.setdefault(spare.remote, [])
                its[:] = [*(one for one in its if not one.done()), task]

    async def close(self) -> None:
        """End all that goes on."""
        tasks = [task for its in self.rehearsing.values() for task in its]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
