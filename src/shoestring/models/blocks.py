"""Blocks of random weights for each type of tensor, with mean zero and one spread.

Random bytes would do for speed, but not for decoding: most types would then have a mean that is
not zero, all rows would point the same way, and greedy decoding would repeat one token (Ollama
stops an answer after 30 equal tokens, and then leaves its durations out). So the numbers are
random and the scales are set, such that the mean is zero and the standard deviation is
:data:`SPREAD`:

* types without a minimum, ``d * q``: the sign of ``d`` is random,
* types with a minimum, ``d * q - m``: ``m`` is the mean of ``d * q``.

Layouts are those of ``ggml/src/ggml-common.h``.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

SPREAD = 0.05  # standard deviation of a weight; activations then neither die nor overflow a half
MANTISSA = 32  # a scale keeps 5 bits, so that its product with the mean of q is exact in a half
VALUES = 1 << 16  # that a random float can have
K_SCALE = 33  # each scale and each minimum of the types Q4_K and Q5_K
K_SCALE_BYTES = bytes([0b10_100001] * 8 + [0x11] * 4)  # the six bits of 33, as they are packed


@dataclass(frozen=True)
class _Signed:
    """A type without a minimum: where its scale lies, and the spread of a weight at scale one."""

    scale_at: int
    spread: float


@dataclass(frozen=True)
class _Offset:
    """A type with a minimum: where both scales lie, how many values q has, the inner scale.

    ``minimum_sign`` is +1 where the minimum is added (Q5_1) and -1 where it is subtracted.
    """

    scale_at: int
    values: int
    inner_scale: int = 1
    minimum_sign: int = -1


def _uniform_spread(values: int) -> float:
    """Return the standard deviation of the whole numbers 0 … values - 1."""
    return math.sqrt((values**2 - 1) / 12)


# Q6_K: inner scales are ±1; Q3_K: q in -4 … 3 and inner scales in -32 … 31, all equally often.
_RECIPES: Mapping[str, _Signed | _Offset] = {
    "Q8_0": _Signed(0, _uniform_spread(256)),
    "Q4_0": _Signed(0, _uniform_spread(16)),
    "Q5_0": _Signed(0, _uniform_spread(32)),
    "Q5_1": _Offset(0, 32, minimum_sign=1),
    "Q6_K": _Signed(208, _uniform_spread(64)),
    "Q5_K": _Offset(0, 32, K_SCALE),
    "Q4_K": _Offset(0, 16, K_SCALE),
    "Q3_K": _Signed(108, math.sqrt(342 * 5.5)),
    "Q2_K": _Offset(80, 4, 9),
}
_Q6_K_SCALES = slice(192, 208)
_K_SCALES = slice(4, 16)
_Q2_K_SCALES = slice(0, 16)


def make_blocks(type_name: str, count: int, block_bytes: int) -> Bytes:
    """Return ``count`` blocks of a quantised type, one a row.

    Args:
        type_name: for example ``Q4_K``.
        count: of blocks.
        block_bytes: size of one.
    """
    import numpy as np

    recipe = _RECIPES[type_name]
    blocks = _random_bytes(type_name, count * block_bytes).reshape(count, block_bytes)
    if isinstance(recipe, _Offset):
        _set_offset_scales(blocks, recipe)
    else:
        signs = 1.0 - 2.0 * (blocks[:, recipe.scale_at] & 1)
        _put_halves(blocks, recipe.scale_at, signs * _short(SPREAD / recipe.spread))
    if type_name in {"Q4_K", "Q5_K"}:
        blocks[:, _K_SCALES] = np.frombuffer(K_SCALE_BYTES, np.uint8)
    elif type_name == "Q2_K":
        blocks[:, _Q2_K_SCALES] = 0x99  # scale 9, minimum 9
    elif type_name == "Q6_K":
        blocks[:, _Q6_K_SCALES] = (blocks[:, _Q6_K_SCALES] & 1) * 254 + 1  # 1, or 255: that is -1
    return blocks


def make_floats(type_name: str, count: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return ``count`` random weights of type ``F32`` or ``F16``, evenly spread."""
    numbers = _random_bytes(type_name, 2 * count).view("<u2").astype("<f4")
    numbers -= (VALUES - 1) / 2
    numbers *= SPREAD / _uniform_spread(VALUES)
    return numbers.astype("<f4" if type_name == "F32" else "<f2")


def _random_bytes(seed: str, count: int) -> Bytes:
    """Return random bytes, the same on every machine: numpy keeps the raw streams stable."""
    import numpy as np

    words = np.random.PCG64(zlib.crc32(seed.encode())).random_raw(-(-count // 8))
    return words.astype("<u8", copy=False).view(np.uint8)[:count]


def _set_offset_scales(blocks: Bytes, recipe: _Offset) -> None:
    import numpy as np

    scale = _short(SPREAD / _uniform_spread(recipe.values) / recipe.inner_scale)
    minimum = scale * (recipe.values - 1) / 2
    _put_halves(blocks, recipe.scale_at, np.full(len(blocks), scale))
    _put_halves(blocks, recipe.scale_at + 2, np.full(len(blocks), -recipe.minimum_sign * minimum))


def _put_halves(
    blocks: Bytes, position: int, values: np.ndarray[Any, np.dtype[np.floating[Any]]]
) -> None:
    import numpy as np

    blocks[:, position : position + 2] = values.astype("<f2").view(np.uint8).reshape(-1, 2)


def _short(value: float) -> float:
    """Round to few bits."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * MANTISSA) / MANTISSA, exponent)
