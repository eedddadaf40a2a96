"""Honest nodes, audited thousands of times: for benchmarks/swarm_audit.py."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from swarm_audit_asks import asked, fresh, say

from shoestring.swarm.audit.comparing import first_difference
from shoestring.swarm.audit.running import Here, Rerun
from shoestring.swarm.audit.windows import Recording
from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.proof.steps import POSITIONS, kind_of
from shoestring.swarm.wire import COMPUTES, Command, Frame
from shoestring.swarm.worker_pool import WorkerPool
from shoestring.testing.audit_lab import (
    ask_all,
    audit_lab,
    worker_settings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.testing.audit_lab import AuditLab

REPEATS: Final = 50
"""Windows told at a time."""


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
