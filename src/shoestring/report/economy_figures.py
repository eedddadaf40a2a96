"""Figures of the swarm's economy: what is owed, what there is to choose from, a cheat in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from shoestring.report.clocks import case_axis
from shoestring.report.drawing import Drawing, joined
from shoestring.report.economy_tables import AUDIT, ECONOMY
from shoestring.report.service_tables import not_measured, source_of
from shoestring.report.style import (
    FAILED,
    GRID,
    MUTED,
    PAGE_IN,
    SERIES,
    new_figure,
    series_styles,
    styled,
)
from shoestring.report.units import number, plain, seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoestring.report.service_tables import Figures

HELD: Final = (0, (1.5, 1.2))
SHOWN_AFTER_S: Final = 4.0
"""Of the time after a cheat was found."""


def owed_figure(figures: Figures | None) -> Drawing:
    """Draw what each node is owed after each receipt, below the most that was held for it."""
    if figures is None:
        return _missing(ECONOMY)
    sessions = figures["receipts"]["sessions"]
    most = {one["node"]: one["micro"] for one in figures["bills"]["before"]["lines"]}
    styles, texts = series_styles([one["node"] for one in sessions]), {}
    with styled():
        figure = new_figure(PAGE_IN, 2.4)
        axes = figure.add_subplot()
        for one in sessions:
            steps, owed = zip(*((0, 0), *((w["steps"], w["micro"]) for w in one["windows"])),
                              strict=True)  # fmt: skip
            style = styles[one["node"]]
            axes.step(steps, owed, where="post", color=style["color"], linewidth=1)
            axes.plot(steps[1:], owed[1:], **style | {"linestyle": "none"}, markersize=4)
            held = most[one["peer"]]
            axes.axhline(held, color=style["color"], linestyle=HELD, linewidth=1)
            texts[one["node"]] = (
                f"{one['node']}: {len(one['windows'])} receipts, {number(owed[-1])} micro-credits "
                f"owed of {number(held)} held"
            )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("steps that were computed")
        axes.set_ylabel("owed (micro-credits)")
        handles = [Line2D([], [], **styles[one["node"]] | {"linestyle": "none"}, markersize=4,
                          label=f"{one['node']}: a receipt of both")
                   for one in sessions]  # fmt: skip
        handles.append(Line2D([], [], color=MUTED, linestyle=HELD, label="held before the answer"))
        _legend(figure, handles)
    return Drawing(
        figure, joined(texts),
        "Between two receipts the node computes unpaid; each mark says all that the session owes "
        f"so far. {source_of(figures)}.",
    )  # fmt: skip


def front_figure(figures: Figures | None) -> Drawing:
    """Draw price against time per token: routes at random, the front, and what requests got."""
    if figures is None:
        return _missing(ECONOMY)
    market = figures["market"]
    front, texts = market["front"], {}
    got = [one for one in market["asked"] if one["route"] is not None]
    styles = series_styles([one["asked"] for one in got])
    with styled():
        figure = new_figure(PAGE_IN, 3.4)
        axes = figure.add_subplot()
        axes.plot(*_points(market["at_random"]), marker=".", markersize=3, color=MUTED, alpha=0.5,
                  linestyle="none")  # fmt: skip
        axes.plot(*_points(front), color=SERIES[0], marker="o", markersize=3, linewidth=1,
                  drawstyle="steps-post")  # fmt: skip
        texts["front"] = f"{len(front)} routes from {_said(front[0])} to {_said(front[-1])}"
        for number_, one in enumerate(got):
            style = styles[one["asked"]] | {"color": SERIES[1 + number_ % (len(SERIES) - 1)]}
            axes.plot(*_points([one["route"]]), **style | {"linestyle": "none"}, markersize=8,
                      fillstyle="none", markeredgewidth=1.4, zorder=5)  # fmt: skip
            texts[one["asked"]] = f"{one['asked']}: {_said(one['route'])}"
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(lambda value, _: plain(value, 3))
            axis.set_minor_formatter(lambda *_: "")
        axes.set_xlabel("a token (ms), predicted")
        axes.set_ylabel("price (micro-credits)")
        handles = [Line2D([], [], color=MUTED, marker=".", linestyle="none", label="at random"),
                   Line2D([], [], color=SERIES[0], marker="o", markersize=3,
                          label="the front")]  # fmt: skip
        handles += [
            Line2D([], [], **styles[one["asked"]] | {"color": SERIES[1 + at % (len(SERIES) - 1)],
                                                     "linestyle": "none"},
                   fillstyle="none", markersize=6, label=one["asked"])
            for at, one in enumerate(got)
        ]  # fmt: skip
        _legend(figure, handles, columns=3)
    return Drawing(
        figure, joined(texts),
        f"{market['layers']} layers, {market['prompt_tokens']} tokens in and "
        f"{market['output_tokens']} out; sellers and distances are drawn by seed "
        f"{market['seed']}, the search is the product's. Some routes of the front are shown. "
        f"{source_of(figures)}.",
    )  # fmt: skip


def cheat_figure(figures: Figures | None) -> Drawing:
    """Draw answers, windows and audits in time, until a cheat is found and after it."""
    if figures is None:
        return _missing(ECONOMY)
    found = figures["audit"]
    verdicts = [one for one in found["judged"] if one["what"] == "cheats"]
    end_s = verdicts[0]["at_s"] + SHOWN_AFTER_S if verdicts else found["windows"][-1]["at_s"]
    first, other = sorted(found["answered"])
    with styled():
        figure = new_figure(PAGE_IN, 2.3)
        axes = figure.add_subplot()
        for row, node in enumerate((first, other)):
            _draw_answers(axes, found["answered"][node], row, end_s)
            _draw_audits(axes, [one for one in found["judged"] if one["who"] == node], row + 3,
                         end_s)  # fmt: skip
        last_s = max(at_s for its in found["answered"].values() for at_s, _ in its)
        _draw_windows(axes, found["windows"], min(end_s, last_s))
        case_axis([axes], [f"{first} answers", f"{other} answers", "windows", f"{first} audited",
                           f"{other} audited"])  # fmt: skip
        if verdicts:
            axes.axvline(verdicts[0]["at_s"], color=FAILED, linewidth=0.8)
        axes.set_xlim(-0.02 * end_s, min(end_s, 1.02 * last_s))
        axes.set_xlabel("time since the first answer (s)")
        _legend(figure, [
            Line2D([], [], color=MUTED, marker="|", linestyle="none", label="answer"),
            Line2D([], [], color=FAILED, marker="|", markersize=9, linestyle="none",
                   label="changed by the cheat"),
            Line2D([], [], color=GRID, linewidth=6, label="window"),
            Line2D([], [], color=SERIES[0], linewidth=6, label="drawn for an audit"),
            Line2D([], [], color=SERIES[2], marker="o", linestyle="none", label="the same"),
            Line2D([], [], color=FAILED, marker="X", linestyle="none", label="a cheat"),
        ], columns=6)  # fmt: skip
    return Drawing(
        figure, _told_of_cheat(found),
        f"At the line {first} is excluded, and {other} takes its place in mid-answer. An audit "
        f"ends after its window. {source_of(figures)}.",
    )  # fmt: skip


def bound_figure(figures: Figures | None) -> Drawing:
    """Draw the bound on finding a cheat, and what campaigns of draws came to."""
    if figures is None:
        return _missing(AUDIT)
    if not figures["bound"]:
        return Drawing.missing(f"This part of {AUDIT} was left out")
    rows = figures["bound"]
    names = [f"audited {one['audited_share']:g}, wrong {one['wrong_share']:g}" for one in rows]
    styles, texts = series_styles(names), {}
    with styled():
        figure = new_figure(PAGE_IN, 2.4)
        axes = figure.add_subplot()
        for name, one in zip(names, rows, strict=True):
            share = 1 / one["mean_by_formula"]
            last = 2 * one["windows_99"]
            windows = sorted({max(1, round(last ** (at / 60))) for at in range(61)})
            axes.plot(windows, [100 * (1 - (1 - share) ** at) for at in windows],
                      color=styles[name]["color"], linestyle=styles[name]["linestyle"])  # fmt: skip
            for likely in ("95", "99"):
                at, left = one[f"windows_{likely}"], one[f"unseen_after_{likely}"]
                axes.plot(at, 100 * (1 - left), color=styles[name]["color"], linestyle="none",
                          marker=styles[name]["marker"], markersize=5)  # fmt: skip
            texts[name] = (
                f"{name}: after {number(one['windows_99'])} windows "
                f"{number(100 * (1 - one['unseen_after_99']))} % found, 99 % by the bound"
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: plain(value, 3))
        axes.set_xlim(left=1)
        axes.set_ylim(0, 103)
        axes.set_xlabel("windows that a cheat served")
        axes.set_ylabel("found (%)")
        _legend(figure, [Line2D([], [], **styles[name], markersize=4, label=name)
                         for name in names], columns=2)  # fmt: skip
    return Drawing(
        figure, joined(texts),
        "Lines are the bound, with the share of wrong windows that an audit finds; marks are "
        f"shares of {number(rows[0]['campaigns'])} campaigns each. {source_of(figures)}.",
    )  # fmt: skip


def _missing(benchmark: str) -> Drawing:
    return Drawing.missing(not_measured(benchmark).rstrip("."))


def _legend(figure: Figure, handles: list[Line2D], columns: int | None = None) -> None:
    figure.legend(handles=handles, loc="outside upper left", ncols=columns or len(handles))


def _points(routes: list[Any]) -> tuple[list[float], list[int]]:
    return [1e3 * one["tpot_s"] for one in routes], [one["micro"] for one in routes]


def _said(route: Figures) -> str:
    return f"{number(route['micro'])} micro-credits and {seconds(route['tpot_s'])} a token"


def _draw_answers(axes: Axes, answers: list[Any], row: int, end_s: float) -> None:
    for wrong, colour, size in ((False, MUTED, 6), (True, FAILED, 13)):
        at_s = [at for at, is_wrong in answers if is_wrong is wrong and at <= end_s]
        axes.plot(at_s, [row] * len(at_s), marker="|", markersize=size, color=colour,
                  linestyle="none", zorder=4 if wrong else 3)  # fmt: skip


def _draw_windows(axes: Axes, windows: list[Any], end_s: float) -> None:
    edges = [*(one["at_s"] for one in windows), end_s]
    for one, end in zip(windows, edges[1:], strict=True):
        if one["at_s"] < end_s:
            axes.barh(2, 0.9 * (min(end, end_s) - one["at_s"]), left=one["at_s"], height=0.5,
                      color=SERIES[0] if one["drawn"] else GRID, linewidth=0)  # fmt: skip


def _draw_audits(axes: Axes, judged: list[Any], row: int, end_s: float) -> None:
    looks = {"audited": (SERIES[2], "o"), "cheats": (FAILED, "X")}
    for one in judged:
        if one["what"] in looks and one["at_s"] <= end_s:
            colour, marker = looks[one["what"]]
            axes.plot(one["at_s"], row, color=colour, marker=marker, markersize=5, zorder=5)


def _told_of_cheat(found: Figures) -> str:
    wrong = {node: sum(is_wrong for _, is_wrong in its) for node, its in found["answered"].items()}
    verdict = next((one["at_s"] for one in found["judged"] if one["what"] == "cheats"), None)
    answers = ", ".join(f"{node} {number(wrong[node])} of {number(len(its))} answers changed"
                        for node, its in found["answered"].items())  # fmt: skip
    return f"{answers}; first at {seconds(found['cheats_from_s'])}, found at {seconds(verdict)}."
