"""``shoestring run``: measure a model with a suite."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from shoestring.measure.records import Run

EXAMPLES = """\b
Examples:
  shoestring run smoke
  shoestring run chat --model file:model.gguf
  shoestring run concurrency --base-url http://127.0.0.1:8000 --model my-model
  shoestring run chat --engine embedded,llama-server,ollama   (in turn, block by block)
Then: shoestring report PATH, which the last line of the output names.
"""


@click.command(epilog=EXAMPLES)
@click.argument("suite")
@click.option(
    "--model",
    default="pypi:gemma3-270m",
    show_default=True,
    help="pypi:NAME, file:PATH.gguf, hf:OWNER/REPO/FILE.gguf, ollama:NAME, shape:NAME:QUANT; "
    "with --base-url the server's own id.",
)
@click.option(
    "--engine",
    default="auto",
    show_default=True,
    help="embedded, ollama, llama-server, koboldcpp, openai; several with commas are compared. "
    "auto: ollama for ollama: models, the server at --base-url, else embedded.",
)
@click.option("--base-url", help="A server that runs already: http://HOST:PORT.")
@click.option("--concurrency", type=click.IntRange(1, 1024), help="Use this one in every case.")
@click.option("--requests", type=click.IntRange(1, 100_000), help="Send so many in all.")
@click.option(
    "--deadline",
    help="End so long after the first measured request, to be resumed: 90s, 30m, 8h.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results/local"),
    show_default=True,
    help="The folder that gets the run's folder; with --resume it may be the run itself.",
)
@click.option("--resume", is_flag=True, help="Go on with the newest cut run of the same kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def run(
    suite: str,
    *,
    model: str,
    engine: str,
    base_url: str | None,
    concurrency: int | None,
    requests: int | None,
    deadline: str | None,
    out: Path,
    resume: bool,
    as_json: bool,
) -> None:
    """Measure a model with SUITE and keep every raw event of it.

    SUITE is smoke (a minute or two), chat, code, structured, multi-turn, rag, reasoning,
    long-context, concurrency, open-loop, cold-start, predictability, large (for models that are
    slow here), or the path of a TOML file.
    The record goes into a folder of its own; a run that was cut goes on with --resume.
    A server's key is read from SHOESTRING_API_KEY and kept nowhere.
    """
    from shoestring.measure.runner import run_engines

    if not suite.strip():
        raise BadValueError("the suite's name is empty: give smoke, or the path of a TOML file")
    runs = run_engines(
        suite,
        [name.strip() for name in engine.split(",")],
        model=model,
        base_url=base_url,
        out=out,
        resume=resume,
        concurrency=concurrency,
        requests=requests,
        deadline_s=_seconds(deadline) if deadline is not None else None,
    )
    if as_json:
        told = [_describe(done) for done in runs]
        click.echo(json.dumps(told[0] if len(told) == 1 else {"runs": told}))
        return
    for done in runs:
        click.echo(_floor(done.sessions[-1]["calibration"]), err=True)
        if not done.complete:
            click.echo(f"incomplete: {done.incomplete_reason}; go on with --resume", err=True)
        click.echo(str(done.path))


def _describe(run: Run) -> dict[str, str]:
    status = "complete" if run.complete else "incomplete"
    return {"run_id": run.run_id, "path": str(run.path), "status": status}


def _seconds(text: str) -> float:
    """Read a duration: a number and s, m or h."""
    parts = re.fullmatch(r"(\d{1,7}(?:\.\d+)?)([smh])", text)
    if parts is None or not float(parts[1]):
        raise BadValueError(f"--deadline {text!r} is no duration: give 90s, 30m or 8h")
    return float(parts[1]) * {"s": 1, "m": 60, "h": 3600}[parts[2]]


def _floor(calibration: dict[str, float | None] | None) -> str:
    """Say how far this session's clock can be trusted."""
    if calibration is None:
        return "this session was not calibrated"
    ttft_s, gap_s = calibration["ttft_error_s"], calibration["gap_error_p99_s"]
    text = f"clock floor of this session: TTFT {(ttft_s or 0) * 1e3:.2f} ms"
    return text if gap_s is None else f"{text}, gaps {gap_s * 1e3:.2f} ms at p99"
