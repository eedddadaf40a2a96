"""The fastest way to lay a model over memories in a row."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations_with_replacement, pairwise
from typing import TypeAlias

import pytest

from shoestring.plan.split import (
    Place,
    Problem,
    Run,
    best_split,
    find_shortages,
    score,
    why_not,
)

CASES = 500


Key: TypeAlias = tuple[float, int, float]


def every_split(problem: Problem) -> Iterator[Key]:
    """Lay the model out in every way that fits: its time, experts in RAM and fullest place."""
    wanted = problem.expert_layers
    numbers = range(len(problem.expert_bytes) + 1) if wanted is None else [wanted]
    boundaries = range(problem.layers + 2)
    for cuts in combinations_with_replacement(boundaries, len(problem.places) - 1):
        edges = (0, *cuts, problem.layers + 1)
        units = [range(first, end) for first, end in pairwise(edges)]
        for number in numbers:
            key = judge(problem, units, number)
            if key is not None:
                yield key


def judge(problem: Problem, runs: list[range], number: int) -> Key | None:
    """Add up one way, unit by unit; None where it does not fit or is not allowed."""
    there = next(index for index, run in enumerate(runs) if problem.layers in run)
    if not (problem.places[there].takes_output or problem.output_stays):
        return None
    parts = [
        add_up(problem, place, run, number) for place, run in zip(problem.places, runs, strict=True)
    ]
    all_away = sum(away for _, away, _ in parts)
    fullest = 0.0
    for place, run, (used, _, _) in zip(problem.places, runs, parts, strict=True):
        most = problem.layers if place.most_layers is None else place.most_layers
        stays = place.host and problem.output_stays
        host_bytes = problem.embedding_bytes + all_away if place.host else 0
        host_bytes += place.output_bytes if stays else 0
        busy = len(run) > 0 or (place.host and all_away > 0) or stays
        taken = used + host_bytes + busy * place.fixed_bytes
        inner = len([unit for unit in run if unit < problem.layers])
        if taken > place.room_bytes or not place.least_layers <= inner <= most:
            return None
        fullest = max(fullest, taken / max(place.room_bytes, 1))
    return sum(time_s for _, _, time_s in parts), number, fullest


def add_up(problem: Problem, place: Place, run: range, number: int) -> tuple[int, int, float]:
    """Return bytes there, bytes of its experts elsewhere, and seconds, of one place."""
    stays = problem.output_stays
    used, away = 0, 0
    time_s = place.enter_s if len(run) and not (stays and place.host) else 0.0
    for unit in run:
        if unit == problem.layers and stays:  # whoever has the last layers, the host is asked
            time_s += problem.host.enter_s + problem.host.output_s
            continue
        if unit == problem.layers:
            used += place.output_bytes
            time_s += place.output_s
            continue
        used += problem.weights_bytes[unit] + problem.cache_bytes[unit]
        time_s += place.layer_s[unit]
        if unit < number and problem.expert_bytes[unit] and not place.host:
            away += problem.expert_bytes[unit]
            time_s += place.hop_s + problem.host.expert_s[unit] - place.expert_s[unit]
    return used - away + (place.stream_bytes if away else 0), away, time_s


def make_problem(chance: random.Random) -> Problem:
    """Make a small model and a few places; whole numbers, so that ties are common and exact."""
    layers, count = chance.randint(1, 6), chance.randint(1, 4)
    moe = chance.random() < 0.5
    at = chance.randrange(count)
    size = chance.choice([1, 8])
    experts = [size * chance.randint(0, 9) for _ in range(layers)]
    alike = chance.random() < 0.5

    def some(most: int, number: int = layers) -> tuple[int, ...]:
        if alike:
            return (chance.randint(0, most),) * number
        return tuple(chance.randint(0, most) for _ in range(number))

    places = []
    for index in range(count):
        here = some(5)
        places.append(
            Place(
                name=f"p{index}",
                room_bytes=size * chance.randint(0, 130),
                layer_s=tuple(float(time + chance.randint(0, 4)) for time in here),
                expert_s=tuple(map(float, here)) if moe else (),
                fixed_bytes=chance.randint(0, 9),
                enter_s=float(chance.randint(0, 3)),
                host=index == at,
                takes_output=chance.random() < 0.7,
                output_bytes=chance.randint(0, 20),
                output_s=float(chance.randint(0, 9)),
                hop_s=float(chance.randint(0, 2)),
                stream_bytes=chance.choice([0, 0, chance.randint(1, 9)]),
                least_layers=chance.choice([0] * 6 + [chance.randint(0, layers)]),
                most_layers=chance.choice([None] * 6 + [chance.randint(0, layers)]),
            )
        )
    return Problem(
        weights_bytes=tuple(size * chance.randint(0, 9) + each for each in experts),
        cache_bytes=some(5),
        places=tuple(places),
        embedding_bytes=chance.randint(0, 15),
        expert_bytes=tuple(experts) if moe else (),
        expert_layers=chance.choice([None, None, chance.randint(0, layers)]) if moe else None,
        output_stays=chance.random() < 0.4,
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_best_split_is_that_of_brute_force(seed: int):
    """In 100 random cases each: the same time, experts in RAM and fullest place; or none fits."""
    chance = random.Random(seed)
    for _ in range(CASES // 5):
        problem = make_problem(chance)
        found = best_split(problem)
        best = min(every_split(problem), default=None)

        assert (found is None) == (best is None)
        if found is not None:
            units = units_of(problem, found.runs, found.last)
            assert problem.places[found.output].host or not problem.output_stays
            assert judge(problem, units, found.expert_layers) == best
            assert (found.token_s, found.fits) == (best[0], True)


def units_of(problem: Problem, runs: tuple[Run, ...], output: int) -> list[range]:
    """Return runs with the output, the unit after the last layer, where it lies."""
    units = [range(first, end) for first, end in runs]
    first = units[output].start if len(units[output]) else problem.layers
    units[output] = range(first, problem.layers + 1)
    return units


@pytest.mark.parametrize("seed", range(3))
def test_the_least_that_would_fit_is_the_least(seed: int):
    """With the named room on the place it fits; with one byte less it does not."""
    chance = random.Random(1000 + seed)
    lacking = 0
    while lacking < 40:
        problem = make_problem(chance)
        if best_split(problem) is not None:
            continue
        lacking += 1
        named = find_shortages(problem)
        for index, place in enumerate(problem.places):
            needed = [size for each, size in named if each is place]
            enough = with_room(problem, index, 10**9)
            assert (best_split(enough) is not None) == bool(needed)
            for size in needed:
                assert best_split(with_room(problem, index, size)) is not None
                assert best_split(with_room(problem, index, size - 1)) is None
        assert why_not(problem).startswith("does not fit: ")
        assert "\n" not in why_not(problem)


def test_of_several_ways_the_least_that_one_of_them_needs_is_told():
    """RAM by the way in which it computes the output alone, the card by the other."""
    rows = cards(60, 9, ram=10)
    ram, peer, card = rows.places
    stays = replace(rows, places=(replace(ram, output_bytes=8), peer, card), output_stays=True)
    behind = replace(rows, places=(ram, replace(peer, takes_output=False), card))

    assert least(stays, behind) == {"gpu1": 30, "ram": 33}
    assert least(behind) == {"gpu1": 30, "ram": 85}


def least(*problems: Problem) -> dict[str, int]:
    """Return the least bytes that would do on each place alone."""
    return {place.name: size for place, size in find_shortages(*problems)}


def with_room(problem: Problem, index: int, room_bytes: int) -> Problem:
    """Return the problem with another room on one place."""
    places = [*problem.places]
    places[index] = replace(places[index], room_bytes=room_bytes)
    return replace(problem, places=tuple(places))


def cards(*rooms: int, ram: int = 1000) -> Problem:
    """Eight layers of 10 bytes, slow in RAM and ten times faster on any of the cards."""
    host = Place(name="ram", room_bytes=ram, layer_s=(1.0,) * 8, output_s=1.0, host=True)
    gpus = [
        Place(
            name=f"gpu{index}", room_bytes=room, layer_s=(0.1,) * 8, output_s=0.1, output_bytes=10
        )
        for index, room in enumerate(rooms)
    ]
    return Problem(
        weights_bytes=(9,) * 8, cache_bytes=(1,) * 8, places=(host, *gpus), embedding_bytes=5
    )


def test_equal_cards_are_filled_alike():
    """Any split over two equal cards takes as long; the one that leaves most room is chosen."""
    best = best_split(cards(100, 100))

    assert best is not None
    assert best.runs == ((0, 0), (0, 4), (4, 8))
    assert best.used_bytes == (5, 40, 50)
    assert best.output == 2


def test_what_does_not_fit_on_cards_stays_in_ram_from_the_first_layer_on():
    """The output takes its part of the last card."""
    best = best_split(cards(20, 40))

    assert best is not None
    assert best.runs == ((0, 3), (3, 5), (5, 8))
    assert best.token_s == pytest.approx(3 * 1.0 + 5 * 0.1 + 0.1)


def test_a_card_that_costs_more_to_enter_than_it_saves_gets_nothing():
    """A link of 20 ms in exchange for one layer of 10 ms is left alone."""
    problem = cards(90, 10)
    far = replace(problem.places[2], enter_s=2.0)
    best = best_split(replace(problem, places=(*problem.places[:2], far)))

    assert best is not None
    assert best.runs == ((0, 0), (0, 8), (8, 8))


def test_layers_can_be_forced():
    """The host gets as many layers as the user's number of GPU layers leaves over."""
    problem = cards(100, 100)
    host = replace(problem.places[0], least_layers=6, most_layers=6)
    best = best_split(replace(problem, places=(host, *problem.places[1:])))

    assert best is not None
    assert best.runs[0] == (0, 6)


def test_experts_go_to_ram_where_that_keeps_attention_on_the_card():
    """Rather than three whole layers: of as many layers as needed, the first ones."""
    host = Place(
        name="ram", room_bytes=999, layer_s=(1.0,) * 4, expert_s=(0.2,) * 4, host=True, output_s=1.0
    )
    card = Place(name="gpu", room_bytes=60, layer_s=(0.1,) * 4, expert_s=(0.05,) * 4, hop_s=0.01)
    problem = Problem(
        weights_bytes=(30,) * 4, cache_bytes=(0,) * 4, places=(host, card), expert_bytes=(20,) * 4
    )
    best = best_split(problem)

    assert best is not None
    assert (best.runs, best.expert_layers) == (((0, 0), (0, 4)), 3)
    assert best.used_bytes == (60, 60)
    assert best.token_s == pytest.approx(4 * 0.1 + 3 * (0.2 - 0.05 + 0.01))


def test_a_given_split_is_scored_whether_it_fits_or_not():
    """It says by how much it is too large, and counts the output where it is said to be."""
    problem = cards(30, 50)

    split = score(problem, [(0, 2), (2, 6), (6, 8)])
    assert not split.fits
    assert split.over_bytes == (0, 10, 0)
    assert split.used_bytes == (25, 40, 30)

    late = score(problem, [(0, 2), (2, 5), (5, 8)], output=0)
    assert late.fits
    assert late.token_s == pytest.approx(2 * 1.0 + 6 * 0.1 + 1.0)


def test_a_model_that_fits_nowhere_says_the_least_that_would():
    """On the card that lacks least, and in RAM."""
    problem = cards(2**30, ram=2**30)
    large = replace(
        problem, weights_bytes=(2**28,) * 8, cache_bytes=(0,) * 8, embedding_bytes=2**29
    )

    assert why_not(large) == (
        "does not fit: it needs at least 1.51 GiB on gpu0 (1.00 GiB are free), "
        "or 1.75 GiB on ram (1.00 GiB are free)"
    )


def test_where_no_room_alone_would_do_the_line_says_so():
    """Two cards that have to take more than they hold are two shortages."""
    problem = cards(5, 5)
    forced = [replace(place, least_layers=3) for place in problem.places[1:]]

    assert why_not(replace(problem, places=(problem.places[0], *forced))) == (
        "does not fit: more room on any one place alone would not do"
    )


def test_rooms_and_times_may_be_huge_or_tiny():
    """Neither overflows, and equal times stay equal."""
    problem = cards(10**30, 10**30)
    slow = tuple(replace(place, layer_s=(1e-12,) * 8) for place in problem.places)
    best = best_split(replace(problem, places=(replace(slow[0], layer_s=(1e15,) * 8), *slow[1:])))

    assert best is not None
    assert best.runs[0] == (0, 0)
    assert best.token_s >= 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host": False}, "exactly one place is the host"),
        ({"layer_s": (1.0,)}, "1 values, 8 layers"),
        ({"layer_s": (-1.0,) * 8}, "negative or no number"),
        ({"enter_s": float("nan")}, "negative or no number"),
    ],
)
def test_a_place_that_is_none_is_refused(change: dict, message: str):
    """Each with the fault in the message."""
    problem = cards(100)
    with pytest.raises(ValueError, match=message):
        replace(problem, places=(replace(problem.places[0], **change), *problem.places[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expert_bytes": (1,) * 8}, "what the experts take is missing"),
        ({"expert_bytes": (1,)}, "1 values, 8 layers"),
    ],
)
def test_a_problem_that_is_none_is_refused(change: dict, message: str):
    """Experts that would cost nothing in RAM, above all."""
    with pytest.raises(ValueError, match=message):
        replace(cards(100), **change)


def test_experts_larger_than_their_layer_are_refused():
    """Sums of bytes that fall would break the search."""
    places = [replace(place, expert_s=(0.1,) * 8) for place in cards(100).places]
    with pytest.raises(ValueError, match="10 bytes of experts in a layer of 9"):
        replace(cards(100), places=tuple(places), expert_bytes=(10,) * 8)
