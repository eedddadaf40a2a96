"""Open models to choose from."""

import re

import pytest

from shoestring.models.shapes import SHAPES
from shoestring.plan.candidates import CANDIDATES
from shoestring.plan.current_models import CURRENT_MODELS, count_parameters


def test_every_model_has_a_known_shape_and_a_month():
    """And is there once."""
    titles = [model.title for model in CURRENT_MODELS]

    assert len(titles) == len(set(titles))
    assert all(model.shape in SHAPES for model in CURRENT_MODELS)
    assert all(re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", model.released) for model in CURRENT_MODELS)
    assert all(model.uses and model.licence != "" for model in CURRENT_MODELS)
    assert all(model.context >= 4096 for model in CURRENT_MODELS)


def test_the_models_of_the_feasibility_matrix_are_among_them():
    """With the same facts, since they are taken from there."""
    assert set(CANDIDATES) <= {model.candidate for model in CURRENT_MODELS}


def test_a_model_that_reasons_says_so_in_both_lists():
    """The matrix shows it by a mark, the choice by a use."""
    for model in CURRENT_MODELS:
        assert model.candidate.reasons == ("reasoning" in model.uses), model.title


@pytest.mark.parametrize(
    ("shape", "total", "active"),
    [
        ("llama-3.1-8b", 8.03e9, 8.03e9),
        ("qwen3-0.6b", 0.596e9, 0.596e9),
        ("mixtral-8x7b", 46.70e9, 12.88e9),
    ],
)
def test_weights_are_counted_with_the_experts_that_a_token_uses(shape, total, active):
    """As the makers publish them: of Mixtral 46.7 and 12.9 billion."""
    assert count_parameters(shape) == (
        pytest.approx(total, rel=1e-3),
        pytest.approx(active, rel=1e-3),
    )
