"""Prompts of a wanted length, never the same twice.

Every prompt begins with a nonce, so that no engine can answer from its prefix cache and call it
prefill; the nonce comes from the seed and the request's id, so that a resumed run asks the same.
The texts are our own. Lengths are counted by the engine's own tokenizer; where it offers none, by
``WORDS_PER_TOKEN``, and the record says so.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.measure.suite import Case

WORDS_PER_TOKEN = 0.75
"""English words a token, for servers that do not tokenise; only used to aim, never reported."""

TASKS = {
    "chat": "Answer in a few clear sentences.",
    "document": "Summarise the text above and name its three most surprising facts.",
}


@dataclass(frozen=True)
class PromptText:
    """A prompt and how its length was counted: ``tokens`` is None where nobody could count."""

    text: str
    tokens: int | None

    @property
    def sha256(self) -> str:
        """Of the UTF-8 text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def make_prompt(
    case: Case, request_id: str, seed: int, count_tokens: Callable[[str], int | None]
) -> PromptText:
    """Make the prompt of one request: the longest that is not longer than wanted.

    The order is nonce, question or text, filling, task. Only whole words are cut.

    Raises:
        BadValueError: nonce and task alone are longer than wanted.
    """
    rng = random.Random(f"{seed}/{request_id}")
    nonce = f"[{rng.getrandbits(48):012x}]"
    words = _words(case.prompt, rng, case.prompt_tokens)

    def compose(length: int) -> str:
        return f"{nonce} {' '.join(words[:length])}\n{TASKS[case.prompt]}"

    shortest = count_tokens(compose(0))
    if shortest is None:
        return PromptText(compose(max(1, int(case.prompt_tokens * WORDS_PER_TOKEN))), None)
    low, high, tokens = 0, len(words), shortest
    if shortest > case.prompt_tokens:
        raise BadValueError(
            f"case {case.name} wants prompts of {case.prompt_tokens} tokens; with this model the "
            f"shortest has {shortest}: raise prompt_tokens"
        )
    while low < high:
        middle = (low + high + 1) // 2
        counted = count_tokens(compose(middle))
        assert counted is not None, "a tokenizer that counted once goes on or raises"
        if counted <= case.prompt_tokens:
            low, tokens = middle, counted
        else:
            high = middle - 1
    return PromptText(compose(low), tokens)


def _words(kind: str, rng: random.Random, at_least: int) -> list[str]:
    """Return at least as many words as tokens are wanted; a token is rarely longer than a word."""
    words = rng.choice(_lines("questions.txt")).split() if kind == "chat" else []
    sentences = list(_lines("sentences.txt"))
    while len(words) < at_least:
        rng.shuffle(sentences)
        words += " ".join(sentences).split()
    return words[:at_least]


@cache
def _lines(name: str) -> tuple[str, ...]:
    text = (files("shoestring.measure") / "prompts" / name).read_text(encoding="utf-8")
    return tuple(text.splitlines())
