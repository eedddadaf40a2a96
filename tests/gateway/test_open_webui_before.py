"""Open WebUI with the gateway as its only backend, before a real llama-server."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from shoestring.engines.launch import NOBODYS_URL, Launched, free_port
from shoestring.gateway.keys_file import create_key
from shoestring.models.fetch import ModelFile
from shoestring.paths import cache_dir
from shoestring.stack.credentials import Credentials, ensure_credentials
from shoestring.stack.open_webui.client import OpenWebUi
from shoestring.stack.open_webui.environment import environment_folder
from shoestring.stack.open_webui.settings import open_webui_environment
from shoestring.testing.engines import need_open_webui, need_program
from shoestring.testing.gateway import RunningGateway, running_gateway
from shoestring.testing.live_server import LiveServer, live_server

START_LIMIT_S = 300.0
LINE_LIMIT_S = 60.0
ALIAS = "team-model"
QUESTION = "The sea is"
TOKENS = 8
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def engine(small_model: ModelFile) -> Iterator[LiveServer]:
    """A llama-server that always takes the likeliest token and keeps nothing between requests."""
    program = need_program("llama-server")
    need_open_webui()

    def command(port: int) -> list[str]:
        """With the small real model."""
        return [
            str(program), "--model", str(small_model.path), "--alias", "gemma", "--host",
            "127.0.0.1", "--port", str(port), "-c", "1024", "--parallel", "1", "--threads", "2",
            "--temp", "0", "--no-cache-prompt", "--no-webui", "--offline",
        ]  # fmt: skip

    with live_server(command) as server:
        yield server


@pytest.fixture(scope="module")
def before(
    engine: LiveServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """A gateway before it, whose alias is all that Open WebUI's key may use."""
    settings: dict[str, Any] = {
        "engines": [{"name": "own", "kind": "llama-server", "url": engine.address}],
        "aliases": {ALIAS: {"targets": [{"engine": "own", "model": "gemma", "variant": "q4"}]}},
    }
    with running_gateway(tmp_path_factory.mktemp("gateway"), settings) as running:
        yield running


@dataclass(frozen=True)
class Page:
    """Open WebUI that is up: where, who may sign in, and which key of the gateway it has."""

    url: str
    credentials: Credentials
    key_id: str


@pytest.fixture(scope="module")
def page(before: RunningGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The real program, told of no other backend than the gateway."""
    folder = tmp_path_factory.mktemp("open-webui")
    key, presented = create_key(
        before.keys_file, "open-webui", scopes=("inference",), models=(ALIAS,)
    )
    credentials = ensure_credentials(folder)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    data = folder / "data"
    data.mkdir()
    settings = open_webui_environment(
        folder=data, ollama_url=NOBODYS_URL, port=port, credentials=credentials
    )
    backend = {
        "ENABLE_OLLAMA_API": "False",
        "ENABLE_OPENAI_API": "True",
        "OPENAI_API_BASE_URL": f"{before.url}/v1",
        "OPENAI_API_KEY": presented,
    }
    program = environment_folder(cache_dir()) / "bin" / "open-webui"

    def ready() -> bool:
        """Whether its database answers."""
        with requests.Session() as session:
            session.trust_env = False
            try:
                return session.get(f"{url}/ready", timeout=30).ok
            except requests.RequestException:
                return False

    launched = Launched(
        "Open WebUI",
        [str(program), "serve", "--host", "127.0.0.1", "--port", str(port)],
        environment={**settings, **backend},
        inherited={},
        log_path=folder / "open-webui.log",
    )
    try:
        launched.wait_until(ready, START_LIMIT_S)
        yield Page(url, credentials, key.id)
    finally:
        launched.stop()


def line_of(gateway: RunningGateway, key_id: str) -> dict[str, Any]:
    """The line of a key's request, which is written after its answer has gone out."""
    end_s = time.monotonic() + LINE_LIMIT_S
    while time.monotonic() < end_s:
        found = [line for line in gateway.lines() if line.get("key_id") == key_id]
        if found:
            return found[-1]
        threading.Event().wait(0.1)
    raise AssertionError(f"no line of key {key_id} in {gateway.log}")


def test_its_users_choose_from_what_its_key_may_use(page: Page):
    """One alias, and none of the names behind it."""
    with OpenWebUi(page.url) as client:
        client.sign_in(page.credentials)
        assert client.models() == [ALIAS]


def test_its_users_are_answered_by_the_engine_behind_the_gateway(
    page: Page, before: RunningGateway, engine: LiveServer
):
    """Word for word what the engine says to the same question; the log names the key."""
    asked = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": TOKENS}
    said = engine.session.post(
        f"{engine.address}/v1/chat/completions", json=asked, timeout=engine.limit_s
    ).json()
    with OpenWebUi(page.url) as client:
        client.sign_in(page.credentials)
        answer = client.ask(ALIAS, QUESTION, max_tokens=TOKENS)
    assert answer.text == said["choices"][0]["message"]["content"] != ""

    noted = line_of(before, page.key_id)
    assert {name: noted[name] for name in ("operation", "model", "variant", "status", "stream",
            "output_tokens", "failure")} == {
        "operation": "chat", "model": ALIAS, "variant": "q4", "status": 200, "stream": True,
        "output_tokens": TOKENS, "failure": None,
    }  # fmt: skip
