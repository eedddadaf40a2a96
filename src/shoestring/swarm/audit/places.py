"""Where windows are run again: who is asked first, and who is put aside for failing."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shoestring.swarm.audit.judging import Side
from shoestring.swarm.audit.running import NotRunError, run_again

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from shoestring.swarm.audit.running import Place
    from shoestring.swarm.audit.windows import Given, Recording
    from shoestring.swarm.proof.receipts import Signed

ASIDE_S: Final = 600.0
SHUFFLE: Final = random.SystemRandom()


class NeededError(NotRunError):
    """A node ran a window when it was needed for an answer."""


@dataclass(frozen=True)
class Run:
    """A window that was run again.

    Attributes:
        place: where.
        side: what it answers.
        receipts: of it, that do not count yet.
    """

    place: Place
    side: Side
    receipts: list[Signed] = field(default_factory=list)


class Places:
    """All that may run a window again.

    Args:
        others: nodes.
        here: this machine; None: it has no room.
        put_aside: told who, and why, when one fails: it is asked no more for ten minutes.
        begun: told which node runs a window, and the task; it may be cancelled, where the node is
            needed for an answer.
        clock: seconds.
    """

    def __init__(
        self,
        others: Sequence[Place],
        here: Place | None,
        put_aside: Callable[[str, str], None],
        begun: Callable[[str, asyncio.Task[Given]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._others, self._here = others, here
        self._put_aside, self._begun, self._clock = put_aside, begun, clock
        self._until_s: dict[str | None, float] = {}
        """When a place that failed is asked again, by its peer id."""
        self._barred: set[str] = set()

    def bar(self, peer: str) -> None:
        """Ask a node no more."""
        self._barred.add(peer)

    async def run(
        self,
        recording: Recording,
        runs: list[Run],
        *,
        besides: Collection[str | None],
        without: Collection[str],
        last: Collection[str],
        kind: str,
        here_first: bool,
    ) -> Side:
        """Return what the first place that can run a window answers.

        Args:
            recording: the window.
            runs: the run is added to them.
            besides: peer ids of those that ran it; None: this machine did.
            without: of those that are not asked.
            last: of those that are asked after others: they have a part of the chain.
            kind: numerics class; those of it are asked first.
            here_first: this machine is asked before any node, for its user trusts it; else before
                those of other classes.

        Raises:
            NotRunError: nobody could.
        """
        failed: list[str] = []
        for place in self._in_order({*besides, *without}, last, kind, here_first=here_first):
            receipts: list[Signed] = []
            try:
                given = await self._run(recording, place, receipts.append)
            except asyncio.CancelledError:
                place.pay(receipts)  # the chain ends; what was computed is owed
                raise
            except NeededError as error:
                place.pay(receipts)
                failed.append(str(error))
            except NotRunError as error:
                place.pay(receipts)
                failed.append(str(error))
                self._until_s[place.peer] = self._clock() + ASIDE_S
                self._put_aside(place.name, f"{error}; it is not asked for {ASIDE_S:g} s")
            else:
                side = Side(place.name, place.peer, place.kind, given)
                runs.append(Run(place, side, receipts))
                return side
        raise NotRunError("; ".join(failed) or "there is nobody else to run it again")

    async def _run(
        self, recording: Recording, place: Place, keep: Callable[[Signed], None]
    ) -> Given:
        task = asyncio.create_task(run_again(recording, place, keep))
        if place.peer is not None:
            self._begun(place.peer, task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()  # where we are; else it is over
            await asyncio.wait({task})  # its last receipt comes
        if task.cancelled():
            raise NeededError(f"{place.name} is needed for an answer")
        return task.result()

    def _in_order(
        self, without: Collection[str | None], last: Collection[str], kind: str, *, here_first: bool
    ) -> list[Place]:
        now_s, barred = self._clock(), {*without, *self._barred}

        def may(place: Place) -> bool:
            return place.peer not in barred and self._until_s.get(place.peer, now_s) <= now_s

        found = [one for one in self._others if may(one)]
        SHUFFLE.shuffle(found)
        found.sort(key=lambda one: (one.kind != kind, one.peer in last))
        if self._here is not None and may(self._here):
            same = sum(one.kind == kind for one in found)
            found.insert(0 if here_first else same, self._here)
        return found
