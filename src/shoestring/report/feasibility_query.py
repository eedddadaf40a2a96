"""What is asked of the feasibility matrix, and the files that it gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from shoestring.errors import BadValueError
from shoestring.hardware.machine import describe_machine
from shoestring.models.quantising import BASE_TYPES
from shoestring.models.shapes import SHAPES
from shoestring.plan.candidates import CANDIDATES, CONTEXTS, QUANTISATIONS, Candidate
from shoestring.plan.machines import machine_of
from shoestring.report.feasibility import cells_json, make_cells
from shoestring.report.feasibility_figure import feasibility
from shoestring.report.feasibility_runs import find_runs, machines_of
from shoestring.report.feasibility_tables import cells_table, matrix_table
from shoestring.report.style import save_figure
from shoestring.report.tabular import csv_text, latex_text, markdown_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from shoestring.report.feasibility import Cell

T = TypeVar("T")
LIBRARY = "ollama:"
LONGEST = 1 << 20  # tokens; far more than any of the models was trained for


@dataclass(frozen=True)
class Query:
    """Which cells.

    Attributes:
        models: of the rows.
        library: models of Ollama's library that are to be measured, as ``ollama:NAME``.
        quantisations: of each model.
        contexts: of each quantisation, in tokens.
    """

    models: tuple[Candidate, ...]
    library: tuple[str, ...]
    quantisations: tuple[str, ...]
    contexts: tuple[int, ...]

    @property
    def to_measure(self) -> list[str]:
        """The models that a campaign runs: those of the library alone, where any is named."""
        return list(self.library) or list(dict.fromkeys(model.shape for model in self.models))


def ask(models: str | None, quantisations: str | None, contexts: str | None) -> Query:
    """Read what the command line asks, each a list with commas; None: the usual.

    Raises:
        BadValueError: a model, quantisation or context is not known.
    """
    named = _split("--models", models)
    library = _each_once(name for name in named if name.startswith(LIBRARY))
    rows = tuple(_candidates(name) for name in named if name not in library)
    return Query(
        _each_once(one for row in rows for one in row) or CANDIDATES,
        library,
        _each_once(map(_quantisation, _split("--quantisations", quantisations))) or QUANTISATIONS,
        _each_once(map(_context, _split("--contexts", contexts))) or CONTEXTS,
    )


def read_matrix(
    query: Query, places: Iterable[Path], say: Callable[[str], None], *, here: bool
) -> list[Cell]:
    """Make the matrix of what was asked from the runs in some folders.

    Args:
        query: which cells.
        places: runs, and folders of runs.
        say: told of runs that are passed over.
        here: whether the machine at hand has a column even where runs of others were found.

    Raises:
        BadRunError: a run that was named itself is damaged.
        BadValueError: a model of Ollama's library is asked for, and nothing is measured.
    """
    if query.library and not here:
        raise BadValueError(
            f"--models {query.library[0]}: a model of Ollama's library is known by its runs only: "
            "give --measure, or its shape"
        )
    runs = find_runs(places, say)
    mine = machine_of(describe_machine()) if here or not runs else None
    return make_cells(
        runs, machines_of(runs, mine), query.models, query.quantisations, query.contexts
    )


def write_matrix(cells: Sequence[Cell], out: Path) -> list[Path]:
    """Write two tables in three formats each, the figure in two, and the JSON.

    The same cells give the same bytes.

    Returns:
        What was written.
    """
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        f"{table.name}.{ending}": write(table)
        for table in (matrix_table(cells), cells_table(cells))
        for ending, write in (("csv", csv_text), ("md", markdown_text), ("tex", latex_text))
    }
    texts["feasibility.json"] = json.dumps(cells_json(cells), indent=1) + "\n"
    drawing = feasibility(cells)
    texts["feasibility.txt"] = f"{drawing.text}\n"
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    figures = save_figure(drawing.figure, out / "feasibility") if drawing.figure else []
    return [*(out / name for name in texts), *figures]


def _split(option: str, text: str | None) -> list[str]:
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise BadValueError(f"{option} {text!r} has an empty part: give names with single commas")
    return parts


def _each_once(parts: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(parts))


def _candidates(name: str) -> tuple[Candidate, ...]:
    """Return the models of a shape or a title; a shape outside the list stands for itself."""
    lower = name.lower().removeprefix("shape:")
    found = tuple(one for one in CANDIDATES if lower in {one.shape, one.title.lower()})
    if found:
        return found
    if lower in SHAPES:
        return (Candidate(lower, lower, SHAPES[lower].context),)
    known = ", ".join(dict.fromkeys(one.shape for one in CANDIDATES))
    raise BadValueError(
        f"--models: {name!r} is unknown: give {known}, another shape that `shoestring models list` "
        "shows, or ollama:NAME"
    )


def _quantisation(name: str) -> str:
    if name.lower() not in BASE_TYPES:
        raise BadValueError(f"--quantisations: {name!r} is unknown: give {', '.join(BASE_TYPES)}")
    return name.lower()


def _context(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= LONGEST:
        raise BadValueError(f"--contexts: {text!r}: give whole numbers from 1 to {LONGEST}")
    return int(text)
