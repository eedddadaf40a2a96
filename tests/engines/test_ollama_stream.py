"""Ollama's stream: lines of JSON, and durations whose traps are not passed on."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines.ollama_stream import read_ollama_stream

END = {
    "done": True, "done_reason": "length", "total_duration": 3_000_000_000,
    "load_duration": 500_000_000, "prompt_eval_count": 100, "prompt_eval_duration": 2_000_000_000,
    "eval_count": 3, "eval_duration": 400_000_000,
}  # fmt: skip


def lines(*said: dict) -> bytes:
    """The bytes of these lines."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in said)


def read(*said: dict, shared=0):
    """Read lines that arrived at once."""
    return read_ollama_stream([(7, lines(*said))], shared_tokens=shared)


def test_an_answer_with_its_durations():
    """Text, reason of the end, counts, and durations in seconds."""
    made = read({"response": "The "}, {"response": "sea"}, END)

    assert made.ended
    assert (made.text, made.finish_reason) == ("The sea", "length")
    assert [(e.kind, e.size_bytes) for e in made.events] == [
        ("answer", 4), ("answer", 3), ("done", 0)]  # fmt: skip
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (100, 3)
    assert (made.native.prompt_s, made.native.decode_s) == (2.0, 0.4)
    assert (made.native.load_s, made.native.total_s) == (0.5, 3.0)


def test_a_chat_has_its_thoughts_apart():
    """Reasoning is not the answer."""
    made = read(
        {"message": {"role": "assistant", "content": "", "thinking": "hm"}},
        {"message": {"role": "assistant", "content": "yes"}},
        {"message": {"role": "assistant", "content": ""}, **END},
    )

    assert (made.reasoning, made.text) == ("hm", "yes")
    assert [e.kind for e in made.events] == ["reasoning", "answer", "done"]


@pytest.mark.parametrize(
    ("said", "shared", "fresh"),
    [
        ({}, 0, 100),
        ({}, 30, 70),  # what an earlier prompt left in the cache took no time
        ({}, None, None),  # not known: then no speed can be told
        ({"prompt_eval_cached_count": 60}, 30, 40),  # Ollama's own word counts more
        ({"prompt_eval_cached_count": 0}, 30, 100),
        ({"prompt_eval_cached_count": 0}, None, 100),  # as in chat
        ({"prompt_eval_count": 20}, 30, 0),
        ({"prompt_eval_count": 0}, 30, None),
    ],
)
def test_cached_tokens_are_taken_off(said, shared, fresh):
    """The count of the prompt holds cached tokens, its duration does not."""
    made = read(END | said, shared=shared)
    assert made.native.prompt_tokens == fresh
    assert made.usage.cached_tokens == said.get("prompt_eval_cached_count")


def test_what_ollama_leaves_out_is_null():
    """An answer that was stopped for repetition ends without its numbers: null, not 0."""
    made = read({"response": "a"}, {"done": True, "done_reason": "stop"})

    assert made.ended
    assert made.native.decode_tokens is None
    assert made.native.decode_s is None
    assert made.usage.completion_tokens is None


def test_an_error_in_the_stream_is_named():
    """The server's own words, in one line."""
    made = read({"response": "a"}, {"error": "the runner\nis gone"})

    assert (made.failure.reason, made.failure.detail) == ("stream_error", "the runner is gone")
    assert not made.ended


@pytest.mark.parametrize("garbage", [b"<html>\n", b"[1]\n", b'{"a":\n', b"[" * 10_000 + b"\n"])
def test_what_is_no_line_of_ollama_is_malformed(garbage):
    """Whatever it is, it is a failed request."""
    made = read_ollama_stream([(1, garbage)], shared_tokens=0)

    assert made.failure.reason == "malformed"


def test_a_cut_line_is_no_end():
    """The last line must be whole."""
    whole = lines({"response": "a"}, END)

    assert not read_ollama_stream([(1, whole[:-1])], shared_tokens=0).ended


@given(
    texts=st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_where_the_bytes_are_cut_changes_nothing_but_stamps(texts, cuts):
    """Each line gets the stamp of the arrival that brought its last byte."""
    whole = lines(*({"response": text} for text in texts), END)
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [(n, whole[a:b]) for n, (a, b) in enumerate(pairwise(places))]

    made = read_ollama_stream(pieces, shared_tokens=0)

    assert made.text == "".join(texts)
    assert made.ended
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    stamps = [sum(place >= cut for cut in places[1:]) for place in ends]
    assert [event.t_ns for event in made.events] == stamps
