"""What a quantisation costs in quality, as far as somebody published it.

::

    perplexity ratio   perplexity of the quantised model / that of the model in 16 bits, same text
    mean KLD           mean Kullback-Leibler divergence of its next token's distribution, in nats
    same top           share of tokens at which both would choose the same one

All on the test set of Wikitext-2, by ``llama-perplexity``. They say how far the quantised model is
from the whole one, not how good the whole one is, nor what a task loses. They differ by family and
by size: what was measured of one model is given for another only where both are of one family and
size, and then by name; else there is no figure. No row is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FLOATS = ("f32", "f16")
README = "llama.cpp tools/perplexity/README.md"
STAND_IN = "Llama-3-8B"
"""The model of which every quantisation was measured."""


@dataclass(frozen=True)
class Loss:
    """One published row.

    Attributes:
        model: that was measured.
        quantisation: lower case, for example ``q4_k_m``.
        perplexity_ratio: 1: no loss.
        mean_kld: nats a token; None: not published.
        same_top: share of tokens; None: not published.
        imatrix: whether an importance matrix was used; None: the source does not say.
        source: where it stands.
    """

    model: str
    quantisation: str
    perplexity_ratio: float
    mean_kld: float | None
    same_top: float | None
    imatrix: bool | None
    source: str


@dataclass(frozen=True)
class Finding:
    """What is known of a model's loss.

    Attributes:
        loss: None: nothing.
        reason: of which model it is, or why there is none.
    """

    loss: Loss | None
    reason: str


LLAMA_3_8B_PPL = 6.231636
"""In 16 bits: 6.233160 of the table less the 0.001524 that come from storing logits."""
_LLAMA_3_8B: tuple[tuple[str, bool, float, float, float | None], ...] = (
    # quantisation, importance matrix, perplexity, mean KLD, same top
    ("q8_0", False, 6.234284, 0.001355, 0.97674),
    ("q6_k", False, 6.253382, 0.005452, 0.96031),
    ("q5_k_m", False, 6.288607, 0.010762, None),
    ("q5_k_s", False, 6.336598, 0.016595, None),
    ("q4_k_m", False, 6.407115, 0.031273, 0.91901),
    ("q4_k_s", False, 6.500529, 0.043136, None),
    ("q4_0", False, 6.700147, 0.071940, None),
    ("q3_k_l", False, 6.787876, 0.087176, None),
    ("q3_k_m", False, 6.888498, 0.101913, None),
    ("q3_k_s", False, 7.863786, 0.228217, None),
    ("q2_k", False, 9.751568, 0.445132, 0.71138),
    ("q4_k_m", True, 6.382937, 0.028152, None),
    ("q4_k_s", True, 6.409697, 0.031951, None),
    ("q3_k_l", True, 6.671223, 0.073077, None),
    ("q3_k_m", True, 6.734255, 0.084358, None),
    ("q3_k_s", True, 7.602878, 0.199821, None),
    ("q2_k", True, 8.647825, 0.332223, None),
)
_LLAMA_2_7B = (
    ("q8_0", 1.000689, 0.000369, 0.98846),
    ("q6_k", 1.002406, 0.002098, 0.97520),
    ("q4_k_m", 1.014242, 0.012686, 0.94665),
    ("q2_k", 1.107955, 0.108903, 0.85584),
)
_PERPLEXITY_ONLY: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("Llama-2-70B", f"{README}, old numbers"): {
        "q6_k": 1.0016,
        "q5_k_m": 1.0040,
        "q5_k_s": 1.0050,
        "q4_k_m": 1.0120,
        "q4_k_s": 1.0157,
        "q4_0": 1.0361,
        "q3_k_l": 1.0380,
        "q3_k_m": 1.0472,
        "q3_k_s": 1.0789,
        "q2_k": 1.0882,
    },
    ("Llama-3-70B", "dranger003 in ggml-org/llama.cpp#6745"): {
        "q8_0": 1.0003,
        "q6_k": 1.0047,
        "q5_k_m": 1.0123,
        "q4_k_m": 1.0483,
        "q4_k_s": 1.0615,
        "q3_k_m": 1.1875,
        "q2_k": 1.687,
    },
    ("Mistral-7B", "ikawrakow/mistral-7b-quantized-gguf, README, column llama.cpp"): {
        "q5_k_s": 1.0059,
        "q4_k_m": 1.0108,
        "q4_k_s": 1.0148,
        "q4_0": 1.0223,
        "q3_k_m": 1.0346,
        "q3_k_s": 1.0662,
    },
}
LOSSES: tuple[Loss, ...] = (
    *(
        Loss(STAND_IN, quant, perplexity / LLAMA_3_8B_PPL, kld, same_top, imatrix, README)
        for quant, imatrix, perplexity, kld, same_top in _LLAMA_3_8B
    ),
    *(
        Loss("Llama-2-7B", quant, ratio, kld, same_top, None, README)
        for quant, ratio, kld, same_top in _LLAMA_2_7B
    ),
    *(
        Loss(model, quant, ratio, None, None, None, source)
        for (model, source), ratios in _PERPLEXITY_ONLY.items()
        for quant, ratio in ratios.items()
    ),
)
MEASURED: Mapping[str, str] = {
    "llama-2-7b": "Llama-2-7B",
    "llama-2-70b": "Llama-2-70B",
    "llama-3.1-8b": "Llama-3-8B",
    "llama-3.1-70b": "Llama-3-70B",
    "mistral-7b": "Mistral-7B",
}
"""Shapes, and the model of their family and size that was measured."""


def find_loss(shape: str, quantisation: str, *, imatrix: bool = False) -> Finding:
    """Return what is published for a shape in a quantisation.

    Args:
        shape: a name of :data:`shoestring.models.shapes.SHAPES`.
        quantisation: lower case.
        imatrix: with an importance matrix; without one, rows whose source does not say count too.
    """
    if quantisation in FLOATS:
        whole = Loss(shape, quantisation, 1.0, 0.0, 1.0, imatrix=None, source="by definition")
        return Finding(whole, "what the others are measured against")
    model = MEASURED.get(shape)
    if model is None:
        return Finding(None, f"nothing published for {shape} or another of its family and size")
    loss = _look_up(model, quantisation, imatrix=imatrix)
    if loss is None:
        kind = "with an importance matrix" if imatrix else ""
        return Finding(None, f"{quantisation} of {model} is not published {kind}".rstrip())
    return Finding(loss, f"measured on {model}, of its family and size")


def stand_in(quantisation: str) -> Loss | None:
    """Return the row of another model, :data:`STAND_IN`, for an order where nothing is known.

    It is no figure of the model at hand, and whoever uses it says so. None: an unknown
    quantisation.
    """
    return find_loss("llama-3.1-8b", quantisation).loss


def _look_up(model: str, quantisation: str, *, imatrix: bool) -> Loss | None:
    wanted = {True} if imatrix else {False, None}
    rows = (
        loss
        for loss in LOSSES
        if (loss.model, loss.quantisation) == (model, quantisation) and loss.imatrix in wanted
    )
    return next(rows, None)
