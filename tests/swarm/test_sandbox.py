"""What a program in the worker's room can reach, tried by a program in there."""

import _ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shoestring.swarm import landlock, room, sandbox
from shoestring.swarm.engine_needs import GIVEN, find_needs, linked_libraries
from shoestring.swarm.sandbox import Held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rooms are made by Linux")

PROBE = """\
#!{python} -I
import ctypes, json, os, resource, signal, socket, sys
GIVEN = json.loads({given!r})
told = {{}}

def attempt(name, action):
    try:
        told[name] = repr(action())
    except OSError as error:
        told[name] = type(error).__name__

def tell(name, action):
    try:
        told[name] = action()
    except OSError as error:
        told[name] = type(error).__name__

def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def meet(kind, address):
    with socket.socket(kind) as sock:
        sock.settimeout(5)
        sock.connect(address)

def listen(port):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))

libc = ctypes.CDLL(None, use_errno=True)
port = int(sys.argv[sys.argv.index("-p") + 1])
with socket.create_server(("127.0.0.1", port)) as server:
    for name in ("/etc/passwd", GIVEN["secret"], "/proc/1/environ", "/proc/sys/kernel/hostname",
                 "/dev/null", "/sys/kernel"):
        attempt("open " + name, lambda: open(name).read())
    for name in ("/", "/tmp", GIVEN["folder"]):
        attempt("list " + name, lambda: os.listdir(name))
        attempt("write into " + name, lambda: open(name + "/new", "w"))
        attempt("make " + name, lambda: os.mkdir(name + "/new"))
    attempt("write " + sys.argv[0], lambda: open(sys.argv[0], "a"))
    attempt("remove " + sys.argv[0], lambda: os.unlink(sys.argv[0]))
    attempt("chmod " + sys.argv[0], lambda: os.chmod(sys.argv[0], 0o777))
    attempt("host's port", lambda: meet(socket.AF_INET, ("127.0.0.1", GIVEN["port"])))
    attempt("outside", lambda: meet(socket.AF_INET, ("192.0.2.1", 9)))
    attempt("file's socket", lambda: meet(socket.AF_UNIX, GIVEN["socket"]))
    attempt("named socket", lambda: meet(socket.AF_UNIX, "\\0" + GIVEN["socket"]))
    attempt("another port", lambda: listen(port + 1))
    attempt("signal", lambda: os.kill(GIVEN["victim"], signal.SIGKILL))
    attempt("trace", lambda: check(libc.ptrace(16, GIVEN["victim"], 0, 0)))
    attempt("trace warden", lambda: check(libc.ptrace(16, 1, 0, 0)))
    for name, flag in (("user", 0x10000000), ("net", 0x40000000), ("mount", 0x20000)):
        attempt("namespace " + name, lambda: check(libc.unshare(flag)))
    attempt("become root", lambda: os.setresuid(0, 0, 0))
    attempt("mount", lambda: check(libc.mount(b"x", b"/tmp", b"tmpfs", 0, None)))
    tell("processes", lambda: sorted(int(x) for x in os.listdir("/proc") if x.isdigit()))
    tell("interfaces", lambda: [name for _, name in socket.if_nameindex()])
    told["host"] = socket.gethostname()
    told["environment"] = sorted(os.environ)
    tell("descriptors", lambda: sorted(map(int, os.listdir("/proc/self/fd"))))
    told["open files"] = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    told["server"] = server.fileno()
    connected, _ = server.accept()
    connected.sendall(json.dumps(told).encode())
"""
AGENT = """
import asyncio, json, os, sys
from dataclasses import asdict
from pathlib import Path
from shoestring.digests import file_sha256
from shoestring.swarm.worker import Worker
from shoestring.swarm.worker_settings import WorkerSettings

async def main():
    os.umask(0o077)  # of a careful owner
    program = Path(sys.argv[1])
    settings = WorkerSettings(program, file_sha256(program), threads=1,
                              readable=tuple(map(Path, sys.argv[3:])),
                              allow_weaker=sys.argv[2] == "weaker")
    async with Worker(settings) as worker:
        reader, _ = await asyncio.open_connection(sock=await worker.connect())
        told = json.loads(await reader.read())
        print(json.dumps({"told": told, "held": asdict(worker.protections)}))

asyncio.run(main())
"""
WITHOUT_NAMESPACES = (
    "unshare", "--user", "--map-root-user", "sh", "-c",
    'echo 1 > /proc/sys/user/max_user_namespaces && exec unshare --user --map-user=1000 "$@"', "sh",
)  # fmt: skip
"""A user in a namespace below which there may be no other."""
ROOTLESS = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


@pytest.fixture
def victim() -> Iterator[int]:
    """A process of the owner's, outside the room."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        # It must still be there to be ended.
        assert process.poll() is None
        process.kill()


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A port, and a socket with a name in files and one without, that take connections."""
    path = str(tmp_path / "daemon")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        named.bind(path)
        abstract.bind("\0" + path)
        named.listen()
        abstract.listen()
        yield tcp.getsockname()[1], path


def _python_needs() -> list[str]:
    python = Path(sys.executable).resolve()
    parts = [python, Path(_ctypes.__file__)]
    libraries = [path for part in parts for path in linked_libraries(part)]
    return [str(python), sysconfig.get_path("stdlib"), *libraries]


Ask = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ask(tmp_path: Path, victim: int, listeners: tuple[int, str]) -> Ask:
    """Start an agent, behind a command that changes who it is, whose worker is the probe."""
    folder = tmp_path / "engine"
    folder.mkdir()
    secret = folder / "secret"
    secret.write_text("key")
    given = {"secret": str(secret), "folder": str(tmp_path), "port": listeners[0],
             "socket": listeners[1], "victim": victim}  # fmt: skip
    probe = folder / "ggml-rpc-server"
    python = Path(sys.executable).resolve()
    probe.write_text(PROBE.format(python=python, given=json.dumps(given)))
    probe.chmod(0o755)

    def start(prefix: tuple[str, ...], strictness: str) -> subprocess.CompletedProcess[str]:
        if prefix and (os.geteuid() != 0 or shutil.which("unshare") is None):
            pytest.skip("we are no root who could become another")
        return subprocess.run(
            [*prefix, sys.executable, "-c", AGENT, str(probe), strictness, *_python_needs()],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    return start


@pytest.fixture(params=[(), ROOTLESS], ids=["as we are", "rootless"])
def outcome(request, ask: Ask) -> dict:
    """What a program tried in the room, and which protections the agent says hold."""
    done = ask(request.param, "strict")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_where_there_are_no_namespaces_the_worker_is_refused(ask: Ask) -> None:
    """One line with the reason and the mend; nothing was started."""
    done = ask(WITHOUT_NAMESPACES, "strict")
    assert done.returncode == 1
    assert "MissingError: the worker cannot have a network of its own" in done.stderr
    assert "max_user_namespaces" in done.stderr


def test_a_weaker_room_says_what_it_lacks(ask: Ask) -> None:
    """On request it is made without namespaces: Landlock still keeps files and TCP away."""
    done = ask(WITHOUT_NAMESPACES, "weaker")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["held"]["namespaces"] == []
    assert outcome["held"]["seccomp"]
    assert {"net", "mount", "pid", "user", "nesting"} <= set(outcome["held"]["lacks"])
    told = outcome["told"]
    assert _failed(told["open /etc/passwd"])
    assert _failed(told["list /"])
    assert _failed(told["namespace user"])
    if landlock.offered_abi() >= landlock.NETWORK_ABI:
        assert _failed(told["host's port"])
    if landlock.offered_abi() >= landlock.SCOPE_ABI:
        assert _failed(told["signal"])
        assert _failed(told["named socket"])


def test_nothing_of_the_machine_can_be_reached(outcome: dict) -> None:
    """Files, networks, sockets, processes, new namespaces and rights: every attempt fails."""
    told = outcome["told"]
    reached = {name for name, result in told.items() if " " in name and not _failed(result)}
    # Its own folder may be listed by name only, and its own processes be seen.
    assert reached == {"open files"}
    assert _failed(told["mount"])
    assert _failed(told["signal"])


def _failed(result: object) -> bool:
    return isinstance(result, str) and result.endswith("Error")


def test_the_room_has_its_own_small_world(outcome: dict) -> None:
    """Loopback alone, two processes, no variables but listed ones, three descriptors."""
    told = outcome["told"]
    assert told["interfaces"] == ["lo"]
    assert told["processes"] == [1, 2]
    assert told["host"] == "room"
    # Its server, and the listing itself, are its own.
    assert set(told["descriptors"]) - {told["server"]} - {max(told["descriptors"])} == {0, 1, 2}
    assert all(GIVEN.fullmatch(name) or name == "LC_CTYPE" for name in told["environment"])


def test_the_agent_says_what_holds(outcome: dict) -> None:
    """All namespaces, Landlock as new as offered, and nobody's user where we are root."""
    held = outcome["held"]
    assert set(held["namespaces"]) == {"user", "net", "pid", "mount", "ipc", "uts", "cgroup"}
    assert held["landlock_abi"] == landlock.offered_abi()
    assert held["seccomp"]
    assert held["user"] != 0
    assert not {"net", "mount", "landlock", "nesting"} & set(held["lacks"])


def test_the_kernels_doors_are_walled_up() -> None:
    """Refused calls are refused, by their old way too, and others go on."""
    code = (
        "import ctypes, os, threading\n"
        "from shoestring.swarm import sandbox, syscalls\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "sandbox.die_with_parent(); syscalls.wall_up(os.uname().machine)\n"
        "for number in (425, 435, 438, 467):\n"
        "    print(libc.syscall(number, 0, 0, 0), ctypes.get_errno())\n"
        "print(libc.unshare(0x10000000), ctypes.get_errno())\n"
        "thread = threading.Thread(target=print, args=('thread',))\n"
        "thread.start(); thread.join(); print(os.waitpid(os.posix_spawn('/bin/true', ['true'],"
        " {}), 0)[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stdout.split("\n")[:-1] == ["-1 1", "-1 38", "-1 1", "-1 1", "-1 1", "thread", "0"]


def test_a_room_with_a_network_of_the_machine_is_refused() -> None:
    """The line names what lacks, why, and the mend."""
    refusal = Held(namespaces=["mount"], landlock_abi=7, lacks={"net": "no right"}).refusal()
    assert refusal is not None
    assert "network" in refusal
    assert "no right" in refusal
    assert "max_user_namespaces" in refusal


def test_a_room_without_walls_around_files_is_refused() -> None:
    """Either wall is enough; none is not."""
    lacks = {"mount": "no right", "landlock": "not built"}
    assert Held(namespaces=["net"], landlock_abi=1, lacks=lacks).refusal() is None
    assert Held(namespaces=["net", "mount"], lacks=lacks).refusal() is None
    assert "no right" in str(Held(namespaces=["net"], lacks=lacks).refusal())


def test_landlock_alone_keeps_files_away(tmp_path: Path) -> None:
    """Where mounts cannot be made, Landlock still refuses what is not listed."""
    kept, other = tmp_path / "kept", tmp_path / "other"
    kept.write_text("kept")
    other.write_text("other")
    code = (
        "import sys; from shoestring.swarm import landlock, sandbox; sandbox.die_with_parent()\n"
        "landlock.restrict(landlock.offered_abi(), [(sys.argv[1], landlock.READ)], 50052)\n"
        "print(open(sys.argv[1]).read())\n"
        "open(sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", code, kept, other], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.stdout == "kept\n"
    assert "PermissionError" in done.stderr


def test_an_engine_without_gpu_needs_only_what_it_is_linked_to() -> None:
    """No folder and no node of a device is kept for the processor."""
    needs = find_needs(Path(sys.executable).resolve(), "CPU")
    assert not needs.devices
    assert all(Path(path).is_file() for path in needs.runnable)
    assert any("libc." in path for path in needs.runnable)


def test_an_engine_with_a_gpu_gets_its_nodes(tmp_path: Path) -> None:
    """The nodes of the cards' drivers, and no other node."""
    for name in ("dev/nvidia0", "dev/nvidiactl", "dev/dri/renderD128", "dev/sda"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    needs = find_needs(Path(sys.executable).resolve(), "CUDA0", tmp_path)
    names = [Path(path).name for path in needs.devices]
    assert names == ["nvidia0", "nvidiactl", "renderD128"]


def test_the_end_of_the_starter_is_the_end_of_the_started() -> None:
    """Who asked to die with its parent is killed with it."""
    code = (
        "import os, signal, sys; from shoestring.swarm import sandbox\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    sandbox.die_with_parent(); print(os.getpid(), flush=True)\n"
        "    signal.pause()\n"
        "sys.stdin.read(); os._exit(0)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as starter:  # fmt: skip
        assert starter.stdout is not None
        pidfd = os.pidfd_open(int(starter.stdout.readline()))
        starter.send_signal(signal.SIGKILL)
        # The pipe's other end is the started one's: its end of file is its end.
        assert starter.stdout.read() == b""
        os.close(pidfd)


def test_who_knocks_before_the_engine_listens_does_not_reach_himself(monkeypatch):
    """TCP connects a socket to itself where the kernel gives it the port that it asks for."""
    doorman = object.__new__(room.Doorman)

    def to_itself(_address, _limit_s):
        knocking = socket.socket()
        knocking.bind(("127.0.0.1", 0))
        knocking.connect(knocking.getsockname())
        return knocking

    monkeypatch.setattr(room.socket, "create_connection", to_itself)
    doorman._port = 1
    with pytest.raises(ConnectionRefusedError):
        doorman._connect()


def test_the_port_of_a_room_is_none_that_the_kernel_gives_out():
    """A network of its own begins with the kernel's range: 32768 to 60999 (ip-sysctl)."""
    assert 1_024 <= sandbox.Plan((), {}, ()).port < 32_768
