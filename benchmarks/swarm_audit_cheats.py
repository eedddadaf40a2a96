"""Cheats: which audits find them, and after how many windows; for benchmarks/swarm_audit.py."""

from __future__ import annotations

import asyncio
import random
import sys
from functools import partial
from math import comb
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import numpy as np
from blake3 import blake3
from swarm_audit_asks import apart_of, asked, compared, fresh, say, summary

from shoestring.swarm import node as nodes
from shoestring.swarm.audit.comparing import Tolerance, first_difference
from shoestring.swarm.audit.running import run_again
from shoestring.swarm.audit.sampling import Chance, unseen, windows_until
from shoestring.swarm.proof.agreeing import FREE
from shoestring.testing.audit_lab import (
    ask_all,
    audit_lab,
)
from shoestring.testing.cheating_worker import (
    FewerLayers,
    Overcounting,
    Perturbed,
    Reused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shoestring.swarm.audit.windows import Recording
    from shoestring.swarm.wire import Frame
    from shoestring.testing.audit_lab import AuditLab
    from shoestring.testing.cheating_worker import Cheat

SHARES: Final = (0.05, 0.2)
WRONG: Final = (1.0, 0.25)
LIKELY: Final = (0.95, 0.99)
EPSILONS: Final = (1e-1, 1e-3, 1e-6)
BECAME: Final = {"audited", "cheats", "undecided", "not audited"}


class Truth:
    """Says when a cheat cheats: in a share of its steps, by chance.

    Args:
        share: of answers.
    """

    def __init__(self, share: float) -> None:
        self._random, self._share = random.Random(1), share

    def __call__(self) -> bool:
        """Tell whether it does now."""
        return self._random.random() < self._share


class Noted:
    """A cheat of one session that notes which answers it changed.

    Args:
        cheat: it.
        sessions: gets what this one says: BLAKE3 of each answer, and whether it was changed.
    """

    def __init__(self, cheat: Cheat, sessions: list[list[tuple[bytes, bool]]]) -> None:
        self._cheat = cheat
        self._said: list[tuple[bytes, bool]] = []
        sessions.append(self._said)

    def ask(self, frame: Frame) -> Frame:
        """Of cheats."""
        return self._cheat.ask(frame)

    def answer(self, frame: Frame, data: bytes) -> bytes:
        """Of cheats."""
        told = self._cheat.answer(frame, data)
        self._said.append((blake3(told).digest(), told != data))
        return told


def kinds(layer: int) -> dict[str, Callable[[], Cheat]]:
    """Return how each kind of cheat is made, that leaves out this layer if it leaves out one."""
    often = Truth(0.3)
    made: dict[str, Callable[[], Cheat]] = {
        f"wrong output, {epsilon:g} of its size": partial(Perturbed, epsilon, often)
        for epsilon in EPSILONS
    }
    made["the last step's output again"] = lambda: Reused(often)
    made["fewer layers"] = lambda: FewerLayers({layer}, lambda: True)
    return made


def measure_cheat(
    folder: Path, model: Path, kind: str, layer: int, asks: int = 3
) -> dict[str, Any]:
    """Audit every window of a session whose node cheats; it is left there."""
    say(f"cheat: {kind} ({model.name})")
    sessions: list[list[tuple[bytes, bool]]] = []
    cheat = kinds(layer)[kind]

    async def scenario() -> AuditLab:
        async with audit_lab(
            fresh(folder), model, [lambda: Noted(cheat(), sessions)], expels=False
        ) as lab:
            try:
                await ask_all(lab, asked=[asked(number, 8 * asks) for number in range(asks)])
            except Exception:
                print(*lab.events[-8:], *lab.said[-3:], sep="\n", file=sys.stderr)
                raise
            lab.distances = await distances(lab)  # type: ignore[attr-defined]
            lab.differ = await differing(lab)  # type: ignore[attr-defined]
        return lab

    lab = asyncio.run(scenario())
    recordings = [one for one in lab.recordings if one.seats]
    # The relay does not see what follows from a layer that it left out: there a window is wrong
    # where an honest worker that is told the same answers otherwise.
    is_seen = kind != "fewer layers"
    wrong = (
        wrong_windows(recordings, sessions) if is_seen
        else lab.differ  # type: ignore[attr-defined]
    )  # fmt: skip
    found = [what == "cheats" for what, _, _ in lab.said if what in BECAME]
    assert len(found) == len(wrong), lab.said
    hit = sum(f and w for f, w in zip(found, wrong, strict=True))
    return {
        "kind": kind, "model": model.name,
        "wrong_by": "the relay's notes" if is_seen else "an honest worker told the same",
        "windows": len(wrong), "wrong": sum(wrong),
        "found": hit, "found_share": hit / sum(wrong),
        "right_but_called_wrong": sum(f and not w for f, w in zip(found, wrong, strict=True)),
        "answers_apart": lab.distances,  # type: ignore[attr-defined]
    }  # fmt: skip


def wrong_windows(
    recordings: Sequence[Recording], sessions: Sequence[list[tuple[bytes, bool]]]
) -> list[bool]:
    """Tell of each window whether an answer in it was changed."""
    found, ends = [], [0] * len(sessions)
    for recording in recordings:
        digests = list(recording.given(recording.seats[0]).digests)
        # Some answers are in no window: those before the first one, and the caches' if none copies.
        number, at = next(
            (number, start)
            for number, said in enumerate(sessions)
            for start in range(ends[number], len(said))
            if [digest for digest, _ in said[start : start + len(digests)]] == digests
        )
        ends[number] = at + len(digests)
        found.append(any(changed for _, changed in sessions[number][at : ends[number]]))
    return found


async def differing(lab: AuditLab) -> list[bool]:
    """Tell of each window whether an honest worker that is told the same answers otherwise."""
    found = []
    for recording in lab.recordings:
        if recording.seats:
            right = await run_again(recording, lab.here())
            told = recording.given(recording.seats[0])
            found.append(first_difference(recording.questions(), told, right, None) is not None)
    return found


async def distances(lab: AuditLab) -> dict[str, Any]:
    """Return how far wrong answers are from right ones, and how many the tolerance finds."""
    apart: list[tuple[float, float]] = []
    found = wrong = count = 0
    for recording in lab.recordings[:12]:
        right = await run_again(recording, lab.here())
        told = recording.given(recording.seats[0])
        mine = apart_of(told, right)
        apart += mine
        count += compared(told, right)
        wrong += bool(mine)
        found += first_difference(recording.questions(), told, right, Tolerance()) is not None
    return {
        **summary(apart, count), "windows_differing": wrong, "windows_beyond_the_tolerance": found,
    }  # fmt: skip


def measure_wrong_count(folder: Path, model: Path) -> dict[str, Any]:
    """Let a node count more than it computed, with no audit at all."""
    say("cheat: wrong count")

    async def scenario() -> AuditLab:
        async with audit_lab(fresh(folder), model, chance=Chance(0.0), price=FREE) as lab:
            await ask_all(lab)
        return lab

    with patch.object(nodes, "Earner", Overcounting):
        lab = asyncio.run(scenario())
    disputes = lab.of("disputes")
    return {"disputes": len(disputes), "signed": len(lab.signed), "audits": 0,
            "first": disputes[0][1] if disputes else None}  # fmt: skip


def run_campaigns(seen: float, times: int) -> list[dict[str, Any]]:
    """Draw windows as the product does until a wrong one is audited, many times."""
    noise = random.SystemRandom()
    campaigns = []
    for share in SHARES:
        for wrong in WRONG:
            until = [_windows_until_found(share, wrong, seen, noise) for _ in range(times)]
            row: dict[str, Any] = {"audited_share": share, "wrong_share": wrong,
                                   "campaigns": times,
                                   "mean_windows": float(np.mean(until)),
                                   "mean_by_formula": 1 / (share * wrong * seen)}  # fmt: skip
            for likely in LIKELY:
                count = windows_until(likely, share, wrong, seen)
                assert count is not None, "a share is above 0"
                percent = round(likely * 100)
                row[f"windows_{percent}"] = count
                row[f"unseen_after_{percent}"] = float(np.mean(np.array(until) > count))
            left = unseen(row["windows_99"], share, wrong, seen)
            error = (left * (1 - left) / times) ** 0.5
            row["within"] = abs(row["unseen_after_99"] - left) <= 3 * error + 1 / times
            campaigns.append(row)
    return campaigns


def _windows_until_found(
    share: float, wrong: float, seen: float, noise: random.SystemRandom
) -> int:
    chance = Chance(share)
    while True:
        is_drawn = chance.take()
        if is_drawn and noise.random() < wrong and noise.random() < seen:
            return chance.windows


def end_to_end(folder: Path, model: Path, sessions: int) -> dict[str, Any]:
    """Audit one window of three until a cheat is replaced."""
    say("end to end")
    share, windows = 1 / 3, []
    for _ in range(sessions):

        async def scenario() -> AuditLab:
            async with audit_lab(
                fresh(folder), model, [lambda: Perturbed(1e-3, lambda: True)], spares=1, others=0,
                chance=(chance := Chance(share)),
            ) as lab:  # fmt: skip
                lab.drawn_of = chance  # type: ignore[attr-defined]
                for number in range(8):
                    await ask_all(lab, asked=[asked(number, 24)])
                    if lab.standing.excluded():
                        break
            return lab

        lab = asyncio.run(scenario())
        found = lab.standing.excluded() == {lab.id(0)}
        windows.append(lab.drawn_of.windows if found else None)  # type: ignore[attr-defined]
    limit = windows_until(0.99, share, 1.0)
    assert limit is not None, "a share is above 0"
    late = sum(one is None or one > limit for one in windows)
    return {"audited_share": share, "wrong_share": 1.0, "sessions": sessions,
            "windows_until_expelled_at_most": windows, "windows_99": limit, "late": late,
            "late_at_most": most_by_chance(sessions, 0.01)}  # fmt: skip


def most_by_chance(times: int, probability: float) -> int:
    """Return how often at most something happens of so many times, but by a chance of one percent.

    From the binomial distribution.
    """
    below = 0.0
    for count in range(times + 1):
        below += comb(times, count) * probability**count * (1 - probability) ** (times - count)
        if below >= LIKELY[-1]:
            return count
    return times
