"""Figures of several runs side by side: a colour and a marker for each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from shoestring.report.clocks import case_axis
from shoestring.report.drawing import Drawing
from shoestring.report.style import PAGE_IN, PAPER, new_figure, series_styles, styled
from shoestring.report.units import number, plain, seconds
from shoestring.report.words import case_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoestring.report.comparison import Case, Comparison

_LOG_RATIO = 8  # wider spans than this are read better on a logarithmic axis
_PANELS: Final = (
    ("ttft_s", "time to first token (ms), less is better", 1e3),
    ("tpot_s", "time per output token (ms), less is better", 1e3),
    ("decode_tokens_per_s", "decode, a request (tokens/s), more is better", 1.0),
    ("prefill_tokens_per_s", "prefill (tokens/s), more is better", 1.0),
)


def speed(comparison: Comparison) -> Drawing:
    """Draw the medians of four metrics, a row a case and a mark a run, with their intervals."""
    cases = [key for key in comparison.cases if _answered(comparison, key)]
    if not cases:
        return Drawing.missing("no request was answered in any run")
    labels = case_labels(cases)
    styles = _styles(comparison)
    with styled():
        band_in = 0.14 + 0.13 * len(comparison.members)
        figure = new_figure(PAGE_IN, 1.15 + 2 * band_in * len(cases))
        panels = figure.subplots(2, 2, sharey=True).flatten()
        for axes, (name, heading, scale) in zip(panels, _PANELS, strict=True):
            _metric_panel(axes, comparison, cases, name, scale)
            axes.set_xlabel(heading)
        case_axis(panels, [labels[key] for key in cases])
        for axes in panels:
            for row in range(1, len(cases)):
                axes.axhline(row - 0.5, color="#d8dee4", linewidth=0.5)
        _run_legend(figure, styles)
    return Drawing(figure, "Medians. " + "; ".join(_words(comparison, cases, labels)) + ".")


def resources(comparison: Comparison) -> Drawing:
    """Draw what each run needed: time to load, memory, energy; a panel for each that is known."""
    panels = [panel for panel in _needs(comparison) if any(v is not None for v in panel[1])]
    if not panels:
        return Drawing.missing("neither load time nor memory was recorded in any run")
    labels = [member.label for member in comparison.members]
    styles = _styles(comparison)
    with styled():
        figure = new_figure(PAGE_IN, 0.5 + 0.24 * len(labels))
        rows = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (heading, values, write) in zip(rows, panels, strict=True):
            for row, (label, value) in enumerate(zip(labels, values, strict=True)):
                colour = styles[label]["color"]
                axes.barh(row, value or 0, height=0.6, color=colour, alpha=0.85)
                axes.annotate(
                    write(value), (value or 0, row), (3, 0), textcoords="offset points",
                    va="center", fontsize=6.5,
                )  # fmt: skip
            axes.set_xlim(0, max(value or 0 for value in values) * 1.45 or 1)
            axes.set_xlabel(heading)
        case_axis(rows, labels)
    text = "; ".join(
        f"{heading}: " + ", ".join(
            f"{label} {write(value)}" for label, value in zip(labels, values, strict=True)
        )
        for heading, values, write in panels
    )  # fmt: skip
    return Drawing(figure, f"{text}.")


COMPARISON_FIGURES: Final[dict[str, Callable[[Comparison], Drawing]]] = {
    "speed": speed,
    "resources": resources,
}


def _answered(comparison: Comparison, key: Case) -> bool:
    found = (member.cases.get(key) for member in comparison.members)
    return any(case and case["metrics"]["ttft_s"]["n"] for case in found)


def _styles(comparison: Comparison) -> dict[str, dict[str, Any]]:
    return series_styles([member.label for member in comparison.members])


def _metric_panel(
    axes: Axes, comparison: Comparison, cases: Sequence[Case], name: str, scale: float
) -> None:
    styles, count = _styles(comparison), len(comparison.members)
    shown: list[float] = []
    for place, member in enumerate(comparison.members):
        shift = 0.0 if count == 1 else 0.6 * (place / (count - 1) - 0.5)
        for row, key in enumerate(cases):
            case = member.cases.get(key)
            metric = case["metrics"][name] if case else {"median": None}
            if metric["median"] is not None:
                _mark(axes, metric, row + shift, scale, styles[member.label])
                ends = [metric["median"], *(metric["ci95"] or [])]
                shown += [end * scale for end in ends]
    positive = [value for value in shown if value > 0]
    if not positive:
        return
    if max(positive) > _LOG_RATIO * min(positive):
        axes.set_xscale("log")
        axes.set_xlim(min(positive) / 1.3, max(positive) * 1.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda value, _: plain(value, 3))
        axes.xaxis.set_minor_formatter(lambda *_: "")
    else:
        axes.set_xlim(0, max(positive) * 1.1)


def _mark(
    axes: Axes, metric: dict[str, Any], row: float, scale: float, style: dict[str, Any]
) -> None:
    median = metric["median"] * scale
    if metric["ci95"] is not None:
        low, high = (end * scale for end in metric["ci95"])
        bars = [[max(0.0, median - low)], [max(0.0, high - median)]]
        axes.errorbar(median, row, xerr=bars, color=style["color"], capsize=1.8, linewidth=1)
    axes.plot(
        median, row, color=style["color"], marker=style["marker"], markersize=4.5,
        linestyle="none", markeredgecolor=PAPER, markeredgewidth=0.4, zorder=5,
    )  # fmt: skip


def _run_legend(figure: Figure, styles: dict[str, dict[str, Any]]) -> None:
    handles = [
        Line2D(
            [], [], color=style["color"], marker=style["marker"], markersize=4.5,
            linestyle="none", label=label,
        )
        for label, style in styles.items()
    ]  # fmt: skip
    # Long labels (ids of runs) stand below each other.
    columns = 1 if max(map(len, styles)) > 24 else min(4, len(handles))  # noqa: PLR2004
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handletextpad=0.4)


def _needs(
    comparison: Comparison,
) -> list[tuple[str, list[float | None], Callable[[float | None], str]]]:
    told = [member.summary for member in comparison.members]
    return [
        ("load, median (s)", [one["metrics"]["load_s"]["median"] for one in told], seconds),
        ("peak RAM (MB)", [_mb(one["memory"]["ram_peak_bytes"]) for one in told], number),
        ("peak VRAM (MB)", [_mb(one["memory"]["vram_peak_bytes"]) for one in told], number),
        (
            "energy (J an output token)",
            [one["energy"]["energy_j_per_output_token"] for one in told],
            number,
        ),
    ]


def _mb(value_bytes: int | None) -> float | None:
    return None if value_bytes is None else value_bytes * 1e-6


def _words(comparison: Comparison, cases: Sequence[Case], labels: dict[Case, str]) -> list[str]:
    lines = []
    for key in cases:
        for member in comparison.members:
            case = member.cases.get(key)
            if case:
                ttft = seconds(case["metrics"]["ttft_s"]["median"])
                rate = number(case["metrics"]["decode_tokens_per_s"]["median"])
                lines.append(f"{labels[key]}, {member.label}: TTFT {ttft}, decode {rate} tokens/s")
    return lines
