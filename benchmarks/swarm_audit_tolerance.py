"""How far apart right kernels of one model are: for benchmarks/swarm_audit.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from swarm_audit_asks import apart_of, asked, compared, fresh, say, summary

from shoestring.swarm.audit.comparing import Tolerance, distance_of
from shoestring.swarm.audit.running import Here, run_again
from shoestring.swarm.audit.windows import Recording
from shoestring.swarm.proof.steps import sets_activation
from shoestring.swarm.worker_pool import WorkerPool
from shoestring.testing.audit_lab import (
    KIND,
    RULES,
    ask_all,
    audit_lab,
    worker_settings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.testing.audit_lab import AuditLab

WARM_UPS: Final = 1
"""Answers before the prompt's."""


async def measure_tolerance(folder: Path, model: Path) -> dict[str, Any]:
    """Measure how far right kernels are apart."""
    say("tolerance")
    base, first = await recorded(folder, model)
    found: dict[str, Any] = {}
    async with WorkerPool(worker_settings()) as pool:
        here = Here(base.identity, pool, RULES, KIND)
        rounded, count = [], 0
        for recording in first[:4]:
            right = await run_again(recording, here)
            off = await run_again(with_rounding(recording), here)
            rounded += apart_of(off, right)
            count += compared(off, right)
        found["activations off by 1e-7"] = summary(rounded, count)
    for threads in (2, 4):
        async with WorkerPool(worker_settings(threads)) as pool:
            here = Here(base.identity, pool, RULES, KIND)
            apart, count = [], 0
            for recording in first[:3]:
                again, told = await run_again(recording, here), recording.given(recording.seats[0])
                apart += apart_of(again, told)
                count += compared(again, told)
            found[f"{threads} threads"] = summary(apart, count)
    for name, more in (("batches of 8", ("-ub", "8")), ("no flash attention", ("-fa", "off"))):
        _, other = await recorded(folder, model, more)
        apart = steps_apart(first, other)
        found[name] = summary([pair for pair in apart if pair != (0.0, 1.0)], len(apart))
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
    found = []
    for pair in zip(columns[0][WARM_UPS:], columns[1][WARM_UPS:], strict=False):
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
