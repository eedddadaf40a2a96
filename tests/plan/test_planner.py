"""A whole plan: bytes and seconds of a model over devices."""

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.hardware.device_words import parse_devices
from shoestring.models.outline import outline_of_shape
from shoestring.plan.memory import Settings
from shoestring.plan.planner import Ask, make_plan
from shoestring.plan.row import MARGIN
from shoestring.plan.speed_constants import load_constants
from shoestring.plan.split import find_shortages
from shoestring.report.planning import offload_of

GIVEN = {
    "peer": "peer:{}MiB:300GB/s:1ms",
    "two peers": "2xpeer:{}MiB:300GB/s:1ms",
    "gpu": "gpu:{}MiB:100GB/s",
    "cpu": "ram:{}MiB:20GB/s",
}
TAKEN_MIB = {"peer": 368, "two peers": 368, "gpu": 368, "cpu": 1024}
"""Of a whole memory, by driver or system."""
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


def test_the_output_is_kept_from_peers():
    """RAM computes it, whoever has the last layers."""
    peers = ("2xpeer:4GiB:300GB/s:1ms",)
    made = plan("llama-3.1-8b:q4_k_m", *peers, "ram:12GiB:20GB/s", keeps_output=True)
    told = plan("llama-3.1-8b:q4_k_m", *peers, "ram:12GiB:20GB/s")

    ram, *others = made.placed
    assert (ram.output, [one.output for one in others]) == (True, [False, False])
    assert ram.layers == (0, 0)
    assert sum(one.weights_bytes for one in made.placed) == made.demand.file_bytes
    assert not told.placed[0].output
    # llama.cpp counts it with the last layers; where it lies is said apart.
    assert (offload_of(made).gpu_layers, sum(offload_of(made).tensor_split)) == (33, 33)
    assert (offload_of(made).output_in_ram, offload_of(told).output_in_ram) == (True, False)
    # It costs what RAM takes for it.
    assert made.predicted.decode_tokens_per_s.value < told.predicted.decode_tokens_per_s.value


def test_a_card_of_ones_own_may_have_the_output():
    """It stands behind the peers, so the last layers are there."""
    made = plan(
        "llama-3.1-8b:q4_k_m", "peer:t4:1ms", "gtx 1050 ti", "ram:12GiB:20GB/s", keeps_output=True
    )

    assert [one.output for one in made.placed] == [False, False, True]
    assert not offload_of(made).output_in_ram
    # The same where nobody said how much RAM there is; without a card it can be nowhere.
    made = plan("llama-3.1-8b:q4_k_m", "peer:t4:1ms", "gtx 1050 ti", keeps_output=True)
    assert [one.output for one in made.placed] == [False, False, True]
    with pytest.raises(BadValueError, match="how much is free here is unknown"):
        plan("llama-3.1-8b:q4_k_m", "2xpeer:t4:1ms", keeps_output=True)


def test_an_output_that_is_the_embedding_is_in_ram_once():
    """Where the processor lays no copy of it out anew."""
    made = plan("gemma-3-1b:f16", "peer:t4:1ms", "ram:12GiB:20GB/s", keeps_output=True)

    assert (made.demand.tied, made.placed[0].output) == (True, True)
    assert made.placed[0].weights_bytes == made.demand.embedding_bytes


@pytest.mark.parametrize(
    ("room_mib", "asked", "named"),
    [
        # RAM computes it, or a card of one's own: of the two ways the one that lacks less.
        ({"peer": 5776, "gpu": 3728, "cpu": 700}, {"context": 65_536}, {"peer", "cpu"}),
        ({"two peers": 40_592, "gpu": 42, "cpu": 376}, {}, {"gpu", "cpu"}),
        ({"two peers": 40_592, "gpu": 42, "cpu": 476}, {}, {"cpu"}),
        ({"gpu": 42, "cpu": 7168}, {"gpu_layers": 1, "keeps_output": False}, {"gpu"}),
    ],
)
def test_where_the_output_has_no_place_the_least_that_would_do_is_told(room_mib, asked, named):
    """With the named room on one device alone it fits, and not with less."""

    def tried(rooms):
        given = [GIVEN[name].format(mib + TAKEN_MIB[name]) for name, mib in rooms.items()]
        return plan("llama-3.1-8b:q4_k_m", *given, **({"keeps_output": True} | asked))

    (said,) = tried(room_mib).rejected
    needed = {name: float(gib) for gib, name in re.findall(r"([\d.]+) GiB on (\S+)", said)}
    assert needed.keys() == named
    for name, gib in needed.items():
        mib = math.ceil(gib * 1024 / (1 - MARGIN))
        assert tried(room_mib | {name: mib + 1}).fits
        assert not tried(room_mib | {name: mib - 16}).fits


def test_no_layers_on_cards_need_no_room_there():
    """More of it would not do, not even for the output."""
    made = plan("llama-3.1-8b:q4_k_m", "gpu:1GiB:100GB/s", "ram:6.3GiB:20GB/s", gpu_layers=0)

    assert [short.place.name for short in find_shortages(made.problem)] == ["cpu"]


def test_shares_by_hand_do_not_go_with_an_output_that_is_kept_from_peers():
    """llama.cpp shares it out with the layers."""
    with pytest.raises(BadValueError, match="give no shares"):
        plan("llama-3.1-8b:q4_k_m", "2xpeer:t4:1ms", "ram:12GiB:20GB/s",
             keeps_output=True, shares=(1.0, 1.0))  # fmt: skip


@pytest.mark.parametrize(("wanted", "layers"), [(0, 0), (1, 1), (20, 20), (33, 32)])
def test_as_many_layers_as_are_wanted_are_on_peers(wanted, layers):
    """An output that is kept from them is none of these."""
    devices = ("2xpeer:t4:1ms", "ram:12GiB:20GB/s")
    made = plan("llama-3.1-8b:q4_k_m", *devices, gpu_layers=wanted, keeps_output=True)

    assert sum(end - first for first, end in made.split.runs[1:]) == layers
    assert made.placed[0].output


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


def test_a_device_that_holds_nothing_needs_no_bandwidth():
    """RAM without a bandwidth keeps the embedding alone: the speed is that of the card."""
    made = plan("llama-3.2-1b:q4_k_m", "rtx 3060", "ram:64GiB")

    assert made.no_speed is None
    assert made.predicted is not None
    assert made.rejected == ()


def test_a_time_that_rests_on_a_nominal_bandwidth_is_never_said():
    """Of other ways only what does not fit is told, without a share of slowness."""
    made = plan("qwen2.5-32b:q4_k_m", "rtx 2080", "gtx 1060 6GB", "ram:64GiB")

    assert made.predicted is None
    assert made.rejected
    assert not any("slower" in line or "faster" in line for line in made.rejected)


def test_what_is_given_by_hand_and_does_not_fit_has_its_reason():
    """Also where the layers are those of the best split, and only the output is not."""
    made = plan("llama-3.1-8b:q4_k_m", "foo:500MiB:200GB/s", "ram:32GiB:40GB/s",
                gpu_layers=1, shares=(1.0,))  # fmt: skip

    assert not made.fits
    assert "foo lacks" in made.rejected[0]


def test_shares_without_a_number_are_of_all_layers():
    """As after --tensor-split alone: everything goes to cards, and the shortage is theirs."""
    made = plan("llama-3.1-8b:q4_k_m", "gtx 1050 ti:3GiB", "gtx 1050 ti:3GiB", shares=(3.0, 1.0))

    assert not made.fits
    assert "GTX 1050 Ti" in made.rejected[0]
    assert "ram lacks" not in made.rejected[0]


def test_layers_for_cards_that_are_not_there_are_refused():
    """RAM alone has none of them."""
    with pytest.raises(BadValueError, match="no card or peer was given"):
        plan("llama-3.1-8b:q4_k_m", "ram:32GiB:40GB/s", gpu_layers=3)


def test_one_layer_on_a_slow_card_is_the_output():
    """The user's number counts, also where RAM would be faster."""
    made = plan("llama-3.1-8b:q4_k_m", "foo:8GiB:10GB/s", "ram:32GiB:40GB/s", gpu_layers=1)

    assert made.placed[1].output


def test_experts_in_ram_pay_for_the_link_to_a_peer():
    """A round trip for each layer whose experts the host computes: none behind a slow link."""
    near = plan("mixtral-8x7b:q4_k_m", "peer:rtx 3060:0.1ms:10Gbit/s", "ram:64GiB:20GB/s")
    far = plan("mixtral-8x7b:q4_k_m", "peer:rtx 3060:200ms", "ram:64GiB:20GB/s")

    assert far.split.expert_layers == 0
    for made in (near, far):
        said = 1 / made.predicted.decode_tokens_per_s.value
        assert made.split.token_s == pytest.approx(said, rel=1e-6)


def test_the_first_token_takes_no_less_than_any_other():
    """A prompt of one token reads every weight once; a longer one waits longer."""
    times = [
        plan("llama-3.1-8b:q4_k_m", "rtx 3060", "ram:8GiB:20GB/s", prompt_tokens=n).predicted
        for n in (1, 512, 4096)
    ]

    assert times[0].ttft_s.value >= 0.7 / times[0].decode_tokens_per_s.value
    assert times[0].ttft_s.value < times[1].ttft_s.value < times[2].ttft_s.value / 8


def test_a_card_in_a_known_slot_computes_the_prompts_of_what_is_in_ram():
    """The first token comes sooner, every other one does not; the split is the same."""
    unknown = plan("qwen2.5-32b:q4_k_m", "rtx 3060", "ram:64GiB:40GB/s")
    ram, card = unknown.ask.devices[::-1]
    slot = replace(card, link_bytes_per_s=16e9)
    known = make_plan(replace(unknown.ask, devices=(slot, ram)), load_constants())

    assert known.split.runs == unknown.split.runs
    assert known.predicted.ttft_s.value < unknown.predicted.ttft_s.value / 2
    told, same = (one.predicted.decode_tokens_per_s.value for one in (known, unknown))
    assert told == pytest.approx(same, rel=0.001)


def test_a_full_context_is_slower_than_an_empty_one():
    """The cache is read for each token."""
    made = plan("llama-3.1-8b:q4_k_m", "rtx 3090", "ram:8GiB:20GB/s", context=32_768)

    assert made.filled_tokens_per_s.value < 0.9 * made.predicted.decode_tokens_per_s.value


def test_each_processor_rearranges_its_own_types():
    """Q8_0 has a second copy on ARM with dot products, none on x86."""
    arm, x86 = (
        plan("llama-3.2-1b:q8_0", device).demand
        for device in ("raspberry pi 5:8GiB", "ryzen 9 7950x:8GiB")
    )

    assert sum(arm.repacked_bytes) > 0.5 * arm.file_bytes
    assert sum(x86.repacked_bytes) == 0


def test_other_ways_can_be_left_out():
    """The plan is the same without them."""
    made = plan("qwen2.5-32b:q4_k_m", *NOTE)
    alone = make_plan(made.ask, load_constants(), alternatives=False)

    assert made.alternatives
    assert alone == replace(made, alternatives=(), rejected=())


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
