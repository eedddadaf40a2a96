"""A plan as commands to paste into a shell, of the words with which our own runs start engines."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.engines.koboldcpp import kobold_words
from shoestring.engines.llama_server import server_words
from shoestring.engines.ollama_modelfile import ollama_lines
from shoestring.engines.opening import OLLAMA_SCHEME
from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.engines.offload import Offload

PLACEHOLDER = "MODEL.gguf"
"""Stands for a file that only Ollama's store holds."""
LLAMA_SERVER_PORT, KOBOLDCPP_PORT, OLLAMA_PORT, WEBUI_PORT = 8080, 5001, 11434, 3000


@dataclass(frozen=True)
class LaunchModel:
    """What shall be launched.

    Attributes:
        path_or_name: of a GGUF file, or ``ollama:NAME``.
        context: tokens of context for each request.
        parallel: how many requests the server takes at once.

    Raises:
        BadValueError: a value cannot be used; names it.
    """

    path_or_name: str
    context: int
    parallel: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        name = self.path_or_name
        if not name or not name.isprintable():
            raise BadValueError(f"model {name!r} cannot stand in a command: give printable text")
        for what in ("context", "parallel"):
            if getattr(self, what) < 1:
                raise BadValueError(f"{what} {getattr(self, what)}: give 1 or more")

    @property
    def file(self) -> str:
        """Path of the file for engines that read one."""
        return PLACEHOLDER if self.path_or_name.startswith(OLLAMA_SCHEME) else self.path_or_name

    @property
    def source(self) -> str:
        """What a Modelfile begins with."""
        return self.path_or_name.removeprefix(OLLAMA_SCHEME)


def launch_lines(model: LaunchModel, offload: Offload) -> dict[str, str]:
    """Return what starts the model in each engine, and Open WebUI before it.

    An engine that cannot be told what the offload says has a line of comment that says what.

    Args:
        model: what shall be launched.
        offload: where its parts go.
    """
    sizes = {"context": model.context, "parallel": model.parallel, "offload": offload}
    server = ("llama-server", model.file, LLAMA_SERVER_PORT)
    kobold = ("koboldcpp", model.file, KOBOLDCPP_PORT)
    return {
        "llama-server": _spell(server_words, *server, **sizes),
        "ollama": _spell(ollama_lines, model.source, **sizes),
        "koboldcpp": _spell(kobold_words, *kobold, **sizes),
        "open-webui": open_webui_line(),
    }


def open_webui_line() -> str:
    """Return what starts Open WebUI before an Ollama and a llama-server of these lines.

    Its own port would be llama-server's, and it would listen on every address.
    """
    variables = {
        "OLLAMA_BASE_URL": f"http://127.0.0.1:{OLLAMA_PORT}",
        "OPENAI_API_BASE_URL": f"http://127.0.0.1:{LLAMA_SERVER_PORT}/v1",
    }
    words = [f"{name}={url}" for name, url in variables.items()]
    return " ".join([*words, f"open-webui serve --host 127.0.0.1 --port {WEBUI_PORT}"])


def _spell(make: Callable[..., str | list[str]], *given: object, **sizes: object) -> str:
    try:
        made = make(*given, **sizes)
    except BadValueError as error:
        return f"# {error}"
    return made if isinstance(made, str) else shlex.join(made)
