import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.analysis.structured import is_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_whatever_is_json_is_valid(value):
    """Every JSON value parses, with white space around it too."""
    assert is_json(f"\n {json.dumps(value)} ")


@given(VALUES.filter(lambda value: isinstance(value, list | dict)))
def test_a_cut_value_is_not_valid(value):
    """An object or a list without its last character is no JSON."""
    assert not is_json(json.dumps(value)[:-1])


@pytest.mark.parametrize(
    "text", ["", "Sure! {}", "```json\n{}\n```", "NaN", "[Infinity]", "[" * 99999]
)
def test_words_around_it_and_odd_constants_are_not_valid(text):
    """A fence, a greeting, a constant of JavaScript and nesting without an end are no JSON."""
    assert not is_json(text)
