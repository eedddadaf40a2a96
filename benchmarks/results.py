"""Writes what a benchmark measured, with how and on what, into ``results/benchmarks/``."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from shoestring.hardware.machine import describe_machine

if TYPE_CHECKING:
    from pathlib import Path


def write_result(path: Path, name: str, figures: dict[str, Any]) -> None:
    """Write one benchmark's figures as JSON, and print them."""
    result = {
        "schema_version": 1,
        "benchmark": name,
        "measured_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": describe_machine(),
        "load_average_1min": os.getloadavg()[0],
        "versions": {"shoestring": version("shoestring"), "python": platform.python_version()},
        **figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)
