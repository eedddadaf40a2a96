"""A plan for readers: as JSON, as text for a terminal, and as launch lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from shoestring.engines.launch_lines import LaunchModel, launch_lines
from shoestring.engines.offload import Offload
from shoestring.plan.alternatives import count_gpu_layers
from shoestring.report.tabular import Column, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shoestring.plan.choosing import Choice
    from shoestring.plan.planner import Placed, Plan
    from shoestring.plan.speed import Interval

GIBIBYTE: Final = 1 << 30
BAR: Final = 48
"""Characters of a whole memory in a terminal."""
PARTS: Final = (("weights", "#"), ("kv_cache", "="), ("compute", "+"), ("other", "-"))
"""Of a memory, and how a terminal draws them."""
PROMPT_CACHE_BYTES: Final = 8 * GIBIBYTE
"""What llama-server keeps at most of earlier prompts, where it is not told otherwise."""
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
                "reason": way.reason,
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
            "released": choice.model.released,
            "licence": choice.model.licence,
            "uses": list(choice.model.uses),
            "quantisation": choice.option.quantisation,
            "context": choice.option.context,
            "memory_bytes": choice.option.memory_bytes,
            "gpu_layers": _gpu_layers(choice.plan),
            "batch": choice.plan.ask.settings.batch,
            "decode_tokens_per_s": interval_json(choice.option.decode_tokens_per_s),
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
    """Return what a plan that fits decides, as engines need it."""
    assert plan.split is not None
    split, settings = plan.split, plan.ask.settings
    cards = range(1, len(plan.problem.places))
    counts = [
        split.runs[index][1] - split.runs[index][0] + (index == split.output) for index in cards
    ]
    peers = [placed for placed in plan.placed if placed.device and placed.device.kind == "peer"]
    several = len(counts) > 1 and any(counts)
    host = plan.placed[0]
    left = plan.problem.host.room_bytes - host.total_bytes if host.device else 0
    return Offload(
        # 0 layers alone would not keep llama.cpp off a GPU: it sends large batches there.
        devices=() if counts else ("none",),
        # Left to itself the server fills 8 GiB of RAM with what it keeps of earlier prompts.
        prompt_cache_bytes=min(PROMPT_CACHE_BYTES, left),
        gpu_layers=count_gpu_layers(plan.problem, split),
        tensor_split=tuple(map(float, counts)) if several else None,
        experts_in_ram=split.expert_layers,
        cache_type_k=settings.cache_type_k,
        cache_type_v=settings.cache_type_v,
        flash_attention=settings.flash_attention,
        rpc=tuple(PEER_ENDPOINT.format(number + 1) for number in range(len(peers))),
        batch=settings.batch,
        ubatch=settings.ubatch,
        fit=False,
    )


def plan_text(plan: Plan, path: Path | None, *, explain: bool) -> str:
    """Return a plan for a terminal of 100 characters.

    Args:
        plan: that fits.
        path: of the model's file.
        explain: draw where the memory goes, and say why each other way is no better.
    """
    settings = plan.ask.settings
    each = f" for each of {settings.parallel} requests" if settings.parallel > 1 else ""
    lines = [f"{plan.ask.model} at a context of {settings.context:,} tokens{each}", ""]
    lines += [_placement_line(plan, placed) for placed in plan.placed]
    if plan.split is not None and plan.split.expert_layers:
        lines.append(f"experts of the first {plan.split.expert_layers} layers stay in RAM")
    if all(first == end for first, end in (placed.layers for placed in plan.placed[1:])):
        lines.append(
            f"{'':24} at its peak {_gib(plan.demand.resident_bytes)} with the copies that a "
            f"processor makes, {_gib(plan.demand.reserved_bytes)} reserved"
        )
    lines += ["", *_speed_lines(plan)]
    if explain:
        lines += ["", *_picture(plan), "", *_reasons(plan)]
    lines += ["", *(_command_lines(commands(plan, path), explain=explain))]
    return "\n".join(lines)


def choices_table(choices: Sequence[Choice], fitting: int, wish: str, most: int) -> Table:
    """Return the first rows of the Pareto set, the best by the wish first."""
    columns = (
        Column("model", "Model"),
        Column("quantisation", "Quantisation"),
        Column("context", "Context"),
        Column("memory_bytes", "Memory (GiB)", 1 / GIBIBYTE),
        Column("gpu_layers", "GPU layers"),
        Column("decode_tokens_per_s", "Decode (tokens/s)"),
        Column("low", "at least"),
        Column("high", "at most"),
        Column("perplexity_ratio", "Perplexity ratio"),
        Column("uses", "For"),
    )
    rows = tuple(
        (
            choice.option.model, choice.option.quantisation, choice.option.context,
            choice.option.memory_bytes,
            _gpu_layers(choice.plan),
            *_three(choice.option.decode_tokens_per_s), choice.option.quality.perplexity_ratio,
            ", ".join(choice.model.uses),
        )
        for choice in choices[:most]
    )  # fmt: skip
    shown = f"; the first {most}" if most < len(choices) else ""
    title = (
        f"{len(choices)} of {fitting} combinations that fit and are fast enough are beaten by no "
        f"other in speed, quality (a proxy) and context; sorted by {wish}{shown}"
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
            ("decode (tokens/s)", *_three(predicted.decode_tokens_per_s)),
            ("prefill (tokens/s)", *_three(predicted.prefill_tokens_per_s)),
            (f"TTFT for {plan.ask.prompt_tokens} tokens (s)", *_three(predicted.ttft_s)),
        )
    )
    title = "Predicted; between the bounds lie four of five devices that the fit has not seen"
    return Table("plan_speed", title, columns, rows, plan.no_speed or "; ".join(plan.rejected))


def _gpu_layers(plan: Plan) -> int | None:
    return None if plan.split is None else count_gpu_layers(plan.problem, plan.split)


def _three(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if interval is None else (interval.value, interval.low, interval.high)


def _placement_json(placed: Placed) -> dict[str, Any]:
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


def _placement_line(plan: Plan, placed: Placed) -> str:
    first, end = placed.layers
    parts = []
    if placed is plan.placed[0]:
        parts.append("embedding")
    if end > first:
        parts.append(f"layers {first} to {end - 1}")
    if placed.output:
        parts.append("output")
    free = "" if placed.free_bytes is None else f" of {_gib(placed.free_bytes)} free"
    holds = ", ".join(parts) or "nothing"
    return f"{_name(placed):24} {holds:34} {_gib(placed.total_bytes)}{free}"


def _name(placed: Placed) -> str:
    if placed.device is None:
        return "RAM (not given)"
    return "RAM" if placed.device.kind == "cpu" else placed.name


def _speed_lines(plan: Plan) -> list[str]:
    predicted = plan.predicted
    if predicted is None:
        return [f"speed: not predicted: {plan.no_speed}"]
    return [
        f"decode   {_range(predicted.decode_tokens_per_s)} tokens/s",
        f"prefill  {_range(predicted.prefill_tokens_per_s)} tokens/s",
        f"TTFT     {_range(predicted.ttft_s)} s for a prompt of {plan.ask.prompt_tokens} tokens",
        "in brackets what four of five devices lie between; predicted, not measured",
    ]


def _picture(plan: Plan) -> list[str]:
    lines = [
        "where the memory goes: # weights, = KV cache, + buffers, - program, . free, ! too much"
    ]
    for placed in plan.placed:
        whole = placed.free_bytes or placed.total_bytes
        memory = _placement_json(placed)["memory_bytes"]
        bar, done = "", 0
        for name, mark in PARTS:
            done += memory[name]
            bar += mark * (round(BAR * done / whole) - len(bar))
        over = "!" * max(0, len(bar) - BAR)
        lines.append(f"{_name(placed):24} |{bar[:BAR].ljust(BAR, '.')}|{over}")
    return lines


def _reasons(plan: Plan) -> list[str]:
    lines = [f"no better: {reason}" for reason in plan.rejected]
    if plan.predicted is not None:
        lines += [f"fitted on: {part}" for part in plan.predicted.fitted_on.split("; ")]
    lines += [
        f"{placed.device.name}: {placed.device.source}" for placed in plan.placed if placed.device
    ]
    return lines


def _command_lines(lines: dict[str, str], *, explain: bool) -> list[str]:
    shown = lines if explain else {"llama-server": lines["llama-server"]}
    return [line for name, text in shown.items() for line in (f"{name}:", *_indent(text))]


def _indent(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]


def _placeholder(plan: Plan) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", plan.ask.model.partition(":")[2]) + ".gguf"


def _range(interval: Interval | None) -> str:
    if interval is None:
        return "?"
    return f"{_short(interval.value)} ({_short(interval.low)} to {_short(interval.high)})"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004 - three digits


def _gib(size: int) -> str:
    return f"{size / GIBIBYTE:.2f} GiB"
