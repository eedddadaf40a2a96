"""``shoestring up``, ``status`` and ``down``: the node of Ollama and Open WebUI."""

from __future__ import annotations

import json
import shlex
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from types import FrameType

    from shoestring.stack.node import Service
    from shoestring.stack.readiness import Ready

PORT = click.IntRange(1, 65_535)
EXAMPLES = """\b
Examples:
  shoestring up                                  the small real model, for a first look
  shoestring up --model ollama:qwen3:8b          pulled by Ollama, on the GPU if there is one
  shoestring run smoke --model ollama:qwen3:8b   measures the node that is up
  shoestring down
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--model",
    default="pypi:gemma3-270m",
    show_default=True,
    help="ollama:NAME, pypi:NAME, file:PATH.gguf, hf:OWNER/REPO/FILE.gguf, shape:NAME:QUANT.",
)
@click.option("--webui/--no-webui", default=True, help="With Open WebUI (default) or without.")
@click.option("--ollama-port", type=PORT, help="Of our own Ollama.  [default: 11434 or next free]")
@click.option("--webui-port", type=PORT, help="Of Open WebUI.  [default: 8080 or next free]")
@click.option(
    "--context",
    type=click.IntRange(256, 1_048_576),
    default=4096,  # stack.ollama_settings.CONTEXT_TOKENS; a test holds the two together
    show_default=True,
    help="Tokens that our own Ollama makes room for.",
)
@click.option("--spread", is_flag=True, help="Use all GPUs for one model, also if it fits on one.")
@click.option("--allow-cpu", is_flag=True, help="Go on though a GPU is here and left unused.")
@click.option("--install/--no-install", default=True, help="Install what is missing (default).")
@click.option("--origin", multiple=True, help="A page that may speak to Open WebUI, too.")
@click.option("--foreground", is_flag=True, help="Stay until Ctrl-C or SIGTERM, then take it down.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def up(*, foreground: bool, as_json: bool, **asked: Any) -> None:
    """Bring up Ollama and Open WebUI on loopback, wait until the model answers, and keep them up.

    What is missing is installed into the cache, pinned and checked. An Ollama that runs already is
    used and left as it is. Sign-up is closed; the administrator's password is made at random.
    Called again, it sees that the node is up, and brings another model if another is asked for.
    """
    from shoestring.models.fetch import say_on_stderr
    from shoestring.stack.asked import Asked
    from shoestring.stack.bringing_up import bring_up
    from shoestring.stack.node import node_folder

    wanted = Asked(
        model=asked["model"],
        open_webui=asked["webui"],
        ollama_port=asked["ollama_port"],
        open_webui_port=asked["webui_port"],
        context=asked["context"],
        spread=asked["spread"],
        allow_cpu=asked["allow_cpu"],
        install=asked["install"],
        origins=asked["origin"],
    )
    folder = node_folder()
    if foreground:
        signal.signal(signal.SIGTERM, _interrupt)
    ready = bring_up(wanted, folder, say_on_stderr)
    click.echo(json.dumps(ready.to_json()) if as_json else _ready_text(ready))
    if foreground:
        _stay(folder)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def status(*, as_json: bool) -> None:
    """Show the node: what runs, since when, how often it was started again."""
    from shoestring.stack.node import node_folder, read_node

    folder = node_folder()
    node = read_node(folder)
    if as_json:
        services = [asdict(one) for one in node.services] if node is not None else []
        ready = bool(services) and all(one["state"] == "ready" for one in services)
        word = "down" if node is None else "ready" if ready else "not ready"
        click.echo(json.dumps({"status": word, "folder": str(folder), "services": services}))
        return
    if node is None:
        click.echo("no node is up: shoestring up")
        return
    click.echo(f"up since {node.started_utc}, supervised by process {node.supervisor_pid}")
    for service in node.services:
        click.echo(_service_text(service))
    click.echo(f"logs and events: {folder}")


@click.command()
def down() -> None:
    """End what ``up`` started; an Ollama that ran before goes on."""
    from shoestring.models.fetch import say_on_stderr
    from shoestring.stack.node import node_folder
    from shoestring.stack.taking_down import take_down

    was_up = take_down(node_folder(), say_on_stderr)
    click.echo("down" if was_up else "no node was up")


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("screenshots"),
    show_default=True,
    help="The folder of the pictures and of index.json.",
)
@click.option("--prompt", help="What is typed into the page.")
@click.option("--run", help="The id of the run that was measured on this node, for index.json.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def screenshots(*, out: Path, prompt: str | None, run: str | None, as_json: bool) -> None:
    """Take the pictures that prove a node: hardware, Ollama, the page, an answer in the page.

    The node must be up. A real Chromium signs in, types the prompt and waits for the answer; it
    reaches nothing but the node. Without a GPU there is a picture of the hardware instead of
    nvidia-smi.
    """
    from shoestring.errors import MissingError
    from shoestring.models.fetch import say_on_stderr
    from shoestring.stack.credentials import read_credentials
    from shoestring.stack.node import OLLAMA, OPEN_WEBUI, node_folder, read_node, read_wanted
    from shoestring.stack.screenshots import PROMPT, Pictured, take_screenshots

    folder = node_folder()
    node, wanted = read_node(folder), read_wanted(folder)
    ollama = node.service(OLLAMA) if node is not None else None
    if node is None or ollama is None or wanted is None or wanted.model is None:
        raise MissingError("no node is up: shoestring up")
    page = node.service(OPEN_WEBUI)
    pictured = Pictured(
        ollama.url, page.url if page is not None else None, wanted.model, read_credentials(folder)
    )
    words = [f"--{name}={value}" for name, value in (("prompt", prompt), ("run", run)) if value]
    command = shlex.join(["shoestring", "screenshots", *words])
    taken = take_screenshots(
        out,
        pictured,
        command=command,
        prompt=PROMPT if prompt is None else prompt,
        run=run,
        say=say_on_stderr,
    )
    if as_json:
        click.echo(json.dumps({"folder": str(out), "screenshots": [asdict(one) for one in taken]}))
        return
    for one in taken:
        click.echo(str(out / one.file))


def _ready_text(ready: Ready) -> str:
    from shoestring.stack.bringing_up import OLLAMA_PORT

    said = ready.to_json()
    ollama, page = said["ollama"], said["open_webui"]
    lines = [
        f"ollama      {ollama['url']}  (version {ollama['version']}"
        + (", ran already)" if ollama["adopted"] else ")"),
        f"model       {said['model']['name']}  ({said['gpu']['why']})",
    ]
    if page is not None:
        lines += [
            f"open webui  {page['url']}  (version {page['version']})",
            f"sign in     {page['user']}, password in {page['password_file']}",
        ]
    usual = ollama["url"] == f"http://127.0.0.1:{OLLAMA_PORT}"
    lines.append(
        f"measure it  shoestring run smoke --model ollama:{said['model']['name']}"
        + ("" if usual else f" --base-url {ollama['url']} --engine ollama")
    )
    longest = max(ready.cold_start, key=lambda span: span.end_s - span.start_s)
    lines.append(
        f"ready       after {max(span.end_s for span in ready.cold_start):.1f} s, most of them: "
        f"{longest.name} ({longest.end_s - longest.start_s:.1f} s)"
    )
    return "\n".join(lines)


def _service_text(service: Service) -> str:
    text = f"{service.name:<10}  {service.state:<8}  {service.url}"
    if service.adopted:
        return f"{text}  (ran already)"
    text += f"  process {service.pid}" if service.pid is not None else ""
    if service.restarts:
        text += f"  started again {service.restarts} times, last because: {service.problem}"
    return text


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Let SIGTERM end what is under way as Ctrl-C does, so that what was started is ended."""
    raise KeyboardInterrupt


def _stay(folder: Path) -> None:
    """Wait for a signal, or for the supervisor's end; then take the node down."""
    from shoestring.errors import ShoestringError
    from shoestring.models.fetch import say_on_stderr
    from shoestring.stack.node import is_supervised
    from shoestring.stack.taking_down import take_down

    pause = threading.Event()
    try:
        while is_supervised(folder):
            pause.wait(1.0)
    except KeyboardInterrupt:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # it is being taken down already
        take_down(folder, say_on_stderr)
        return
    raise ShoestringError(f"the supervisor is gone; its logs are in {folder}")
