"""Which runs the feasibility matrix is made from, and what they were made on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoestring.analysis.machine import machine_facts
from shoestring.errors import BadRunError
from shoestring.measure.records import CONFIG, read_object, read_run
from shoestring.plan.machines import CATALOGUE, Machine, machine_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from shoestring.measure.records import Run

SUITE: Final = "feasibility"


def find_runs(
    places: Iterable[Path], passed_over: Callable[[str], None] = lambda _line: None
) -> list[Run]:
    """Read the runs of the suite ``feasibility`` among folders of runs, and folders of folders.

    Args:
        places: a run, or a folder whose children are runs.
        passed_over: told of a child that is damaged.

    Raises:
        BadRunError: a run that was named itself is damaged, or a folder holds nothing readable.
    """
    runs: list[Run] = []
    for folder in places:
        if (folder / CONFIG).is_file() or not folder.is_dir():
            runs.append(read_run(folder))
            continue
        for child in sorted(folder.iterdir()):
            if not (child / CONFIG).is_file():
                continue
            try:
                if read_object(child / CONFIG)["suite"]["name"] == SUITE:
                    runs.append(read_run(child))
            except BadRunError as error:
                passed_over(f"passed over: {error}")
    found = {run.run_id: run for run in runs if run.config["suite"]["name"] == SUITE}
    return [found[run_id] for run_id in sorted(found)]


def machine_of_run(run: Run) -> Machine | None:
    """Return the machine on which a whole run was made; None where that is not known."""
    kinds = {
        tuple(fact for name, fact in machine_facts(session).items() if name != "engine version")
        for session in run.sessions
    }
    if len(kinds) != 1:
        return None
    return machine_of(run.sessions[0].get("machine") or {})


def machines_of(runs: Iterable[Run], *more: Machine | None) -> list[Machine]:
    """Return the machines of the catalogue, then those others on which the runs were made."""
    others = [*map(machine_of_run, runs), *more]
    named = {machine.name: machine for machine in (*CATALOGUE, *filter(None, others))}
    return list(named.values())


def context_of(run: Run) -> int | None:
    """Return the context that the engine of a run was given; Ollama names it ``num_ctx``."""
    options = run.config["engine"].get("options") or {}
    context = options.get("context", options.get("num_ctx"))
    return context if isinstance(context, int) else None
