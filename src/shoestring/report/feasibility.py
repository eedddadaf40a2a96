"""Which models run on which machine: every cell predicted, and measured where a run says so.

A cell is a model in a quantisation at a context on a machine. What it would take is predicted by
:mod:`shoestring.plan`; its standing says how far that is to be trusted:

=============  ===================================================================================
measured       a run of the suite ``feasibility`` on that very hardware says so; prediction beside
predicted      by arithmetic alone
not yet run    the prediction is too close to a limit to decide, and no run has
=============  ===================================================================================

A run counts for a cell only if its weights have that shape and quantisation, its engine was given
that context, and its machine is that hardware. On GPUs it counts only with a figure of VRAM, for
an engine that quietly computes elsewhere proves nothing about them; nor does a load that failed
there. Random weights take the same memory and time as trained ones; such a run says so. Of several
runs of a cell the newest counts.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from shoestring.analysis.summary import summarise
from shoestring.hardware.devices import GPU_TAKEN_BYTES
from shoestring.measure.together import OUT_OF_MEMORY
from shoestring.models.layouts import list_tensors
from shoestring.models.outline import outline_of_shape
from shoestring.models.shapes import SHAPES
from shoestring.plan.memory import Settings, describe_demand
from shoestring.plan.placement import place
from shoestring.report.feasibility_runs import context_of, machine_of_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoestring.measure.records import Run
    from shoestring.plan.candidates import Candidate
    from shoestring.plan.machines import Machine
    from shoestring.plan.memory import Demand
    from shoestring.plan.placement import Placement, Verdict

RANDOM: Final = "shape:"
FAILED_LOADS: Final = (OUT_OF_MEMORY, "model refused")
"""Reasons of a manifest for which a run without one answer says that the model does not run.

An engine that is lost otherwise may have lacked a library, a quick disk or its guard.
"""
OFF_GPUS: Final = 0.9
"""Share of what a whole model takes on GPUs, below which a peak of VRAM shows that it is not."""

Standing: TypeAlias = Literal["measured", "predicted", "not yet run"]
Key: TypeAlias = tuple[str, str, int]
"""A shape, a quantisation, a context."""


@dataclass(frozen=True)
class Evidence:
    """What one run says of a cell.

    Attributes:
        run_id: of the run.
        engine: its name and version.
        model: as the run names it.
        random_weights: whether they were made up; memory and speed are true all the same.
        verdict: None where it says nothing about this hardware.
        reason: why it did not run, or why the run does not count; else None.
        ram_peak_bytes: of the engine's processes.
        vram_peak_bytes: of the engine's processes.
        decode_tokens_per_s: median over requests.
        load_s: how long the engine took to load the model.
    """

    run_id: str
    engine: str
    model: str
    random_weights: bool
    verdict: Verdict | None
    reason: str | None
    ram_peak_bytes: int | None = None
    vram_peak_bytes: int | None = None
    decode_tokens_per_s: float | None = None
    load_s: float | None = None


@dataclass(frozen=True)
class Cell:
    """One model in one quantisation at one context on one machine.

    Attributes:
        model: who it is.
        quantisation: lower case, for example ``q4_k_m``.
        context: tokens for one request.
        machine: where.
        predicted: what it takes there; None where the model was not trained for such a context.
        measured: what a run says; None where none counts.
    """

    model: Candidate
    quantisation: str
    context: int
    machine: Machine
    predicted: Placement | None
    measured: Evidence | None

    @property
    def verdict(self) -> Verdict | None:
        """Whether it runs: as measured, else as predicted; None where neither says."""
        if self.measured is not None:
            return self.measured.verdict
        return self.predicted.verdict if self.predicted is not None else "does not run"

    @property
    def standing(self) -> Standing:
        """How the verdict is known."""
        if self.measured is not None:
            return "measured"
        return "not yet run" if self.verdict is None else "predicted"

    @property
    def reason(self) -> str | None:
        """Why it does not run; else None."""
        if self.measured is not None:
            return self.measured.reason
        if self.predicted is None:
            return f"trained for {self.model.context} tokens"
        return "more than the memory" if self.verdict == "does not run" else None


def make_cells(
    runs: Iterable[Run],
    machines: Iterable[Machine],
    models: Iterable[Candidate],
    quantisations: Sequence[str],
    contexts: Sequence[int],
) -> list[Cell]:
    """Make every cell of the matrix, models outermost, machines innermost.

    Args:
        runs: of the suite, oldest first; those of another shape, context or machine are left out.
        machines: the columns.
        models: of the rows.
        quantisations: of each model.
        contexts: of each quantisation.
    """
    asked, columns = list(models), list(machines)
    keys = {(m.shape, q, c) for m in asked for q in quantisations for c in contexts}
    demands = {key: demand_of(f"{key[0]}:{key[1]}", key[2]) for key in keys}
    placed = {(key, m.name): place(demands[key], m) for key in keys for m in columns}
    evidence = _evidence_by_cell(runs, demands)
    return [
        Cell(
            model, quantisation, context, machine,
            placed[(model.shape, quantisation, context), machine.name]
            if context <= model.context else None,
            evidence.get(((model.shape, quantisation, context), machine.name)),
        )
        for model in asked
        for quantisation in quantisations
        for context in contexts
        for machine in columns
    ]  # fmt: skip


def demand_of(name: str, context: int) -> Demand:
    """Say what a synthetic model needs, by any engine: some ask for the logits of a whole batch."""
    settings = Settings(context=context)
    return describe_demand(outline_of_shape(name), replace(settings, outputs=settings.ubatch))


def could_not_load(run: Run, machine: Machine) -> bool:
    """Say whether a run without one answer shows that its model does not run on that machine."""
    return run.incomplete_reason in FAILED_LOADS and (not machine.gpu_bytes or _held_vram(run))


def cells_json(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return the matrix as ``shoestring feasibility --json`` prints it."""
    machines = {cell.machine.name: cell.machine for cell in cells}
    standings: dict[str, int] = {"measured": 0, "predicted": 0, "not yet run": 0}
    for cell in cells:
        standings[cell.standing] += 1
    return {
        "machines": [
            {**asdict(machine), "gpu_bytes": list(machine.gpu_bytes)}
            for machine in machines.values()
        ],
        "standings": standings,
        "cells": [
            {
                "model": cell.model.title,
                "shape": cell.model.shape,
                "reasons": cell.model.reasons,
                "quantisation": cell.quantisation,
                "context": cell.context,
                "machine": cell.machine.name,
                "verdict": cell.verdict,
                "standing": cell.standing,
                "reason": cell.reason,
                "predicted": cell.predicted and {
                    **asdict(cell.predicted), "layers": cell.model.layers,
                    "total_bytes": cell.predicted.total_bytes,
                },
                "measured": cell.measured and asdict(cell.measured),
            }
            for cell in cells
        ],
    }  # fmt: skip


def _evidence_by_cell(
    runs: Iterable[Run], demands: dict[Key, Demand]
) -> dict[tuple[Key, str], Evidence]:
    known = {_facts(*named): named for named in {(s, q) for s, q, _ in demands}}
    found: dict[tuple[Key, str], Evidence] = {}
    for run in runs:
        named, context = known.get(_facts_of_run(run)), context_of(run)
        machine = machine_of_run(run)
        if named is None or context is None or machine is None:
            continue
        key = (*named, context)
        if key in demands and (said := _evidence(run, demands[key], machine)) is not None:
            found[key, machine.name] = said
    return found


def _facts(name: str, quantisation: str) -> tuple[Any, ...]:
    shape = SHAPES[name]
    parameters = sum(math.prod(dimensions) for _, dimensions in list_tensors(shape))
    return shape.architecture, shape.layers, parameters, quantisation


def _facts_of_run(run: Run) -> tuple[Any, ...]:
    model = run.config["model"]
    return (
        model.get("architecture"), model.get("layers"), model.get("parameters"),
        str(model.get("quantisation")).lower(),
    )  # fmt: skip


def _evidence(run: Run, demand: Demand, machine: Machine) -> Evidence | None:
    """Return what a run says of its own cell; None where it says nothing."""
    model = str(run.config["model"]["name"])
    version = ((run.sessions[0].get("versions") or {}).get("engine")) or None
    engine = str(version or run.config["engine"]["name"])
    answered = any(row["status"] == "ok" for row in run.rows)
    if not answered:
        if not could_not_load(run, machine):
            return None
        told = f"{run.incomplete_reason}: the engine did not answer once"
        return Evidence(run.run_id, engine, model, model.startswith(RANDOM), "does not run", told)
    summary = summarise(run)
    memory = summary["memory"]
    verdict = _measured_verdict(memory, demand, machine)
    if verdict is None:
        return None
    return Evidence(
        run.run_id, engine, model, model.startswith(RANDOM), verdict, None,
        memory["ram_peak_bytes"], memory["vram_peak_bytes"],
        summary["metrics"]["decode_tokens_per_s"]["median"], summary["load_s"],
    )  # fmt: skip


def _measured_verdict(memory: dict[str, Any], demand: Demand, machine: Machine) -> Verdict | None:
    """Say where a model that answered was; None where that cannot be told."""
    if not machine.gpu_bytes:
        return "runs"
    told, peak = memory["engine_reported"] or {}, memory["vram_peak_bytes"]
    if told.get("total_bytes") and told.get("vram_bytes"):
        whole = told["vram_bytes"] >= told["total_bytes"]
    elif peak:
        whole = _whole_on_gpus(peak, demand, len(machine.gpu_bytes))
    else:
        return None
    return None if whole is None else "runs" if whole else "runs with offload"


def _whole_on_gpus(peak_bytes: int, demand: Demand, gpus: int) -> bool | None:
    """Say from a peak of VRAM whether a whole model was there; None where it may have been.

    Buffers and contexts are estimates from above: a layer that is missing hides behind them,
    unless the peak is more than all of it would be without the smallest layer.
    """
    if peak_bytes < OFF_GPUS * demand.on_gpus_bytes:
        return False
    layer = min(map(sum, zip(demand.layer_bytes, demand.cache_bytes, strict=True)))
    buffers = gpus * (demand.compute_bytes + GPU_TAKEN_BYTES)
    return True if peak_bytes > demand.on_gpus_bytes - layer + buffers else None


def _held_vram(run: Run) -> bool:
    memories = [session.get("memory") or {} for session in run.sessions]
    told = [(memory.get("engine_reported") or {}).get("vram_bytes") for memory in memories]
    peaks = [memory.get("vram_peak_bytes") for memory in memories]
    return any((*told, *peaks, *(sample.get("engine_vram_bytes") for sample in run.telemetry)))
