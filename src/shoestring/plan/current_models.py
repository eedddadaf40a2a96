"""Open models to choose from: what they are for, since when, and on which terms.

Their sizes and times follow from the shape; the models of the feasibility matrix are taken from
there. Only models whose shape :mod:`shoestring.models.shapes` knows are in the list. Dates and
licences are those of the makers' own announcements and model cards; a licence that is not certain
is None. Whether a model is good at what it is for is nothing that this list knows.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from shoestring.models.layouts import list_tensors
from shoestring.models.shapes import SHAPES
from shoestring.plan.candidates import CANDIDATES, Candidate

if TYPE_CHECKING:
    from collections.abc import Mapping

Use: TypeAlias = Literal["chat", "code", "reasoning", "small"]
"""``small``: for phones and single boards, or as a draft."""
APACHE, MIT = "Apache-2.0", "MIT"
GEMMA = "Gemma Terms of Use"
LLAMA_3_1 = "Llama 3.1 Community"
LLAMA_3_2 = "Llama 3.2 Community"
LLAMA_3_3 = "Llama 3.3 Community"
QWEN_RESEARCH = "Qwen Research"
QWEN_CONTEXT, QWEN_LONG, LLAMA_CONTEXT = 32_768, 131_072, 131_072


@dataclass(frozen=True)
class CurrentModel:
    """A model that somebody may choose today.

    Attributes:
        candidate: title, shape and trained context.
        released: year and month.
        licence: None: not certain.
        uses: what its maker made it for.
    """

    candidate: Candidate
    released: str
    licence: str | None
    uses: tuple[Use, ...]

    @property
    def title(self) -> str:
        """As its maker calls it."""
        return self.candidate.title

    @property
    def shape(self) -> str:
        """As in ``shape:NAME:QUANT``."""
        return self.candidate.shape

    @property
    def context(self) -> int:
        """Tokens, as trained."""
        return self.candidate.context


_LISTED: Mapping[str, Candidate] = {candidate.title: candidate for candidate in CANDIDATES}


def _listed(title: str, released: str, licence: str | None, *uses: Use) -> CurrentModel:
    return CurrentModel(_LISTED[title], released, licence, uses)


def _model(
    title: str, shape: str, context: int, released: str, licence: str | None, *uses: Use
) -> CurrentModel:
    candidate = Candidate(title, shape, context, reasons="reasoning" in uses)
    return CurrentModel(candidate, released, licence, uses)


CURRENT_MODELS: tuple[CurrentModel, ...] = (
    _model("Qwen3-0.6B", "qwen3-0.6b", 40_960, "2025-04", APACHE, "small", "reasoning"),
    _model("Qwen3-1.7B", "qwen3-1.7b", 40_960, "2025-04", APACHE, "small", "reasoning"),
    _model("Qwen3-4B", "qwen3-4b", 40_960, "2025-04", APACHE, "chat", "reasoning"),
    _listed("Qwen3-8B", "2025-04", APACHE, "chat", "reasoning"),
    _model("Qwen3-14B", "qwen3-14b", 40_960, "2025-04", APACHE, "chat", "code", "reasoning"),
    _model("Qwen3-32B", "qwen3-32b", 40_960, "2025-04", APACHE, "chat", "code", "reasoning"),
    _listed("DeepSeek-R1-0528-Qwen3-8B", "2025-05", MIT, "reasoning"),
    _model("Gemma-3-270M", "gemma-3-270m", 32_768, "2025-08", GEMMA, "small"),
    _model("Gemma-3-1B", "gemma-3-1b", 32_768, "2025-03", GEMMA, "small", "chat"),
    _model("Gemma-3-4B", "gemma-3-4b", 131_072, "2025-03", GEMMA, "chat"),
    _listed("Gemma-3-12B", "2025-03", GEMMA, "chat"),
    _model("Gemma-3-27B", "gemma-3-27b", 131_072, "2025-03", GEMMA, "chat"),
    _listed("DeepSeek-R1-Distill-Qwen-7B", "2025-01", MIT, "reasoning"),
    _listed("DeepSeek-R1-Distill-Llama-8B", "2025-01", f"{MIT}, {LLAMA_3_1}", "reasoning"),
    _model("DeepSeek-R1-Distill-Qwen-14B", "qwen2.5-14b", QWEN_LONG, "2025-01", MIT, "reasoning"),
    _model("DeepSeek-R1-Distill-Qwen-32B", "qwen2.5-32b", QWEN_LONG, "2025-01", MIT, "reasoning"),
    _model(
        "DeepSeek-R1-Distill-Llama-70B",
        "llama-3.1-70b",
        LLAMA_CONTEXT,
        "2025-01",
        f"{MIT}, {LLAMA_3_3}",
        "reasoning",
    ),
    _model("Llama-3.3-70B", "llama-3.1-70b", LLAMA_CONTEXT, "2024-12", LLAMA_3_3, "chat"),
    _listed("Falcon3-7B", "2024-12", "TII Falcon 2.0", "chat"),
    _model("Qwen2.5-Coder-0.5B", "qwen2.5-0.5b", QWEN_CONTEXT, "2024-11", APACHE, "small", "code"),
    _model("Qwen2.5-Coder-3B", "qwen2.5-3b", QWEN_CONTEXT, "2024-11", QWEN_RESEARCH, "code"),
    _model("Qwen2.5-Coder-7B", "qwen2.5-7b", QWEN_CONTEXT, "2024-09", APACHE, "code"),
    _model("Qwen2.5-Coder-14B", "qwen2.5-14b", QWEN_CONTEXT, "2024-11", APACHE, "code"),
    _model("Qwen2.5-Coder-32B", "qwen2.5-32b", QWEN_CONTEXT, "2024-11", APACHE, "code"),
    _listed("Ministral-8B-2410", "2024-10", "Mistral Research", "chat"),
    _model("Llama-3.2-1B", "llama-3.2-1b", LLAMA_CONTEXT, "2024-09", LLAMA_3_2, "small", "chat"),
    _model("Llama-3.2-3B", "llama-3.2-3b", LLAMA_CONTEXT, "2024-09", LLAMA_3_2, "chat"),
    _model("Qwen2.5-0.5B", "qwen2.5-0.5b", QWEN_CONTEXT, "2024-09", APACHE, "small", "chat"),
    _model("Qwen2.5-1.5B", "qwen2.5-1.5b", QWEN_CONTEXT, "2024-09", APACHE, "small", "chat"),
    _model("Qwen2.5-3B", "qwen2.5-3b", QWEN_CONTEXT, "2024-09", QWEN_RESEARCH, "chat"),
    _listed("Qwen2.5-7B", "2024-09", APACHE, "chat"),
    _model("Qwen2.5-14B", "qwen2.5-14b", QWEN_CONTEXT, "2024-09", APACHE, "chat"),
    _model("Qwen2.5-32B", "qwen2.5-32b", QWEN_CONTEXT, "2024-09", APACHE, "chat"),
    _model("Qwen2.5-72B", "qwen2.5-72b", QWEN_CONTEXT, "2024-09", "Qwen", "chat"),
    _listed("Llama-3.1-8B", "2024-07", LLAMA_3_1, "chat"),
    _listed("Mistral-7B-v0.3", "2024-05", APACHE, "chat"),
    _model("Phi-3-mini-4k", "phi-3-mini", 4096, "2024-04", MIT, "small", "chat"),
    _model("Mixtral-8x7B", "mixtral-8x7b", 32_768, "2023-12", APACHE, "chat"),
)
"""Family by family; the order says nothing."""


@functools.cache
def count_parameters(shape: str) -> tuple[int, int]:
    """Return the weights of a shape: all of them, and those that one token uses.

    Of a model of experts a token uses a few; of any other, all.

    Args:
        shape: a name of :data:`shoestring.models.shapes.SHAPES`.
    """
    found = SHAPES[shape]
    counts = {name: math.prod(dimensions) for name, dimensions in list_tensors(found)}
    total = sum(counts.values())
    experts = sum(count for name, count in counts.items() if "_exps" in name)
    idle = experts * (found.experts - found.experts_used) // found.experts if experts else 0
    return total, total - idle
