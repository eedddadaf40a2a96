"""LLM inference on the hardware that you can get for free: run it, measure it, prove it.

The Python surface, flat::

    import shoestring

    with shoestring.open_engine("pypi:gemma3-270m") as engine:
        answer = engine.generate(shoestring.Prompt("The sea is salt because", max_tokens=64))
    print(answer.text, shoestring.timings(answer).ttft_s)

    run = shoestring.run_suite("smoke", model="pypi:gemma3-270m")
    print(shoestring.summarise(run)["metrics"]["ttft_s"]["median"])
    run = shoestring.read_run("results/local/RUN")

Names are imported from their rooms when they are first used, so that ``import shoestring`` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoestring.analysis.metrics import RequestMetrics, timings
    from shoestring.analysis.summary import summarise
    from shoestring.engines.opening import open_engine
    from shoestring.engines.protocol import Engine, Generation, Patience, Prompt
    from shoestring.errors import ShoestringError, UserError
    from shoestring.measure.records import Run, read_run
    from shoestring.measure.runner import run_suite

__all__ = [
    "Engine",
    "Generation",
    "Patience",
    "Prompt",
    "RequestMetrics",
    "Run",
    "ShoestringError",
    "UserError",
    "open_engine",
    "read_run",
    "run_suite",
    "summarise",
    "timings",
]

_HOMES = {
    "Engine": "engines.protocol",
    "Generation": "engines.protocol",
    "Patience": "engines.protocol",
    "Prompt": "engines.protocol",
    "RequestMetrics": "analysis.metrics",
    "Run": "measure.records",
    "ShoestringError": "errors",
    "UserError": "errors",
    "open_engine": "engines.opening",
    "read_run": "measure.records",
    "run_suite": "measure.runner",
    "summarise": "analysis.summary",
    "timings": "analysis.metrics",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its room."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shoestring' has no attribute {name!r}")
    return getattr(importlib.import_module(f"shoestring.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
