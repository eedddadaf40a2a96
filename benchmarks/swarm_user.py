"""The user's side of a swarm: a stock llama-server over stages or workers, asked and heard."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final

import requests

from shoestring.engines.discovery import find_program
from shoestring.engines.llama_server import OUTPUT_IN_RAM
from shoestring.errors import EngineLostError
from shoestring.testing.live_server import live_server

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from shoestring.swarm.stage import Event, Stage
    from shoestring.testing.live_server import LiveServer

LOOPBACK: Final = "127.0.0.1"
CONTEXT: Final = 1024
TOKENS: Final = 96
READY_LIMIT_S: Final = 60.0
OUTPUT_WORDS: Final = {"local": ("--override-tensor", OUTPUT_IN_RAM), "remote": ()}
"""Where the output is computed: at the user, as with our chains, or with the last layers."""
SILENT_S: Final = 60.0
"""A user who hears nothing for so long has seen an error."""
PROMPT: Final = "A ship left the harbour at noon, and nobody on it knew where it was bound. " * 4


@asynccontextmanager
async def llama_server(
    endpoints: Sequence[str],
    model: Path,
    log_path: Path,
    *,
    output: str = "local",
    more: Sequence[str] = (),
) -> AsyncIterator[LiveServer]:
    """Run a stock llama-server whose layers lie on RPC workers, as many on each.

    Stages are served by the loop meanwhile.

    Args:
        endpoints: of the workers or stages, in the order of their layers.
        model: a GGUF file.
        log_path: where it writes.
        output: which of :data:`OUTPUT_WORDS`.
        more: words for it.

    Raises:
        EngineLostError: it did not take the model.
    """
    devices = ",".join(f"RPC{number}" for number in range(len(endpoints)))

    def command(port: int) -> Sequence[str]:
        return (
            str(find_program("llama-server")), "-m", str(model), "--host", LOOPBACK,
            "--port", str(port), "--rpc", ",".join(endpoints), "--device", devices,
            "-ngl", "999", "-ts", ",".join("1" * len(endpoints)), "-c", str(CONTEXT), "-np", "1",
            "-t", "1", "--no-warmup", "--fit", "off", "--cache-ram", "0", *OUTPUT_WORDS[output],
            *more,
        )  # fmt: skip

    running = live_server(command, log_path=log_path)
    server = await asyncio.to_thread(running.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


@dataclass(frozen=True)
class Heard:
    """A streamed answer, as its user got it.

    Attributes:
        text: all of it.
        stamps_s: when each part came, on ``time.perf_counter``.
        error: what the user saw go wrong; None: nothing.
    """

    text: str
    stamps_s: tuple[float, ...]
    error: str | None

    def longest_gap_s(self) -> float | None:
        """Return the longest time between two parts; None below two."""
        return max((after - before for before, after in pairwise(self.stamps_s)), default=None)

    def token_s(self) -> float | None:
        """Return a token's usual time, the median between two; None below three parts.

        The last part is llama-server's end of the answer, and no token.
        """
        gaps_s = [after - before for before, after in pairwise(self.stamps_s[:-1])]
        return median(gaps_s) if gaps_s else None


def hear(
    server: LiveServer,
    seed: int,
    at_part: int = 0,
    timer: threading.Timer | None = None,
    *,
    tokens: int = TOKENS,
    prompt: str = PROMPT,
) -> Heard:
    """Ask, and stamp what comes; start a timer after so many parts."""
    asked = {"prompt": prompt, "n_predict": tokens, "temperature": 1.0, "top_k": 0, "top_p": 1.0,
             "min_p": 0.0, "seed": seed, "ignore_eos": True, "cache_prompt": False,
             "stream": True}  # fmt: skip
    parts: list[str] = []
    stamps_s: list[float] = []
    error: str | None = "the stream ended without its end"
    try:
        with server.session.post(
            f"{server.address}/completion", json=asked, stream=True, timeout=SILENT_S
        ) as answer:
            answer.raise_for_status()
            for line in filter(None, answer.iter_lines()):
                stamps_s.append(time.perf_counter())
                if not line.startswith(b"data: "):
                    error = f"said {line[:200]!a}"
                    break
                word = json.loads(line.removeprefix(b"data: "))
                parts.append(word["content"])
                if len(parts) == at_part and timer is not None:
                    timer.start()
                if word["stop"]:
                    error = None
                    break
    except (requests.RequestException, ValueError, KeyError) as failure:
        error = f"{type(failure).__name__}: {failure}"[:300]
    return Heard("".join(parts), tuple(stamps_s), error)


class Told:
    """Hears what happens at a stage, as its ``tell``.

    Attributes:
        events: in their order.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)
        self._news.set()

    async def until_ready(self, stage: Stage, count: int) -> None:
        """Wait until so many members know all that llama-server has said.

        Raises:
            EngineLostError: they do not get there.
        """
        try:
            async with asyncio.timeout(READY_LIMIT_S):
                while len(_names_that_know_all(stage)) < count:
                    await self._news.wait()
                    self._news.clear()
        except TimeoutError as error:
            known = ", ".join(sorted(_names_that_know_all(stage))) or "nobody"
            late = f"after {READY_LIMIT_S:g} s {known} knew all, not {count} members"
            raise EngineLostError(late) from error


def _names_that_know_all(stage: Stage) -> set[str]:
    return {
        replica.name
        for conversation in stage.conversations
        for replica in conversation.replicas
        if not replica.is_behind
    }
