"""The simulated pool: a day of it, who pays and earns what, and what attacks change.

From ``swarm-simulation.json``. All but the seconds that the simulator took follows from a seed:
these are figures of a model of users and nodes, on the product's own routing and ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib.lines import Line2D

from shoestring.report.clocks import case_axis
from shoestring.report.drawing import Drawing, joined
from shoestring.report.economy_tables import SIMULATION
from shoestring.report.service_tables import not_measured, source_of, sourced
from shoestring.report.style import GRID, MUTED, PAGE_IN, SERIES, new_figure, styled
from shoestring.report.tabular import Column
from shoestring.report.units import number, plain, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from shoestring.report.service_tables import Figures
    from shoestring.report.tabular import Table, Value

CREDIT: Final = 1e-6
HOUR_S: Final = 3600.0
SPLITS: Final = {
    "by_model": "model", "by_profile": "what users want", "by_place": "where they are",
}  # fmt: skip


def day_facts(figures: Figures | None) -> list[tuple[str, str]]:
    """Return what was simulated, and what it came to as a whole."""
    if figures is None:
        return [("a day", not_measured(SIMULATION))]
    day, of = figures["day"], figures["day"]["outcome"]
    scenario, book, income = of["scenario"], of["ledger"], of["income"]
    counts = [f"{number(scenario[what])} {what}" for what in ("nodes", "requests", "hours")]
    unserved = ", ".join(f"{why} {number(count)}" for why, count in of["unserved"].items())
    verified = "whole" if book["right"] else f"NOT right: {book['fault']}"
    return [
        ("simulated", f"{', '.join(counts)}, seed {scenario['seed']}"),
        ("took", f"{seconds(day['cpu_s'])} of a processor, {seconds(day['wall_s'])} on the wall"),
        ("requests served", _percent(of["all"]["served_share"])),
        ("requests not served", unserved or "none"),
        ("wrong answers, in spite of audits", _percent(of["all"]["wrong_share"])),
        ("nodes that left in mid-answer and were replaced", number(of["saved_nodes"])),
        ("the book", f"{number(book['entries'])} entries, {verified}"),
        ("sum of all accounts", f"{number(book['sum_micro'])} micro-credits"),
        ("income of nodes, Gini", number(income["gini_nodes"])),
        ("income of nodes, Jain", number(income["jain_nodes"])),
        ("the richest tenth of nodes has", _percent(income["richest_tenth_share"])),
        ("routes above those of a longer search, median",
         _percent(of["routing"]["above_exact"]["median"])),
    ]  # fmt: skip


def answers_table(figures: Figures | None) -> Table:
    """Return what answers cost and how long they took, by model, by wish and by place."""
    columns = (
        Column("split", "By"),
        Column("group", "Of"),
        Column("asked", "Requests"),
        Column("served", "Served (%)", 100.0),
        Column("million_micro", "A million tokens (credits)", CREDIT),
        Column("ttft_s", "First token, median (s)"),
        Column("ttft_p99_s", "p99 (s)"),
        Column("tpot_s", "A token, median (ms)", 1e3),
        Column("tpot_p99_s", "p99 (ms)", 1e3),
        Column("hops", "Nodes an answer"),
        Column("near", "Of the asker's network (%)", 100.0),
    )
    rows: list[tuple[Value, ...]] = []
    outcome = figures["day"]["outcome"] if figures else {}
    for key, word in SPLITS.items():
        for group, one in outcome.get(key, {}).items():
            rows.append(
                (word, group, one["asked"], one["served_share"], one["million_tokens_micro"],
                 one["ttft_s"]["median"], one["ttft_s"]["p99"], one["tpot_s"]["median"],
                 one["tpot_s"]["p99"], one["hops"], one["near_share"])
            )  # fmt: skip
    return sourced(SIMULATION, "economy_answers", "A simulated day", columns, rows, figures)


def income_table(figures: Figures | None) -> Table:
    """Return what nodes earned, by device, region and place."""
    columns = (
        Column("split", "By"),
        Column("group", "Of"),
        Column("nodes", "Nodes"),
        Column("micro", "Earned (credits)", CREDIT),
        Column("micro_an_hour", "An hour there (millicredits)", 1e-3),
    )
    income = figures["day"]["outcome"]["income"] if figures else {}
    rows = [
        (word, group, one["nodes"], one["micro"], one["micro_an_hour"])
        for key, word in (("by_device", "device"), ("by_region", "region"), ("by_place", "place"))
        for group, one in income.get(key, {}).items()
    ]
    return sourced(SIMULATION, "economy_income", "Income of a day", columns, rows, figures)


def found_table(figures: Figures | None) -> Table:
    """Return how soon simulated cheats were found, beside the bound."""
    columns = (
        Column("wrong", "Wrong in a share of windows"),
        Column("cheats", "Cheats that served"),
        Column("found", "Found"),
        Column("windows", "Windows served for each found"),
        Column("bound", "By the bound"),
        Column("earned", "They earned (credits)", CREDIT),
    )
    audits = figures["day"]["outcome"]["audits"] if figures else {"cheats": {}}
    rows = [
        (float(share), one["cheats"], one["found"], one["windows_for_each_found"],
         one["bound_windows"], one["earned_micro"])
        for share, one in audits["cheats"].items()
    ]  # fmt: skip
    title = "Cheats among the nodes"
    if figures is not None:
        title += (
            f": a share of {audits['audit_share']:g} of windows is audited, "
            f"{number(audits['honest_excluded'])} honest nodes excluded by false alarms "
            f"(assumed: {audits['false_alarms']:g} an audit)"
        )
    return sourced(SIMULATION, "economy_found", title, columns, rows, figures)


def attacks_table(figures: Figures | None) -> Table:
    """Return what each attack changed for attackers and for everybody."""
    columns = (
        Column("attack", "Attack"),
        Column("gain_without", "Attackers got of others, without (credits)"),
        Column("gain_with", "With"),
        Column("served", "Served (%)", 100.0),
        Column("wrong", "Wrong answers (%)", 100.0),
        Column("million_micro", "A million tokens (credits)", CREDIT),
        Column("ttft_s", "First token, median (s)"),
        Column("victims_micro", "A million, of those attacked (credits)", CREDIT),
        Column("honest_excluded", "Honest nodes excluded (assumed false alarms)"),
    )
    rows: list[tuple[Value, ...]] = []
    gains = figures["gains_credits"] if figures else {}
    for name, run in (figures["attacks"] if figures else {}).items():
        of = run["outcome"]
        gain = gains.get(name, {"without": None, "with": None})
        victims = of["victims"] if name.startswith("eclipse") else None
        rows.append(
            (name, gain["without"], gain["with"], of["all"]["served_share"],
             of["all"]["wrong_share"], of["all"]["million_tokens_micro"],
             of["all"]["ttft_s"]["median"], victims and victims["million_tokens_micro"],
             of["audits"]["honest_excluded"])
        )  # fmt: skip
    title = "Attacks, each beside the same seed without it"
    return sourced(SIMULATION, "economy_attacks", title, columns, rows, figures)


def day_figure(figures: Figures | None) -> Drawing:
    """Draw a simulated day: demand and nodes, price, and times."""
    if figures is None:
        return Drawing.missing(not_measured(SIMULATION).rstrip("."))
    series = figures["day"]["outcome"]["series"]
    per_hour = HOUR_S / series["bin_s"]
    hours = [at / per_hour for at in range(len(series["asked"]))]
    # Micro-credits a token are credits a million.
    sums = zip(series["paid_micro"], series["tokens"], strict=True)
    price = [paid / tokens if tokens else None for paid, tokens in sums]
    asked = [one * per_hour for one in series["asked"]]
    tpot_ms = [None if one is None else 1e3 * one for one in series["tpot_median_s"]]
    panels: list[tuple[str, Sequence[float | None]]] = [
        ("requests\nan hour", asked), ("nodes there", series["nodes"]),
        ("a million tokens\n(credits)", price), ("first token,\nmedian (s)",
                                                 series["ttft_median_s"]),
        ("a token,\nmedian (ms)", tpot_ms),
    ]  # fmt: skip
    texts = {}
    with styled():
        figure = new_figure(PAGE_IN, 4.6)
        rows = figure.subplots(len(panels), 1, sharex=True)
        for axes, (label, values) in zip(rows, panels, strict=True):
            known = [value for value in values if value is not None]
            axes.plot(hours, [float("nan") if v is None else v for v in values], color=SERIES[0],
                      linewidth=1)  # fmt: skip
            axes.set_ylim(0, 1.1 * max(known, default=1.0))
            axes.set_ylabel(label, rotation=0, ha="right", va="center")
            axes.yaxis.set_major_formatter(lambda value, _: plain(value, 3))
            texts[label] = f"{' '.join(label.split())}: {_range(known)}"
        rows[-1].set_xlabel("simulated hour")
        rows[-1].set_xlim(0, hours[-1] if hours else 1)
        figure.align_ylabels(rows)
    return Drawing(
        figure, joined(texts),
        f"A point every {number(series['bin_s'] / 60)} simulated minutes. {source_of(figures)}.",
    )  # fmt: skip


def income_figure(figures: Figures | None) -> Drawing:
    """Draw what an hour brings each kind of device, and what attacks bring attackers."""
    if figures is None:
        return Drawing.missing(not_measured(SIMULATION).rstrip("."))
    devices = {
        name: one["micro_an_hour"] * 1e-3
        for name, one in figures["day"]["outcome"]["income"]["by_device"].items()
        if one["micro_an_hour"] is not None
    }
    gains, texts = figures["gains_credits"], {}
    with styled():
        figure = new_figure(PAGE_IN, 2.6)
        left, right = figure.subplots(1, 2)
        for row, (name, value) in enumerate(devices.items()):
            _bar(left, row, value, SERIES[0], 0.6)
            texts[name] = f"{name}: {number(value)} millicredits an hour"
        case_axis([left], list(devices))
        left.set_title("an hour of a device")
        left.set_xlabel("millicredits")
        for row, (name, one) in enumerate(gains.items()):
            _bar(right, row - 0.18, one["without"], GRID, 0.34)
            _bar(right, row + 0.18, one["with"], SERIES[1], 0.34)
            texts[f"attack {name}"] = (
                f"{name}: attackers got {number(one['without'])} credits without and "
                f"{number(one['with'])} with it"
            )
        case_axis([right], list(gains))
        right.set_title("what attackers get of others")
        right.set_xlabel("credits")
        _leave_room(left, list(devices.values()))
        _leave_room(right, [one[how] for one in gains.values() for how in ("without", "with")])
        handles = [Line2D([], [], color=GRID, linewidth=6, label="not attacking"),
                   Line2D([], [], color=SERIES[1], linewidth=6, label="attacking")]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return Drawing(figure, joined(texts), f"The same seed with and without. {source_of(figures)}.")


def _bar(axes: Axes, row: float, value: float, colour: str, height: float) -> None:
    axes.barh(row, value, height=height, color=colour, linewidth=0)
    axes.annotate(number(value), (max(value, 0.0), row), (3, 0), textcoords="offset points",
                  va="center", fontsize=6, color=MUTED)  # fmt: skip


def _leave_room(axes: Axes, values: list[float]) -> None:
    """For the figures behind the bars."""
    low, high = min([0.0, *values]), max([0.0, *values])
    axes.set_xlim(1.1 * low, 1.18 * high or 1.0)


def _percent(share: float | None) -> str:
    return number(None if share is None else 100 * share) + " %"


def _range(values: list[Any]) -> str:
    return f"{number(min(values))} to {number(max(values))}" if values else "nothing"
