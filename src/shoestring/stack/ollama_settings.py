"""How a node's own Ollama is started: one model, one request at a time, nothing in the cloud.

Sources: ``docs/faq.md`` and ``envconfig/config.go`` of Ollama; for the T4 the rows of
``llama.cpp#15013``: flash attention makes prefill 7 % faster and decode 5 % slower there, so it is
left to Ollama, which decides by card and model. A P100 (compute capability 6.0) has no tensor
cores and needs driver 570.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT_TOKENS = 4096


def ollama_environment(
    url: str, *, store: Path | None, context: int = CONTEXT_TOKENS, spread: bool = False
) -> dict[str, str]:
    """Return the variables of a node's own Ollama.

    Args:
        url: where it listens.
        store: where it keeps models; None: where the user's Ollama keeps them.
        context: tokens that a loaded model has room for.
        spread: use all GPUs for one model, also where it fits on one. Without it a model goes on
            one GPU if it fits: on two T4s that is faster, for nothing crosses PCIe.
    """
    environment = {
        "OLLAMA_HOST": url,
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_CONTEXT_LENGTH": str(context),
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NOPRUNE": "1",
    }
    if spread:
        environment["OLLAMA_SCHED_SPREAD"] = "1"
    if store is not None:
        environment["OLLAMA_MODELS"] = str(store)
    return environment
