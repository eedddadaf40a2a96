"""Claims are called measured only on the hardware that was measured."""

from dataclasses import replace

import pytest

from shoestring.plan.candidates import CANDIDATES, CONTEXTS, QUANTISATIONS
from shoestring.plan.machines import CATALOGUE, machine_of
from shoestring.report.feasibility import Evidence, make_cells
from shoestring.report.node_claims import NodeEvidence, claims_table

GIB = 2**30
LAPTOP = {
    "platform": "local", "os": "Linux", "cpu": {"model": "CPU", "cores_usable": 2},
    "memory_bytes": 24 * GIB, "gpus": [], "gpus_unavailable": "NVML: none",
}  # fmt: skip
T4 = {
    **LAPTOP, "platform": "kaggle",
    "gpus": [{"index": 0, "name": "Tesla T4", "vram_bytes": 15 * GIB}],
}  # fmt: skip


def round_of(**changes):
    """One round of the interruption test."""
    return {"kind": "ollama", "wrong": [], "ready_s": 3.0, **changes}


def variation(share, sessions=5):
    """One row of the variation between sessions."""
    return {
        "metric": "ttft_s", "case": "chat", "sessions": [[1.0]] * sessions,
        "repeatability": {"between_share": share, "reason": None},
    }  # fmt: skip


def cells_on(machine):
    """The predicted matrix, with a column for one machine."""
    return make_cells([], [*CATALOGUE, machine_of(machine)], CANDIDATES, QUANTISATIONS, CONTEXTS)


def verdicts(evidence):
    """The verdict of each claim, here and on a T4."""
    return [(row[1], row[3]) for row in claims_table(evidence).rows]


def full(machine=LAPTOP, **changes):
    """Everything was looked at."""
    given = {
        "machine": machine, "cells": cells_on(machine), "starts_s": [10.0, 12.0],
        "variation": [variation(0.02)], "rounds": [round_of()], "parameters": 8_030_261_248,
    }  # fmt: skip
    return NodeEvidence(**{**given, **changes})


def test_nothing_is_measured_on_a_t4_that_was_not():
    """What a laptop measured proves nothing about a T4."""
    on_t4 = [there for _, there in verdicts(full())]

    assert set(on_t4) == {"predicted", "not yet run"}


def test_a_t4s_own_validation_speaks_for_a_t4():
    """There, both columns say the same."""
    evidence = full(T4, vram_peak_bytes=6 * GIB, gpu_verdict="gpu")

    assert all(here == there for here, there in verdicts(evidence))
    assert verdicts(evidence)[2] == ("measured", "measured")


def test_nothing_looked_at_is_nothing_said():
    """An empty validation has no verdict but that."""
    assert {word for pair in verdicts(NodeEvidence(LAPTOP)) for word in pair} == {"not yet run"}


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        (1, {"starts_s": [10.0, 61.0]}),
        (2, {"machine": T4, "vram_peak_bytes": 14 * GIB, "gpu_verdict": "offload"}),
        (4, {"rounds": [round_of(ready_s=61.0)]}),
        (3, {"variation": [variation(0.02), variation(0.3)]}),
        (4, {"rounds": [round_of(), round_of(wrong=["a row stands twice"])]}),
    ],
)
def test_a_claim_that_fails_says_so(row, changes):
    """A verdict is not only whether something was looked at."""
    assert verdicts(full(**changes))[row][0] == "measured: does not hold"


def test_measured_cells_count_before_predicted_ones():
    """Random weights are named where they stand for a model."""
    cells = cells_on(LAPTOP)
    here = machine_of(LAPTOP).name
    place = next(
        number for number, one in enumerate(cells)
        if one.machine.name == here and one.model.reasons and one.quantisation == "q4_k_m"
    )  # fmt: skip
    measured = Evidence("run", "llama-server 1", "shape:x:q4_k_m", True, "runs", None)
    cells[place] = replace(cells[place], measured=measured)
    row = claims_table(full(cells=cells)).rows[0]

    assert row[1] == "measured"
    assert row[2].startswith("1 of 1 cells")
    assert "random weights" in row[2]
    assert row[3] == "predicted"


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": 268_098_176},
        {"parameters": None},
        {"machine": {**T4, "gpus": T4["gpus"] * 2}},
        {"machine": {**T4, "gpus": [{**T4["gpus"][0], "vram_bytes": 8 * GIB}]}},
    ],
)
def test_only_a_7b_to_8b_model_on_one_whole_t4_speaks_for_the_note(changes):
    """A smaller model, two cards or half of one say nothing of it."""
    evidence = full(**{"machine": T4, "vram_peak_bytes": GIB, "gpu_verdict": "gpu", **changes})

    assert {there for _, there in verdicts(evidence)} == {"predicted", "not yet run"}


def test_four_restarts_are_too_few_to_call_a_figure_repeatable():
    """The note's claim is about sessions."""
    assert verdicts(full(variation=[variation(0.02, sessions=4)]))[3][0] == "not yet run"
