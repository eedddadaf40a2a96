"""What a request is charged where the engine's own counts are missing."""

import pytest

from shoestring.gateway.relaying import Tally
from shoestring.gateway.streams import Used


@pytest.mark.parametrize(
    ("tally", "tokens"),
    [
        (Tally(0.0), 0),
        (Tally(0.0, asked=True), 7),
        (Tally(0.0, asked=True, parts=5), 12),
        (Tally(0.0, asked=True, used=Used(50, None)), 50),
        (Tally(0.0, asked=True, used=Used(50, 4), parts=9), 54),
        (Tally(0.0, asked=True, used=Used(None, 4)), 11),
        (Tally(0.0, asked=True, used=Used(50, 4), cache="hit"), 0),
        (Tally(0.0, asked=True, used=Used(50, 4), cache="joined"), 0),
    ],
)
def test_a_request_is_charged_as_counted_or_as_seen(tally: Tally, tokens: int):
    """Nothing before an engine took it and nothing from memory; its prompt at least after that."""
    assert tally.tokens(prompt_tokens=7) == tokens


def test_what_is_charged_is_told_apart_by_prompt_and_answer():
    """Whoever sells on has a price for each."""
    assert Tally(0.0, asked=True, parts=5).charged(prompt_tokens=7) == (7, 5)
    assert Tally(0.0, asked=True, used=Used(50, 4), parts=9).charged(prompt_tokens=7) == (50, 4)
    assert Tally(0.0).charged(prompt_tokens=7) == (0, 0)
