"""A real node for the tests of this room: Ollama, Open WebUI and the small real model."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shoestring.engines.launch import free_port
from shoestring.stack.asked import Asked
from shoestring.stack.bringing_up import bring_up
from shoestring.stack.credentials import Credentials, read_credentials
from shoestring.stack.node import OLLAMA, OPEN_WEBUI, Service, read_node
from shoestring.stack.readiness import Ready
from shoestring.stack.taking_down import take_down
from shoestring.testing.engines import need_chromium, need_open_webui, need_program

MODEL = "pypi:gemma3-270m"
WAIT_S = 120.0


@dataclass
class RunningNode:
    """A node that is up.

    Attributes:
        folder: its state.
        asked: what it was brought up with; explicit ports, so that tests meet nobody else's.
        ready: what `up` returned.
    """

    folder: Path
    asked: Asked
    ready: Ready

    @property
    def ollama_url(self) -> str:
        """Where its Ollama is."""
        return self.service(OLLAMA).url

    @property
    def webui_url(self) -> str:
        """Where its Open WebUI is."""
        return self.service(OPEN_WEBUI).url

    @property
    def credentials(self) -> Credentials:
        """Who may sign in."""
        return read_credentials(self.folder)

    @property
    def model(self) -> str:
        """As Ollama knows it."""
        return self.ready.model

    def service(self, name: str) -> Service:
        """How a service stands now."""
        node = read_node(self.folder)
        assert node is not None, "the node is down"
        service = node.service(name)
        assert service is not None
        return service

    def wait_for(self, name: str, holds: Callable[[Service], bool]) -> Service:
        """Wait until something holds of a service."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            service = self.service(name)
            if holds(service):
                return service
            threading.Event().wait(0.05)
        raise AssertionError(f"waited {WAIT_S} s in vain: {self.service(name)}")

    def up(self) -> Ready:
        """Bring it up again, as it was."""
        self.ready = bring_up(self.asked, self.folder, lambda _line: None)
        return self.ready


def ask_for(**changes: object) -> Asked:
    """What tests ask for: ports of their own."""
    return Asked(
        **{"model": MODEL, "ollama_port": free_port(), "open_webui_port": free_port(), **changes}
    )


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that all tests share; who ends a part of it waits until it is ready again."""
    need_program("ollama")
    need_open_webui()
    folder = tmp_path_factory.mktemp("state") / "node"
    asked = ask_for()
    try:
        yield RunningNode(folder, asked, bring_up(asked, folder, lambda _line: None))
    finally:
        take_down(folder, lambda _line: None)


@pytest.fixture(scope="session")
def chromium() -> None:
    """A browser is here, or the test ends."""
    need_chromium()
