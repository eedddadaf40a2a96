"""The real node: brought up, asked, broken, and taken down."""

import json
import os
import signal
from dataclasses import replace

import psutil
import pytest
import requests

from shoestring.engines.launch import free_port, is_free
from shoestring.engines.ollama import OllamaEngine
from shoestring.engines.ollama_api import OllamaApi
from shoestring.engines.ollama_processes import find_runner
from shoestring.errors import BadValueError
from shoestring.models.fetch import resolve_model
from shoestring.models.library import weights_sha256
from shoestring.stack.bringing_up import bring_up
from shoestring.stack.node import EVENTS, OLLAMA, OPEN_WEBUI, is_supervised, read_node
from shoestring.stack.open_webui.client import OpenWebUi
from shoestring.stack.taking_down import take_down
from shoestring.testing.engines import need_open_webui, need_program
from tests.stack.conftest import ask_for

SILENT = lambda _line: None  # noqa: E731 - what the user is told is not the matter here


def restarted_after(node, name):
    """Kill a service and return it when it is ready again."""
    before = node.service(name)
    os.kill(before.pid, signal.SIGKILL)
    return node.wait_for(name, lambda now: now.restarts > before.restarts and now.state == "ready")


def ask_page(node):
    """Ask the model through Open WebUI."""
    with OpenWebUi(node.webui_url) as page:
        page.sign_in(node.credentials)
        (model,) = [name for name in page.models() if name.startswith(node.model)]
        return page.ask(model, "The capital of France is", max_tokens=8)


def assert_strangers_are_refused(node):
    """Nobody signs up, and nobody unknown is answered, by any door."""
    signup = requests.post(
        f"{node.webui_url}/api/v1/auths/signup",
        json={"name": "x", "email": "x@example.com", "password": "long-enough-1"},
        timeout=30,
    )
    body = {"model": node.model, "messages": [{"role": "user", "content": "?"}]}
    chats = [
        requests.post(node.webui_url + path, json=body, timeout=30)
        for path in ("/api/chat/completions", "/ollama/api/chat", "/ollama/v1/chat/completions")
    ]

    assert signup.status_code == 403
    assert {said.status_code for said in chats} <= {401, 403}


def test_the_model_answers_through_open_webui(node):
    """What the page asks is answered by the model of the node."""
    assert ask_page(node).text.strip()


def test_strangers_are_refused_after_first_start_and_restart(node):
    """Sign-up and unauthenticated chat are closed, also after Open WebUI was started again."""
    assert_strangers_are_refused(node)
    restarted_after(node, OPEN_WEBUI)
    assert_strangers_are_refused(node)


def test_up_again_starts_nothing(node):
    """A node that is up stays as it is."""
    before = read_node(node.folder)
    ready = node.up()

    assert ready.node == before
    assert {span.name for span in ready.cold_start}.isdisjoint({"start ollama", "start open-webui"})


def test_a_killed_ollama_comes_back_with_its_model(node):
    """It is started again on its port and loads the model before anybody asks."""
    after = restarted_after(node, OLLAMA)
    api = OllamaApi(node.ollama_url)

    node.wait_for(OLLAMA, lambda _now: api.loaded(node.model) is not None)
    api.close()
    assert after.url == node.ready.node.service(OLLAMA).url
    assert "signal 9" in after.problem
    assert ask_page(node).text.strip()


def test_a_killed_runner_is_replaced_at_the_next_question(node):
    """Ollama's runner is a process of its own; its end costs one load."""
    api = OllamaApi(node.ollama_url)
    sha256 = weights_sha256(api.show(node.model))
    api.keep(node.model, -1, {})
    api.close()
    server = node.service(OLLAMA).pid
    url = find_runner(server, sha256)
    assert url is not None
    (runner,) = [
        child for child in psutil.Process(server).children(recursive=True)
        if url.rpartition(":")[2] in child.cmdline()
    ]  # fmt: skip
    runner.kill()
    runner.wait(30)

    assert ask_page(node).text.strip()


def test_a_killed_supervisor_leaves_nothing_and_up_brings_the_node_back(node):
    """The guards end the services; the next up starts them anew with the same database."""
    before = read_node(node.folder)
    processes = [psutil.Process(one.pid) for one in before.services]
    os.kill(before.supervisor_pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, 60)
    assert alive == []

    assert node.up().node.supervisor_pid != before.supervisor_pid
    assert ask_page(node).text.strip()


def test_what_a_whole_killed_session_left_is_ended_first(node):
    """Where the guards were killed, too, up ends the services by what was written down."""
    before = read_node(node.folder)
    supervisor = psutil.Process(before.supervisor_pid)
    supervisor.suspend()  # it would end a service whose guard is gone
    for process in (*supervisor.children(), supervisor):
        process.kill()
    left = [psutil.Process(one.pid) for one in before.services]
    assert all(process.is_running() for process in left)

    after = node.up()

    assert not any(process.is_running() for process in left)
    assert [one.restarts for one in after.node.services] == [0, 0]


def test_events_tell_what_happened(node):
    """Each death is in the node's events, with its reason."""
    restarted_after(node, OLLAMA)
    events = [json.loads(line) for line in (node.folder / EVENTS).read_text().splitlines()]
    mine = [one for one in events if one["service"] == OLLAMA]

    assert [one["event"] for one in mine][-3:] == ["died", "started", "ready"]
    assert "signal 9" in mine[-3]["why"]


def test_secrets_stand_in_one_file_only(node):
    """Neither logs nor records nor command lines hold the password or the key."""
    secrets = node.credentials.password, node.credentials.secret_key
    ask_page(node)
    texts = [
        path.read_text(errors="replace")
        for path in node.folder.rglob("*")
        if path.is_file() and path.name != "credentials.json"
    ]
    texts += [" ".join(process.cmdline()) for process in psutil.process_iter() if process.pid > 1
              and process.is_running() and process.status() != psutil.STATUS_ZOMBIE]  # fmt: skip

    assert not any(secret in text for secret in secrets for text in texts)
    assert (node.folder / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_another_port_than_the_one_that_is_up_is_refused(node):
    """Up does not go on with another node than the one that was asked for."""
    other = ask_for(ollama_port=free_port())

    with pytest.raises(BadValueError, match="shoestring down first"):
        bring_up(other, node.folder, SILENT)


def test_down_ends_all_and_frees_the_ports(tmp_path):
    """Nothing is left running, and a second down has nothing to do."""
    need_program("ollama")
    need_open_webui()
    asked, folder = ask_for(), tmp_path / "node"
    ready = bring_up(asked, folder, SILENT)
    groups = {service.pid for service in ready.node.services}

    assert take_down(folder, SILENT)
    assert not take_down(folder, SILENT)
    assert not is_supervised(folder)
    assert is_free(asked.ollama_port)
    assert is_free(asked.open_webui_port)
    assert not [pid for pid in psutil.pids() if _group(pid) in groups]


@pytest.fixture
def running_ollama(tmp_path, monkeypatch):
    """An Ollama of the user's, with a model of theirs; its address, its process, its API."""
    need_program("ollama")
    engine = OllamaEngine("nobody", store=tmp_path / "store")
    engine.start()
    api = OllamaApi(engine._address.url)
    try:
        monkeypatch.setenv("OLLAMA_HOST", api.url)
        yield engine, api
    finally:
        api.close()
        engine.stop()


def test_a_running_ollama_is_adopted_and_left_as_it_was(tmp_path, running_ollama, small_model):
    """It goes on after down, with the user's model, without those that it was given."""
    engine, api = running_ollama
    api.create("mine", small_model.path, small_model.sha256)
    asked = ask_for(open_webui=False, ollama_port=None)
    folder = tmp_path / "node"
    ready = bring_up(asked, folder, SILENT)
    service = ready.node.service(OLLAMA)
    assert (service.adopted, service.pid) == (True, engine.pid)
    bring_up(replace(asked, model="ollama:mine"), folder, SILENT)

    take_down(folder, SILENT)

    assert api.listed(ready.model) is None
    assert api.listed("mine") is not None


def test_an_adopted_ollama_gets_its_gift_taken_back_after_a_kill(tmp_path, running_ollama):
    """Also where down found a dead supervisor."""
    _, api = running_ollama
    ready = bring_up(ask_for(open_webui=False, ollama_port=None), tmp_path / "node", SILENT)
    supervisor = psutil.Process(ready.node.supervisor_pid)
    supervisor.kill()
    psutil.wait_procs([supervisor], 30)

    take_down(tmp_path / "node", SILENT)

    assert api.listed(ready.model) is None


def test_a_users_model_of_the_same_name_is_not_replaced(tmp_path, running_ollama, small_model):
    """The line says what to do; their model stays what it was."""
    _, api = running_ollama
    api.create("theirs", small_model.path, small_model.sha256)
    other = resolve_model("shape:tinyllama-1.1b/1:q4_0", cache=tmp_path / "cache")
    path = other.path.rename(tmp_path / "theirs.gguf")
    asked = ask_for(open_webui=False, ollama_port=None, model=f"file:{path}")

    with pytest.raises(BadValueError, match="another model theirs"):
        bring_up(asked, tmp_path / "node", SILENT)

    assert weights_sha256(api.show("theirs")) == small_model.sha256


def test_a_failure_takes_down_what_was_started(tmp_path):
    """A model that Ollama cannot run leaves no node behind."""
    need_program("ollama")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(200))
    asked = ask_for(open_webui=False, model=f"file:{broken}")

    with pytest.raises(Exception, match=r"broken\.gguf|broken"):
        bring_up(asked, tmp_path / "node", SILENT)

    assert not is_supervised(tmp_path / "node")
    assert is_free(asked.ollama_port)


def _group(pid):
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
