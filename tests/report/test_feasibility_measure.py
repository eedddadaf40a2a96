"""A campaign with a real engine: it fills a cell in, and has nothing left to do afterwards."""

import json

import pytest
from click.testing import CliRunner

from shoestring.report.cli import feasibility


@pytest.mark.engine
def test_a_campaign_fills_a_cell_in_once(tmp_path, monkeypatch):
    """The run is recorded with its context, the model is removed, the cell says measured."""
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path / "cache"))
    words = [
        "--measure", "--models", "tipo-100m", "--quantisations", "q4_0", "--contexts", "768",
        "--engine", "embedded", "--runs", str(tmp_path / "runs"), "--json",
    ]  # fmt: skip
    first, second = (
        CliRunner().invoke(feasibility, words, catch_exceptions=False) for _ in range(2)
    )

    (run,) = (tmp_path / "runs").iterdir()
    config = json.loads((run / "config.json").read_text())
    assert config["engine"]["options"]["context"] == 768
    (cell,) = [one for one in json.loads(first.stdout)["cells"] if one["standing"] == "measured"]
    assert (cell["verdict"], cell["measured"]["run_id"]) == ("runs", run.name)
    assert cell["measured"]["ram_peak_bytes"] > 0
    assert "0 of 1 cells are to be measured" in second.stderr
    assert not list((tmp_path / "cache").rglob("*.gguf"))
