"""A node of a campaign's own: its folder, its ports, its commands, and what of it still runs.

It is brought up and taken down by ``shoestring up`` and ``down`` in processes of their own, as its
users do, so what they wait for is what is timed: the start of the program too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import requests

from shoestring.engines.launch import free_port
from shoestring.errors import ShoestringError
from shoestring.paths import cache_dir
from shoestring.stack.credentials import read_credentials
from shoestring.stack.node import OLLAMA, OPEN_WEBUI, read_node
from shoestring.stack.open_webui.client import TIMEOUT_S, OpenWebUi

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITE = "node"
MODEL = "pypi:gemma3-270m"
SHOESTRING = (sys.executable, "-P", "-c", "from shoestring.cli import main; main()")
SUPERVISOR = "shoestring.stack.supervisor"
PROGRAMS = {"ollama", "llama-server", "open-webui", "guard.py"}
SHOWN = 300
"""Characters of what a command said last, in an error."""


@dataclass(frozen=True)
class Place:
    """Where a node lives.

    Attributes:
        state: gets the node's folder.
        cache: of models, engines and Open WebUI.
        environment: variables beside our own.
        model: that the node serves.
    """

    state: Path
    cache: Path = field(default_factory=cache_dir)
    environment: tuple[tuple[str, str], ...] = ()
    model: str = MODEL
    ollama_port: int = field(default_factory=free_port)
    webui_port: int = field(default_factory=free_port)

    @property
    def folder(self) -> Path:
        """The node's."""
        return self.state / "node"

    @property
    def ollama_url(self) -> str:
        """Where its Ollama is."""
        return f"http://127.0.0.1:{self.ollama_port}"

    @property
    def webui_url(self) -> str:
        """Where its Open WebUI is."""
        return f"http://127.0.0.1:{self.webui_port}"

    @property
    def variables(self) -> dict[str, str]:
        """All that its commands get."""
        ours = {"SHOESTRING_STATE": str(self.state), "SHOESTRING_CACHE": str(self.cache)}
        return os.environ | ours | dict(self.environment)


@dataclass(frozen=True)
class Up:
    """What one ``shoestring up`` said, and how long it took.

    Attributes:
        said: its JSON.
        command_s: wall time of the command, the start of the program included.
    """

    said: dict[str, Any]
    command_s: float

    @property
    def spans(self) -> list[dict[str, Any]]:
        """The steps of this start."""
        return list(self.said["cold_start"])

    @property
    def model(self) -> str:
        """As ``shoestring run`` names it."""
        return f"ollama:{self.said['model']['name']}"

    @property
    def services_ready_s(self) -> float:
        """When the last service was ready, since the command began with the node."""
        ends = [one["end_s"] for one in self.spans if one["name"].startswith("start ")]
        return float(max(ends))

    @property
    def first_answer_s(self) -> float:
        """When the last step, an answer to a user, was done."""
        return float(max(one["end_s"] for one in self.spans))


def bring_up(place: Place, *, open_webui: bool = True) -> Up:
    """Run ``shoestring up`` to its end.

    Raises:
        ShoestringError: it failed; says what it said last.
    """
    begun_s = time.monotonic()
    said = _call(
        place, "up", "--json", "--model", place.model, "--webui" if open_webui else "--no-webui",
        "--ollama-port", str(place.ollama_port), "--webui-port", str(place.webui_port),
    )  # fmt: skip
    return Up(json.loads(said), time.monotonic() - begun_s)


def take_down(place: Place) -> None:
    """Run ``shoestring down`` to its end.

    Raises:
        ShoestringError: it failed.
    """
    _call(place, "down")


@contextmanager
def node_up(place: Place, *, open_webui: bool = True) -> Iterator[Up]:
    """Have a node for the length of the block."""
    try:
        yield bring_up(place, open_webui=open_webui)
    finally:
        take_down(place)


def _call(place: Place, *words: str) -> str:
    done = subprocess.run(
        (*SHOESTRING, *words), env=place.variables, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2][:SHOWN]
        raise ShoestringError(f"shoestring {words[0]} ended with {done.returncode}: {last}")
    return done.stdout


def sign_in(place: Place) -> OpenWebUi:
    """Return Open WebUI as its administrator has it; to be closed."""
    page = OpenWebUi(place.webui_url)
    page.sign_in(read_credentials(place.folder))
    return page


def api_token(place: Place) -> str:
    """Return the key with which the administrator may use Open WebUI's API.

    Raises:
        ShoestringError: it does not let us in.
    """
    with OpenWebUi(place.webui_url) as page:
        return page.sign_in(read_credentials(place.folder))


def sign_up_refused(place: Place) -> bool:
    """Whether a stranger who tries to sign up is refused."""
    stranger = {"name": "x", "email": "x@example.com", "password": "long-enough-1"}
    url = f"{place.webui_url}/api/v1/auths/signup"
    with requests.Session() as session:
        session.trust_env = False
        said = session.post(url, json=stranger, timeout=TIMEOUT_S)
    return said.status_code == HTTPStatus.FORBIDDEN


def processes(place: Place) -> list[psutil.Process]:
    """Return all processes of the node: supervisor, guards, services and what they started.

    They are found by the node's folder on the supervisor's command line, and by name and by the
    variables with which the services are started; the guards have them, too.
    """
    marks = {"OLLAMA_HOST": place.ollama_url, "DATA_DIR": str(place.folder / OPEN_WEBUI)}
    found = []
    for process in psutil.process_iter():
        try:
            given, words = process.environ(), process.cmdline()
        except psutil.Error:
            continue  # it has ended, or is another user's
        supervises = SUPERVISOR in words and str(place.folder.resolve()) in words
        serves = any(given.get(name) == value for name, value in marks.items())
        # A shell of the user's may have the same variables.
        if supervises or (serves and PROGRAMS & {Path(word).name for word in words}):
            found.append(process)
    return found


def runner(place: Place) -> psutil.Process | None:
    """Return the process that computes for the node's Ollama, or None while there is none."""
    pid = service_pid(place, OLLAMA)
    try:
        below = psutil.Process(pid).children(recursive=True) if pid is not None else []
        return next((process for process in below if "--port" in process.cmdline()), None)
    except psutil.NoSuchProcess:
        return None


def service_pid(place: Place, name: str) -> int | None:
    """Return the process of a service, or None while there is none."""
    node = read_node(place.folder)
    service = node.service(name) if node is not None else None
    return service.pid if service is not None else None


def service_rss_bytes(place: Place) -> dict[str, int]:
    """Return the resident memory of each service, of all processes in its group."""
    sums = dict.fromkeys((OLLAMA, OPEN_WEBUI, "supervisor and guards"), 0)
    groups = {service_pid(place, name): name for name in (OLLAMA, OPEN_WEBUI)}
    for process in processes(place):
        try:
            name = groups.get(os.getpgid(process.pid), "supervisor and guards")
            sums[name] += process.memory_info().rss
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue  # it has ended meanwhile
    return {name: count for name, count in sums.items() if count}
