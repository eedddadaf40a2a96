"""The room of one worker: enters it, starts the engine in it, hands out connections to it.

Run as a file, with Python's standard library: ``python -I room.py NUMBER``, where NUMBER is a
socket (SOCK_SEQPACKET) whose other end the agent holds. One packet is one JSON object:

| from | packet | meaning |
|---|---|---|
| agent | a :class:`~shoestring.swarm.sandbox.Plan` | the first packet: make this room |
| room | ``{"say": "ready", "held": {...}, "warden": PID}`` | the engine listens |
| agent | ``{"do": "connect"}`` | a connection to the engine is wanted |
| room | ``{"say": "connected"}`` | here it is, beside the packet |
| room | ``{"say": "refused", "reason": ...}`` | the engine took none |
| agent | ``{"do": "stop"}`` | ask the engine to end |
| room | ``{"say": "ended", "status": ..., "lines": ...}`` | as it did; negative: by a signal |
| room | ``{"say": "failed", "reason": ...}`` | there is no room, and no engine |

What the engine writes goes to our standard error, its last words into ``ended``.
The *doorman* (this process) stays outside the namespace of processes, for it must see the agent;
its child, the *warden*, is process 1 in there: when it ends, the kernel ends all others. When the
agent is gone, its end of the socket is closed, and the kernel signals the doorman besides; the
warden is signalled at the end of the doorman. So nothing is left, whoever is killed.
"""

from __future__ import annotations

import errno
import json
import os
import select
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":  # -I leaves out what PYTHONPATH names; our own version, not another
    sys.path.insert(0, str(Path(__file__).parents[2]))

from shoestring.swarm import sandbox

PACKET_BYTES = 1 << 17
LAST_WORDS_BYTES = 4096
LOG_BYTES = 8 << 20
"""Of the engine's words so many go to the log: what a peer makes it say shall not fill a disk."""
RETRY_S = 0.01
CONNECT_S = 5.0
FIRST_VICTIM = 1000


def main() -> None:
    """Make the room that the first packet asks for, and keep its door."""
    agent = socket.socket(fileno=int(sys.argv[1]))
    agent.set_inheritable(False)
    first = agent.recv(PACKET_BYTES)
    if not first:  # the agent changed its mind
        return
    plan = sandbox.Plan(**json.loads(first))
    try:
        os.umask(0o022)  # the folders that lead to the engine are for its user too
        _prefer_as_victim()
        sandbox.die_with_parent()
        held = sandbox.Held()
        sandbox.leave_network_and_processes(held)
        Doorman(agent, plan, held).serve()
    except OSError as error:
        _say(agent, say="failed", reason=f"the worker's room cannot be made: {error}")


class Doorman:
    """Starts the warden, and answers the agent until the engine ends or the agent is gone."""

    def __init__(self, agent: socket.socket, plan: sandbox.Plan, held: sandbox.Held) -> None:
        self._agent = agent
        self._held = held
        self._port = plan.port if "net" in held.namespaces else _free_port()
        self._last_words = b""
        self._logged_bytes = 0
        self._first: socket.socket | None = None
        """The connection by which we saw that the engine listens; the first to be handed out."""
        self._running = self._ready = False
        self._ended = False
        self._news, news = os.pipe()
        self._output, output = os.pipe()
        os.set_blocking(self._output, False)
        self._warden = os.fork()
        if self._warden == 0:
            agent.close()
            os.close(self._news)
            _keep_room(plan, self._port, held, news, output)
        os.close(news)
        os.close(output)

    def serve(self) -> None:
        """Wait for whoever has something to say."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._agent, selectors.EVENT_READ, self._hear_agent)
            selector.register(self._news, selectors.EVENT_READ, self._hear_warden)
            selector.register(self._output, selectors.EVENT_READ, self._hear_engine)
            while not self._ended:
                waits = self._running and not self._ready
                for key, _ in selector.select(RETRY_S if waits else None):
                    if not key.data():
                        selector.unregister(key.fileobj)
                if self._running and not self._ready:
                    self._knock()
        os.kill(self._warden, signal.SIGKILL)
        os.waitpid(self._warden, 0)

    def _hear_agent(self) -> bool:
        packet = self._agent.recv(PACKET_BYTES)
        if not packet:
            self._ended = True
            return False
        do = json.loads(packet)["do"]
        if do == "stop":
            os.kill(self._warden, signal.SIGTERM)
        elif do == "connect":
            self._hand_out()
        return True

    def _hear_warden(self) -> bool:
        """Hear how far the warden came; each thing that it says is one line."""
        lines = os.read(self._news, PACKET_BYTES).splitlines()
        for line in lines:
            if self._ended:
                break
            news: dict[str, Any] = json.loads(line)
            if "held" in news:
                self._held = sandbox.Held(**news["held"])
                self._running = True
            elif "failed" in news:
                self._end(say="failed", reason=news["failed"])
            else:
                self._tell_end(news["status"])
        if not lines and not self._ended:  # it was killed before it could say anything
            how = os.waitid(os.P_PID, self._warden, os.WEXITED | os.WNOWAIT)
            assert how is not None
            ended_itself = how.si_code == os.CLD_EXITED
            self._tell_end(how.si_status if ended_itself else -how.si_status)
        return bool(lines)

    def _tell_end(self, status: int) -> None:
        while self._hear_engine():
            pass
        self._end(say="ended", status=status, lines=self._last_words.decode(errors="replace"))

    def _end(self, **packet: object) -> None:
        self._ended = True
        _say(self._agent, **packet)

    def _hear_engine(self) -> bool:
        try:
            words = os.read(self._output, PACKET_BYTES)
        except BlockingIOError:
            return False
        self._last_words = (self._last_words + words)[-LAST_WORDS_BYTES:]
        room_bytes = max(0, LOG_BYTES - self._logged_bytes)
        self._logged_bytes += len(words)
        with suppress(OSError):  # a full disk is the log's end, not the session's
            os.write(sys.stderr.fileno(), words[:room_bytes])
        return bool(words)

    def _knock(self) -> None:
        with suppress(ConnectionRefusedError):
            self._first = self._connect()
            self._ready = True
            _say(self._agent, say="ready", held=asdict(self._held), warden=self._warden)

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(("127.0.0.1", self._port), CONNECT_S)
        if connected.getsockname() == connected.getpeername():
            # The kernel gave us the port that the engine is to have: TCP connects us to ourselves.
            connected.close()
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody but we ourselves was there")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        return connected

    def _hand_out(self) -> None:
        try:
            connected = self._first or self._connect()
        except OSError as error:
            _say(self._agent, say="refused", reason=error.strerror or str(error))
            return
        self._first = None
        with connected:
            packet = json.dumps({"say": "connected"}).encode()
            socket.send_fds(self._agent, [packet], [connected.fileno()])


def _keep_room(
    plan: sandbox.Plan, port: int, held: sandbox.Held, news: int, output: int
) -> NoReturn:
    """Be the warden: close the room, start the engine, wait for its end."""
    try:
        sandbox.die_with_parent()
        if _reader_is_gone(news):
            os._exit(1)
        sandbox.close_room(plan, port, held)
        refusal = None if plan.allow_weaker else held.refusal()
        if refusal is None:
            _tell(news, held=asdict(held))
            _tell(news, status=_run_engine(plan, port, news, output))
        else:
            _tell(news, failed=refusal)
    except OSError as error:
        _tell(news, failed=f"the worker's room cannot be closed: {error}")
    os._exit(0)


def _run_engine(plan: sandbox.Plan, port: int, news: int, output: int) -> int:
    """Start the engine, and return its exit status when it has ended."""
    engine = os.fork()
    if engine == 0:
        try:
            _become_engine(plan, port, output)
        except OSError as error:
            mend = f" by user {os.geteuid()}: chmod a+rx" if error.errno == errno.EACCES else ""
            _tell(news, failed=f"{plan.command[0]} cannot be started: {error.strerror}{mend}")
        os._exit(1)
    os.close(output)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(engine, signal.SIGTERM))
    while True:
        ended, status = os.wait()
        if ended == engine:
            with suppress(ProcessLookupError):  # what it started, where we are not process 1
                os.killpg(engine, signal.SIGKILL)
            return os.waitstatus_to_exitcode(status)


def _become_engine(plan: sandbox.Plan, port: int, output: int) -> NoReturn:
    os.setsid()
    sandbox.die_with_parent()
    os.dup2(output, 1)
    os.dup2(output, 2)
    sandbox.limit(plan)
    os.chdir("/")
    # Python ignores SIGPIPE, and what is ignored stays so: without this, a client that hangs up
    # kills ggml-rpc-server.
    command = [word.replace("{port}", str(port)) for word in plan.command]
    os.execve(command[0], command, plan.environment)  # noqa: S606 - no shell is wanted  # nosec B606


def _prefer_as_victim() -> None:
    """When memory is short on the whole machine, the worker goes before what the owner runs."""
    Path("/proc/self/oom_score_adj").write_text(str(FIRST_VICTIM))


def _reader_is_gone(pipe: int) -> bool:
    """Whether the doorman ended before the kernel was asked to tell us."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _tell(news: int, **said: object) -> None:
    os.write(news, json.dumps(said).encode() + b"\n")


def _say(agent: socket.socket, **packet: object) -> None:
    with suppress(BrokenPipeError):  # the agent is gone, and so are we, in a moment
        agent.send(json.dumps(packet).encode())


if __name__ == "__main__":
    main()
