"""Figures whose axis is time itself: the run as it went, and its cold start."""

from __future__ import annotations

import re
from dataclasses import dataclass
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
from shoestring.report.units import number, seconds, size

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from matplotlib.axes import Axes

    from shoestring.measure.records import Run

_MOST_POINTS = 1500  # along the axis: more than a printed page can show
_SESSION_GAP_SHARE = 0.03


@dataclass(frozen=True)
class _Panel:
    """One row of the time axis: a telemetry column, as it is shown."""

    column: str
    label: str
    scale: float
    height: float
    peak: Callable[[float], str] | None = None


_PANELS = (
    _Panel("engine_rss_bytes", "memory (MB)", 1e-6, 1.5, size),
    _Panel("engine_cpu_percent", "busy cores", 0.01, 1.0),
    _Panel("engine_vram_bytes", "VRAM (MB)", 1e-6, 1.2, size),
    _Panel("gpu_power_w", "power (W)", 1.0, 1.0, lambda watts: f"{number(watts)} W"),
)
# Where no process can be told apart, the device's own memory stands in, and says so.
_DEVICE_VRAM = _Panel("gpu_vram_used_bytes", "VRAM, device (MB)", 1e-6, 1.2, size)


def memory_timeline(run: Run) -> Drawing:
    """Draw memory, processor, VRAM and power along the run, with the requests below.

    Sessions stand side by side in their order, each with its own seconds since it began; what
    happened between them is not on the axis. A row without a reading is left out, and the note
    says why.
    """
    from shoestring.analysis.frames import request_frame, telemetry_frame

    samples, requests = telemetry_frame(run), request_frame(run)
    panels = _known_panels(samples)
    if not panels:
        return Drawing.missing("neither memory nor processor of the engine was recorded")
    offsets = _session_offsets(samples, requests)
    lanes = _lanes(requests)
    bars_height = 0.35 + 0.1 * min(max(lanes, default=0) + 1, 12)
    heights = [panel.height for panel in panels] + [bars_height]
    with styled():
        figure = new_figure(PAGE_IN, 0.45 + 0.66 * sum(heights))
        rows = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        for axes, panel in zip(rows, panels, strict=False):
            for session, offset_s in offsets.items():
                part = samples[samples["session"] == session]
                _trace(axes, part, offset_s, panel.column, panel.scale)
            _finish_panel(axes, panel, float(samples[panel.column].max()))
        _request_bars(rows[-1], requests, lanes, offsets)
        _finish_bars(rows[-1], samples, requests)
        _session_marks(tuple(rows), offsets)
        figure.align_ylabels(rows)
    failed = int((requests["status"] == "failed").sum())
    text = (
        f"{_peaks(panels, samples)}, and {len(requests)} requests along {len(offsets)} session(s); "
        f"{failed} failed."
    )
    return Drawing(figure, text, _lacking(run, panels))


def _known_panels(samples: pd.DataFrame) -> list[_Panel]:
    known = [panel for panel in _PANELS if samples[panel.column].notna().any()]
    vram = _PANELS[2]
    if known and vram not in known and samples[_DEVICE_VRAM.column].notna().any():
        known.insert(len(known) - (_PANELS[3] in known), _DEVICE_VRAM)
    return known


def _peaks(panels: list[_Panel], samples: pd.DataFrame) -> str:
    told = []
    for panel in panels:
        name = panel.label.partition(" (")[0]
        value = float(samples[panel.column].max())
        shown = panel.peak(value) if panel.peak else number(value * panel.scale)
        told.append(f"{name} (peak {shown})")
    return f"The engine along the run: {', '.join(told)}"


def _lacking(run: Run, panels: list[_Panel]) -> str:
    """Say in one line which rows there are not, and why."""
    shown = {panel.label.partition(",")[0].partition(" (")[0] for panel in panels}
    lacking = [p for p in _PANELS if p.label.partition(" (")[0] not in shown]
    if not lacking:
        return ""
    names = " and ".join(panel.label.partition(" (")[0] for panel in lacking)
    reasons = sorted({reason for panel in lacking if (reason := _why_missing(run, panel.column))})
    return one_line(
        f"Not recorded: {names}" + (f" ({'; '.join(reasons)})" if reasons else "") + "."
    )


def _why_missing(run: Run, column: str) -> str | None:
    of_gpu = column.startswith("gpu_") or "vram" in column
    for session in run.sessions:
        said = (session.get("telemetry") or {}).get("unavailable") or {}
        machine = session.get("machine") or {}
        field = column.removeprefix("gpu_")
        of_one = [why for name, why in said.items() if re.fullmatch(rf"gpus\.\d+\.{field}", name)]
        reasons = [
            said.get(column),
            *([*of_one, said.get("gpus"), machine.get("gpus_unavailable")] * of_gpu),
        ]
        reason = next((reason for reason in reasons if reason), None)
        if reason:
            return str(reason)
    return None


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


def _finish_panel(axes: Axes, panel: _Panel, highest: float) -> None:
    top = highest * panel.scale
    axes.set_ylim(0, top * 1.18 if top > 0 else 1)
    axes.set_ylabel(panel.label.replace(", ", ",\n"))
    axes.yaxis.set_major_locator(MaxNLocator(4 if panel.height > 1 else 3))
    if panel.peak:
        axes.annotate(
            f"peak {panel.peak(highest)}", (1, top), (0, 2), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", fontsize=6.5, color=MUTED,
        )  # fmt: skip


def _finish_bars(bars: Axes, samples: pd.DataFrame, requests: pd.DataFrame) -> None:
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
