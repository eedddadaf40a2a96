"""One session's worker: a stock ``ggml-rpc-server`` in a room of its own, seen from the agent.

The worker listens where nobody but the room's doorman can connect (:mod:`shoestring.swarm.room`);
the agent asks for a connection and gets it as a descriptor. What protects the machine from the
worker is in ``docs/swarm-sandbox.md``; :attr:`Worker.protections` says what of it holds here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.errors import EngineLostError, MissingError, ShoestringError
from shoestring.hardware.platforms import read_text
from shoestring.hardware.processes import ProcessTree
from shoestring.swarm.worker_settings import check_program, plan_room, protections

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from shoestring.swarm.limits import Group
    from shoestring.swarm.sandbox import Plan
    from shoestring.swarm.worker_settings import Protections, WorkerSettings

ROOM = Path(__file__).with_name("room.py")
PACKET_BYTES = 1 << 17
DESCRIPTOR = struct.Struct("@i")
START_WAIT_S = 60.0  # a driver that compiles its kernels at first
STOP_WAIT_S = 2.0
SHOWN = 200


class Worker:
    """A worker; started once, for one session.

    Attributes:
        protections: what holds; None until it is ready.
        pid: of the room's first process, above the engine; None until it is ready.
        last_words: the end of what it wrote, once it has ended.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.protections: Protections | None = None
        self.pid: int | None = None
        self.last_words = ""
        self._settings = settings
        self._group: Group | None = None
        self._doorman: subprocess.Popen[bytes] | None = None
        self._agent: socket.socket | None = None
        self._asked: deque[asyncio.Future[socket.socket]] = deque()
        self._pidfds: list[int] = []
        self._stop_lock = asyncio.Lock()
        self._stopping = self._paused = False
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._end: asyncio.Future[str] = loop.create_future()
        self._failure: type[ShoestringError] = EngineLostError

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            BadValueError: the program is not the one whose digest was given.
            MissingError: this machine cannot protect itself from it as asked.
            EngineLostError: it died, or did not listen in time.
        """
        try:
            await asyncio.to_thread(check_program, self._settings)
            plan, self._group = await asyncio.to_thread(plan_room, self._settings)
            self._open_room(plan)
            await self._until_ready()
        except OSError as error:
            await self.stop()
            raise EngineLostError(f"{self._name} cannot be started: {error}") from error
        except BaseException:
            await self.stop()
            raise

    async def connect(self) -> socket.socket:
        """Return a connection to it, made in its room: not blocking, with TCP_NODELAY.

        Raises:
            EngineLostError: it has ended, or takes no more.
        """
        if not self.alive or self._agent is None:
            raise EngineLostError(
                self._end.result() if self._end.done() else f"{self._name} is not ready"
            )
        try:
            self._agent.send(b'{"do": "connect"}')
        except OSError as error:
            raise EngineLostError(f"{self._name}: its room is lost ({error})") from error
        answer: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        return await answer

    async def ended(self) -> str:
        """Wait for its end, and return in one line how it came."""
        return await asyncio.shield(self._end)

    @property
    def alive(self) -> bool:
        """Whether it listens and has not ended."""
        return self._ready.done() and not self._end.done()

    async def stop(self) -> None:
        """End it and all that it started: asked first, then by force; may be called twice."""
        async with self._stop_lock:
            self._stopping = True
            if self._agent is not None and self.alive:
                if self._paused:
                    self.resume()
                with suppress(BrokenPipeError, ConnectionResetError):
                    self._agent.send(b'{"do": "stop"}')
                await asyncio.wait((self._end,), timeout=STOP_WAIT_S)
            await self._clean_up()

    async def _clean_up(self) -> None:
        """End what is left by force, and give back all that the room took."""
        if self._agent is not None:
            asyncio.get_running_loop().remove_reader(self._agent)
            self._agent.close()  # now the doorman ends the room
            self._agent = None
        self._tell_end(f"{self._name} was ended by force")
        while self._pidfds:
            await _readable(self._pidfds[-1])
            os.close(self._pidfds.pop())
        if self._doorman is not None:
            self._doorman.wait()
        if self._group is not None:
            self._group.remove()
            self._group = None

    def pause(self) -> None:
        """Hold it still (SIGSTOP), with all that it started; it keeps its memory."""
        self._paused = True
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._paused = False
        self._signal(signal.SIGCONT)

    def stands_still(self) -> bool:
        """Tell whether its engine was stopped by somebody (SIGSTOP, or a debugger)."""
        if self.pid is None:
            return False
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        pids = (read_text(children) or "").split()
        states = (read_text(Path(f"/proc/{pid}/stat")) for pid in pids)
        return any(state and state.rpartition(")")[2].split()[0] in "Tt" for state in states)

    def memory_bytes(self) -> int | None:
        """Return the resident memory of the room, its two Python processes included."""
        use = None if self._doorman is None else ProcessTree(self._doorman.pid).read()
        return None if use is None else use.resident_bytes

    @property
    def _name(self) -> str:
        return self._settings.program.name

    async def _until_ready(self) -> None:
        await asyncio.wait((self._ready, self._end), timeout=START_WAIT_S,
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        if not self._ready.done():
            late = f"{self._name} did not listen within {START_WAIT_S:g} s{self._where_log()}"
            raise self._failure(self._end.result() if self._end.done() else late)

    def _open_room(self, plan: Plan) -> None:
        assert self._group is not None
        self._agent, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._agent.setblocking(False)
        log_path = self._settings.log_path or os.devnull
        with theirs, Path(log_path).open("ab") as log:
            self._doorman = subprocess.Popen(
                [sys.executable, "-I", str(ROOM), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C in the terminal is the agent's to handle
            )
        self._pidfds.append(os.pidfd_open(self._doorman.pid))
        asyncio.get_running_loop().add_reader(self._agent, self._hear)
        self._group.add(self._doorman.pid)
        self._agent.send(json.dumps(asdict(plan)).encode())

    def _hear(self) -> None:
        """Take one packet of the doorman's."""
        assert self._agent is not None
        try:
            # Not socket.recv_fds: that forgets the flags, and all that we start would inherit it.
            packet, beside, _, _ = self._agent.recvmsg(
                PACKET_BYTES, socket.CMSG_SPACE(DESCRIPTOR.size), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except ConnectionResetError:
            packet, beside = b"", []
        if not packet:
            asyncio.get_running_loop().remove_reader(self._agent)
            self._tell_end("its room is lost: the doorman was killed")
            return
        said = json.loads(packet)
        if said["say"] == "ready":
            self._open_for_use(said)
        elif said["say"] == "connected":
            self._hand_out(beside[0][2])
        elif said["say"] == "refused":
            asked = self._asked.popleft()
            if not asked.done():
                asked.set_exception(EngineLostError(f"{self._name}: {said['reason']}"))
        elif said["say"] == "failed":
            self._failure = MissingError
            self._tell_end(said["reason"])
        else:
            self.last_words = said["lines"]
            self._tell_end(self._how(said["status"]))

    def _open_for_use(self, said: dict[str, Any]) -> None:
        assert self._group is not None
        self.protections = protections(self._settings, said["held"], self._group)
        self.pid = said["warden"]
        self._pidfds.append(os.pidfd_open(said["warden"]))
        self._ready.set_result(None)

    def _hand_out(self, beside: bytes) -> None:
        connected = socket.socket(fileno=DESCRIPTOR.unpack(beside)[0])
        connected.setblocking(False)
        asked = self._asked.popleft()
        if asked.done():  # whoever asked has gone
            connected.close()
        else:
            asked.set_result(connected)

    def _tell_end(self, how: str) -> None:
        if self._end.done():
            return
        self._end.set_result(how)
        while self._asked:
            asked = self._asked.popleft()
            if not asked.done():
                asked.set_exception(EngineLostError(how))

    def _how(self, status: int) -> str:
        assert self._group is not None
        if self._stopping:
            return f"{self._name} was stopped"
        how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        if self._group.kills():
            how += f", over its memory limit of {self._settings.memory_bytes} bytes"
        words = [line for line in self.last_words.splitlines() if line.strip()]
        last = f"; its last words: {words[-1].strip()[:SHOWN]!a}" if words else ""
        return f"{self._name} ended {how}{last}{self._where_log()}"

    def _where_log(self) -> str:
        return f"; its log is {self._settings.log_path}" if self._settings.log_path else ""

    def _signal(self, number: signal.Signals) -> None:
        """Signal all below the warden, also what is started meanwhile."""
        if self.pid is None:
            return
        tree = ProcessTree(self.pid)
        done = {self.pid}
        while new := tree.pids - done:
            for pid in new:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            done |= new
            tree.rescan()


async def _readable(pidfd: int) -> None:
    """Wait for the end of a process."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(pidfd, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(pidfd)
