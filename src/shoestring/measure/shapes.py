"""The shapes of what a run record holds: what readers index is there, and of that kind.

What a part means is in ``docs/record-format.md``. What came with a later schema version may be
absent, so that older runs fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Maybe:
    """The shape of a part that may be null."""

    shape: Shape


Shape: TypeAlias = "type | tuple[type, ...] | Maybe | dict[str, Shape] | list[Shape]"
"""A type; several; an object with at least these parts; a list of one shape."""

NUMBER = (int, float)
WORDS: dict[Any, str] = {
    dict: "object",
    list: "list",
    NUMBER: "number",
    str: "str",
    int: "int",
    bool: "bool",
}
TEXT = Maybe(str)


def _numbers(*names: str) -> dict[str, Shape]:
    """Return the shape of an object with these numbers, of which each may be null."""
    return dict.fromkeys(names, Maybe(NUMBER))


ERRORS = _numbers("ttft_error_s", "ttft_error_p99_s", "gap_error_p99_s")
SESSION: Shape = {
    "session": int,
    "started_utc": TEXT,
    "ended_utc": TEXT,
    "end_reason": TEXT,
    "machine": Maybe(
        {
            "cpu": Maybe(_numbers("cores_logical")),
            "memory_bytes": Maybe(NUMBER),
            "gpus": Maybe([{"name": TEXT}]),
        }
    ),
    "versions": Maybe({"shoestring": TEXT, "engine": TEXT}),
    "commit": Maybe({"sha": TEXT}),
    "cold_start": Maybe([{"name": str, "start_s": NUMBER, "end_s": NUMBER}]),
    "load_s": Maybe(NUMBER),
    "warmup": Maybe({"requests": int, "stable": bool}),
    "calibration": Maybe({**ERRORS, "by_concurrency": Maybe([{"concurrency": int, **ERRORS}])}),
    "memory": Maybe(
        {
            **_numbers("ram_peak_bytes", "vram_peak_bytes", "vram_limit_bytes"),
            "vram_source": TEXT,
            "engine_reported": Maybe(_numbers("total_bytes", "vram_bytes")),
        }
    ),
    "energy": Maybe(
        {
            **_numbers("energy_j", "seconds", "baseline_power_w"),
            "source": TEXT,
            "gpus": Maybe([{"index": int, **_numbers("energy_j")}]),
        }
    ),
    "interruptions": Maybe(
        [{"t_ns": int, "reason": str, "recovered": bool, "restarted": bool, **_numbers("down_s")}]
    ),
    "telemetry": Maybe(dict),
}
CASE: Shape = {
    "name": str,
    "prompt": TEXT,
    "prompt_tokens": int,
    "output_tokens": int,
    "arrival": TEXT,
    "rate_per_s": Maybe(NUMBER),
    "turns": Maybe(int),
    "thinking": Maybe(bool),
    "fixed_length": Maybe(bool),
}
OBJECTS: dict[str, Shape] = {
    "config.json": {
        "run_id": str,
        "seed": int,
        "prompt_salt": TEXT,
        "suite": {
            "name": str,
            "sha256": TEXT,
            "cases": [CASE],
            "limits": Maybe(dict),
            "fresh_engine": Maybe(bool),
        },
        "model": {"name": str, "sha256": TEXT, "file_bytes": Maybe(NUMBER)},
        "engine": {"name": str, "base_url": TEXT, "options": Maybe(dict)},
        "requests": [{"id": str, "arrival_s": Maybe(NUMBER)}],
        "interleaved_with": Maybe([str]),
    },
    "environment.json": {"sessions": [SESSION]},
    "manifest.json": {"run_id": str, "status": str, "requests": dict, "files": dict},
}
"""What must be in each object, by file: anything else is damage. A null part may be left out."""

ROW: dict[str, Shape] = {
    "id": str,
    "session": int,
    "phase": str,
    "block": int,
    "case": str,
    "concurrency": int,
    "intended_ns": int,
    "end_ns": int,
    "status": str,
    "failure": Maybe({"reason": str, "detail": TEXT}),
    "events": list,
}
"""What must be in each row."""

MORE_OF_ROW: dict[str, Shape] = {
    "arrival_s": Maybe(NUMBER),
    "sent_ns": Maybe(int),
    "connect_s": Maybe(NUMBER),
    "max_tokens": Maybe(int),
    "usage": Maybe(_numbers("prompt_tokens", "completion_tokens", "cached_tokens")),
    "native": Maybe(
        {
            **_numbers("prompt_tokens", "prompt_s", "decode_tokens", "decode_s", "cached_tokens"),
            **_numbers("load_s", "total_s"),
        }
    ),
}
"""What a row may leave out."""

SAMPLE: Shape = {
    "session": int,
    "t_ns": int,
    **_numbers("cpu_percent", "engine_cpu_percent", "engine_rss_bytes", "engine_processes"),
    **_numbers("available_memory_bytes", "temperature_c", "frequency_hz"),
    **_numbers("steal_percent", "swap_used_bytes", "engine_major_faults_per_s"),
    **_numbers("engine_swap_bytes", "engine_vram_bytes"),
    "gpus": Maybe(
        [
            {
                "index": int,
                **_numbers("vram_used_bytes", "utilisation_percent", "power_w", "temperature_c"),
                **_numbers("sm_clock_hz", "memory_clock_hz"),
                "throttle": Maybe([str]),
            }
        ]
    ),
}


def misfit(value: Any, shape: Shape) -> str | None:
    """Say which part of a JSON value has another shape, or None where it fits."""
    found = _misfit(value, shape)
    return None if found is None else found.lstrip(". ")


def _misfit(value: Any, shape: Shape) -> str | None:
    if isinstance(shape, Maybe):
        return None if value is None else _misfit(value, shape.shape)
    kind = type(shape) if isinstance(shape, dict | list) else shape
    if not isinstance(value, kind):
        return f" is no {WORDS[kind]}"
    for name, part, inner in _parts(value, shape):
        if (found := _misfit(part, inner)) is not None:
            return f".{name}{found}"
    return None


def _parts(value: Any, shape: Shape) -> list[tuple[str, Any, Shape]]:
    """Return name, value and shape of what is inside an object or a list."""
    if isinstance(shape, dict):
        return [(key, value.get(key), inner) for key, inner in shape.items()]
    if isinstance(shape, list):
        return [(str(place), part, shape[0]) for place, part in enumerate(value)]
    return []
