"""A plan as JSON, as text and as launch lines."""

import json

import pytest

from shoestring.hardware.device_words import parse_devices
from shoestring.models.outline import outline_of_shape
from shoestring.plan.memory import Settings
from shoestring.plan.planner import Ask, make_plan
from shoestring.plan.speed_constants import load_constants
from shoestring.report.plan_figure import memory_figure
from shoestring.report.plan_text import plan_text
from shoestring.report.planning import offload_of, plan_json
from shoestring.report.style import svg_text

NOTE = ("gtx 1050 ti", "rtx 2080", "gtx 1060 6GB", "ram:64GiB:68GB/s")


def plan(model, *devices, **settings):
    """Plan a shape for devices that are given by hand."""
    return make_plan(
        Ask(
            model=f"shape:{model}", outline=outline_of_shape(model),
            settings=Settings(**{"context": 4096} | settings), devices=parse_devices(devices),
        ),
        load_constants(),
    )  # fmt: skip


def test_the_line_gives_each_card_the_layers_of_the_plan():
    """The shares add up to the layers on cards, the output among them."""
    made = plan("qwen2.5-32b:q4_k_m", *NOTE, cache_type_k="q8_0", cache_type_v="q8_0")

    offload = offload_of(made)
    counts = [end - first for first, end in (placed.layers for placed in made.placed[1:])]
    counts[-1] += 1
    assert list(offload.tensor_split) == counts
    assert offload.gpu_layers == sum(counts)
    line = plan_json(made, None)["commands"]["llama-server"]
    assert f"-ngl {sum(counts)}" in line
    assert "--fit off" in line
    assert "q8_0" in line


@pytest.mark.parametrize("devices", [("rtx 3060:12GiB", "ram:32GiB:40GB/s")])
def test_cards_without_a_part_are_left_alone(devices):
    """0 layers do not keep llama.cpp off a GPU; naming no device does."""
    made = make_plan(
        Ask(
            model="shape:llama-3.1-8b:q4_k_m", outline=outline_of_shape("llama-3.1-8b:q4_k_m"),
            settings=Settings(context=4096), devices=parse_devices(devices), gpu_layers=0,
        ),
        load_constants(),
    )  # fmt: skip

    assert "--device none" in plan_json(made, None)["commands"]["llama-server"]


@pytest.mark.parametrize(
    ("device", "word"), [("t4", "--usecuda"), ("rx 7900 xtx", "--usevulkan"), ("m1 max:64GiB", "")]
)
def test_koboldcpp_computes_with_what_the_card_has(device, word):
    """CUDA is NVIDIA's."""
    line = plan_json(plan("llama-3.2-1b:q4_k_m", device), None)["commands"]["koboldcpp"]

    assert word in line
    assert ("--usecuda" in line) is (word == "--usecuda")


def test_a_peer_without_a_part_is_not_asked_for():
    """The server would not start without it."""
    made = plan("llama-3.1-8b:q4_k_m", "t4", "peer:rtx 3060:1s", "ram:16GiB:20GB/s")

    assert offload_of(made).rpc == ()
    assert offload_of(made).tensor_split is None


def test_the_json_holds_what_scripts_rely_on():
    """The keys of the command line's contract, with plain values."""
    said = json.loads(json.dumps(plan_json(plan("llama-3.1-8b:q4_k_m", *NOTE), None)))

    assert {"model", "fits", "placements", "predicted", "commands", "rejected"} <= set(said)
    assert said["fits"] is True
    assert {"llama-server", "ollama", "koboldcpp"} <= set(said["commands"])
    for placed in said["placements"]:
        parts = placed["memory_bytes"]
        assert parts["total"] == sum(size for name, size in parts.items() if name != "total")
    assert {"value", "low", "high"} == set(said["predicted"]["decode_tokens_per_s"])


def test_the_json_has_each_speed_that_the_text_shows():
    """Decoding with the context full is slower than from an empty one, and stands beside it."""
    made = plan("llama-3.1-8b:q4_k_m", "t4", "ram:12GiB:20GB/s")
    said = plan_json(made, None)["predicted"]

    filled, empty = said["decode_filled_tokens_per_s"], said["decode_tokens_per_s"]
    assert filled["value"] == made.filled_tokens_per_s.value < empty["value"]
    assert filled["low"] < filled["value"] < filled["high"]


def test_what_does_not_fit_has_no_commands():
    """A plan without a place has its reason, and nulls."""
    said = plan_json(plan("llama-3.1-70b:q4_k_m", "t4"), None)

    assert (said["fits"], said["commands"], said["placements"]) == (False, {}, [])
    assert said["predicted"]["decode_tokens_per_s"] is None
    assert said["predicted"]["decode_filled_tokens_per_s"] is None
    assert "at least" in said["rejected"][0]


@pytest.mark.parametrize("explain", [False, True])
def test_the_text_fits_a_terminal(explain):
    """Where each layer goes and how fast it is; reasons and commands may be longer."""
    text = plan_text(plan("qwen2.5-32b:q4_k_m", *NOTE), None, explain=explain)

    said = text.partition("llama-server:")[0]
    assert max(map(len, said.partition("no better")[0].splitlines())) <= 100
    assert ("no better" in said) is explain
    assert "layers 0 to" in said


def test_the_picture_is_the_same_twice():
    """A plan drawn again gives the same bytes."""
    made = plan("qwen2.5-32b:q4_k_m", *NOTE)

    assert svg_text(memory_figure(made)) == svg_text(memory_figure(made))
