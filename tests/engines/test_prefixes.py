"""What a prompt shares with earlier ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines.prefixes import SharedPrefixes


@pytest.mark.parametrize("characters", [1, 4_095, 4_096, 4_097, 100_000])
def test_long_prompts_share_all_that_they_share(characters):
    """Too short a count would make the prefill look faster."""
    prefixes, same = SharedPrefixes(), "x" * characters
    prefixes.add(same + "a")
    assert prefixes.add(same + "b") == same


@given(st.lists(st.text(alphabet="ab", max_size=6), max_size=12))
def test_it_is_the_longest_common_beginning(texts):
    """As comparing each with all before it would say."""

    def common(one: str, other: str) -> str:
        size = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
                    min(len(one), len(other)))  # fmt: skip
        return one[:size]

    prefixes = SharedPrefixes()
    for place, text in enumerate(texts):
        shared = prefixes.add(text)
        longest = max((len(common(text, other)) for other in texts[:place]), default=None)
        assert (None if shared is None else len(shared)) == longest
        assert shared is None or text.startswith(shared)
