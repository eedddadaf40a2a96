"""The models of the feasibility matrix: open ones of 7 to 9 billion weights, and Gemma's nearest.

Memory and speed follow from the shape, so models that were made from one another share it: what is
measured of a shape holds for all of them. The shapes are those of :mod:`shoestring.models.shapes`,
from each model's published ``config.json``.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoestring.models.shapes import SHAPES


@dataclass(frozen=True)
class Candidate:
    """A model that somebody may want to run.

    Attributes:
        title: as its maker calls it.
        shape: as in ``shape:NAME:QUANT``.
        context: tokens, as trained; it may differ between models of one shape.
        reasons: whether it was trained to think before it answers.
    """

    title: str
    shape: str
    context: int
    reasons: bool = False

    @property
    def layers(self) -> int:
        """Transformer blocks."""
        return SHAPES[self.shape].layers


CANDIDATES: tuple[Candidate, ...] = (
    Candidate("Qwen3-8B", "qwen3-8b", 40_960, reasons=True),
    Candidate("DeepSeek-R1-0528-Qwen3-8B", "qwen3-8b", 131_072, reasons=True),
    Candidate("DeepSeek-R1-Distill-Qwen-7B", "qwen2.5-7b", 131_072, reasons=True),
    Candidate("DeepSeek-R1-Distill-Llama-8B", "llama-3.1-8b", 131_072, reasons=True),
    Candidate("Llama-3.1-8B", "llama-3.1-8b", 131_072),
    Candidate("Qwen2.5-7B", "qwen2.5-7b", 32_768),
    Candidate("Mistral-7B-v0.3", "mistral-7b", 32_768),
    Candidate("Ministral-8B-2410", "ministral-8b", 32_768),
    Candidate("Falcon3-7B", "falcon3-7b", 32_768),
    Candidate("Gemma-3-12B", "gemma-3-12b", 131_072),
)
QUANTISATIONS = ("q4_k_m", "q5_k_m", "q8_0", "f16")
CONTEXTS = (2048, 8192, 32_768)
