"""Full deployment script: Ollama and Open WebUI on one free GPU node, measured, packed, taken down.

Every step is a command of the package; nothing but its order is decided here.
On Kaggle use the copy that ``make kaggle`` writes, which has the package in it (see
``deployment/kaggle/README.md``). Elsewhere, with the package installed: ``python
deployment/kaggle_ollama_webui.py``. The settings below are read from the environment first.
"""  # noqa: INP001 - a script

import json
import os
import subprocess
import sys

MODEL = os.environ.get("MODEL", "ollama:qwen2.5:7b")  # any name of `shoestring models`
SUITE = os.environ.get("SUITE", "smoke")  # of `shoestring run --help`, or a TOML file
OUT = os.environ.get("OUT", "results/local")  # on Kaggle below /kaggle/working, which is kept
BUNDLES = os.environ.get("BUNDLES", "shoestring-bundles")  # of runs, for the next session to resume


def shoestring(*words: str) -> str:
    """Run a command of the package and return what it prints; it ends here if it fails."""
    print("shoestring", *words, file=sys.stderr, flush=True)
    return subprocess.run(
        ("shoestring", *words), stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main() -> None:
    """Bring the node up, measure it, pack it as it goes, make the report, take the node down."""
    node = json.loads(shoestring("up", "--model", MODEL, "--json"))
    print(json.dumps(node, indent=2))
    try:
        measured = json.loads(
            shoestring(
                "run", SUITE, "--engine", "ollama", "--base-url", node["ollama"]["url"],
                "--model", f"ollama:{node['model']['name']}", "--out", OUT, "--bundles", BUNDLES,
                "--resume", "--json",
            )
        )  # fmt: skip
        print(shoestring("report", measured["path"], "--html", "report.html"))
    finally:
        print(shoestring("down"))


if __name__ == "__main__":
    main()
