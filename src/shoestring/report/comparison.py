"""Several runs side by side: engines on one model, or one engine on several machines.

Every run is held against the first. Where two of them are not of one suite and one model, their
medians stand beside each other without a ratio, and the reason is told.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shoestring.analysis.compare import compare_runs
from shoestring.analysis.machine import machine_facts
from shoestring.analysis.summary import summarise
from shoestring.errors import BadRunError, BadValueError
from shoestring.report.tabular import Column, Estimate, Table, Value, one_line
from shoestring.report.words import public_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.measure.records import Run

SHOWN: Final = (
    ("ttft_s", "TTFT (ms)", 1e3),
    ("tpot_s", "TPOT (ms)", 1e3),
    ("decode_tokens_per_s", "Decode, each (tokens/s)", 1.0),
    ("prefill_tokens_per_s", "Prefill (tokens/s)", 1.0),
)
"""The metrics that are compared: name, heading, and what a value is multiplied by."""
NOT_COMPARABLE: Final = "not comparable"
_EXPECTED: Final = {"engine", "engine version", "engine options", "base_url", "status"}
"""What engines that are compared may differ in; the page shows it elsewhere."""

Case = tuple[str, int]


@dataclass(frozen=True)
class Member:
    """One run of a comparison.

    Attributes:
        run: the record.
        label: unique in the comparison; the engine's name where that tells the runs apart.
        summary: as ``report --json`` gives it.
        against_first: as ``compare --json`` gives it; None for the first run, and where there is
            no ratio.
        reason: why there is no ratio to the first.
    """

    run: Run
    label: str
    summary: dict[str, Any]
    against_first: dict[str, Any] | None
    reason: str | None

    @property
    def cases(self) -> dict[Case, dict[str, Any]]:
        """The measured cases by name and concurrency, in the order of the suite."""
        return {(case["case"], case["concurrency"]): case for case in self.summary["cases"]}


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; the first is the one that the others are held against."""

    members: tuple[Member, ...]

    @property
    def cases(self) -> list[Case]:
        """Every case of any run, in the order in which they first appear."""
        return list(dict.fromkeys(case for member in self.members for case in member.cases))

    @property
    def reasons(self) -> list[str]:
        """Why some medians have no ratio, a line each."""
        first = self.members[0].label
        lines = [
            f"{member.label} is not compared with {first}: {member.reason}"
            for member in self.members
            if member.reason
        ]
        for member in self.members:
            for case in (member.against_first or {}).get("cases", []):
                said = {metric["reason"] for metric in case["metrics"].values()} - {None}
                name = f"{member.label}, {case['case']} at {case['concurrency']}"
                lines += [f"{name}: {reason}" for reason in sorted(said)]
        return [one_line(line) for line in lines]

    @property
    def differences(self) -> list[str]:
        """What else is unlike in runs that are compared, a line each: machines, settings."""
        first = self.members[0].label
        return [
            one_line(f"{member.label}: {one['field']} {one['b']}, {first}: {one['a']}")
            for member in self.members
            for one in (member.against_first or {}).get("differences", [])
            if one["field"] not in _EXPECTED
        ]


def side_by_side(runs: Sequence[Run]) -> Comparison:
    """Hold runs against the first of them.

    Raises:
        BadValueError: there are fewer than two, or one is named twice.
    """
    ids = [run.run_id for run in runs]
    if len(runs) < 2 or len(set(ids)) < len(ids):  # noqa: PLR2004 - one run is no comparison
        raise BadValueError(
            f"a comparison needs two runs or more, each once, not {', '.join(ids) or 'none'}"
        )
    labels = _labels(runs)
    first = runs[0]
    members = [Member(first, labels[0], summarise(first), None, None)]
    for run, label in zip(runs[1:], labels[1:], strict=True):
        found, reason = _against(first, run)
        members.append(Member(run, label, summarise(run), found, reason))
    return Comparison(tuple(members))


def comparison_tables(comparison: Comparison) -> dict[str, Table]:
    """Return the tables of a comparison by name: ``engines``, ``medians``, ``ratios``."""
    tables = (_engines(comparison), _medians(comparison), _ratios(comparison))
    return {table.name: table for table in tables}


def _labels(runs: Sequence[Run]) -> list[str]:
    engines = [str(run.config["engine"]["name"]) for run in runs]
    models = [public_name(run.config["model"]["name"]) for run in runs]
    both = [f"{engine}, {model}" for engine, model in zip(engines, models, strict=True)]
    for labels in (engines, both):
        if max(Counter(labels).values()) == 1:
            return [one_line(label) for label in labels]
    return [run.run_id for run in runs]


def _against(first: Run, run: Run) -> tuple[dict[str, Any] | None, str | None]:
    try:
        found = compare_runs(first, run)
    except BadRunError as error:  # no case in common: medians stand alone
        return None, str(error)
    return (found, None) if found["comparable"] else (None, found["reason"])


def _engines(comparison: Comparison) -> Table:
    columns = (
        Column("run", "Run"),
        Column("version", "Engine's version"),
        Column("model", "Model"),
        Column("status", "Status"),
        Column("success_rate", "Answered (%)", 100.0, estimate=True),
        Column("load_median_s", "Load (s)", estimate=True),
        Column("ram_peak_bytes", "Peak RAM (MB)", 1e-6),
        Column("vram_peak_bytes", "Peak VRAM (MB)", 1e-6),
        Column("energy_j_per_output_token", "Energy (J/output token)"),
        Column("interruptions", "Interruptions"),
        Column("warnings", "Warnings"),
    )
    rows = tuple(_engine(member) for member in comparison.members)
    return Table("engines", "The runs as a whole", columns, rows)


def _engine(member: Member) -> tuple[Value, ...]:
    summary = member.summary
    memory, rate = summary["memory"], summary["success_rate"]
    versions = {facts["engine version"] for facts in map(machine_facts, member.run.sessions)}
    return (
        member.label, " / ".join(sorted(versions)),
        public_name(summary["environment"]["model"]["name"]), summary["status"],
        Estimate(rate["value"], *(rate["ci95"] or (None, None))),
        _estimate(summary["metrics"]["load_s"]), memory["ram_peak_bytes"],
        memory["vram_peak_bytes"], summary["energy"]["energy_j_per_output_token"],
        (summary["interruptions"] or {}).get("count"), len(summary["warnings"]),
    )  # fmt: skip


def _medians(comparison: Comparison) -> Table:
    columns = (
        *_case_columns(),
        Column("ok", "OK"),
        Column("failed", "Failed"),
        *(Column(f"{name}_median", heading, scale, estimate=True)
          for name, heading, scale in SHOWN),
        Column("output_tokens_per_s_aggregate_median", "Output, all (tokens/s)", estimate=True),
    )  # fmt: skip
    names = [*(name for name, _, _ in SHOWN), "output_tokens_per_s_aggregate"]
    rows = tuple(
        (
            *key, member.label, case["requests"]["ok"], case["requests"]["failed"],
            *(_estimate(case["metrics"][name]) for name in names),
        )
        for key in comparison.cases
        for member in comparison.members
        if (case := member.cases.get(key))
    )  # fmt: skip
    return Table(
        "medians", "Medians by case and run, with 95 % intervals over blocks", columns, rows,
        "No request was measured.",
    )  # fmt: skip


def _ratios(comparison: Comparison) -> Table:
    first = comparison.members[0].label
    columns: list[Column] = [*_case_columns()]
    for name, heading, _ in SHOWN:
        short = heading.partition(" (")[0]
        columns += [
            Column(f"{name}_ratio", f"{short}, ratio", estimate=True),
            Column(f"{name}_verdict", f"{short}, verdict"),
        ]
    rows = tuple(
        (case["case"], case["concurrency"], member.label, *_ratio_cells(case))
        for key in comparison.cases
        for member in comparison.members
        for case in (member.against_first or {}).get("cases", [])
        if (case["case"], case["concurrency"]) == key
    )
    return Table(
        "ratios", f"Ratios of the medians to those of {first}, with 95 % intervals",
        tuple(columns), rows, "No run can be compared with the first one.",
    )  # fmt: skip


def _ratio_cells(case: dict[str, Any]) -> list[Value]:
    cells: list[Value] = []
    for name, _, _ in SHOWN:
        metric = case["metrics"][name]
        if metric["comparable"]:
            ratio = Estimate(metric["ratio"], *(metric["ci95"] or (None, None)))
            cells += [ratio, metric["verdict"]]
        else:
            cells += [Estimate(None, None, None), NOT_COMPARABLE]
    return cells


def _case_columns() -> tuple[Column, ...]:
    return Column("case", "Case"), Column("concurrency", "At once"), Column("run", "Run")


def _estimate(metric: dict[str, Any]) -> Estimate:
    return Estimate(metric["median"], *(metric["ci95"] or (None, None)))
