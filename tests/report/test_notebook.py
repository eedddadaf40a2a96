import os
import signal
import subprocess
import sys

import nbformat
import psutil
import pytest

from shoestring.errors import BadRunError, ShoestringError
from shoestring.report.execution import execute_and_render
from shoestring.report.notebook import execute_notebook
from shoestring.testing.synthetic import write_synthetic_run


@pytest.fixture
def make_notebook(tmp_path):
    """Return a builder of a notebook with a parameters cell and one more."""

    def make(source):
        cell = nbformat.v4.new_code_cell
        parameters = cell('out = "x"  # a folder', metadata={"tags": ["parameters"]})
        path = tmp_path / "n.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[parameters, cell(source)]), path)
        return path

    return make


def _execute(path, tmp_path):
    execute_notebook(path, tmp_path / "copy.ipynb", {}, progress=False)


def test_an_error_of_a_cell_is_one_line(make_notebook, tmp_path):
    """A failed cell is named by its own error's last line, without a traceback."""
    path = make_notebook("raise ValueError('first\\nlast')")

    with pytest.raises(ShoestringError, match=r"^n\.ipynb: ValueError: last$"):
        _execute(path, tmp_path)


def test_an_own_error_keeps_its_class(make_notebook, tmp_path):
    """A user's mistake inside the notebook is a user's mistake outside: exit status 2."""
    path = make_notebook("from shoestring.errors import BadRunError\nraise BadRunError('no run')")

    with pytest.raises(BadRunError, match=r"^no run$"):
        _execute(path, tmp_path)


def test_a_killed_kernel_is_a_failure(make_notebook, tmp_path):
    """A kernel killed from outside, as for want of memory, is not taken for success."""
    path = make_notebook("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")

    with pytest.raises(ShoestringError, match="the kernel died"):
        _execute(path, tmp_path)


def test_a_failed_notebook_is_rendered_from_its_run(make_notebook, tmp_path):
    """What a failed notebook's run has is shown, with the failure on top."""
    out = tmp_path / "results"
    path = make_notebook(
        "from pathlib import Path\n"
        "from shoestring.testing.synthetic import write_synthetic_run\n"
        "write_synthetic_run(Path(out) / 'run', killed=True)\n"
        "raise RuntimeError('the engine fell over')"
    )
    write_synthetic_run(out / "earlier")

    with pytest.raises(ShoestringError, match="the engine fell over"):
        execute_and_render(path, tmp_path / "c.ipynb", tmp_path / "c.html", {"out": str(out)})

    page = (tmp_path / "c.html").read_text()
    assert "the engine fell over" in page
    assert "killed before it ended" in page
    assert 'role="img"' in page


def test_the_first_failure_is_told_where_the_report_fails_too(make_notebook, tmp_path):
    """A report that cannot be made does not hide why the notebook failed."""
    (tmp_path / "c.html").mkdir()
    path = make_notebook("raise RuntimeError('the disk is full')")

    with pytest.raises(ShoestringError, match="the disk is full"):
        execute_and_render(path, tmp_path / "c.ipynb", tmp_path / "c.html", {})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_kernel(number, make_notebook, tmp_path):
    """SIGTERM and SIGINT end the kernel too, and the status is 130."""
    started = tmp_path / "started"
    path = make_notebook(
        f"import os, time\nopen({str(started)!r}, 'x').write(str(os.getpid()))\ntime.sleep(600)"
    )
    os.mkfifo(tmp_path / "ready")
    source = path.read_text().replace(
        "time.sleep", f"open({str(tmp_path / 'ready')!r}, 'w').close()\\ntime.sleep"
    )
    path.write_text(source)
    command = [sys.executable, "-c", "from shoestring.cli import main; main()", "notebook"]
    process = subprocess.Popen(
        [*command, str(path), "--out", str(tmp_path / "c.ipynb")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with (tmp_path / "ready").open() as ready:
        ready.read()
    kernel = psutil.Process(int(started.read_text()))

    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)

    psutil.wait_procs([kernel], timeout=10)
    assert not kernel.is_running()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr


def test_the_home_folder_is_left_alone(run, tmp_path):
    """Drawing, executing and rendering write nothing into the home folder but our cache."""
    home = tmp_path / "home"
    home.mkdir()
    names = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", "from shoestring.cli import main; main()", "report"]
    subprocess.run(
        [*command, str(run.path), "--html", str(tmp_path / "r.html")],
        env={**environment, "HOME": str(home), "SHOESTRING_CACHE": str(tmp_path / "cache")},
        check=True, capture_output=True,
    )  # fmt: skip

    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []
