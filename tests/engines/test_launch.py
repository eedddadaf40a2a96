"""A server of ours dies with the harness, says how it died, and leaves nothing behind."""

import signal
import socket
import subprocess
import sys

import psutil
import pytest

from shoestring.engines.launch import Launched, start_on_free_port
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


def test_a_killed_guard_leaves_no_server():
    """Stopping ends the server that nobody guards; until then it is lost, and says why."""
    launched = launch(CHILD)
    processes = family(launched.pid)
    processes[0].parent().kill()
    with pytest.raises(EngineLostError, match="server is lost: its guard was killed"):
        launched.wait_until(lambda: False, 60)
    assert processes[0].is_running()

    launched.stop()

    left = psutil.wait_procs(processes, timeout=5)[1]
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in left)


def test_who_answers_for_a_dead_server_is_another_program():
    """An answer on the port counts only while the server lives."""
    launched = launch("raise SystemExit(4)")
    launched._guard.wait()
    with pytest.raises(EngineLostError, match="status 4"):
        launched.wait_until(lambda: True, 60)
    launched.stop()


def test_a_port_that_was_taken_meanwhile_is_given_up_for_another():
    """The server that died for its port is started again."""
    ports = []
    with socket.socket() as other:

        def start(port: int) -> None:
            ports.append(port)
            if len(ports) == 1:
                other.bind(("127.0.0.1", port))
                other.listen()
                raise EngineLostError("address in use")

        start_on_free_port(start)
    assert len(set(ports)) == 2


def test_a_server_that_died_otherwise_is_not_started_again():
    """Its port is free: it would die again."""
    ports = []

    def start(port: int) -> None:
        ports.append(port)
        raise EngineLostError("no such model")

    with pytest.raises(EngineLostError, match="no such model"):
        start_on_free_port(start)
    assert len(ports) == 1


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
    code = "import os, signal; print(os.environ['WORD'], flush=True); signal.pause()"
    launched = launch(code, tmp_path)
    launched.wait_until(lambda: (tmp_path / "log").read_text() == "hush\n", 60)
    server = psutil.Process(launched.pid)
    words = [*server.cmdline(), *server.parent().cmdline()]
    launched.stop()

    assert code in words
    assert not any("hush" in word for word in words)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("SHOESTRING_API_KEY", False),
        ("HF_TOKEN", False),
        ("HUGGING_FACE_HUB_TOKEN", False),
        ("LLAMA_ARG_CTX_SIZE", False),
        ("OLLAMA_FLASH_ATTENTION", False),
        ("OLLAMA_MODELS", True),
        ("CUDA_VISIBLE_DEVICES", True),
        ("GGML_VK_VISIBLE_DEVICES", True),
        ("SSL_CERT_FILE", True),
    ],
)
def test_secrets_and_settings_of_the_user_stay_out(name, given, tmp_path, monkeypatch):
    """What no record would hold does not change what is measured; devices may be chosen."""
    monkeypatch.setenv(name, "x")
    launched = launch(f"import os; raise SystemExit(10 + ({name!r} in os.environ))", tmp_path)
    with pytest.raises(EngineLostError, match=f"status {10 + given}"):
        launched.wait_until(lambda: False, 60)
    launched.stop()


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
