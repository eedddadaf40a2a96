"""Load a running gateway, or any OpenAI-compatible server: TTFT, tokens a second, failures.

    python scripts/load_client.py --base-url http://127.0.0.1:8000 --key-file key.txt --model M

It is `shoestring run` with a suite of one case made from these words, and its report: one clock and
one set of formulas for every figure of the project (docs/metrics.md). The run stays in --out.
"""  # noqa: INP001 - a script

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.analysis.summary import summarise
from shoestring.engines.http_engine import API_KEY_VARIABLE
from shoestring.errors import BadValueError, ShoestringError
from shoestring.measure.runner import run_engines
from shoestring.measure.suite import MAX_REQUESTS
from shoestring.report.terminal import run_text

if TYPE_CHECKING:
    from shoestring.measure.records import Run

BLOCKS = 5
MAX_CONCURRENCY = 1024
SUITE = """\
name = "load-client"
description = "One kind of request, in five blocks."
blocks = {blocks}
seed = 1

[deadlines]
request_s = 600
stall_s = 120
suite_s = 86400

[[case]]
name = "chat"
prompt = "chat"
prompt_tokens = {prompt_tokens}
output_tokens = {max_tokens}
concurrency = {concurrency}
requests_per_block = {requests_per_block}
fixed_length = false
"""
"""An answer may end before its longest length: the server's model decides."""


def main() -> int:
    """Load, and show what came of it."""
    given = parse_words()
    try:
        run = load(given)
        figures = summarise(run)
    except ShoestringError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    if given.json:
        print(json.dumps({"path": str(run.path), **figures}))
    else:
        print(run_text(run, figures))
        failures = ", ".join(f"{count} {reason}" for reason, count in figures["failures"].items())
        print(f"failures: {failures or 'none'}\nrun: {run.path}")
    return 0 if run.complete else 1


def parse_words() -> argparse.Namespace:
    """Read the words of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", required=True, help="http://HOST:PORT")
    parser.add_argument("--key-file", type=Path, help="its first line is the key; default: none")
    parser.add_argument("--model", required=True, help="as the server names it")
    parser.add_argument("--concurrency", type=int, default=8, help="requests in flight")
    parser.add_argument("--requests", type=int, default=100, help="in all; below 662 no p99")
    parser.add_argument("--max-tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("results/local"), help="gets the run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def load(given: argparse.Namespace) -> Run:
    """Run the suite and return its record.

    Raises:
        ShoestringError: a word cannot be used, or nobody answers.
    """
    for name, most in (("requests", MAX_REQUESTS), ("concurrency", MAX_CONCURRENCY)):
        count = getattr(given, name)
        if not 1 <= count <= most:
            raise BadValueError(f"--{name} {count}: give 1 to {most}")
    if given.key_file is not None:
        os.environ[API_KEY_VARIABLE] = read_key(given.key_file)
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "load-client.toml"
        suite.write_text(
            SUITE.format(
                blocks=BLOCKS,
                prompt_tokens=given.prompt_tokens,
                max_tokens=given.max_tokens,
                concurrency=given.concurrency,
                requests_per_block=-(-given.requests // BLOCKS),
            ),
            encoding="utf-8",
        )
        (run,) = run_engines(
            str(suite), ["openai"], model=given.model, base_url=given.base_url, out=given.out,
            requests=given.requests,
        )  # fmt: skip
    return run


def read_key(path: Path) -> str:
    """Return the key in a file, which is kept out of command lines and their history.

    Raises:
        BadValueError: there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise BadValueError(f"cannot read --key-file {path}: {error}") from error
    if len(lines) != 1:
        raise BadValueError(f"--key-file {path}: it has to hold one key and nothing else")
    return lines[0]


if __name__ == "__main__":
    sys.exit(main())
