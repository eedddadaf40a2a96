"""What a figure function gives back: the figure with its words, or the reason why there is none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.report.words import case_labels

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
        note: what every reader is told below it: what it lacks, and why.
    """

    figure: Figure | None
    text: str
    note: str = ""

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


def labelled(run: Run, cases: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the cases of a summary by their labels."""
    labels = _labels(run)
    return {labels[case["case"], case["concurrency"]]: case for case in cases}


def by_case(run: Run, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split by case and concurrency; one without rows is left out."""
    keys = zip(frame["case"].astype(str), frame["concurrency"].astype(int), strict=True)
    labels = _labels(run)
    named = [labels[key] for key in keys]
    groups = {str(label): group for label, group in frame.groupby(named)} if named else {}
    return {label: groups[label] for label in labels.values() if label in groups}


def requests_by_case(run: Run) -> tuple[Counter[str], Counter[str]]:
    """Count the measured requests of each case, and those of them that failed."""
    labels = _labels(run)
    named = [(labels[str(row["case"]), int(row["concurrency"])], row) for row in run.measured]
    asked = Counter(label for label, _ in named)
    return asked, Counter(label for label, row in named if row["status"] != "ok")


def joined(texts: dict[str, str]) -> str:
    """Return the words of each series as one sentence."""
    return "; ".join(texts.values()) + "."


def _labels(run: Run) -> dict[tuple[str, int], str]:
    """Name each measured case at its concurrency, in the order of the suite."""
    order = {case["name"]: i for i, case in enumerate(run.config["suite"]["cases"])}
    keys = {(str(row["case"]), int(row["concurrency"])) for row in run.measured}
    return case_labels(sorted(keys, key=lambda key: (order.get(key[0], len(order)), key)))
