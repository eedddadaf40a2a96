"""The rules by which the fifth note chooses a model, as they stand there, to be held against ours.

::

    recommend_configuration   four tiers by GPU memory and RAM, each with an expected speed
    estimate_size             weights * bits / 8, with the note's own table of bits per weight
    select_models             all of its seven variants that fit with 2 GB to spare, three largest

The decisions and the numbers are the note's, right or wrong. Where it says GB it divides by 1024³,
so the names here say GiB. It asks the machine itself, through a package that only knows NVIDIA;
here the memory is an argument. Its ``select_optimal_model`` takes ``gpu_available``, and never
looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GIBIBYTE = 1 << 30
BITS_PER_WEIGHT: Mapping[str, float] = {
    "q2_k": 2.75,
    "q3_k_s": 3.4,
    "q4_k_s": 4.25,
    "q4_k_m": 4.83,
    "q5_k_s": 5.25,
    "q5_k_m": 5.66,
    "q6_k": 6.5,
    "q8_0": 8.5,
    "f16": 16.0,
}
OVERHEAD_GIB = 2.0
"""What it adds for the KV cache and activations."""
KEPT = 3
"""How many it recommends."""
HIGH_QUALITY = ("Excellent", "Near-perfect")
ALL_LAYERS = -1
Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Recommendation:
    """One tier.

    Attributes:
        model_size: nominal, for example ``7b``.
        quantisation: lower case.
        context: tokens.
        batch: tokens computed at once.
        gpu_layers: on the GPU; -1: all.
        memory_gib: expected; of the GPU in the two tiers that use one, else of RAM.
        tokens_per_s: expected, of answers.
    """

    model_size: str
    quantisation: str
    context: int
    batch: int
    gpu_layers: int
    memory_gib: Range
    tokens_per_s: Range


LARGE_GPU = Recommendation("13b", "q4_k_m", 4096, 512, ALL_LAYERS, (8, 10), (30, 50))
SMALL_GPU = Recommendation("7b", "q4_k_m", 4096, 256, ALL_LAYERS, (5, 6), (40, 70))
LARGE_RAM = Recommendation("7b", "q4_k_s", 2048, 128, 0, (6, 8), (5, 15))
SMALL_RAM = Recommendation("3b", "q4_k_s", 2048, 64, 0, (3, 4), (8, 20))
LARGE_GPU_GIB, SMALL_GPU_GIB, LARGE_RAM_GIB = 12, 6, 16


@dataclass(frozen=True)
class Variant:
    """A model that the note would choose from.

    Attributes:
        base_model: it knows one.
        parameters: nominal, for example ``7b``.
        quantisation: lower case.
        size_gib: estimated.
        expected_quality: a word.
        use_case: in its words.
    """

    base_model: str
    parameters: str
    quantisation: str
    size_gib: float
    expected_quality: str
    use_case: str


@dataclass(frozen=True)
class PublishedSpeed:
    """What somebody measured, as far as the note's tiers ask for it.

    Attributes:
        device: as the source names it.
        gpu_gib: memory of the GPU that ran it; None: a processor did.
        ram_gib: of a processor's machine; None: unknown, or a GPU ran it.
        parameters: of the model.
        quantisation: lower case.
        tokens_per_s: of answers.
    """

    device: str
    gpu_gib: float | None
    ram_gib: float | None
    parameters: float
    quantisation: str
    tokens_per_s: float


@dataclass(frozen=True)
class Judgement:
    """A published speed beside what the note expected.

    Attributes:
        row: what was measured.
        tier: that the note would put the machine into.
        verdict: of the measured speed against the expected range.
    """

    row: PublishedSpeed
    tier: Recommendation
    verdict: Literal["slower", "within", "faster"]


NOMINAL: Mapping[str, Range] = {"3b": (2.5e9, 4.5e9), "7b": (6e9, 9.5e9), "13b": (11e9, 15e9)}
"""How many weights a model may have to pass for one of a tier's nominal size."""
FOUR_BITS = ("q4_k_m", "q4_k_s", "q4_0")


def recommend_configuration(*, ram_gib: float, gpu_gib: float | None) -> Recommendation:
    """Return the note's tier for a machine.

    Args:
        ram_gib: all of it, used or not.
        gpu_gib: all of its first GPU's memory; None: it has none.
    """
    if gpu_gib is not None and gpu_gib >= LARGE_GPU_GIB:
        return LARGE_GPU
    if gpu_gib is not None and gpu_gib >= SMALL_GPU_GIB:
        return SMALL_GPU
    return LARGE_RAM if ram_gib >= LARGE_RAM_GIB else SMALL_RAM


def estimate_size(parameters_billion: float, quantisation: str) -> float:
    """Return the GiB that the note expects of the weights.

    Args:
        parameters_billion: of the model.
        quantisation: one of :data:`BITS_PER_WEIGHT`.
    """
    return parameters_billion * 1e9 * BITS_PER_WEIGHT[quantisation] / (8 * GIBIBYTE)


def error_of_size(parameters: float, quantisation: str, weights_bytes: int) -> float:
    """Return by what share the note's size is off: 0.1 is a tenth too large.

    Args:
        parameters: of the model.
        quantisation: one of :data:`BITS_PER_WEIGHT`.
        weights_bytes: what they really take.
    """
    return estimate_size(parameters / 1e9, quantisation) * GIBIBYTE / weights_bytes - 1


def list_variants() -> tuple[Variant, ...]:
    """Return the note's decision matrix."""
    matrix = (
        (7, "q4_k_s", "Good", "CPU inference, memory constrained"),
        (7, "q4_k_m", "Very Good", "Balanced CPU/GPU, recommended"),
        (7, "q5_k_m", "Excellent", "GPU inference, quality priority"),
        (7, "q8_0", "Near-perfect", "Quality testing, benchmarking"),
        (13, "q4_k_m", "Very Good", "Standard GPU deployment"),
        (13, "q5_k_m", "Excellent", "High-end GPU, quality priority"),
        (34, "q4_k_m", "Very Good", "Multi-GPU or high VRAM"),
    )
    return tuple(
        Variant("mistral", f"{size}b", quant, estimate_size(size, quant), quality, use_case)
        for size, quant, quality, use_case in matrix
    )


def select_models(available_gib: float, *, quality_priority: bool = False) -> tuple[Variant, ...]:
    """Return the variants that the note recommends, the largest first.

    Args:
        available_gib: of memory, of whatever kind.
        quality_priority: only those whose word for quality is one of the best two.
    """
    suitable = [
        variant
        for variant in list_variants()
        if variant.size_gib + OVERHEAD_GIB <= available_gib
        and (not quality_priority or variant.expected_quality in HIGH_QUALITY)
    ]
    suitable.sort(key=lambda variant: variant.size_gib, reverse=True)
    return tuple(suitable[:KEPT])


def judge_speed(row: PublishedSpeed) -> Judgement | None:
    """Say whether a published speed is within the range that the note expects there.

    None where the note expects nothing: another model size or other bits than those of the tier,
    or a machine without a GPU whose RAM is unknown.
    """
    if row.gpu_gib is None and row.ram_gib is None:
        return None
    tier = recommend_configuration(ram_gib=row.ram_gib or 0.0, gpu_gib=row.gpu_gib)
    # A row of a GPU says nothing of the RAM beside it, by which the note would go on.
    if row.gpu_gib is not None and tier not in {LARGE_GPU, SMALL_GPU}:
        return None
    fewest, most = NOMINAL[tier.model_size]
    if not fewest <= row.parameters <= most or row.quantisation not in FOUR_BITS:
        return None
    low, high = tier.tokens_per_s
    if row.tokens_per_s < low:
        return Judgement(row, tier, "slower")
    return Judgement(row, tier, "faster" if row.tokens_per_s > high else "within")


def judge_speeds(rows: Iterable[PublishedSpeed]) -> list[Judgement]:
    """Judge all rows that the note expects something of."""
    return [judged for row in rows if (judged := judge_speed(row)) is not None]
