"""The two services of a node, as its supervisor starts and asks them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from shoestring.engines.discovery import MENDS, find_program
from shoestring.engines.launch import Launched, is_free
from shoestring.engines.ollama import FOR_EVER
from shoestring.engines.ollama_api import OllamaApi
from shoestring.engines.ollama_processes import find_server
from shoestring.engines.transport import parse_base_url
from shoestring.errors import EngineLostError, MissingError
from shoestring.paths import cache_dir
from shoestring.stack.credentials import ensure_credentials
from shoestring.stack.node import OLLAMA, OPEN_WEBUI, Service, read_wanted
from shoestring.stack.open_webui.environment import environment_folder
from shoestring.stack.open_webui.settings import open_webui_environment

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.stack.keeper import Startable
    from shoestring.stack.node import Wanted

ASK_TIMEOUT_S = 5.0


def make_services(folder: Path, wanted: Wanted) -> list[Startable]:
    """Return the services of a node, not yet started."""
    services: list[Startable] = [OllamaService(folder, wanted)]
    if wanted.open_webui_port is not None:
        services.append(OpenWebUiService(folder, wanted))
    return services


class OllamaService:
    """Ollama: our own, or one that ran already, which is only asked."""

    name = OLLAMA
    start_limit_s = 60.0

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self._folder = folder
        self._wanted = wanted
        self._api = OllamaApi(wanted.ollama_url)

    def first_state(self) -> Service:
        """Return how it stands before its first start."""
        adopted = self._wanted.ollama_adopted
        pid = find_server(parse_base_url(self._wanted.ollama_url)) if adopted else None
        return Service(OLLAMA, self._wanted.ollama_url, adopted, pid=pid)

    def launch(self) -> Launched | None:
        """Start our own.

        Raises:
            MissingError: it is not installed any more.
        """
        if self._wanted.ollama_adopted:
            return None
        _require_free(self._wanted.ollama_url)
        program = find_program("ollama")
        if program is None:
            raise MissingError(f"Ollama is not installed: {MENDS['ollama']}")
        return Launched(
            "ollama",
            [str(program), "serve"],
            environment=self._wanted.ollama_environment,
            log_path=self._folder / f"{self.name}.log",
        )

    def answers(self) -> bool:
        """Whether it says its version."""
        try:
            self._api.version()
        except MissingError:
            return False
        return True

    def after_restart(self) -> None:
        """Load the node's model again, so that its first user does not wait for that."""
        wanted = read_wanted(self._folder)  # the model may be another one than at our start
        if wanted is not None and wanted.model and self._api.listed(wanted.model) is not None:
            self._api.keep(wanted.model, FOR_EVER, {})


class OpenWebUiService:
    """Open WebUI, with the safe settings and nothing of the user's environment."""

    name = OPEN_WEBUI
    start_limit_s = 300.0
    """A first start makes the database; on a busy machine of two cores it took a minute."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        assert wanted.open_webui_url is not None
        assert wanted.open_webui_port is not None
        self._folder = folder
        self._port = wanted.open_webui_port
        self._url = wanted.open_webui_url
        self._data = folder / OPEN_WEBUI
        self._environment = open_webui_environment(
            folder=self._data,
            ollama_url=wanted.ollama_url,
            port=self._port,
            credentials=ensure_credentials(folder),
            origins=wanted.origins,
        )

    def first_state(self) -> Service:
        """Return how it stands before its first start."""
        return Service(OPEN_WEBUI, self._url, adopted=False)

    def launch(self) -> Launched:
        """Start it.

        Raises:
            MissingError: it is not installed any more.
        """
        _require_free(self._url)
        self._data.mkdir(mode=0o700, exist_ok=True)
        program = environment_folder(cache_dir()) / "bin" / "open-webui"
        return Launched(
            "Open WebUI",
            [str(program), "serve", "--host", "127.0.0.1", "--port", str(self._port)],
            environment=self._environment,
            inherited={},
            log_path=self._folder / f"{self.name}.log",
        )

    def answers(self) -> bool:
        """Whether it has started and its database answers (``/ready``)."""
        import requests

        try:
            with requests.Session() as session:
                session.trust_env = False
                said = session.get(f"{self._url}/ready", timeout=ASK_TIMEOUT_S)
        except OSError:
            # Nobody listens yet, or too busy to answer: that is the question.
            return False
        return said.status_code == HTTPStatus.OK

    def after_restart(self) -> None:
        """Nothing: its state is in its database."""


def _require_free(url: str) -> None:
    """Refuse to start where another program listens: it would be taken for ours.

    Raises:
        EngineLostError: one does.
    """
    port = parse_base_url(url).port
    if not is_free(port):
        raise EngineLostError(f"another program listens at port {port}: end it, or shoestring down")
