"""Filling the feasibility matrix in on the machine at hand: one run for each cell that lacks one.

The machine decides which cells these are; a session on Kaggle and a laptop run the same code. What
was measured before is left out, a cut run is gone on with, and a cell that fails does not keep the
others from being tried. Synthetic models take gigabytes: each is made when its first cell is due
and removed after its last, unless it was there before.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from shoestring.errors import InterruptedRunError, MissingError, ShoestringError
from shoestring.hardware.machine import describe_machine
from shoestring.measure.lease import take_lease
from shoestring.measure.suite import load_suite
from shoestring.models.downloads import locked
from shoestring.models.shape_files import find_shape, shape_path
from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import describe_shape
from shoestring.paths import cache_dir
from shoestring.plan.machines import machine_of
from shoestring.plan.placement import place
from shoestring.report.feasibility import RANDOM, could_not_load, demand_of
from shoestring.report.feasibility_query import LIBRARY
from shoestring.report.feasibility_runs import SUITE, context_of, find_runs, machine_of_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from shoestring.measure.lease import Lease
    from shoestring.measure.records import Run
    from shoestring.plan.machines import Machine
    from shoestring.report.feasibility_query import Query


@dataclass(frozen=True)
class Trial:
    """One run to be made.

    Attributes:
        model: as ``shoestring run --model`` takes it.
        context: tokens that the engine gets.
        engine: that is to run it.
    """

    model: str
    context: int
    engine: str


def fill_in(
    query: Query,
    out: Path,
    say: Callable[[str], None],
    *,
    engine: str,
    hopeless: bool,
    places: Iterable[Path] = (),
) -> list[str]:
    """Measure what is asked and not yet measured on this machine; see :func:`run_trials`.

    Args:
        query: which cells.
        out: the folder that gets the runs' folders, and holds earlier ones.
        say: told how far it is.
        engine: for shapes.
        hopeless: try also what is predicted not to run here.
        places: more runs, and folders of runs, which settle cells too.

    Raises:
        BadRunError: a run that was named itself is damaged.
        MissingError: this machine does not say how much memory it has.
    """
    here = machine_of(describe_machine())
    if here is None:
        raise MissingError("this machine does not say how much memory it has: nothing to compare")
    trials = list_trials(query.to_measure, query.quantisations, query.contexts, engine)
    runs = find_runs([*places, *([out] if out.is_dir() else [])], say)
    left = left_to_do(trials, runs, here, hopeless=hopeless)
    say(f"{here.title}: {len(left)} of {len(trials)} cells are to be measured")
    lease, suite = take_lease(), load_suite(SUITE)

    def ended() -> bool:
        left_s = lease.sending_left_s(suite)
        return left_s is not None and left_s <= 0

    return run_trials(left, lambda trial: measure_trial(trial, out, lease), say, ended=ended)


def list_trials(
    models: Iterable[str], quantisations: Sequence[str], contexts: Sequence[int], engine: str
) -> list[Trial]:
    """List what can be tried, a model's contexts one after the other, each trial once.

    Args:
        models: shapes by name, and models of Ollama's library as ``ollama:NAME``, which have
            their quantisation in their name.
        quantisations: of each shape.
        contexts: longer ones than a shape was trained for are left out.
        engine: for shapes; a model of Ollama's library goes to Ollama.
    """
    trials = []
    for model in models:
        if model.startswith(LIBRARY):
            trials += [Trial(model, context, "ollama") for context in contexts]
            continue
        fitting = [context for context in contexts if context <= SHAPES[model].context]
        trials += [
            Trial(f"{RANDOM}{model}:{quantisation}", context, engine)
            for quantisation in quantisations
            for context in fitting
        ]
    return list(dict.fromkeys(trials))


def left_to_do(
    trials: Iterable[Trial], runs: Sequence[Run], here: Machine, *, hopeless: bool = False
) -> list[Trial]:
    """Return the trials that no run of this machine has settled.

    Args:
        trials: all of them.
        runs: of the suite, from any machine.
        here: the machine at hand.
        hopeless: also those which are predicted not to run; they can take the machine with them.
    """
    settled = {
        (run.config["model"]["name"], context_of(run))
        for run in runs
        if (machine := machine_of_run(run)) is not None and machine.name == here.name
        if run.complete or could_not_load(run, machine)
    }
    open_trials = [trial for trial in trials if (trial.model, trial.context) not in settled]
    return [trial for trial in open_trials if hopeless or not _is_hopeless(trial, here)]


def run_trials(
    trials: Sequence[Trial],
    measure: Callable[[Trial], Run],
    say: Callable[[str], None],
    *,
    ended: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Make the runs, one after the other.

    Args:
        trials: a model's contexts one after the other.
        measure: makes one run, or goes on with a cut one.
        say: told what is tried, and how it ended.
        ended: whether the session has no time for another run; then the rest is left.

    Returns:
        What went wrong, a line a trial. Where an engine could not load a model, the run's record
        says so, and counts as measured.

    Raises:
        InterruptedRunError: the user stopped it; the next call goes on.
    """
    wrong: list[str] = []
    numbered = enumerate(trials, start=1)
    for model, group in groupby(numbered, key=lambda pair: pair[1].model):
        with _lent_shape(model, say):
            for number, trial in group:
                if ended():
                    left = len(trials) - number + 1
                    say(f"this session ends: {left} cells are left; go on in a new one")
                    return wrong
                named = f"{trial.model} at {trial.context:,} tokens in {trial.engine}"
                say(f"{number} of {len(trials)}: {named}")
                try:
                    run = measure(trial)
                except InterruptedRunError:
                    raise
                except ShoestringError as error:
                    wrong.append(f"{named}: {error}")
                    say(f"failed: {error}")
                else:
                    say(f"{'measured' if run.complete else 'cut'}: {run.path}")
    return wrong


def measure_trial(trial: Trial, out: Path, lease: Lease) -> Run:
    """Run the suite for one trial, or go on with its cut run in ``out``."""
    from shoestring.measure.runner import run_suite

    return run_suite(
        SUITE, model=trial.model, engine=trial.engine, context=trial.context, out=out, resume=True,
        lease=lease,
    )  # fmt: skip


def _is_hopeless(trial: Trial, here: Machine) -> bool:
    if not trial.model.startswith(RANDOM):
        return False  # nobody knows before it is there
    demand = demand_of(trial.model.removeprefix(RANDOM), trial.context)
    return place(demand, here).verdict == "does not run"


@contextmanager
def _lent_shape(model: str, say: Callable[[str], None]) -> Iterator[None]:
    """Remove a synthetic model afterwards, unless it was there before."""
    name = model.removeprefix(RANDOM)
    described = describe_shape(name) if model.startswith(RANDOM) else None
    keep = described is None or find_shape(name, described, cache_dir()) is not None
    try:
        yield
    finally:
        if not keep:
            assert described is not None
            path = shape_path(name, described, cache_dir())
            if path.exists():
                with locked(path, say):
                    path.with_name(f"{path.name}.json").unlink(missing_ok=True)
                    path.unlink()
