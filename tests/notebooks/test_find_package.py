import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def first_cell(tmp_path):
    """Return a function that runs the first code cell where the package is not installed."""
    import nbformat

    notebook = nbformat.read(ROOT / "notebooks" / "01_measure.ipynb", as_version=4)
    source = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    script = tmp_path / "cell.py"
    script.write_text(source)
    # A pip of our own says what it was asked for.
    fake = tmp_path / "fake" / "pip"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("")
    (fake / "__main__.py").write_text("import sys\nprint('pip', *sys.argv[1:])")

    def call(folder):
        command = [sys.executable, "-S", str(script)]
        environment = {**os.environ, "PYTHONPATH": str(fake.parent)}
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, env=environment
        )

    return call


def test_a_checkout_above_is_installed(first_cell, tmp_path):
    """In the notebooks folder of a checkout, the checkout is what is installed."""
    (tmp_path / "repo/src/shoestring").mkdir(parents=True)
    (tmp_path / "repo/src/shoestring/__init__.py").touch()
    (tmp_path / "repo/notebooks").mkdir()

    done = first_cell(tmp_path / "repo/notebooks")

    assert done.stdout.split()[-1] == str(tmp_path / "repo"), done.stderr


def test_a_wheel_beside_is_installed(first_cell, tmp_path):
    """Where only a wheel was uploaded, the wheel is what is installed."""
    wheel = tmp_path / "content" / "shoestring-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()

    done = first_cell(wheel.parent)

    assert done.stdout.split()[-1] == str(wheel), done.stderr


def test_nothing_found_is_one_clear_error(first_cell, tmp_path):
    """Without either, the last line says what to put where, and pip is not called."""
    (tmp_path / "empty").mkdir()

    done = first_cell(tmp_path / "empty")

    assert "pip" not in done.stdout
    assert done.stderr.splitlines()[-1].startswith("ImportError: shoestring is not here: put")
