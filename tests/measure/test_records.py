"""Both versions of the record are read; what the second added may be absent, and is checked."""

import json
from pathlib import Path

import pytest

from shoestring.errors import BadRunError
from shoestring.measure.records import SCHEMA_VERSION, read_run
from shoestring.measure.shapes import MORE_OF_ROW, OBJECTS, ROW, SAMPLE, misfit
from shoestring.testing.synthetic import write_synthetic_run

DOCS = Path(__file__).parents[2] / "docs" / "record-format.md"
GPU = {
    "index": 0, "vram_used_bytes": 1, "utilisation_percent": 2.0, "power_w": None,
    "temperature_c": 40, "sm_clock_hz": 1, "memory_clock_hz": 1, "throttle": ["power cap"],
}  # fmt: skip


def with_version(path: Path, version: int) -> Path:
    """Give a run without a manifest another schema version."""
    (path / "manifest.json").unlink(missing_ok=True)
    for name in ("config.json", "environment.json"):
        value = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps({**value, "schema_version": version}))
    return path


@pytest.mark.parametrize("version", [1, 2])
def test_versions_up_to_ours_are_read(tmp_path, version):
    """A run of either version has its rows."""
    path = with_version(write_synthetic_run(tmp_path / "run"), version)

    assert 70 == len(read_run(path).measured)


def test_a_newer_version_is_refused(tmp_path):
    """What a later shoestring wrote is not guessed at."""
    path = with_version(write_synthetic_run(tmp_path / "run"), SCHEMA_VERSION + 1)

    with pytest.raises(BadRunError, match=r"schema version 3.*update shoestring"):
        read_run(path)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("sample", {"gpus": [GPU], "steal_percent": 0.5, "engine_vram_bytes": None}),
        ("sample", {"gpus": None}),
        ("row", {"arrival_s": 1.5, "native": {"load_s": 0.1, "total_s": None}}),
        ("session", {"energy": {"energy_j": 5.0, "source": "energy counter", "gpus": []}}),
        ("session", {"memory": {"vram_source": None, "engine_reported": {"total_bytes": 1}}}),
        (
            "session",
            {"interruptions": [{"t_ns": 1, "reason": "connection refused", "down_s": 2.0,
                                "recovered": True, "restarted": False}]},
        ),
    ],
)  # fmt: skip
def test_what_version_2_added_is_read(name, more):
    """New parts fit their shapes."""
    assert misfit({**BASES[name], **more}, SHAPES[name]) is None


@pytest.mark.parametrize(
    ("name", "more", "fault"),
    [
        ("sample", {"gpus": [{"vram_used_bytes": 1}]}, "gpus.0.index is no int"),
        ("sample", {"gpus": [{**GPU, "throttle": "power"}]}, "gpus.0.throttle is no list"),
        ("sample", {"steal_percent": "1"}, "steal_percent is no number"),
        ("row", {"arrival_s": "1"}, "arrival_s is no number"),
        ("row", {"native": {"load_s": "1"}}, "native.load_s is no number"),
        ("session", {"energy": {"gpus": [{}]}}, "energy.gpus.0.index is no int"),
        ("session", {"interruptions": [{"t_ns": 1}]}, "interruptions.0.reason is no str"),
        ("session", {"memory": {"engine_reported": 5}}, "memory.engine_reported is no object"),
    ],
)
def test_damage_in_what_version_2_added_is_named(name, more, fault):
    """A part of another kind is refused with its place."""
    assert fault == misfit({**BASES[name], **more}, SHAPES[name])


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"arrival": "poisson", "rate_per_s": 0.5, "turns": 4, "fixed_length": False}, None),
        ({"thinking": 1}, "suite.cases.0.thinking is no bool"),
        ({"rate_per_s": "1"}, "suite.cases.0.rate_per_s is no number"),
    ],
)
def test_cases_of_version_2(tmp_path, more, fault):
    """What a case gained is checked, too."""
    path = write_synthetic_run(tmp_path / "run")
    config = json.loads((path / "config.json").read_text())
    config["suite"]["cases"][0].update(more)

    assert fault == misfit(config, OBJECTS["config.json"])


def test_every_part_is_documented():
    """What is checked stands in ``docs/record-format.md``."""
    text = DOCS.read_text()
    names = {*ROW, *MORE_OF_ROW, *SAMPLE, *OBJECTS["environment.json"]["sessions"][0]}

    assert [] == sorted(name for name in names if f'"{name}"' not in text)


SHAPES = {
    "row": {**ROW, **MORE_OF_ROW},
    "sample": SAMPLE,
    "session": OBJECTS["environment.json"]["sessions"][0],
}
BASES = {
    "row": {
        "id": "a", "session": 1, "phase": "measure", "block": 1, "case": "c", "concurrency": 1,
        "intended_ns": 0, "end_ns": 1, "status": "ok", "failure": None, "events": [],
    },
    "sample": {"session": 1, "t_ns": 0},
    "session": {"session": 1},
}  # fmt: skip
