"""A whole plan: bytes and seconds of a model over devices."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.hardware.device_words import parse_devices
from shoestring.models.outline import outline_of_shape
from shoestring.plan.memory import Settings
from shoestring.plan.planner import MARGIN, Ask, make_plan
from shoestring.plan.speed_constants import load_constants

NOTE = ("gtx 1050 ti", "rtx 2080", "gtx 1060 6GB", "ram:64GiB:68GB/s")


def plan(model, *devices, context=4096, **asked):
    """Plan a shape for devices that are given by hand."""
    ask = Ask(
        model=model,
        outline=outline_of_shape(model),
        settings=Settings(context=context),
        devices=parse_devices(devices),
        **asked,
    )
    return make_plan(ask, load_constants())


def test_a_model_that_fits_on_the_card_goes_there_whole():
    """RAM keeps the embedding, as llama.cpp does; nothing else is computed there."""
    made = plan("llama-3.1-8b:q4_k_m", "t4", "ram:12GiB:20GB/s")

    ram, card = made.placed
    assert (ram.layers, card.layers) == ((0, 0), (0, 32))
    assert card.output
    assert ram.weights_bytes == made.demand.embedding_bytes
    assert made.predicted.decode_tokens_per_s.low < 46 < made.predicted.decode_tokens_per_s.high


def test_every_weight_and_every_cache_has_one_place():
    """Nothing is lost between devices, and nothing is twice."""
    made = plan("qwen2.5-32b:q4_k_m", *NOTE)

    assert sum(placed.weights_bytes for placed in made.placed) == made.demand.file_bytes
    assert sum(placed.cache_bytes for placed in made.placed) == sum(made.demand.cache_bytes)
    edges = [placed.layers for placed in made.placed]
    assert [first for first, _ in edges[1:]] == [end for _, end in edges[:-1]]


def test_the_third_note_is_beaten_by_the_plan():
    """Its machine, its model: our split fits and is no slower than 1.5 : 4.5 : 3 with 40 layers.

    Its 2.5 tokens/s lie in the interval of its own split.
    """
    ours = plan("qwen2.5-32b:q4_k_m", *NOTE)
    theirs = plan("qwen2.5-32b:q4_k_m", *NOTE, gpu_layers=40, shares=(1.5, 4.5, 3))

    assert ours.fits
    assert ours.split.token_s <= theirs.split.token_s
    told = theirs.predicted.decode_tokens_per_s
    assert told.low <= 2.5 <= told.high
    assert "slower" in theirs.rejected[0]


@pytest.mark.parametrize(("wanted", "host"), [(0, 64), (1, 64), (40, 25), (65, 0), (99, 0)])
def test_so_many_layers_on_cards_as_are_wanted(wanted, host):
    """The output counts as one of them; how they are shared out is still the best."""
    made = plan("qwen2.5-32b:q4_k_m", "2xrtx 3090", "ram:64GiB:68GB/s", gpu_layers=wanted)

    assert made.fits
    assert made.placed[0].layers == (0, host)
    assert made.placed[0].output is (wanted == 0)


def test_experts_stay_in_ram_where_that_is_faster():
    """Of a mixture that a card cannot hold, the card gets attention first."""
    made = plan("mixtral-8x7b:q4_k_m", "t4", "ram:64GiB:200GB/s")

    assert made.fits
    assert made.split.expert_layers > 0
    assert sum(placed.weights_bytes for placed in made.placed) == made.demand.file_bytes
    assert made.placed[1].total_bytes == made.split.used_bytes[1]


def test_what_fits_nowhere_says_the_least_that_would():
    """One line, with the place and its bytes."""
    made = plan("llama-3.1-70b:q4_k_m", "t4")

    assert not made.fits
    assert made.predicted is None
    assert "at least 40." in made.rejected[0]


def test_without_a_bandwidth_there_is_a_place_but_no_speed():
    """Memory is planned; speed is not invented, and the reason names the mend."""
    made = plan("llama-3.1-8b:q4_k_m", "ram:16GiB")

    assert made.fits
    assert made.predicted is None
    assert "ram:32GiB:40GB/s" in made.no_speed


def test_shares_for_other_devices_are_refused():
    """A share for each card or peer, no more and no less."""
    with pytest.raises(BadValueError, match="2 shares for 1 devices"):
        plan("llama-3.1-8b:q4_k_m", "t4", "ram:12GiB:20GB/s", shares=(1, 2))


def test_a_peer_far_away_is_left_out():
    """A link of a second a token is worse than slow RAM."""
    near = plan("llama-3.1-8b:q4_k_m", "peer:t4:1ms", "ram:16GiB:20GB/s")
    far = plan("llama-3.1-8b:q4_k_m", "peer:t4:1s", "ram:16GiB:20GB/s")

    assert near.placed[1].layers == (0, 32)
    assert far.placed[1].layers == (32, 32)


@settings(max_examples=25, deadline=None)
@given(
    model=st.sampled_from(["llama-3.2-1b:q4_k_m", "gemma-3-1b:q8_0", "mixtral-8x7b/4:q4_0"]),
    card=st.integers(1, 16),
    ram=st.integers(2, 64),
    context=st.sampled_from([512, 8192, 32_768]),
)
def test_a_plan_that_fits_keeps_its_margin(model, card, ram, context):
    """No device is filled to more than what it has free, less the margin."""
    made = plan(model, f"card:{card}GiB:300GB/s", f"ram:{ram}GiB:20GB/s", context=context)

    for placed in made.placed:
        if made.fits:
            assert placed.total_bytes <= (1 - MARGIN) * placed.free_bytes
    more = replace(made.ask, settings=replace(made.ask.settings, parallel=2))
    assert made.fits or not make_plan(more, load_constants()).fits
