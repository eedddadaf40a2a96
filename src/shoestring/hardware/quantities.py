"""Sizes, rates and times as people write them: ``8GiB``, ``256GB/s``, ``1Gbit/s``, ``20ms``.

A number with its unit, exact both ways: what is spelled parses to the same value. GB is 10^9 bytes
and GiB 2^30; small and capital letters are the same but for a rate's ``b``: as ``Gb/s`` means bits
to some and bytes to others, it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, TypeAlias

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind: TypeAlias = Literal["size", "rate", "time"]
LONGEST = 40
"""Characters of a number; what a float can hold needs fewer."""
SHOWN = 80
"""Characters of a wrong text, in an error."""
_NUMBER = re.compile(
    r"([+-]?(?:\d+\.?\d*|\.\d+)|[+-]?inf|[+-]?infinity|nan) *([a-zµ/]+)", re.IGNORECASE | re.ASCII
)
_BYTES = {
    "B": 1,
    **{f"{prefix}B": 10 ** (3 * n) for n, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}iB": 2 ** (10 * n) for n, prefix in enumerate("KMGT", 1)},
}
_BITS = {
    "bit": Decimal(1) / 8,
    **{f"{p}bit": Decimal(10 ** (3 * n)) / 8 for n, p in enumerate("KMGT", 1)},
}


@dataclass(frozen=True)
class _Quantity:
    """What can be written, and within which bounds it makes sense."""

    units: Mapping[str, Decimal]  # by their lower-case names
    least: str
    most: str
    example: str


_QUANTITIES: Mapping[Kind, _Quantity] = {
    "size": _Quantity(
        {name.lower(): Decimal(n) for name, n in _BYTES.items()}, "1B", "100TiB", "8GiB"
    ),
    "rate": _Quantity(
        {
            **{f"{name}/s".lower(): Decimal(n) for name, n in _BYTES.items()},
            **{f"{name}/s".lower(): n for name, n in _BITS.items()},
        },
        "1B/s",
        "100TB/s",
        "256GB/s",
    ),
    "time": _Quantity(
        {"s": Decimal(1), "ms": Decimal("1e-3"), "us": Decimal("1e-6"), "µs": Decimal("1e-6"),
         "ns": Decimal("1e-9")},
        "1ns",
        "60s",
        "20ms",
    ),
}  # fmt: skip


def kind_of(text: str) -> Kind | None:
    """Say which quantity a text is by its unit; None where it is no number with a unit of these."""
    found = _NUMBER.fullmatch(text)
    unit = "" if found is None else found[2].lower()
    for kind, quantity in _QUANTITIES.items():
        if unit in quantity.units:
            return kind
    return None


def parse_size(text: str) -> int:
    """Return bytes, rounded to whole ones.

    Raises:
        BadValueError: it is no size, or one that no device has.
    """
    return int(_parse("size", text).to_integral_value())


def parse_rate(text: str) -> float:
    """Return bytes a second; errors as in :func:`parse_size`."""
    return float(_parse("rate", text))


def parse_time(text: str) -> float:
    """Return seconds; errors as in :func:`parse_size`."""
    return float(_parse("time", text))


def spell_size(size_bytes: int) -> str:
    """Write bytes in the largest unit of powers of two that needs no fraction."""
    power = max(n for n in range(5) if size_bytes % 1024**n == 0)
    return f"{size_bytes // 1024**power}{('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def spell_rate(bytes_per_s: float) -> str:
    """Write bytes a second in GB/s, as vendors do; below one of them in MB/s or B/s."""
    exponent, unit = next(
        (n, unit)
        for n, unit in ((9, "GB/s"), (6, "MB/s"), (0, "B/s"))
        if bytes_per_s >= 10**n or n == 0
    )
    return _plain(Decimal(repr(bytes_per_s)).scaleb(-exponent)) + unit


def spell_time(seconds: float) -> str:
    """Write seconds in milliseconds."""
    return _plain(Decimal(repr(seconds)).scaleb(3)) + "ms"


def shown(text: str) -> str:
    """Return a text for an error: one line, and not long."""
    cut = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return cut if cut.isprintable() and cut.strip() else ascii(cut)


def _parse(kind: Kind, text: str) -> Decimal:
    quantity = _QUANTITIES[kind]
    found = _NUMBER.fullmatch(text)
    if found is not None and found[2].endswith("b/s"):
        raise BadValueError(f"{shown(text)}: bits or bytes? Write Gbit/s or GB/s")
    if found is None or kind_of(text) != kind or len(text) > LONGEST:
        raise BadValueError(f"{shown(text)} is no {kind}; write it as {quantity.example}")
    value = _value(found, quantity)
    least, most = (_value(_known(bound), quantity) for bound in (quantity.least, quantity.most))
    if not (value.is_finite() and least <= value <= most):
        raise BadValueError(
            f"{shown(text)} cannot be; a {kind} is between {quantity.least} and {quantity.most}"
        )
    return value


def _known(text: str) -> re.Match[str]:
    found = _NUMBER.fullmatch(text)
    assert found is not None
    return found


def _value(found: re.Match[str], quantity: _Quantity) -> Decimal:
    return Decimal(found[1]) * quantity.units[found[2].lower()]


def _plain(number: Decimal) -> str:
    """Write a number without exponent and without zeros at its end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
