"""Workers that cheat: a relay between a node's agent and its real worker changes what passes.

The agent is honest and does not notice: its receipts are over what its worker said. So is a node
whose owner saves work by running something else behind an agent that is ours.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shoestring.swarm.proof.earning import Earner
from shoestring.swarm.proof.steps import kind_of
from shoestring.swarm.splitting import Answers, Splitter
from shoestring.swarm.tensors import read_graph
from shoestring.swarm.wire import (
    ANSWERED,
    COMPUTES,
    GRAPH,
    U32,
    WITH_BODY,
    WITH_DATA,
    Answer,
    Command,
    Frame,
    tensor_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.swarm.proof.receipts import Receipt
    from shoestring.swarm.worker import Worker
    from shoestring.swarm.worker_pool import WorkerPool

READ_BYTES = 1 << 18
LAYER = re.compile(rb".*-(\d+)(?: \(.*)?")


class Cheat(Protocol):
    """How a worker cheats."""

    def ask(self, frame: Frame) -> Frame:
        """Return what the worker is told instead of a frame."""

    def answer(self, frame: Frame, data: bytes) -> bytes:
        """Return what is said instead of what was read."""


class Honest:
    """Does not."""

    def ask(self, frame: Frame) -> Frame:
        """Return it."""
        return frame

    def answer(self, frame: Frame, data: bytes) -> bytes:  # noqa: ARG002 - of the protocol
        """Return them."""
        return data


class Perturbed(Honest):
    """Gives other numbers: each is changed at random by a share of their root mean square.

    Args:
        epsilon: that share.
        now: tells whether it cheats now.
    """

    def __init__(self, epsilon: float, now: Callable[[], bool]) -> None:
        self.epsilon, self.now = epsilon, now
        self._random = np.random.default_rng(1)

    def answer(self, frame: Frame, data: bytes) -> bytes:
        """Return them perturbed."""
        if not (is_activation(frame) and self.now()):
            return data
        numbers = np.frombuffer(data, "<f4")
        scale = self.epsilon * float(np.sqrt(np.mean(np.square(numbers, dtype=np.float64))))
        noise = scale * self._random.standard_normal(numbers.shape)
        return (numbers + noise).astype("<f4").tobytes()


class Reused(Honest):
    """Gives the last step's answer again.

    Args:
        now: tells whether it cheats now.
    """

    def __init__(self, now: Callable[[], bool]) -> None:
        self.now = now
        self._last: dict[tuple[str, int], bytes] = {}

    def answer(self, frame: Frame, data: bytes) -> bytes:
        """Return the last ones of the same tensor and size."""
        if not is_activation(frame):
            return data
        key = tensor_name(frame.head), len(data)
        before, self._last[key] = self._last.get(key), data
        return data if before is None or not self.now() else before


class PoisonedCopies(Honest):
    """Computes as it should, and gives false copies of its caches."""

    def answer(self, frame: Frame, data: bytes) -> bytes:
        """Return them with one bit changed."""
        is_cache = tensor_name(frame.head).startswith("cache_")
        return bytes([data[0] ^ 1]) + data[1:] if is_cache else data


class FewerLayers(Honest):
    """Leaves the work of some layers out.

    Args:
        layers: their numbers.
        now: tells whether it cheats now.
    """

    def __init__(self, layers: set[int], now: Callable[[], bool]) -> None:
        self.layers, self.now = layers, now
        self._graph: Frame | None = None

    def ask(self, frame: Frame) -> Frame:
        """Return a graph without them."""
        if frame.command == Command.GRAPH_COMPUTE:
            self._graph = frame._replace(head=bytearray(frame.head))
        if frame.command not in COMPUTES or self._graph is None:
            return frame
        if not self.now():
            return self._graph
        return without_layers(self._graph, self.layers)


def is_activation(frame: Frame) -> bool:
    """Tell whether what is read is what one layer gives the next, or what comes of the last."""
    return kind_of(frame.head).is_activation


def without_layers(frame: Frame, layers: set[int]) -> Frame:
    """Return a graph in which nothing of these layers is computed but the sum at their end."""
    graph = read_graph(frame.head)
    left_out = set()
    for number, name in zip(graph.tensors["id"].tolist(), graph.tensors["name"], strict=True):
        found = LAYER.fullmatch(name)
        if found and int(found[1]) in layers and not name.startswith(b"l_out"):
            left_out.add(number)
    nodes = [number for number in graph.nodes.tolist() if number not in left_out]
    head = bytearray(GRAPH.pack(graph.device, len(nodes)))
    head += np.array(nodes, "<u8").tobytes()
    head += U32.pack(len(graph.tensors)) + graph.tensors.tobytes()
    return Frame(frame.command, len(head), head)


class CheatingPool:
    """A pool whose workers cheat.

    Args:
        pool: of real workers.
        make: a cheat for each session.
    """

    def __init__(self, pool: WorkerPool, make: Callable[[], Cheat]) -> None:
        self._pool, self._make = pool, make

    @property
    def is_broken(self) -> bool:
        """Whether it has given up."""
        return self._pool.is_broken

    async def take(self) -> CheatingWorker:
        """Return a worker that nobody had before."""
        return CheatingWorker(await self._pool.take(), self._make())


class CheatingWorker:
    """A real worker behind a relay.

    Args:
        worker: the real one.
        cheat: how it cheats.
    """

    def __init__(self, worker: Worker, cheat: Cheat) -> None:
        self._worker, self._cheat = worker, cheat
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

    async def connect(self) -> socket.socket:
        """Return a connection to the relay."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        near = await asyncio.open_connection(sock=theirs)
        far = await asyncio.open_connection(sock=await self._worker.connect())
        self._writers = [near[1], far[1]]
        relay = CheatingRelay(self._cheat)
        self._tasks = [
            asyncio.create_task(relay.carry_requests(near[0], far[1])),
            asyncio.create_task(relay.carry_answers(far[0], near[1])),
        ]
        return ours

    async def stop(self) -> None:
        """End it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()
        await self._worker.stop()


class CheatingRelay:
    """Carries one session both ways, and lets a cheat change it.

    Args:
        cheat: how.
    """

    def __init__(self, cheat: Cheat) -> None:
        self._cheat = cheat
        self._answers = Answers()
        self._asked: deque[Frame] = deque()
        """Whose data have not come."""

    async def carry_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry frames to the worker until they end."""
        splitter = Splitter()
        while data := await reader.read(READ_BYTES):
            for piece in splitter.feed(data):
                if isinstance(piece, bytes):
                    writer.write(piece)
                    continue
                frame = piece if piece.command in WITH_BODY else self._cheat.ask(piece)
                if frame.command in ANSWERED:
                    self._answers.expect(frame)
                if frame.command in WITH_DATA:
                    self._asked.append(frame)
                writer.write(frame.start())
            await writer.drain()
        writer.close()

    async def carry_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry answers back until they end."""
        held, left = bytearray(), 0
        while data := await reader.read(READ_BYTES):
            for piece in self._answers.feed(data):
                if isinstance(piece, Answer):
                    writer.write(piece.start())
                    left = piece.size if piece.command in WITH_DATA else 0
                    continue
                held += piece
                left -= len(piece)
                if not left:
                    writer.write(self._cheat.answer(self._asked.popleft(), bytes(held)))
                    held.clear()
            await writer.drain()
        writer.close()


class Overcounting(Earner):
    """A node's end that counts more tokens than it computed."""

    def _own(self, receipt: Receipt) -> tuple[Receipt, tuple[bytes, ...]]:
        own, leaves = super()._own(receipt)
        figures = replace(own.figures, tokens_out=own.figures.tokens_out + 1)
        return replace(own, figures=figures), leaves
