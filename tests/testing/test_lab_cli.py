import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from shoestring.testing.lab_cli import lab

CODE = """
import sys, click
from shoestring.errors import ShoestringError
from shoestring.testing.lab_cli import lab
try:
    sys.exit(lab(standalone_mode=False))
except ShoestringError as error:
    print("Error:", error, file=sys.stderr)
    sys.exit(error.exit_status)
except (KeyboardInterrupt, click.Abort):
    sys.exit(130)
"""
COMMAND = [sys.executable, "-P", "-c", CODE]
LIMIT_S = 120.0


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A state folder of the test's own; a lab in it is ended."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path / "state"))
    yield tmp_path / "state"
    call("down")


def call(*words, **more):
    """Run `shoestring lab WORDS`."""
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=LIMIT_S,
                          check=False, **more)  # fmt: skip


def up(*words):
    """Bring a lab up and return what it says; skip where this machine has none."""
    done = call("up", *words, "--json")
    if done.returncode == 1 or "missing" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_lab_comes_up_runs_programs_and_leaves_nothing(state):
    """Up, exec with the terminal's files and status, status, set, cut, mend, forward, down."""
    said = up("--hosts", "2", "--delay", "1ms", "--rate", "1Gbit/s")
    assert said["status"] == "up"
    assert said["addresses"] == {"home": "10.77.0.1", "host1": "10.77.0.2", "host2": "10.77.0.3"}
    assert said["plan"]["hosts"]["host2"]["rate_bytes_per_s"] == 125e6
    code = "import sys; print(sys.stdin.read().upper()); print('e', file=sys.stderr); sys.exit(7)"
    done = call("exec", "host1", "--", sys.executable, "-c", code, input="word")
    assert (done.returncode, done.stdout, done.stderr) == (7, "WORD\n", "e\n")
    assert call("exec", "host1", "--", "sh", "-c", "kill -9 $$").returncode == 128 + 9
    assert call("set", "host1", "--delay", "2ms", "--rate", "none").returncode == 0
    assert call("cut", "host2").returncode == 0
    status = json.loads(call("status", "--json").stdout)
    assert status["plan"]["hosts"]["host1"]["delay_s"] == 0.002
    assert status["plan"]["hosts"]["host1"]["rate_bytes_per_s"] is None
    assert status["router"]["cut"] == ["host2"]
    assert [row["status"] for row in status["processes"]] == [7, -9]
    assert call("mend", "host2").returncode == 0
    assert int(call("forward", "host1", "80").stdout) > 0
    shown = call("status").stdout
    assert "host2        10.77.0.3    delay 1ms, rate 125MB/s" in shown
    keeper = (state / "lab" / "keeper.pid").read_text()
    assert call("down").stdout == "down\n"
    assert list(state.iterdir()) == []
    assert (
        not Path("/proc", keeper).exists()
        or "zombie" in Path("/proc", keeper, "status").read_text()
    )
    assert call("down").stdout == "no lab was up\n"
    assert json.loads(call("status", "--json").stdout) == {"status": "down"}


def test_a_killed_lab_is_removed_by_down_and_by_up(state):
    """SIGKILL of the keeper ends the processes; the folder goes with the next command."""
    for undo in ("down", "up"):
        up("--hosts", "1")
        sleeper = subprocess.Popen([*COMMAND, "exec", "host1", "--memory", "1GiB", "--", "sleep",
                                    "1000"], stderr=subprocess.PIPE)  # fmt: skip
        while not (rows := json.loads(call("status", "--json").stdout)["processes"]):
            pass
        process = os.pidfd_open(rows[0]["pid"])
        os.kill(int((state / "lab" / "keeper.pid").read_text()), signal.SIGKILL)
        _, said = sleeper.communicate(timeout=LIMIT_S)
        assert b"does not answer" in said
        os.close(process)
        assert call(undo).returncode == 0
        assert not Path(f"/proc/{rows[0]['pid']}").exists()
    assert call("down").stdout == "down\n"
    assert list(state.iterdir()) == []


def test_a_second_lab_is_refused(state):
    """One line with the mend; the first goes on."""
    up("--hosts", "1")
    done = call("up")
    assert (done.returncode, done.stderr) == (2, "Error: a lab is up: shoestring lab down\n")
    assert json.loads(call("status", "--json").stdout)["status"] == "up"
    assert (state / "lab").exists()


def test_ctrl_c_while_it_comes_up_leaves_nothing(state):
    """However far it has come."""
    with subprocess.Popen([*COMMAND, "up", "--hosts", "40"], stdout=subprocess.DEVNULL) as process:
        while not (state / "lab").exists() and process.poll() is None:
            pass
        process.send_signal(signal.SIGINT)
        status = process.wait(LIMIT_S)
    assert status == 130
    assert list(state.iterdir()) == []


SLEEPER = """
import sys, time
try:
    print("here", flush=True)
    time.sleep(1000)
except KeyboardInterrupt:
    sys.exit(5)
"""


def test_ctrl_c_reaches_the_program(state):
    """Which may end as it likes."""
    up("--hosts", "1")
    with subprocess.Popen([*COMMAND, "exec", "home", "--", sys.executable, "-c", SLEEPER],
                          stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 5
    assert (state / "lab").exists()


def test_a_file_is_read(state, tmp_path):
    """And its hosts come up."""
    file = tmp_path / "lab.toml"
    file.write_text('[hosts.home]\n[hosts.slow]\ndelay = "10ms"\n')
    assert up(str(file))["plan"]["hosts"]["slow"]["delay_s"] == 0.01
    assert (state / "lab").exists()


@pytest.mark.parametrize(("words", "said"), [
    (["up", "no.toml"], "Error: no.toml: No such file or directory\n"),
    (["up", "no.toml", "--delay", "1ms"], "Error: --delay 1ms: no.toml says it all\n"),
    (["up", "--delay", "10"], "Error: --delay 10 is no time; write it as 20ms\n"),
    (["up", "--rate", "5Mb/s"], "Error: --rate 5Mb/s: bits or bytes? Write Gbit/s or GB/s\n"),
    (["up", "--loss", "3"], "Error: loss 3: it is from 0 to 1\n"),
    (["up", "--hosts", "0"], "Error: --hosts 0: it is from 1 to 63\n"),
    (["up", "--mtu", "1"], "Error: mtu 1: it is from 576 to 65535\n"),
    (["exec", "home", "true"], "Error: no lab is up: shoestring lab up\n"),
    (["set", "home"], "Error: nothing to set: give --delay, --jitter, --loss or --rate\n"),
    (["cut", "home"], "Error: no lab is up: shoestring lab up\n"),
])  # fmt: skip
def test_a_wrong_value_is_one_line_and_status_2(state, words, said):
    """It names the value and what would do; nothing comes up."""
    done = call(*words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    assert not (state / "lab").exists()


def test_help_teaches():
    """Every command is there, and a file to copy."""
    said = CliRunner().invoke(lab, ["--help"]).output
    for word in ("up", "down", "status", "exec", "set", "cut", "mend", "forward", "[[links]]"):
        assert word in said
