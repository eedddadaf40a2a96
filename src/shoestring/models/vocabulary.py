"""A made-up vocabulary of any size, with which text becomes tokens and tokens become text.

It is of the SentencePiece kind (``tokenizer.ggml.model = llama``), which needs no list of merges:
control tokens, the 256 bytes, the characters of ASCII, and then fragments of one, two, three and
more letters, at the start of a word and inside it, of the commonest letters of English first.
So English text takes about one token for three characters (a real vocabulary: one for four), and
no text is impossible.
"""

from __future__ import annotations

import functools
import itertools
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

UNKNOWN, BEGIN, END = range(3)  # the control tokens
NORMAL_KIND, UNKNOWN_KIND, CONTROL_KIND, BYTE_KIND = 1, 2, 3, 6  # of llama.cpp
SPACE = "\u2581"  # how SentencePiece writes a space
LETTERS = "etaoinsrhldcumfpgwybvkxjqz"  # the commonest first
SMALLEST = 512  # control tokens, bytes and ASCII fit
LONGEST_FRAGMENT = 8


@functools.lru_cache(maxsize=4)
def build_vocabulary(size: int) -> tuple[bytes, bytes, bytes]:
    """Return tokens, scores and kinds as the elements of three GGUF arrays (0.1 s at 128,256).

    Args:
        size: how many tokens, at least :data:`SMALLEST`.
    """
    fixed = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [UNKNOWN_KIND, CONTROL_KIND, CONTROL_KIND, *[BYTE_KIND] * 256]
    scores = [0.0] * len(fixed)
    tokens = fixed
    for token, score in itertools.islice(_fragments(), size - len(fixed)):
        tokens.append(token)
        scores.append(score)
    kinds += [NORMAL_KIND] * (size - len(kinds))
    return (
        b"".join(struct.pack("<Q", len(raw)) + raw for raw in map(str.encode, tokens)),
        struct.pack(f"<{size}f", *scores),
        struct.pack(f"<{size}i", *kinds),
    )


def _fragments() -> Iterator[tuple[str, float]]:
    """Yield token and score. The best score is merged first: the start of a word, longest first."""
    for character in (SPACE, *map(chr, range(33, 127))):
        yield character, -100.0
    for length in range(1, LONGEST_FRAGMENT + 1):
        for letters in itertools.product(LETTERS, repeat=length):
            yield SPACE + "".join(letters), -float(LONGEST_FRAGMENT - length)
        if length > 1:
            for letters in itertools.product(LETTERS, repeat=length):
                yield "".join(letters), -float(2 * LONGEST_FRAGMENT - length)
