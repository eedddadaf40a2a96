"""How long a token takes on a chip: the law, without its constants.

Three times add up for a token of the answer, two for one of the prompt::

    decode    bytes / bandwidth          * exp(memory)     weights and cache, read once
            + 2 * weights / fp32         * exp(compute)    unpacking and multiplying them
            + layers * 10 us             * exp(launch)     starting kernels
    prefill   2 * weights / compute      * exp(fill)       as matrices, many tokens at once
            + bytes / bandwidth / batch                    weights are read once a batch

Each exponent is a sum of fitted constants: a common one, and what a driver (``nvidia-cuda``), a
family, a generation (``turing``) and a card differ from it by; a name that no fit has seen adds
nothing.
On processors the types of the weights count instead (``Q4_K`` is unpacked at another speed than
``Q6_K``), memory and computing cannot be told apart, and the choice of a token out of the
vocabulary takes time that is seen. The same terms are fitted
(:mod:`shoestring.plan.speed_fit`) and used (:mod:`shoestring.plan.speed`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoestring.models.outline import Outline, TensorSize
    from shoestring.models.shapes import Shape

LAUNCH_S = 1e-5
"""A layer's worth of kernel launches, as a unit."""
CHOICE_S = 1e-8
"""Looking at one token of the vocabulary, as a unit."""
WIDE_FLOPS = 5e13
"""A card of this rate is filled by a batch as the common constant says; wider ones less."""
FAMILIES: Mapping[str, str] = {
    "maxwell": "pascal",
    "pascal": "pascal",
    "pascal-hpc": "pascal",
    "volta": "turing",
    "turing": "turing",
    "turing-16": "turing",
}
"""Generations of NVIDIA that unpack weights alike; any other chip is of its driver's family."""
PROCESSORS = "cpu"
"""The driver of processors."""
USUAL_BACKENDS: Mapping[str, str] = {
    "nvidia": "cuda",
    "amd": "rocm",
    "apple": "metal",
    "intel": "vulkan",
}
"""By what an engine drives a maker's cards where nobody says."""


@dataclass(frozen=True)
class Chip:
    """What computes, as far as the law goes.

    Attributes:
        bandwidth_bytes_per_s: of its memory, as its maker says or a probe measured.
        compute_flops: for prompts: dense 16-bit operations.
        fp32_flops: for single tokens: those of its ordinary units.
        driver: vendor and backend, for example ``nvidia-cuda``; ``cpu``; empty: unknown.
        generation: empty: unknown.
        card: its name in the catalogue, if its own rows are to count; else empty.
    """

    bandwidth_bytes_per_s: float
    compute_flops: float
    fp32_flops: float
    driver: str
    generation: str
    card: str = ""

    @property
    def family(self) -> str:
        """What shares the cost of unpacking."""
        return FAMILIES.get(self.generation, self.driver)


class Block(NamedTuple):
    """Weights of one type that a token needs."""

    read_bytes: float
    weights: float


@dataclass(frozen=True)
class Work:
    """What one token asks of a model, or of a part of it.

    Attributes:
        blocks: by type of the weights.
        layers: how many of them.
        held_bytes: all weights, also of experts that this token does not use.
        experts: whether a router picks some.
        choices: tokens of the vocabulary of which the engine picks one; 0: the output is not in it.
    """

    blocks: Mapping[str, Block]
    choices: int = 0
    layers: int = 0
    held_bytes: float = 0.0
    experts: bool = False


class Term(NamedTuple):
    """Seconds at a constant of 0, and by how much each named constant counts."""

    base_s: float
    names: Mapping[str, float]


Constants: TypeAlias = "Mapping[str, float]"


def decode_terms(chip: Chip, work: Work, *, old: bool = False) -> list[Term]:
    """List the times of one token of an answer.

    Args:
        chip: that computes it.
        work: of one token.
        old: whether the engine is older than CUDA graphs (llama.cpp before May 2024).
    """
    card = _flags({f"card/{chip.driver}/{chip.card}": chip.card != ""})
    memory = card | _named("memory", chip)
    flags = _flags({"launch/old": old, "launch/experts": work.experts})
    launch = Term(work.layers * LAUNCH_S, card | _named("launch", chip) | flags)
    if chip.driver == PROCESSORS:
        parts = [
            Term(
                block.read_bytes / chip.bandwidth_bytes_per_s,
                {**memory, f"memory/type/{kind}": 1.0},
            )
            for kind, block in work.blocks.items()
        ]
        return [*parts, launch, Term(work.choices * CHOICE_S, {"choice": 1.0})]
    read_bytes = sum(block.read_bytes for block in work.blocks.values())
    weights = sum(block.weights for block in work.blocks.values())
    compute = card | {"compute": 1.0, f"compute/family/{chip.family}": 1.0}
    return [
        Term(read_bytes / chip.bandwidth_bytes_per_s, memory),
        Term(2 * weights / chip.fp32_flops, compute),
        launch,
    ]


def prefill_terms(
    chip: Chip, work: Work, *, batch: int, flash_attention: bool = False, old: bool = False
) -> list[Term]:
    """List the times of one token of a prompt.

    Args:
        chip: that computes it.
        work: of one token, without the output.
        batch: tokens that are computed at once.
        flash_attention: whether scores are never held whole.
        old: as in :func:`decode_terms`.
    """
    flags = {
        f"fill/card/{chip.driver}/{chip.card}": chip.card != "",
        f"fill/flash/{chip.driver}": flash_attention,
        "fill/old": old,
    }
    fill = _named("fill", chip) | _flags(flags)
    if not chip.driver.startswith("apple") and chip.driver != PROCESSORS:
        fill["fill/wide"] = math.log(chip.compute_flops / WIDE_FLOPS)
    read = Term(work.held_bytes / chip.bandwidth_bytes_per_s / batch, {})
    if chip.driver == PROCESSORS:
        return [
            *(
                Term(2 * block.weights / chip.compute_flops, {**fill, f"fill/type/{kind}": 1.0})
                for kind, block in work.blocks.items()
            ),
            read,
        ]
    weights = sum(block.weights for block in work.blocks.values())
    return [Term(2 * weights / chip.compute_flops, fill), read]


def add_up(terms: Iterable[Term], constants: Constants) -> float:
    """Return the seconds of some terms."""
    return sum(
        term.base_s
        * math.exp(sum(constants.get(name, 0.0) * times for name, times in term.names.items()))
        for term in terms
    )


def work_of(
    outline: Outline, prefixes: tuple[str, ...], *, layers: int = 0, choices: int = 0
) -> Work:
    """Say what one token needs of the tensors of some names.

    Args:
        outline: the model.
        prefixes: of the tensors' names.
        layers: how many layers they are.
        choices: as in :class:`Work`.
    """
    some = [tensor for tensor in outline.tensors if tensor.name.startswith(prefixes)]
    return _work(outline.shape, some, layers=layers, choices=choices)


def works_by_layer(outline: Outline) -> tuple[list[Work], list[Work]]:
    """Say what one token needs of each layer, and of that what the experts take."""
    shape = outline.shape
    parts: list[list[TensorSize]] = [[] for _ in range(shape.layers)]
    for tensor in outline.tensors:
        if tensor.name.startswith("blk."):
            parts[int(tensor.name.split(".", 2)[1])].append(tensor)
    return (
        [_work(shape, part, layers=1) for part in parts],
        [_work(shape, [tensor for tensor in part if is_expert(tensor)]) for part in parts],
    )


def _work(
    shape: Shape, tensors: Iterable[TensorSize], *, layers: int = 0, choices: int = 0
) -> Work:
    blocks: dict[str, Block] = {}
    held_bytes = 0.0
    for tensor in tensors:
        held_bytes += tensor.data_bytes
        share = shape.experts_used / shape.experts if is_expert(tensor) and shape.experts else 1.0
        done = blocks.get(tensor.type_name, Block(0.0, 0.0))
        blocks[tensor.type_name] = Block(
            done.read_bytes + share * tensor.data_bytes,
            done.weights + share * math.prod(tensor.dimensions),
        )
    return Work(blocks, choices, layers, held_bytes, shape.experts > 0)


def works_of(outline: Outline) -> tuple[Work, Work]:
    """Say what a token of an answer and one of a prompt need of a whole model."""
    layers, choices = outline.shape.layers, outline.shape.vocabulary
    return (
        work_of(outline, ("blk.", output_prefix(outline)), layers=layers, choices=choices),
        work_of(outline, ("blk.",), layers=layers),
    )


def output_prefix(outline: Outline) -> str:
    """Return what the output's tensors begin with: of a tied model it is the embedding."""
    return "token_embd." if outline.shape.tied else "output"


def is_expert(tensor: TensorSize) -> bool:
    """Say whether a tensor holds experts, of which a token uses some."""
    return "_exps." in tensor.name


def _named(term: str, chip: Chip) -> dict[str, float]:
    """Name the constants of a term that every chip has: the common one and its differences."""
    return {
        term: 1.0,
        f"{term}/driver/{chip.driver}": 1.0,
        f"{term}/generation/{chip.generation}": 1.0,
    }


def _flags(flags: Mapping[str, bool]) -> dict[str, float]:
    return {name: 1.0 for name, holds in flags.items() if holds}
