import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.report.units import number, plain, seconds, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"), (0, "0 s"), (0.0000123, "12.3 µs"), (0.0421, "42.1 ms"), (1.5, "1.50 s"),
        (4163.2, "4 163 s"),
    ],
)  # fmt: skip
def test_durations_take_the_unit_that_keeps_them_above_one(value, text):
    """A duration is read in microseconds, milliseconds or seconds."""
    assert text == " ".join(seconds(value).split())


@pytest.mark.parametrize(("value", "text"), [(None, "—"), (253e6, "253 MB"), (25.1e9, "25.1 GB")])
def test_sizes_are_in_powers_of_ten(value, text):
    """Bytes are read in MB or GB."""
    assert text == " ".join(size(value).split())


@given(st.floats(min_value=-1e12, max_value=1e12, allow_nan=False))
def test_plain_numbers_keep_six_digits_without_exponent(value):
    """A number in a file has six significant digits and no exponent."""
    text = plain(value)

    assert "e" not in text.lower()
    assert abs(float(text) - value) <= 5.1e-6 * abs(value)


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_numbers_for_readers_keep_three_digits(value):
    """A number for readers is right to three significant digits."""
    shown = float("".join(number(value).split()))

    assert abs(shown - value) <= 5.1e-3 * value
