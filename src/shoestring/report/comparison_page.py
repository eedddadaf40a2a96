"""Several runs on one HTML page that needs nothing else.

The comparison stands first, then where its numbers come from, then each run by itself, folded.
The page is made from the records alone, without a notebook, and is the same bytes each time.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shoestring.report import words
from shoestring.report.comparison import Comparison, comparison_tables
from shoestring.report.comparison_figures import COMPARISON_FIGURES
from shoestring.report.display import Report
from shoestring.report.figures import FIGURES
from shoestring.report.html import without_controls
from shoestring.report.style import inline_svg
from shoestring.report.tabular import html_text

if TYPE_CHECKING:
    from collections.abc import Iterable

# A page that is mailed or kept beside a paper stays below a megabyte.
_BUDGET_BYTES: Final = 950_000
_RUN_TABLES: Final = (
    "summary", "tails", "goodput", "clocks", "answers", "arrivals", "run", "failures",
    "cold_start", "calibration", "sessions",
)  # fmt: skip
# In the order in which they are given up last: what a comparison cannot show by itself comes first.
_RUN_FIGURES: Final = (
    "three_clocks", "memory_timeline", "cold_start", "ttft_distribution", "reasoning",
    "cached_share", "itl_distribution", "decode_by_context", "latency_by_concurrency",
)  # fmt: skip

_SPEED_WORDS: Final = (
    "Marks are medians, bars are 95 % intervals over blocks. Runs whose intervals lie apart "
    "differ; the ratios below say by how much."
)


def comparison_html(comparison: Comparison) -> str:
    """Return the page of a comparison."""
    tables = comparison_tables(comparison)
    reports = [
        Report(member.run, prefix=f"run{n}_") for n, member in enumerate(comparison.members, 1)
    ]
    head = _head(comparison)
    parts = [
        "<h2>Speed</h2>",
        f"<p>{_SPEED_WORDS}</p>",
        _figure(comparison, "speed"), html_text(tables["medians"]),
        "<h2>Ratios</h2>", _ratio_words(comparison), html_text(tables["ratios"]),
        "<h2>What each run needed</h2>", _figure(comparison, "resources"),
        html_text(tables["engines"]),
        "<h2>Provenance</h2>", *(_provenance(report, comparison, n)
                                 for n, report in enumerate(reports)),
        "<h2>Each run by itself</h2>",
    ]  # fmt: skip
    tables_of = [_run_tables(report) for report in reports]
    spent = sum(len(part.encode()) for part in [head, *parts, *tables_of])
    figures_of, left_out = _run_figures(reports, _BUDGET_BYTES - spent)
    if left_out:
        titles = ", ".join(FIGURES[name].title for name in left_out)
        parts.append(
            f'<p class="none">To keep the page small, these figures of each run are left out: '
            f"{html.escape(titles)}. The report of one run alone has them.</p>"
        )
    for n, member in enumerate(comparison.members):
        title = html.escape(f"{member.label}: {member.run.run_id}")
        said = html.escape(words.verdict(member.run, member.summary))
        parts.append(
            f'<details class="run"><summary>{title}</summary><p>{said}</p>'
            f"{_warnings(reports[n])}{figures_of[n]}{tables_of[n]}</details>"
        )
    return without_controls("\n".join([head, *parts, "</main>", "</body>", "</html>", ""]))


def write_page(comparison: Comparison, html_path: Path) -> None:
    """Write the page of a comparison."""
    html_path.parent.mkdir(parents=True, exist_ok=True)
    html_path.write_text(comparison_html(comparison), encoding="utf-8")


def _head(comparison: Comparison) -> str:
    style = (Path(__file__).parent / "template" / "style.css").read_text(encoding="utf-8")
    title = html.escape(_title(comparison))
    cut = [
        f"{member.label}: {problem}"
        for member in comparison.members
        if (problem := words.incomplete_line(member.run))
    ]
    banner = (
        f'<div class="banner" role="alert"><strong>INCOMPLETE</strong>{_paragraphs(cut)}</div>'
        if cut
        else ""
    )
    notices = _notice("Not comparable", comparison.reasons)
    notices += _notice("Also unlike in these runs", comparison.differences)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n<header>\n"
        f'<p class="kicker">shoestring comparison</p>\n<h1>{title}</h1>\n{banner}\n'
        f'<p class="verdict">{html.escape(words.comparison_verdict(comparison))}</p>\n{notices}\n'
        "</header>"
    )


def _notice(heading: str, lines: list[str]) -> str:
    if not lines:
        return ""
    return (
        f'<section class="notice" aria-label="{heading}"><h2>{heading}</h2>'
        f"<ul>{_items(lines)}</ul></section>"
    )


def _title(comparison: Comparison) -> str:
    labels = [member.label for member in comparison.members]
    models = {
        words.public_name(member.run.config["model"]["name"]) for member in comparison.members
    }
    on = f" on {models.pop()}" if len(models) == 1 else ""
    return f"{', '.join(labels[:-1])} and {labels[-1]}{on}"


def _ratio_words(comparison: Comparison) -> str:
    first = html.escape(comparison.members[0].label)
    return (
        f"<p>Each ratio is a run's median over that of {first}. A verdict is given only where the "
        "whole interval lies on one side of 1: below 1 is faster for times, above 1 for rates.</p>"
    )


def _figure(comparison: Comparison, name: str) -> str:
    drawing = COMPARISON_FIGURES[name](comparison)
    if drawing.figure is None:
        return f'<p class="none">No figure: {html.escape(drawing.text)}.</p>'
    ids = ", ".join(member.run.run_id for member in comparison.members)
    return (
        f'<figure id="{name}">{inline_svg(drawing.figure, name, drawing.text)}'
        f"<figcaption>{name}: drawn by shoestring.report from requests.jsonl and environment.json "
        f"of runs {html.escape(ids)}</figcaption></figure>"
    )


def _provenance(report: Report, comparison: Comparison, n: int) -> str:
    label = html.escape(comparison.members[n].label)
    return f"<h3>{label}</h3>{report.provenance().html}"


def _warnings(report: Report) -> str:
    return f'<section class="notice"><h2>Warnings</h2>{report.warnings().html}</section>'


def _run_tables(report: Report) -> str:
    return "".join(report.table(name).html for name in _RUN_TABLES)


def _run_figures(reports: list[Report], budget: int) -> tuple[list[str], list[str]]:
    """Return the figures of each run, each kind for all runs or for none, and what had no room."""
    shown = [""] * len(reports)
    left_out = []
    for name in _RUN_FIGURES:
        drawn = [report.figure(name).html for report in reports]
        size = sum(len(one.encode()) for one in drawn)
        if size > budget:
            left_out.append(name)
            continue
        budget -= size
        title = html.escape(FIGURES[name].title)
        shown = [f"{old}<h3>{title}</h3>{new}" for old, new in zip(shown, drawn, strict=True)]
    return shown, left_out


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{html.escape(line)}</li>" for line in lines)
