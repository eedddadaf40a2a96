"""Audits of one chain: which windows are recorded, where they are run again, what follows.

All of it is off the answer's way: a window is taken up when it is over, one at a time, and while
:data:`MOST_WAITING` wait no more are recorded: that lowers the share that is reached, and counts as
``left out``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, Protocol, Self

from shoestring.errors import BadValueError
from shoestring.swarm.audit import evidence as evidences
from shoestring.swarm.audit.comparing import IncomparableError, Tolerance
from shoestring.swarm.audit.judging import Side, Verdict, differ, judge
from shoestring.swarm.audit.running import NotRunError, run_again
from shoestring.swarm.audit.windows import Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from shoestring.swarm.audit.running import Place
    from shoestring.swarm.audit.sampling import Chance
    from shoestring.swarm.audit.standing import Standing
    from shoestring.swarm.journal import Entry
    from shoestring.swarm.market.measured import Measured
    from shoestring.swarm.proof.receipts import Signed
    from shoestring.swarm.remote import Remote, Seat

MOST_WAITING: Final = 2
"""Windows that are recorded, or wait to be run again; each may hold a copy of the caches."""
MOST_RECEIPTS: Final = 256
SHUFFLE: Final = random.SystemRandom()


class Expelling(Protocol):
    """What a chain does with a cheat: a stage.

    Attributes:
        members: the nodes that hold it now.
    """

    members: list[Remote]

    def expel(self, peer: str, why: str) -> None:
        """Go on without a node, and sign nothing for it any more."""


class Auditor:
    """Has windows run again while its ``async with`` lasts.

    Args:
        chance: which windows.
        standing: of all nodes.
        folder: for evidence.
        tell: given what happened (``audited``, ``cheats``, ``undecided``, ``not audited``), to
            whom, and why.
        places: other nodes that may run a window again.
        here: this machine; None: it has no room.
        kinds: numerics class of each node, by its peer id; a node without one is of none.
        measured: what routing knows of nodes; None: it is not told.
        tolerance: between classes.
        most_waiting: windows that are recorded, or wait to be run again.
        now: seconds since 1970.

    Attributes:
        counts: windows by what became of them.
        stages: of the chain; set when they stand.
    """

    def __init__(
        self,
        chance: Chance,
        standing: Standing,
        folder: Path,
        tell: Callable[[str, str, str], None],
        *,
        places: Sequence[Place],
        here: Place | None = None,
        kinds: dict[str, str],
        measured: Measured | None = None,
        tolerance: Tolerance | None = None,
        most_waiting: int = MOST_WAITING,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.stages: Sequence[Expelling] = ()
        self._chance, self._standing, self._folder = chance, standing, folder
        self._tell, self._places, self._here = tell, places, here
        self._kinds, self._measured, self._now = kinds, measured, now
        self._tolerance = tolerance or Tolerance()
        self._receipts: deque[Signed] = deque(maxlen=MOST_RECEIPTS)
        self._waiting, self._most_waiting = 0, most_waiting
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_how: object) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def record(self, stage: int, begin: Callable[[], list[Entry]]) -> Recording | None:
        """Return where a window that begins now is to be kept; None: it is not."""
        if not self._chance.take():
            return None
        if self._waiting >= self._most_waiting:
            self.counts["left out"] += 1
            return None
        self._waiting += 1
        return Recording(stage, begin(), self._take)

    def drop(self, recording: Recording) -> None:  # noqa: ARG002 - that it was one is enough
        """Forget a recording whose conversation ended before its window."""
        self._waiting -= 1

    def keep(self, signed: Signed) -> None:
        """Take a receipt that both have signed; it may be evidence."""
        self._receipts.append(signed)

    async def idle(self) -> None:
        """Wait until no window waits to be run again."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _take(self, recording: Recording) -> None:
        task = asyncio.create_task(self._audit(recording))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _audit(self, recording: Recording) -> None:
        try:
            async with self._turn:
                for seat in recording.seats:
                    await self._audit_seat(recording, seat)
        finally:
            self._waiting -= 1

    async def _audit_seat(self, recording: Recording, seat: Seat) -> None:
        """Have what one member answered run again, and act on what is found."""
        remote = seat.remote
        suspect = Side(
            remote.name, remote.address.id, self._kind(remote.address.id), recording.given(seat)
        )
        try:
            verdict, sides = await self._compare(recording, suspect)
        except (NotRunError, IncomparableError) as error:
            self._note("not audited", suspect.name, str(error))
            return
        try:
            await asyncio.to_thread(self._book, recording, seat, verdict, sides)
        except BadValueError as error:
            self._note("not kept", suspect.name, str(error))
        self._tell_of(verdict, sides)

    async def _compare(self, recording: Recording, suspect: Side) -> tuple[Verdict, list[Side]]:
        questions = recording.questions()
        auditor = await self._first_of(recording, self._choose({suspect.peer}, suspect.kind))
        difference = differ(questions, suspect, auditor, self._tolerance)
        if difference is None:
            return Verdict("same"), [suspect, auditor]
        judges = self._judges({suspect.peer, auditor.peer}, suspect.kind)
        try:
            third = await self._first_of(recording, judges)
        except NotRunError:
            return Verdict("undecided", None, difference), [suspect, auditor]
        found = judge(questions, suspect, auditor, third, self._tolerance)
        return found, [suspect, auditor, third]

    def _choose(self, without: set[str | None], kind: str) -> list[Place]:
        """Return who may run a window again: of the same class first, then this machine."""
        others = self._others(without)
        same = [one for one in others if one.kind == kind]
        here = [] if self._here is None else [self._here]
        return [*same, *here, *(one for one in others if one.kind != kind)]

    def _judges(self, without: set[str | None], kind: str) -> list[Place]:
        """Return who may say which of two is wrong: this machine first."""
        here = [] if self._here is None else [self._here]
        others = self._others(without)
        return [*here, *sorted(others, key=lambda one: one.kind != kind)]

    def _others(self, without: set[str | None]) -> list[Place]:
        """Return other nodes in any order, those that have no part of the chain first."""
        excluded = self._standing.excluded()
        found = [
            one for one in self._places if one.peer not in without and one.peer not in excluded
        ]
        SHUFFLE.shuffle(found)
        members = {one.address.id for stage in self.stages for one in stage.members}
        return sorted(found, key=lambda one: one.peer in members)

    async def _first_of(self, recording: Recording, places: Iterable[Place]) -> Side:
        """Return what the first place that can run a window answers."""
        failed: list[str] = []
        for place in places:
            try:
                given = await run_again(recording, place)
            except NotRunError as error:
                failed.append(str(error))
            else:
                return Side(place.name, place.peer, place.kind, given)
        raise NotRunError("; ".join(failed) or "there is nobody else to run it again")

    def _book(
        self, recording: Recording, seat: Seat, verdict: Verdict, sides: Sequence[Side]
    ) -> None:
        """Keep what was found, on disk."""
        suspect, cheat = sides[0], verdict.cheat
        if cheat is None:
            assert suspect.peer is not None, "a member is a node"
            self._standing.note(suspect.peer, suspect.name, verdict.outcome)
            if verdict.outcome == "same" and self._measured is not None:
                self._measured.saw(suspect.peer, good=1)
            return
        assert cheat.peer is not None, "this machine is no cheat"
        found = evidences.gather(recording, verdict, sides, tuple(self._receipts))
        path = evidences.keep(self._folder, found, self._now())
        self._standing.exclude(
            cheat.peer, cheat.name, _reason(verdict), evidence=path.name,
            withheld=(seat.session,) if cheat is suspect else (),
        )  # fmt: skip
        if self._measured is not None:
            self._measured.saw(cheat.peer, bad=1)

    def _tell_of(self, verdict: Verdict, sides: Sequence[Side]) -> None:
        """Say what was found, and go on without a cheat."""
        suspect, cheat = sides[0], verdict.cheat
        if verdict.outcome == "same":
            self._note("audited", suspect.name, f"as {sides[1].name} answers")
        elif cheat is None:
            names = " and ".join(side.name for side in sides[1:])
            self._note("undecided", suspect.name, f"{verdict.difference} differs from {names}")
        else:
            self._note("cheats", cheat.name, _reason(verdict))
            for stage in self.stages:
                assert cheat.peer is not None, "this machine is no cheat"
                stage.expel(cheat.peer, _reason(verdict))

    def _note(self, what: str, who: str, why: str) -> None:
        self.counts[what] += 1
        self._tell(what, who, why)

    def _kind(self, peer: str) -> str:
        return self._kinds.get(peer, f"of {peer} alone")


def _reason(verdict: Verdict) -> str:
    return f"{verdict.difference} is not what two others answer"
