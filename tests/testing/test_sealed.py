import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shoestring.testing.sealed import COMMAND, run_sealed, why_not

PYTHON = (sys.executable, "-I", "-c")
TRY = """
import socket
def connect(family, *to):
    with socket.socket(family) as one:
        try:
            one.connect(to)
        except ConnectionRefusedError:
            pass
"""
PROGRAM = Path(sys.executable).name


@pytest.fixture(scope="module", autouse=True)
def sealing():
    """These tests need namespaces; where there are none the reason is shown."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


def attempts(code, **more):
    """What Python code attempts, sealed."""
    result = run_sealed([*PYTHON, code], **more)
    assert result["status"] == 0
    assert result["lost_packets"] == 0
    assert sum(row["count"] for row in result["by"]) == result["attempts"]
    return {(row["kind"], row["to"], row["name"], row["program"]): row["count"]
            for row in result["by"]}  # fmt: skip


def test_loopback_alone_is_no_attempt():
    """TCP and UDP on 127.0.0.1 and ::1, localhost by name, work and are not counted."""
    code = """
import socket
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("localhost" if family == socket.AF_INET else address, port)):
            server.accept()[0].close()
    with socket.socket(family, socket.SOCK_DGRAM) as one, \\
            socket.socket(family, socket.SOCK_DGRAM) as other:
        other.bind((address, 0))
        one.sendto(b"x", other.getsockname()[:2])
        assert other.recv(9) == b"x"
"""
    assert attempts(code) == {}


def test_every_connection_is_counted_with_its_place_and_program():
    """Two to one place, one to another, one by IPv6; each is refused, so that nobody waits."""
    code = (
        TRY
        + """
for to in (("203.0.113.7", 80), ("203.0.113.7", 80), ("203.0.113.7", 443)):
    connect(socket.AF_INET, *to)
connect(socket.AF_INET6, "2001:db8::7", 80)
"""
    )
    assert attempts(code) == {
        ("tcp", "203.0.113.7:80", None, PROGRAM): 2,
        ("tcp", "203.0.113.7:443", None, PROGRAM): 1,
        ("tcp", "[2001:db8::7]:80", None, PROGRAM): 1,
    }


def test_a_name_is_counted_and_so_is_the_connection_behind_it():
    """The name leads into the sink, whatever name server this machine has."""
    code = (
        TRY
        + """
address = socket.getaddrinfo("models.example", 443, type=socket.SOCK_STREAM)[0][4]
connect(socket.AF_INET, *address)
"""
    )
    assert attempts(code) == {
        ("dns", "198.18.0.2:53", "models.example", PROGRAM): 1,
        ("tcp", "198.18.1.0:443", "models.example", PROGRAM): 1,
    }


def test_datagrams_are_counted_by_socket():
    """Three of one socket, one of another: two attempts; multicast leaves the machine too."""
    code = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    for _ in range(3):
        one.sendto(b"x", ("203.0.113.9", 123))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(b"x", ("203.0.113.9", 123))
        other.sendto(b"x", ("224.0.0.251", 9))
"""
    counts = {key[:2]: count for key, count in attempts(code).items()}
    assert counts == {("udp", "203.0.113.9:123"): 2, ("udp", "224.0.0.251:9"): 1}


def test_many_connections_at_once_are_all_counted():
    """No packet is lost when 200 sockets connect together."""
    code = """
import socket
sockets = [socket.socket() for _ in range(200)]
for one in sockets:
    one.setblocking(False)
    one.connect_ex(("203.0.113.7", 80))
"""
    assert sum(attempts(code).values()) == 200


def test_a_proxy_hides_nothing():
    """Variables that name a proxy do not reach the command."""
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "http_proxy": "x"}
    code = "import os; assert not [n for n in os.environ if n.lower().endswith('_proxy')]"
    assert attempts(code, environment=environment) == {}


@pytest.mark.parametrize(("code", "status"), [
    ("raise SystemExit(3)", 3),
    ("import os; os.kill(os.getpid(), 9)", 128 + 9),
])  # fmt: skip
def test_the_commands_status_is_passed_on(code, status):
    """Also a death by a signal, as shells count it."""
    assert run_sealed([*PYTHON, code])["status"] == status


def test_a_command_that_is_not_there_is_named(tmp_path):
    """Status 127, as of a shell."""
    done = subprocess.run([*COMMAND, "--", str(tmp_path / "no")], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 127
    assert "cannot be started" in done.stderr


def test_without_ip_it_says_so(tmp_path):
    """One line with the mend, status 2."""
    done = subprocess.run([*COMMAND, "--", "true"], capture_output=True, text=True,
                          env={**os.environ, "PATH": str(tmp_path)}, check=False)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "Error: ip is missing: install iproute2\n"


def test_a_result_that_cannot_be_kept_is_refused_first(tmp_path):
    """The command is not run in vain."""
    file = tmp_path / "no" / "result.json"
    done = subprocess.run([*COMMAND, "--json", str(file), "--", "echo", "ran"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no folder {file.parent}" in done.stderr


def started(*more, code):
    """A sealed command that has printed its first line; its output ends with its last process."""
    process = subprocess.Popen([*COMMAND, *more, "--", *PYTHON, code], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"here\n"
    return process


def test_a_signal_reaches_the_command_and_the_count_is_kept(tmp_path):
    """SIGTERM lets it end in order; what it attempted until then is written."""
    code = (
        TRY
        + """
import signal, sys
connect(socket.AF_INET, "203.0.113.7", 80)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print("here", flush=True)
signal.pause()
"""
    )
    file = tmp_path / "result.json"
    with started("--json", str(file), code=code) as process:
        process.terminate()
        assert process.wait() == 5
    result = json.loads(file.read_text())
    assert (result["attempts"], result["status"]) == (1, 5)


DAEMON = """
import os, signal
if os.fork() == 0:
    os.setsid()
    print("here", flush=True)
    signal.pause()
"""


def test_what_the_command_leaves_running_ends_with_it():
    """A daemon of a session of its own, too: the end of its output says that it is gone."""
    with started(code=DAEMON) as process:
        assert process.stdout.read() == b""
        assert process.wait() == 0


def test_nothing_outlives_a_killed_runner():
    """SIGKILL of the runner ends the command and its daemon; the machine's names are as before."""
    before = Path("/etc/resolv.conf").read_bytes()
    with started(code=DAEMON + "else:\n    signal.pause()\n") as process:
        assert Path("/etc/resolv.conf").read_bytes() == before
        process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == b""
    assert Path("/etc/resolv.conf").read_bytes() == before
