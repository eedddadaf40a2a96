"""A relay between a real llama-server and a real worker that lets everything through the firewall.

It is the agent's work without links and own commands: what tests and the fuzzer need to know that
the firewall passes what llama.cpp says, and to have frames of real models.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoestring.swarm.firewall import Firewall
from shoestring.swarm.splitting import Answers, Splitter
from shoestring.swarm.wire import ANSWERED, TWO_U64, U64, BadFrameError, Command, Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoestring.swarm.firewall import Rules
    from shoestring.swarm.wire import Answer

READ_BYTES = 1 << 18
HOST = "127.0.0.1"
HARMLESS = {Command.SET_TENSOR, Command.GET_TENSOR, Command.GET_ALLOC_SIZE, Command.COPY_TENSOR}
"""They change nothing in a session's state; most frames are such."""


@dataclass
class Heard:
    """What went through a connection.

    Attributes:
        requests: frames as the client sent them, without bodies.
        answers: command of each answer, what the worker said and what the client got.
        refused: why the firewall ended it, or None.
    """

    requests: list[Frame] = field(default_factory=list)
    answers: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    refused: BadFrameError | None = None

    def truths(self) -> list[int]:
        """Return the pointers and addresses of the worker's buffers."""
        made = [said for command, said, _ in self.answers if command == Command.ALLOC_BUFFER]
        found = [said for command, said, _ in self.answers if command == Command.BUFFER_GET_BASE]
        return [U64.unpack_from(said)[0] for said in made + found]


def again(frame: Frame) -> Frame:
    """Return a frame of its own, for a firewall changes what it lets through."""
    return frame._replace(head=bytearray(frame.head))


class Replayed:
    """A session gone through again, frame by frame, without a worker.

    Attributes:
        firewall: in the state of the next frame.
        places: pointer, base and size of the buffers that are there, by number.
    """

    def __init__(self, heard: Heard, rules: Rules) -> None:
        self.firewall = Firewall(rules)
        self._spare: Firewall | None = None
        self._answers = deque(heard.answers)
        self.places: dict[int, tuple[int, int, int]] = {}

    def tried(self, frame: Frame) -> Frame | None:
        """Return a frame as the worker would get it now, or None; the session stays as it is.

        Raises:
            BadFrameError: it is refused.
        """
        spare = self._spare or deepcopy(self.firewall)
        self._spare = spare  # also after it refused one: that may have changed nothing
        verdict = spare.request(frame)
        if frame.command not in HARMLESS:
            self._spare = None
        return None if verdict.to == "client" else frame

    def go_on(self, frame: Frame) -> Frame | None:
        """Let the session's next frame through; return it as the worker got it, or None."""
        self._spare = None
        number = U64.unpack_from(frame.head)[0] if len(frame.head) >= U64.size else 0
        verdict = self.firewall.request(frame)
        if frame.command == Command.FREE_BUFFER:
            del self.places[number]
        if frame.command in ANSWERED:
            command, said, told = self._answers.popleft()
            assert command == frame.command
            if verdict.to == "worker":
                assert self.firewall.answer(command, said) == told
                self._learn(command, number, said, told)
        return None if verdict.to == "client" else frame

    def _learn(self, command: int, number: int, said: bytes, told: bytes) -> None:
        if command == Command.ALLOC_BUFFER:
            pointer, size = TWO_U64.unpack(said)
            self.places[TWO_U64.unpack(told)[0]] = (pointer, 0, size)
        if command == Command.BUFFER_GET_BASE:
            pointer, _, size = self.places[number]
            self.places[number] = (pointer, U64.unpack(said)[0], size)


class Relay:
    """Carries one connection of a client to the worker, both ways."""

    def __init__(self, rules: Rules, heard: Heard) -> None:
        self._firewall = Firewall(rules)
        self._answers = Answers()
        self._heard = heard
        self._settled = asyncio.Event()
        self._settled.set()

    async def run(
        self, client: tuple[asyncio.StreamReader, asyncio.StreamWriter], worker_port: int
    ) -> None:
        """Carry it until one of both ends it."""
        reader, writer = client
        answers, requests = await asyncio.open_connection(HOST, worker_port)
        back = asyncio.create_task(self._carry_answers(answers, writer))
        try:
            await self._carry_requests(reader, writer, requests)
        except BadFrameError as error:
            self._heard.refused = error
        except ConnectionError:
            pass
        finally:
            requests.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await back
            writer.close()

    async def _carry_requests(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        requests: asyncio.StreamWriter,
    ) -> None:
        splitter = Splitter()
        while data := await reader.read(READ_BYTES):
            for piece in splitter.feed(data):
                if isinstance(piece, Frame):
                    await self._settled.wait()
                    self._request(piece, writer, requests)
                else:
                    requests.write(piece)
            await requests.drain()

    def _request(
        self, frame: Frame, writer: asyncio.StreamWriter, requests: asyncio.StreamWriter
    ) -> None:
        self._heard.requests.append(again(frame))
        verdict = self._firewall.request(frame)
        if verdict.to == "client":
            self._give(self._answers.place(frame.command, verdict.answer), writer)
            return
        if self._firewall.waits:
            self._settled.clear()
        self._answers.expect(frame)
        requests.write(frame.start())

    async def _carry_answers(
        self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await answers.read(READ_BYTES):
            self._give(self._answers.feed(data), writer)

    def _give(self, pieces: list[Answer | bytes], writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                writer.write(piece)
            else:
                told = self._firewall.answer(piece.command, piece.payload)
                self._heard.answers.append((piece.command, piece.payload, told))
                writer.write(piece._replace(payload=told).start())
        if not self._firewall.waits:
            self._settled.set()


@contextmanager
def relaying(worker_port: int, rules: Rules) -> Iterator[tuple[int, list[Heard]]]:
    """Relay connections to a worker on loopback, one session each, until the block ends.

    Yields:
        The port for ``--rpc``, and what went through each connection.
    """
    all_heard: list[Heard] = []
    ports: list[int] = []
    ready = threading.Event()
    stopping: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        all_heard.append(heard := Heard())
        await Relay(rules, heard).run((reader, writer), worker_port)

    async def serve() -> None:
        server = await asyncio.start_server(handle, HOST, 0, limit=READ_BYTES)
        ports.append(server.sockets[0].getsockname()[1])
        stopping.append((asyncio.get_running_loop(), stop := asyncio.Event()))
        ready.set()
        async with server:
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield ports[0], all_heard
    finally:
        loop, stop = stopping[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()
