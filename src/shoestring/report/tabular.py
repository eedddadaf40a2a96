"""One table, four ways to write it: CSV, Markdown, LaTeX and HTML.

A table holds raw values: seconds, bytes, tokens a second. CSV gets those, with six significant
digits and the unit in the column's name; what is missing is an empty field. The other three are
for readers: scaled to the unit in the heading, three significant digits, an em dash where
something is missing, and an interval in brackets behind its median.
"""

from __future__ import annotations

import csv
import html
import io
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shoestring.report.units import MISSING, NARROW_SPACE, SPACE, number, plain

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Estimate:
    """A median and its 95 % interval; each may be unknown."""

    median: float | None
    low: float | None
    high: float | None


Value = str | int | float | Estimate | None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: its name in CSV, with the unit (``ttft_median_s``).
        heading: its name for readers, with the unit in which it is shown.
        scale: what the raw value is multiplied by to be shown.
        estimate: its values are medians with intervals; CSV then has three columns.
    """

    key: str
    heading: str
    scale: float = 1.0
    estimate: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of its files.
        title: for readers, a line.
        columns: as many as each row has values.
        rows: of raw values.
        empty: what is said instead of a table without rows.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    empty: str = "Nothing to show."


def csv_text(table: Table) -> str:
    """Write the raw values as CSV (RFC 4180, but lines end with a line feed alone)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header: list[str] = []
    for column in table.columns:
        header += [column.key]
        if column.estimate:
            header += [f"{column.key}_ci95_low", f"{column.key}_ci95_high"]
    writer.writerow(header)
    for row in table.rows:
        writer.writerow(
            [text for value, column in zip(row, table.columns, strict=True)
             for text in _raw(value, column)]
        )  # fmt: skip
    return buffer.getvalue()


def markdown_text(table: Table) -> str:
    """Write the table for readers as a Markdown pipe table, or its one line where it is empty."""
    if not table.rows:
        return f"{table.empty}\n"
    lines = [
        _piped(escape_markdown(column.heading) for column in table.columns),
        _piped("---:" if _numeric(table, i) else "---" for i in range(len(table.columns))),
    ]
    lines += [_piped(map(escape_markdown, cells)) for cells in _shown(table)]
    return "\n".join(lines) + "\n"


def latex_text(table: Table) -> str:
    """Write the table for readers as a booktabs ``tabular``, to be set inside a ``table``."""
    alignment = "".join("r" if _numeric(table, i) else "l" for i in range(len(table.columns)))
    heads = " & ".join(escape_latex(column.heading) for column in table.columns)
    body = [" & ".join(map(escape_latex, cells)) + r" \\" for cells in _shown(table)]
    if not body:
        body = [rf"\multicolumn{{{len(table.columns)}}}{{l}}{{{escape_latex(table.empty)}}} \\"]
    lines = [
        f"% {escape_latex(table.title)}. Needs \\usepackage{{booktabs}}.",
        rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", rf"{heads} \\", r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def html_text(table: Table) -> str:
    """Write the table for readers as HTML that scrolls on a narrow screen."""
    if not table.rows:
        return f"<p>{html.escape(table.empty)}</p>"
    kinds = ["number" if _numeric(table, i) else "text" for i in range(len(table.columns))]
    heads = "".join(
        f'<th scope="col" class="{kind}">{html.escape(column.heading)}</th>'
        for column, kind in zip(table.columns, kinds, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}">{_html_cell(cell)}</td>'
            for cell, kind in zip(cells, kinds, strict=True)
        )
        + "</tr>\n"
        for cells in _shown(table)
    )
    title = html.escape(table.title)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f"<table>\n<caption>{title}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{rows}</tbody></table></div>"
    )


def plain_text(table: Table) -> str:
    """Write the table for readers in aligned columns, or its one line where it is empty."""
    if not table.rows:
        return f"{table.empty}\n"
    lines = [[column.heading for column in table.columns], *_shown(table)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    aligned = [
        "  ".join(
            cell.rjust(width) if _numeric(table, i) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join(aligned) + "\n"


_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    # At the start of a row these would be arguments of the row before it.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "\N{EM DASH}": "---",
    "\N{EN DASH}": "--",
    NARROW_SPACE: r"\,",
    SPACE: "~",
    "\N{MICRO SIGN}": r"\textmu{}",
}


def escape_latex(text: str) -> str:
    """Return the text so that LaTeX sets it as it is; control characters become spaces."""
    return "".join(
        # Two hyphens would be set as a dash.
        "{-}" * len(piece) if piece.startswith("--") else _LATEX.get(piece, one_line(piece))
        for piece in re.findall(r"-{2,}|.", text, re.DOTALL)
    )


def escape_markdown(text: str) -> str:
    """Return the text so that it stays one cell of a pipe table and is no markup."""
    return re.sub(r"([\\|`*_<\[\]])", r"\\\1", one_line(text))


def one_line(text: str) -> str:
    """Return the text with a plain space for each control character, surrogate and odd space."""
    ours = (SPACE, NARROW_SPACE)
    return "".join(c if c.isprintable() or c in ours else " " for c in text)


def _piped(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _raw(value: Value, column: Column) -> list[str]:
    if not column.estimate:
        return [_raw_one(value)]
    if not isinstance(value, Estimate):
        return ["", "", ""]
    return [_raw_one(value.median), _raw_one(value.low), _raw_one(value.high)]


def _raw_one(value: Value) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return plain(value) if isinstance(value, int | float) else one_line(str(value))


def _shown(table: Table) -> list[list[str]]:
    return [
        [_shown_one(value, column) for value, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]


def _shown_one(value: Value, column: Column) -> str:
    if value is None:
        return MISSING
    if isinstance(value, str):
        return one_line(value) or MISSING
    if not isinstance(value, Estimate):
        return number(value * column.scale)
    if value.median is None:
        return MISSING
    shown = number(value.median * column.scale)
    if value.low is None or value.high is None:
        return shown
    return f"{shown} [{number(value.low * column.scale)}, {number(value.high * column.scale)}]"


def _html_cell(cell: str) -> str:
    """An interval stands below its median, so that a wide table stays readable."""
    return re.sub(r" (\[.*\])$", r"<br><small>\1</small>", html.escape(cell))


def _numeric(table: Table, index: int) -> bool:
    return not any(isinstance(row[index], str) for row in table.rows)
