"""The fifth note's rules, held against true bytes and published speeds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from shoestring.hardware.cards import find_card
from shoestring.hardware.device_words import parse_devices
from shoestring.models.outline import outline_of_shape
from shoestring.plan.current_models import count_parameters
from shoestring.plan.memory import Settings
from shoestring.plan.note_policies import (
    BITS_PER_WEIGHT,
    PublishedSpeed,
    error_of_size,
    judge_speeds,
    list_variants,
    recommend_configuration,
    select_models,
)
from shoestring.plan.planner import Ask, make_plan
from shoestring.plan.published_speeds import published_rows
from shoestring.plan.speed_constants import load_constants
from shoestring.report.tabular import Column, Table
from shoestring.report.units import GIBIBYTE

if TYPE_CHECKING:
    from shoestring.hardware.devices import Device
    from shoestring.plan.note_policies import Variant
    from shoestring.plan.speed_constants import SpeedConstants

NOTE_CARDS_GIB: Final = (4, 6, 8, 12, 16, 24)
NOTE_CONTEXT: Final = 4096
NOMINAL_SHAPES: Final = {"7b": "mistral-7b", "13b": "llama-2-13b", "34b": "yi-34b"}
"""What the note's sizes stand for."""
NOTED: Final = ("llama-3.1-8b", "llama-2-13b")
"""Shapes on which the note's sizes are tried: of its own nominal sizes."""


def note_sizes_table() -> Table:
    """Return what the note expects of weights, beside their true bytes."""
    columns = (
        Column("model", "Shape"),
        Column("quantisation", "Quantisation"),
        Column("note_bits", "Bits a weight, note"),
        Column("bits", "Bits a weight, tensors"),
        Column("weights_bytes", "Weights (GiB)", 1 / GIBIBYTE),
        Column("error", "The note is off by (%)", 100.0),
    )
    rows = []
    for shape in NOTED:
        parameters = count_parameters(shape)[0]
        for quantisation, bits in BITS_PER_WEIGHT.items():
            weights = outline_of_shape(f"{shape}:{quantisation}").file_bytes
            error = error_of_size(parameters, quantisation, weights)
            rows.append((shape, quantisation, bits, 8 * weights / parameters, weights, error))
    return Table("plan_note_sizes", "The note's sizes and the true ones", columns, tuple(rows))


def note_tiers_table() -> Table:
    """Return how often the note's expected speeds hold on published rows."""
    judged = judge_speeds(_published())
    columns = (
        Column("tier", "The note recommends"),
        Column("expected", "and expects (tokens/s)"),
        Column("rows", "Published rows"),
        Column("within", "Within"),
        Column("slower", "Slower"),
        Column("faster", "Faster"),
    )
    rows = []
    for tier in dict.fromkeys(one.tier for one in judged):
        found = Counter(one.verdict for one in judged if one.tier is tier)
        low, high = tier.tokens_per_s
        rows.append(
            (f"{tier.model_size} {tier.quantisation}", f"{low:g} to {high:g}", found.total(),
             found["within"], found["slower"], found["faster"])
        )  # fmt: skip
    return Table(
        "plan_note_tiers", "The note's expected speeds on published rows", columns, tuple(rows),
        "No published row belongs to a tier of the note.",
    )  # fmt: skip


def note_choice_table() -> Table:
    """Return what the note's rule of 2 GB chooses for memories, held against bytes and speeds.

    Its nominal sizes stand for Mistral 7B, Llama 2 13B and Yi 34B, at its context of 4,096 tokens,
    on a card of 300 GB/s; the last column is the largest of its own variants that fits by ours.
    """
    columns = (
        Column("memory", "Card (GiB)"),
        Column("tier", "The note's tier"),
        Column("chosen", "The note's three"),
        Column("fits", "Of them fit"),
        Column("largest", "Largest of its variants that fits"),
    )
    constants = load_constants()
    rows = []
    for memory in NOTE_CARDS_GIB:
        (card,) = parse_devices([f"card:{memory}GiB:300GB/s"])
        fitting = {one: _fits(one, card, constants) for one in list_variants()}
        chosen = select_models(memory)
        tier = recommend_configuration(ram_gib=16, gpu_gib=memory)
        largest = max(
            (one for one, fits in fitting.items() if fits),
            key=lambda one: one.size_gib,
            default=None,
        )
        rows.append(
            (
                memory, f"{tier.model_size} {tier.quantisation}",
                ", ".join(map(_short, chosen)) or None, sum(fitting[one] for one in chosen),
                None if largest is None else _short(largest),
            )
        )  # fmt: skip
    return Table("plan_note_choice", "The note's choice by memory", columns, tuple(rows))


def _fits(variant: Variant, card: Device, constants: SpeedConstants) -> bool:
    shape = NOMINAL_SHAPES[variant.parameters]
    outline = outline_of_shape(f"{shape}:{variant.quantisation}")
    asked = Ask(
        model=shape, outline=outline, settings=Settings(context=NOTE_CONTEXT), devices=(card,)
    )
    return make_plan(asked, constants, alternatives=False).fits


def _short(variant: Variant) -> str:
    return f"{variant.parameters} {variant.quantisation}"


def _published() -> list[PublishedSpeed]:
    """Return the published rows of single GPUs whose memory is known, as the note's tiers ask."""
    found = []
    for row in published_rows():
        card = find_card(row["device"])
        if card is None or card.kind != "gpu" or card.memory_bytes is None:
            continue
        if "[suspect" in row["source"] or not (row["params_b"] and row["tg128"]):
            continue
        found.append(
            PublishedSpeed(
                device=row["device"],
                gpu_gib=card.memory_bytes / GIBIBYTE,
                ram_gib=None,
                parameters=float(row["params_b"]) * 1e9,
                quantisation=row["quant"].lower(),
                tokens_per_s=float(row["tg128"]),
            )
        )
    return found
