"""Figures whose axis is time itself: the run as it went, and its cold start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from shoestring.report.drawing import Drawing
from shoestring.report.style import (
    COLUMN_IN,
    FAILED,
    INK,
    MUTED,
    PAGE_IN,
    PAPER,
    SERIES,
    new_figure,
    styled,
)
from shoestring.report.tabular import one_line
from shoestring.report.units import seconds, size

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from shoestring.measure.records import Run

_MOST_POINTS = 1500  # along the axis: more than a printed page can show
_SESSION_GAP_SHARE = 0.03


def memory_timeline(run: Run) -> Drawing:
    """Draw memory and processor of the engine along the run, with the requests below.

    Sessions stand side by side in their order, each with its own seconds since it began; what
    happened between them is not on the axis.
    """
    from shoestring.analysis.frames import request_frame, telemetry_frame

    samples, requests = telemetry_frame(run), request_frame(run)
    if samples.empty or samples["engine_rss_bytes"].isna().all():
        return Drawing.missing("the memory of the engine was not recorded")
    offsets = _session_offsets(samples, requests)
    lanes = _lanes(requests)
    height_in = 2.5 + 0.09 * min(lanes.max(initial=0) + 1, 12) if len(lanes) else 2.5
    with styled():
        figure = new_figure(PAGE_IN, float(height_in))
        memory, processor, bars = figure.subplots(
            3, 1, sharex=True, height_ratios=[1.5, 1.0, 0.35 + 0.1 * (max(lanes, default=0) + 1)]
        )
        for session, offset_s in offsets.items():
            part = samples[samples["session"] == session]
            _trace(memory, part, offset_s, "engine_rss_bytes", 1e-6)
            _trace(processor, part, offset_s, "engine_cpu_percent", 0.01)
        _request_bars(bars, requests, lanes, offsets)
        _finish_timeline(memory, processor, bars, samples, requests)
        _session_marks((memory, processor, bars), offsets)
    failed = int((requests["status"] == "failed").sum())
    peak = size(float(samples["engine_rss_bytes"].max()))
    text = (
        f"Resident memory of the engine (peak {peak}), its processor use, and {len(requests)} "
        f"requests along {len(offsets)} session(s); {failed} failed."
    )
    return Drawing(figure, text)


def cold_start(run: Run) -> Drawing:
    """Draw the spans from nothing to a warm engine, a bar each, for every session."""
    spans = [
        {"session": session["session"], **span}
        for session in run.sessions
        for span in sorted(session.get("cold_start") or [], key=lambda span: span["start_s"])
    ]
    if not spans:
        return Drawing.missing("no cold start was timed: the engine was not started by this run")
    several = len({span["session"] for span in spans}) > 1
    with styled():
        figure = new_figure(COLUMN_IN, 0.75 + 0.23 * len(spans))
        axes = figure.add_subplot()
        end_s = max(span["end_s"] for span in spans)
        for row, span in enumerate(spans):
            _span_bar(axes, row, span)
        names = [_span_name(span, several=several) for span in spans]
        axes.set_yticks(range(len(spans)), names)
        axes.set_ylim(len(spans) - 0.4, -0.6)
        axes.set_xlim(0, end_s * 1.3)  # room for the last duration
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("time since the start of the engine (s)")
    said = "; ".join(
        f"{name} {seconds(span['end_s'] - span['start_s'])}"
        for name, span in zip(names, spans, strict=True)
    )
    return Drawing(figure, f"Cold start: {said}.")


def _session_offsets(samples: pd.DataFrame, requests: pd.DataFrame) -> dict[int, float]:
    """Where each session's origin lies on the common axis, in seconds."""
    ends: dict[int, float] = {}
    for frame, column in ((samples, "t_s"), (requests, "end_s")):
        for session, end_s in frame.groupby("session")[column].max().items():
            ends[int(str(session))] = max(ends.get(int(str(session)), 0.0), float(end_s))
    gap_s = _SESSION_GAP_SHARE * sum(ends.values())
    offsets, offset_s = {}, 0.0
    for session in sorted(ends):
        offsets[session] = offset_s
        offset_s += ends[session] + gap_s
    return offsets


def _lanes(requests: pd.DataFrame) -> Any:
    """Give each request the lowest lane that is free when it starts; an array, one a request."""
    import numpy as np

    lanes = np.zeros(len(requests), dtype=int)
    busy: dict[int, list[float]] = {}
    order = requests.reset_index(drop=True).sort_values(["session", "start_s", "id"])
    for position, session, start_s, end_s in zip(
        order.index, order["session"], order["start_s"], order["end_s"], strict=True
    ):
        ends = busy.setdefault(int(session), [])
        lane = next((i for i, end in enumerate(ends) if end <= start_s), len(ends))
        if lane == len(ends):
            ends.append(0.0)
        ends[lane] = float(end_s)
        lanes[position] = lane
    return lanes


def _trace(axes: Axes, part: pd.DataFrame, offset_s: float, column: str, scale: float) -> None:
    known = part.dropna(subset=[column])
    step = max(1, -(-len(known) // _MOST_POINTS))
    # The highest of each step, so that thinning cannot hide a peak.
    bins = known.groupby([i // step for i in range(len(known))])
    t_s, values = bins["t_s"].first(), bins[column].max()
    axes.plot(t_s + offset_s, values * scale, color=SERIES[0], linewidth=0.9)


def _request_bars(
    axes: Axes, requests: pd.DataFrame, lanes: Any, offsets: dict[int, float]
) -> None:
    kinds = {
        "measured": ((requests["phase"] == "measure") & (requests["status"] == "ok"), INK, 0.75),
        "warm-up": ((requests["phase"] == "warmup") & (requests["status"] == "ok"), MUTED, 0.35),
        "failed": (requests["status"] == "failed", FAILED, 1.0),
    }
    shift = requests["session"].map(offsets)
    for mask, colour, alpha in kinds.values():
        chosen = mask.to_numpy()
        if not chosen.any():
            continue
        starts = (requests["start_s"] + shift)[chosen]
        axes.barh(
            lanes[chosen], (requests["end_s"] - requests["start_s"])[chosen], left=starts,
            height=0.72, color=colour, alpha=alpha, edgecolor=PAPER, linewidth=0.3,
        )  # fmt: skip


def _finish_timeline(
    memory: Axes, processor: Axes, bars: Axes, samples: pd.DataFrame, requests: pd.DataFrame
) -> None:
    peak = float(samples["engine_rss_bytes"].max()) * 1e-6
    memory.set_ylim(0, peak * 1.15)
    memory.set_ylabel("memory (MB)")
    memory.yaxis.set_major_locator(MaxNLocator(4))
    processor.yaxis.set_major_locator(MaxNLocator(3))
    memory.annotate(
        f"peak {size(peak * 1e6)}", (1, peak), (0, 2), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", fontsize=6.5, color=MUTED,
    )  # fmt: skip
    processor.set_ylim(0, None)
    processor.set_ylabel("busy cores")
    bars.set_yticks([])
    bars.set_ylabel("requests")
    bars.grid(visible=False, axis="y")
    bars.invert_yaxis()
    several = samples["session"].min() < samples["session"].max()
    bars.set_xlabel(f"time {'in sessions, end to end' if several else 'since the run began'} (s)")
    if requests.empty:
        bars.set_xlim(0, None)


def _session_marks(panels: tuple[Axes, ...], offsets: dict[int, float]) -> None:
    panels[0].set_xlim(0, None)
    if len(offsets) == 1:
        return
    for session, offset_s in offsets.items():
        for axes in panels:
            axes.axvline(offset_s, color=MUTED, linewidth=0.7, linestyle=(0, (2, 2)))
        panels[0].annotate(
            f"session {session}", (offset_s, 1), (3, 1), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=6.5, color=MUTED,
        )  # fmt: skip


def _span_bar(axes: Axes, row: int, span: dict[str, Any]) -> None:
    start_s, end_s = span["start_s"], span["end_s"]
    axes.barh(row, end_s - start_s, left=start_s, height=0.6, color=SERIES[0], alpha=0.85)
    axes.annotate(
        seconds(end_s - start_s), (end_s, row), (3, 0), textcoords="offset points", va="center",
        fontsize=7, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
    )  # fmt: skip


def _span_name(span: dict[str, Any], *, several: bool) -> str:
    name = one_line(str(span["name"]))
    return f"{span['session']}: {name}" if several else name
