"""Which tokens greedy decoding takes, as a real llama-server tells them by its own protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.hardware.cores import usable_cores
from shoestring.testing.live_server import live_server

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = 512
PROMPT = "The quick brown fox jumps over the lazy dog."


def decode_greedily(program: Path, model: Path, tokens: int) -> dict[str, Any]:
    """Serve a model and ask for an answer in which each token is the likeliest one.

    Args:
        program: of llama-server.
        model: a GGUF file.
        tokens: how many to ask for, fewer than :data:`CONTEXT`.

    Returns:
        The answer of ``/completion``: ``tokens``, ``content``, ``stop_type``, ``timings``.

    Raises:
        EngineLostError: the server did not take the model.
    """

    def command(port: int) -> list[str]:
        return [
            str(program), "-m", str(model), "--port", str(port), "-c", str(CONTEXT),
            "-t", str(usable_cores()), "-np", "1", "--no-warmup",
        ]  # fmt: skip

    with live_server(command) as server:
        return server.complete(
            {"prompt": PROMPT, "n_predict": tokens, "temperature": 0, "return_tokens": True}
        )
