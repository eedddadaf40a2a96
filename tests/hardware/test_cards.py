"""What the catalogue of cards says, and how names find it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.hardware.cards import GIBIBYTE, cards, find_card


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("NVIDIA GeForce RTX 3060", "RTX 3060"),
        ("rtx3090", "RTX 3090"),
        ("3060", "RTX 3060"),
        ("3090 24GB", "RTX 3090"),
        ("Tesla T4", "Tesla T4"),
        ("T4", "Tesla T4"),
        ("Tesla P100-PCIE-16GB", "Tesla P100"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA GeForce GTX 1060 3GB", "GTX 1060 3GB"),
        ("Quadro RTX 6000", "Quadro RTX 6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("Intel(R) Arc(TM) A770 Graphics", "Arc A770"),
        ("AMD Ryzen 9 7950X 16-Core Processor", "Ryzen 9 7950X"),
        ("Intel(R) Core(TM) i9-13900K", "Core i9-13900K"),
        ("13th Gen Intel(R) Core(TM) i9-13900K", "Core i9-13900K"),
        ("12th Gen Intel(R) Core(TM) i7-12700K", "Core i7-12700K"),
        ("Intel(R) Core(TM) i5-4278U CPU @ 2.60GHz", "Core i5-4278U"),
        ("AMD Ryzen 7 7840HS w/ Radeon 780M Graphics", "Ryzen 7 7840HS"),
        ("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", "Ryzen AI Max+ 395"),
        ("AMD Radeon 780M Graphics", "Radeon 780M"),
        ("raspberry pi 5", "Raspberry Pi 5"),
        ("raspberry pi 5 8gb", "Raspberry Pi 5"),
        ("m4 max 128gb", "Apple M4 Max"),
        ("M1 Max", "Apple M1 Max"),
        ("Apple M4 Max 10P+4E+32GPU", "Apple M4 Max 32-core GPU"),
        ("M1 Ultra (48 GPU Core) 64GB", "Apple M1 Ultra 48-core GPU"),
        ("ddr4-3200 dual channel", "DDR4-3200 dual channel"),
    ],
)
def test_a_card_is_found_as_drivers_and_people_write_it(text, name):
    """Case, spaces and makers' names do not count."""
    found = find_card(text)

    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("laptop", "desktop"),
    [
        ("NVIDIA GeForce RTX 3060 Laptop GPU", "RTX 3060"),
        ("RTX 4070 Mobile", "RTX 4070"),
        ("NVIDIA GeForce GTX 1660 Ti with Max-Q Design", "GTX 1660 Ti"),
    ],
)
def test_a_laptop_part_is_not_the_desktop_card(laptop, desktop):
    """They share a number, not a chip."""
    found = find_card(laptop)

    assert found is not None
    assert found.name == f"{desktop} Laptop"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "foo",
        "RTX 3090 Laptop GPU",
        "RTX 3080 8GB",
        "2x NVIDIA T4",
        "9999",
        "M9",
        "M1 99-core GPU",
        f"3090 {'9' * 5000}GB",
    ],
)
def test_an_unknown_card_is_not_guessed(text):
    """Neither is one whose memory is not that of the card of its name."""
    assert find_card(text) is None


def test_every_name_and_alias_finds_its_own_card():
    """No spelling of one card hides another."""
    for card in cards():
        for name in (card.name, *card.aliases):
            assert find_card(name) is card, name


def test_every_row_has_a_source_and_possible_figures():
    """From a Raspberry Pi to the largest accelerator."""
    for card in cards():
        assert card.source, card.name
        assert card.kind in {"gpu", "apple", "cpu", "igpu"}, card.name
        assert 10e9 < card.bandwidth_bytes_per_s < 10e12, card.name
        assert card.memory_bytes is None or GIBIBYTE <= card.memory_bytes <= 512 * GIBIBYTE
        for rate in (card.compute_flops, card.fp32_flops):
            assert rate is None or 1e10 < rate < 1e16, card.name
        if card.compute_flops is not None and card.fp32_flops is not None:
            assert card.compute_flops >= card.fp32_flops, card.name


@given(st.text(max_size=60))
def test_no_text_breaks_the_search(text):
    """Whatever a driver calls its device."""
    found = find_card(text)
    assert found is None or found in cards()


@given(st.sampled_from(cards()), st.booleans())
def test_case_and_spaces_do_not_count(card, upper):
    """Of no card."""
    name = card.name.upper() if upper else card.name.lower()
    assert find_card(f"  {name.replace(' ', '  ')} ") is card
