"""``shoestring models``: which models there are, what is in them, and how to get one."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from shoestring.models.progress import MEGABYTE, ProgressBar

if TYPE_CHECKING:
    from shoestring.models.facts import ModelFacts


@click.group()
def models() -> None:
    """List, fetch and describe models.

    A model is named by one string: pypi:NAME (fetched from the package index and checked) or
    file:PATH (a GGUF file of yours).
    """


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_models(*, as_json: bool) -> None:
    """List the models that can be fetched, and which are here already.

    Example: shoestring models list
    """
    from shoestring.models.catalogue import CATALOGUE
    from shoestring.models.fetch import find_cached
    from shoestring.paths import cache_dir

    rows = []
    for model in CATALOGUE.values():
        path = find_cached(model, cache_dir())
        rows.append(
            {
                "name": f"pypi:{model.name}",
                "description": model.description,
                "cached": path is not None,
                "path": str(path) if path else None,
                "file_bytes": model.file_bytes,
                "download_bytes": model.download_bytes,
                "licence": model.licence,
            }
        )
    if as_json:
        click.echo(json.dumps({"models": rows}))
        return
    for row in rows:
        state = "here" if row["cached"] else "not fetched"
        megabytes = model.file_bytes / MEGABYTE
        click.echo(f"{row['name']}  {row['description']}  {megabytes:.0f} MB  {state}")


@models.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(model: str, *, as_json: bool) -> None:
    """Show what a model's own file says about it: layers, heads, types, bytes.

    Nothing is fetched: a pypi: model that is not here yet shows only what is known beforehand.

    Example: shoestring models show file:some-model.gguf
    """
    from shoestring.models.catalogue import CATALOGUE
    from shoestring.models.facts import read_facts
    from shoestring.models.fetch import find_cached
    from shoestring.models.names import parse_model_name
    from shoestring.paths import cache_dir

    name = parse_model_name(model)
    known = CATALOGUE[name.rest] if name.scheme == "pypi" else None
    path = find_cached(known, cache_dir()) if known else name.path
    facts = read_facts(path) if path else None
    if as_json:
        answer: dict[str, Any] = {"name": model, "path": str(path) if facts else None}
        answer |= {"licence": known.licence if known else None}
        click.echo(json.dumps(answer | {"facts": asdict(facts) if facts else None}))
    elif facts is None:
        assert known is not None
        click.echo(
            f"{model}: {known.description}, {known.file_bytes / MEGABYTE:.0f} MB, not fetched yet; "
            f"run: shoestring models get {model}"
        )
    else:
        _print_facts(facts)


@models.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def get(model: str, *, as_json: bool) -> None:
    """Fetch a model into the cache, check it, and print the path of its file.

    pip does the download, so its index, proxy and certificate settings hold. A model that is
    here already is only checked. SHOESTRING_CACHE names another cache folder.

    Example: shoestring models get pypi:gemma3-270m
    """
    from shoestring.models.fetch import resolve_model
    from shoestring.paths import cache_dir

    with ProgressBar(model) as bar:
        file = resolve_model(model, cache=cache_dir(), progress=bar.update)
    if as_json:
        click.echo(json.dumps(asdict(file) | {"path": str(file.path)}))
    else:
        click.echo(file.path)


def _print_facts(facts: ModelFacts) -> None:
    """Print one fact a line; a fact that the file does not state is a dash."""
    for key, value in asdict(facts).items():
        if isinstance(value, dict):
            for kind, count in value.items():
                click.echo(f"{'  ' + kind:<22}{count:>15,}")
            continue
        number = isinstance(value, int) and not isinstance(value, bool)
        shown = "-" if value is None else f"{value:,}" if number else str(value)
        click.echo(f"{key:<22}{shown:>15}")
