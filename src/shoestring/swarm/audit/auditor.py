"""Audits of one chain: which windows are recorded, where they are run again, what follows.

All of it is off the answer's way: a window is taken up when it is over, one at a time, and while
:data:`MOST_WAITING` wait no more are recorded: that lowers the share that is reached, and counts as
``left out``. Where members of a stage answer one question differently, that window is audited
whatever was drawn.

Nobody is excluded without a receipt of both hands over the very window: its roots show that the
node was told what we know of, and gave what we heard. Without it, what a neighbour pushed to it may
have been something else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.audit.comparing import Tolerance
from shoestring.swarm.audit.following import Following
from shoestring.swarm.audit.judging import Side, Verdict, differ, judge
from shoestring.swarm.audit.places import Places
from shoestring.swarm.audit.proofs import WAIT_S, Proofs, is_over, roots_of
from shoestring.swarm.audit.running import NotRunError
from shoestring.swarm.audit.windows import Given, Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from shoestring.swarm.audit.places import Run
    from shoestring.swarm.audit.running import Place
    from shoestring.swarm.audit.sampling import Chance
    from shoestring.swarm.audit.standing import Standing
    from shoestring.swarm.journal import Entry
    from shoestring.swarm.market.measured import Measured
    from shoestring.swarm.proof.receipts import Signed
    from shoestring.swarm.remote import Remote, Seat
    from shoestring.swarm.spares import Spares

MOST_WAITING: Final = 2
"""Windows that are recorded, or wait to be run again; each may hold a copy of the caches."""


class Expelling(Protocol):
    """What a chain does with a cheat: a stage.

    Attributes:
        members: the nodes that hold it now.
        spares: those that may take their place.
    """

    members: list[Remote]
    spares: Spares

    def expel(self, peer: str, why: str) -> None:
        """Go on without a node, and sign nothing for it any more."""


class Auditor:
    """Has windows run again while its ``async with`` lasts.

    Args:
        chance: which windows.
        standing: of all nodes.
        folder: for evidence.
        tell: given what happened (``audited``, ``cheats``, ``undecided``, ``not audited``,
            ``not kept``, ``put aside``), to whom, and why.
        places: other nodes that may run a window again.
        here: this machine; None: it has no room.
        kinds: numerics class of each node, by its peer id; a node without one is of none.
        measured: what routing knows of nodes; None: it is not told.
        tolerance: between classes.
        most_waiting: windows that are recorded, or wait to be run again.
        now: seconds since 1970.

    Attributes:
        counts: windows by what became of them; ``windows`` are all that began,
            ``left out`` those that were drawn and had no place to wait or no end, and ``unasked``
            those in which nothing was asked for (parts of a prompt at the last stage): what they
            left in the caches, the answers of later ones show.
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
        self._chance, self._standing = chance, standing
        self._tell, self._kinds = tell, kinds
        self._following = Following(
            standing, folder, measured, partial(self._note, "not kept"), now
        )
        self._places = Places(places, here, partial(self._note, "put aside"), self._begun)
        self._tolerance = tolerance or Tolerance()
        self._proofs = Proofs()
        self._windows: Counter[str] = Counter()
        """By peer id, those that could be audited."""
        self._open: set[Recording] = set()
        self._most_waiting = most_waiting
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_how: object) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._following.saw(self._windows)

    def record(
        self, stage: int, begin: Callable[[], list[Entry]], members: Collection[Seat], *,
        is_first: bool,
    ) -> Recording | None:  # fmt: skip
        """Return where a window that begins now is to be kept; None: it is not."""
        is_drawn = self._chance.take()
        self.counts["windows"] += 1
        self._windows.update({seat.remote.address.id for seat in members})
        if not (is_drawn or len(members) > 1):
            return None
        if is_drawn and not self._has_room():
            self.counts["left out"] += 1
            return None
        recording = Recording(
            stage, begin(), self._take, members=members, is_first=is_first, is_drawn=is_drawn
        )
        self._open.add(recording)
        return recording

    def drop(self, recording: Recording) -> None:
        """Forget a recording whose conversation ended before its window, or that is too long."""
        if recording in self._open:
            self._open.remove(recording)
            self.counts["left out"] += recording.is_drawn

    def keep(self, signed: Signed) -> None:
        """Take a receipt that both have signed; it may be evidence."""
        self._proofs.keep(signed)

    async def idle(self) -> None:
        """Wait until no window waits to be run again."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _has_room(self) -> bool:
        waiting = sum(one.is_drawn or one.is_done for one in self._open)
        return waiting < self._most_waiting

    def _take(self, recording: Recording) -> None:
        if recording not in self._open:
            return  # it was dropped before the last of its answers came
        if not recording.seats:
            self._open.remove(recording)
            self.counts["unasked"] += recording.is_drawn
            return
        if not recording.is_drawn:
            self._open.remove(recording)
            if not recording.differs:
                return
            if not self._has_room():
                self.counts["left out"] += 1
                return
            self._open.add(recording)
        task = asyncio.create_task(self._audit(recording))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _audit(self, recording: Recording) -> None:
        # Others' receipts push them out while this window waits and is run again.
        proofs = {
            seat: asyncio.create_task(self._proofs.find(recording, seat))
            for seat in recording.seats
        }
        try:
            async with self._turn:
                for seat, proof in proofs.items():
                    await self._audit_seat(recording, seat, proof)
        finally:
            self._open.discard(recording)
            for proof in proofs.values():
                proof.cancel()
            await asyncio.gather(*proofs.values(), return_exceptions=True)

    async def _audit_seat(
        self, recording: Recording, seat: Seat, proof: asyncio.Task[Signed | None]
    ) -> None:
        """Have what one member answered run again, and act on what is found."""
        name, peer = seat.remote.name, seat.remote.address.id
        runs: list[Run] = []
        cheat: str | None = None
        try:
            given = await asyncio.to_thread(recording.given, seat)
            suspect = Side(name, peer, self._kind(peer), given)
            verdict = await self._judged(recording, suspect, runs)
            verdict, receipts = await self._proven(recording, suspect, verdict, runs, proof)
            cheat = None if verdict.cheat is None else verdict.cheat.peer
        except (ShoestringError, OSError, ValueError) as error:
            self._note("not audited", name, str(error))
            return
        finally:
            for run in runs:
                if run.side.peer != cheat or cheat is None:
                    run.place.pay(run.receipts)
        await self._act(recording, seat, verdict, [suspect, *(run.side for run in runs)], receipts)

    async def _judged(self, recording: Recording, suspect: Side, runs: list[Run]) -> Verdict:
        """Return what others' answers say of a member's; each run is added to ``runs``."""
        questions = recording.questions()
        excluded = await self._excluded()
        members = {one.address.id for stage in self.stages for one in stage.members}
        others = partial(self._places.run, recording, runs, without=excluded, last=members)
        auditor = await others(besides={suspect.peer}, kind=suspect.kind, here_first=False)
        difference = await asyncio.to_thread(differ, questions, suspect, auditor, self._tolerance)
        if difference is None:
            return Verdict("same")
        besides = {suspect.peer, auditor.peer}
        try:
            third = await others(besides=besides, kind=suspect.kind, here_first=True)
        except NotRunError as error:
            why = f"it differs from {auditor.name}, and no third one ran it: {error}"
            return Verdict("undecided", None, difference, why)
        return await asyncio.to_thread(judge, questions, suspect, auditor, third, self._tolerance)

    async def _proven(
        self, recording: Recording, suspect: Side, verdict: Verdict, runs: Sequence[Run],
        proof: asyncio.Task[Signed | None],
    ) -> tuple[Verdict, list[Signed]]:  # fmt: skip
        """Return a verdict, and the receipt without which a cheat is none."""
        if (cheat := verdict.cheat) is None:
            return verdict, []
        if cheat is suspect:
            done, _ = await asyncio.wait({proof}, timeout=WAIT_S)
            found = proof.result() if done else None
        else:
            roots = await asyncio.to_thread(roots_of, recording, cheat.given.digests)
            its = (one for run in runs if run.side is cheat for one in run.receipts)
            found = next((one for one in its if is_over(one, roots)), None)
        if found is not None:
            return verdict, [found]
        pushers = recording.pushers() if cheat is suspect else []
        pair = f": it or {' or '.join(pushers)}, which sent it inputs, is wrong" if pushers else ""
        why = f"no receipt of both hands is over what it was told and answered{pair}"
        return Verdict("undecided", None, verdict.difference, why), []

    async def _act(
        self, recording: Recording, seat: Seat, verdict: Verdict, sides: Sequence[Side],
        receipts: Sequence[Signed],
    ) -> None:  # fmt: skip
        """Do what follows; with a cheat nothing goes on, whatever cannot be kept of it."""
        suspect, cheat = sides[0], verdict.cheat
        if cheat is None:
            await self._following.stood(suspect, verdict)
            if verdict.outcome == "same":
                self._note("audited", suspect.name, f"as {sides[1].name} answers")
            else:
                self._note("undecided", suspect.name, f"{verdict.difference}: {verdict.why}")
            return
        assert cheat.peer is not None, "this machine is none"
        why = f"{verdict.difference} is not what two others answer"
        self._places.bar(cheat.peer)
        self._note("cheats", cheat.name, why)
        for stage in self.stages:
            stage.expel(cheat.peer, why)
        withheld = (seat.session,) if cheat is suspect else ()
        await self._following.exclude(cheat, why, withheld)
        await self._following.blame(recording, verdict, sides, receipts)

    async def _excluded(self) -> frozenset[str]:
        """Return who is excluded, as far as that can be read."""
        try:
            return await asyncio.to_thread(self._standing.excluded)
        except BadValueError as error:
            self._note("not kept", "who is excluded", str(error))
            return frozenset()

    def _begun(self, peer: str, task: asyncio.Task[Given]) -> None:
        """A spare that is taken runs no window any more."""
        for stage in self.stages[:1]:  # they are of all stages
            stage.spares.use(peer, task)

    def _note(self, what: str, who: str, why: str) -> None:
        self.counts[what] += 1
        self._tell(what, who, why)

    def _kind(self, peer: str) -> str:
        return self._kinds.get(peer, f"of {peer} alone")
