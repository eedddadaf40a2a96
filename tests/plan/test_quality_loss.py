"""What a quantisation costs in quality, as published."""

import pytest

from shoestring.models.quantising import BASE_TYPES
from shoestring.models.shapes import SHAPES
from shoestring.plan.quality_loss import FLOATS, LOSSES, MEASURED, find_loss, stand_in


def test_a_published_loss_is_found_with_its_source():
    """Q4_K_M of Llama 3 8B, as in the table of llama.cpp."""
    found = find_loss("llama-3.1-8b", "q4_k_m")

    assert found.loss is not None
    assert found.loss.perplexity_ratio == pytest.approx(1.028160, abs=1e-6)
    assert (found.loss.mean_kld, found.loss.same_top) == (0.031273, 0.91901)
    assert "perplexity/README.md" in found.loss.source
    assert found.reason == "measured on Llama-3-8B, of its family and size"


def test_an_importance_matrix_is_a_row_of_its_own():
    """It loses less; where nobody published it, there is none."""
    plain = find_loss("llama-3.1-8b", "q4_k_m").loss
    matrix = find_loss("llama-3.1-8b", "q4_k_m", imatrix=True).loss
    assert plain is not None
    assert matrix is not None
    assert matrix.perplexity_ratio < plain.perplexity_ratio

    assert find_loss("llama-3.1-70b", "q4_k_m", imatrix=True).loss is None


@pytest.mark.parametrize(
    ("shape", "quantisation", "reason"),
    [
        ("qwen3-8b", "q4_k_m", "nothing published for qwen3-8b or another of its family and size"),
        ("llama-3.2-1b", "q4_k_m", "nothing published for llama-3.2-1b or another of its family"),
        ("llama-2-7b", "q5_k_m", "q5_k_m of Llama-2-7B is not published"),
        ("mistral-7b", "iq4_xs", "iq4_xs of Mistral-7B is not published"),
    ],
)
def test_what_nobody_published_is_none_with_the_reason(shape, quantisation, reason):
    """Neither another size of the family nor a neighbouring quantisation stands in."""
    found = find_loss(shape, quantisation)

    assert found.loss is None
    assert found.reason.startswith(reason)


def test_sixteen_bits_lose_nothing_by_definition():
    """Of any model: it is what the others are measured against."""
    found = find_loss("qwen3-8b", "f16")

    assert found.loss is not None
    assert found.loss.perplexity_ratio == 1


def test_every_quantisation_has_a_stand_in():
    """Of one model, so that they can be put in order; fewer bits lose more."""
    order = ["f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s", "q3_k_m", "q2_k"]
    ratios = [loss.perplexity_ratio for quant in order if (loss := stand_in(quant)) is not None]

    assert len(ratios) == len(order)
    assert ratios == sorted(ratios)
    assert all(stand_in(quant) is not None for quant in BASE_TYPES)
    assert stand_in("iq2_xxs") is None


def test_the_table_is_sound():
    """No row twice, no ratio below one, and every model that a shape points to has rows."""
    keys = [(loss.model, loss.quantisation, loss.imatrix) for loss in LOSSES]

    assert len(keys) == len(set(keys))
    assert all(loss.perplexity_ratio >= 1 and loss.source for loss in LOSSES)
    assert not any(loss.quantisation in FLOATS for loss in LOSSES)
    assert set(MEASURED.values()) == {loss.model for loss in LOSSES}
    assert set(MEASURED) <= set(SHAPES)


@pytest.mark.parametrize(
    ("shape", "kept"),
    [("llama-3.1-8b", 0.973), ("llama-2-7b", 0.986), ("llama-2-70b", 0.988),
     ("llama-3.1-70b", 0.954)],
)  # fmt: skip
def test_what_q4_k_m_keeps_by_perplexity(shape, kept):
    """The fifth note says 97 to 99 %; it is 95 to 99 % by this measure."""
    loss = find_loss(shape, "q4_k_m").loss

    assert loss is not None
    assert 1 / loss.perplexity_ratio == pytest.approx(kept, abs=0.0005)
