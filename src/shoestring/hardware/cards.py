"""What is known of a card or a machine by its name: its memory, its bandwidth, what it computes.

The facts lie in ``cards.csv``, one row a card, each with the sheet that it is from; what no sheet
says is empty there and None here. Nothing of it was measured: it is what a maker promises at best.

A name is found in many spellings, NVML's and those of people: case, spaces, makers' names and
"GeForce" do not count, a size of memory is a check ("3090 24GB") where the card has one size, and a
laptop part is never taken for the desktop card of its number.
"""

from __future__ import annotations

import csv
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind: TypeAlias = Literal["gpu", "apple", "cpu", "igpu"]
CSV_PATH = Path(__file__).with_name("cards.csv")
GIBIBYTE = 1 << 30
GIGA, TERA = 1e9, 1e12
NOISE = re.compile(
    r"\((?:r|tm)\)|[®™]|@ .*|\b\d+th gen\b|\b(?:w/|with) radeon\b.*"
    r"|\b(?:nvidia|amd|ati|intel|apple|geforce|radeon|tesla|instinct|cpu|processor|graphics"
    r"|generation|workstation|edition|series|with|design|\d+-core processor)\b"
)
"""What a maker writes around a name: of a processor its generation, graphics and clock, too."""
LAPTOP = re.compile(r"\b(?:laptop gpu|laptop|mobile|notebook|max-q)\b")
SIZE = re.compile(r"\b(\d{1,5}) ?gi?b\b(?: hbm\w*)?")
APPLE = re.compile(r"(?:apple )?(m\d(?: (?:pro|max|ultra))?)\b")
APPLE_CORES = re.compile(r"(\d+)[ -]?(?:gpu|core gpu|gpu core)")
SERIES = re.compile(r"\b(?:rtx|gtx|rx|arc)\b")


@dataclass(frozen=True)
class Card:
    """What computes, as its maker describes it.

    Attributes:
        name: the one that the catalogue goes by.
        aliases: other names for the same thing.
        vendor: lower case; empty for memory by itself.
        kind: ``gpu``; ``igpu``, which shares the processor's memory; ``apple``; or ``cpu``.
        generation: key of the speed constants, for example ``turing``.
        memory_bytes: of its own; None: it shares the machine's, or is sold with several sizes.
        bandwidth_bytes_per_s: of its memory, the peak.
        compute_flops: the dense rate of 16-bit multiply-adds, two operations each, by matrix
            units where it has them (with 16-bit sums); None: no better than ``fp32_flops``, or
            unknown.
        fp32_flops: the same of 32-bit ones, without matrix units; None: unknown.
        cores: of a processor, or of an Apple GPU; None: not listed.
        source: the sheet.
    """

    name: str
    aliases: tuple[str, ...]
    vendor: str
    kind: Kind
    generation: str
    memory_bytes: int | None
    bandwidth_bytes_per_s: float
    compute_flops: float | None
    fp32_flops: float | None
    cores: int | None
    source: str


@functools.cache
def cards() -> tuple[Card, ...]:
    """Return the catalogue, in the order of the file."""
    with CSV_PATH.open(encoding="utf-8", newline="") as lines:
        return tuple(_read_row(row) for row in csv.DictReader(lines))


def find_card(text: str) -> Card | None:
    """Return the card of a name; None where the catalogue has none, or not with that memory.

    What is sold with several sizes is found with any; :func:`named_bytes` tells which.

    Args:
        text: for example ``NVIDIA GeForce RTX 3060 Laptop GPU``, ``t4``, ``Apple M1 Max`` (the
            one with most cores) or ``Apple M4 Max 10P+4E+32GPU``.
    """
    name = " ".join(text.lower().split())
    known = _known_names()
    whole = known.get(_squeeze(name))
    if whole is not None:
        return whole
    apple = APPLE.match(name)
    if apple is not None:
        cores = APPLE_CORES.search(name)
        chip = apple[1] if cores is None else f"{apple[1]} {cores[1]}-core gpu"
        return known.get(_squeeze(chip))
    size_bytes = named_bytes(name)
    if size_bytes is None:
        return None
    card = known.get(_squeeze(SIZE.sub(" ", name)))
    return card if card is not None and card.memory_bytes in {None, size_bytes} else None


def named_bytes(text: str) -> int | None:
    """Return the memory that a name ends with, as ``m4 max 128gb``; None where it says none."""
    found = SIZE.search(" ".join(text.lower().split()))
    return None if found is None else int(found[1]) * GIBIBYTE


@functools.cache
def _known_names() -> Mapping[str, Card]:
    """Map every spelling to its card; a name without its series only where it stays unique."""
    known: dict[str, Card] = {}
    short: dict[str, set[str]] = {}
    by_name = {card.name: card for card in cards()}
    for card in cards():
        for name in (card.name, *card.aliases):
            lower = name.lower()
            known[_squeeze(lower)] = card
            short.setdefault(_squeeze(SERIES.sub(" ", lower)), set()).add(card.name)
    for key, names in short.items():
        if len(names) == 1:
            known.setdefault(key, by_name[next(iter(names))])
    return known


def _squeeze(name: str) -> str:
    """Reduce a lower-case name to what tells one card from another."""
    laptop = LAPTOP.search(name) is not None
    rest = NOISE.sub(" ", LAPTOP.sub(" ", name))
    return re.sub(r"[^a-z0-9+]", "", rest) + ("/laptop" if laptop else "")


def _read_row(row: Mapping[str, str]) -> Card:
    return Card(
        name=row["name"],
        aliases=tuple(alias for alias in row["aliases"].split(";") if alias),
        vendor=row["vendor"],
        kind=cast("Kind", row["kind"]),
        generation=row["generation"],
        memory_bytes=int(row["memory_gib"]) * GIBIBYTE if row["memory_gib"] else None,
        bandwidth_bytes_per_s=float(row["bandwidth_gb_per_s"]) * GIGA,
        compute_flops=_scaled(row["fp16_tflops"]),
        fp32_flops=_scaled(row["fp32_tflops"]),
        cores=int(row["cores"]) if row["cores"] else None,
        source=row["source"],
    )


def _scaled(teraflops: str) -> float | None:
    return float(teraflops) * TERA if teraflops else None
