"""Speeds that others measured and published, as rows that a fit can use.

``published_speeds.csv`` holds them as they were gathered, each with its source: the scoreboards of
llama.cpp, and what users sent to other projects. A row that bears ``[suspect]`` in its source is
kept and never used. ``tg128`` is an answer of 128 tokens from an empty context, ``pp512`` a prompt
of 512; sources that count otherwise say so.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.hardware.cards import find_card
from shoestring.models.outline import outline_of_shape
from shoestring.models.quantising import BASE_TYPES
from shoestring.plan.speed_chips import MATRIX_RATIO
from shoestring.plan.speed_terms import PROCESSORS, USUAL_BACKENDS, Block, Chip, Work, works_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoestring.hardware.cards import Card

CSV_PATH = Path(__file__).with_name("published_speeds.csv")
BATCH = 512
JUDGED_SOURCE = "ggml-org/llama.cpp"
"""The scoreboards by which predictions are judged."""
OLD_SOURCES = ("PR#4766", "PR#6766")
"""Of engines from before CUDA graphs (ggml-org/llama.cpp#6766 brought them, May 2024)."""
SHAPES: Mapping[str, str] = {
    "Llama-2-7B": "llama-2-7b",
    "LLaMA-7B": "llama-2-7b",
    "Llama-2-13B": "llama-2-13b",
    "Llama-3-8B": "llama-3.1-8b",
    "Llama-3.1-8B": "llama-3.1-8b",
    "DeepSeek-R1-Distill-Llama-8B": "llama-3.1-8b",
    "Llama-3-70B": "llama-3.1-70b",
    "Llama-3.1-70B": "llama-3.1-70b",
    "Llama-3.2-3B": "llama-3.2-3b",
    "Llama 3.2 1B Instruct": "llama-3.2-1b",
    "TinyLlama-1.1B": "tinyllama-1.1b",
    "DeepSeek-R1-Distill-Qwen-14B": "qwen2.5-14b",
    "Qwen3-8B": "qwen3-8b",
    "Qwen3-14B": "qwen3-14b",
    "Qwen3-32B": "qwen3-32b",
}
"""Names of models in the rows, and their shapes."""
GPT_OSS = "gpt-oss-20B (MoE, 3.6B active)"
GPT_OSS_EXPERTS = 24 * 32 * 3 * 2880 * 2880
GPT_OSS_REST = 24 * (2 * 4096 + 2 * 512) * 2880 + 201_088 * 2880
"""Weights of gpt-oss-20b, from its ``config.json``: 24 layers of 32 experts, of which 4 are used;
the rest (attention and output) is Q8_0 in the file of 11.27 GiB."""
PROCESSOR_ROWS: Mapping[str, str] = {
    "CPU Apple M2 Max (pp 8t, tg 4t)": "Apple M2 Max",
    "CPU AMD EPYC 7352 24-Core Processor (znver2)": "EPYC 7352",
    "CPU Framework Mainboard (128GB)": "Ryzen AI Max+ 395",
    "CPU GMKtek G3 Plus (Intel N150) - 16GB": "Intel N150",
    "CPU Intel Core Ultra 200V Lunar Lake Arc 140V": "LPDDR5X-8533 128 bit",
    "CPU Intel i5-4278U 2t": "Core i5-4278U",
    "CPU Cix CP8180 12t": "Cix CP8180",
    "CPU Minisforum MS-R1": "Cix CP8180",
    "CPU Radxa Orion O6 - 16GB": "Cix CP8180",
    "CPU Pi 5 - 16GB": "Raspberry Pi 5",
    "CPU Pi 5 - 8GB": "Raspberry Pi 5",
    "CPU Raspberry Pi 5": "Raspberry Pi 5",
}
"""Rows of processors whose memory is known, and what they are in the catalogue of cards."""
FLOPS_PER_BYTE = 20.0
"""Of a processor whose rate nobody lists: a guess, which widens its interval."""
BACKENDS = (
    ("CUDA", "cuda"),
    ("ROCm", "rocm"),
    ("Vulkan", "vulkan"),
    ("Metal", "metal"),
    ("SYCL", "sycl"),
    ("IPEX", "sycl"),
)
PROCESSOR_MARK = "CPU "
"""With which the label of a processor begins, also where its GPU is named."""


@dataclass(frozen=True)
class Sample:
    """One measurement, ready for a fit.

    Attributes:
        label: the device as the source names it.
        device: what it is; two labels of one thing share it.
        chip: what the law needs of it.
        work: of one token of an answer.
        fill: of one token of a prompt.
        decode_s: seconds a token; None: not measured.
        prefill_s: likewise.
        batch: tokens of the prompt that were computed at once.
        flash_attention: whether it was on; None: the source does not say.
        old: whether the engine is from before CUDA graphs.
    """

    label: str
    device: str
    chip: Chip
    work: Work
    fill: Work
    decode_s: float | None
    prefill_s: float | None
    batch: int = BATCH
    flash_attention: bool | None = None
    old: bool = False


@functools.cache
def published_rows() -> tuple[Mapping[str, str], ...]:
    """Return the rows as they stand in the file."""
    with CSV_PATH.open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines))


def judged_rows() -> list[Mapping[str, str]]:
    """Return the rows by which predictions are judged: of one device, complete, not suspect."""
    return [
        row
        for row in published_rows()
        if row["source"].startswith(JUDGED_SOURCE)
        and "[suspect" not in row["source"]
        and row["mem_bandwidth_gbs"]
        and row["file_gib"]
        and row["tg128"]
    ]


def samples_of(rows: Iterable[Mapping[str, str]]) -> list[Sample]:
    """Return what can be used of some rows of GPUs; cards and models must be known."""
    samples = []
    for row in rows:
        card, works = find_card(row["device"]), _works(row["model"], row["quant"])
        if card is None or card.kind == "cpu" or row["device"].startswith(PROCESSOR_MARK):
            continue
        if works is None:
            continue
        chip = chip_of_card(card, backend_of(row) or USUAL_BACKENDS[card.vendor])
        if chip is not None:
            samples.append(_sample(row, chip, card.name, works))
    return samples


def processor_samples() -> list[Sample]:
    """Return the rows of processors, of all sources."""
    samples = []
    for row in published_rows():
        name, works = PROCESSOR_ROWS.get(row["device"]), _works(row["model"], row["quant"])
        if name is None or works is None or "[suspect" in row["source"]:
            continue
        card = find_card(name)
        assert card is not None, name
        # Other kinds of cards list what their GPU computes.
        flops = card.fp32_flops if card.kind == "cpu" else None
        flops = flops or card.bandwidth_bytes_per_s * FLOPS_PER_BYTE
        chip = Chip(card.bandwidth_bytes_per_s, flops, flops, PROCESSORS, card.generation)
        samples.append(_sample(row, chip, card.name, works))
    return samples


def backend_of(row: Mapping[str, str]) -> str:
    """Return by what the engine of a row drives its device; empty: the row does not say."""
    return next((name for mark, name in BACKENDS if mark in row["backend"]), "")


def chip_of_card(card: Card, backend: str) -> Chip | None:
    """Return a card with an engine's backend; None: what it computes is unknown.

    What ordinary units do that are not listed is a share of the matrix units' rate.
    """
    compute = card.compute_flops or card.fp32_flops
    if compute is None:
        return None
    return Chip(
        bandwidth_bytes_per_s=card.bandwidth_bytes_per_s,
        compute_flops=compute,
        fp32_flops=card.fp32_flops or compute / MATRIX_RATIO,
        driver=f"{card.vendor}-{backend}",
        generation=card.generation,
    )


def _sample(row: Mapping[str, str], chip: Chip, device: str, works: tuple[Work, Work]) -> Sample:
    flash = {"fa=on": True, "fa=off": False}.get(row["backend"].rpartition(" ")[2])
    return Sample(
        label=row["device"],
        device=device,
        chip=chip,
        work=works[0],
        fill=works[1],
        decode_s=_inverse(row["tg128"]),
        prefill_s=_inverse(row["pp512"]),
        flash_attention=flash,
        old=any(mark in row["source"] for mark in OLD_SOURCES),
    )


@functools.cache
def _works(model: str, quant: str) -> tuple[Work, Work] | None:
    """Return what a token of the answer and one of the prompt need of a model of the rows."""
    if model == GPT_OSS:
        return _gpt_oss(), _gpt_oss()
    shape, quantisation = SHAPES.get(model), quant.lower()
    if shape is None or quantisation not in BASE_TYPES:
        return None
    return works_of(outline_of_shape(f"{shape}:{quantisation}"))


def _gpt_oss() -> Work:
    used = GPT_OSS_EXPERTS * 4 / 32
    rest_bytes = GPT_OSS_REST * 8.5 / 8
    return Work(
        {
            "MXFP4": Block(used * 4.25 / 8, used),
            "Q8_0": Block(rest_bytes, GPT_OSS_REST),
        },
        layers=24,
        held_bytes=GPT_OSS_EXPERTS * 4.25 / 8 + rest_bytes,
        experts=True,
    )


def _inverse(rate: str) -> float | None:
    return 1 / float(rate) if rate else None
