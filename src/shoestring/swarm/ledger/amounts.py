"""Money in whole numbers: micro-credits, and prices a million tokens and layer.

Rounding happens once, upwards, on figures that are cumulative: so many small windows cost what one
large one does.
"""

from __future__ import annotations

from typing import Final

CREDIT: Final = 1_000_000
"""Micro-credits."""
PER_TOKENS: Final = 1_000_000
"""Tokens that a price is for."""


def amount(tokens_in: int, tokens_out: int, layers: int, *, price_in: int, price_out: int) -> int:
    """Return what a node is owed, in micro-credits.

    Args:
        tokens_in: positions of prompts that it computed.
        tokens_out: positions of answers.
        layers: through which each went there.
        price_in: micro-credits a million tokens and layer.
        price_out: likewise, of answers.
    """
    exact = (tokens_in * price_in + tokens_out * price_out) * layers
    return -(-exact // PER_TOKENS)
