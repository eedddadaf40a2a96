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
    return {"kind": "ollama", "exact": True, "ready_s": 3.0, **changes}


def variation(share):
    """One row of the variation between sessions."""
    return {
        "metric": "ttft_s", "case": "chat", "sessions": [[1.0], [1.0]],
        "repeatability": {"between_share": share},
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
        "variation": [variation(0.02)], "rounds": [round_of()],
    }  # fmt: skip
    return NodeEvidence(**{**given, **changes})


def test_nothing_is_measured_on_a_t4_that_was_not():
    """What a laptop measured proves nothing about a T4."""
    on_t4 = [there for _, there in verdicts(full())]

    assert set(on_t4) == {"predicted", "not yet run"}


def test_a_t4s_own_validation_speaks_for_a_t4():
    """There, both columns say the same."""
    evidence = full(T4, vram_peak_bytes=6 * GIB)

    assert all(here == there for here, there in verdicts(evidence))
    assert verdicts(evidence)[2] == ("measured", "measured")


def test_nothing_looked_at_is_nothing_said():
    """An empty validation has no verdict but that."""
    assert {word for pair in verdicts(NodeEvidence(LAPTOP)) for word in pair} == {"not yet run"}


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        (2, {"machine": T4, "vram_peak_bytes": 16 * GIB}),
        (3, {"variation": [variation(0.02), variation(0.3)]}),
        (4, {"rounds": [round_of(), round_of(exact=False)]}),
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
