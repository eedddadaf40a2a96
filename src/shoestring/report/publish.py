"""Writing what a run gives to others: figures, tables, numbers, reports.

Everything here is made from a run record alone, without an engine, and is the same bytes each
time: sorted, six significant digits, no time of rendering, no path of this machine.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shoestring.analysis.summary import summarise
from shoestring.errors import BadValueError
from shoestring.measure.records import file_sha256, read_run
from shoestring.report.figures import FIGURES
from shoestring.report.numbers import numbers_json, numbers_tex, run_numbers
from shoestring.report.style import save_figure
from shoestring.report.tables import run_tables
from shoestring.report.tabular import csv_text, latex_text, markdown_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from shoestring.measure.records import Run


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


def publish_runs(listing: Path, render: Callable[[Path, Path], None]) -> list[Path]:
    """Write the artifacts and the report of every published run beside the listing.

    ``figures/<run_id>/``, ``tables/<run_id>/`` (with the numbers) and ``reports/<run_id>.html``.

    What lay in the two folders of a run and is not made any more is removed.

    Args:
        listing: ``published.json``: ``{"runs": [folder, ...]}``; a folder is relative to the
            parent of the listing's own folder, which is the repository.
        render: makes the HTML of the run in a folder at a path.

    Returns:
        What was written, sorted.

    Raises:
        BadValueError: the listing is not as described.
    """
    results = listing.parent
    paths: list[Path] = []
    for folder in listed_runs(listing):
        run = read_run(folder)
        summary = summarise(run)
        texts = {**_table_texts(run, summary), **_number_texts(summary)}
        folders = (results / "figures" / run.run_id, results / "tables" / run.run_id)
        made = _write_figures(run, folders[0]) + _write_texts(texts, folders[1])
        _remove_others(folders, made)
        paths += made
        report = results / "reports" / f"{run.run_id}.html"
        report.parent.mkdir(parents=True, exist_ok=True)
        render(folder, report)
        paths.append(report)
    return sorted(paths)


def listed_runs(listing: Path) -> list[Path]:
    """Return the folders of the published runs.

    Raises:
        BadValueError: the listing is not there or not as :func:`publish_runs` describes.
    """
    mend = 'it must be {"runs": ["results/runs/RUN_ID", ...]}'
    try:
        value = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadValueError(f"{listing} cannot be read: {error}; {mend}") from error
    runs = value.get("runs") if isinstance(value, dict) else None
    if not isinstance(runs, list) or not all(isinstance(run, str) for run in runs):
        raise BadValueError(f"{listing} has no list of runs: {mend}")
    return [listing.parent.parent / run for run in runs]


def _table_texts(run: Run, summary: dict[str, Any]) -> dict[str, str]:
    texts = {}
    for table in run_tables(run, summary).values():
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
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    index = {}
    for name, spec in FIGURES.items():
        drawing = spec.draw(run)
        files = save_figure(drawing.figure, folder / name) if drawing.figure else []
        index[name] = {
            "title": spec.title, "text": drawing.text, "run_id": run.run_id,
            "made_by": f"shoestring.report.figures.{name}", "from": spec.source,
            "sha256": {path.name: file_sha256(path) for path in files},
        }  # fmt: skip
        paths += files
    text = json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "figures.json").write_text(text, encoding="utf-8")
    return [*paths, folder / "figures.json"]
