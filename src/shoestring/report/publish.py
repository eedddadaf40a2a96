"""Writing what a run gives to others: figures, tables, numbers, reports.

Everything here is made from a run record alone, without an engine, and is the same bytes each
time: sorted, six significant digits, no time of rendering, no path of this machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.analysis.summary import summarise
from shoestring.digests import file_sha256
from shoestring.errors import BadValueError
from shoestring.measure.records import RUN_ID, read_run
from shoestring.report.comparison import comparison_tables, side_by_side
from shoestring.report.comparison_figures import COMPARISON_FIGURES
from shoestring.report.figures import FIGURES
from shoestring.report.numbers import numbers_json, numbers_tex, run_numbers
from shoestring.report.style import save_figure
from shoestring.report.tables import run_tables
from shoestring.report.tabular import csv_text, latex_text, markdown_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from shoestring.measure.records import Run
    from shoestring.report.comparison import Comparison
    from shoestring.report.drawing import Drawing
    from shoestring.report.tabular import Table

_MEND = (
    'it must be {"runs": ["results/runs/RUN_ID", ...], "comparisons": [{"name": NAME, "runs": '
    '["results/runs/RUN_ID", ...]}, ...]}'
)


def write_artifacts(run: Run, out_dir: Path) -> list[Path]:
    """Write ``figures/``, ``tables/``, ``numbers.json`` and ``numbers.tex`` of a run.

    ``figures/figures.json`` says for each figure what made it, from which file, and its hashes;
    or why the run has none.

    Returns:
        What was written, sorted.
    """
    summary = summarise(run)
    paths = _write_figures(run, out_dir / "figures")
    paths += _write_texts(_table_texts(run, summary), out_dir / "tables")
    return sorted(paths + _write_texts(_number_texts(summary), out_dir))


def figure_source(run: Run, name: str) -> str:
    """Return in one line what a figure was made by and from."""
    spec = FIGURES[name]
    file = run.path / spec.source
    digest = f" (sha256 {file_sha256(file)[:12]}\N{HORIZONTAL ELLIPSIS})" if file.is_file() else ""
    return f"{name}: drawn by shoestring.report from {spec.source}{digest} of run {run.run_id}"


def publish_runs(
    listing: Path,
    render: Callable[[Path, Path], None],
    render_comparison: Callable[[Comparison, Path], None],
) -> list[Path]:
    """Write the artifacts and the report of every published run and comparison.

    Beside the listing: ``figures/<run_id>/``, ``tables/<run_id>/`` (with the numbers) and
    ``reports/<run_id>.html``; the same by the name of a comparison.

    What lay in the two folders of a run or a comparison and is not made any more is removed.

    Args:
        listing: ``published.json``, see :func:`read_listing`.
        render: makes the HTML of the run in a folder at a path.
        render_comparison: makes the HTML of a comparison at a path.

    Returns:
        What was written, sorted.

    Raises:
        BadValueError: the listing is not as described.
    """
    results = listing.parent
    paths: list[Path] = []
    published = read_listing(listing)
    (results / "reports").mkdir(parents=True, exist_ok=True)
    for folder in published.runs:
        run = read_run(folder)
        summary = summarise(run)
        texts = {**_table_texts(run, summary), **_number_texts(summary)}
        folders = (results / "figures" / run.run_id, results / "tables" / run.run_id)
        made = _write_figures(run, folders[0]) + _write_texts(texts, folders[1])
        _remove_others(folders, made)
        paths += made
        report = results / "reports" / f"{run.run_id}.html"
        render(folder, report)
        paths.append(report)
    for name, members in published.comparisons.items():
        comparison = side_by_side([read_run(folder) for folder in members])
        folders = (results / "figures" / name, results / "tables" / name)
        made = write_comparison(comparison, *folders)
        _remove_others(folders, made)
        page = results / "reports" / f"{name}.html"
        render_comparison(comparison, page)
        paths += [*made, page]
    return sorted(paths)


def write_comparison(comparison: Comparison, figures: Path, tables: Path) -> list[Path]:
    """Write the figures and the tables of a comparison, each into its folder.

    Returns:
        What was written.
    """
    drawings = {name: draw(comparison) for name, draw in COMPARISON_FIGURES.items()}
    ids = [member.run.run_id for member in comparison.members]
    made = {
        name: {
            "text": drawing.text, "run_ids": ids, "from": "requests.jsonl, environment.json",
            "made_by": f"{COMPARISON_FIGURES[name].__module__}.{name}",
        }
        for name, drawing in drawings.items()
    }  # fmt: skip
    paths = _save(drawings, made, figures)
    found = comparison_tables(comparison).values()
    return paths + _write_texts(_texts_of(found), tables)


@dataclass(frozen=True)
class Listing:
    """What is published: the folders of runs, and the comparisons by name."""

    runs: list[Path]
    comparisons: dict[str, list[Path]]


def read_listing(listing: Path) -> Listing:
    """Return the folders of the published runs, and those of each comparison.

    ``{"runs": [folder, ...], "comparisons": [{"name": ..., "runs": [folder, ...]}, ...]}``; a
    folder is relative to the parent of the listing's own folder, which is the repository.
    ``comparisons`` may be left out.

    Raises:
        BadValueError: the listing is not there or not as described.
    """
    try:
        value = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadValueError(f"{listing} cannot be read: {error}; {_MEND}") from error
    parts = value if isinstance(value, dict) else {}
    groups = parts.get("comparisons", [])
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise BadValueError(f"{listing} has no list of comparisons: {_MEND}")
    runs = _folders(listing, parts.get("runs"))
    taken = {folder.name for folder in runs}
    named: dict[str, list[Path]] = {}
    for group in groups:
        name, members = group.get("name"), _folders(listing, group.get("runs"))
        # Files are written under it, so it may neither lead elsewhere nor be that of a run.
        if not isinstance(name, str) or not RUN_ID.fullmatch(name) or name in {*taken, *named}:
            raise BadValueError(
                f"{listing}: a comparison cannot be named {name!r}: give each its own name of "
                "letters, digits, dots, dashes and underscores, and not the id of a run"
            )
        if len(set(members)) < 2:  # noqa: PLR2004 - one run is no comparison
            raise BadValueError(f"{listing}: comparison {name!r} needs two runs or more: {_MEND}")
        named[name] = members
    return Listing(runs, named)


def _folders(listing: Path, value: Any) -> list[Path]:
    if not isinstance(value, list) or not all(isinstance(folder, str) for folder in value):
        raise BadValueError(f"{listing} has no list of runs: {_MEND}")
    return [listing.parent.parent / folder for folder in value]


def _table_texts(run: Run, summary: dict[str, Any]) -> dict[str, str]:
    return _texts_of(run_tables(run, summary).values())


def _texts_of(tables: Iterable[Table]) -> dict[str, str]:
    texts = {}
    for table in tables:
        texts[f"{table.name}.csv"] = csv_text(table)
        texts[f"{table.name}.md"] = markdown_text(table)
        texts[f"{table.name}.tex"] = latex_text(table)
    return texts


def _number_texts(summary: dict[str, Any]) -> dict[str, str]:
    numbers = run_numbers(summary)
    return {"numbers.json": numbers_json(numbers), "numbers.tex": numbers_tex(numbers)}


def _remove_others(folders: Iterable[Path], made: list[Path]) -> None:
    """A figure that a run has no more must not be taken for one of it."""
    for folder in folders:
        for path in folder.iterdir():
            if path.is_file() and path not in made:
                path.unlink()


def _write_texts(texts: dict[str, str], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _write_figures(run: Run, folder: Path) -> list[Path]:
    drawings = {name: spec.draw(run) for name, spec in FIGURES.items()}
    made = {
        name: {
            "title": spec.title, "text": drawings[name].text, "run_id": run.run_id,
            "made_by": f"{spec.draw.__module__}.{name}", "from": spec.source,
        }
        for name, spec in FIGURES.items()
    }  # fmt: skip
    return _save(drawings, made, folder)


def _save(
    drawings: dict[str, Drawing], index: dict[str, dict[str, Any]], folder: Path
) -> list[Path]:
    """Write figures, and ``figures.json`` with what is told of each, its hashes among it."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for name, drawing in drawings.items():
        files = save_figure(drawing.figure, folder / name) if drawing.figure else []
        index[name]["sha256"] = {path.name: file_sha256(path) for path in files}
        if drawing.note:
            index[name]["note"] = drawing.note
        paths += files
    text = json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "figures.json").write_text(text, encoding="utf-8")
    return [*paths, folder / "figures.json"]
