"""Which tokens greedy decoding takes, as a real llama-server tells them by its own protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.engines.launch import Launched, free_port
from shoestring.hardware.cores import usable_cores

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = 512
LIMIT_S = 600.0
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
    import requests

    address = f"127.0.0.1:{(port := free_port())}"
    server = Launched(
        "llama-server",
        [str(program), "-m", str(model), "--port", str(port), "-c", str(CONTEXT),
         "-t", str(usable_cores()), "-np", "1", "--no-warmup"],
        environment={},
        log_path=None,
    )  # fmt: skip
    with requests.Session() as session:
        session.trust_env = False

        def ready() -> bool:
            try:
                return session.get(f"http://{address}/health", timeout=LIMIT_S).ok
            except requests.ConnectionError:
                return False

        try:
            server.wait_until(ready, LIMIT_S)
            asked = {"prompt": PROMPT, "n_predict": tokens, "temperature": 0, "return_tokens": True}
            answer = session.post(f"http://{address}/completion", json=asked, timeout=LIMIT_S)
            answer.raise_for_status()
            said: dict[str, Any] = answer.json()
            return said
        finally:
            server.stop()
