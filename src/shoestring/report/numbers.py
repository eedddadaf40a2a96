r"""Every number of a run that prose may quote, by name: ``numbers.json`` and ``numbers.tex``.

``numbers.json`` is flat: ``{"ttft_median_s": {"value": 0.0421, "unit": "s", "text": "42.1 ms"}}``;
a case's own numbers carry its name in front (``chat-128.ttft_median_s``), and where a name was
measured at several concurrencies that too (``chat-128-c4.ttft_median_s``). ``numbers.tex`` holds
the same texts as macros, ``\SSTtftMedian`` and ``\SSChatOneTwoEightTtftMedian``, so that no number
is typed into a paper by hand. The unit is part of the text and left out of the macro's name.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from shoestring.analysis.samples import REQUEST_METRICS
from shoestring.report.tabular import escape_latex, one_line
from shoestring.report.units import MISSING, SPACE, number, seconds, size
from shoestring.report.words import case_labels, public_name

if TYPE_CHECKING:
    from collections.abc import Callable

_DIGITS: Final = dict(
    enumerate(["Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"])
)
_PARTS: Final = ("median", "p90", "p99", "max")

Number = dict[str, Any]


def run_numbers(summary: dict[str, Any]) -> dict[str, Number]:
    """Return every number by name; ``value`` is in ``unit``, ``text`` is for readers."""
    environment, memory = summary["environment"], summary["memory"]
    goodput, calibration = summary["goodput"], summary["calibration"]
    numbers = {
        "run_id": _said(summary["run_id"]),
        "suite": _said(environment["suite"]["name"]),
        "model": _said(public_name(environment["model"]["name"])),
        "engine": _said(environment["engine"]["name"]),
        "requests_ok": _count(summary["requests"]["ok"]),
        "requests_failed": _count(summary["requests"]["failed"]),
        "sessions": _count(summary["sessions"]),
        **_rate_numbers(summary["success_rate"]),
        "goodput_fraction": _share(goodput["fraction"]),
        **_explaining_numbers(summary),
        "load_s": _quantity(summary["load_s"], "s"),
        "ram_peak_bytes": _quantity(memory["ram_peak_bytes"], "bytes"),
        **_machine_numbers(summary),
        "vram_peak_bytes": _quantity(memory["vram_peak_bytes"], "bytes"),
        "model_file_bytes": _quantity(memory["model_file_bytes"], "bytes"),
        "calibration_ttft_error_s": _quantity(calibration["ttft_error_s"], "s"),
        "calibration_gap_error_p99_s": _quantity(calibration["gap_error_p99_s"], "s"),
        **_metric_numbers("", summary["metrics"]),
    }
    labels = case_labels([(case["case"], case["concurrency"]) for case in summary["cases"]])
    for case, label in zip(summary["cases"], labels.values(), strict=True):
        prefix = f"{label}."
        numbers[f"{prefix}requests_ok"] = _count(case["requests"]["ok"])
        numbers[f"{prefix}goodput_fraction"] = _share(case["goodput"]["fraction"])
        numbers[f"{prefix}cached_share"] = _share(case["cached_share"])
        numbers[f"{prefix}residual_median_s"] = _quantity(case["residual_s"]["median"], "s")
        reasoned = case["metrics"]["reasoning_share"]["median"]
        numbers[f"{prefix}reasoning_share_median"] = _share(reasoned)
        valid = (case["structured_valid"] or {}).get("value")
        numbers[f"{prefix}structured_valid"] = _share(valid)
        numbers |= _metric_numbers(prefix, case["metrics"])
    return numbers


def _rate_numbers(rate: dict[str, Any]) -> dict[str, Number]:
    low, high = rate["ci95"] or (None, None)
    return {
        "success_rate": _share(rate["value"]),
        "success_rate_ci95_low": _share(low),
        "success_rate_ci95_high": _share(high),
    }


def _explaining_numbers(summary: dict[str, Any]) -> dict[str, Number]:
    """What the engine says of itself, and how the tokens were counted."""
    native, counts = summary["native"], summary["token_counts"]
    found = {
        f"native_{name}_median": _quantity(native[name]["median"], "tokens/s")
        for name in ("decode_tokens_per_s", "prefill_tokens_per_s")
    }
    return {
        **found,
        "residual_median_s": _quantity(summary["residual_s"]["median"], "s"),
        "cached_share": _share(summary["cached_share"]),
        "token_source": _said(counts["source"] or MISSING),
        "early_stops": _count(counts["early_stops"]),
        "token_discrepancies": _count(counts["discrepancies"]),
    }


def _machine_numbers(summary: dict[str, Any]) -> dict[str, Number]:
    used, gone = summary["energy"], summary["interruptions"] or {}
    return {
        "energy_j": _quantity(used["energy_j"], "J"),
        "energy_j_per_output_token": _quantity(used["energy_j_per_output_token"], "J"),
        "interruptions": _count(gone.get("count")),
        "interruptions_down_s": _quantity(gone.get("down_s"), "s"),
    }


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
        stem = re.sub(r"_(s|bytes)\b", "", name)
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
    for metric in REQUEST_METRICS:
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
    "J": number,
}


def _quantity(value: float | None, unit: str) -> Number:
    return {"value": value, "unit": unit, "text": _WRITE[unit](value)}


def _count(value: int | None) -> Number:
    return {"value": value, "unit": "1", "text": number(value)}


def _share(value: float | None) -> Number:
    text = MISSING if value is None else f"{number(value * 100)}{SPACE}%"
    return {"value": value, "unit": "1", "text": text}


def _said(value: str) -> Number:
    value = one_line(value)
    return {"value": value, "unit": None, "text": value}
