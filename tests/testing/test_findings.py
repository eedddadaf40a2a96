"""What a validation found is kept step by step, and shown without a node."""

import json

import pytest

from shoestring.errors import BadRunError
from shoestring.testing.findings import Findings

ABOUT = {
    "begun_utc": "2026-01-01T00:00:00Z", "model": "pypi:gemma3-270m", "suite": "smoke",
    "machine": {
        "platform": "local", "os": "Linux", "cpu": {"model": "CPU", "cores_usable": 2.0},
        "memory_bytes": 24 * 2**30, "gpus": [], "gpus_unavailable": "NVML: none",
    },
}  # fmt: skip
SPANS = [
    {"name": "start ollama", "start_s": 0.0, "end_s": 1.0},
    {"name": "first answer in Open WebUI", "start_s": 9.0, "end_s": 10.0},
]
ROUND = {
    "kind": "ollama", "exact": True, "ready_s": 3.5, "planned": 20, "rows": 20, "twice": 0,
    "missing": 0, "failed": 1, "orphans": 0, "runs": 1, "foreign": 0, "complete": True,
    "failed_by_reason": {"reset": 1}, "started_again": True, "sign_up_refused": True, "ends": [],
}  # fmt: skip


@pytest.fixture
def findings(tmp_path):
    """A validation that has just begun."""
    return Findings.begin(tmp_path / "validation", ABOUT)


def test_a_validation_that_was_cut_goes_on(findings):
    """What was found is found again; the second beginning changes nothing."""
    findings.put("start", {"spans": SPANS})
    again = Findings.begin(findings.folder, {**ABOUT, "begun_utc": "later"})

    assert again.get("start") == {"spans": SPANS}
    assert again.about["begun_utc"] == ABOUT["begun_utc"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "ollama:a"},
        {"suite": "chat"},
        {"machine": {**ABOUT["machine"], "memory_bytes": 8 * 2**30}},
    ],
)
def test_a_validation_of_something_else_is_not_gone_on_with(findings, changes):
    """Least of all one of another machine: its figures would be called this one's."""
    with pytest.raises(BadRunError, match="begun with another"):
        Findings.begin(findings.folder, {**ABOUT, **changes})


def test_nothing_found_is_shown_as_nothing(findings):
    """No step was made: each part says so, and none fails."""
    parts = [
        findings.machine(), findings.start(), findings.restarts(), findings.variation(),
        findings.repeatability(), findings.interruptions(), findings.pictures(),
        findings.claims(""), findings.provenance(),
    ]  # fmt: skip

    assert all(part.text and part.html for part in parts)
    assert "no start of a node was timed" in parts[1].text
    assert "No pictures were taken." in parts[6].text


def test_what_was_found_is_shown(findings):
    """Starts, interruptions and the claims that rest on them."""
    findings.put("start", {"spans": SPANS})
    findings.put("restarts", {"starts": [SPANS, SPANS], "run_ids": []})
    findings.put("interruptions", {"rounds": [ROUND]})

    assert "answers in Open WebUI after 10" in findings.restarts().text
    assert "| ollama | 1 | 3.50 | 3.50 | 20 | 20 | 0 |" in findings.interruptions().text
    assert "2 full restarts" in findings.claims("").text
    assert "after 1 of 1 kills (ollama)" in findings.claims("").text


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({**ABOUT, "schema_version": 9})])
def test_a_folder_that_holds_no_validation_is_refused(tmp_path, text):
    """One line names the folder."""
    (tmp_path / "validation.json").write_text(text)

    with pytest.raises(BadRunError, match=str(tmp_path)):
        Findings.read(tmp_path)


def test_a_damaged_step_is_named(findings):
    """It is not taken for a step that was never made."""
    (findings.folder / "start.json").write_text("{")

    with pytest.raises(BadRunError, match=r"start\.json is damaged"):
        findings.start()
