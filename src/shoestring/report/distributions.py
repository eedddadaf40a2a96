"""Figures of how a time is distributed: the share of it at or below a value, a line a case.

Only measured requests that ended well have a time, but the shares of TTFT are of all measured
requests: where some failed, the curve ends below 100 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import LogLocator

from shoestring.report.drawing import Drawing, by_case, joined, measured, requests_by_case
from shoestring.report.style import (
    COLUMN_IN,
    MUTED,
    PAPER,
    label_series,
    new_figure,
    series_styles,
    styled,
)
from shoestring.report.units import seconds

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from shoestring.measure.records import Run

_LOG_RATIO = 8  # wider spans than this are read better on a logarithmic axis
_CROWDED_RATIO = 500  # beyond, only powers of ten are labelled
_FLOOR_REACH = 20  # a clock error this many times below the data is named, not drawn to scale


def ttft_distribution(run: Run) -> Drawing:
    """Draw the cumulative distribution of TTFT, one line a case, with the clock's own error."""
    from shoestring.analysis.frames import request_frame

    frame = measured(request_frame(run)).dropna(subset=["ttft_s"])
    floor_s = _clock_error_s(run, "ttft_error_s")
    return _distribution(run, frame, "ttft_s", "time to first token", "requests", floor_s)


def itl_distribution(run: Run) -> Drawing:
    """Draw the cumulative distribution of the gaps between chunks, one line a case."""
    from shoestring.analysis.frames import gap_frame

    floor_s = _clock_error_s(run, "gap_error_p99_s")
    return _distribution(run, gap_frame(run), "gap_s", "gap between chunks", "gaps", floor_s)


def _distribution(
    run: Run, frame: pd.DataFrame, column: str, what: str, of: str, floor_s: float | None
) -> Drawing:
    if frame.empty:
        return Drawing.missing(f"no {what} was measured")
    if not (frame[column] > 0).any():
        return Drawing.missing(f"every {what} is 0: the answers came in one piece")
    groups = by_case(run, frame)
    asked, failed = requests_by_case(run)
    styles = {
        case: {"color": style["color"], "linestyle": style["linestyle"]}
        for case, style in series_styles(list(groups)).items()
    }
    texts = {
        case: f"{case}: median {seconds(group[column].median())}, n = {len(group)}"
        + (f", {failed[case]} failed" if failed[case] else "")
        for case, group in groups.items()
    }
    with styled():
        figure = new_figure(COLUMN_IN, 2.3 + 0.13 * len(groups))
        axes = figure.add_subplot()
        for case, group in groups.items():
            ordered = sorted(group[column])
            whole = asked[case] if of == "requests" else len(ordered)
            shares = [i / whole for i in range(len(ordered) + 1)]
            axes.step([ordered[0], *ordered], shares, where="post", **styles[case])
        _time_axis(axes, frame[column], floor_s)
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
        axes.set_xlabel(f"{what} (ms)")
        axes.set_ylabel(f"share of {of} at or below (%)")
        label_series(axes, styles, texts)
    return Drawing(figure, f"Distribution of {what} by case. " + joined(texts))


def _time_axis(axes: Axes, values: pd.Series[float], floor_s: float | None) -> None:
    positive = values[values > 0]
    low, high = float(positive.min()), float(positive.max())
    near = floor_s is not None and low / _FLOOR_REACH < floor_s
    if near and floor_s:
        low = min(low, floor_s)
    if high > _LOG_RATIO * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.3, high * 1.3)
        crowded = high > _CROWDED_RATIO * low
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if crowded else (1.0, 2.0, 5.0)))
    else:
        spread = high - low or 0.1 * high
        axes.set_xlim(max(0.0, low - 0.15 * spread), high + 0.08 * spread)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value * 1e3:g}")
    axes.xaxis.set_minor_formatter(lambda *_: "")
    if floor_s is None:
        return
    if near:
        axes.axvline(floor_s, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.annotate(
            f"clock error\n{seconds(floor_s)}", (floor_s, 0.5), (3, 0),
            textcoords="offset points", color=MUTED, fontsize=6.5, va="center",
        )  # fmt: skip
        return
    axes.annotate(
        f"\N{LEFTWARDS ARROW} clock error {seconds(floor_s)}, off the axis", (0, 0.03), (3, 0),
        xycoords="axes fraction", textcoords="offset points", color=MUTED, fontsize=6.5,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
    )  # fmt: skip


def _clock_error_s(run: Run, key: str) -> float | None:
    """Return the size of the clock's worst error, or None where it was not calibrated."""
    from shoestring.analysis.calibration import worst_calibration

    error_s = worst_calibration(run)[key]
    return None if error_s is None else abs(float(error_s))
