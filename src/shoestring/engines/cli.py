"""``shoestring doctor`` and ``shoestring engines``.

What this machine is, what it can run, and what would mend the rest; and the mending itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.engines.install.pins import Pin

GIB = 2**30


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def doctor(*, as_json: bool) -> None:
    """Show this machine, the engines found, and the command that mends what is missing.

    Nothing is changed and nothing is fetched.
    """
    from shoestring.engines.discovery import find_engines
    from shoestring.hardware.machine import describe_machine

    found = {name: asdict(engine) for name, engine in find_engines().items()}
    diagnosis = {**describe_machine(), "engines": found}
    click.echo(json.dumps(diagnosis) if as_json else _text(diagnosis))


def _text(diagnosis: dict[str, Any]) -> str:
    cpu = diagnosis["cpu"]
    memory_bytes = diagnosis["memory_bytes"]
    lines = [
        f"platform  {diagnosis['platform']}, {diagnosis['os']}",
        f"cpu       {cpu['model']}, {cpu['cores_logical']} cores, {' '.join(cpu['flags'])}",
        "memory    " + (f"{memory_bytes / GIB:.1f} GiB" if memory_bytes else "unknown"),
    ]
    lines += [
        f"gpu       {gpu['name']}, {gpu['vram_bytes'] / GIB:.1f} GiB" for gpu in diagnosis["gpus"]
    ]
    if not diagnosis["gpus"]:
        reason = diagnosis.get("gpus_unavailable")
        lines.append("gpu       none" + (f" ({reason})" if reason else ""))
    for name, engine in diagnosis["engines"].items():
        state = engine["version"] or "ready" if engine["found"] else f"missing: {engine['mend']}"
        place = f" ({engine['path']})" if engine["found"] and engine["path"] else ""
        lines.append(f"engine    {name}: {state}{place}")
    return "\n".join(lines)


@click.group()
def engines() -> None:
    """Install the real engines into the cache, pinned by version and hash; list them."""


@engines.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--from-source", is_flag=True, help="Build it; do not ask the vendor for a release.")
def install(*, names: tuple[str, ...], from_source: bool) -> None:
    """Install engines (all without NAME), by name or by one of their programs.

    The vendor's release comes first, the pinned source else. What is there and whole stays.
    Prints the folder of each.
    """
    from shoestring.engines.install.installer import install_engine
    from shoestring.engines.install.pins import find_pin, load_pins
    from shoestring.models.fetch import say_on_stderr
    from shoestring.paths import cache_dir

    cache = cache_dir()
    wanted = {pin.name: pin for pin in map(find_pin, names or load_pins())}  # all names, first
    for pin in wanted.values():
        install_engine(pin, cache, say=say_on_stderr, from_source=from_source)
        click.echo(pin.folder(cache))


@engines.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def list_engines(*, as_json: bool) -> None:
    """Show the pinned engines, and how each came onto this machine."""
    from shoestring.engines.install.pins import load_pins
    from shoestring.paths import cache_dir

    cache = cache_dir()
    states = {pin.name: _state(pin, cache) for pin in load_pins().values()}
    if as_json:
        click.echo(json.dumps({"engines": states}))
        return
    for name, state in states.items():
        came = f"{state['how']}, {state['installed_at']}" if state["how"] else "made by hand"
        mend = f"missing: shoestring engines install {name}"
        place = f"{came}, {state['folder']}" if state["installed"] else mend
        click.echo(f"{name} {state['version']}: {place}")


def _state(pin: Pin, cache: Path) -> dict[str, Any]:
    from shoestring.engines.install.marker import read_marker

    folder = pin.folder(cache)
    marker = read_marker(folder)
    return {
        "version": pin.version,
        "installed": all((folder / path).is_file() for path in pin.programs),
        "how": marker.how if marker else None,
        "source": marker.source if marker else None,
        "installed_at": marker.installed_at if marker else None,
        "folder": str(folder),
        "programs": list(pin.programs),
    }
