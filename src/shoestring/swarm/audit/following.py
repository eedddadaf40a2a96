"""What is kept of an audit: on disk, one thing after the other, and none of them stops the next."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from shoestring.errors import ShoestringError
from shoestring.swarm.audit import evidence as evidences

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from shoestring.swarm.audit.judging import Side, Verdict
    from shoestring.swarm.audit.standing import Standing
    from shoestring.swarm.audit.windows import Recording
    from shoestring.swarm.market.measured import Measured
    from shoestring.swarm.proof.receipts import Signed


class Following:
    """Writes it, in threads.

    Args:
        standing: of all nodes.
        folder: for evidence.
        measured: what routing knows of nodes; None: it is not told.
        not_kept: told of whom something is not kept, and why.
        now: seconds since 1970.
    """

    def __init__(
        self,
        standing: Standing,
        folder: Path,
        measured: Measured | None,
        not_kept: Callable[[str, str], None],
        now: Callable[[], float],
    ) -> None:
        self._standing, self._folder, self._measured = standing, folder, measured
        self._not_kept, self._now = not_kept, now

    async def saw(self, windows: Mapping[str, int]) -> None:
        """Count windows that could have been audited, by peer id."""
        await self._try("windows", partial(self._standing.saw, windows))

    async def stood(self, suspect: Side, verdict: Verdict) -> None:
        """Note that nothing is wrong with a member's window, or that nobody knows."""
        assert suspect.peer is not None, "a member is a node"
        note = partial(self._standing.note, suspect.peer, suspect.name, verdict.outcome)
        await self._try(suspect.name, note)
        if verdict.outcome == "same" and self._measured is not None:
            await self._try(suspect.name, partial(self._measured.saw, suspect.peer, good=1))

    async def exclude(self, cheat: Side, why: str, withheld: tuple[str, ...]) -> None:
        """Have a cheat chosen no more."""
        assert cheat.peer is not None, "this machine is none"
        await self._try(cheat.name, partial(
            self._standing.exclude, cheat.peer, cheat.name, why, withheld=withheld
        ))  # fmt: skip
        if self._measured is not None:
            await self._try(cheat.name, partial(self._measured.saw, cheat.peer, bad=1))

    async def blame(
        self, recording: Recording, verdict: Verdict, sides: Sequence[Side],
        receipts: Sequence[Signed],
    ) -> None:  # fmt: skip
        """Keep evidence against a cheat."""
        assert verdict.cheat is not None, "there is one"
        await self._try(verdict.cheat.name, partial(
            self._keep_evidence, recording, verdict, sides, receipts
        ))  # fmt: skip

    def _keep_evidence(
        self, recording: Recording, verdict: Verdict, sides: Sequence[Side],
        receipts: Sequence[Signed],
    ) -> None:  # fmt: skip
        found = evidences.gather(recording, verdict, sides, receipts)
        path = evidences.keep(self._folder, found, self._now())
        self._standing.add_evidence(found.node, path.name)

    async def _try(self, who: str, work: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(work)
        except (ShoestringError, OSError, ValueError) as error:
            self._not_kept(who, str(error))
