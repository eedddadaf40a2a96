"""SIGKILLs of the parts of a node, and of what measures it; and how the node comes back.

A function a part; each returns the names of the processes that it killed, none where the part was
not there at that moment.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

from shoestring.errors import ShoestringError
from shoestring.stack.node import OLLAMA, OPEN_WEBUI
from shoestring.testing.harness import Campaign
from shoestring.testing.node_process import (
    SHOESTRING,
    SUITE,
    bring_up,
    processes,
    runner,
    service_pid,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from shoestring.testing.harness import Harness
    from shoestring.testing.node_process import Place, Up

GIVE_UP_S = 300.0
NOTEBOOK = "01_measure"


class NotebookCampaign(Campaign):
    """A campaign whose runs are begun by a notebook, and completed without one.

    Args:
        out: gets the folders of the runs.
        model: in the node's Ollama.
        base_url: of the node's Ollama.
    """

    def __init__(self, out: Path, model: str, base_url: str) -> None:
        super().__init__(out, SUITE, "--model", model, "--base-url", base_url)
        given = {"model": model, "suite": SUITE, "base_url": base_url, "out": str(out)}
        words = [word for key, value in given.items() for word in ("-p", key, value)]
        copy = out.with_name(f"{out.name}.ipynb")
        self._resuming = self._command
        self._command = [*SHOESTRING, "notebook", NOTEBOOK, *words, "--out", str(copy)]

    def complete(self) -> None:
        """Resume what the notebooks left."""
        self._command = self._resuming
        super().complete()


def kill_ollama(place: Place, _harness: Harness) -> list[str]:
    """Kill the server; its runner ends with it."""
    return _kill(_alive(service_pid(place, OLLAMA)))


def kill_runner(place: Place, _harness: Harness) -> list[str]:
    """Kill the process that computes for Ollama."""
    found = runner(place)
    return _kill([] if found is None else [found])


def kill_open_webui(place: Place, _harness: Harness) -> list[str]:
    """Kill Open WebUI."""
    return _kill(_alive(service_pid(place, OPEN_WEBUI)))


def kill_kernel(_place: Place, harness: Harness) -> list[str]:
    """Kill the kernel of the notebook that measures."""
    found = kernel(harness)
    return _kill([] if found is None else [found])


def kill_session(place: Place, harness: Harness) -> list[str]:
    """Kill all that the session consists of: supervisor, guards, services, and the harness."""
    measuring = _alive(harness.process.pid)
    measuring += [child for one in measuring for child in one.children(recursive=True)]
    killed = []
    while of_node := processes(place):  # what was being started meanwhile, too
        killed += _kill([*of_node, *measuring])
        measuring = []
    return killed


def kernel(harness: Harness) -> psutil.Process | None:
    """Return the kernel of a notebook, or None while there is none."""
    try:
        below = psutil.Process(harness.process.pid).children(recursive=True)
        return next((one for one in below if "ipykernel_launcher" in one.cmdline()), None)
    except psutil.NoSuchProcess:
        return None


def come_back(place: Place) -> tuple[Up, list[str]]:
    """Have the node brought up until it is: it answers in Ollama and in Open WebUI.

    Returns:
        What the last ``up`` said, and what those before it failed with.

    Raises:
        ShoestringError: it does not come back.
    """
    begun_s = time.monotonic()
    in_vain: list[str] = []
    while True:
        try:
            return bring_up(place), in_vain
        except ShoestringError as error:
            in_vain.append(str(error))
            if time.monotonic() - begun_s > GIVE_UP_S:
                raise


def _alive(pid: int | None) -> list[psutil.Process]:
    try:
        return [] if pid is None else [psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return []


def _kill(victims: Iterable[psutil.Process]) -> list[str]:
    killed = []
    for process in victims:
        try:
            name = process.name()
            process.kill()
        except psutil.NoSuchProcess:
            continue  # it has just ended
        killed.append(name)
    psutil.wait_procs(victims, 10)
    return killed
