import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shoestring.measure.records import read_run
from shoestring.testing.synthetic import write_synthetic_run

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_measure.ipynb"


@pytest.fixture(scope="session", autouse=True)
def _home_untouched(tmp_path_factory):
    """Keep what Jupyter and Matplotlib write out of the home folder."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR"):
            patch.setenv(name, str(home / name.lower()))
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Return a synthetic run with three failures."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return read_run(write_synthetic_run(folder, failures=3))


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """Return a synthetic run of every kind of case on a GPU, by an engine with its own clock."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return read_run(write_synthetic_run(folder, engine="ollama", gpu=True, wide=True))


@pytest.fixture(scope="session")
def killed(tmp_path_factory):
    """Return a synthetic run whose process was killed."""
    return read_run(write_synthetic_run(tmp_path_factory.mktemp("runs") / "run", killed=True))


@pytest.fixture(scope="session")
def changed():
    """Return a function that copies a run with its rows and its config changed."""

    def change(run, change_row=id, change_config=id):
        rows, config = copy.deepcopy((run.rows, run.config))
        for row in rows:
            change_row(row)
        change_config(config)
        return replace(run, rows=rows, config=config)

    return change


@pytest.fixture(scope="session")
def uneven(run, changed):
    """Return a run in which the case chat-128 was measured at concurrencies 1 and 4."""

    def one_name(row):
        if row["case"] == "chat-128-c4":
            row["case"] = "chat-128"

    return changed(run, one_name)


@pytest.fixture(scope="session")
def execute():
    """Return a function that executes the notebook with the plain papermill command."""

    def papermill(copy, **parameters):
        pairs = [part for item in parameters.items() for part in ("-p", *item)]
        command = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(copy), *pairs]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)

    return papermill


@pytest.fixture(scope="session")
def executed(run, execute, tmp_path_factory):
    """Return the notebook as executed over the synthetic run."""
    folder = tmp_path_factory.mktemp("executed")
    copy = folder / "copy.ipynb"
    done = execute(copy, run=str(run.path), out=str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return copy
