"""What a figure function gives back: the figure with its words, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from matplotlib.figure import Figure

    from shoestring.measure.records import Run


@dataclass(frozen=True)
class Drawing:
    """A figure, or none.

    Attributes:
        figure: None where the run has no data for it.
        text: what a reader who does not see the figure is told; or why there is none.
    """

    figure: Figure | None
    text: str

    @classmethod
    def missing(cls, reason: str) -> Drawing:
        """Return a drawing without a figure."""
        return cls(None, reason)


@dataclass(frozen=True)
class FigureSpec:
    """One figure of a report.

    Attributes:
        draw: makes it from a run.
        title: its heading.
        source: the file of the run from which it is drawn.
    """

    draw: Callable[[Run], Drawing]
    title: str
    source: str


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the requests that succeeded, without warm-ups."""
    return frame[(frame["phase"] == "measure") & (frame["status"] == "ok")]
