import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import shoestring.analysis.warnings as rules
from shoestring.analysis import compare, noise, stats
from shoestring.analysis.metrics import RequestMetrics
from shoestring.analysis.summary import summarise

TEXT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
ROOM = Path(rules.__file__).parent


def _cells(heading):
    """Return the names in the first column of the tables below a heading."""
    section = TEXT.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_field_of_a_request_is_defined():
    """The table of the docs has exactly the fields of RequestMetrics."""
    assert _cells("A request") == {field.name for field in fields(RequestMetrics)}


def test_every_metric_of_a_run_is_defined(run):
    """The table of the docs has exactly the metrics of the summary, and what each is made of."""
    metrics = summarise(run)["metrics"]
    assert _cells("A run") == {*metrics, *metrics["ttft_s"]}


def test_every_field_of_the_summary_is_defined(run):
    """The docs name each top-level field of report --json, and no other."""
    assert _cells("The other fields of `report --json`") == set(summarise(run)) - {"metrics"}


def test_the_note_is_answered_with_fields_that_exist():
    """What the section on LocalLLMEngine calls timings.X is a field of RequestMetrics."""
    section = TEXT.split("`LocalLLMEngine`\n", 1)[1]
    named = set(re.findall(r"timings\.(\w+)", section))
    assert len(named) >= 5
    assert named <= {field.name for field in fields(RequestMetrics)}


PARTS = (
    "requests", "goodput", "memory", "calibration", "token_counts", "energy", "interruptions",
    "native",
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_a_field_is_named(run, part):
    """What stands inside a field is named in the docs too."""
    assert all(f"`{name}`" in TEXT for name in summarise(run)[part])


def test_every_part_of_a_case_is_named(make_run):
    """What stands in a case, and inside its parts, is named in the docs."""
    for case in summarise(make_run(wide=True))["cases"]:
        parts = [case, *(case[name] or {} for name in ("hardware", "structured_valid", "arrivals"))]
        assert all(f"`{name}`" in TEXT for part in parts for name in part)


def test_every_warning_is_listed():
    """The docs have exactly the codes that the rules use."""
    source = "".join(Path(room.__file__).read_text(encoding="utf-8") for room in (rules, noise))
    codes = set(re.findall(r'\bwarning\(\s*f?"([a-z_{}]+)"', source))
    codes.discard("few_samples_p{q}")
    assert _cells("Warnings") == codes | {"few_samples_p90", "few_samples_p99"}


def test_the_numbers_of_the_statistics_are_the_codes():
    """Floors, blocks, resamples and verdicts in the docs are those of the code."""
    assert f"n < {stats.PERCENTILE_FLOORS[90]}; n < {stats.PERCENTILE_FLOORS[99]}" in TEXT
    assert f"fewer than {stats.MIN_BLOCKS} blocks" in TEXT
    assert f"({stats.RESAMPLES:,} resamples" in TEXT
    for verdict in (compare.FASTER, compare.SLOWER, compare.NO_DIFFERENCE, compare.TOO_FEW_BLOCKS):
        assert f"`{verdict}`" in TEXT


def test_importing_the_room_is_cheap():
    """Neither the room nor what needs no arrays imports numpy or pandas."""
    code = (
        "import sys, shoestring.analysis, shoestring.analysis.metrics, shoestring.analysis.stats,"
        " shoestring.analysis.summary, shoestring.analysis.compare;"
        "print(sorted({'numpy', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_room_imports_no_engine_and_only_the_records_of_measure():
    """Imports go downwards: no engine, and of measure only the format of the record."""
    imported = {
        name
        for path in ROOM.glob("*.py")
        for name in re.findall(
            r"^(?:from|import) (shoestring\.[\w.]+)", path.read_text("utf-8"), re.MULTILINE
        )
        if not name.startswith("shoestring.analysis")
    }
    assert imported <= {
        "shoestring.errors",
        "shoestring.measure.records",
        "shoestring.measure.rows",
    }
