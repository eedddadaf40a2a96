"""How soon is a cheating node found, and is an honest one ever excluded?

Real llama-servers over real workers behind agents, in one process; some workers are behind a relay
that cheats. Windows are recorded as in the product and run again in fresh workers.

1. *Cheats.* For each kind every window is audited, and the relay knows in which it cheated: which
   share of the wrong windows an audit finds, and how far off their answers were.
2. *Bound.* Cheats that are wrong in a share ``q`` of windows, audited with probability ``p``: after
   how many windows they are found, in many campaigns. What an audited window shows is what 1 found;
   the draws are the product's own.
3. *End to end.* A few sessions with ``p`` below one, until the cheat is replaced.
4. *Honest.* Whole audits at other nodes, each in a fresh worker, with other numbers of threads; and
   real windows run again and again in one worker each, until there are 10,000 audits.
5. *Tolerance.* The same model with other batches, without flash attention, and with activations off
   by the rounding of a float: how far apart kernels are that are all right.

    python benchmarks/swarm_audit.py [--honest 10000] [--whole 60] [--campaigns 10000]
                                     [--model pypi:gemma3-270m] [--json-out FILE]

The bar: every kind is found within the stated bound, and of 10,000 audits of honest nodes none
excludes one.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import numpy as np

from results import write_result
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.swarm import node as nodes
from shoestring.swarm.audit.comparing import Tolerance, distance_of, first_difference
from shoestring.swarm.audit.running import Here, Rerun, run_again
from shoestring.swarm.audit.sampling import Chance, unseen, windows_until
from shoestring.swarm.audit.windows import Recording
from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.proof.agreeing import FREE
from shoestring.swarm.proof.steps import COMPUTES, POSITIONS, kind_of, sets_activation
from shoestring.swarm.wire import Command, Frame
from shoestring.swarm.worker_pool import WorkerPool
from shoestring.testing.audit_lab import (
    ASKED,
    KIND,
    RULES,
    ask_all,
    audit_lab,
    tiny_model,
    worker_settings,
)
from shoestring.testing.cheating_worker import (
    FewerLayers,
    Overcounting,
    Perturbed,
    Reused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.swarm.audit.windows import Given
    from shoestring.testing.audit_lab import AuditLab
    from shoestring.testing.cheating_worker import Cheat

SHARES: Final = (0.05, 0.2)
WRONG: Final = (1.0, 0.25)
LIKELY: Final = (0.95, 0.99)
EPSILONS: Final = (1e-1, 1e-3, 1e-6)
ASKED_TOKENS: Final = 8
REPEATS: Final = 50
"""Windows told at a time."""


def main() -> None:
    """Measure all, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default="pypi:gemma3-270m")
    arguments.add_argument("--honest", type=int, default=10_000)
    arguments.add_argument("--whole", type=int, default=60)
    arguments.add_argument("--campaigns", type=int, default=10_000)
    arguments.add_argument("--sessions", type=int, default=5)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-audit.json")
    )
    given = arguments.parse_args()
    small = resolve_model(given.model, cache=cache_dir()).path
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = tiny_model(folder)
        cheats = [measure_cheat(folder, tiny, kind, 7) for kind in kinds(7)]
        cheats += [measure_cheat(folder, small, kind, 16, asks=1) for kind in (*kinds(16),)[1::3]]
        wrong_count = measure_wrong_count(folder, tiny)
        least = min(cheats, key=lambda one: one["found_share"])
        bound = run_campaigns(least["found_share"], given.campaigns)
        ends = [end_to_end(folder, tiny, given.sessions)]
        whole = measure_whole(folder, tiny, given.whole)
        again = asyncio.run(measure_again(folder, tiny, given.honest - whole["audits"]))
        tolerance = asyncio.run(measure_tolerance(folder, small))
    audits = whole["audits"] + again["audits"]
    excluded = whole["excluded"] + again["differing"]
    figures = {
        "how": {"models": [str(tiny.name), small.name], "windows_of_steps": 4,
                "numerics": "one build of ggml, one processor"},
        "bars": [
            {"bar": "honest nodes excluded", "value": excluded, "sense": "at most", "limit": 0,
             "met": excluded == 0 and audits >= given.honest},
            {"bar": "least share of wrong windows that an audit of one class finds",
             "value": min(one["found_share"] for one in cheats), "sense": "at least", "limit": 1.0,
             "met": all(one["found_share"] == 1.0 for one in cheats)},
            {"bar": "largest share unseen after as many windows as the bound says for 99 %",
             "value": max(one["unseen_after_99"] for one in bound),
             "sense": "at most, with three standard errors", "limit": 0.01,
             "met": all(one["within"] for one in bound)},
            {"bar": "wrong count signed", "value": wrong_count["signed"], "sense": "at most",
             "limit": 0, "met": wrong_count["signed"] == 0 and wrong_count["disputes"] > 0},
        ],
        "cheats": cheats, "wrong_count": wrong_count, "bound": bound, "end_to_end": ends,
        "honest": {"audits": audits, "whole": whole, "again": again}, "tolerance": tolerance,
    }  # fmt: skip
    write_result(given.json_out, "swarm-audit", figures)


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
    """A cheat that notes which answers it changed.

    Args:
        cheat: it.
        changed: SHA-256 of those that are not what the worker said.
    """

    def __init__(self, cheat: Cheat, changed: set[bytes]) -> None:
        self._cheat, self._changed = cheat, changed

    def ask(self, frame: Frame) -> Frame:
        """Of cheats."""
        return self._cheat.ask(frame)

    def answer(self, frame: Frame, data: bytes) -> bytes:
        """Of cheats."""
        told = self._cheat.answer(frame, data)
        if told != data:
            self._changed.add(hashlib.sha256(told).digest())
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
    changed: set[bytes] = set()
    cheat = kinds(layer)[kind]

    async def scenario() -> AuditLab:
        async with audit_lab(
            fresh(folder), model, [lambda: Noted(cheat(), changed)], expels=False
        ) as lab:
            try:
                await ask_all(lab, asked=[asked(number, 8 * asks) for number in range(asks)])
            except Exception:
                print(*lab.events[-8:], *lab.said[-3:], sep="\n", file=sys.stderr)
                raise
            lab.distances = await distances(lab)  # type: ignore[attr-defined]
        return lab

    lab = asyncio.run(scenario())
    wrong = [is_wrong(one, changed) or kind == "fewer layers" for one in lab.recordings]
    found = [what == "cheats" for what, _, _ in lab.said]
    assert len(found) == len(wrong), lab.said
    hit = sum(f and w for f, w in zip(found, wrong, strict=True))
    return {
        "kind": kind, "model": model.name, "windows": len(wrong), "wrong": sum(wrong),
        "found": hit, "found_share": hit / sum(wrong),
        "right_but_called_wrong": sum(f and not w for f, w in zip(found, wrong, strict=True)),
        "answers_apart": lab.distances,  # type: ignore[attr-defined]
    }  # fmt: skip


def is_wrong(recording: Recording, changed: set[bytes]) -> bool:
    """Tell whether an answer of a window was changed."""
    return any(
        digest in changed for seat in recording.seats for digest in recording.given(seat).digests
    )


async def distances(lab: AuditLab) -> dict[str, Any]:
    """Return how far wrong answers are from right ones, and how many the tolerance finds."""
    apart: list[tuple[float, float]] = []
    found = differing = 0
    for recording in lab.recordings[:12]:
        right = await run_again(recording, lab.here())
        told = recording.given(recording.seats[0])
        mine = apart_of(told, right)
        apart += mine
        differing += bool(mine)
        found += first_difference(recording.questions(), told, right, Tolerance()) is not None
    return {
        **summary(apart), "windows_differing": differing, "windows_beyond_the_tolerance": found,
    }  # fmt: skip


def apart_of(one: Given, other: Given) -> list[tuple[float, float]]:
    """Return distance and cosine of the answers that differ."""
    pairs = zip(one.data, other.data, strict=True)
    measured = [
        distance_of(np.frombuffer(a, "<f4"), np.frombuffer(b, "<f4"))
        for a, b in pairs
        if a and b and a != b
    ]
    return [pair for pair in measured if pair is not None]


def summary(apart: list[tuple[float, float]]) -> dict[str, Any]:
    """Return the range of distances; None where there are none."""
    if not apart:
        return {"answers": 0, "relative": None, "cosine": None}
    relative, cosine = (sorted(column) for column in zip(*apart, strict=True))
    middle = len(apart) // 2
    return {
        "answers": len(apart),
        "relative": {"least": relative[0], "median": relative[middle], "most": relative[-1]},
        "cosine": {"least": cosine[0], "median": cosine[middle], "most": cosine[-1]},
    }


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
    return {"audited_share": share, "wrong_share": 1.0, "sessions": sessions,
            "windows_until_expelled_at_most": windows,
            "windows_99": windows_until(0.99, share, 1.0)}  # fmt: skip


def measure_whole(folder: Path, model: Path, audits: int) -> dict[str, Any]:
    """Audit an honest node's windows at other nodes with other numbers of threads."""
    say("honest, whole")
    begun_s = time.perf_counter()

    async def scenario() -> AuditLab:
        async with audit_lab(
            fresh(folder), model, others=3, threads=(1, 1, 2, 4), steps=4, waiting=10_000
        ) as lab:
            for number in range(audits):
                await ask_all(lab, asked=[asked(number + one, 24) for one in range(4)])
                if len(lab.recordings) >= audits:
                    break
        return lab

    lab = asyncio.run(scenario())
    assert lab.auditor is not None, "it stood"
    return {
        "audits": lab.auditor.counts["audited"], "excluded": len(lab.standing.excluded()),
        "outcomes": dict(lab.auditor.counts), "threads": [1, 2, 4],
        "each": "a session at another node with a fresh worker, the journal, the window",
        "seconds": time.perf_counter() - begun_s,
    }  # fmt: skip


async def measure_again(folder: Path, model: Path, audits: int) -> dict[str, Any]:
    """Run an honest node's windows again and again, each in a worker of its own."""
    say("honest, again and again")
    async with audit_lab(fresh(folder), model, others=0, here=False, audits=False) as lab:
        await ask_all(lab, asked=[asked(number, 24) for number in range(4)])
    windows = [one for one in lab.recordings if one.seats and is_repeatable(one)]
    each = -(-audits // len(windows))
    done = differing = 0
    begun_s = time.perf_counter()
    async with WorkerPool(worker_settings()) as pool:
        lab.pool = pool
        for recording in windows:
            count = min(each, audits - done)
            differing += await repeat(recording, lab.here(), count)
            done += count
            say(f"{done} of {audits}")
    return {
        "audits": done, "differing": differing, "windows": len(windows),
        "left_out": len(lab.recordings) - len(windows),
        "each": "frames and answers of a real window told once more to the same real worker",
        "seconds": time.perf_counter() - begun_s,
    }  # fmt: skip


def is_repeatable(recording: Recording) -> bool:
    """Tell whether a window may follow itself in one worker.

    It must set its own inputs (computing may write over them), begin with its own graph or have
    none, and compute positions that only rise: where a second request begins in it, the first one's
    caches are overwritten, and it is another window.
    """
    graphs = [one.frame.command for one in recording.entries if one.frame.command in COMPUTES]
    positions = [
        number
        for one in recording.entries
        if one.frame.command == Command.SET_TENSOR and kind_of(one.frame.head).name == POSITIONS
        for number in np.frombuffer(one.body, "<i4").tolist()
    ]
    rises = all(before < after for before, after in pairwise(positions))
    begins = graphs[:1] == [Command.GRAPH_COMPUTE] or Command.GRAPH_COMPUTE not in graphs
    return bool(graphs and positions) and rises and begins


async def repeat(recording: Recording, place: Here, times: int) -> int:
    """Run a window again so many times; return how often it was not the same."""
    told, differing = recording.given(recording.seats[0]), 0
    first, relayed = True, _Relayed(Rerun(recording))
    async with place.open(relayed) as replica:
        for begun in range(0, times, REPEATS):
            copies = [copy_of(recording) for _ in range(min(REPEATS, times - begun))]
            reruns = [Rerun(one) for one in copies]
            relayed.all = reruns
            entries = [entry for one in copies for entry in one.entries]
            ping = Frame(int(Command.PING), 8, bytearray(8))
            start = recording.begin if first else ()
            first = False
            replica.tell([*start, *entries, Entry(ping, reply=Reply(ping, 0))])
            await relayed.until_all()
            for one, its in zip(copies, reruns, strict=True):
                differing += first_difference(one.questions(), told, its.given, None) is not None
    return differing


def copy_of(recording: Recording) -> Recording:
    """Return a window with questions of its own."""
    made = Recording(recording.stage, (), lambda _: None)
    for entry in recording.entries:
        reply = None if entry.reply is None else Reply(entry.frame, 0.0)
        made.add(replace(entry, reply=reply))
    return made


class _Relayed:
    """Hears one worker for many runs of a window."""

    def __init__(self, one: Rerun) -> None:
        self.all = [one]
        self._over = asyncio.Event()

    async def until_all(self) -> None:
        """Wait for the end of all that was told."""
        await self._over.wait()
        self._over.clear()
        assert self.all[0].why_not is None, self.all[0].why_not

    def start(self, replica: Any, reply: Reply, answer: Any) -> None:
        """Of replicas."""
        for one in self.all:
            one.start(replica, reply, answer)
        if answer.command == Command.PING:
            self._over.set()

    def data(self, reply: Reply, at: int, data: bytes) -> None:
        """Of replicas: digests are enough here."""

    def finish(self, replica: Any, reply: Reply, digest: bytes) -> None:
        """Of replicas."""
        for one in self.all:
            one.finish(replica, reply, digest)

    def heard(self, replica: Any) -> None:
        """Of replicas."""

    def settle(self, replica: Any) -> None:
        """Of replicas."""

    def lose(self, replica: Any, why: str) -> None:
        """Of replicas."""
        for one in self.all:
            one.lose(replica, why)
        self._over.set()


async def measure_tolerance(folder: Path, model: Path) -> dict[str, Any]:
    """Measure how far right kernels are apart."""
    say("tolerance")
    base, first = await recorded(folder, model)
    found: dict[str, Any] = {}
    async with WorkerPool(worker_settings()) as pool:
        here = Here(base.identity, pool, RULES, KIND)
        rounded = []
        for recording in first[:4]:
            right = await run_again(recording, here)
            rounded += apart_of(await run_again(with_rounding(recording), here), right)
        found["activations off by 1e-7"] = summary(rounded)
    for threads in (2, 4):
        async with WorkerPool(worker_settings(threads)) as pool:
            here = Here(base.identity, pool, RULES, KIND)
            apart = []
            for recording in first[:3]:
                apart += apart_of(
                    await run_again(recording, here), recording.given(recording.seats[0])
                )
            found[f"{threads} threads"] = summary(apart)
    for name, more in (("batches of 8", ("-ub", "8")), ("no flash attention", ("-fa", "off"))):
        _, other = await recorded(folder, model, more)
        found[name] = summary(steps_apart(first, other))
    most = max(one["relative"]["most"] for one in found.values() if one["relative"])
    least = min(one["cosine"]["least"] for one in found.values() if one["cosine"])
    return {"kernels": found, "tolerance": vars(Tolerance()), "most_relative": most,
            "least_cosine": least, "met": most < Tolerance().relative}  # fmt: skip


async def recorded(
    folder: Path, model: Path, more: tuple[str, ...] = ()
) -> tuple[AuditLab, list[Recording]]:
    """Return the windows of an answer."""
    async with audit_lab(fresh(folder), model, others=0, here=False, audits=False) as lab:
        await ask_all(lab, asked=[asked(0, 8)], more=more)
    return lab, [one for one in lab.recordings if one.seats]


def steps_apart(one: list[Recording], other: list[Recording]) -> list[tuple[float, float]]:
    """Return how far the logits of two runs are apart, as long as they choose the same tokens."""
    columns = [
        [
            data
            for recording in run
            for question, data in zip(
                recording.questions(), recording.given(recording.seats[0]).data, strict=True
            )
            if question.is_activation and data
        ]
        for run in (one, other)
    ]
    count = min(ASKED_TOKENS, *map(len, columns))
    found = []
    for pair in zip(columns[0][-count:], columns[1][-count:], strict=True):
        a, b = (np.frombuffer(data, "<f4") for data in pair)
        if (distance := distance_of(a, b)) is not None:
            found.append(distance)
        if a.argmax() != b.argmax():
            break  # from here on they are asked for other tokens
    return found


def with_rounding(recording: Recording) -> Recording:
    """Return a window whose activations come in off by the rounding of a float."""
    noise = np.random.default_rng(1)
    made = Recording(recording.stage, recording.begin, lambda _: None)
    for entry in recording.entries:
        body = entry.body
        if sets_activation(entry.frame):
            numbers = np.frombuffer(body, "<f4")
            off = numbers * (1 + 1e-7 * noise.standard_normal(numbers.shape))
            body = off.astype("<f4").tobytes()
        made.add(replace(entry, body=body))
    return made


def asked(number: int, tokens: int) -> dict[str, Any]:
    """Return one of many requests."""
    return {**ASKED, "prompt": f"{number} {ASKED['prompt']}", "n_predict": tokens}


def fresh(folder: Path) -> Path:
    """Return a new folder."""
    return Path(tempfile.mkdtemp(dir=folder))


def say(line: str) -> None:
    """Tell whoever waits."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
