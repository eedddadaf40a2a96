"""Did the answers keep the form that was asked for?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shoestring.analysis import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.analysis.samples import Sample

STRUCTURED = "structured"


def structured_valid(case: dict[str, Any], samples: Sequence[Sample]) -> dict[str, Any] | None:
    """Count the answers of a case that are JSON; None where JSON was not asked for.

    Only that the answer parses is required, not that it fits the schema. An answer that its token
    limit cut in the middle does not parse: a user could not use it either.

    Args:
        case: of the suite.
        samples: its measured requests; a failure has no answer and is left out.

    Returns:
        ``valid``, ``of``, ``value`` (the share) and ``ci95`` (Wilson's interval).
    """
    if case.get("prompt") != STRUCTURED:
        return None
    answers = [sample.row.get("answer") or "" for sample in samples if sample.ok]
    valid = sum(map(is_json, answers))
    return {
        "valid": valid,
        "of": len(answers),
        "value": valid / len(answers) if answers else None,
        "ci95": stats.wilson_interval(valid, len(answers)),
    }


def is_json(text: str) -> bool:
    """Say whether a text is one JSON value and nothing else; NaN and Infinity are no JSON."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
