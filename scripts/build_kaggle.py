"""Build the notebook that runs on Kaggle or Colab by itself: ``dist/kaggle/``, ``dist/colab/``."""  # noqa: INP001 - a script

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError, ShoestringError
from shoestring.report.notebook import find_notebook
from shoestring.report.parameters import notebook_parameters
from shoestring.stack import packaging

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
ON_A_T4 = {"model": "ollama:qwen3:8b"}
"""A reasoning model that fits a T4 in four bits; the notebook's own default suits any laptop."""


def defaults_of(notebook: Path, words: Sequence[str] | None) -> dict[str, str]:
    """Return what a built notebook has otherwise: as given, else what suits a T4."""
    if words is None:
        known = notebook_parameters(notebook)
        return {name: value for name, value in ON_A_T4.items() if name in known}
    for word in words:
        if "=" not in word:
            raise BadValueError(f"--set {word!r}: give NAME=VALUE")
    return dict(word.partition("=")[::2] for word in words)


def main() -> int:
    """Read the words of the command line, build, and print what was built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--platform", choices=("kaggle", "colab"), default="kaggle")
    parser.add_argument("--notebook", default="kaggle_inference_validation", help="what it runs")
    parser.add_argument("--user", default="USER", help="your name on Kaggle, for the metadata")
    parser.add_argument("--out", type=Path, help="default: dist/PLATFORM")
    parser.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUE",
        help="the built notebook's default of a parameter; without any, what suits a T4",
    )
    words = parser.parse_args()
    out = words.out or ROOT / "dist" / words.platform
    try:
        notebook = find_notebook(words.notebook)
        defaults = defaults_of(notebook, words.set)
        payload = packaging.build_payload(ROOT)
        built = packaging.build_notebook(ROOT, words.platform, notebook, payload, out, defaults)
        print(built)
        if words.platform == "kaggle":
            packaging.write_metadata(ROOT, built, words.user)
            script = packaging.build_script(ROOT, payload, out.with_name(f"{out.name}-script"))
            packaging.write_metadata(ROOT, script, words.user, "shoestring-script")
            print(script)
    except ShoestringError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
