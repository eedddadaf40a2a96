"""The first note's claims, each with what is known of it here and on the note's own hardware, a T4.

A verdict says how it is known: ``measured`` on the machine of the evidence, ``predicted`` by
arithmetic, or ``not yet run``. Only a run whose own record names a T4 is measured on a T4; what
another machine measured stands in its own column and proves nothing about a T4.
The claims are quoted from the note ("What Was Built").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from shoestring.plan.machines import machine_of
from shoestring.report.tabular import Column, Table
from shoestring.report.units import number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shoestring.report.feasibility import Cell

Verdict: TypeAlias = Literal["measured", "measured: does not hold", "predicted", "not yet run"]
SMALL_QUANTISATIONS = ("q4_k_m", "q5_k_m")
MIB = 1 << 20
T4_BYTES = 15_360 * MIB
NEAR = 0.05
"""Share of its memory within which a GPU of that name is a whole one."""
SMALLEST, LARGEST = 6_500_000_000, 8_500_000_000
"""Weights of what the note calls 7B to 8B."""
READY_S = 60.0
"""Later than this after its start or a kill, a node is not called usable."""
LEAST_SESSIONS = 5
STEADY_SHARE = 0.1
"""A figure is called repeatable while sessions differ by no more than this share of its mean."""


@dataclass(frozen=True)
class Found:
    """What is known of a claim on one machine."""

    verdict: Verdict
    says: str


@dataclass(frozen=True)
class NodeEvidence:
    """What a validation of a node has found; None or empty where it has not looked.

    Attributes:
        machine: that the node ran on, as it described itself.
        cells: of the feasibility matrix.
        model: that was measured.
        parameters: of it.
        gpu_verdict: where the model was (``stack.gpu_use``).
        vram_peak_bytes: of the measured run.
        starts_s: seconds from ``up`` to the first answer in Open WebUI, of each start.
        variation: rows of ``analysis.repeatability.session_repeatability``.
        rounds: of the interruption test, each with what is ``wrong``.
    """

    machine: Mapping[str, Any]
    cells: Sequence[Cell] = ()
    model: str = ""
    parameters: int | None = None
    gpu_verdict: str | None = None
    vram_peak_bytes: int | None = None
    starts_s: Sequence[float] = ()
    variation: Sequence[Mapping[str, Any]] = ()
    rounds: Sequence[Mapping[str, Any]] = ()


NOTHING = Found("not yet run", "nothing was run on it")


def claims_table(evidence: NodeEvidence) -> Table:
    """Return a row for each claim: its verdict here, its verdict on a T4, and why."""
    here = machine_of(evidence.machine)
    title = here.title if here is not None else "this machine"
    speaks = _is_one_t4(evidence.machine["gpus"]) and _is_7b_to_8b(evidence.parameters)
    rows = []
    for claim, judge, foretell in CLAIMS:
        found = judge(evidence)
        elsewhere = found if speaks else foretell(evidence)
        rows.append((claim, found.verdict, found.says, elsewhere.verdict, elsewhere.says))
    columns = (
        Column("claim", "The note says"),
        Column("here", f"On {title}"),
        Column("here_says", "Because"),
        Column("t4", "On a T4"),
        Column("t4_says", "Because"),
    )
    return Table(
        "node_claims", "The note's claims", columns, tuple(rows), "No claim was looked at."
    )


def _is_one_t4(gpus: Sequence[Mapping[str, Any]]) -> bool:
    """Whether this is one whole T4: two of them, or half of one, are another machine."""
    if len(gpus) != 1 or not re.search(r"\bT4\b", str(gpus[0]["name"])):
        return False
    return abs(int(gpus[0]["vram_bytes"]) - T4_BYTES) <= NEAR * T4_BYTES


def _is_7b_to_8b(parameters: int | None) -> bool:
    """Whether the measured model is of the size that the note speaks of."""
    return parameters is not None and SMALLEST <= parameters <= LARGEST


def _runs(evidence: NodeEvidence) -> Found:
    here = machine_of(evidence.machine)
    mine = [one for one in evidence.cells if here is not None and one.machine.name == here.name]
    return _of_cells(mine)


def _runs_on_t4(evidence: NodeEvidence) -> Found:
    return _of_cells([one for one in evidence.cells if one.machine.name == "t4"])


def _of_cells(cells: Sequence[Cell]) -> Found:
    """Count models that reason: the claim is about them."""
    cells = [
        one for one in cells
        if one.model.reasons and one.quantisation in SMALL_QUANTISATIONS
    ]  # fmt: skip
    measured = [one for one in cells if one.measured is not None]
    counted = measured or [one for one in cells if one.verdict is not None]
    if not counted:
        return NOTHING
    whole = sum(one.verdict == "runs" for one in counted)
    said = f"{whole} of {len(counted)} cells of reasoning models in 4 and 5 bits run whole"
    if not measured:
        return Found("predicted", f"{said}, by arithmetic")
    random = any(one.measured is not None and one.measured.random_weights for one in measured)
    said += "; random weights in the true shape" if random else ""
    return Found("measured" if whole == len(measured) else "measured: does not hold", said)


def _starts(evidence: NodeEvidence) -> Found:
    times_s = evidence.starts_s
    if not times_s:
        return NOTHING
    said = (
        f"{evidence.model}: first answer in Open WebUI {number(median(times_s))} s after "
        f"shoestring up ({number(min(times_s))} to {number(max(times_s))} s, {len(times_s)} full "
        "restarts with everything installed)"
    )
    return Found("measured" if max(times_s) <= READY_S else "measured: does not hold", said)


def _vram(evidence: NodeEvidence) -> Found:
    if not evidence.machine.get("gpus"):
        return Found("not yet run", "there is no GPU here")
    if evidence.vram_peak_bytes is None:
        return Found("not yet run", "no whole run says what it took")
    limit = sum(int(gpu["vram_bytes"]) for gpu in evidence.machine["gpus"])
    said = (
        f"{evidence.model}: {evidence.vram_peak_bytes / MIB:.0f} of {limit / MIB:.0f} MiB at the "
        f"peak; where the model was: {evidence.gpu_verdict or 'not known'}"
    )
    holds = evidence.vram_peak_bytes <= limit and evidence.gpu_verdict == "gpu"
    return Found("measured" if holds else "measured: does not hold", said)


def _vram_on_t4(evidence: NodeEvidence) -> Found:
    cells = [
        one for one in evidence.cells
        if one.machine.name == "t4" and one.quantisation in SMALL_QUANTISATIONS
        and one.model.reasons and one.predicted is not None
    ]  # fmt: skip
    if not cells:
        return NOTHING
    most = max(one.predicted.gpu_bytes for one in cells if one.predicted is not None)
    return Found(
        "predicted",
        f"at most {most / MIB:.0f} of {T4_BYTES / MIB:.0f} MiB for reasoning models in 4 and 5 "
        f"bits, up to {max(one.context for one in cells)} tokens of context",
    )


def _repeatable(evidence: NodeEvidence) -> Found:
    shares = [
        (row["repeatability"]["between_share"], f"{row['metric']}, {row['case']}")
        for row in evidence.variation
        if row["repeatability"]["between_share"] is not None
    ]
    if not shares:
        reasons = {row["repeatability"]["reason"] for row in evidence.variation}
        return Found("not yet run", "; ".join(map(str, reasons))) if reasons else NOTHING
    worst, which = max(shares)
    sessions = min(sum(map(bool, row["sessions"])) for row in evidence.variation)
    if sessions < LEAST_SESSIONS:
        return Found("not yet run", f"{sessions} full restarts; {LEAST_SESSIONS} are needed")
    said = (
        f"{evidence.model}: over {sessions} full restarts sessions differ by at most "
        f"{number(worst * 100)} % of the mean ({which}); within a session see the figure"
    )
    return Found("measured" if worst <= STEADY_SHARE else "measured: does not hold", said)


def _survives(evidence: NodeEvidence) -> Found:
    rounds = evidence.rounds
    if not rounds:
        return NOTHING
    clean = sum(not one["wrong"] for one in rounds)
    slowest_s = max(float(one["ready_s"]) for one in rounds)
    kinds = ", ".join(dict.fromkeys(str(one["kind"]) for one in rounds))
    said = (
        f"{evidence.model}: after {clean} of {len(rounds)} kills ({kinds}) the resumed run has "
        f"each request once and nothing is left over; the node answers again within "
        f"{number(slowest_s)} s; a session's limit was not reached here"
    )
    holds = clean == len(rounds) and slowest_s <= READY_S
    return Found("measured" if holds else "measured: does not hold", said)


def _not_run(_evidence: NodeEvidence) -> Found:
    return NOTHING


Judge: TypeAlias = "Callable[[NodeEvidence], Found]"
CLAIMS: tuple[tuple[str, Judge, Judge], ...] = (
    ("Quantized 7B–8B reasoning models can run reliably", _runs, _runs_on_t4),  # noqa: RUF001 - quoted
    ("Inference remains usable after cold start", _starts, _not_run),
    ("GPU memory usage stays within free-tier limits", _vram, _vram_on_t4),
    ("TTFT and throughput are observable and repeatable", _repeatable, _not_run),
    (
        "The setup tolerates ephemeral sessions, restarts, session limits",
        _survives,
        _not_run,
    ),
)
