"""What a token says on the wire, frame by frame, and what it costs us to read that.

A stock llama-server answers over stock workers through the relay of the tests, which has the
firewall in it and keeps every frame. A *step* is what one token makes llama-server say to a worker.
The last step is counted by kind; then its frames are gone through again, without network and
worker, to time what our side does with them.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections import Counter
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Final

from blake3 import blake3
from swarm_user import llama_server

from shoestring.swarm.firewall import Rules
from shoestring.swarm.identity import load_identity
from shoestring.swarm.link import tls_context
from shoestring.swarm.packing import packed
from shoestring.swarm.splitting import Answers, Splitter
from shoestring.swarm.wire import (
    HEADER,
    TENSOR_BYTES,
    TWO_U64,
    U64,
    Answer,
    Command,
    tensor_name,
)
from shoestring.testing.rpc_real import real_worker
from shoestring.testing.rpc_relay import Replayed, again, relaying

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.swarm.wire import Frame
    from shoestring.testing.rpc_relay import Heard

RULES: Final = Rules(memory_bytes=1 << 34, device_memory_bytes=1 << 34)
GRAPHS: Final = frozenset({Command.GRAPH_COMPUTE, Command.GRAPH_RECOMPUTE})
ASKED: Final = {"prompt": "A ship left the harbour at noon.", "temperature": 0,
                "ignore_eos": True, "cache_prompt": False}  # fmt: skip
Step = list["Frame"]


async def record(
    model: Path, folder: Path, *, workers: int, tokens: int, output: str
) -> list[Heard]:
    """Return what went through the connection of each worker that computed."""
    with ExitStack() as stack:
        ports, heard = [], []
        for number in range(workers):
            place = folder / f"worker{number}"
            place.mkdir(parents=True)
            relay = relaying(stack.enter_context(real_worker(place)), RULES)
            port, connections = stack.enter_context(relay)
            ports.append(f"127.0.0.1:{port}")
            heard.append(connections)
        log = folder / "llama-server.log"
        async with llama_server(ports, model, log, output=output) as server:
            await asyncio.to_thread(server.complete, {**ASKED, "n_predict": tokens})
    return [max(connections, key=lambda one: len(one.requests)) for connections in heard]


def steps_of(frames: list[Frame]) -> list[Step]:
    """Cut a session's frames behind what is read of each graph."""
    steps: list[Step] = [[]]
    has_graph = False
    for frame in frames:
        if has_graph and frame.command != Command.GET_TENSOR:
            steps.append([])
            has_graph = False
        steps[-1].append(frame)
        has_graph |= frame.command in GRAPHS
    return steps


def last_token(frames: list[Frame]) -> Step:
    """Return the last step that computes the graph of the one before: a token's, whole."""
    tokens = [
        step for step in steps_of(frames)
        if any(frame.command == Command.GRAPH_RECOMPUTE for frame in step)
    ]  # fmt: skip
    return tokens[-1]


def kind_of(frame: Frame) -> str:
    """Say in a word what a frame of a step is for."""
    if frame.command in GRAPHS:
        return "graph"
    name = tensor_name(frame.head)
    if frame.command == Command.GET_TENSOR:
        return "logits" if name.startswith("result_output") else "activation out"
    _, _, inner = name.partition("#")
    inner = inner.partition("#")[0]
    if "mask" in inner:
        return "mask"
    carried = inner == "embd" or re.search(r"-\d+$", inner)
    return "activation in" if carried else "positions"


def data_bytes(frame: Frame) -> int:
    """Return how many bytes of a tensor a frame brings, or asks for."""
    if frame.command == Command.GET_TENSOR:
        return int(TWO_U64.unpack_from(frame.head, TENSOR_BYTES)[1])
    return frame.size - len(frame.head)


def count_step(step: Step) -> dict[str, dict[str, int]]:
    """Count a step by kind: frames, bytes of data, and bytes of wording around them."""
    counts: dict[str, Counter[str]] = {}
    for frame in step:
        wording = HEADER.size + len(frame.head)
        if frame.command == Command.GET_TENSOR:
            wording += U64.size
        counts.setdefault(kind_of(frame), Counter()).update(
            frames=1, data_bytes=data_bytes(frame), wording_bytes=wording
        )
    return {kind: dict(count) for kind, count in counts.items()}


def time_work(heard: Heard, folder: Path, *, times: int) -> dict[str, dict[str, float]]:
    """Return what a token's frames cost each part of ours, in seconds of one core.

    The bodies are zeros, which only packing tells from others; so are most of a mask.
    """
    step = last_token(heard.requests)
    up = b"".join(_as_sent(frame) for frame in step)
    down = [Answer(int(frame.command), data_bytes(frame), b"")
            for frame in step if frame.command == Command.GET_TENSOR]  # fmt: skip
    answers = b"".join(U64.pack(one.size) + bytes(one.size) for one in down)
    masks = [frame for frame in step if frame.command == Command.SET_TENSOR
             and kind_of(frame) == "mask"]  # fmt: skip
    carry = tls_carrier(folder)
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "cutting into frames, two ends": (2, lambda: _cut(up, answers, step)),
        "hashing the answer": (1, lambda: blake3(answers).digest()),
        "packing masks": (1, lambda: [packed(one, bytes(data_bytes(one))) for one in masks]),
        "TLS, sealed and opened": (1, lambda: carry(up, answers)),
    }
    found = {name: {"s": count * _median_s(work, times)} for name, (count, work) in works.items()}
    found["firewall"] = {"s": firewall_s(heard)}
    return found


def firewall_s(heard: Heard) -> float:
    """Return what the firewall takes of a token, the median over all tokens of a session."""
    replayed = Replayed(heard, RULES)
    took_s = []
    for step in steps_of(heard.requests):
        copies = [again(frame) for frame in step]
        begun_s = time.perf_counter()
        for frame in copies:
            replayed.go_on(frame)
        spent_s = time.perf_counter() - begun_s
        if any(frame.command == Command.GRAPH_RECOMPUTE for frame in step):
            took_s.append(spent_s)
    return median(took_s)


def tls_carrier(folder: Path) -> Callable[[bytes, bytes], int]:
    """Return what carries bytes there and others back through a TLS session of ours, in memory."""
    ours, theirs = (load_identity(folder / name) for name in ("ours.key", "theirs.key"))
    contexts = [tls_context(ssl.PROTOCOL_TLS_CLIENT, [theirs.certificate]),
                tls_context(ssl.PROTOCOL_TLS_SERVER, [ours.certificate])]  # fmt: skip
    for context, identity in zip(contexts, (ours, theirs), strict=True):
        identity.show_in(context)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts[0].wrap_bio(back, there)
    server = contexts[1].wrap_bio(there, back, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue

    def carry(up: bytes, down: bytes) -> int:
        client.write(up)
        _read(server, len(up))
        server.write(down)
        _read(client, len(down))
        return len(up) + len(down)

    carry(os.urandom(1), os.urandom(1))
    return carry


def _read(side: ssl.SSLObject, size: int) -> None:
    while size:
        size -= len(side.read(size))


def _as_sent(frame: Frame) -> bytes:
    start = bytes(frame.start())
    return start + bytes(frame.size - len(frame.head))


def _cut(up: bytes, answers: bytes, step: Step) -> None:
    Splitter().feed(up)
    cut = Answers()
    for frame in step:
        if frame.command == Command.GET_TENSOR:
            cut.expect(frame)
    cut.feed(answers)


def _median_s(work: Callable[[], object], times: int) -> float:
    took_s = []
    for _ in range(times):
        begun_s = time.perf_counter()
        work()
        took_s.append(time.perf_counter() - begun_s)
    return median(took_s)
