"""The note's examples: which device got which layers, and the bytes from one to the next."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from shoestring.models.outline import outline_of_shape
from shoestring.report.service_tables import MEBIBYTE, not_measured, sourced
from shoestring.report.swarm_tables import EXAMPLES, KIBIBYTE, PARTS
from shoestring.report.tabular import Column, Table
from shoestring.report.units import seconds

if TYPE_CHECKING:
    from shoestring.report.service_tables import Figures
    from shoestring.report.tabular import Value

NOTE_BYTES: Final = (10_000, 50_000)
"""What the note says that each layer transfers."""
FLOAT_BYTES: Final = 4
"""Activations are 32-bit on llama.cpp's wire."""
SHAPES: Final = (
    "llama-3.2-3b", "phi-3-mini", "mistral-7b", "llama-3.1-8b", "llama-2-13b", "gemma-3-27b",
    "yi-34b", "llama-3.1-70b", "qwen2.5-72b",
)  # fmt: skip
ANY: Final = "q4_k_m"
"""The type of the weights has no part in the width."""
Hop = tuple[str, int, int, int | None, int | None, int]
"""Model, layers, width; bytes of a hop's activation and of all that it says, counted; of logits."""


def devices_table(figures: Figures | None, example: str) -> Table:
    """Return what each device of an example offered, was given, and held while it answered."""
    columns = (
        Column("way", "Offered"),
        Column("device", "Device"),
        Column("rtt_s", "Round trip, greeted (ms)", 1e3),
        Column("offered_bytes", "Memory offered (MiB)", 1 / MEBIBYTE),
        Column("layers", "Layers"),
        Column("count", "How many"),
        Column("planned_bytes", "Planned (MiB)", 1 / MEBIBYTE),
        Column("resident_bytes", "Worker's resident memory (MiB)", 1 / MEBIBYTE),
    )
    found = figures["examples"].get(example) if figures else None
    rows: list[tuple[Value, ...]] = []
    for way, said in (found["ways"] if found else {}).items():
        for one in said["devices"]:
            first, end = one["layers"]
            rows.append(
                (way, one["name"], one["greeted_rtt_s"], one["offered_bytes"],
                 f"{first} to {end - 1}" if end > first else "none", end - first,
                 one["planned_bytes"], one["resident_bytes"])
            )  # fmt: skip
    title = example if found is None else f"{example}: {found['model']}"
    return sourced(EXAMPLES, f"swarm_devices_{_name(example)}", title, columns, rows, figures)


def ways_table(figures: Figures | None) -> Table:
    """Return of each example how long a token was planned to take, and took."""
    columns = (
        Column("example", "Example"),
        Column("way", "Offered"),
        Column("devices", "Devices with layers"),
        Column("planned_s", "A token, planned (ms)", 1e3),
        Column("token_s", "Measured (ms)", 1e3),
        Column("events", "What went wrong"),
    )
    rows = [
        (name, way, sum(1 for one in said["devices"] if one["planned_bytes"]),
         said["planned_token_s"], said["token_s"], "; ".join(said["events"]) or "nothing")
        for name, found in (figures["examples"] if figures else {}).items()
        for way, said in found["ways"].items()
    ]  # fmt: skip
    return sourced(EXAMPLES, "swarm_ways", "A token of each example", columns, rows, figures)


def choice_facts(figures: Figures | None, example: str) -> list[tuple[str, str]]:
    """Say which devices were chosen and by what, or that the example was not run."""
    if figures is None:
        return [(example, not_measured(EXAMPLES))]
    found = figures["examples"].get(example)
    if found is None:
        return [(example, "not run")]
    facts = []
    for way, said in found["ways"].items():
        used = [one for one in said["devices"] if one["planned_bytes"]]
        left = [one for one in said["devices"] if not one["planned_bytes"]]
        facts.append((f"{way}: chosen", _who(used)))
        if left:
            facts.append((f"{way}: left out", _who(left)))
        facts.append((f"{way}: because", _because(used, said["token_s"])))
    return facts


def hops_table(figures: Figures | None) -> Table:
    """Return what a token takes from one device to the next, counted where a model was run."""
    columns = (
        Column("model", "Model"),
        Column("layers", "Layers"),
        Column("width", "Width"),
        Column("expected_bytes", "Width x 4 (KiB)", 1 / KIBIBYTE),
        Column("measured_bytes", "On the wire (KiB)", 1 / KIBIBYTE),
        Column("all_bytes", "In and out, with all frames (KiB)", 1 / KIBIBYTE),
        Column("logits_bytes", "Logits, had the last device the output (KiB)", 1 / KIBIBYTE),
        Column("note", "Beside the note's 10 to 50 KB"),
    )
    rows = tuple(
        (*row[:3], row[2] * FLOAT_BYTES, *row[3:], beside_note(row[2] * FLOAT_BYTES))
        for row in _hops(figures)
    )
    empty = sourced(PARTS, "swarm_hops", "Bytes a token and hop", columns, rows, figures)
    title = empty.title if figures is not None else "Bytes a token and hop, computed alone"
    return Table("swarm_hops", title, columns, rows)


def beside_note(hop_bytes: int) -> str:
    """Say where a hop's bytes lie."""
    low, high = NOTE_BYTES
    if hop_bytes < low:
        return "below"
    return "within" if hop_bytes <= high else "above"


def hop_points(figures: Figures | None) -> list[tuple[str, int, bool]]:
    """Return each model's bytes a token and hop, and whether they were counted on the wire."""
    return [
        (model, width * FLOAT_BYTES if counted is None else counted, counted is not None)
        for model, _, width, counted, *_ in _hops(figures)
    ]


def _hops(figures: Figures | None) -> list[Hop]:
    """Return those that were counted, and of published shapes what these tell."""
    rows: list[Hop] = []
    for one in figures["frames"] if figures else []:
        first, last = one["first"], one["last"]
        hop = first["activation out"]
        said = sum(its["data_bytes"] + its["wording_bytes"]
                   for kind, its in last.items() if kind != "logits")  # fmt: skip
        both_ways = said + hop["data_bytes"] + hop["wording_bytes"]
        rows.append((one["model"], one["layers"], one["width"], hop["data_bytes"], both_ways,
                     last["logits"]["data_bytes"]))  # fmt: skip
    shapes = [outline_of_shape(f"{name}:{ANY}").shape for name in SHAPES]
    named = {row[0] for row in rows}
    return rows + [
        (one.name, one.layers, one.width, None, None, one.vocabulary * FLOAT_BYTES)
        for one in shapes
        if one.name not in named
    ]


def _because(used: list[Figures], token_s: float | None) -> str:
    """Say what the ways to those that were chosen take of a token.

    Each activation goes half a round trip from the user to the first, between any two and back from
    the last; between two it is taken as half of the mean of theirs, which was not measured.
    """
    trips_s = [one["greeted_rtt_s"] for one in used]
    between_s = sum((one + other) / 2 for one, other in pairwise(trips_s))
    waits_s = (trips_s[0] + between_s + trips_s[-1]) / 2 if trips_s else None
    measured = "which was not measured" if token_s is None else f"of {seconds(token_s)} measured"
    return (
        f"their ways add about {seconds(waits_s)} to a token in a chain, {measured}; nothing but "
        "time was weighed"
    )


def _who(devices: list[Figures]) -> str:
    return ", ".join(f"{one['name']} ({seconds(one['greeted_rtt_s'])})" for one in devices)


def _name(example: str) -> str:
    return example.lower().replace(" ", "_").replace("-", "_")
