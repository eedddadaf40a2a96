"""The word: one JSON object each way before a link is put to use, read without trust.

``u32`` length in little endian, at most 65,536, then UTF-8. What a reader could be hurt by is
refused: depth, a name twice, NaN and infinities, huge numbers, halves of surrogate pairs.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LENGTH_BYTES: Final = 4
WORD_BYTES: Final = 65_536
DEPTH: Final = 16
NUMBER_CHARACTERS: Final = 25  # of any 64-bit integer and any double as Python writes it
NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class WordError(ValueError):
    """A word is not one; the message repeats nothing of it."""


def pack_word(word: Mapping[str, Any]) -> bytes:
    """Return a word as it travels, its length first.

    Raises:
        WordError: it is too long, or no JSON.
    """
    try:
        text = json.dumps(dict(word), allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WordError(f"a word that is no JSON: {error}") from error
    if len(text) > WORD_BYTES:
        raise WordError(f"a word of {len(text)} bytes: at most {WORD_BYTES} travel")
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def word_size(held: bytes | bytearray) -> int | None:
    """Return the length of the word that begins here, without its length; None: not yet known.

    Raises:
        WordError: it is too long.
    """
    if len(held) < LENGTH_BYTES:
        return None
    size = int.from_bytes(held[:LENGTH_BYTES], "little")
    if size > WORD_BYTES:
        raise WordError(f"a word of {size} bytes: at most {WORD_BYTES} travel")
    return size


def read_word(text: bytes) -> dict[str, Any]:
    """Return the object of a word, without its length.

    Raises:
        WordError: it is not one JSON object, or one that could hurt a reader.
    """
    if _too_deep(text):
        raise WordError(f"a word deeper than {DEPTH}")
    try:
        word = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_bounded,
        )
        json.dumps(word, ensure_ascii=False).encode("utf-8")  # no half of a surrogate pair
    except WordError:
        raise
    except ValueError as error:
        raise WordError(f"a word that is no JSON ({type(error).__name__})") from error
    if not isinstance(word, dict):
        raise WordError("a word that is no object")
    return word


def printable(said: Any) -> str:
    """Return another side's own words, made fit for a line."""
    return "".join(filter(str.isprintable, said))[:200] if isinstance(said, str) else "not told"


def _too_deep(text: bytes) -> bool:
    """Tell whether brackets outside of strings nest too deep, in one pass and without parsing.

    A backslash outside of a string misleads this count, and ends the parser where it stands.
    """
    bare = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(bare.split(b'"')[::2])
    depth = 0
    for bracket in outside.translate(None, NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH:
            return True
    return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise WordError("a word with one name twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise WordError("a word with a number that is not finite")
    return number


def _bounded(text: str) -> int:
    if len(text) > NUMBER_CHARACTERS:
        raise WordError(f"a word with a number of {len(text)} digits")
    return int(text)
