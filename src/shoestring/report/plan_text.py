"""A plan for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoestring.report.planning import commands
from shoestring.report.units import GIBIBYTE

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.plan.planner import Placed, Plan
    from shoestring.plan.speed import Interval

BAR: Final = 48
"""Characters of a whole memory."""
PARTS: Final = (
    ("weights_bytes", "#"),
    ("cache_bytes", "="),
    ("compute_bytes", "+"),
    ("other_bytes", "-"),
)
"""Of a memory, and how they are drawn."""


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
        f"decode   {_range(predicted.decode_tokens_per_s)} tokens/s from an empty context",
        f"         {_range(plan.filled_tokens_per_s)} tokens/s with the context full",
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
        bar, done = "", 0
        for attribute, mark in PARTS:
            done += getattr(placed, attribute)
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


def _range(interval: Interval | None) -> str:
    if interval is None:
        return "?"
    return f"{_short(interval.value)} ({_short(interval.low)} to {_short(interval.high)})"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004 - three digits


def _gib(size: int) -> str:
    return f"{size / GIBIBYTE:.2f} GiB"
