"""The feasibility matrix as a figure that is read in grey: the symbol is the verdict.

A full disc runs, a half disc runs with offload, a cross does not run, a small ring is open. A
frame around a symbol says that it was measured on that hardware; without one it is predicted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from shoestring.report.drawing import Drawing
from shoestring.report.style import (
    FAILED,
    GRID,
    INK,
    MUTED,
    PAGE_IN,
    SERIES,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoestring.plan.placement import Verdict
    from shoestring.report.feasibility import Cell

_ROW_IN: Final = 0.15
_MARKS: Final[dict[Verdict | None, dict[str, Any]]] = {
    "runs": {"marker": "o", "color": SERIES[0], "markersize": 6},
    "runs with offload": {
        "marker": "o", "color": SERIES[1], "markersize": 6, "fillstyle": "bottom",
        "markerfacecoloralt": "none",
    },
    "does not run": {"marker": "x", "color": FAILED, "markersize": 5},
    None: {"marker": "o", "color": MUTED, "markersize": 3, "fillstyle": "none"},
}  # fmt: skip
_WORDS: Final[dict[Verdict | None, str]] = {None: "open: too close to call, not yet run"}
_FRAME: Final[dict[str, Any]] = {"facecolor": "none", "edgecolor": INK, "linewidth": 0.8}


def feasibility(cells: Sequence[Cell]) -> Drawing:
    """Draw a row a model and quantisation, a column a context on a machine."""
    if not cells:
        return Drawing.missing("no model was asked about")
    rows = list(dict.fromkeys((c.model.title, c.quantisation) for c in cells))
    contexts = list(dict.fromkeys(c.context for c in cells))
    machines = dict.fromkeys(c.machine.name for c in cells)
    columns = [(machine, context) for machine in machines for context in contexts]
    with styled():
        figure = new_figure(PAGE_IN, 1.3 + _ROW_IN * len(rows))
        axes = figure.subplots()
        for cell in cells:
            y = rows.index((cell.model.title, cell.quantisation))
            x = columns.index((cell.machine.name, cell.context))
            axes.plot(x, y, linestyle="none", **_MARKS[cell.verdict])
            if cell.standing == "measured":
                axes.add_patch(Rectangle((x - 0.44, y - 0.46), 0.88, 0.92, **_FRAME))
        _label(axes, cells, rows, columns)
        _explain(figure, cells)
    return Drawing(figure, _words(cells))


def _label(
    axes: Axes,
    cells: Sequence[Cell],
    rows: Sequence[tuple[str, str]],
    columns: Sequence[tuple[str, int]],
) -> None:
    titles = {cell.machine.name: cell.machine.title for cell in cells}
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), [_short(context) for _, context in columns])
    axes.set_yticks(
        range(len(rows)),
        [
            f"{model}   {quantisation}" if not i or rows[i - 1][0] != model else quantisation
            for i, (model, quantisation) in enumerate(rows)
        ],
    )
    for i in range(1, len(rows)):
        if rows[i][0] != rows[i - 1][0]:
            axes.axhline(i - 0.5, color=GRID, linewidth=0.6)
    names = [name for name, _ in columns]
    for name in dict.fromkeys(names):
        first, count = names.index(name), names.count(name)
        if first:
            axes.axvline(first - 0.5, color=MUTED, linewidth=0.6)
        folded = titles[name].replace(", ", "\n")
        axes.text(first + count / 2 - 0.5, -0.8, folded, ha="center", va="bottom", fontsize=7)
    axes.set_xlabel("context (tokens) on each machine")


def _explain(figure: Figure, cells: Sequence[Cell]) -> None:
    shown = {cell.verdict for cell in cells}
    handles: list[Any] = [
        Line2D([], [], linestyle="none", label=_WORDS.get(verdict, verdict), **mark)
        for verdict, mark in _MARKS.items()
        if verdict in shown
    ]
    if any(cell.standing == "measured" for cell in cells):
        handles.append(Rectangle((0, 0), 1, 1, label="measured on that hardware", **_FRAME))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _words(cells: Sequence[Cell]) -> str:
    parts = []
    for name in dict.fromkeys(cell.machine.name for cell in cells):
        here = [cell for cell in cells if cell.machine.name == name]
        counts = [
            f"{sum(cell.verdict == verdict for cell in here)} {_WORDS.get(verdict, verdict)}"
            for verdict in _MARKS
            if any(cell.verdict == verdict for cell in here)
        ]
        measured = sum(cell.standing == "measured" for cell in here)
        parts.append(
            f"{here[0].machine.title}: of {len(here)} cells {', '.join(counts)}; "
            f"{measured} of them measured"
        )
    return ". ".join(parts) + "."


def _short(context: int) -> str:
    return f"{context // 1024}k" if context % 1024 == 0 else str(context)
