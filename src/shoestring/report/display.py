"""What the cells of a notebook show: each method is one call and one output.

Every output is HTML that reads the same in Jupyter, on Kaggle and in the offline report, with a
plain text beside it for terminals and logs.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shoestring.analysis.summary import summarise
from shoestring.report import words
from shoestring.report.figures import FIGURES
from shoestring.report.publish import figure_source, write_artifacts
from shoestring.report.style import inline_svg
from shoestring.report.tables import run_tables
from shoestring.report.tabular import html_text, markdown_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.measure.records import Run
    from shoestring.report.drawing import Drawing
    from shoestring.report.tabular import Table

# Tells the renderer which run an executed notebook is about.
RUN_MIME: Final = "application/vnd.shoestring.run+json"
# Tells the renderer what a notebook is about that is about no run, and that its end was reached.
PAGE_MIME: Final = "application/vnd.shoestring.page+json"


@dataclass(frozen=True)
class Shown:
    """One output: HTML, plain text, and data for programs, by their kind."""

    html: str
    text: str
    data: dict[str, Any] | None = None
    mime: str = RUN_MIME

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/html": self.html, "text/plain": self.text}
        return bundle if self.data is None else {**bundle, self.mime: self.data}


class Report:
    """A run, ready to be shown piece by piece.

    Args:
        run: the run.
        prefix: of the ids of its figures, where a page shows several runs.
    """

    def __init__(self, run: Run, *, prefix: str = "") -> None:
        self.run = run
        self._prefix = prefix
        self.summary = summarise(run)
        self._tables = run_tables(run, self.summary)

    def verdict(self) -> Shown:
        """Show whether the run is complete, and what it says in one paragraph."""
        problem = words.incomplete_line(self.run)
        said = words.verdict(self.run, self.summary)
        banner = f"<p><strong>INCOMPLETE: {html.escape(problem)}</strong></p>" if problem else ""
        text = f"INCOMPLETE: {problem}\n{said}" if problem else said
        return Shown(f"{banner}<p>{html.escape(said)}</p>", text, {"path": str(self.run.path)})

    def warnings(self) -> Shown:
        """Show what makes the numbers doubtful, with the next step for each."""
        lines = words.warning_lines(self.summary)
        if not lines:
            return Shown("<p>No warnings.</p>", "No warnings.")
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        return Shown(f'<ul class="warnings">{items}</ul>', "\n".join(f"- {line}" for line in lines))

    def table(self, name: str) -> Shown:
        """Show a table by its name."""
        return show_table(self._tables[name])

    def figure(self, name: str) -> Shown:
        """Show a figure by its name, with where it comes from; or why there is none."""
        drawing = FIGURES[name].draw(self.run)
        return show_drawing(drawing, self._prefix + name, figure_source(self.run, name))

    def provenance(self) -> Shown:
        """Show where every number comes from."""
        facts = words.provenance(self.run)
        return show_facts(facts)

    def write(self, out: str) -> Shown:
        """Write figures, tables and numbers to ``<out>/<run_id>.report``; "" writes nothing."""
        if not out:
            text = "The run was only read; nothing was written."
            return Shown(f"<p>{text}</p>", text)
        folder = Path(out) / f"{self.run.run_id}.report"
        paths = write_artifacts(self.run, folder)
        text = f"{len(paths)} files are in {folder}"
        return Shown(f"<p>{html.escape(text)}</p>", text)


def show_facts(
    facts: Sequence[tuple[str, str]], *, data: dict[str, Any] | None = None, mime: str = RUN_MIME
) -> Shown:
    """Show names with their values, and data for programs."""
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in facts
    )
    text = "\n".join(f"{name}: {value}" for name, value in facts)
    page = f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'
    return Shown(page, text, data, mime)


def show_table(table: Table) -> Shown:
    """Show a table."""
    return Shown(html_text(table), f"{table.title}\n\n{markdown_text(table)}")


def show_drawing(drawing: Drawing, name: str, source: str | None = None) -> Shown:
    """Show a figure, or why there is none.

    Args:
        drawing: the figure, its words and its note.
        name: its id on the page, unique there.
        source: where its data are from; None: the page says so elsewhere.
    """
    if drawing.figure is None:
        reason = f"No figure: {drawing.text}."
        return Shown(f'<p class="none">{html.escape(reason)}</p>', reason)
    caption = html.escape(" ".join(filter(None, (drawing.note, source))))
    return Shown(
        f'<figure id="{name}">{inline_svg(drawing.figure, name, drawing.text)}'
        f"<figcaption>{caption}</figcaption></figure>",
        drawing.text,
    )
