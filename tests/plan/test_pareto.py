"""Which of many options are worth looking at."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.plan.current_models import CURRENT_MODELS, count_parameters
from shoestring.plan.pareto import Option, Quality, estimate_quality, pareto
from shoestring.plan.speed import Interval


def option(
    model: str,
    speed: float | None = 10.0,
    quality: float | None = 7e9,
    context: int = 4096,
    memory: int = 5 << 30,
) -> Option:
    """Return an option of so many tokens a second, effective weights and tokens."""
    return Option(
        model=model,
        quantisation="q4_k_m",
        context=context,
        memory_bytes=memory,
        decode_tokens_per_s=None if speed is None else Interval(speed, speed, speed),
        quality=Quality(quality, None, "a test"),
    )


def names(options: list[Option]) -> list[str]:
    """Return the models' names, in order."""
    return [each.model for each in options]


def test_what_is_beaten_in_everything_is_left_out():
    """Slower, worse and of no longer context."""
    best, worse = option("best", 20, 8e9, 8192), option("worse", 10, 7e9, 8192)

    assert pareto([worse, best], "speed") == [best]


def test_what_is_best_in_one_thing_stays_and_the_wish_orders():
    """Three options, each first by another wish."""
    options = [option("fast", 90, 1e9), option("good", 3, 3e10), option("long", 9, 2e9, 131_072)]

    assert names(pareto(options, "speed")) == ["fast", "long", "good"]
    assert names(pareto(options, "quality"))[0] == "good"
    assert names(pareto(options, "context"))[0] == "long"


def test_equal_options_stay_the_smaller_first():
    """Nothing but memory tells them apart."""
    assert names(pareto([option("large", memory=9), option("small", memory=8)], "speed")) == [
        "small",
        "large",
    ]


def test_an_unknown_speed_is_the_slowest_not_zero():
    """It stays where its quality is the best, and comes last by speed."""
    unknown, known = option("unknown", None, 9e9), option("known", 0.001, 7e9)

    assert names(pareto([unknown, known], "speed")) == ["known", "unknown"]
    assert names(pareto([unknown, option("better", 1, 9e9)], "speed")) == ["better"]


OPTIONS = st.lists(
    st.builds(
        option,
        st.sampled_from("abc"),
        st.one_of(st.none(), st.integers(1, 3)),
        st.one_of(st.none(), st.integers(1, 3)),
        st.integers(1, 3),
        st.integers(1, 3),
    ),
    max_size=12,
)


def beats(one: Option, other: Option) -> bool:
    """Say by definition whether one beats another."""

    def merits(each: Option) -> list[float]:
        speed, quality = each.decode_tokens_per_s, each.quality.effective_parameters
        return [speed.value if speed else -math.inf, quality or -math.inf, each.context]

    pairs = list(zip(merits(one), merits(other), strict=True))
    return all(mine >= its for mine, its in pairs) and any(mine > its for mine, its in pairs)


@given(OPTIONS, st.sampled_from(["speed", "quality", "context"]), st.randoms())
def test_exactly_the_unbeaten_are_kept(options, wish, chance):
    """Whatever the wish, and in whichever order they are given."""
    kept = pareto(options, wish)
    mixed = [*options]
    chance.shuffle(mixed)

    unbeaten = [each for each in options if not any(beats(other, each) for other in options)]
    assert sorted(map(repr, kept)) == sorted(map(repr, unbeaten))
    assert [repr(each) for each in pareto(mixed, wish)] == [repr(each) for each in kept]


def test_quality_is_weights_less_what_the_quantisation_takes():
    """Of Llama 3.1 8B Q4_K_M counts as 7.1 billion, Q2_K as one; nothing is lost in 16 bits."""
    weights = 8_030_000_000
    whole = estimate_quality("llama-3.1-8b", "f16", weights)
    four = estimate_quality("llama-3.1-8b", "q4_k_m", weights)
    two = estimate_quality("llama-3.1-8b", "q2_k", weights)

    assert whole.effective_parameters == weights
    assert four.effective_parameters == pytest.approx(7.1e9, rel=0.01)
    assert two.effective_parameters == pytest.approx(1.1e9, rel=0.02)
    assert four.perplexity_ratio == pytest.approx(1.0282, abs=1e-4)


def test_a_loss_that_nobody_published_is_stood_in_for_openly():
    """The ratio stays unknown, and the basis names the model that stands in."""
    quality = estimate_quality("qwen3-8b", "q4_k_m", 8_190_000_000)

    assert quality.perplexity_ratio is None
    assert quality.effective_parameters == pytest.approx(8.19e9 * 0.884, rel=0.001)
    assert quality.basis.startswith("nothing published for qwen3-8b")
    assert quality.basis.endswith("that of Llama-3-8B stands in")


def test_an_unknown_quantisation_has_no_quality():
    """None, with the reason."""
    quality = estimate_quality("qwen3-8b", "iq1_s", 8_190_000_000)

    assert (quality.effective_parameters, quality.perplexity_ratio) == (None, None)
    assert quality.basis.startswith("nothing published")


def test_the_whole_catalogue_has_a_quality():
    """Every model in every quantisation that can be planned."""
    for model in CURRENT_MODELS:
        _, active = count_parameters(model.shape)
        quality = estimate_quality(model.shape, "q4_k_m", active)
        assert quality.effective_parameters is not None
        assert 0.7 * active < quality.effective_parameters <= active
