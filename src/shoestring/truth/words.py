"""The tokenizer of the known-truth server: one token a whitespace-separated word.

Words are numbered in the order in which they are first seen, so that the numbers lead back to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shoestring.truth.asks import RefusedError

MAX_WORDS = 1_000_000


@dataclass
class Vocabulary:
    """The words that were seen so far; bounded."""

    _words: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def encode(self, content: Any) -> list[int]:
        """Return the numbers of the words of a text.

        Raises:
            RefusedError: it is no text, or holds new words where the vocabulary is full.
        """
        if not isinstance(content, str):
            raise RefusedError(400, "content is not a string")
        return [self._number(word) for word in content.split()]

    def decode(self, tokens: Any) -> str:
        """Return the words of these numbers, with a space between them.

        Raises:
            RefusedError: they are no list of numbers that ``encode`` gave.
        """
        known = range(len(self._words))
        if not isinstance(tokens, list) or not all(
            type(token) is int and token in known for token in tokens
        ):
            raise RefusedError(400, "tokens is not a list of numbers that /tokenize gave")
        return " ".join(self._words[token] for token in tokens)

    def _number(self, word: str) -> int:
        number = self._numbers.get(word)
        if number is None:
            if len(self._words) == MAX_WORDS:
                raise RefusedError(507, f"{MAX_WORDS} words are known: start the server again")
            number = self._numbers[word] = len(self._words)
            self._words.append(word)
        return number
