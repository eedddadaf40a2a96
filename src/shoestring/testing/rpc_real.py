"""A stock worker and a stock llama-server whose layers all lie on it: real frames to learn from."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoestring.engines.discovery import find_program
from shoestring.engines.launch import Launched, free_port, is_free
from shoestring.testing.live_server import live_server
from shoestring.testing.rpc_relay import relaying

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from shoestring.swarm.firewall import Rules
    from shoestring.testing.rpc_relay import Heard

PROMPT = "A ship left the harbour at noon, and nobody on it knew where it was bound. " * 20
ASKED = {"prompt": PROMPT, "n_predict": 24, "temperature": 0, "cache_prompt": False}
"""Long enough for several batches and for a cache that grows."""
WORKER_LIMIT_S = 60.0


@contextmanager
def real_worker(folder: Path) -> Iterator[int]:
    """Run a stock worker on loopback, its log in a folder; yield its port."""
    port = free_port()
    words = ("-H", "127.0.0.1", "-p", str(port), "-t", "1")
    worker = Launched(
        "ggml-rpc-server",
        (str(find_program("ggml-rpc-server")), *words),
        environment={},
        log_path=folder / "worker.log",
    )
    try:
        worker.wait_until(lambda: not is_free(port), WORKER_LIMIT_S)
        yield port
    finally:
        worker.stop()


def answer_over(port: int, model: Path, folder: Path, more: Sequence[str] = ()) -> str:
    """Return what a model says whose layers all lie on the worker behind a port.

    Args:
        port: of the worker, or of a relay to it.
        model: a GGUF file.
        folder: for the server's log.
        more: words for llama-server.

    Raises:
        EngineLostError: it did not take the model.
        requests.RequestException: it did not answer.
    """

    def command(http_port: int) -> Sequence[str]:
        return (
            str(find_program("llama-server")), "-m", str(model), "--host", "127.0.0.1",
            "--port", str(http_port), "--rpc", f"127.0.0.1:{port}", "--device", "RPC0",
            "-ngl", "99", "-c", "1024", "-np", "1", "-t", "1", "--no-warmup", "--fit", "off",
            *more,
        )  # fmt: skip

    with live_server(command, log_path=folder / "llama-server.log") as server:
        return str(server.complete(ASKED)["content"])


def record_answer(
    model: Path, rules: Rules, folder: Path, more: Sequence[str] = ()
) -> tuple[str, list[Heard]]:
    """Return a model's answer through a relay with the firewall, and what went through it."""
    with real_worker(folder) as port, relaying(port, rules) as (relay_port, heard):
        return answer_over(relay_port, model, folder, more), heard
