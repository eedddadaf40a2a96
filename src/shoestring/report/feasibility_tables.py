"""The feasibility matrix as tables: a row a model for a terminal, and a row a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoestring.report.tabular import Column, Table, plain_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.plan.placement import Verdict
    from shoestring.report.feasibility import Cell

LETTERS: Final[dict[Verdict | None, str]] = {
    "runs": "R",
    "runs with offload": "O",
    "does not run": "N",
    None: "?",
}
LEGEND: Final = (
    "R runs, O runs with offload, N does not run; capital: measured there, small: predicted; "
    "? too close to call and not yet run"
)


def letter(cell: Cell) -> str:
    """Return a cell as one letter of :data:`LEGEND`."""
    told = LETTERS[cell.verdict]
    return told if cell.standing == "measured" else told.lower()


def matrix_table(cells: Sequence[Cell]) -> Table:
    """Make a row a model and quantisation, a column a machine, a letter a context."""
    machines = {cell.machine.name: cell.machine.title for cell in cells}
    contexts = dict.fromkeys(cell.context for cell in cells)
    letters: dict[tuple[str, str], dict[str, list[str]]] = {}
    for cell in cells:
        row = letters.setdefault((cell.model.title, cell.quantisation), {})
        row.setdefault(cell.machine.name, []).append(letter(cell))
    lengths = ", ".join(f"{context:,}" for context in contexts)
    return Table(
        "feasibility",
        f"What runs where, at contexts of {lengths} tokens: {LEGEND}",
        (
            Column("model", "Model"),
            Column("quantisation", "Quantisation"),
            *(Column(name, title) for name, title in machines.items()),
        ),
        tuple(
            (*row, *(" ".join(found.get(name, [])) for name in machines))
            for row, found in letters.items()
        ),
        "No model was asked about.",
    )


def matrix_text(cells: Sequence[Cell]) -> str:
    """Return the matrix for a terminal, with what its letters mean."""
    return f"{plain_text(matrix_table(cells))}\n{LEGEND}"


def cells_table(cells: Sequence[Cell]) -> Table:
    """Make a row a cell, with the numbers behind its verdict."""
    columns = (
        Column("model", "Model"),
        Column("quantisation", "Quantisation"),
        Column("context", "Context (tokens)"),
        Column("machine", "Machine"),
        Column("verdict", "Verdict"),
        Column("standing", "Standing"),
        Column("weights_bytes", "Weights (GB)", 1e-9),
        Column("cache_bytes", "KV cache (GB)", 1e-9),
        Column("compute_bytes", "Buffers (GB)", 1e-9),
        Column("gpu_bytes", "On GPUs (GB)", 1e-9),
        Column("host_bytes", "In RAM, at most (GB)", 1e-9),
        Column("gpu_free_bytes", "Free on GPUs (GB)", 1e-9),
        Column("ram_free_bytes", "Free RAM (GB)", 1e-9),
        Column("gpu_layers", "Layers on GPUs"),
        Column("ram_peak_bytes", "Peak RAM, measured (GB)", 1e-9),
        Column("vram_peak_bytes", "Peak VRAM, measured (GB)", 1e-9),
        Column("decode_tokens_per_s", "Decode, measured (tokens/s)"),
        Column("engine", "Engine"),
        Column("measured_model", "Model of the run"),
        Column("run_id", "Run"),
        Column("reason", "Reason"),
    )
    return Table(
        "feasibility_cells", "Every cell, with the numbers behind it", columns,
        tuple(map(_row, cells)), "No model was asked about.",
    )  # fmt: skip


def _row(cell: Cell) -> tuple[str | float | None, ...]:
    plan, said = cell.predicted, cell.measured
    return (
        cell.model.title, cell.quantisation, cell.context, cell.machine.title,
        cell.verdict or "open", cell.standing,
        *((plan.weights_bytes, plan.cache_bytes, plan.compute_bytes, plan.gpu_bytes,
           plan.host_bytes) if plan else (None,) * 5),
        sum(cell.machine.gpu_bytes) or None, cell.machine.memory_bytes,
        plan.gpu_layers if plan and cell.machine.gpu_bytes else None,
        *((said.ram_peak_bytes, said.vram_peak_bytes, said.decode_tokens_per_s, said.engine,
           said.model, said.run_id) if said else (None,) * 6),
        cell.reason,
    )  # fmt: skip
