"""Numbers as people read them. Seconds and bytes inside; formatted only here.

Three significant digits in prose and tables: a session's interval is rarely narrower.
"""

from __future__ import annotations

import math
from typing import Final

MISSING: Final = "\N{EM DASH}"
SPACE: Final = "\N{NO-BREAK SPACE}"  # between a number and its unit
NARROW_SPACE: Final = "\N{NARROW NO-BREAK SPACE}"  # between thousands
GIBIBYTE: Final = 1 << 30  # memories are made in powers of two, and told so
_THOUSAND: Final = 1000


def plain(value: float, digits: int = 6) -> str:
    """Return a number with at most ``digits`` significant digits and no exponent in sight."""
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number to show")
    if float(value).is_integer() and abs(value) < 10**15:
        return str(int(value))
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def number(value: float | None) -> str:
    """Return a number with three significant digits, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= _THOUSAND:
        return f"{value:,.0f}".replace(",", NARROW_SPACE)
    if float(value).is_integer():
        return str(int(value))
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def seconds(value: float | None) -> str:
    """Return a duration in the unit that keeps it above one (us, ms, s); a dash for None."""
    if value is None or not math.isfinite(value):
        return MISSING
    if 0 < abs(value) < 1e-3:  # noqa: PLR2004 - a millisecond
        return f"{number(value * 1e6)}{SPACE}\N{MICRO SIGN}s"
    return f"{number(value * 1e3)}{SPACE}ms" if 0 < abs(value) < 1 else f"{number(value)}{SPACE}s"


def size(value: float | None) -> str:
    """Return bytes as MB or GB of powers of ten, or a dash where unknown."""
    if value is None or not math.isfinite(value):
        return MISSING
    return (
        f"{number(value / 1e9)}{SPACE}GB"
        if abs(value) >= 10**9
        else f"{number(value / 1e6)}{SPACE}MB"
    )
