"""How every figure looks, and the one way in which figures are saved.

A figure is drawn for a two-column paper: 3.4 inches wide for a column, 7 for the page.
Colours are told apart by colour-blind readers, keep a contrast of 3:1 on white and on near black,
and are doubled by line style or marker. Matplotlib draws with Agg alone: no window, no pyplot.

The same figure gives the same bytes: SVG ids are salted with a constant, dates and the name of
the program are left out, the fonts are those that Matplotlib brings along, and the layout is
settled to a millionth of the figure before it is saved.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.style import context

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from matplotlib.axes import Axes

COLUMN_IN: Final = 3.4
PAGE_IN: Final = 7.0

INK: Final = "#1f2328"
MUTED: Final = "#6e7781"
GRID: Final = "#d8dee4"
PAPER: Final = "#fefefe"
FAILED: Final = "#cf222e"
SERIES: Final = ("#0072b2", "#d55e00", "#00876c", "#b5589b", "#8a6d00", "#5a78d1", "#7f7f7f")
DASHES: Final = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")

_RC: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "text.parse_math": False,  # a case may be named with dollar signs
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 7.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.hashsalt": "shoestring",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "pdf.compression": 9,
}

_SCREEN_PX_PER_IN: Final = 128  # print sizes are small on a screen; a page figure gets 900 pixels

# On a page the ink follows the reader's theme; the second value serves outside our own page.
_THEMED: Final = {
    INK: "currentColor",
    MUTED: "var(--muted, #6e7781)",
    GRID: "var(--line, #d8dee4)",
    PAPER: "var(--paper, #ffffff)",
    SERIES[0]: "var(--series, #0072b2)",
}


def styled() -> AbstractContextManager[None]:
    """Return the context in which a figure is drawn and saved: our style, not the user's."""
    return context(["default", _RC])


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure of a size in inches, laid out so that nothing is cut off."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def series_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give each series its colour, dash and marker; the order of the names decides."""
    return {
        name: {
            "color": SERIES[i % len(SERIES)],
            "linestyle": DASHES[i % len(DASHES)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, name in enumerate(names)
    }


def label_series(axes: Axes, styles: dict[str, dict[str, Any]], texts: dict[str, str]) -> None:
    """Write one line for each series above the axes, in the order of ``texts``."""
    handles = [Line2D([], [], **styles[name]) for name in texts]
    for handle in handles:
        handle.set_markersize(4)
    axes.legend(
        handles, list(texts.values()), loc="lower left", bbox_to_anchor=(0, 1.0), ncols=1,
        borderaxespad=0.2, handlelength=2.6, labelspacing=0.25, borderpad=0,
    )  # fmt: skip


def settle(figure: Figure) -> None:
    """Lay a figure out once and for all, each panel on a grid of a millionth of the figure.

    The layout's solver adds in the order of memory addresses, so the last bits of a position
    differ from one drawing to the next; the ids of an SVG's clips are hashes of positions.
    """
    if figure.get_layout_engine() is None:
        return
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        place = axes.get_position()
        axes.set_position(tuple(round(part, 6) for part in place.bounds))


def save_figure(figure: Figure, path_stem: Path) -> list[Path]:
    """Write ``<stem>.svg`` and ``<stem>.pdf``, the same bytes for the same figure.

    Returns:
        The two paths.
    """
    path_stem.parent.mkdir(parents=True, exist_ok=True)
    svg = path_stem.with_name(f"{path_stem.name}.svg")
    pdf = path_stem.with_name(f"{path_stem.name}.pdf")
    svg.write_text(svg_text(figure), encoding="utf-8")
    with styled():
        settle(figure)
        nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
        figure.savefig(pdf, format="pdf", metadata=nothing)
    return [svg, pdf]


def svg_text(figure: Figure) -> str:
    """Return the figure as an SVG document; the same text for the same figure."""
    buffer = io.StringIO()
    with styled():
        settle(figure)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, alt: str) -> str:
    """Return the figure as an ``<svg>`` element for a page that holds several.

    Ids are prefixed with the name, since a page has one space of ids. Ink, grid, paper and the
    first colour take those of the page, so that the figure follows a dark theme.

    Args:
        figure: what to show.
        name: unique on the page; letters, digits, underscores.
        alt: what a reader who does not see the figure is told.
    """
    svg = svg_text(figure)
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # A hundredth of a point is finer than any screen, and a third of the bytes less.
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    for colour, themed in _THEMED.items():
        svg = svg.replace(colour, themed)
    width_px = figure.get_figwidth() * _SCREEN_PX_PER_IN
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    kind = "wide" if figure.get_figwidth() > COLUMN_IN else "narrow"
    head = (
        f'<svg role="img" aria-label="{label}" class="{kind}" style="max-width:{width_px:.0f}px" '
    )
    svg = svg.replace("<svg ", head, 1)
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
