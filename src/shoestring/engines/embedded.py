"""The embedded engine: llama.cpp from the xllamacpp wheel, in a process of its own.

It is the OpenAI-compatible adapter with a launcher: a child process loads the model and serves it
on a random loopback port, behind a key that only this harness knows. A crash or an out-of-memory
kill there cannot take the harness along, and the child ends when the harness does, even by
SIGKILL, because it watches the pipe between the two.
"""

from __future__ import annotations

import importlib.metadata
import json
import secrets
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from shoestring.engines.discovery import check_installed
from shoestring.engines.launch import NOBODYS_URL, given_environment
from shoestring.engines.offload import Offload, check_split
from shoestring.engines.openai import Endpoint, OpenAIEngine
from shoestring.engines.protocol import Span
from shoestring.engines.transport import parse_base_url
from shoestring.errors import BadValueError, EngineLostError, ShoestringError
from shoestring.hardware.cores import usable_cores

if TYPE_CHECKING:
    from pathlib import Path

STOP_WAIT_S = 5.0
LOG_TAIL_BYTES = 4_096


class EmbeddedEngine(OpenAIEngine):
    """A GGUF file served by llama.cpp inside a child process.

    Args:
        path: the GGUF file.
        model_id: how the model is named in requests and records.
        context: tokens of context for each of ``parallel`` slots.
        parallel: how many requests are decoded at once.
        offload: where the model's parts go; threads that are left open are the cores that this
            process may use.
        endpoint: ``completions`` for a base model, ``chat`` for one with a chat template.
        log_path: where the engine's own log goes; None drops it.
        load_timeout_s: longest time to wait for the model.

    Raises:
        BadValueError: the offload names devices or RPC servers, which xllamacpp cannot be told, or
            more devices than llama.cpp takes.
    """

    name = "embedded"
    health_path = "/health"

    def __init__(
        self,
        path: Path,
        model_id: str,
        *,
        context: int = 2048,
        parallel: int = 1,
        offload: Offload = Offload(),  # noqa: B008 - frozen
        endpoint: Endpoint = "chat",
        log_path: Path | None = None,
        load_timeout_s: float = 600.0,
    ) -> None:
        super().__init__(
            NOBODYS_URL,
            model_id,
            endpoint=endpoint,
            api_key=secrets.token_urlsafe(32),
            fixed_length_field="ignore_eos",
        )
        if offload.devices or offload.rpc or offload.output_in_ram:
            raise BadValueError(
                "embedded takes no device, rpc or output_in_ram: use --engine llama-server"
            )
        check_split(offload)
        self._path = path
        self._context = context
        self._parallel = parallel
        self._offload = replace(offload, threads=offload.threads or usable_cores())
        self._log_path = log_path
        self._load_timeout_s = load_timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._ended: str | None = None
        self._origin_s = 0.0
        self._spans: list[Span] = []

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        child = self._child  # read once: the sampler asks while another thread stops the engine
        return child.pid if child is not None else None

    @property
    def options(self) -> dict[str, Any]:
        """Context, slots, threads, what a plan decided, and the endpoint."""
        return {
            "context": self._context,
            "parallel": self._parallel,
            "threads": self._offload.threads,
            **self._offload.decided(),
            "endpoint": self.endpoint,
        }

    def start(self) -> None:
        """Start the child and wait until it has the library.

        Raises:
            MissingError: xllamacpp is not installed.
        """
        check_installed(self.name)
        self._origin_s = time.monotonic()
        self._spans, self._ended = [], None
        log = self._log_path.open("ab") if self._log_path is not None else None
        try:
            self._child = subprocess.Popen(
                # -P: what lies in the current folder is not imported.
                [sys.executable, "-P", "-m", "shoestring.engines.embedded_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log if log is not None else subprocess.DEVNULL,
                env=given_environment(),
                # Ctrl-C in the terminal is the harness's to handle: it ends the child in order.
                start_new_session=True,
            )
        finally:
            if log is not None:
                log.close()
        self._await("imported", "start process, import engine")

    def load(self) -> None:
        """Load the model in the child.

        Raises:
            ShoestringError: the child died or did not load in time; says where its log is.
        """
        config = {
            "model_path": str(self._path),
            "alias": self.model_id,
            "api_key": self._api_key,
            "context": self._context,
            "parallel": self._parallel,
            "offload": asdict(self._offload),
        }
        self._tell({"load": config})
        answer = self._await("loaded", "load model")
        self._address = parse_base_url(str(answer["base_url"]))

    def unload(self) -> None:
        """Have the child free the model; it can be loaded again."""
        self._tell({"unload": {}})
        self._await("unloaded", "unload model")

    def stop(self) -> None:
        """End the child: ask, then terminate, then kill."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):  # it is gone already, and what is in the pipe with it
            child.stdin.close()
        for end in (None, child.terminate, child.kill):
            if end is not None:
                end()
            try:
                child.wait(STOP_WAIT_S)
                break
            except subprocess.TimeoutExpired:
                continue
        child.stdout.close()

    def lost(self) -> str | None:
        """Say how the child died, once it has, as often as it is asked."""
        if self._child is not None and self._child.poll() is not None:
            self._ended = str(self._death("answer"))
        return self._ended

    def spans(self) -> list[Span]:
        """Return the steps of the start: process and import, then the model."""
        return list(self._spans)

    def version(self) -> str | None:
        """Return the version of the xllamacpp wheel."""
        return f"xllamacpp {importlib.metadata.version('xllamacpp')}"

    def _tell(self, command: dict[str, Any]) -> None:
        if self._child is None or self._child.stdin is None:
            raise ShoestringError("the embedded engine is not running: start it first")
        try:
            self._child.stdin.write(json.dumps(command).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError as error:
            raise self._death("take a command") from error

    def _await(self, state: str, step: str) -> dict[str, Any]:
        """Wait for the child to report a state, and note the step's time."""
        assert self._child is not None
        assert self._child.stdout is not None
        begun_s = time.monotonic()
        readable, _, _ = select.select([self._child.stdout], [], [], self._load_timeout_s)
        line = self._child.stdout.readline() if readable else b""
        if not readable:
            self.stop()
            raise EngineLostError(
                f"the embedded engine did not {step} within {self._load_timeout_s:g} s: "
                "take a smaller model, or a machine with more memory" + self._where_log()
            )
        if not line:
            raise self._death(step)
        answer: dict[str, Any] = json.loads(line)
        if answer.get("state") != state:
            self.stop()
            raise EngineLostError(
                f"the embedded engine could not {step}: {answer.get('error')}" + self._where_log()
            )
        ended_s = time.monotonic()
        self._spans.append(Span(step, begun_s - self._origin_s, ended_s - self._origin_s))
        return answer

    def _death(self, step: str) -> EngineLostError:
        assert self._child is not None
        status = self._child.wait()
        self.stop()
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        if status == -signal.SIGKILL:
            how += " (out of memory? take a smaller model or less context)"
        return EngineLostError(
            f"the embedded engine died {how} before it could {step}{self._where_log()}"
        )

    def _where_log(self) -> str:
        return f"; its log is {self._log_path}" if self._log_path else ""
