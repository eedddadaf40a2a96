"""Figures of the gateway: what it adds and holds, and the campaign in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib.ticker import LogLocator

from shoestring.report.clocks import case_axis
from shoestring.report.drawing import Drawing, joined
from shoestring.report.service_tables import (
    MEBIBYTE,
    OVERHEAD,
    Figures,
    estimate,
    median_of,
    not_measured,
    ratio_of,
    source_of,
)
from shoestring.report.style import (
    FAILED,
    INK,
    MUTED,
    PAGE_IN,
    PAPER,
    SERIES,
    new_figure,
    series_styles,
    styled,
)
from shoestring.report.tabular import Estimate
from shoestring.report.units import SPACE, number, plain, seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = tuple[str, str, Estimate, float | None]
"""Label, arm, median with its interval, 99th percentile."""
_LOG_RATIO: Final = 8
_MINUTE_S: Final = 60.0


def overhead_figure(figures: Figures | None) -> Drawing:
    """Draw what each gateway adds, passes, gives from its cache and holds; a dot is a median."""
    if figures is None:
        return Drawing.missing(not_measured(OVERHEAD).rstrip("."))
    order = figures["how"]["arms"].index
    panels = [
        (heading, sorted(rows, key=lambda row: order(row[1])), bar)
        for heading, rows, bar in _panels(figures) if rows
    ]  # fmt: skip
    if not panels:
        return Drawing.missing(f"{OVERHEAD} holds no part of it")
    styles = series_styles(figures["how"]["arms"])
    lines = -(-len(panels) // 2)
    with styled():
        figure = new_figure(PAGE_IN, 0.3 + 1.55 * lines)
        places = figure.subplots(lines, 2, squeeze=False).flat
        for axes, (heading, rows, bar) in zip(places, panels, strict=False):
            _panel(axes, rows, bar, styles)
            axes.set_xlabel(heading)
        for axes in list(figure.axes)[len(panels) :]:
            axes.remove()
    texts = {
        heading: f"{heading}: " + ", ".join(f"{row[0]} {_told(row)}" for row in rows)
        for heading, rows, _ in panels
    }
    return Drawing(
        figure, joined(texts),
        "Dots are medians with 95 % intervals over the blocks, open marks are p99; the dashed line "
        f"is the bar. {source_of(figures)}.",
    )  # fmt: skip


def campaign_timeline(figures: Figures | None) -> Drawing:
    """Draw when what was down, when answers came again, and the fullest window of each limit."""
    if figures is None:
        return Drawing.missing("the campaign was not run")
    faults = [one for one in figures["faults"] if one.get("at_s") is not None]
    if not faults:
        return Drawing.missing("the file of the campaign holds no times of its faults")
    windows = {
        f"most {name}": one
        for name, one in figures["limits"].items()
        if one.get("most_from_s") is not None
    }
    kinds = list(dict.fromkeys(one["kind"] for one in faults))
    rows = [*kinds, *windows]
    ends_s = (one["at_s"] + one["down_s"] + (one["answered_after_s"] or 0) for one in faults)
    end_s = max(figures["seconds"], *ends_s)
    with styled():
        figure = new_figure(PAGE_IN, 0.6 + 0.24 * len(rows))
        axes = figure.add_subplot()
        for one in faults:
            _fault(axes, kinds.index(one["kind"]), one)
        for row, (name, one) in enumerate(windows.items(), start=len(kinds)):
            _window(axes, row, one, 0.0 if "at once" in name else _MINUTE_S, end_s)
        case_axis([axes], rows)
        axes.set_xlim(0, 1.02 * end_s)
        axes.set_xlabel("time since the first request (s)")
    texts = {
        str(place): f"{one['kind']} at {seconds(one['at_s'])} for {seconds(one['down_s'])}"
        for place, one in enumerate(faults)
    }
    return Drawing(
        figure, joined(texts),
        "A bar is how long something was down, the line after it the first answer of the engine "
        "to what was asked since. Below, the minute in which most was let through, with the most "
        f"and the limit. {source_of(figures)}.",
    )  # fmt: skip


def _panels(figures: Figures) -> list[tuple[str, list[Row], float | None]]:
    """Return heading, rows and bar of each panel; a part that was left out has no rows."""
    added: list[Row] = [
        (f"{arm}, c = {level['concurrency']}", arm,
         estimate(said["added_s"]["median"], said["added_s"]["median_ci95"], 1e3),
         None if said["added_s"]["p99"] is None else said["added_s"]["p99"] * 1e3)
        for level in figures.get("ttft", []) for arm, said in level["arms"].items()
        if arm != "direct" and said["added_s"]["median"] is not None
    ]  # fmt: skip
    passed: list[Row] = [
        (arm, arm, ratio, None)
        for arm, said in figures.get("throughput", {}).get("ratio_to_direct", {}).items()
        if (ratio := ratio_of(said)) is not None
    ]
    cached: list[Row] = [
        (f"{arm}, {kind}", arm, median_of(values), None)
        for kind, arms in figures.get("cached", {}).get("answers_per_s", {}).items()
        for arm, values in arms.items()
    ]
    peaks: dict[str, float] = {}
    for part in figures["peak_memory_bytes"].values():
        for arm, peak in part.items():
            peaks[arm] = max(peaks.get(arm, 0), peak or 0)
    held: list[Row] = [
        (arm, arm, Estimate(peak / MEBIBYTE, None, None), None)
        for arm, peak in peaks.items() if peak
    ]  # fmt: skip
    return [
        ("added TTFT (ms)", added, _bar(figures, "added TTFT median", 1e3)),
        ("output tokens/s, share of direct", passed, _bar(figures, "throughput", 1.0)),
        ("answers/s out of the cache", cached, None),
        ("peak memory of a worker (MiB)", held, _bar(figures, "peak memory", 1 / MEBIBYTE)),
    ]


def _panel(axes: Axes, rows: list[Row], bar: float | None, styles: dict[str, Any]) -> None:
    case_axis([axes], [label for label, *_ in rows])
    shown = [] if bar is None else [bar]
    for place, (_, arm, value, p99) in enumerate(rows):
        assert value.median is not None
        colour, marker = styles[arm]["color"], styles[arm]["marker"]
        if value.low is not None and value.high is not None:
            bars = [[value.median - value.low], [value.high - value.median]]
            axes.errorbar(value.median, place, xerr=bars, color=colour, capsize=2, linewidth=1)
        axes.plot(value.median, place, color=colour, marker=marker, markersize=4.5, zorder=5,
                  markeredgecolor=PAPER, markeredgewidth=0.5)  # fmt: skip
        if p99 is not None:
            axes.plot(p99, place, color=colour, marker=marker, markersize=4.5, fillstyle="none")
        shown += [end for end in (value.low, value.median, value.high, p99) if end is not None]
        axes.annotate(number(value.median), (value.median, place), (0, 4),
                      textcoords="offset points", ha="center", fontsize=6.5)  # fmt: skip
    if bar is not None:
        axes.axvline(bar, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    _span(axes, shown)


def _span(axes: Axes, shown: list[float]) -> None:
    if min(shown) > 0 and max(shown) > _LOG_RATIO * min(shown):
        axes.set_xscale("log")
        axes.set_xlim(min(shown) / 1.6, max(shown) * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_major_formatter(lambda value, _: plain(value, 3))
        axes.xaxis.set_minor_formatter(lambda *_: "")
    else:
        axes.set_xlim(min(0.0, 1.15 * min(shown)), max(shown) * 1.15)


def _fault(axes: Axes, row: int, one: dict[str, Any]) -> None:
    axes.barh(row, one["down_s"], left=one["at_s"], height=0.5, color=SERIES[1])
    if one["answered_after_s"] is None:
        axes.plot(one["at_s"] + one["down_s"], row, marker="x", color=FAILED, markersize=5)
    else:
        answered_s = one["at_s"] + one["down_s"] + one["answered_after_s"]
        axes.plot([answered_s] * 2, [row - 0.36, row + 0.36], color=SERIES[2], linewidth=1.2)


def _window(axes: Axes, row: int, one: dict[str, Any], width_s: float, end_s: float) -> None:
    colour = FAILED if one["kept"] is False else SERIES[0]
    from_s = one["most_from_s"]
    to_s = min(from_s + width_s, end_s)
    side = "right" if from_s > end_s / 2 else "left"  # where there is room
    axes.plot([from_s, to_s], [row] * 2, color=colour, linewidth=3, marker="|", markersize=6)
    said = f"{number(one['most'])}, limit {number(one['limit'])}"
    at_s, shift = (from_s, -6) if side == "right" else (to_s, 6)
    axes.annotate(said, (at_s, row), (shift, 0), textcoords="offset points", va="center",
                  ha=side, fontsize=6.5, color=INK)  # fmt: skip


def _bar(figures: Figures, name: str, scale: float) -> float | None:
    limits = [one["limit"] for one in figures["bars"] if one["bar"].startswith(name)]
    return limits[0] * scale if limits else None


def _told(row: Row) -> str:
    _, _, value, p99 = row
    text = number(value.median)
    if value.low is not None:
        text += f"{SPACE}[{number(value.low)}, {number(value.high)}]"
    return text if p99 is None else f"{text}, p99 {number(p99)}"
