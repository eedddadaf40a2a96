"""What programs of this machine answer, as pages that look like a terminal.

Every page names the command or URL, the time and the machine, and holds what came, unchanged but
for line breaks in JSON. ``nvidia-smi.png`` is the output of the program ``nvidia-smi`` and of
nothing else; where that cannot be had there is ``host-hardware.png``, which says why.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from shoestring.engines.discovery import find_program
from shoestring.engines.launch import given_environment
from shoestring.engines.ollama_api import OllamaApi

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NVIDIA_SMI, HOST, OLLAMA = "nvidia-smi.png", "host-hardware.png", "ollama-running.png"
DESCRIBED = "the machine as shoestring doctor describes it"
TIMEOUT_S = 30.0
GIB = 1 << 30
MOST_MODELS = 20
"""Shown of a longer list; the rest is counted."""
STYLE = """
body { margin: 0; background: #eceef1; color: #1b1f24; font: 14px/20px "DejaVu Sans Mono",
       "Liberation Mono", Menlo, Consolas, monospace; }
header { padding: 20px 32px 14px; }
h1 { margin: 0 0 4px; font-size: 18px; line-height: 26px; }
header p { margin: 0; color: #4b5563; font-size: 13px; }
section { margin: 0 32px 16px; background: #fff; border: 1px solid #cfd4da; border-radius: 8px; }
h2 { margin: 0; padding: 8px 16px; border-bottom: 1px solid #e3e6ea; font-size: 14px;
     font-weight: 600; color: #1f4e8c; overflow-wrap: anywhere; }
pre { margin: 0; padding: 10px 16px; font: inherit; white-space: pre-wrap;
      overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Printed:
    """One command or URL, and what it answered."""

    asked: str
    answer: str


@dataclass(frozen=True)
class PrintedPage:
    """What becomes one picture.

    Attributes:
        file: name of the picture.
        what: it shows, one line.
        printed: the answers.
    """

    file: str
    what: str
    printed: tuple[Printed, ...]


def hardware_page(
    machine: Mapping[str, Any],
    *,
    which: Callable[[str], str | None] = shutil.which,
) -> PrintedPage:
    """Show the GPUs by ``nvidia-smi``; without a GPU, or without the program, the machine.

    Args:
        machine: as ``hardware.machine`` describes it.
        which: finds a program on PATH.
    """
    gpus = machine["gpus"]
    if not gpus:
        why = machine["gpus_unavailable"] or "NVML lists no GPU"
        return _host_page(machine, "The machine: no GPU", why)
    program = which("nvidia-smi")
    answer = None if program is None else _run((program,), {})
    if answer is None:
        why = "the program nvidia-smi is not here, or fails"
        return _host_page(machine, "The machine: not shown by nvidia-smi", why)
    names = ", ".join(gpu["name"] for gpu in gpus)
    return PrintedPage(
        NVIDIA_SMI,
        f"nvidia-smi on a machine with {names}",
        (Printed("$ nvidia-smi", answer.rstrip("\n")),),
    )


def ollama_page(url: str, model: str) -> PrintedPage:
    """Show what Ollama itself says: its version, the models that it has and those in memory.

    Args:
        url: ``http://HOST:PORT``.
        model: the node's, named in the caption.

    Raises:
        MissingError: it does not answer.
    """
    with OllamaApi(url) as api:
        printed = [
            Printed(f"GET {url}{path}", _json_lines(api.get(path)))
            for path in ("/api/version", "/api/tags", "/api/ps")
        ]
    program = find_program("ollama")
    listed = None if program is None else _run((str(program), "ps"), {"OLLAMA_HOST": url})
    if listed is not None:
        printed.append(Printed(f"$ OLLAMA_HOST={url} ollama ps", listed.rstrip()))
    return PrintedPage(OLLAMA, f"Ollama at {url} with {model}", tuple(printed))


def page_html(page: PrintedPage, machine: Mapping[str, Any], taken_utc: str) -> str:
    """Return the page: self-contained, nothing is fetched by it."""
    cpu = machine["cpu"]["model"] or "unknown CPU"
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    sections = "".join(
        f"<section><h2>{escape(one.asked)}</h2><pre>{escape(one.answer)}</pre></section>"
        for one in page.printed
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(page.what)}</title>'
        f"<style>{STYLE}</style><header><h1>{escape(page.what)}</h1>"
        f"<p>{escape(taken_utc)} · {escape(machine['platform'])} · {escape(cpu)} · "
        f"{escape(gpus)}</p></header>{sections}</html>"
    )


def _host_page(machine: Mapping[str, Any], what: str, why: str) -> PrintedPage:
    """Describe the machine in words; it must not look like another program's output."""
    cpu, memory = machine["cpu"], machine["memory_bytes"]
    usable = cpu["cores_usable"]
    gpus = [
        f"{gpu['name']}, {gpu['vram_bytes'] / GIB:.1f} GiB, driver {gpu['driver']}"
        for gpu in machine["gpus"]
    ]
    rows = {
        "platform": machine["platform"],
        "system": machine["os"],
        "processor": cpu["model"],
        "cores": f"{_known(cpu['cores_physical'])} physical, "
        f"{_known(cpu['cores_logical'])} logical, {_known(usable and f'{usable:g}')} usable",
        "instructions": " ".join(cpu["flags"]),
        "memory": None if memory is None else f"{memory / GIB:.1f} GiB",
        "GPUs": "; ".join(gpus) or "none",
    }
    lines = "\n".join(f"{name:<14}{_known(value)}" for name, value in rows.items())
    note = f"This is not the output of nvidia-smi: {why}."
    return PrintedPage(HOST, what, (Printed(DESCRIBED, f"{lines}\n\n{note}"),))


def _known(value: Any) -> str:
    return "unknown" if value in (None, "") else str(value)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return what a program prints, or None where it cannot."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
            errors="replace", timeout=TIMEOUT_S, check=False,
            env={**given_environment(), **environment},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 and done.stdout.strip() else None


def _json_lines(said: dict[str, Any]) -> str:
    """Write an answer as JSON with each listed model on a line of its own."""
    models = said.get("models")
    if not isinstance(models, list) or not models:
        return json.dumps(said, ensure_ascii=False)
    rows = ",\n  ".join(json.dumps(one, ensure_ascii=False) for one in models[:MOST_MODELS])
    more = len(models) - MOST_MODELS
    left_out = f"\n  ... and {more} more" if more > 0 else ""
    return f'{{"models": [\n  {rows}{left_out}\n]}}'
