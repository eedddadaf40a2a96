"""What the user wants of a node, and whether the node that is up is that one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.stack.node import OLLAMA, OPEN_WEBUI, read_wanted
from shoestring.stack.ollama_settings import CONTEXT_TOKENS, ollama_environment

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.stack.node import Node


@dataclass(frozen=True)
class Asked:
    """What the user wants of a node.

    Attributes:
        model: any name of :mod:`shoestring.models.names`.
        open_webui: whether Open WebUI is wanted.
        ollama_port: None: 11434 or the next free one.
        open_webui_port: None: 8080 or the next free one.
        context: tokens that our own Ollama makes room for.
        spread: use all GPUs for one model.
        allow_cpu: do not refuse a model that is on the CPU though there is a GPU.
        install: install what is missing.
        origins: pages beside its own that may speak to Open WebUI.
    """

    model: str
    open_webui: bool = True
    ollama_port: int | None = None
    open_webui_port: int | None = None
    context: int = CONTEXT_TOKENS
    spread: bool = False
    allow_cpu: bool = False
    install: bool = True
    origins: tuple[str, ...] = ()


def check_same(folder: Path, node: Node, asked: Asked) -> None:
    """Refuse to go on with a node that is another than the one asked for."""
    ports = {OLLAMA: asked.ollama_port, OPEN_WEBUI: asked.open_webui_port}
    for service in node.services:
        port = ports[service.name]
        if port is not None and not service.url.endswith(f":{port}"):
            raise BadValueError(
                f"{service.name} is up at {service.url}, not on port {port}: shoestring down first"
            )
    if asked.open_webui != (node.service(OPEN_WEBUI) is not None):
        without = "out" if asked.open_webui else ""
        raise BadValueError(f"the node is up with{without} Open WebUI: shoestring down first")
    wanted = read_wanted(folder)
    if wanted is None or wanted.origins != asked.origins:
        raise BadValueError("the node is up with other --origin: shoestring down first")
    wants = ollama_environment(
        wanted.ollama_url, store=None, context=asked.context, spread=asked.spread
    )
    has = {**wanted.ollama_environment}
    has.pop("OLLAMA_MODELS", None)
    if not wanted.ollama_adopted and has != wants:
        raise BadValueError(
            "the node's Ollama is up with another --context or --spread: shoestring down first"
        )
