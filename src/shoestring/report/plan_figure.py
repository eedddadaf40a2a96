"""Where the memory of a plan goes, a bar a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoestring.report.style import GRID, INK, PAGE_IN, SERIES, new_figure, styled
from shoestring.report.units import GIBIBYTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoestring.plan.planner import Placed, Plan

_BAR_IN: Final = 0.42
_PARTS: Final = (
    ("weights_bytes", "weights", SERIES[0], ""),
    ("cache_bytes", "KV cache", SERIES[1], "////"),
    ("compute_bytes", "buffers for the work", SERIES[2], "...."),
    ("other_bytes", "program and vocabulary", SERIES[3], "xxxx"),
)
"""Told apart by hatching where colours are not."""


def memory_figure(plan: Plan) -> Figure:
    """Draw what each device holds, and the frame of what it has free."""
    names = [_label(placed) for placed in plan.placed]
    with styled():
        figure = new_figure(PAGE_IN, 1.0 + _BAR_IN * len(names))
        axes = figure.subplots()
        starts = [0.0] * len(names)
        for attribute, label, colour, hatch in _PARTS:
            sizes = [getattr(placed, attribute) / GIBIBYTE for placed in plan.placed]
            axes.barh(
                names, sizes, left=starts, height=0.6, label=label, color=colour, hatch=hatch,
                edgecolor="white", linewidth=0,
            )  # fmt: skip
            starts = [start + size for start, size in zip(starts, sizes, strict=True)]
        free = [(placed.free_bytes or 0) / GIBIBYTE for placed in plan.placed]
        axes.barh(
            names, free, height=0.72, fill=False, edgecolor=INK, linewidth=0.8, label="free before"
        )
        axes.invert_yaxis()
        axes.grid(visible=True, axis="x", color=GRID)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("memory (GiB)")
        axes.set_title(f"{plan.ask.model} at {plan.ask.settings.context:,} tokens")
        figure.legend(loc="outside lower center", ncols=5)
    return figure


def _label(placed: Placed) -> str:
    first, end = placed.layers
    layers = f"layers {first} to {end - 1}" if end > first else "no layer"
    parts = [layers, *(["output"] if placed.output else [])]
    return f"{placed.name}\n{', '.join(parts)}"
