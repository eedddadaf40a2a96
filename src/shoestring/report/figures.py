"""The figures of a run, each a function of the run alone.

=======================  =========================================================================
``ttft_distribution``    how long until the first token: the share of requests at or below a time
``itl_distribution``     how even the stream is: the share of gaps between chunks at or below a time
``decode_by_context``    how fast each request was decoded against the length of its prompt
``latency_by_concurrency``  what waiting buys: median latency against aggregate throughput
``memory_timeline``      what the engine held and burned while the requests ran
``cold_start``           where the time from nothing to the first token goes
=======================  =========================================================================

A figure without data is None with the reason, never an empty frame. Each drawing carries the
sentence that a reader who does not see it is told. Only measured, successful requests are in the
distributions; the timeline shows everything, failures in red.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import LogLocator

from shoestring.report import timelines
from shoestring.report.drawing import Drawing, FigureSpec, measured
from shoestring.report.style import (
    COLUMN_IN,
    INK,
    MUTED,
    PAGE_IN,
    PAPER,
    label_series,
    new_figure,
    series_styles,
    styled,
)
from shoestring.report.units import number, seconds

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
    floor_s = _calibration(run, "ttft_error_s")
    return _distribution(run, frame, "ttft_s", "time to first token", "requests", floor_s)


def itl_distribution(run: Run) -> Drawing:
    """Draw the cumulative distribution of the gaps between chunks, one line a case."""
    from shoestring.analysis.frames import gap_frame

    floor_s = _calibration(run, "gap_error_p99_s")
    return _distribution(run, gap_frame(run), "gap_s", "gap between chunks", "gaps", floor_s)


def decode_by_context(run: Run) -> Drawing:
    """Draw decode tokens/s of each request against its prompt's tokens; medians with intervals."""
    from shoestring.analysis.frames import request_frame
    from shoestring.analysis.summary import summarise

    wanted = ["decode_tokens_per_s", "prompt_tokens"]
    frame = measured(request_frame(run)).dropna(subset=wanted)
    if frame.empty:
        return Drawing.missing("no request has both a decode rate and a prompt length")
    cases = {case["case"]: case for case in summarise(run)["cases"]}
    groups = _by_case(run, frame)
    styles = {
        case: {**style, "linestyle": "none"} for case, style in series_styles(list(groups)).items()
    }
    texts = {}
    with styled():
        figure = new_figure(COLUMN_IN, 2.5 + 0.13 * len(groups))
        axes = figure.add_subplot()
        is_log = frame["prompt_tokens"].max() > _LOG_RATIO / 2 * frame["prompt_tokens"].min()
        places = _dodged(groups, is_log=is_log)
        for case, group in groups.items():
            metric = cases[case]["metrics"]["decode_tokens_per_s"]
            texts[case] = f"{case}: median {number(metric['median'])} tokens/s, n = {len(group)}"
            _scatter_with_median(axes, places[case], group, metric, styles[case])
        if is_log:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        axes.margins(x=0.1)
        axes.set_ylim(0, frame["decode_tokens_per_s"].max() * 1.12)
        axes.set_xlabel("prompt length (tokens)")
        axes.set_ylabel("decode, a request (tokens/s)")
        label_series(axes, styles, texts)
    return Drawing(figure, "Decode tokens/s against prompt length. " + _joined(texts))


def latency_by_concurrency(run: Run) -> Drawing:
    """Draw median TTFT and e2e against the aggregate output rate, a point a concurrency.

    Points are joined only where the prompts have the same length: other prompts are other work.
    """
    from shoestring.analysis.frames import request_frame
    from shoestring.analysis.summary import summarise

    frame = measured(request_frame(run))
    cases = {case["case"]: case for case in summarise(run)["cases"]}
    curves = _concurrency_curves(_by_case(run, frame), cases)
    if not curves:
        return Drawing.missing("no prompt length was measured at two concurrencies or more")
    styles = series_styles(list(curves))
    with styled():
        figure = new_figure(PAGE_IN, 2.5)
        panels = figure.subplots(1, 2)
        for axes, key, name in (
            (panels[0], "ttft_s", "time to first token"),
            (panels[1], "e2e_s", "whole answer (e2e)"),
        ):
            for label, points in curves.items():
                _concurrency_line(axes, points, key, styles[label])
            every = [point for points in curves.values() for point in points]
            axes.set_xlim(0, max(p["rate"] for p in every) * 1.2)
            axes.set_ylim(0, max(p[key] for p in every) * 1.22)
            axes.set_xlabel("output, all requests together (tokens/s)")
            axes.set_ylabel(f"{name}, median (s)")
        label_series(panels[0], styles, {label: label for label in curves})
    text = "; ".join(
        f"{label}, c = {p['concurrency']}: TTFT {seconds(p['ttft_s'])}, e2e {seconds(p['e2e_s'])} "
        f"at {number(p['rate'])} tokens/s"
        for label, points in curves.items()
        for p in points
    )
    return Drawing(figure, f"Median latency against aggregate output rate. {text}.")


def _distribution(
    run: Run, frame: pd.DataFrame, column: str, what: str, of: str, floor_s: float | None
) -> Drawing:
    if frame.empty:
        return Drawing.missing(f"no {what} was measured")
    groups = _by_case(run, frame)
    styles = {
        case: {"color": style["color"], "linestyle": style["linestyle"]}
        for case, style in series_styles(list(groups)).items()
    }
    texts = {
        case: f"{case}: median {seconds(group[column].median())}, n = {len(group)}"
        for case, group in groups.items()
    }
    with styled():
        figure = new_figure(COLUMN_IN, 2.3 + 0.13 * len(groups))
        axes = figure.add_subplot()
        for case, group in groups.items():
            ordered = sorted(group[column])
            shares = [i / len(ordered) for i in range(len(ordered) + 1)]
            axes.step([ordered[0], *ordered], shares, where="post", **styles[case])
        _time_axis(axes, frame[column], floor_s)
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
        axes.set_xlabel(f"{what} (ms)")
        axes.set_ylabel(f"share of {of} at or below (%)")
        label_series(axes, styles, texts)
    return Drawing(figure, f"Distribution of {what} by case. " + _joined(texts))


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
        axes.set_xlim(max(0.0, low - 0.15 * (high - low)), high + 0.08 * (high - low))
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


def _dodged(groups: dict[str, pd.DataFrame], *, is_log: bool) -> dict[str, tuple[float, float]]:
    """Place the cases of one prompt length side by side: where the requests go, where the median.

    The axis is as long as its extremes are apart; each case gets a twentieth of it.
    """
    centres = {case: float(group["prompt_tokens"].median()) for case, group in groups.items()}
    if is_log:
        centres = {case: math.log(centre) for case, centre in centres.items()}
    spread = max(centres.values()) - min(centres.values())
    step = 0.05 * spread if spread > 0 else 1.0
    places = {}
    for case, centre in centres.items():
        near = [other for other in centres if abs(centres[other] - centre) < step]
        slot = centre + step * (near.index(case) - (len(near) - 1) / 2)
        pair = (slot - 0.2 * step, slot + 0.2 * step)
        places[case] = (math.exp(pair[0]), math.exp(pair[1])) if is_log else pair
    return places


def _scatter_with_median(
    axes: Axes,
    place: tuple[float, float],
    group: pd.DataFrame,
    metric: dict[str, Any],
    style: dict[str, Any],
) -> None:
    rates, median = group["decode_tokens_per_s"], metric["median"]
    axes.plot([place[0]] * len(rates), rates, **style, markersize=3, alpha=0.35, markeredgewidth=0)
    if metric["ci95"] is not None:
        low, high = metric["ci95"]
        axes.errorbar(
            place[1], median, yerr=[[max(0.0, median - low)], [max(0.0, high - median)]],
            color=style["color"], capsize=2.5, linewidth=1, zorder=4,
        )  # fmt: skip
    axes.plot(
        place[1], median, **style, markersize=5, markeredgecolor=INK, markeredgewidth=0.7, zorder=5
    )


def _concurrency_curves(
    groups: dict[str, pd.DataFrame], cases: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    curves: dict[str, list[dict[str, Any]]] = {}
    for case, group in groups.items():
        rate = cases[case]["metrics"]["output_tokens_per_s_aggregate"]["median"]
        target = group["prompt_tokens_target"].iloc[0]
        point = {
            "concurrency": int(group["concurrency"].iloc[0]),
            "rate": rate,
            "ttft_s": group["ttft_s"].median(),
            "e2e_s": group["e2e_s"].median(),
        }
        if rate is not None and group["e2e_s"].notna().any():
            curves.setdefault(f"{target:.0f} prompt tokens", []).append(point)
    return {
        label: sorted(points, key=lambda p: int(p["concurrency"]))
        for label, points in curves.items()
        if len({p["concurrency"] for p in points}) > 1
    }


def _concurrency_line(
    axes: Axes, points: list[dict[str, Any]], key: str, style: dict[str, Any]
) -> None:
    axes.plot([p["rate"] for p in points], [p[key] for p in points], markersize=4, **style)
    for p in points:
        axes.annotate(
            f"c = {p['concurrency']}", (p["rate"], p[key]), (4, -3), textcoords="offset points",
            ha="left", va="top", fontsize=7, color=style["color"],
        )  # fmt: skip


def _by_case(run: Run, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split by case, in the order of the suite; a case without rows is left out."""
    groups = {str(case): group for case, group in frame.groupby("case")}
    names = [case["name"] for case in run.config["suite"]["cases"]]
    return {name: groups[name] for name in names if name in groups}


def _calibration(run: Run, key: str) -> float | None:
    """Return the worst error of the clock among the sessions, or None where none was taken."""
    errors = [(session.get("calibration") or {}).get(key) for session in run.sessions]
    return max((float(error) for error in errors if error is not None), default=None)


def _joined(texts: dict[str, str]) -> str:
    return "; ".join(texts.values()) + "."


FIGURES: dict[str, FigureSpec] = {
    "ttft_distribution": FigureSpec(
        ttft_distribution,
        "Time to first token",
        "requests.jsonl",
    ),
    "itl_distribution": FigureSpec(
        itl_distribution,
        "Gaps between chunks",
        "requests.jsonl",
    ),
    "decode_by_context": FigureSpec(
        decode_by_context,
        "Decode rate against prompt length",
        "requests.jsonl",
    ),
    "latency_by_concurrency": FigureSpec(
        latency_by_concurrency,
        "Latency against throughput",
        "requests.jsonl",
    ),
    "memory_timeline": FigureSpec(
        timelines.memory_timeline,
        "Memory and processor along the run",
        "telemetry.jsonl",
    ),
    "cold_start": FigureSpec(
        timelines.cold_start,
        "Cold start",
        "environment.json",
    ),
}
