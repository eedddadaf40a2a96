"""A plan for readers and programs: as JSON, as tables, and as launch lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from shoestring.engines.launch_lines import LaunchModel, launch_lines
from shoestring.engines.offload import Offload
from shoestring.plan.alternatives import count_gpu_layers
from shoestring.plan.speed_constants import load_constants
from shoestring.report.tabular import Column, Table
from shoestring.report.units import GIBIBYTE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shoestring.engines.offload import Backend
    from shoestring.plan.choosing import Choice
    from shoestring.plan.planner import Placed, Plan
    from shoestring.plan.speed import Interval

PROMPT_CACHE_BYTES: Final = 8 * GIBIBYTE
"""What llama-server keeps at most of earlier prompts, where it is not told otherwise."""
BACKENDS: Final[Mapping[str, Backend]] = {
    "nvidia": "cuda",
    "apple": "metal",
    "amd": "vulkan",
    "intel": "vulkan",
}
"""By maker; None where nobody knows the card."""
PEER_ENDPOINT: Final = "peer{}:50052"
"""Stands for the address of a peer: the user's own."""


def plan_json(plan: Plan, path: Path | None) -> dict[str, Any]:
    """Return a plan as ``plan --json`` prints it; sizes in bytes, rates a second.

    Args:
        plan: of a model.
        path: of its file, for the commands; None: they name a placeholder.
    """
    predicted = plan.predicted
    return {
        "model": plan.ask.model,
        "fits": plan.fits,
        "context": plan.ask.settings.context,
        "parallel": plan.ask.settings.parallel,
        "cache_type_k": plan.ask.settings.cache_type_k,
        "cache_type_v": plan.ask.settings.cache_type_v,
        "gpu_layers": _gpu_layers(plan),
        "experts_in_ram": plan.split.expert_layers if plan.split else None,
        "placements": [_placement_json(placed) for placed in plan.placed],
        "all_in_ram": {
            "reserved_bytes": plan.demand.reserved_bytes,
            "resident_bytes": plan.demand.resident_bytes,
        },
        "predicted": {
            "decode_tokens_per_s": interval_json(
                predicted.decode_tokens_per_s if predicted else None
            ),
            "decode_filled_tokens_per_s": interval_json(plan.filled_tokens_per_s),
            "prefill_tokens_per_s": interval_json(
                predicted.prefill_tokens_per_s if predicted else None
            ),
            "ttft_s": interval_json(predicted.ttft_s if predicted else None),
            "prompt_tokens": plan.ask.prompt_tokens,
            "fitted_on": predicted.fitted_on if predicted else None,
            "reason": plan.no_speed,
        },
        "alternatives": [
            {
                "name": way.name,
                "fits": way.split.fits,
                "layers": [list(run) for run in way.split.runs],
                "token_s": way.split.token_s if plan.no_speed is None else None,
            }
            for way in plan.alternatives
        ],
        "commands": commands(plan, path) if plan.fits else {},
        "rejected": list(plan.rejected),
    }


def choices_json(choices: list[Choice]) -> list[dict[str, Any]]:
    """Return the Pareto set, each with what a user needs to start it."""
    return [
        {
            "model": choice.option.model,
            "models": [
                {
                    "title": one.title,
                    "released": one.released,
                    "licence": one.licence,
                    "uses": list(one.uses),
                }
                for one in choice.models
            ],
            "quantisation": choice.option.quantisation,
            "context": choice.option.context,
            "memory_bytes": choice.option.memory_bytes,
            "gpu_layers": _gpu_layers(choice.plan),
            "batch": choice.plan.ask.settings.batch,
            "decode_filled_tokens_per_s": interval_json(choice.option.decode_tokens_per_s),
            "effective_parameters": choice.option.quality.effective_parameters,
            "perplexity_ratio": choice.option.quality.perplexity_ratio,
            "quality_basis": choice.option.quality.basis,
            "plan_with": choice.plan.ask.model,
        }
        for choice in choices
    ]


def interval_json(interval: Interval | None) -> dict[str, float] | None:
    """Return a prediction with its interval; None: there is none."""
    if interval is None:
        return None
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def commands(plan: Plan, path: Path | None) -> dict[str, str]:
    """Return the launch line of each engine for a plan that fits."""
    settings = plan.ask.settings
    name = (
        plan.ask.model if plan.ask.model.startswith("ollama:") else str(path or _placeholder(plan))
    )
    return launch_lines(LaunchModel(name, settings.context, settings.parallel), offload_of(plan))


def offload_of(plan: Plan) -> Offload:
    """Return what a plan that fits decides, as engines need it; a peer without a part is none."""
    assert plan.split is not None
    split, settings = plan.split, plan.ask.settings
    parts = [
        (placed, placed.layers[1] - placed.layers[0] + (index == split.last))
        for index, placed in enumerate(plan.placed)
        if index > 0
    ]
    parts = [(one, n) for one, n in parts if n or one.device is None or one.device.kind != "peer"]
    counts = [n for _, n in parts]
    peers = [one for one, _ in parts if one.device is not None and one.device.kind == "peer"]
    host = plan.placed[0]
    left = plan.problem.host.room_bytes - host.total_bytes if host.device else 0
    return Offload(
        # 0 layers alone would not keep llama.cpp off a GPU: it sends large batches there.
        devices=() if any(counts) else ("none",),
        backend=_backend(plan),
        gpu_layers=count_gpu_layers(plan.problem, split),
        tensor_split=tuple(map(float, counts)) if len(counts) > 1 and any(counts) else None,
        experts_in_ram=split.expert_layers,
        output_in_ram=split.output != split.last,
        cache_type_k=settings.cache_type_k,
        cache_type_v=settings.cache_type_v,
        flash_attention=settings.flash_attention,
        rpc=tuple(PEER_ENDPOINT.format(number + 1) for number in range(len(peers))),
        batch=settings.batch,
        ubatch=settings.ubatch,
        # Left to itself the server fills 8 GiB of RAM with what it keeps of earlier prompts.
        prompt_cache_bytes=min(PROMPT_CACHE_BYTES, max(0, left)),
        fit=False,
    )


def choices_table(choices: Sequence[Choice], fitting: int, wish: str, most: int) -> Table:
    """Return the first rows of the Pareto set, the best by the wish first."""
    columns = (
        Column("model", "Model"),
        Column("quantisation", "Quantisation"),
        Column("context", "Context"),
        Column("batch", "Batch"),
        Column("memory_bytes", "Memory (GiB)", 1 / GIBIBYTE),
        Column("gpu_layers", "GPU layers"),
        Column("decode_filled_tokens_per_s", "Decode, context full (tokens/s)"),
        Column("low", "at least"),
        Column("high", "at most"),
        Column("perplexity_ratio", "Perplexity ratio"),
        Column("uses", "For"),
    )
    rows = tuple(
        (
            _titles(choice), choice.option.quantisation,
            choice.option.context, choice.plan.ask.settings.batch,
            choice.option.memory_bytes,
            _gpu_layers(choice.plan),
            *_three(choice.option.decode_tokens_per_s), choice.option.quality.perplexity_ratio,
            ", ".join(choice.uses),
        )
        for choice in choices[:most]
    )  # fmt: skip
    shown = f"; the first {most}" if most < len(choices) else ""
    title = (
        f"{len(choices)} of {fitting} combinations that fit and are fast enough are beaten by no "
        f"other in speed, quality (a proxy) and context; sorted by {wish}{shown}; (+N): as many "
        "others of the same shape, which --json names"
    )
    return Table("plan_choices", title, columns, rows, "No model of the catalogue fits.")


def speed_table(plan: Plan) -> Table:
    """Return the predicted speeds of a plan."""
    columns = (
        Column("what", "What"),
        Column("value", "Predicted"),
        Column("low", "at least"),
        Column("high", "at most"),
    )
    predicted = plan.predicted
    rows = (
        ()
        if predicted is None
        else (
            ("decode, context empty (tokens/s)", *_three(predicted.decode_tokens_per_s)),
            ("decode, context full (tokens/s)", *_three(plan.filled_tokens_per_s)),
            ("prefill (tokens/s)", *_three(predicted.prefill_tokens_per_s)),
            (f"TTFT for {plan.ask.prompt_tokens} tokens (s)", *_three(predicted.ttft_s)),
        )
    )
    title = "Predicted; between the bounds lie four of five devices that the fit has not seen"
    return Table("plan_speed", title, columns, rows, plan.no_speed or "; ".join(plan.rejected))


def _backend(plan: Plan) -> Backend | None:
    """Return what computes on the cards of a plan; of several makers, what all of them have."""
    vendors = load_constants().vendors
    makers = {
        vendors.get(placed.device.generation or "")
        for placed in plan.placed
        if placed.device is not None and placed.device.kind == "gpu"
    }
    if len(makers) > 1:
        return "vulkan"
    return BACKENDS.get(next(iter(makers), None) or "")


def _gpu_layers(plan: Plan) -> int | None:
    return None if plan.split is None else count_gpu_layers(plan.problem, plan.split)


def _titles(choice: Choice) -> str:
    """Name the newest model, and how many share its shape."""
    others = len(choice.models) - 1
    return f"{choice.models[0].title} (+{others})" if others else choice.models[0].title


def _three(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if interval is None else (interval.value, interval.low, interval.high)


def _placement_json(placed: Placed) -> dict[str, Any]:
    """Return what one device holds; layers are the first and the last, both included."""
    first, end = placed.layers
    return {
        "device": placed.name,
        "layers": [first, end - 1] if end > first else None,
        "output": placed.output,
        "memory_bytes": {
            "weights": placed.weights_bytes,
            "kv_cache": placed.cache_bytes,
            "compute": placed.compute_bytes,
            "other": placed.other_bytes,
            "total": placed.total_bytes,
        },
        "free_bytes": placed.free_bytes,
    }


def _placeholder(plan: Plan) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", plan.ask.model.partition(":")[2]) + ".gguf"
