"""From a notebook to its report, also where the notebook fails on the way."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from shoestring.errors import InterruptedRunError, ShoestringError, UserError
from shoestring.measure.records import CONFIG
from shoestring.report.html import render_html
from shoestring.report.notebook import execute_notebook, find_notebook
from shoestring.report.parameters import notebook_parameters

ANALYSING = "01_measure"


def render_run(folder: Path, html_path: Path, *, problem: str | None = None) -> None:
    """Make the report of a run, whole or cut; nothing else is written.

    Args:
        folder: the run's.
        html_path: the report.
        problem: one line that the report opens with.
    """
    with tempfile.TemporaryDirectory() as scratch:
        executed = Path(scratch) / "executed.ipynb"
        parameters = {"run": str(folder), "out": ""}
        execute_notebook(find_notebook(ANALYSING), executed, parameters, progress=False)
        render_html(executed, html_path, run_path=folder, problem=problem)


def execute_and_render(path: Path, copy: Path, html_path: Path, parameters: dict[str, Any]) -> None:
    """Execute a notebook and render its report; a failed one is rendered as far as it came.

    If the notebook failed after its run had begun, the report is made from the rows of that run.

    Args:
        path: the notebook.
        copy: the executed copy.
        html_path: the report.
        parameters: checked values.

    Raises:
        ShoestringError: as :func:`~shoestring.report.notebook.execute_notebook`.
    """
    known = notebook_parameters(path)
    out = Path(str(parameters.get("out", known["out"].default if "out" in known else ".")))
    before = _runs(out)
    try:
        execute_notebook(path, copy, parameters, progress=True)
    except ShoestringError as error:
        begun = sorted(_runs(out) - before)
        # What failed first is what the user must hear of: a full disk fails the report too.
        with suppress(OSError, ShoestringError):
            if len(begun) == 1 and not isinstance(error, InterruptedRunError):
                render_run(begun[0], html_path, problem=str(error))
            elif copy.is_file() and not isinstance(error, UserError):
                run_path = begun[0] if len(begun) == 1 else None
                render_html(copy, html_path, run_path=run_path, problem=str(error))
        raise
    render_html(copy, html_path)


def _runs(out: Path) -> set[Path]:
    return {config.parent for config in out.glob(f"*/{CONFIG}")}
