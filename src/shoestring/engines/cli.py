"""``shoestring doctor``: what this machine is, what it can run, and what would mend the rest."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

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
        lines.append(f"engine    {name}: {state}")
    return "\n".join(lines)
