"""Money in whole numbers: micro-credits, and prices a million tokens and layer.

Rounding happens once, upwards, on figures that are cumulative: so many small windows cost what one
large one does.
"""

from __future__ import annotations

import re
from typing import Final

from shoestring.errors import BadValueError

CREDIT: Final = 1_000_000
"""Micro-credits."""
PER_TOKENS: Final = 1_000_000
"""Tokens that a price is for."""
CREDITS: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?")


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


def credits_text(micro: int) -> str:
    """Return an amount in credits, exactly: as many decimals as it has."""
    whole, rest = divmod(abs(micro), CREDIT)
    decimals = f"{rest:06d}".rstrip("0")
    return f"{'-' if micro < 0 else ''}{whole}{'.' if decimals else ''}{decimals}"


def read_credits(text: str) -> int:
    """Return the micro-credits of an amount in credits, exactly.

    Raises:
        BadValueError: it is none, or finer than a micro-credit.
    """
    found = CREDITS.fullmatch(text)
    if found is None:
        raise BadValueError(
            f"{text[:40]!a} is no amount: give credits as digits, at most nine before the point "
            "and six behind it, as in 1.25"
        )
    return int(found[1]) * CREDIT + int((found[2] or "").ljust(6, "0"))
