"""A real gateway in a process of its own, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.errors import EngineLostError
from shoestring.gateway.keys_file import DEFAULT_LIMITS, create_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from shoestring.gateway.keys import KeyLimits, Scope

COMMAND = (sys.executable, "-P", "-c", "from shoestring.cli import main; main()")
STOP_TIMEOUT_S = 60.0
LINE_TIMEOUT_S = 30.0
EVERYTHING: tuple[Scope, ...] = ("inference", "metrics", "dashboard", "admin")


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that takes requests.

    Attributes:
        url: without a path.
        key: opens everything.
        keys_file: more keys can be made in it.
        log: its lines of JSON.
        process: its own.
    """

    url: str
    key: str
    keys_file: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def headers(self) -> dict[str, str]:
        """What a request with the key carries."""
        return {"Authorization": f"Bearer {self.key}"}

    def lines(self) -> list[dict[str, Any]]:
        """Return what it has logged."""
        text = self.log.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def noted(self, request_id: str) -> dict[str, Any]:
        """Return the line of a request, which is written after its answer has gone out.

        Raises:
            EngineLostError: it is not written.
        """
        end_s = time.monotonic() + LINE_TIMEOUT_S
        while time.monotonic() < end_s:
            for line in self.lines():
                if line["event"] == "request" and line["request_id"] == request_id:
                    return line
        raise EngineLostError(f"no line of request {request_id} in {self.log}")

    def end(self) -> int:
        """Let it drain, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def running_gateway(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    keys_file: Path | None = None,
    limits: KeyLimits = DEFAULT_LIMITS,
    scopes: Collection[Scope] = EVERYTHING,
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningGateway]:
    """Start a gateway on a free loopback port, and end it with the block.

    Args:
        folder: gets its settings, keys and log.
        settings: as in its TOML file; host, port and the file of keys are added.
        keys_file: of several replicas; by default its own.
        limits: of the key that opens everything.
        scopes: of that key.
        environment: more variables.

    Raises:
        EngineLostError: it did not start; the message holds what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys_file = keys_file or folder / "keys.json"
    _, key = create_key(keys_file, "everything", scopes=scopes, limits=limits)
    server = {"host": "127.0.0.1", "port": 0, **settings.get("server", {})}
    config = folder / "gateway.toml"
    config.write_text(
        toml_text({**settings, "server": server, "keys": {"file": str(keys_file)}}), "utf-8"
    )
    log = folder / "gateway.log"
    with (
        log.open("wb") as said,
        subprocess.Popen(
            [*COMMAND, "serve", "--config", str(config), "--json"],
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, **(environment or {})},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise EngineLostError(f"the gateway did not start: {log.read_text('utf-8')[-500:]}")
            yield RunningGateway(json.loads(line)["base_url"], key, keys_file, log, process)
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def toml_text(settings: Mapping[str, Any]) -> str:
    """Write settings as TOML: each part on one line, as JSON writes values (TOML reads the same).

    Nothing may be None.
    """
    return "".join(f"{json.dumps(name)} = {_value(part)}\n" for name, part in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
