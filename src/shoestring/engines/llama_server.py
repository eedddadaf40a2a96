"""llama.cpp's own server: started on a loopback port behind a key, asked as OpenAI servers are.

The key goes by the environment, where other users cannot read it. Sources: the server's README
and ``--help`` (tools/server in llama.cpp); flags stand in :meth:`LlamaServerEngine.command` only.
"""

from __future__ import annotations

import secrets
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from shoestring.engines.discovery import find_program
from shoestring.engines.launch import Launched, free_port
from shoestring.engines.openai import Endpoint, OpenAIEngine
from shoestring.engines.protocol import Span
from shoestring.engines.transport import parse_base_url
from shoestring.errors import EngineLostError, MissingError
from shoestring.hardware.cores import usable_cores

if TYPE_CHECKING:
    from pathlib import Path

MEND = "shoestring engines install llama-server"


class LlamaServerEngine(OpenAIEngine):
    """A GGUF file served by llama-server in a process of its own.

    Args:
        path: the GGUF file.
        model_id: how the model is named in requests and records.
        context: tokens of context for each of ``parallel`` slots.
        parallel: how many requests are decoded at once.
        threads: compute threads; default: the cores that this process may use.
        gpu_layers: layers to put on GPUs; None leaves it to the server.
        endpoint: ``completions`` for a base model, ``chat`` for one with a chat template.
        log_path: where the server's own log goes; None drops it.
        load_timeout_s: longest time to wait for the model.
        program: the server; default: the one that is found.
    """

    name = "llama-server"
    health_path = "/health"

    def __init__(
        self,
        path: Path,
        model_id: str,
        *,
        context: int = 2048,
        parallel: int = 1,
        threads: int | None = None,
        gpu_layers: int | None = None,
        endpoint: Endpoint = "chat",
        log_path: Path | None = None,
        load_timeout_s: float = 600.0,
        program: Path | None = None,
    ) -> None:
        super().__init__(
            "http://127.0.0.1:9",  # nobody's, until the server is started
            model_id,
            endpoint=endpoint,
            api_key=secrets.token_urlsafe(32),
            fixed_length_field="ignore_eos",
        )
        self._path = path
        self._context = context
        self._parallel = parallel
        self._threads = threads or usable_cores()
        self._gpu_layers = gpu_layers
        self._log_path = log_path
        self._load_timeout_s = load_timeout_s
        self._given_program = program
        self._program: Path | None = None
        self._launched: Launched | None = None
        self._spans: list[Span] = []

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        launched = self._launched
        return launched.pid if launched is not None else None

    @property
    def options(self) -> dict[str, Any]:
        """Context, slots, threads, layers on GPUs and endpoint."""
        return {
            "context": self._context,
            "parallel": self._parallel,
            "threads": self._threads,
            "gpu_layers": self._gpu_layers,
            "endpoint": self.endpoint,
        }

    def command(self, program: Path, port: int) -> list[str]:
        """Return the command line that starts the server."""
        words = [
            str(program), "--model", str(self._path), "--alias", self.model_id,
            "--host", "127.0.0.1", "--port", str(port),
            # llama.cpp shares one context among its slots.
            "--ctx-size", str(self._context * self._parallel),
            "--parallel", str(self._parallel), "--threads", str(self._threads),
            "--no-webui", "--offline",
        ]  # fmt: skip
        if self._gpu_layers is not None:
            words += ["--n-gpu-layers", str(self._gpu_layers)]
        return words

    def start(self) -> None:
        """Find the program; the process comes with the model, in :meth:`load`.

        Raises:
            MissingError: llama-server is not installed.
        """
        self._program = self._given_program or find_program("llama-server")
        if self._program is None:
            raise MissingError(f"engine llama-server is not installed: {MEND}")

    def load(self) -> None:
        """Start the server on a free port and wait until it can answer.

        Raises:
            EngineLostError: it died or did not load in time; says where its log is.
        """
        assert self._program is not None, "start comes first"
        port = free_port()
        begun_s = time.monotonic()
        self._launched = Launched(
            "llama-server",
            self.command(self._program, port),
            environment={"LLAMA_API_KEY": str(self._api_key)},
            log_path=self._log_path,
        )
        self._address = parse_base_url(f"http://127.0.0.1:{port}")
        try:
            self._launched.wait_until(self.healthy, self._load_timeout_s)
        except EngineLostError:
            self.unload()
            raise
        # One step: the server listens before it has the model, but says nothing in between.
        self._spans = [Span("load model", 0.0, time.monotonic() - begun_s)]

    def unload(self) -> None:
        """End the server, which gives the model's memory back; :meth:`load` starts it again."""
        launched, self._launched = self._launched, None
        if launched is not None:
            launched.stop()

    def stop(self) -> None:
        """End the server."""
        super().stop()
        self.unload()

    def spans(self) -> list[Span]:
        """Return the one step of the start: process and model."""
        return list(self._spans)

    def version(self) -> str | None:
        """Return the build that the server names in ``/props``."""
        said = self._ask("GET", "/props").parsed()
        build = said.get("build_info") if isinstance(said, dict) else None
        return f"llama-server {build}" if build else None

    def lost(self) -> str | None:
        """Say how the server died, once it has."""
        return self._launched.death() if self._launched is not None else None

    def slots(self) -> list[dict[str, Any]] | None:
        """Return the state of every slot, as the server's ``/slots`` tells; None where it does not.

        Raises:
            MissingError: the server does not answer.
        """
        reply = self._ask("GET", "/slots")
        said = reply.parsed()
        return said if reply.status == HTTPStatus.OK and isinstance(said, list) else None
