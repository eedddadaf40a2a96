"""``shoestring down``: ends exactly what ``up`` started."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from shoestring.engines.launch import STOP_WAIT_S
from shoestring.engines.ollama_api import OllamaApi
from shoestring.errors import MissingError, ShoestringError
from shoestring.stack.node import (
    changing,
    is_supervised,
    read_node,
    read_wanted,
    write_wanted,
)
from shoestring.stack.remains import end_remains

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

END_LIMIT_S = 2 * STOP_WAIT_S
POLL_S = 0.05


def take_down(folder: Path, say: Callable[[str], None]) -> bool:
    """End the node; return whether one was up.

    An adopted Ollama goes on, without the model that it was given.
    """
    if not folder.is_dir():
        return False
    with changing(folder, say):
        was_up = is_supervised(folder)
        take_back_models(folder, say)
        end_supervisor(folder, say)
    return was_up


def end_supervisor(folder: Path, say: Callable[[str], None]) -> None:
    """End the supervisor and what it started, or what a dead one left; wait until it is gone."""
    deadline_s = time.monotonic() + END_LIMIT_S
    pause = threading.Event()
    asked = False
    while is_supervised(folder):
        node = read_node(folder)
        late = time.monotonic() > deadline_s
        if node is not None and (late or not asked):
            with suppress(ProcessLookupError):
                os.kill(node.supervisor_pid, signal.SIGKILL if late else signal.SIGTERM)
            asked = True
        elif late:
            raise ShoestringError(f"{folder} is held by a process that does not say who it is")
        pause.wait(POLL_S)
    end_remains(folder, say)


def take_back_models(folder: Path, say: Callable[[str], None]) -> None:
    """Take out of an adopted Ollama what it was given, also by an ``up`` that failed or died."""
    wanted = read_wanted(folder)
    if wanted is None or not wanted.given:
        return
    with OllamaApi(wanted.ollama_url) as api:
        try:
            for model in wanted.given:
                api.delete(model)
            write_wanted(folder, replace(wanted, given=()))
        except MissingError as error:
            say(f"{', '.join(wanted.given)} may stay in the adopted Ollama: {error}")
