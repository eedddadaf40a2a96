import copy
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from shoestring.analysis.summary import summarise
from shoestring.report.tables import run_tables
from shoestring.report.words import case_labels, verdict


def _session(run, **changes):
    environment = copy.deepcopy(run.environment)
    environment["sessions"][0].update(changes)
    return replace(run, environment=environment)


@given(st.lists(st.tuples(st.sampled_from(["a", "a-c1", "b"]), st.integers(1, 3)), unique=True))
def test_each_case_has_its_own_label(keys):
    """No two cases share a label, also where one is named as another is labelled."""
    assert len(set(case_labels(keys).values())) == len(keys)


def test_an_early_clock_is_early(run):
    """A negative error is told by its side, not by its sign."""
    early = _session(run, calibration={"ttft_error_s": -0.003, "gap_error_p99_s": None})

    assert "Our own clock was early by 3\xa0ms." in verdict(early, summarise(early))


def test_random_weights_are_named(run):
    """A run of a shape says that its text means nothing."""
    model = {**run.config["model"], "name": "shape:llama-3.1-8b:q4_k_m"}
    shape = replace(run, config={**run.config, "model": model})

    assert "The weights are random" in verdict(shape, summarise(shape))
    assert "random" not in verdict(run, summarise(run))


def test_a_missing_rate_is_left_out(run):
    """Where no decode rate is known, the sentence ends after the first token."""
    summary = copy.deepcopy(summarise(run))
    for case in summary["cases"]:
        case["metrics"]["decode_tokens_per_s"]["median"] = None

    assert "the rest" not in verdict(run, summary)


def test_unknown_graphics_are_not_none(run):
    """GPUs that could not be asked for are unknown; only an empty list is none."""
    machine = run.sessions[0]["machine"]
    shown = []
    for gpus in (None, [], [{"name": "T4"}]):
        odd = _session(run, machine={**machine, "gpus": gpus})
        table = run_tables(odd, summarise(odd))["sessions"]
        keys = [column.key for column in table.columns]
        shown.append(table.rows[0][keys.index("gpus")])

    assert shown == ["unknown", "none", "T4"]


def test_tables_tell_cases_apart(uneven):
    """Tails and goodput say at which concurrency a name was measured."""
    tables = run_tables(uneven, summarise(uneven))

    for name in ("tails", "goodput"):
        assert [row[:2] for row in tables[name].rows[:2]] == [("chat-128", 1), ("chat-128", 4)]


def test_the_run_as_a_whole_has_a_table(run):
    """The success rate stands in the report with its interval."""
    rate = run_tables(run, summarise(run))["run"].rows[0][1]

    assert rate.low < rate.median < rate.high
