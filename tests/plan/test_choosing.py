"""Choosing a model for a machine."""

from shoestring.hardware.device_words import parse_devices
from shoestring.plan.choosing import choose
from shoestring.plan.current_models import CURRENT_MODELS
from shoestring.plan.memory import Settings
from shoestring.plan.speed_constants import load_constants

FEW = [model for model in CURRENT_MODELS if model.title in {"Qwen3-0.6B", "Qwen3-4B", "Qwen3-8B"}]


def ask(wish, *devices):
    """Choose of three models."""
    return choose(
        parse_devices(devices), Settings(context=1), wish, load_constants(), models=FEW,
        contexts=(2048, 8192),
    )  # fmt: skip


def test_what_is_chosen_fits_and_is_sorted_by_the_wish():
    """Speed first gives a small model, quality first a large one; each plan fits."""
    fast, fitting = ask("speed", "t4", "ram:12GiB:20GB/s")
    good, _ = ask("quality", "t4", "ram:12GiB:20GB/s")

    assert fitting == 3 * 5 * 2
    assert fast[0].option.model == "Qwen3-0.6B"
    assert all(one.option.decode_tokens_per_s.value >= 3 for one in fast)
    assert good[0].option.model.endswith("8B")
    assert {one.option for one in fast} == {one.option for one in good}
    assert all(one.plan.fits for one in fast)
    assert not any(one.plan.alternatives for one in fast)  # nobody reads them


def test_models_of_one_shape_are_named_together():
    """None of the catalogue is hidden behind another of its shape."""
    shared = [model for model in CURRENT_MODELS if model.shape == "qwen2.5-7b"]
    chosen, _ = choose(
        parse_devices(["rtx 3090", "ram:8GiB:20GB/s"]), Settings(context=1), "speed",
        load_constants(), models=shared, contexts=(4096,),
    )  # fmt: skip

    assert len(shared) > 1
    assert {one.title for one in chosen[0].models} == {one.title for one in shared}
    assert {"chat", "code"} <= set(chosen[0].uses)


def test_models_that_do_not_fit_are_no_choice():
    """Two gigabytes hold the smallest alone."""
    chosen, fitting = ask("quality", "ram:2GiB:20GB/s")

    assert {one.option.model for one in chosen} == {"Qwen3-0.6B"}
    assert 0 < fitting < 10
