"""A server of ours dies with the harness, says how it died, and leaves nothing behind."""

import signal
import subprocess
import sys

import psutil
import pytest

from shoestring.engines.launch import Launched
from shoestring.errors import EngineLostError, MissingError

CHILD = (
    "import subprocess as s, sys; s.Popen([sys.executable, '-c', 'input()'], stdin=s.PIPE).wait()"
)
HARNESS = """
import sys
from shoestring.engines.launch import Launched
launched = Launched("server", [sys.executable, "-c", sys.argv[1]], environment={}, log_path=None)
print(launched.pid, flush=True)
sys.stdin.read()
"""


def launch(code: str, tmp_path=None) -> Launched:
    """Start a server that is a line of Python."""
    log = tmp_path / "log" if tmp_path else None
    return Launched("server", [sys.executable, "-c", code], environment={"WORD": "hush"},
                    log_path=log)  # fmt: skip


def family(pid: int) -> list[psutil.Process]:
    """A process and its child, once it has one."""
    process = psutil.Process(pid)
    while not (children := process.children()):
        assert process.is_running()
    return [process, *children]


def test_stopping_ends_what_the_server_started():
    """The whole group goes, and stopping twice is allowed."""
    launched = launch(CHILD)
    processes = family(launched.pid)
    assert launched.death() is None

    launched.stop()
    launched.stop()

    assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_a_killed_harness_leaves_no_server():
    """SIGKILL of the harness ends the server and its children."""
    command = [sys.executable, "-c", HARNESS, CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as harness:
        processes = family(int(harness.stdout.readline()))
        harness.send_signal(signal.SIGKILL)

    assert psutil.wait_procs(processes, timeout=15)[1] == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "server died with status 3"),
        ("import os; os.kill(os.getpid(), 6)", "server died by signal 6"),
        ("import os; os.kill(os.getpid(), 9)", "out of memory?"),
    ],
)
def test_a_dead_server_says_how_it_died(code, said, tmp_path):
    """Waiting for it ends at once, with its status and the place of its log."""
    launched = launch(code, tmp_path)

    with pytest.raises(EngineLostError, match=said) as caught:
        launched.wait_until(lambda: False, 60)

    assert str(tmp_path / "log") in str(caught.value)
    launched.stop()


def test_secrets_go_by_the_environment_and_words_to_the_log(tmp_path):
    """What the server prints is kept; its variables stand in no command line."""
    launched = launch("import os; print(os.environ['WORD'])", tmp_path)
    with pytest.raises(EngineLostError):
        launched.wait_until(lambda: False, 60)
    launched.stop()

    assert (tmp_path / "log").read_text() == "hush\n"


def test_a_program_that_is_not_there_is_named(tmp_path):
    """One line, with what the system says."""
    with pytest.raises(MissingError, match="server cannot be started: No such file"):
        Launched("server", [str(tmp_path / "none")], environment={}, log_path=None)


def test_a_server_that_is_never_ready_is_given_up():
    """The limit is kept, and the message says what to do."""
    launched = launch("import signal; signal.pause()")

    with pytest.raises(EngineLostError, match=r"not ready within 0\.05 s"):
        launched.wait_until(lambda: False, 0.05)
    launched.stop()
