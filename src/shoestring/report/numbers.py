r"""Every number of a run that prose may quote, by name: ``numbers.json`` and ``numbers.tex``.

``numbers.json`` is flat: ``{"ttft_median_s": {"value": 0.0421, "unit": "s", "text": "42.1 ms"}}``;
a case's own numbers carry its name in front (``chat-128.ttft_median_s``). ``numbers.tex`` holds
the same texts as macros, ``\SSTtftMedian`` and ``\SSChatOneTwoEightTtftMedian``, so that no number
is typed into a paper by hand. The unit is part of the text and left out of the macro's name.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from shoestring.report.tabular import escape_latex
from shoestring.report.units import MISSING, SPACE, number, seconds, size

if TYPE_CHECKING:
    from collections.abc import Callable

_DIGITS: Final = dict(
    enumerate(["Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"])
)
_PARTS: Final = ("median", "p90", "p99", "max")
_METRICS: Final = (
    "ttft_s", "tpot_s", "itl_s", "e2e_s", "decode_tokens_per_s", "prefill_tokens_per_s",
    "output_tokens_per_s_aggregate",
)  # fmt: skip

Number = dict[str, Any]


def run_numbers(summary: dict[str, Any]) -> dict[str, Number]:
    """Return every number by name; ``value`` is in ``unit``, ``text`` is for readers."""
    environment, memory = summary["environment"], summary["memory"]
    goodput, calibration = summary["goodput"], summary["calibration"]
    numbers = {
        "run_id": _said(summary["run_id"]),
        "suite": _said(environment["suite"]["name"]),
        "model": _said(environment["model"]["name"]),
        "engine": _said(environment["engine"]["name"]),
        "requests_ok": _count(summary["requests"]["ok"]),
        "requests_failed": _count(summary["requests"]["failed"]),
        "sessions": _count(summary["sessions"]),
        "success_rate": _share(summary["success_rate"]["value"]),
        "goodput_fraction": _share(goodput["fraction"]),
        "load_s": _quantity(summary["load_s"], "s"),
        "ram_peak_bytes": _quantity(memory["ram_peak_bytes"], "bytes"),
        "vram_peak_bytes": _quantity(memory["vram_peak_bytes"], "bytes"),
        "model_file_bytes": _quantity(memory["model_file_bytes"], "bytes"),
        "calibration_ttft_error_s": _quantity(calibration["ttft_error_s"], "s"),
        "calibration_gap_error_p99_s": _quantity(calibration["gap_error_p99_s"], "s"),
        **_metric_numbers("", summary["metrics"]),
    }
    for case in summary["cases"]:
        prefix = f"{case['case']}."
        numbers[f"{prefix}requests_ok"] = _count(case["requests"]["ok"])
        numbers[f"{prefix}goodput_fraction"] = _share(case["goodput"]["fraction"])
        numbers |= _metric_numbers(prefix, case["metrics"])
    return numbers


def numbers_json(numbers: dict[str, Number]) -> str:
    """Write the numbers as JSON, sorted by name."""
    return json.dumps(numbers, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def numbers_tex(numbers: dict[str, Number]) -> str:
    r"""Write the numbers as ``\newcommand`` macros, sorted by name."""
    macros = macro_names(sorted(numbers))
    lines = [
        f"\\newcommand{{\\{macros[name]}}}{{{escape_latex(numbers[name]['text'])}}}"
        for name in sorted(numbers)
    ]
    return "% Made by shoestring from a run record; do not edit.\n" + "\n".join(lines) + "\n"


def macro_names(names: list[str]) -> dict[str, str]:
    """Give each name its macro: letters only, digits spelled out, unique.

    Two names that come to the same letters are told apart by an X for each earlier one.
    """
    macros: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"_(s|bytes|per_s)\b", lambda m: "_per_s" if "per" in m[1] else "", name)
        words = re.findall(r"[A-Za-z]+|[0-9]", stem)
        macro = "SS" + "".join(_spelled(word) for word in words)
        while macro in macros.values():
            macro += "X"
        macros[name] = macro
    return macros


def _spelled(word: str) -> str:
    return _DIGITS[int(word)] if word.isdigit() else word[:1].upper() + word[1:]


def _metric_numbers(prefix: str, metrics: dict[str, Any]) -> dict[str, Number]:
    numbers = {}
    for metric in _METRICS:
        unit = "tokens/s" if "tokens_per_s" in metric else "s"
        stem, tail = (metric, "") if unit == "tokens/s" else (metric.removesuffix("_s"), "_s")
        values = metrics[metric]
        low, high = values["ci95"] or (None, None)
        parts = {**{part: values[part] for part in _PARTS}, "ci95_low": low, "ci95_high": high}
        for part, value in parts.items():
            numbers[f"{prefix}{stem}_{part}{tail}"] = _quantity(value, unit)
        numbers[f"{prefix}{stem}_n"] = _count(values["n"])
    return numbers


_WRITE: Final[dict[str, Callable[[float | None], str]]] = {
    "s": seconds,
    "bytes": size,
    "tokens/s": number,
}


def _quantity(value: float | None, unit: str) -> Number:
    return {"value": value, "unit": unit, "text": _WRITE[unit](value)}


def _count(value: int) -> Number:
    return {"value": value, "unit": "1", "text": number(value)}


def _share(value: float | None) -> Number:
    text = MISSING if value is None else f"{number(value * 100)}{SPACE}%"
    return {"value": value, "unit": "1", "text": text}


def _said(value: str) -> Number:
    return {"value": value, "unit": None, "text": value}
