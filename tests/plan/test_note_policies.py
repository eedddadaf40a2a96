"""The rules by which the fifth note chooses a model; what is expected is copied from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.models.outline import outline_of_shape
from shoestring.plan import note_policies as note
from shoestring.plan.note_policies import PublishedSpeed


@pytest.mark.parametrize(
    ("ram_gib", "gpu_gib", "model", "speed"),
    [
        (8, 12, "13b q4_k_m", (30, 50)),
        (8, 80, "13b q4_k_m", (30, 50)),
        (8, 11.9, "7b q4_k_m", (40, 70)),
        (8, 6, "7b q4_k_m", (40, 70)),
        (16, 5.9, "7b q4_k_s", (5, 15)),
        (16, None, "7b q4_k_s", (5, 15)),
        (15.9, None, "3b q4_k_s", (8, 20)),
        (4, 2, "3b q4_k_s", (8, 20)),
    ],
)
def test_the_four_tiers_are_those_of_the_note(ram_gib, gpu_gib, model, speed):
    """By GPU memory from 12 and from 6 GB, then by RAM from 16 GB."""
    tier = note.recommend_configuration(ram_gib=ram_gib, gpu_gib=gpu_gib)

    assert f"{tier.model_size} {tier.quantisation}" == model
    assert tier.tokens_per_s == speed


def test_a_tier_names_the_settings_of_the_note():
    """Context, batch, layers and memory."""
    gpu = note.recommend_configuration(ram_gib=32, gpu_gib=8)
    assert (gpu.context, gpu.batch, gpu.gpu_layers, gpu.memory_gib) == (4096, 256, -1, (5, 6))

    small = note.recommend_configuration(ram_gib=8, gpu_gib=None)
    assert (small.context, small.batch, small.gpu_layers, small.memory_gib) == (2048, 64, 0, (3, 4))


def test_the_size_is_weights_times_bits():
    """Seven billion at 4.83 bits are 3.94 of what the note calls GB."""
    assert note.estimate_size(7, "q4_k_m") == pytest.approx(7e9 * 4.83 / 8 / 1024**3)
    assert note.estimate_size(7, "q4_k_m") == pytest.approx(3.936, abs=0.001)


def test_the_size_is_held_against_the_real_one():
    """With the note's bits Llama 3.1 8B comes out a little too small: its output is Q6_K."""
    outline = outline_of_shape("llama-3.1-8b:q4_k_m")
    error = note.error_of_size(8.03e9, "q4_k_m", outline.file_bytes)

    assert -0.03 < error < 0
    assert note.error_of_size(8e9, "q8_0", 8_500_000_000) == pytest.approx(0)


def test_the_three_largest_that_fit_are_recommended():
    """The note's own example: 16 GB."""
    chosen = [(each.parameters, each.quantisation) for each in note.select_models(16.0)]
    assert chosen == [("13b", "q5_k_m"), ("13b", "q4_k_m"), ("7b", "q8_0")]

    best = note.select_models(16.0, quality_priority=True)
    assert [(each.parameters, each.quantisation) for each in best] == [
        ("13b", "q5_k_m"),
        ("7b", "q8_0"),
        ("7b", "q5_k_m"),
    ]


@given(st.floats(0, 100), st.booleans())
def test_what_is_recommended_leaves_two_gb(available, quality):
    """At most three, the largest first, and none that would need more."""
    chosen = note.select_models(available, quality_priority=quality)

    assert len(chosen) <= 3
    assert all(each.size_gib + 2 <= available for each in chosen)
    assert [each.size_gib for each in chosen] == sorted(
        (each.size_gib for each in chosen), reverse=True
    )


def speed(tokens_per_s: float, **changes) -> PublishedSpeed:
    """Return a row of a card of 8 GiB with seven billion weights, or of what is changed."""
    fields = {
        "device": "a card",
        "gpu_gib": 8.0,
        "ram_gib": None,
        "parameters": 7e9,
        "quantisation": "q4_k_m",
    }
    return PublishedSpeed(**{**fields, **changes}, tokens_per_s=tokens_per_s)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (speed(39.9), "slower"),
        (speed(40.0), "within"),
        (speed(70.0), "within"),
        (speed(70.1), "faster"),
        (speed(13.3, gpu_gib=15.0, parameters=14.8e9), "slower"),
        (speed(10.0, gpu_gib=None, ram_gib=32.0), "within"),
    ],
)
def test_a_published_speed_is_judged_by_its_tier(row, verdict):
    """The ends of a range belong to it."""
    judged = note.judge_speed(row)

    assert judged is not None
    assert judged.verdict == verdict


@pytest.mark.parametrize(
    "row",
    [
        speed(50.0, gpu_gib=24.0),  # there it expects a 13b
        speed(50.0, quantisation="f16"),
        speed(50.0, parameters=32e9),
        speed(50.0, gpu_gib=4.0),  # it would look at RAM, which is unknown
        speed(50.0, gpu_gib=None),
    ],
)
def test_where_the_note_expects_nothing_nothing_is_judged(row):
    """Another size, other bits, or an unknown memory."""
    assert note.judge_speed(row) is None
    assert note.judge_speeds([row]) == []
