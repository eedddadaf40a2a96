"""Build the notebook that runs on Kaggle or Colab by itself: ``dist/kaggle/``, ``dist/colab/``."""  # noqa: INP001 - a script

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shoestring.errors import ShoestringError
from shoestring.report.notebook import find_notebook
from shoestring.stack import packaging

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Read the words of the command line, build, and print what was built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--platform", choices=("kaggle", "colab"), default="kaggle")
    parser.add_argument("--notebook", default="kaggle_inference_validation", help="what it runs")
    parser.add_argument("--user", default="USER", help="your name on Kaggle, for the metadata")
    parser.add_argument("--out", type=Path, help="default: dist/PLATFORM")
    words = parser.parse_args()
    out = words.out or ROOT / "dist" / words.platform
    try:
        notebook = find_notebook(words.notebook)
        payload = packaging.build_payload(ROOT)
        built = packaging.build_notebook(ROOT, words.platform, notebook, payload, out)
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
