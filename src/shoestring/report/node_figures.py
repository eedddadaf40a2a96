"""Figures of a node: where the time of its start goes, and how its sessions vary.

Drawn from plain data, as ``results/benchmarks/node-starts.json`` and ``node-sessions.json`` hold
it, so that a notebook draws what it has just measured with the same functions.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any, Final

from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from shoestring.report.clocks import case_axis
from shoestring.report.drawing import Drawing
from shoestring.report.style import (
    COLUMN_IN,
    INK,
    MUTED,
    PAGE_IN,
    PAPER,
    SERIES,
    new_figure,
    styled,
)
from shoestring.report.tabular import one_line
from shoestring.report.units import MISSING, SPACE, number, seconds
from shoestring.report.words import case_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

Spans = list[dict[str, Any]]
"""The steps of one start: ``name``, ``start_s``, ``end_s``."""

_HATCHES: Final = ("", "//////", "......", "xxxxxx")
_BAND: Final = 0.76  # of a row's height, shared by the kinds of start
_METRICS: Final = {
    "ttft_s": ("TTFT (ms)", 1e3),
    "decode_tokens_per_s": ("decode (tokens/s)", 1.0),
}


def start_waterfall(starts: Mapping[str, Sequence[Spans]]) -> Drawing:
    """Draw the steps of a node's start, a row each and a bar for each kind of start.

    A bar begins at the median begin of its step and is as long as the median of its durations; the
    whisker ends where the shortest and the longest would. A step that only some starts had is of
    those.

    Args:
        starts: the starts of each kind ("cold", "warm"), each with its spans.
    """
    kinds = {one_line(kind): _steps(told) for kind, told in starts.items()}
    kinds = {kind: steps for kind, steps in kinds.items() if steps}
    if not kinds:
        return Drawing.missing("no start of a node was timed")
    counts = {one_line(kind): len(told) for kind, told in starts.items()}
    rows = _order(kinds)
    with styled():
        figure = new_figure(
            PAGE_IN, 0.75 + 0.13 * len(kinds) + (0.1 + 0.16 * len(kinds)) * len(rows)
        )
        axes = figure.add_subplot()
        height = _BAND / len(kinds)
        for place, steps in enumerate(kinds.values()):
            shift = -_BAND / 2 + height * (place + 0.5)
            for name, step in steps.items():
                _step_bar(axes, rows.index(name) + shift, step, height, place)
        longest_s = max(max(step["ends_s"]) for steps in kinds.values() for step in steps.values())
        axes.set_xlim(0, longest_s * 1.14)  # room for the last duration
        axes.set_xlabel("time since the start of the node (s)")
        case_axis([axes], rows)
        texts = [
            f"{kind}: answers in Open WebUI after {_range(_last(steps))}, n = {counts[kind]}"
            for kind, steps in kinds.items()
        ]
        _name_kinds(axes, texts)
    words = [f"{text}. {_words(steps)}" for text, steps in zip(texts, kinds.values(), strict=True)]
    return Drawing(
        figure,
        "Start of a node. " + " ".join(words),
        "Bars are medians; whiskers are the shortest and the longest. Steps overlap.",
    )


def session_variation(rows: Sequence[dict[str, Any]]) -> Drawing:
    """Draw each session's requests, with the session's median: between beside within.

    Args:
        rows: of ``analysis.repeatability.session_repeatability``; a panel each.
    """
    drawn = [row for row in rows if any(row["sessions"])]
    if not drawn:
        return Drawing.missing("no session has a request that was answered")
    labels = case_labels(dict.fromkeys((row["case"], row["concurrency"]) for row in drawn))
    columns = [metric for metric in _METRICS if any(row["metric"] == metric for row in drawn)]
    with styled():
        width_in = PAGE_IN if len(columns) > 1 else COLUMN_IN
        figure = new_figure(width_in, 0.3 + 1.5 * len(labels))
        panels = figure.subplots(len(labels), len(columns), squeeze=False)
        for line, (case, label) in zip(panels, labels.items(), strict=True):
            for axes, metric in zip(line, columns, strict=True):
                row = next((row for row in drawn if row["metric"] == metric
                            and (row["case"], row["concurrency"]) == case), None)  # fmt: skip
                _session_panel(axes, label, metric, row)
        for axes in panels[-1]:
            axes.set_xlabel("session: one start of the node each")
        figure.align_ylabels(panels[:, 0])
    words = [
        f"{labels[row['case'], row['concurrency']]}, {_METRICS[row['metric']][0]}: {_parted(row)}"
        for row in drawn
    ]
    return Drawing(
        figure,
        "Variation between sessions beside that within one. " + "; ".join(words) + ".",
        "A mark is a request, in the order in which it was sent; a line is a session's median, the "
        "dashed one the mean of all. Axes do not begin at 0.",
    )


def _steps(starts: Sequence[Spans]) -> dict[str, dict[str, Any]]:
    """Return each step's median begin, and the durations and ends in all starts."""
    found: dict[str, list[dict[str, Any]]] = {}
    for spans in starts:
        for span in spans:
            found.setdefault(one_line(str(span["name"])), []).append(span)
    return {
        name: {
            "start_s": median(span["start_s"] for span in spans),
            "durations_s": [span["end_s"] - span["start_s"] for span in spans],
            "ends_s": [span["end_s"] for span in spans],
        }
        for name, spans in found.items()
    }


def _order(kinds: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Name the steps in the order in which they begin, by the kind that is latest with them."""
    begins: dict[str, float] = {}
    for steps in kinds.values():
        for name, step in steps.items():
            begins[name] = max(begins.get(name, 0.0), step["start_s"])
    return sorted(begins, key=lambda name: (begins[name], name))


def _step_bar(axes: Axes, row: float, step: dict[str, Any], height: float, place: int) -> None:
    start_s, durations_s = step["start_s"], step["durations_s"]
    middle_s, low_s, high_s = median(durations_s), min(durations_s), max(durations_s)
    axes.barh(
        row, middle_s, left=start_s, height=height * 0.82, color=SERIES[place % len(SERIES)],
        hatch=_HATCHES[place % len(_HATCHES)], edgecolor=PAPER, linewidth=0.0,
    )  # fmt: skip
    if high_s > low_s:
        axes.errorbar(
            start_s + middle_s, row, xerr=[[middle_s - low_s], [high_s - middle_s]], color=INK,
            linewidth=0.8, capsize=1.6, capthick=0.8,
        )  # fmt: skip
    axes.annotate(
        seconds(middle_s), (start_s + high_s, row), (4, 0), textcoords="offset points",
        va="center", fontsize=6.5,
    )  # fmt: skip


def _name_kinds(axes: Axes, texts: list[str]) -> None:
    handles = [
        Patch(facecolor=SERIES[place % len(SERIES)], hatch=_HATCHES[place % len(_HATCHES)],
              edgecolor=PAPER, linewidth=0.0)
        for place in range(len(texts))
    ]  # fmt: skip
    axes.legend(
        handles, texts, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=1, borderaxespad=0.2,
        handlelength=2.6, labelspacing=0.35, borderpad=0,
    )  # fmt: skip


def _last(steps: dict[str, dict[str, Any]]) -> list[float]:
    """Return when the last step ended, in all starts that had it."""
    ends: list[float] = max((step["ends_s"] for step in steps.values()), key=median)
    return ends


def _range(values_s: Sequence[float]) -> str:
    told = seconds(median(values_s))
    low, high = seconds(min(values_s)), seconds(max(values_s))
    return told if low == high else f"{told} ({low} to {high})"


def _words(steps: dict[str, dict[str, Any]]) -> str:
    ordered = sorted(steps.items(), key=lambda item: (item[1]["start_s"], item[0]))
    return "; ".join(f"{name} {_range(step['durations_s'])}" for name, step in ordered) + "."


def _session_panel(axes: Axes, label: str, metric: str, row: dict[str, Any] | None) -> None:
    heading, scale = _METRICS[metric]
    axes.set_title(label if row is None else f"{label}: {_parted(row)}", fontweight="normal")
    axes.set_ylabel(heading)
    axes.grid(visible=False, axis="x")
    if row is None:
        return
    for place, values in enumerate(row["sessions"], start=1):
        scaled = [value * scale for value in values]
        axes.plot(
            _beside(place, len(scaled)), scaled, color=SERIES[0], marker="o", markersize=2.8,
            alpha=0.4, linestyle="none", markeredgewidth=0,
        )  # fmt: skip
        if scaled:
            axes.plot([place - 0.34, place + 0.34], [median(scaled)] * 2, color=INK, linewidth=1.4)
    mean = row["repeatability"]["mean"]
    axes.axhline(mean * scale, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.set_xticks(range(1, len(row["sessions"]) + 1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.margins(y=0.12)


def _beside(place: int, count: int) -> list[float]:
    """Spread marks around a session's place, in their order."""
    return [place + 0.56 * ((i + 0.5) / count - 0.5) for i in range(count)]


def _parted(row: dict[str, Any]) -> str:
    """Say how much varies between the sessions, and how much within one."""
    told = row["repeatability"]
    if told["reason"] is not None:
        return str(told["reason"])
    return f"between {_percent(told['between_share'])}, within {_percent(told['within_share'])}"


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{number(share * 100)}{SPACE}%"
