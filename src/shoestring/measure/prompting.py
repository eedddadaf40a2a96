"""Prompts of a wanted length, never the same twice.

Every prompt begins with a nonce, so that no engine can answer from its prefix cache and call it
prefill. The nonce comes from the run's own salt and the request's id: a second run against a
server that stays up asks anew, a resumed run and the other engines of a comparison ask the same.
The turns of a conversation share their nonce on purpose: what the cache then saves is what they
show. Lengths are counted by the engine's own tokenizer; where it offers none, they are aimed at by
``WORDS_PER_TOKEN``, and the record says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadValueError
from shoestring.measure.drafts import make_draft

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.measure.suite import Case

WORDS_PER_TOKEN = 0.75
"""English words a token, for servers that do not tokenise; only used to aim, never reported."""

INTERPOLATED = 6
"""So many lengths are guessed from their neighbours; then the rest is halved, come what may."""


@dataclass(frozen=True)
class PromptText:
    """A prompt and how its length was counted: ``tokens`` is None where nobody could count.

    ``turns``, ``schema`` and ``thinking`` are those of :class:`Prompt`. The tokens are those of
    all texts joined, without a chat template.
    """

    text: str
    tokens: int | None
    turns: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    thinking: bool | None = None

    @property
    def sha256(self) -> str:
        """Of the UTF-8 texts, oldest first, with a zero byte between two."""
        return hashlib.sha256("\0".join((*self.turns, self.text)).encode()).hexdigest()


def make_prompt(
    case: Case,
    request_id: str,
    seed: int,
    count_tokens: Callable[[str], int | None],
    *,
    salt: str | None = None,
) -> PromptText:
    """Make the prompt of one request: the longest that is not longer than wanted.

    In a dialogue the whole conversation has the wanted length, and the request sends its turn.
    Without a salt the nonce repeats with the seed.

    Raises:
        BadValueError: the prompt is longer than wanted before anything is filled in.
    """
    draft = make_draft(case, request_id, seed, salt)

    def count(length: int) -> int | None:
        return count_tokens(_joined(draft.compose(length)))

    shortest = count(0)
    if shortest is None:
        missing = case.prompt_tokens * WORDS_PER_TOKEN - len(_joined(draft.compose(0)).split())
        length, tokens = max(1, int(missing)), None
    elif shortest > case.prompt_tokens:
        raise BadValueError(
            f"case {case.name} wants prompts of {case.prompt_tokens} tokens; with this model the "
            f"shortest has {shortest}: raise prompt_tokens"
        )
    else:
        length, tokens = _longest(count, len(draft.filling), shortest, case.prompt_tokens)
    texts = draft.compose(length)
    if draft.asked < len(texts):
        texts = texts[: draft.asked]
        tokens = count_tokens(_joined(texts))
    return PromptText(texts[-1], tokens, texts[:-1], draft.schema, case.thinking)


def _longest(
    count: Callable[[int], int | None], longest: int, shortest: int, wanted: int
) -> tuple[int, int]:
    """Return the greatest length with at most ``wanted`` tokens, and its tokens.

    Each count asks the engine, so lengths are guessed as if all words had as many tokens as those
    that were counted; a word or two around the guess is then a matter of a few more.
    """
    low, tokens = 0, shortest
    high, over = longest + 1, None  # the least length known to be too long, and its tokens
    per_word = 1 / WORDS_PER_TOKEN
    tries = 0
    while high - low > 1 and tokens < wanted:
        if over is not None:
            per_word = (over - tokens) / (high - low)
        elif low:
            per_word = (tokens - shortest) / low
        guess = low + int((wanted - tokens) / max(per_word, 0.1))
        middle = guess if tries < INTERPOLATED else (low + high) // 2
        middle = min(max(middle, low + 1), high - 1)
        counted = count(middle)
        assert counted is not None, "a tokenizer that counted once goes on or raises"
        if counted <= wanted:
            low, tokens = middle, counted
        else:
            high, over = middle, counted
        tries += 1
    return low, tokens


def _joined(texts: tuple[str, ...]) -> str:
    return "\n\n".join(texts)
