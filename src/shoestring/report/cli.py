"""The commands that show runs: ``report``, ``compare``, ``feasibility`` and ``notebook``."""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoestring.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoestring.measure.records import Run

FOLDER = click.Path(path_type=Path)
LISTING = Path("results/published.json")


@click.command()
@click.argument("runs", nargs=-1, type=FOLDER, metavar="RUN...")
@click.option(
    "--html",
    "html_path",
    type=FOLDER,
    help="Write the offline report here; of several runs, with their comparison.",
)
@click.option("--out", type=FOLDER, help="Write figures, tables and numbers into this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option(
    "--published",
    is_flag=True,
    help="Make results/figures, tables and reports again from the runs in results/published.json.",
)
def report(
    runs: tuple[Path, ...],
    html_path: Path | None,
    out: Path | None,
    *,
    as_json: bool,
    published: bool,
) -> None:
    """Show what finished or interrupted runs measured.

    RUN is a run's folder. A table goes to stdout; more than one run gives a table each, with
    --json a list under "runs", with --out a folder each and one named "comparison". With --html
    several runs are compared on one page, each with the first.
    """
    from shoestring.errors import BadValueError
    from shoestring.measure.records import read_run

    _keep_fonts_in_cache()
    if published:
        if runs or html_path or out or as_json:
            raise BadValueError(
                "--published writes what the listing names: leave RUN, --html, --out, --json out"
            )
        _publish()
        return
    if not runs:
        raise BadValueError("no run was named: give the folder of a run, results/local/RUN_ID")
    read = [read_run(folder) for folder in runs]
    if html_path:
        _check_file(html_path)
    if out:
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
    _print_runs(read, as_json=as_json)
    if out:
        _write_out(read, out)
    if html_path:
        _write_html(read, html_path)
        click.echo(html_path, err=as_json)


@click.command()
@click.argument("first", type=FOLDER)
@click.argument("second", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
def compare(first: Path, second: Path, *, as_json: bool) -> None:
    """Compare two runs: what changed from FIRST to SECOND, with intervals."""
    from shoestring.analysis.compare import compare_runs
    from shoestring.measure.records import read_run

    a, b = read_run(first), read_run(second)
    with _damage_named(a, b):
        comparison = compare_runs(a, b)
    if as_json:
        click.echo(json.dumps(comparison))
        return
    from shoestring.report.terminal import comparison_text

    click.echo(comparison_text(comparison), nl=False)


@click.command()
@click.argument("places", nargs=-1, type=FOLDER, metavar="[RUN_OR_FOLDER...]")
@click.option("--measure", is_flag=True, help="First run what this machine has not measured yet.")
@click.option("--models", help="Only these: shapes, or with --measure also ollama:NAME; commas.")
@click.option("--quantisations", help="Only these, with commas.  [default: q4_k_m,q5_k_m,q8_0,f16]")
@click.option("--contexts", help="Only these, in tokens.  [default: 2048,8192,32768]")
@click.option("--engine", default="llama-server", show_default=True, help="That runs shapes.")
@click.option("--hopeless", is_flag=True, help="Measure also what is predicted not to run here.")
@click.option(
    "--runs",
    "runs_dir",
    type=FOLDER,
    default=Path("results/local"),
    show_default=True,
    help="Where --measure keeps its runs, and where they are looked for if no place is named.",
)
@click.option("--out", type=FOLDER, help="Write the tables, the figure and the JSON here.")
@click.option("--json", "as_json", is_flag=True, help="Print every cell in one JSON object.")
def feasibility(
    places: tuple[Path, ...],
    models: str | None,
    quantisations: str | None,
    contexts: str | None,
    engine: str,
    runs_dir: Path,
    out: Path | None,
    *,
    measure: bool,
    hopeless: bool,
    as_json: bool,
) -> None:
    """Show which models of 7 to 9 billion weights run on which free machine, and how that is known.

    RUN_OR_FOLDER are runs of the suite "feasibility", or folders of them. Their machines get
    columns of their own; where none is found, and with --measure, this machine gets one.
    """
    from shoestring.errors import ShoestringError
    from shoestring.report.feasibility import cells_json
    from shoestring.report.feasibility_campaign import fill_in
    from shoestring.report.feasibility_query import ask, read_matrix, write_matrix
    from shoestring.report.feasibility_tables import matrix_text

    def say(line: str) -> None:
        click.echo(line, err=True)

    _keep_fonts_in_cache()
    query = ask(models, quantisations, contexts)
    wrong = (
        fill_in(query, runs_dir, say, engine=engine, hopeless=hopeless, places=places)
        if measure
        else []
    )
    looked = [*places, *([runs_dir] if (measure or not places) and runs_dir.is_dir() else [])]
    cells = read_matrix(query, looked, say, here=measure)
    if out:
        with _writing(out):
            write_matrix(cells, out)
    click.echo(json.dumps(cells_json(cells)) if as_json else matrix_text(cells))
    if wrong:
        raise ShoestringError(f"{len(wrong)} cells could not be tried; the first: {wrong[0]}")


@click.command()
@click.argument("name", default="01_measure")
@click.option("-p", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option("--html", "html_path", type=FOLDER, help="The report; default: beside the copy.")
@click.option(
    "--out",
    "copy",
    type=FOLDER,
    help="The executed copy of the notebook; default: results/local/UTC-NAME.ipynb.",
)
def notebook(
    name: str, given: tuple[tuple[str, str], ...], html_path: Path | None, copy: Path | None
) -> None:
    """Execute a notebook and render its report; the last line of stdout is the report's path.

    NAME is a notebook of the package or a file. A failed notebook is rendered too, as far as it
    came: the report's path is then on stderr, and the exit status is the failure's.
    """
    from shoestring.errors import ShoestringError
    from shoestring.report.execution import execute_and_render
    from shoestring.report.notebook import find_notebook
    from shoestring.report.parameters import check_parameters

    _keep_fonts_in_cache()
    path = find_notebook(name)
    parameters = check_parameters(path, dict(given))
    copy = copy or Path("results/local") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{path.name}"
    html_path = html_path or copy.with_suffix(".html")
    for target in (copy, html_path):
        _check_file(target)
    before_ns = _written_ns(html_path)
    try:
        with _writing(html_path):
            execute_and_render(path, copy, html_path, parameters)
    except ShoestringError:
        if _written_ns(html_path) != before_ns:
            click.echo(html_path, err=True)
        raise
    click.echo(html_path)


def _keep_fonts_in_cache() -> None:
    """Keep Matplotlib's list of fonts in our cache; it would make a folder in the user's home."""
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))


def _publish() -> None:
    from shoestring.report.comparison_page import write_page
    from shoestring.report.execution import render_run
    from shoestring.report.publish import publish_runs

    with _writing(LISTING.parent):
        paths = publish_runs(LISTING, render_run, write_page)
    click.echo(f"{len(paths)} files are in {LISTING.parent}")


def _write_out(runs: list[Run], out: Path) -> None:
    from shoestring.report.publish import write_artifacts, write_comparison

    for run in runs:
        with _writing(out), _damage_named(run):
            write_artifacts(run, out / run.run_id if len(runs) > 1 else out)
    if len(runs) > 1:
        from shoestring.report.comparison import side_by_side

        folder = out / "comparison"
        with _writing(out), _damage_named(*runs):
            write_comparison(side_by_side(runs), folder / "figures", folder / "tables")


def _write_html(runs: list[Run], html_path: Path) -> None:
    with _writing(html_path), _damage_named(*runs):
        if len(runs) == 1:
            from shoestring.report.execution import render_run

            render_run(runs[0].path, html_path)
            return
        from shoestring.report.comparison import side_by_side
        from shoestring.report.comparison_page import write_page

        write_page(side_by_side(runs), html_path)


def _print_runs(runs: list[Run], *, as_json: bool) -> None:
    from shoestring.analysis.summary import summarise

    summaries = []
    for run in runs:
        with _damage_named(run):
            summaries.append(summarise(run))
    if as_json:
        value: dict[str, Any] = summaries[0] if len(runs) == 1 else {"runs": summaries}
        click.echo(json.dumps(value))
        return
    from shoestring.report.terminal import run_text

    for run, summary in zip(runs, summaries, strict=True):
        with _damage_named(run):
            text = run_text(run, summary)
        click.echo(text)


@contextmanager
def _damage_named(*runs: Run) -> Iterator[None]:
    """Name the run where its record lacks what a reader needs: one line, not a traceback.

    What :func:`read_run` checks has a better message; this is the net below it.
    """
    from shoestring.errors import BadRunError

    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        named = " or ".join(str(run.path) for run in runs)
        reason = " ".join(str(error).split())
        raise BadRunError(f"{named} is damaged: {type(error).__name__} {reason}") from error


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn a failure to write into one line that names the target."""
    from shoestring.errors import BadValueError, DiskFullError

    try:
        yield
    except BrokenPipeError:
        raise  # the reader of stdout went away: no matter of the target
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFullError(f"no space is left for {target}: free some, ask again") from error
        reason = error.strerror or error
        raise BadValueError(f"cannot write {target}: {reason}; give another path") from error


def _check_file(path: Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it shall hold."""
    was_there = path.exists()
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
        if not was_there:
            path.unlink()


def _written_ns(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None
