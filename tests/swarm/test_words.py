"""Words: what was said is heard, and nothing that could hurt who hears it."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.swarm.words import DEPTH, WORD_BYTES, WordError, pack_word, read_word, word_size

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | NAMES | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def nested(value):
    """Return how deep brackets nest in a value's JSON."""
    if isinstance(value, dict):
        return 1 + max(map(nested, value.values()), default=0)
    return 1 + max(map(nested, value), default=0) if isinstance(value, list) else 0


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_what_is_said_is_heard(word):
    """Any object of JSON that is not too deep, to the bit."""
    packed = pack_word(word)
    assert word_size(packed) == len(packed) - 4
    if nested(word) > DEPTH:
        with pytest.raises(WordError, match="deeper"):
            read_word(packed[4:])
    else:
        assert read_word(packed[4:]) == word


@given(st.binary(max_size=300) | st.text('{}[]":,\\ue19.Nd -', max_size=60).map(str.encode))
def test_any_bytes_are_a_word_or_refused(text):
    """By one kind of error, in one line that repeats nothing; what is read can be said."""
    try:
        word = read_word(text)
    except WordError as error:
        said = str(error)
        assert len(said.splitlines()) == 1
        assert said.isascii()
        return
    assert isinstance(word, dict)
    assert read_word(pack_word(word)[4:]) == word


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"{} {}",
        b"{,}",
        b'{"a": 1, "a": 2}',
        b'{"b": [{"a": 1, "a": 2}]}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 26 + b"}",
        b'{"a": "\\ud800"}',
        b'{"\\udc00": 1}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": ' + b"[" * (WORD_BYTES - 10),
        b'{"a": ' + b'{"a": ' * 10_000,
        b'{"a": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        b'{"\\\\": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        b'{"\\"": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        b'\\"' + b"[" * 60_000,
    ],
)
def test_what_is_no_word_or_a_trap_is_refused(text):
    """Each by one error, before a parser can run out of stack."""
    with pytest.raises(WordError):
        read_word(text)


def test_brackets_in_texts_are_no_depth():
    """However many, and however they are escaped."""
    for text in ("[" * 1_000, '"[' * 1_000, '\\"{' * 1_000, "\\" * 999 + '"' + "[" * 99):
        assert read_word(json.dumps({text: text}).encode()) == {text: text}


def test_a_word_of_the_greatest_size_travels_and_no_longer_one():
    """The length is refused before anything is read."""
    most = {"a": "x" * (WORD_BYTES - len('{"a":""}'))}
    assert read_word(pack_word(most)[4:]) == most
    with pytest.raises(WordError, match="65537 bytes"):
        pack_word({"a": most["a"] + "x"})
    assert word_size(WORD_BYTES.to_bytes(4, "little")) == WORD_BYTES
    with pytest.raises(WordError, match="65537 bytes"):
        word_size((WORD_BYTES + 1).to_bytes(4, "little"))
    assert word_size(b"\0\0\0") is None


def test_what_is_no_json_is_not_said():
    """It is our own mistake, and does not leave."""
    for wrong in ({"a": math.nan}, {"a": b"x"}, {"a": {1, 2}}):
        with pytest.raises(WordError, match="no JSON"):
            pack_word(wrong)
