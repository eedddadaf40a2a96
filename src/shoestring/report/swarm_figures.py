"""Figures of the swarm: round trips, who works for a token, losses in time, bytes of a hop."""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from matplotlib.lines import Line2D

from shoestring.report.clocks import case_axis
from shoestring.report.drawing import Drawing, joined
from shoestring.report.service_tables import Figures, not_measured, source_of
from shoestring.report.style import (
    FAILED,
    MUTED,
    PAGE_IN,
    PAPER,
    SERIES,
    new_figure,
    series_styles,
    styled,
)
from shoestring.report.swarm_examples import NOTE_BYTES, hop_points
from shoestring.report.swarm_law import fit_lines
from shoestring.report.swarm_tables import (
    ARMS,
    FAULT_WORDS,
    KIBIBYTE,
    PARTS,
    SCALING,
    TIMELINE,
    longest_gap_s,
)
from shoestring.report.units import number, plain, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from shoestring.report.swarm_law import Line

LAW: Final = (0, (1.5, 1.2))
UNDISTURBED: Final = "undisturbed"
PROCESSES: Final = ("worker", "agent", "proxy", "llama-server")


def round_trip_figure(figures: Figures | None) -> Drawing:
    """Draw a token's time against the round trip, a panel for each number of peers."""
    lines = fit_lines(figures["rows"]) if figures else []
    if figures is None or not lines:
        return Drawing.missing(not_measured(SCALING).rstrip("."))
    counts = list(dict.fromkeys(line.peers for line in lines))
    styles, texts = series_styles(list(ARMS)), {}
    with styled():
        figure = new_figure(PAGE_IN, 2.9)
        panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
        for axes, peers in zip(panels, counts, strict=True):
            for line in (one for one in lines if one.peers == peers):
                _draw_line(axes, line, styles[line.arm])
                texts[f"{peers} {line.arm}"] = _said(line)
            _draw_predicted(axes, figures, peers)
            axes.set_title(f"{peers} peer{'s' if peers > 1 else ''}")
            axes.set_xlabel("round trip (ms)")
            axes.set_xlim(left=-1)
        panels[0].set_ylabel("a token (ms)")
        panels[0].set_ylim(bottom=0)  # they share it; earlier it would bound what comes later
        handles = [Line2D([], [], **styles[arm] | {"linestyle": "none"}, label=word)
                   for arm, word in ARMS.items()]  # fmt: skip
        handles += [Line2D([], [], color=MUTED, linestyle=LAW, label="by the law"),
                    Line2D([], [], color=MUTED, marker="_", linestyle="none",
                           label="planned")]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return Drawing(
        figure, joined(texts),
        "Marks are medians over the blocks; a dotted line is the law, begun at the first mark of "
        f"its own; dashes are what the planner said of the star. {source_of(figures)}.",
    )  # fmt: skip


def processor_figure(figures: Figures | None) -> Drawing:
    """Draw the processor time of a token, by process, over raw RPC and over ours."""
    if figures is None:
        return Drawing.missing(not_measured(PARTS).rstrip("."))
    arms = {"raw": "raw RPC", "ours": "ours"}
    styles = series_styles(PROCESSES)
    texts = {}
    with styled():
        figure = new_figure(PAGE_IN, 1.5)
        axes = figure.add_subplot()
        for place, arm in enumerate(arms):
            left = 0.0
            for name in (one for one in PROCESSES if one in figures["processor"][arm]):
                width = 1e3 * median(figures["processor"][arm][name])
                axes.barh(place, width, left=left, height=0.55, color=styles[name]["color"],
                          edgecolor=PAPER, linewidth=0.5)  # fmt: skip
                texts[f"{arm} {name}"] = f"{arms[arm]}, {name}: {number(width)} ms"
                left += width
        case_axis([axes], list(arms.values()))
        axes.set_xlabel("processor time of a token (ms)")
        handles = [Line2D([], [], color=styles[name]["color"], linewidth=5, label=name)
                   for name in PROCESSES]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return Drawing(
        figure, joined(texts),
        "One host without delay, all layers on it; the proxy is the user's side, "
        f"the agent the node's. {source_of(figures)}.",
    )  # fmt: skip


def timeline_figure(figures: Figures | None) -> Drawing:
    """Draw when each token came: undisturbed, and with each fault; the longest wait is marked."""
    if figures is None:
        return Drawing.missing(not_measured(TIMELINE).rstrip("."))
    rounds = figures["rounds"]
    modes = list(dict.fromkeys(one["mode"] for one in rounds))
    faults = list(dict.fromkeys(one["fault"] for one in rounds))
    styles = series_styles(faults)
    texts = {}
    with styled():
        figure = new_figure(PAGE_IN, 3.0)
        panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
        for axes, mode in zip(panels, modes, strict=True):
            mine = [one for one in rounds if one["mode"] == mode]
            calm_s = mine[0]["calm_s"]
            axes.plot(calm_s, _numbers(calm_s), color=MUTED, linewidth=0.8)
            for one in mine:
                _draw_round(axes, one, styles[one["fault"]]["color"])
                texts[f"{mode} {one['fault']}"] = (
                    f"{mode}, {FAULT_WORDS[one['fault']]}: longest wait "
                    f"{seconds(longest_gap_s(one['hit_s']))}, undisturbed "
                    f"{seconds(longest_gap_s(one['calm_s']))}"
                )
            axes.set_title(f"{mode}: at most {seconds(figures['bars'][mode])}")
            axes.set_xlabel("time since the first token (s)")
        panels[0].set_ylabel("token")
        handles = [Line2D([], [], color=MUTED, linewidth=0.8, label=UNDISTURBED)]
        handles += [
            Line2D([], [], color=styles[fault]["color"], marker="o", markersize=3, linewidth=0.8,
                   label=FAULT_WORDS[fault])
            for fault in faults
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return Drawing(
        figure, joined(texts),
        "Each mark is a token at its user; a cross is the fault, the bar the longest wait after "
        f"it. {source_of(figures)}.",
    )  # fmt: skip


def hops_figure(figures: Figures | None) -> Drawing:
    """Draw the bytes of a token and hop of each model, on the note's band."""
    points = sorted(hop_points(figures), key=lambda point: point[1])
    texts = {}
    with styled():
        figure = new_figure(PAGE_IN, 0.7 + 0.19 * len(points))
        axes = figure.add_subplot()
        low, high = (at / KIBIBYTE for at in NOTE_BYTES)
        axes.axvspan(low, high, color=SERIES[1], alpha=0.12, linewidth=0)
        for place, (name, hop_bytes, is_counted) in enumerate(points):
            kib = hop_bytes / KIBIBYTE
            axes.plot(kib, place, marker="o", markersize=5, color=SERIES[0],
                      fillstyle="full" if is_counted else "none")  # fmt: skip
            axes.annotate(number(kib), (kib, place), (7, 0), textcoords="offset points",
                          va="center", fontsize=6.5)  # fmt: skip
            how = "counted" if is_counted else "computed"
            texts[f"{name} {place}"] = f"{name}: {number(kib)} KiB, {how}"
        case_axis([axes], [name for name, *_ in points])
        axes.set_xscale("log")
        axes.set_xlim(1, 100)
        axes.xaxis.set_major_formatter(lambda value, _: plain(value, 3))
        axes.xaxis.set_minor_formatter(lambda *_: "")
        axes.set_xlabel("a token and hop (KiB)")
    note = "Filled: counted on the wire; open: width times 4, of the published shape. The band is "
    note += "the note's 10 to 50 KB, which it says of each layer."
    return Drawing(figure, joined(texts), note if figures is None else
                   f"{note} {source_of(figures)}.")  # fmt: skip


def _draw_line(axes: Axes, line: Line, style: dict[str, Any]) -> None:
    delays_s, tokens_s = zip(*line.points, strict=True)
    ways = {**style, "linestyle": "none"}
    axes.plot([1e3 * at for at in delays_s], [1e3 * at for at in tokens_s], markersize=4, **ways)
    base_s = tokens_s[0] - line.ought * delays_s[0]
    ends_s = (min(delays_s), max(delays_s))
    axes.plot([1e3 * at for at in ends_s], [1e3 * (base_s + line.ought * at) for at in ends_s],
              color=style["color"], linestyle=LAW, linewidth=1)  # fmt: skip


def _draw_predicted(axes: Axes, figures: Figures, peers: int) -> None:
    said = [
        (row["rtt_s"] * 1e3, row["predicted"]["token_s"] * 1e3)
        for row in figures["rows"]
        if row["peers"] == peers and row["predicted"]["token_s"] is not None
    ]
    if said:
        axes.plot(*zip(*said, strict=True), color=MUTED, marker="_", linestyle="none", zorder=1)


def _said(line: Line) -> str:
    points = ", ".join(f"{seconds(rtt)} {seconds(token)}" for rtt, token in line.points)
    return (
        f"{line.peers} peers, {ARMS[line.arm]}: {points}; {number(line.round_trips.median)} round "
        f"trips a token, {number(line.ought)} by the law"
    )


def _draw_round(axes: Axes, one: Figures, colour: str) -> None:
    hit_s = one["hit_s"]
    axes.plot(hit_s, _numbers(hit_s), color=colour, marker="o", markersize=2, linewidth=0.6)
    if one["struck_s"] is None:
        return
    before = sum(at <= one["struck_s"] for at in hit_s)
    axes.plot(one["struck_s"], before, marker="x", color=FAILED, markersize=5, zorder=5)
    gaps = [(after - at, place) for place, (at, after) in enumerate(pairwise(hit_s), start=1)
            if after >= one["struck_s"]]  # fmt: skip
    if gaps:
        _, place = max(gaps)
        axes.plot(hit_s[place - 1 : place + 1], [place, place], color=colour, linewidth=3,
                  solid_capstyle="butt", alpha=0.7)  # fmt: skip


def _numbers(stamps_s: Sequence[float]) -> list[int]:
    return list(range(1, len(stamps_s) + 1))
