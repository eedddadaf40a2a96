"""Which cells are run on a machine, and what becomes of their models."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from shoestring.errors import EngineLostError, InterruptedRunError
from shoestring.models.fetch import resolve_model
from shoestring.plan.machines import Machine, machine_of
from shoestring.report.feasibility_campaign import Trial, left_to_do, list_trials, run_trials

TINY = "shape:tipo-100m/1:q4_0"
HERE = {"platform": "local", "memory_bytes": 24 << 30, "gpus": [], "cpu": {"model": "A CPU"}}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Keep models in a folder of the test."""
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path))
    return tmp_path


def run_of(name, context, reason=None):
    """Return what is looked at of a run."""
    return SimpleNamespace(
        config={"model": {"name": name}, "engine": {"options": {"context": context}}},
        complete=reason is None,
        incomplete_reason=reason,
        sessions=[{"machine": HERE}],
    )


def shapes_in(cache: Path) -> list[str]:
    """Return the models that lie in the cache."""
    return sorted(path.name for path in cache.rglob("*.gguf"))


def test_trials_keep_the_contexts_of_a_model_together():
    """A model is made once for all its contexts; Ollama's have their quantisation in the name."""
    trials = list_trials(["qwen3-8b", "ollama:x:7b"], ["q8_0", "f16"], [2048, 65_536], "embedded")

    assert [(t.model, t.context, t.engine) for t in trials] == [
        ("shape:qwen3-8b:q8_0", 2048, "embedded"),  # it was trained for 40,960
        ("shape:qwen3-8b:f16", 2048, "embedded"),
        ("ollama:x:7b", 2048, "ollama"),
        ("ollama:x:7b", 65_536, "ollama"),
    ]


@pytest.mark.parametrize(
    ("run", "left"),
    [
        (run_of("shape:qwen3-8b:q4_k_m", 2048), False),
        (run_of("shape:qwen3-8b:q4_k_m", 2048, "engine out of memory"), False),
        (run_of("shape:qwen3-8b:q4_k_m", 2048, "model refused"), False),
        (run_of("shape:qwen3-8b:q4_k_m", 2048, "engine lost"), True),
        (run_of("shape:qwen3-8b:q4_k_m", 2048, "interrupted"), True),
        (run_of("shape:qwen3-8b:q4_k_m", 8192), True),
        (run_of("shape:qwen3-8b:q8_0", 2048), True),
    ],
)
def test_a_cell_is_run_until_it_is_settled(run, left):
    """A whole run settles it, and one whose engine could not load; a cut one is gone on with."""
    trial = Trial("shape:qwen3-8b:q4_k_m", 2048, "llama-server")

    assert left_to_do([trial], [run], machine_of(HERE)) == ([trial] if left else [])


def test_a_run_of_another_machine_settles_nothing():
    """Each machine measures for itself."""
    trial = Trial("shape:qwen3-8b:q4_k_m", 2048, "llama-server")
    other = machine_of({**HERE, "memory_bytes": 64 << 30})

    assert left_to_do([trial], [run_of(trial.model, 2048)], other) == [trial]


def test_a_hopeless_cell_is_left_out_unless_asked_for():
    """What is far too large could take the machine with it."""
    small = Machine("small", "Small", (), 1 << 30, "a test")
    trials = [Trial("shape:qwen3-8b:f16", 2048, "llama-server"), Trial("ollama:x", 2048, "ollama")]

    assert left_to_do(trials, [], small) == trials[1:]
    assert left_to_do(trials, [], small, hopeless=True) == trials


def test_a_failure_does_not_keep_others_from_being_tried(cache):
    """Every trial is made; the failed one is told with its reason."""
    tried, said = [], []

    def measure(trial):
        tried.append(trial.context)
        if trial.context == 2048:
            raise EngineLostError("it died")
        return SimpleNamespace(complete=True, path="a run")

    trials = [Trial("ollama:x", context, "ollama") for context in (2048, 8192)]
    wrong = run_trials(trials, measure, said.append)

    assert tried == [2048, 8192]
    assert wrong == ["ollama:x at 2,048 tokens in ollama: it died"]
    assert said[-1] == "measured: a run"
    assert not shapes_in(cache)


def test_a_session_that_ends_leaves_the_rest(cache):
    """The run that it cut is no failure, nothing is tried after it, and it is said how much is."""
    tried, said = [], []

    def measure(trial):
        tried.append(trial.context)
        return SimpleNamespace(complete=False, path="a run")

    trials = [Trial("ollama:x", context, "ollama") for context in (2048, 8192, 32_768)]
    assert run_trials(trials, measure, said.append, ended=lambda: bool(tried)) == []
    assert tried == [2048]
    assert said[-1] == "this session ends: 2 cells are left; go on in a new one"
    assert not shapes_in(cache)


def test_an_interrupt_ends_the_campaign(cache):
    """The user's signal is no failure of one cell; a model made for it is not left behind."""

    def measure(trial):
        resolve_model(trial.model, cache=cache)
        raise InterruptedRunError("stopped")

    with pytest.raises(InterruptedRunError):
        run_trials([Trial(TINY, 512, "llama-server")], measure, [].append)
    assert not shapes_in(cache)


@pytest.mark.parametrize("before", [True, False])
def test_a_synthetic_model_is_removed_unless_it_was_there(before, cache):
    """It stays for all contexts of its own, and goes with what lies beside it."""
    if before:
        resolve_model(TINY, cache=cache)
    there = []

    def measure(trial):
        there.append(shapes_in(cache))
        resolve_model(trial.model, cache=cache)
        return SimpleNamespace(complete=True, path="a run")

    run_trials([Trial(TINY, c, "llama-server") for c in (256, 512)], measure, [].append)

    assert len(there[1]) == 1
    assert shapes_in(cache) == (there[1] if before else [])
    assert bool(list(cache.rglob("*.json"))) is before
