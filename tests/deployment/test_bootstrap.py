"""What a built notebook calls: programs whose words are seen, and a notebook shown again."""

import ast
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from shoestring.stack import bootstrap

COPY = """
import shutil
shutil.copy('{made}', words[words.index("--out") + 1])
"""


def executed(folder, name="n"):
    """Write an executed notebook with prose, a table, and what a cell printed."""
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["seen before\n"]},
        {"output_type": "display_data", "metadata": {"x": 1},
         "data": {"text/html": ["<b>\n", "bold</b>"], "application/json": {"a": [1]}}},
        {"output_type": "error", "ename": "E", "evalue": "", "traceback": []},
    ]  # fmt: skip
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "prose"]},
        {"cell_type": "code", "source": "1", "outputs": outputs},
    ]
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    return path


@pytest.fixture
def shown(monkeypatch):
    """What was shown in the running notebook."""
    import IPython.display

    seen = []
    monkeypatch.setattr(IPython.display, "display", lambda one: seen.append(one.data))
    monkeypatch.setattr(
        IPython.display,
        "publish_display_data",
        lambda data, metadata: seen.append((data, metadata)),
    )
    return seen


def test_it_needs_nothing_but_the_standard_library():
    """It runs before anything is installed; IPython is only where it shows."""
    tree = ast.parse(Path(bootstrap.__file__).read_text())
    imported = {
        alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_a_program_is_seen_and_its_status_returned(capfd):
    """Both of its streams, in order; a failure is a number."""
    code = "import sys; print('one', flush=True); print('two', file=sys.stderr); sys.exit(3)"
    assert bootstrap.call(sys.executable, "-c", code) == 3
    assert capfd.readouterr().out == "one\ntwo\n"


def test_an_interrupt_lets_the_program_end_in_order(capfd):
    """It is interrupted once, its last words are seen, and then the cell is interrupted."""
    code = (
        "import time, os, signal\n"
        f"try: os.kill({os.getpid()}, signal.SIGUSR1); time.sleep(60)\n"
        "except KeyboardInterrupt: print('in order')"
    )

    def interrupt(_number, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            bootstrap.call(sys.executable, "-u", "-c", code)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert capfd.readouterr().out == "in order\n"


def test_an_executed_notebook_is_shown_again(tmp_path, shown):
    """Prose and rich outputs in their order; what was printed was seen while it ran."""
    bootstrap.show(executed(tmp_path))
    assert shown == [
        "# Title\nprose",
        ({"text/html": "<b>\nbold</b>", "application/json": {"a": [1]}}, {"x": 1}),
    ]


def test_parameters_go_to_the_notebook(tmp_path, play, shown):
    """By name, as words; the report's path comes back."""
    notes = play("shoestring", COPY.format(made=executed(tmp_path, "made")))
    given = {"model": "a b", "rounds": 3, "fast": True}
    assert bootstrap.run_notebook("n", given, tmp_path) == tmp_path / "n.html"
    assert notes.read_text() == (
        f"shoestring notebook n --out {tmp_path}/n.ipynb --html {tmp_path}/n.html "
        "-p model a b -p rounds 3 -p fast True\n"
    )
    assert shown


def test_a_failed_notebook_is_shown_and_then_fails(tmp_path, play, shown):
    """As far as it came; a session that failed does not look like one that did not."""
    play("shoestring", COPY.format(made=executed(tmp_path, "made")) + "sys.exit(2)")
    with pytest.raises(RuntimeError, match="n ended with status 2"):
        bootstrap.run_notebook("n", {}, tmp_path)
    assert shown


def test_an_old_copy_is_not_shown_for_one_that_failed_at_once(tmp_path, play, shown):
    """Nothing is shown of a notebook that did not begin."""
    play("shoestring", "sys.exit(2)")
    executed(tmp_path)
    with pytest.raises(RuntimeError, match="n ended with status 2"):
        bootstrap.run_notebook("n", {}, tmp_path)
    assert shown == []


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_a_program_ends_when_the_kernel_is_killed(tmp_path):
    """Else it would measure on, beside the one of the next try."""
    started = tmp_path / "pid"
    code = (
        "import os, signal, pathlib\n"
        f"pathlib.Path({str(started)!r} + '.new').write_text(str(os.getpid()))\n"
        f"os.rename({str(started)!r} + '.new', {str(started)!r})\n"
        "signal.pause()"
    )
    words = (sys.executable, "-c", code)
    calling = f"from shoestring.stack import bootstrap; bootstrap.call(*{words!r})"
    with subprocess.Popen([sys.executable, "-c", calling]) as kernel:
        while not started.exists():
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"it ended early: {kernel.wait(0.05)}")
        program = psutil.Process(int(started.read_text()))
        kernel.kill()
    program.wait(60)
