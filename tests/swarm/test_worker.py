"""The worker as the agent uses it: a real ggml-rpc-server, and programs that misbehave."""

import asyncio
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from shoestring.digests import file_sha256
from shoestring.errors import BadValueError, EngineLostError, MissingError
from shoestring.swarm import limits
from shoestring.swarm.worker import Worker
from shoestring.swarm.worker_pool import TRIES, WorkerPool
from shoestring.swarm.worker_settings import WorkerSettings
from shoestring.testing.engines import need_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rooms are made by Linux")
MIB = 1 << 20
HELLO, DEVICE_COUNT = 14, 15
T = TypeVar("T")

SHELL = Path("/bin/sh").resolve()
EATER = """
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
int main(int n, char **words) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(words[4]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    bind(server, (struct sockaddr *)&here, sizeof here);
    listen(server, 1);
    int client = accept(server, 0, 0);
    char byte;
    if (recv(client, &byte, 1, 0) != 1) return 3;
    for (int i = 0; i < 1024; i++) {
        char *block = malloc(1 << 20);
        if (!block) return 4;
        memset(block, 1, 1 << 20);
    }
    return 5;
}
"""
AGENT = """
import asyncio, os, sys
from pathlib import Path
from shoestring.digests import file_sha256
from shoestring.swarm.worker import Worker
from shoestring.swarm.worker_settings import WorkerSettings
import psutil

async def main():
    program = Path(sys.argv[1])
    worker = Worker(WorkerSettings(program, file_sha256(program), 1, memory_bytes=1 << 30))
    await worker.start()
    if sys.argv[2] == "paused":
        worker.pause()
    print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
    await worker.ended()

asyncio.run(main())
"""


@pytest.fixture(scope="session")
def program() -> Path:
    """The stock worker."""
    return need_program("ggml-rpc-server")


@pytest.fixture
def settings(program: Path, tmp_path: Path) -> WorkerSettings:
    """A small worker with all limits."""
    return WorkerSettings(program, file_sha256(program), threads=1, memory_bytes=512 * MIB,
                          cpu_share=0.5, log_path=tmp_path / "worker.log")  # fmt: skip


def _script(path: Path, text: str) -> WorkerSettings:
    """A shell script in the worker's place, which no room has a shell for unless it is given."""
    from shoestring.swarm.engine_needs import linked_libraries

    path.write_text(f"#!{SHELL}\n{text}\n")
    path.chmod(0o755)
    needs = (SHELL, *map(Path, linked_libraries(SHELL)))
    return WorkerSettings(path, file_sha256(path), threads=1, readable=needs)


async def _ask(sock: socket.socket, command: int, payload: bytes = b"") -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, struct.pack("<BQ", command, len(payload)) + payload)
    (size,) = struct.unpack("<Q", await _read(sock, 8))
    return await _read(sock, size)


async def _read(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(found))
        assert more, "the worker hung up"
        found += more
    return found


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _born_since(before: list[psutil.Process]) -> list[psutil.Process]:
    """Other tests' servers are children of ours, too."""
    return [child for child in _children() if child not in before]


def _with_worker(settings: WorkerSettings, use: Callable[[Worker], Awaitable[T]]) -> T:
    async def scenario() -> T:
        async with Worker(settings) as worker:
            return await use(worker)

    return asyncio.run(scenario())


def test_the_worker_answers_over_a_connection_made_inside(settings: WorkerSettings) -> None:
    """HELLO and DEVICE_COUNT over the descriptor that the room handed out."""

    async def use(worker: Worker) -> tuple[bytes, bytes]:
        with await worker.connect() as sock:
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not sock.get_inheritable()
            return await _ask(sock, HELLO, bytes(24)), await _ask(sock, DEVICE_COUNT)

    hello, devices = _with_worker(settings, use)
    assert hello[0] == 7
    assert devices == struct.pack("<I", 1)


def test_limits_are_told_by_their_kind(settings: WorkerSettings) -> None:
    """Control groups where they can be made, else what stands in for them."""

    async def use(worker: Worker) -> tuple[str | None, str | None, int | None]:
        assert worker.protections is not None
        return worker.protections.memory, worker.protections.cpu, worker.memory_bytes()

    memory, cpu, used_bytes = _with_worker(settings, use)
    assert memory in ("cgroup v1", "cgroup v2", "RLIMIT_DATA")
    assert cpu in ("cgroup v1", "cgroup v2", "nice and threads")
    assert used_bytes is not None
    assert MIB < used_bytes < 512 * MIB


def test_a_client_that_hangs_up_does_not_kill_it(settings: WorkerSettings) -> None:
    """HELLO and a hang-up while another is active ends a server that SIGPIPE can kill."""

    async def use(worker: Worker) -> bytes:
        active = await worker.connect()
        await _ask(active, HELLO, bytes(24))
        with await worker.connect() as rude:
            rude.send(struct.pack("<BQ", HELLO, 24) + bytes(24))
        # Once the doorman answers again it has closed its own copy of the rude one.
        with await worker.connect() as third:
            active.close()
            return await _ask(third, HELLO, bytes(24))

    assert _with_worker(settings, use)[0] == 7


def test_a_worker_that_dies_says_how(settings: WorkerSettings) -> None:
    """Its signal, its last words and where its log is."""

    async def use(worker: Worker) -> str:
        with await worker.connect() as sock:
            await _ask(sock, HELLO, bytes(24))
            # The largest length there is: it aborts.
            sock.send(struct.pack("<BQ", 6, 2**64 - 1))
            how = await worker.ended()
            with pytest.raises(EngineLostError, match="SIGABRT"):
                await worker.connect()
            return how

    how = _with_worker(settings, use)
    assert "by SIGABRT" in how
    assert str(settings.log_path) in how
    assert settings.log_path is not None
    assert "RPC" in settings.log_path.read_text()


def test_stop_leaves_no_process_and_no_group(settings: WorkerSettings) -> None:
    """After the end nothing of the room is there, and a second stop does nothing."""
    before, groups = _children(), _own_groups()

    async def use(worker: Worker) -> list[psutil.Process]:
        room = _born_since(before)
        assert len(room) >= 3
        await worker.stop()
        await worker.stop()
        assert (await worker.ended()).endswith("was stopped")
        assert worker.memory_bytes() is None
        return room

    room = _with_worker(settings, use)
    assert not [process for process in room if process.is_running()]
    # Another test's orphan, until process 1 of the machine looks, holds its group.
    assert not set(_own_groups()) - set(groups)


def test_a_killed_doorman_takes_all_along(settings: WorkerSettings) -> None:
    """The worker is told lost, and warden and engine end with their doorman."""
    before = _children()

    async def use(worker: Worker) -> tuple[str, list[psutil.Process]]:
        room = _born_since(before)
        room[0].kill()
        how = await worker.ended()
        await worker.stop()
        return how, room

    how, room = _with_worker(settings, use)
    assert "its room is lost" in how
    assert len(room) >= 3
    # An orphan is a zombie until process 1 of the machine looks.
    left = [process for process in room if process.is_running()]
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in left)


def test_the_warden_has_given_up_its_rights(settings: WorkerSettings) -> None:
    """No capability, no way to new ones, a filter of system calls, the first to be ended."""

    async def use(worker: Worker) -> tuple[dict[str, str], str]:
        proc = Path(f"/proc/{worker.pid}")
        status = (line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        score = (proc / "oom_score_adj").read_text().strip()
        return {name: value.strip() for name, value in status}, score

    status, score = _with_worker(settings, use)
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert score == "1000"


def _own_groups() -> list[Path]:
    mount = Path("/sys/fs/cgroup")
    own = f"{limits.PREFIX}-{os.getpid()}-"
    return [folder for folder in mount.glob(f"**/{limits.PREFIX}-*") if folder.name.startswith(own)]


def _kill_an_agent(program: Path, state: str) -> int:
    """Start an agent with a worker, kill it, wait until nothing of both is left; return its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, program, state], stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        pidfds = [os.pidfd_open(int(pid)) for pid in agent.stdout.readline().split()]
        agent.kill()
    assert len(pidfds) >= 3
    for pidfd in pidfds:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(30_000), "a process survived its agent"
        os.close(pidfd)
    return agent.pid


@pytest.mark.parametrize("state", ["running", "paused"])
def test_nothing_survives_a_killed_agent(program: Path, state: str) -> None:
    """SIGKILL of the agent ends doorman, warden and engine, even where they were held still."""
    assert _kill_an_agent(program, state)


def test_groups_of_a_killed_agent_are_removed_by_the_next(settings: WorkerSettings) -> None:
    """What the killed one could not remove goes at the next start; groups of others stay."""

    def left(pid: int) -> list[Path]:
        return list(Path("/sys/fs/cgroup").glob(f"**/{limits.PREFIX}-{pid}-*"))

    async def use(worker: Worker) -> bool:
        assert worker.protections is not None
        assert left(os.getpid()) or worker.protections.memory == "RLIMIT_DATA"
        return worker.protections.memory != "RLIMIT_DATA"

    killed = _kill_an_agent(settings.program, "running")
    before = left(killed)
    assert bool(before) == _with_worker(settings, use)
    assert not left(killed)


def test_another_program_is_refused(settings: WorkerSettings, tmp_path: Path) -> None:
    """A digest that does not fit, also when the file changes after it was checked."""
    changed = tmp_path / "ggml-rpc-server"
    changed.write_bytes(settings.program.read_bytes())
    changed.chmod(0o755)
    right = WorkerSettings(changed, settings.sha256, threads=1)

    async def use(worker: Worker) -> bool:
        return worker.alive

    assert _with_worker(right, use)
    with changed.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BadValueError, match="SHA-256"):
        _with_worker(right, use)


def test_a_missing_program_names_the_mend(settings: WorkerSettings, tmp_path: Path) -> None:
    """The path and the command that brings it."""

    async def use(worker: Worker) -> None:
        raise AssertionError(worker)

    with pytest.raises(MissingError, match="engines install"):
        _with_worker(WorkerSettings(tmp_path / "none", settings.sha256, threads=1), use)


def test_a_program_that_ends_at_once_is_told(tmp_path: Path) -> None:
    """Its status and its last line, before it ever listened."""

    async def use(worker: Worker) -> None:
        raise AssertionError(worker)

    with pytest.raises(EngineLostError, match=r"with status 7; its last words: 'no card'"):
        _with_worker(_script(tmp_path / "bad", "echo no card; exit 7"), use)


@pytest.mark.parametrize("by_group", [True, False], ids=["group", "rlimit"])
def test_the_memory_cap_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_group: bool
) -> None:
    """A worker that takes more than its share ends; the agent lives and knows why."""
    source, eater = tmp_path / "eater.c", tmp_path / "eater"
    source.write_text(EATER)
    try:
        subprocess.run(["cc", "-O0", "-o", eater, source], check=True)
    except FileNotFoundError:
        pytest.skip("no compiler")
    if not by_group:
        monkeypatch.setattr(limits, "groups", lambda *_: [])
    settings = WorkerSettings(eater, file_sha256(eater), threads=1, memory_bytes=64 * MIB)

    async def use(worker: Worker) -> tuple[str | None, str]:
        assert worker.protections is not None
        with await worker.connect() as sock:
            sock.send(b"x")
            return worker.protections.memory, await worker.ended()

    kind, how = _with_worker(settings, use)
    if kind == "RLIMIT_DATA":
        assert "status 4" in how
    else:
        assert by_group
        assert "SIGKILL" in how
        assert "memory limit" in how


def _wait_until(state: Callable[[], bool]) -> None:
    """Wait for what no event tells of: the kernel stops no process but one's own child audibly."""
    deadline_s = time.monotonic() + 30
    while not state():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_a_paused_worker_holds_still_until_resumed(settings: WorkerSettings) -> None:
    """The engine is stopped by the kernel, and answers after it was resumed."""

    async def use(worker: Worker) -> bytes:
        assert worker.pid is not None
        (engine,) = psutil.Process(worker.pid).children()
        with await worker.connect() as sock:
            await _ask(sock, HELLO, bytes(24))
            worker.pause()
            _wait_until(lambda: engine.status() == psutil.STATUS_STOPPED)
            worker.resume()
            _wait_until(lambda: engine.status() != psutil.STATUS_STOPPED)
            return await _ask(sock, DEVICE_COUNT)

    assert _with_worker(settings, use) == struct.pack("<I", 1)


def test_a_paused_worker_can_be_stopped(settings: WorkerSettings) -> None:
    """It is resumed for its end."""

    async def use(worker: Worker) -> str:
        worker.pause()
        await worker.stop()
        return await worker.ended()

    assert _with_worker(settings, use).endswith("was stopped")


def test_the_pool_gives_each_worker_once(settings: WorkerSettings) -> None:
    """Two at the same time get two, though one was spare; close ends them all."""
    before = _children()

    async def scenario() -> list[psutil.Process]:
        async with WorkerPool(settings) as pool:
            first, second = await asyncio.gather(pool.take(), pool.take())
            assert first is not second
            assert first.alive
            assert second.alive
            await first.stop()
            third = await pool.take()
            assert third not in {first, second}
            return _born_since(before)

    room = asyncio.run(scenario())
    assert room
    assert not [process for process in room if process.is_running()]


def test_the_pool_replaces_a_spare_that_dies(settings: WorkerSettings) -> None:
    """A killed spare is never given out."""
    made: list[Worker] = []
    born = asyncio.Event()

    class Noted(Worker):
        async def start(self) -> None:
            await super().start()
            made.append(self)
            born.set()

    async def scenario() -> Worker:
        async with WorkerPool(settings, make=Noted, first_wait_s=0.0) as pool:
            await born.wait()
            assert made[0].pid is not None
            os.kill(made[0].pid, signal.SIGKILL)
            await made[0].ended()
            taken = await pool.take()
            assert taken.alive
            return taken

    assert asyncio.run(scenario()) is not made[0]


def test_the_pool_gives_up_and_says_why(tmp_path: Path) -> None:
    """After a few tries, with the last reason; whoever waits is told, and so is the next."""
    made = []

    def make(settings: WorkerSettings) -> Worker:
        made.append(settings)
        return Worker(settings)

    async def scenario() -> None:
        broken = _script(tmp_path / "bad", "exit 7")
        async with WorkerPool(broken, make=make, first_wait_s=0.0) as pool:
            for _ in range(2):
                with pytest.raises(EngineLostError, match="with status 7"):
                    await pool.take()
            assert pool.failure is not None

    asyncio.run(scenario())
    assert len(made) == TRIES


def test_the_pool_does_not_try_again_what_a_user_must_mend(settings: WorkerSettings) -> None:
    """A wrong digest stays wrong."""

    async def scenario() -> None:
        async with WorkerPool(WorkerSettings(settings.program, "0" * 64, threads=1)) as pool:
            with pytest.raises(BadValueError, match="SHA-256"):
                await pool.take()

    asyncio.run(scenario())


GROUP_FILES = {
    "v1": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.cfs_period_us",
           "cpu.cfs_quota_us", "pids.max"),
    "v2": ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"),
}  # fmt: skip


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_group_takes_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """On a copy of the kernel's files: the right file of the right version gets the number."""
    (tmp_path / "proc/self").mkdir(parents=True)
    mount = tmp_path / "sys/fs/cgroup"
    if version == "v1":
        (tmp_path / "proc/self/cgroup").write_text("1:memory:/a\n2:cpu,cpuacct:/a\n3:pids:/a\n")
        folders = [mount / name / "a" for name in ("memory", "cpu", "pids")]
    else:
        (tmp_path / "proc/self/cgroup").write_text("0::/a\n")
        folders = [mount / "a"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").touch()
        if version == "v2":
            (folder / "cgroup.controllers").write_text("cpu memory pids")
            (folder / "cgroup.subtree_control").touch()
    mkdir = Path.mkdir

    def kernel_mkdir(path: Path, *args, **kwargs) -> None:
        mkdir(path, *args, **kwargs)
        for name in GROUP_FILES[version]:
            (path / name).touch()

    monkeypatch.setattr(Path, "mkdir", kernel_mkdir)
    group = limits.Group(limits.Wanted(memory_bytes=1000, cores=0.5, processes=9), tmp_path)
    assert group.holds == dict.fromkeys(("pids", "memory", "cpu"), f"cgroup {version}")
    found = {file.name: file.read_text() for folder in folders
             for file in folder.glob("shoestring-worker-*/*") if file.read_text()}  # fmt: skip
    assert found["pids.max"] == "9"
    if version == "v1":
        assert found["memory.limit_in_bytes"] == "1000"
        assert (found["cpu.cfs_quota_us"], found["cpu.cfs_period_us"]) == ("50000", "100000")
    else:
        assert (found["memory.max"], found["memory.swap.max"]) == ("1000", "0")
        assert found["cpu.max"] == "50000 100000"


def test_without_control_groups_it_says_so(tmp_path: Path) -> None:
    """No hierarchy, no limit, and the reason."""
    group = limits.Group(limits.Wanted(memory_bytes=1000, cores=1.0, processes=9), tmp_path)
    assert group.holds == {}
    assert set(group.lacks) == {"memory", "cpu", "pids"}
    assert group.kills() is None
