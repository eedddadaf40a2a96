"""What audits ask, and how far two answers are apart: for benchmarks/swarm_audit.py."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoestring.swarm.audit.comparing import distance_of
from shoestring.testing.audit_lab import (
    ASKED,
)

if TYPE_CHECKING:
    from shoestring.swarm.audit.windows import Given


def asked(number: int, tokens: int) -> dict[str, Any]:
    """Return one of many requests."""
    return {**ASKED, "prompt": f"{number} {ASKED['prompt']}", "n_predict": tokens}


def fresh(folder: Path) -> Path:
    """Return a new folder."""
    return Path(tempfile.mkdtemp(dir=folder))


def say(line: str) -> None:
    """Tell whoever waits."""
    print(line, file=sys.stderr, flush=True)


def apart_of(one: Given, other: Given) -> list[tuple[float, float]]:
    """Return distance and cosine of the answers that differ."""
    pairs = zip(one.data, other.data, strict=True)
    measured = [
        distance_of(np.frombuffer(a, "<f4"), np.frombuffer(b, "<f4"))
        for a, b in pairs
        if a and b and a != b
    ]
    return [pair for pair in measured if pair is not None]


def compared(one: Given, other: Given) -> int:
    """Return how many answers both sides gave."""
    pairs = zip(one.digests, other.digests, strict=True)
    return sum(None not in pair for pair in pairs)


def summary(apart: list[tuple[float, float]], of_answers: int) -> dict[str, Any]:
    """Return the range of distances of answers that differ, of so many; None: none differs."""
    if not apart:
        return {"compared": of_answers, "differing": 0, "relative": None, "cosine": None}
    relative, cosine = (sorted(column) for column in zip(*apart, strict=True))
    middle = len(apart) // 2
    return {
        "compared": of_answers,
        "differing": len(apart),
        "relative": {"least": relative[0], "median": relative[middle], "most": relative[-1]},
        "cosine": {"least": cosine[0], "median": cosine[middle], "most": cosine[-1]},
    }
