"""``shoestring up``: from nothing to an answer in Open WebUI, each step timed.

Called again while the node is up it starts nothing: it brings the model that is asked for and asks
it again. Where it fails, what this call started is ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from shoestring.engines.discovery import MENDS, find_program
from shoestring.engines.install.installer import install_engine
from shoestring.engines.install.pins import find_pin
from shoestring.engines.ollama_processes import running_url
from shoestring.errors import BadModelError, MissingError, ShoestringError
from shoestring.models.fetch import resolve_model
from shoestring.models.names import parse_model_name
from shoestring.models.progress import ProgressBar
from shoestring.paths import cache_dir
from shoestring.stack import readiness
from shoestring.stack.asked import check_same
from shoestring.stack.credentials import ensure_credentials
from shoestring.stack.gpu_use import require_gpu
from shoestring.stack.keeper import LOOK_EVERY_S
from shoestring.stack.node import (
    NODE,
    OLLAMA,
    OPEN_WEBUI,
    SUPERVISOR_LOG,
    Wanted,
    changing,
    is_supervised,
    read_node,
    read_wanted,
    write_wanted,
)
from shoestring.stack.ollama_settings import ollama_environment
from shoestring.stack.open_webui.environment import install_open_webui, is_installed
from shoestring.stack.ports import choose_port
from shoestring.stack.remains import end_remains
from shoestring.stack.taking_down import end_supervisor, take_back_models
from shoestring.stack.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.models.fetch import ModelFile
    from shoestring.stack.asked import Asked
    from shoestring.stack.readiness import Ready

OLLAMA_PORT, OPEN_WEBUI_PORT = 11434, 8080
POLL_S = 0.1
FRESH_START_LIMIT = 3
"""A service that is started again so often while it is waited for will not be ready."""


class _NodeGoneError(ShoestringError):
    """The supervisor ended while it was waited for."""


def bring_up(asked: Asked, folder: Path, say: Callable[[str], None]) -> Ready:
    """Bring the node up, or see that it is.

    Args:
        asked: what is wanted.
        folder: the node's (:func:`shoestring.stack.node.node_folder`).
        say: given lines for the user.

    Raises:
        UserError: something that was asked for cannot be had.
        ShoestringError: a service does not come up, is open to strangers, or does not answer.
    """
    parse_model_name(asked.model)
    timeline = Timeline(say)
    with changing(folder, say):
        node = read_node(folder)
        if node is not None:
            check_same(folder, node, asked)
            say("the node is up")
            try:
                return _make_ready(asked, folder, timeline, _fetch(asked.model, timeline))
            except _NodeGoneError:
                say("its supervisor is gone: starting it anew")
        take_back_models(folder, say)  # those of an up that was killed
        end_remains(folder, say)
        try:
            file = _start(asked, folder, timeline, say)
            return _make_ready(asked, folder, timeline, file)
        except BaseException:
            take_back_models(folder, say)
            end_supervisor(folder, say)  # nothing of it, where it had not come so far
            raise


def _start(
    asked: Asked, folder: Path, timeline: Timeline, say: Callable[[str], None]
) -> ModelFile | None:
    """Install what is missing, fetch the model, and start the supervisor."""
    url = running_url()
    if (
        url is not None
        and asked.ollama_port is not None
        and not url.endswith(f":{asked.ollama_port}")
    ):
        url = None
    if url is None:
        _install_ollama(asked, timeline, say)
    if asked.open_webui:
        _install_open_webui(asked, timeline, say)
    file = _fetch(asked.model, timeline)
    wanted = _wanted(asked, url, given=file is not None)
    ensure_credentials(folder)
    (folder / NODE).unlink(missing_ok=True)  # what is there from now on is the new one's
    write_wanted(folder, wanted)
    _start_supervisor(folder)
    return file


def _install_ollama(asked: Asked, timeline: Timeline, say: Callable[[str], None]) -> None:
    if find_program("ollama") is not None:
        return
    if not asked.install:
        raise MissingError(
            f"Ollama is not installed: {MENDS['ollama']}, or up without --no-install"
        )
    with timeline.step("install Ollama"):
        install_engine(find_pin("ollama"), cache_dir(), say=say)


def _install_open_webui(asked: Asked, timeline: Timeline, say: Callable[[str], None]) -> None:
    if is_installed(cache_dir()):
        return
    if not asked.install:
        raise MissingError(
            "Open WebUI is not installed: shoestring up without --no-install, or with --no-webui"
        )
    with timeline.step("install Open WebUI"):
        install_open_webui(cache_dir(), say)


def _fetch(model: str, timeline: Timeline) -> ModelFile | None:
    """Bring a model that is a file; one of Ollama's library is pulled by Ollama."""
    if parse_model_name(model).scheme == "ollama":
        return None
    with timeline.step("fetch model"), ProgressBar(f"fetching {model}") as bar:
        return resolve_model(model, cache=cache_dir(), progress=bar.update)


def _wanted(asked: Asked, adopted: str | None, *, given: bool) -> Wanted:
    url = adopted
    environment: dict[str, str] = {}
    if url is None:
        url = f"http://127.0.0.1:{choose_port(asked.ollama_port, OLLAMA_PORT, '--ollama-port')}"
        # Chosen once for the node, by its first model: a file of ours is kept out of the user's
        # own store; what is pulled goes there, or where OLLAMA_MODELS says.
        ours = given and "OLLAMA_MODELS" not in os.environ
        environment = ollama_environment(
            url,
            store=cache_dir() / "ollama" if ours else None,
            context=asked.context,
            spread=asked.spread,
        )
    port = None
    if asked.open_webui:
        port = choose_port(asked.open_webui_port, OPEN_WEBUI_PORT, "--webui-port")
    return Wanted(
        ollama_url=url,
        ollama_adopted=adopted is not None,
        ollama_environment=environment,
        open_webui_port=port,
        origins=asked.origins,
    )


def _start_supervisor(folder: Path) -> None:
    """Start the process that outlives this one, and wait until it has taken the node over."""
    log_path = folder / SUPERVISOR_LOG
    with log_path.open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "shoestring.stack.supervisor", str(folder.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=False,
        )
    if done.returncode != 0:
        raise ShoestringError(f"the supervisor did not start; its log is {log_path}")


def _make_ready(asked: Asked, folder: Path, timeline: Timeline, file: ModelFile | None) -> Ready:
    """Have the node answer; once more where a service died on the way and is started again."""
    before = _lives(folder)
    try:
        return _have_it_answer(asked, folder, timeline, file)
    except BadModelError:
        raise
    except ShoestringError:
        threading.Event().wait(2 * LOOK_EVERY_S)  # the supervisor sees a death at its next look
        if _lives(folder) == before:
            raise
        return _have_it_answer(asked, folder, timeline, file)


def _lives(folder: Path) -> list[tuple[int | None, int]]:
    """Return which process each service has, after how many restarts."""
    node = read_node(folder)
    return [] if node is None else [(one.pid, one.restarts) for one in node.services]


def _have_it_answer(
    asked: Asked, folder: Path, timeline: Timeline, file: ModelFile | None
) -> Ready:
    """Wait for the services, bring the model, and have it answer, last through Open WebUI."""
    _await_service(folder, OLLAMA, timeline)
    wanted = read_wanted(folder)
    assert wanted is not None
    name, use = readiness.load_model(asked.model, file, wanted, folder, timeline)
    if not asked.allow_cpu:
        require_gpu(use)
    if wanted.open_webui_port is not None:
        _await_service(folder, OPEN_WEBUI, timeline)
        readiness.check_open_webui(wanted, folder, name, timeline)
    node = read_node(folder)
    if node is None:
        raise _NodeGoneError(f"the node went away meanwhile; see {folder / SUPERVISOR_LOG}")
    return readiness.Ready(folder, node, asked.model, name, use, tuple(timeline.spans()))


def _await_service(folder: Path, name: str, timeline: Timeline) -> None:
    """Wait until a service is ready.

    Raises:
        _NodeGoneError: the supervisor is gone.
        ShoestringError: it was started again and again in vain.
    """
    pause = threading.Event()
    first: int | None = None
    while is_supervised(folder):
        node = read_node(folder)
        service = node.service(name) if node is not None else None
        if service is None:
            pause.wait(POLL_S)
            continue
        first = service.restarts if first is None else first
        if service.state == "ready":
            begun_s, ready_s = service.started_monotonic_s, service.ready_monotonic_s
            if not service.adopted and begun_s is not None and ready_s is not None:
                timeline.note(f"start {name}", begun_s, ready_s)
            return
        if service.restarts - first >= FRESH_START_LIMIT:
            raise ShoestringError(
                f"{name} does not come up: {service.problem}; its log is {folder / name}.log"
            )
        pause.wait(POLL_S)
    raise _NodeGoneError(f"the supervisor is gone; its log is {folder / SUPERVISOR_LOG}")
