"""How fast a model is said to be, and what an interval promises."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError, MissingError
from shoestring.hardware.cards import find_card
from shoestring.hardware.devices import Device
from shoestring.models.outline import outline_of_shape
from shoestring.plan.memory import Settings
from shoestring.plan.speed import Part, predict, rates
from shoestring.plan.speed_constants import Fit, load_constants, save_calibration

CONSTANTS = load_constants()
ASKED = Settings(context=4096)
SMALL = outline_of_shape("llama-3.2-1b:q4_k_m")
EXPERTS = outline_of_shape("mixtral-8x7b/4:q4_k_m")
HERE = Fit(
    values={"memory": math.log(0.5), "fill": math.log(2.0), "launch": -20.0},
    decode_spread={"cpu": 0.1, "new generation": 0.1, "new driver": 0.1},
    prefill_spread={"cpu": 0.1, "new generation": 0.1, "new driver": 0.1},
    devices={"cpu": 1},
    about="5 models run on a test on 1 May",
    machine="a test",
)


def device(**changed) -> Device:
    """Return a card of 12 GiB that nobody sells."""
    known = {
        "name": "card", "kind": "gpu", "title": "A card", "memory_bytes": 12 << 30,
        "bandwidth_bytes_per_s": 360e9, "compute_flops": 51e12, "generation": "ampere",
        "link_latency_s": 0.0, "link_bytes_per_s": None, "source": "a test",
    }  # fmt: skip
    return Device(**(known | changed))


def card(name: str) -> Device:
    """Return a card of the catalogue."""
    found = find_card(name)
    return device(
        name=name,
        title=name,
        bandwidth_bytes_per_s=found.bandwidth_bytes_per_s,
        compute_flops=found.compute_flops or found.fp32_flops,
        generation=found.generation,
    )


def predicted(where, outline=SMALL, constants=CONSTANTS, depth=0, asked=ASKED):
    """Predict a model that lies whole on one device."""
    part = Part(
        rates(outline, where, constants, asked, depth_tokens=depth),
        0,
        outline.shape.layers,
        output=True,
    )
    return predict([part])


@pytest.mark.parametrize(
    ("name", "measured"),
    [("RTX 5090", 290.0), ("RTX 3090 Ti", 171.0), ("H100 SXM", 267.8)],
)
def test_cards_that_no_row_of_the_fit_has_lie_in_their_interval(name, measured):
    """Llama 2 7B in Q4_0, from llama.cpp's scoreboard for CUDA (discussion 15013)."""
    said = predicted(card(name), outline_of_shape("llama-2-7b:q4_0")).decode_tokens_per_s

    assert said.low < measured < said.high


@pytest.mark.parametrize(("name", "measured"), [("Tesla T4", 46.38), ("Tesla P100", 58.35)])
def test_a_card_that_was_measured_itself_is_predicted_by_its_own_rows_too(name, measured):
    """The T4 is slower than its generation; one of its figures that has no name is not known."""
    model = outline_of_shape("llama-2-7b:q4_0")
    own = predicted(card(name), model).decode_tokens_per_s.value
    alike = predicted(replace(card(name), title="?"), model).decode_tokens_per_s.value

    assert abs(own / measured - 1) < min(0.12, abs(alike / measured - 1))


def test_a_device_without_bandwidth_has_no_prediction():
    """The one line names it and the mend."""
    with pytest.raises(BadValueError, match=r"^--device foo: .*foo:8GiB:256GB/s$"):
        predicted(device(name="foo", bandwidth_bytes_per_s=None))


def test_what_was_seldom_seen_has_a_wider_interval():
    """A generation of many rows, one of none, and a maker nobody knows: each less sure."""

    def width(generation):
        said = predicted(device(generation=generation)).decode_tokens_per_s
        return said.high / said.low

    assert width("ampere") < width("hopper") < width(None)


def test_an_unknown_rate_widens_only_the_prompt():
    """Single tokens depend on bandwidth first."""
    known, unknown = predicted(device()), predicted(device(compute_flops=None))

    def width(said):
        return said.high / said.low

    assert width(unknown.prefill_tokens_per_s) > width(known.prefill_tokens_per_s)
    assert width(unknown.decode_tokens_per_s) == pytest.approx(width(known.decode_tokens_per_s))


def test_a_prediction_says_what_it_was_fitted_on():
    """Rows and devices, those of the maker, those of the generation."""
    said = predicted(device()).fitted_on

    assert said == (
        "card: 111 published rows of 52 GPUs, 25 of them nvidia-cuda, 5 of generation ampere"
    )


def test_the_first_token_waits_for_the_whole_prompt():
    """And for nothing else but the output."""
    of = rates(SMALL, device(), CONSTANTS, ASKED)
    part = Part(of, 0, SMALL.shape.layers, output=True)
    short, long = (predict([part], prompt_tokens=n).ttft_s.value for n in (100, 1100))

    assert long - short == pytest.approx(1000 * sum(of.prefill_layer_s_per_token))
    assert short == pytest.approx(100 * sum(of.prefill_layer_s_per_token) + of.prefill_output_s)


def test_layers_on_two_devices_take_the_sum_of_their_times():
    """And each link once a token, of the devices that are used."""
    slow = device(name="far", bandwidth_bytes_per_s=100e9, link_latency_s=0.02)
    near, far = (rates(SMALL, one, CONSTANTS, ASKED) for one in (device(), slow))
    said = predict([Part(near, 0, 10), Part(far, 10, 16, output=True)])

    seconds = sum(near.decode_layer_s[:10]) + sum(far.decode_layer_s[10:])
    seconds += far.decode_output_s + 0.02
    assert 1 / said.decode_tokens_per_s.value == pytest.approx(seconds)
    assert said.fitted_on.count("; ") == 1
    unused = predict([Part(near, 0, 16, output=True), Part(far, 16, 16)])
    assert unused == predict([Part(near, 0, 16, output=True)])


def test_experts_may_be_computed_by_the_host():
    """Their time moves there, for the first layers only; the rest of each layer stays."""
    memory = device(
        name="cpu", kind="cpu", bandwidth_bytes_per_s=50e9, compute_flops=None, generation=None
    )
    host, gpu = (rates(EXPERTS, one, CONSTANTS, ASKED) for one in (memory, device()))
    parts = [Part(host, 0, 1, host=True), Part(gpu, 1, 4, output=True)]
    whole, away = predict(parts), predict(parts, expert_layers=3)

    moved = sum(host.decode_expert_s[1:3]) - sum(gpu.decode_expert_s[1:3])
    assert 1 / away.decode_tokens_per_s.value - 1 / whole.decode_tokens_per_s.value == (
        pytest.approx(moved)
    )
    assert all(
        0 < part < layer
        for part, layer in zip(gpu.decode_expert_s, gpu.decode_layer_s, strict=True)
    )
    assert not any(rates(SMALL, device(), CONSTANTS, ASKED).decode_expert_s)


SLOT = 16e9
RAM = device(name="cpu", kind="cpu", bandwidth_bytes_per_s=50e9, compute_flops=None,
             generation=None)  # fmt: skip


def split(outline, card, *, layers, prompt_tokens=512, ram=RAM, settings=ASKED, **asked):
    """Predict a model of which so many layers are in RAM, the rest and the output on a card."""
    host, gpu = (
        rates(outline, one, CONSTANTS, settings, prompt_tokens=prompt_tokens) for one in (ram, card)
    )
    parts = [
        Part(host, 0, layers, host=bool(asked)),
        Part(gpu, layers, outline.shape.layers, output=True),
    ]
    return predict(parts, prompt_tokens=prompt_tokens, **asked)


def held(outline, layers, word="blk."):
    """Return the bytes of the first layers' tensors that have a word in their names."""
    firsts = tuple(f"blk.{number}." for number in range(layers))
    return sum(
        one.data_bytes
        for one in outline.tensors
        if one.name.startswith(firsts) and word in one.name
    )


def test_a_batch_of_a_prompt_is_computed_by_the_card_with_weights_from_ram():
    """All layers in the card's time, and those in RAM are copied once for each 512 tokens."""
    card = device(link_bytes_per_s=SLOT)
    of = rates(SMALL, card, CONSTANTS, ASKED)
    said = split(SMALL, card, layers=6)

    copied_s = held(SMALL, 6) / (SLOT / 2) / 512
    seconds = sum(of.prefill_layer_s_per_token) + of.prefill_token_s + copied_s
    assert 1 / said.prefill_tokens_per_s.value == pytest.approx(seconds)


def test_a_short_prompt_and_an_unknown_slot_leave_ram_to_the_processor():
    """Fewer than 32 tokens are no batch; a rate that nobody told is not invented."""
    known, unknown = device(link_bytes_per_s=SLOT), device()
    host = rates(SMALL, RAM, CONSTANTS, ASKED, prompt_tokens=31)
    short = split(SMALL, known, layers=16, prompt_tokens=31).prefill_tokens_per_s

    assert 1 / short.value == pytest.approx(sum(host.prefill_layer_s_per_token))
    slow = split(SMALL, unknown, layers=6).prefill_tokens_per_s
    assert slow.value < split(SMALL, known, layers=6).prefill_tokens_per_s.value / 2


def test_the_card_gets_the_batch_also_where_the_processor_is_faster():
    """It is the engine's rule: behind a slot of one old lane a prompt waits for the copies."""
    fast = replace(RAM, bandwidth_bytes_per_s=500e9)
    lane, unknown = (
        split(SMALL, device(link_bytes_per_s=link), layers=16, ram=fast).prefill_tokens_per_s
        for link in (0.25e9, None)
    )

    assert lane.value < unknown.value


def test_experts_in_ram_come_over_for_a_batch():
    """Those of the first layers, all of them, though a token uses two of eight."""
    card = device(link_bytes_per_s=SLOT)
    of = rates(EXPERTS, card, CONSTANTS, ASKED)
    said = split(EXPERTS, card, layers=0, expert_layers=3)

    copied_s = held(EXPERTS, 3, "_exps.") / (SLOT / 2) / 512
    seconds = sum(of.prefill_layer_s_per_token) + 4 * of.prefill_token_s + copied_s
    assert 1 / said.prefill_tokens_per_s.value == pytest.approx(seconds)


def test_a_published_prompt_of_layers_in_ram_lies_in_the_interval():
    """Llama 2 7B in Q4_0 in RAM, RTX 3090 Ti, a batch of 1,024: 1,178 (ggml-org/llama.cpp#6083).

    Without the copies the processor alone would be said to be several times slower.
    """
    ti = replace(card("RTX 3090 Ti"), link_bytes_per_s=16 * 1969.2e6)
    ask = replace(ASKED, ubatch=1024, flash_attention=False)
    model = outline_of_shape("llama-2-7b:q4_0")
    said = split(model, ti, layers=32, prompt_tokens=1024, settings=ask).prefill_tokens_per_s

    assert said.low < 1178 < said.high
    alone = predicted(RAM, model).prefill_tokens_per_s
    assert alone.value < 1178 / 3


def test_only_experts_that_are_used_count_for_an_answer():
    """Two of eight: a token reads far less than the layer holds."""
    of = rates(EXPERTS, device(), CONSTANTS, ASKED)
    layer_bytes = sum(one.data_bytes for one in EXPERTS.tensors if one.name.startswith("blk.0."))

    assert of.decode_layer_s[0] < layer_bytes / 360e9 / 2


def test_a_window_spares_the_rest_of_the_context():
    """Of Gemma's layers only each sixth slows down beyond its window."""
    gemma = outline_of_shape("gemma-3-1b:q4_k_m")
    window, deep = (
        rates(gemma, device(), CONSTANTS, ASKED, depth_tokens=n).decode_layer_s for n in (512, 4096)
    )

    slower = [after > before for before, after in zip(window, deep, strict=True)]
    assert slower == [(layer + 1) % 6 == 0 for layer in range(26)]


def test_a_calibration_takes_the_place_of_published_processors():
    """Whatever bandwidth the machine's memory is said to have; cards stay as they are."""
    memory = device(name="cpu", kind="cpu", bandwidth_bytes_per_s=None, generation=None)
    calibrated = replace(CONSTANTS, here=HERE)
    of = rates(SMALL, memory, calibrated, ASKED)

    read = sum(one.data_bytes for one in SMALL.tensors if one.name.startswith("blk.3."))
    assert of.decode_layer_s[3] == pytest.approx(read / 20e9, rel=1e-4)
    assert of.fitted_on == "cpu: 5 models run on a test on 1 May"
    assert predicted(device(), constants=calibrated) == predicted(device())


def test_a_calibration_is_kept_whole(tmp_path):
    """What was written is what is read; without a file there is none."""
    path = tmp_path / "new" / "speed_here.json"
    assert load_constants(path).here is None
    save_calibration(HERE, path)

    assert load_constants(path).here == HERE


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema_version": 1}', json.dumps({"schema_version": 9, **vars(HERE)}),
     json.dumps({"schema_version": 1, **vars(HERE), "values": {"memory": "much"}})],
)  # fmt: skip
def test_a_broken_calibration_is_refused_in_one_line(text, tmp_path):
    """It says which file and how to make it anew."""
    path = tmp_path / "speed_here.json"
    path.write_text(text)
    with pytest.raises(BadValueError, match=r"speed_here\.json: .*plan --calibrate$"):
        load_constants(path)


def test_a_calibration_without_room_is_a_users_error(tmp_path):
    """Here a file stands where the folder should be."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(MissingError, match="SHOESTRING_CACHE"):
        save_calibration(HERE, tmp_path / "taken" / "speed_here.json")


BANDWIDTHS = st.floats(1e9, 1e13)


@settings(deadline=None)
@given(
    BANDWIDTHS,
    st.floats(1.01, 100),
    st.sampled_from(["ampere", "m4", "rdna3", "x86-avx2", None]),
    st.integers(0, 100_000),
)
def test_more_bandwidth_is_faster_and_more_context_never(bandwidth, times, generation, depth):
    """On everything that there are constants for; and the value lies in its interval."""
    slow = device(bandwidth_bytes_per_s=bandwidth, generation=generation)
    fast = replace(slow, bandwidth_bytes_per_s=bandwidth * times)
    said = predicted(slow).decode_tokens_per_s

    assert 0 < said.low < said.value < said.high < math.inf
    assert predicted(fast).decode_tokens_per_s.value > said.value
    assert predicted(slow, depth=depth).decode_tokens_per_s.value <= said.value
