"""Curves against the requests at once: TTFT through each gateway, and runs of the load client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.ticker import LogLocator

from shoestring.report.drawing import Drawing, joined
from shoestring.report.service_tables import (
    OVERHEAD,
    Figures,
    estimate,
    not_measured,
    source_of,
)
from shoestring.report.style import PAGE_IN, label_series, new_figure, series_styles, styled
from shoestring.report.units import number, plain, seconds
from shoestring.report.words import public_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from shoestring.measure.records import Run


def ttft_by_concurrency(figures: Figures | None) -> Drawing:
    """Draw TTFT through each gateway against the requests at once; medians and p99."""
    levels = sorted((figures or {}).get("ttft", []), key=lambda level: int(level["concurrency"]))
    if figures is None or not levels:
        return Drawing.missing(not_measured(OVERHEAD).rstrip("."))
    if len({level["concurrency"] for level in levels}) == 1:
        return Drawing.missing("TTFT was measured at one concurrency only")
    arms = list(dict.fromkeys(arm for level in levels for arm in level["arms"]))
    styles, texts = series_styles(arms), {}
    with styled():
        figure = new_figure(PAGE_IN, 2.6)
        parts = [part for part in ("median", "p99") if any(_points(levels, a, part) for a in arms)]
        panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
        for axes, part in zip(panels, parts, strict=True):
            for arm in arms:
                points = _points(levels, arm, part)
                axes.plot(
                    *zip(*points, strict=True), markersize=4, **styles[arm]
                ) if points else None
                told = ", ".join(f"c = {at} {seconds(value / 1e3)}" for at, value in points)
                texts[f"{arm} {part}"] = f"{arm}, {part}: {told or 'no figure'}"
            _log_axes(axes, [level["concurrency"] for level in levels])
            axes.set_xlabel("requests at once")
            axes.set_ylabel(f"TTFT, {part} (ms)")
        label_series(panels[0], styles, {arm: arm for arm in arms})
    return Drawing(figure, joined(texts), f"No p99 below 662 requests. {source_of(figures)}.")


def load_curves(runs: Sequence[Run]) -> Drawing:
    """Draw output rate and TTFT of finished runs against the requests at once."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        label, points = _load_points(run)
        curves.setdefault(label, []).extend(points)
    if not any(curves.values()):
        return Drawing.missing("no run of the load client was given")
    styles = series_styles(list(curves))
    with styled():
        figure = new_figure(PAGE_IN, 2.5 + 0.13 * len(curves))
        panels = figure.subplots(1, 2)
        for axes, key, heading, scale in (
            (panels[0], "rate", "output of all (tokens/s)", 1.0),
            (panels[1], "ttft_s", "TTFT, median (ms)", 1e3),
        ):
            for label, points in curves.items():
                _load_line(axes, sorted(points, key=lambda p: p["at"]), key, scale, styles[label])
            axes.set_ylim(bottom=0)
            axes.set_xticks(sorted({point["at"] for told in curves.values() for point in told}))
            axes.set_xlabel("requests at once")
            axes.set_ylabel(heading)
        label_series(panels[0], styles, {label: label for label in curves})
    texts = {
        f"{label} {point['at']}": f"{label}, c = {point['at']}: {number(point['rate'].median)} "
        f"tokens/s, TTFT {seconds(point['ttft_s'].median)}"
        for label, points in curves.items()
        for point in points
    }
    names = ", ".join(run.run_id for run in runs)
    return Drawing(figure, joined(texts), f"Medians with 95 % intervals. Runs: {names}.")


def _points(levels: list[Figures], arm: str, part: str) -> list[tuple[int, float]]:
    """Return concurrency and TTFT (ms) of an arm, where it has the figure."""
    return [
        (level["concurrency"], level["arms"][arm]["ttft_s"][part] * 1e3)
        for level in levels
        if arm in level["arms"] and level["arms"][arm]["ttft_s"][part] is not None
    ]


def _log_axes(axes: Axes, ticks: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: plain(value, 3))
    axes.yaxis.set_minor_formatter(lambda *_: "")


def _load_points(run: Run) -> tuple[str, list[dict[str, Any]]]:
    """Return what a run is called, and a point for each of its cases."""
    from shoestring.analysis.summary import summarise

    where = run.config["engine"].get("base_url") or run.config["engine"]["name"]
    points = []
    for case in summarise(run)["cases"]:
        rate = case["metrics"]["output_tokens_per_s_aggregate"]
        ttft = case["metrics"]["ttft_s"]
        if rate["median"] is not None and ttft["median"] is not None:
            points.append(
                {"at": case["concurrency"], "rate": estimate(rate["median"], rate["ci95"]),
                 "ttft_s": estimate(ttft["median"], ttft["ci95"])}
            )  # fmt: skip
    return f"{public_name(run.config['model']['name'])} at {where}", points


def _load_line(
    axes: Axes, points: list[dict[str, Any]], key: str, scale: float, style: dict[str, Any]
) -> None:
    for point in points:
        value = point[key]
        if value.low is not None:
            ends = [value.low * scale, value.high * scale]
            axes.plot([point["at"]] * 2, ends, color=style["color"], linewidth=1)
    values = [point[key].median * scale for point in points]
    axes.plot([point["at"] for point in points], values, markersize=4, **style)
