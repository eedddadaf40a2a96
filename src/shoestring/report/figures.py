"""The figures of a run, each a function of the run alone.

=======================  =========================================================================
``ttft_distribution``    how long until the first token: the share of requests at or below a time
``itl_distribution``     how even the stream is: the share of gaps between chunks at or below a time
``decode_by_context``    how fast each request was decoded against the length of its prompt
``latency_by_concurrency``  what waiting buys: median latency against aggregate throughput
``three_clocks``         what client, engine and hardware say of the same requests, and the residual
``reasoning``            how long until the first reasoning, and until the first answer token
``cached_share``         what was not prefilled, since the engine had it in its prefix cache
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

from shoestring.report import clocks, distributions, timelines
from shoestring.report.drawing import (
    Drawing,
    FigureSpec,
    by_case,
    joined,
    labelled,
    measured,
)
from shoestring.report.style import (
    COLUMN_IN,
    INK,
    PAGE_IN,
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

_LOG_RATIO = 4  # wider spans of prompt length are read better on a logarithmic axis


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
        is_log = frame["prompt_tokens"].max() > _LOG_RATIO * frame["prompt_tokens"].min()
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
    return Drawing(figure, "Decode tokens/s against prompt length. " + joined(texts))


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


FIGURES: dict[str, FigureSpec] = {
    "ttft_distribution": FigureSpec(
        distributions.ttft_distribution,
        "Time to first token",
        "requests.jsonl",
    ),
    "itl_distribution": FigureSpec(
        distributions.itl_distribution,
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
    "three_clocks": FigureSpec(
        clocks.three_clocks,
        "Three clocks: client, engine, hardware",
        "requests.jsonl",
    ),
    "reasoning": FigureSpec(
        clocks.reasoning,
        "First reasoning and first answer",
        "requests.jsonl",
    ),
    "cached_share": FigureSpec(
        clocks.cached_share,
        "Prompt tokens from the prefix cache",
        "requests.jsonl",
    ),
    "memory_timeline": FigureSpec(
        timelines.memory_timeline,
        "Memory, processor, VRAM and power along the run",
        "telemetry.jsonl",
    ),
    "cold_start": FigureSpec(
        timelines.cold_start,
        "Cold start",
        "environment.json",
    ),
}
