"""Fit the law of speed to published rows, and write its constants: ``speed_constants.json``.

    python scripts/fit_speeds.py

The same rows and cards give the same bytes: run it after either has changed.
"""  # noqa: INP001 - a script

from __future__ import annotations

import json

from shoestring.plan.speed_constants import PUBLISHED_PATH
from shoestring.plan.speed_published import fit_published


def main() -> None:
    """Write ``speed_constants.json``."""
    PUBLISHED_PATH.write_text(json.dumps(fit_published(), indent=1) + "\n", encoding="utf-8")
    print(f"written: {PUBLISHED_PATH.name}")


if __name__ == "__main__":
    main()
