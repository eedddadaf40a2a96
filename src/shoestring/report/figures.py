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
sentence that a reader who does not see it is told. A case is a name at a concurrency. Only
measured, successful requests are in the distributions, but the shares of TTFT are of all measured
requests: where some failed, the curve ends below 100 %. The timeline shows failures in red.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import LogLocator

from shoestring.report import timelines
from shoestring.report.drawing import (
    Drawing,
    FigureSpec,
    by_case,
    labelled,
    measured,
    requests_by_case,
)
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
from shoestring.report.tabular import one_line
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
    floor_s = _clock_error_s(run, "ttft_error_s")
    return _distribution(run, frame, "ttft_s", "time to first token", "requests", floor_s)


def itl_distribution(run: Run) -> Drawing:
    """Draw the cumulative distribution of the gaps between chunks, one line a case."""
    from shoestring.analysis.frames import gap_frame

    floor_s = _clock_error_s(run, "gap_error_p99_s")
    return _distribution(run, gap_frame(run), "gap_s", "gap between chunks", "gaps", floor_s)


def decode_by_context(run: Run) -> Drawing:
    """Draw decode tokens/s of each request against its prompt's tokens; medians with intervals."""
    from shoestring.analysis.frames import request_frame
    from shoestring.analysis.summary import summarise

    wanted = ["decode_tokens_per_s", "prompt_tokens"]
    frame = measured(request_frame(run)).dropna(subset=wanted)
    frame = frame[frame["prompt_tokens"] > 0]
    if frame.empty:
        return Drawing.missing("no request has both a decode rate and a prompt length")
    cases = labelled(run, summarise(run)["cases"])
    groups = by_case(run, frame)
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
            axes.xaxis.set_minor_formatter(lambda *_: "")
        axes.margins(x=0.1)
        axes.set_ylim(0, frame["decode_tokens_per_s"].max() * 1.12)
        axes.set_xlabel("prompt length (tokens)")
        axes.set_ylabel("decode, a request (tokens/s)")
        label_series(axes, styles, texts)
    return Drawing(figure, "Decode tokens/s against prompt length. " + _joined(texts))


def latency_by_concurrency(run: Run) -> Drawing:
    """Draw median TTFT and e2e against the aggregate output rate, a point a concurrency.

    Points are joined only where prompt, its length and the answer's are alike: else it is other
    work.
    """
    from shoestring.analysis.summary import summarise

    curves = _concurrency_curves(run, summarise(run)["cases"])
    if not curves:
        return Drawing.missing("no kind of request was measured at two concurrencies or more")
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


def _concurrency_curves(run: Run, cases: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    kinds = {
        case["name"]: f"{one_line(str(case.get('prompt')))}, {case.get('prompt_tokens')} prompt "
        f"and {case.get('output_tokens')} output tokens"
        for case in run.config["suite"]["cases"]
    }
    curves: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        point = {
            "concurrency": case["concurrency"],
            "rate": case["metrics"]["output_tokens_per_s_aggregate"]["median"],
            "ttft_s": case["metrics"]["ttft_s"]["median"],
            "e2e_s": case["metrics"]["e2e_s"]["median"],
        }
        if case["case"] in kinds and None not in point.values():
            curves.setdefault(kinds[case["case"]], []).append(point)
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


def _clock_error_s(run: Run, key: str) -> float | None:
    """Return the size of the clock's worst error, or None where it was not calibrated."""
    from shoestring.analysis.calibration import worst_calibration

    error_s = worst_calibration(run)[key]
    return None if error_s is None else abs(float(error_s))


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
