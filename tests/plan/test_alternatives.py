"""How else people lay a model out."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.plan.alternatives import (
    by_shares,
    compare,
    count_gpu_layers,
    fill_from_back,
    list_alternatives,
    share_out,
)
from shoestring.plan.split import Place, Problem, best_split, score


def machine(*rooms: int, layers: int = 8, ram: int = 10_000, card_s: float = 0.1) -> Problem:
    """Layers of 10 bytes: a second each in RAM, a tenth of it on any card."""
    host = Place(name="ram", room_bytes=ram, layer_s=(1.0,) * layers, output_s=1.0, host=True)
    cards = [
        Place(
            name=f"gpu{index}",
            room_bytes=room,
            layer_s=(card_s,) * layers,
            output_s=card_s,
            output_bytes=10,
        )
        for index, room in enumerate(rooms)
    ]
    return Problem(weights_bytes=(9,) * layers, cache_bytes=(1,) * layers, places=(host, *cards))


def counts(runs: list[tuple[int, int]]) -> list[int]:
    """Return how many layers each place gets."""
    return [end - first for first, end in runs]


def test_shares_become_layers_as_llama_cpp_makes_them():
    """Of 40, 1.5 : 4.5 : 3 are 7, 20, and 12 with the output; the first 25 stay in RAM."""
    runs, output = share_out(machine(0, 0, 0, layers=64), (1.5, 4.5, 3), 40)

    assert counts(runs) == [25, 7, 20, 12]
    assert output == 3


def test_more_layers_than_there_are_mean_all():
    """As 99 does in everybody's command line; none means none."""
    assert share_out(machine(0, 0), (1, 1), 99) == ([(0, 0), (0, 5), (5, 8)], 2)
    assert share_out(machine(0, 0), (1, 1), 0) == ([(0, 8), (8, 8), (8, 8)], 0)


def test_without_cards_all_is_in_ram():
    """Whatever number of GPU layers is asked for."""
    assert share_out(machine(), (), 5) == ([(0, 8)], 0)


@pytest.mark.parametrize(
    ("shares", "gpu_layers", "message"),
    [
        ((0, 0), 4, "--tensor-split 0,0: give at least one device a share"),
        ((1, -1), 4, "--tensor-split 1,-1: give each device a share from 0 on"),
        ((1, float("nan")), 4, "--tensor-split 1,nan: give each device a share from 0 on"),
        ((1, float("inf")), 4, "--tensor-split 1,inf: give each device a share from 0 on"),
        ((1, 1), -1, "--n-gpu-layers -1: give a number from 0 on"),
    ],
)
def test_impossible_shares_are_refused(shares, gpu_layers, message):
    """In one line that names the option and the mend."""
    with pytest.raises(BadValueError) as refused:
        share_out(machine(0, 0), shares, gpu_layers)

    assert str(refused.value) == message


@given(
    st.integers(1, 40),
    st.lists(st.floats(0, 100), min_size=1, max_size=4).filter(lambda shares: max(shares) > 0.01),
    st.integers(0, 50),
)
def test_every_layer_is_somewhere_once(layers, shares, gpu_layers):
    """In runs one after the other; on cards are as many as asked for, as far as there are."""
    problem = machine(*[0] * len(shares), layers=layers)
    runs, output = share_out(problem, shares, gpu_layers)

    assert runs[0][0] == 0
    assert runs[-1][1] == layers
    assert all(before[1] == after[0] for before, after in pairwise(runs))
    assert layers - runs[0][1] + (output > 0) == min(gpu_layers, layers + 1)


def test_cards_are_filled_from_the_last():
    """It takes the output and what fits; the first card takes what is left, or RAM does."""
    split = fill_from_back(machine(60, 40))
    assert split.runs == ((0, 0), (0, 5), (5, 8))
    assert split.fits

    split = fill_from_back(machine(20, 40))
    assert split.runs == ((0, 3), (3, 5), (5, 8))
    assert split.output == 2


def test_a_card_without_room_for_the_output_is_passed_over():
    """The card before it takes the end of the model."""
    split = fill_from_back(machine(60, 5))

    assert split.runs == ((0, 3), (3, 8), (8, 8))
    assert split.output == 1


def test_no_more_experts_stay_in_ram_than_must():
    """Just as many as bring every layer onto cards; where that is out of reach, all of them."""
    problem = machine(60)
    host, card = problem.places
    moe = replace(
        problem,
        expert_bytes=(5,) * 8,
        places=(replace(host, expert_s=(0.5,) * 8), replace(card, expert_s=(0.05,) * 8)),
    )

    split = fill_from_back(moe)
    assert (split.runs, split.expert_layers) == (((0, 0), (0, 8)), 6)

    tiny = replace(moe, places=(moe.places[0], replace(moe.places[1], room_bytes=30)))
    split = fill_from_back(tiny)
    assert (split.runs, split.expert_layers) == (((0, 4), (4, 8)), 8)


def test_each_alternative_says_why_it_is_no_better():
    """Equal shares break the small card, and mended are slower."""
    problem = machine(20, 80)
    best = best_split(problem)
    assert best is not None
    reasons = {way.name: way.reason for way in list_alternatives(problem, best)}

    assert set(reasons) == {"equal", "by memory", "from back"}
    assert reasons["equal"].startswith("does not fit: gpu0 lacks 1 MiB; with 4 layers")
    assert reasons["equal"].endswith(" slower")
    assert reasons["by memory"] == "as fast"
    assert reasons["from back"] == "as fast"


@pytest.mark.parametrize("rooms", [(20, 80), (33, 47, 25), (100,), (200, 200)])
def test_none_is_faster_than_the_best(rooms):
    """Of those that fit, mended or not."""
    problem = machine(*rooms)
    best = best_split(problem)
    assert best is not None

    for way in list_alternatives(problem, best):
        for split in (way.split, way.mended):
            assert split is None or not split.fits or split.token_s >= best.token_s


def test_shares_by_hand_are_scored_at_the_number_that_was_asked_for():
    """Not at that of the best split."""
    problem = machine(100, 100)
    best = best_split(problem)
    assert best is not None
    way = by_shares(problem, best, "by hand", (3, 1), gpu_layers=4)

    assert count_gpu_layers(problem, way.split) == 4
    assert way.split.runs == ((0, 5), (5, 8), (8, 8))
    assert way.reason == compare(problem, way.split, best)
    assert way.reason.endswith("% slower")


def test_shares_that_nothing_mends_say_only_what_is_lacking():
    """A host without room for what the cards leave over cannot be helped."""
    problem = machine(50, 50, ram=0)
    best = best_split(problem)
    assert best is not None
    way = by_shares(problem, best, "by hand", (9, 1))

    assert way.mended is None
    assert way.reason.startswith("does not fit: gpu0 lacks ")
    assert ";" not in way.reason


def test_the_places_that_lack_most_are_named():
    """Three of them, and the number of the others."""
    problem = machine(*[2**20 * size for size in (0, 2, 0, 1, 1)])
    large = replace(problem, weights_bytes=(2**21 + 2**20 * 2,) * 8)
    split = score(large, [(0, 0), (0, 1), (1, 2), (2, 4), (4, 6), (6, 8)])

    assert compare(large, split, split) == (
        "does not fit: gpu2 lacks 9 MiB, gpu4 lacks 8 MiB, gpu3 lacks 8 MiB, 2 more places"
    )


def test_a_machine_without_cards_has_no_alternatives():
    """There is nothing to share out; nor are there shares where cards are left alone."""
    alone = machine()
    best = best_split(alone)
    assert best is not None
    assert list_alternatives(alone, best) == []

    slow = machine(50, card_s=5.0)
    best = best_split(slow)
    assert best is not None
    assert [way.name for way in list_alternatives(slow, best)] == ["from back"]
