"""A GGUF file on a server that we start for it: on loopback, on a free port, behind a key.

The key goes by the environment, where other users cannot read it. Which flags a program takes is
known by its adapter alone, in :meth:`ServedEngine.command`.
"""

from __future__ import annotations

import secrets
import time
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from shoestring.engines.discovery import check_installed, find_program
from shoestring.engines.launch import NOBODYS_URL, Launched, start_on_free_port
from shoestring.engines.offload import Offload
from shoestring.engines.openai import Endpoint, OpenAIEngine
from shoestring.engines.protocol import Span
from shoestring.engines.transport import parse_base_url
from shoestring.errors import EngineLostError
from shoestring.hardware.cores import usable_cores

if TYPE_CHECKING:
    from pathlib import Path


class ServedEngine(OpenAIEngine):
    """A server of our own with one model, or a running one that is adopted.

    Args:
        path: the GGUF file; None adopts the server at ``base_url``.
        model_id: how the model is named in requests and records.
        base_url: of a server that runs already.
        fixed_length_field: as in :class:`OpenAIEngine`.
        context: tokens of context for each request.
        parallel: how many requests the server takes at once.
        offload: where the model's parts go; threads that are left open are the cores that this
            process may use.
        endpoint: ``completions`` for a base model, ``chat`` for one with a chat template.
        log_path: where the server's own log goes; None drops it.
        load_timeout_s: longest time to wait for the model.
    """

    key_variable: ClassVar[str]
    """By which environment variable the program takes its key."""

    def __init__(
        self,
        path: Path | None,
        model_id: str,
        *,
        base_url: str = NOBODYS_URL,
        fixed_length_field: str,
        context: int = 2048,
        parallel: int = 1,
        offload: Offload = Offload(),  # noqa: B008 - frozen
        endpoint: Endpoint = "chat",
        log_path: Path | None = None,
        load_timeout_s: float = 600.0,
    ) -> None:
        super().__init__(
            base_url,
            model_id,
            endpoint=endpoint,
            api_key=None if path is None else secrets.token_urlsafe(32),
            fixed_length_field=fixed_length_field,
        )
        self._path = path
        self._context = context
        self._parallel = parallel
        self._offload = replace(offload, threads=offload.threads or usable_cores())
        self._log_path = log_path
        self._load_timeout_s = load_timeout_s
        self._program: Path | None = None
        self._launched: Launched | None = None
        self._spans: list[Span] = []

    @property
    def pid(self) -> int | None:
        """Our own server's process id while it runs; None for an adopted one."""
        launched = self._launched  # read once: another thread may end it
        return launched.pid if launched is not None else None

    @property
    def options(self) -> dict[str, Any]:
        """The endpoint, and of our own server context, slots, threads and what a plan decided."""
        if self._path is None:
            return super().options
        return {
            "context": self._context,
            "parallel": self._parallel,
            "threads": self._offload.threads,
            "gpu_layers": self._offload.gpu_layers,
            **self._offload.decided(),
            **super().options,
        }

    @abstractmethod
    def command(self, program: Path, port: int) -> list[str]:
        """Return the command line that starts the server."""

    def start(self) -> None:
        """Find the program; the process comes with the model, in :meth:`load`.

        Raises:
            MissingError: it is not installed.
        """
        check_installed(self.name)
        self._program = find_program(self.name)

    def load(self) -> None:
        """Start the server on a free port and wait until it can answer.

        Raises:
            EngineLostError: it died or did not load in time; says where its log is.
        """
        begun_s = time.monotonic()
        start_on_free_port(self._load_on)
        # One step: what the server does before it answers is not told in between.
        self._spans = [Span("load model", 0.0, time.monotonic() - begun_s)]

    def unload(self) -> None:
        """End our own server, which gives the model's memory back; an adopted one keeps it."""
        launched, self._launched = self._launched, None
        if launched is not None:
            launched.stop()

    def stop(self) -> None:
        """End our own server; an adopted one goes on."""
        self.unload()

    def spans(self) -> list[Span]:
        """Return the one step of the start: process and model; none of an adopted server."""
        return list(self._spans)

    def lost(self) -> str | None:
        """Say how our own server died, once it has."""
        launched = self._launched
        return launched.death() if launched is not None else None

    def _load_on(self, port: int) -> None:
        assert self._program is not None, "start comes first"
        self._launched = Launched(
            self.name,
            self.command(self._program, port),
            environment={self.key_variable: str(self._api_key)},
            log_path=self._log_path,
        )
        self._address = parse_base_url(f"http://127.0.0.1:{port}")
        try:
            self._launched.wait_until(self.healthy, self._load_timeout_s)
        except EngineLostError:
            self.unload()
            raise
