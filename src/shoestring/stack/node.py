"""What a node is on disk: which services run, since when, and what was wanted.

The supervisor holds a lock on ``node.lock`` for as long as it lives; the kernel takes it back
whatever ends it. So the lock, not a number in a file, says whether a node is up. Each file has
one writer: ``wanted.json`` is written by ``shoestring up``, ``node.json`` and ``events.jsonl`` by
the supervisor.
"""

from __future__ import annotations

import fcntl
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from shoestring.errors import MissingError, ShoestringError
from shoestring.models.downloads import write_whole
from shoestring.paths import state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

State = Literal["starting", "ready", "waiting", "ended"]
OLLAMA, OPEN_WEBUI = "ollama", "open-webui"
LOCK, CHANGE_LOCK = "node.lock", "change.lock"
NODE, WANTED, EVENTS = "node.json", "wanted.json", "events.jsonl"
SUPERVISOR_LOG = "supervisor.log"
LOOKERS_S = 2.0
"""Who looks whether a node is up holds its lock for a moment; so long it is tried again."""


@dataclass(frozen=True)
class Wanted:
    """What ``shoestring up`` was asked for.

    Attributes:
        ollama_url: where Ollama is, or shall be.
        ollama_adopted: it ran already and is not ours to start or end.
        ollama_environment: of our own one.
        open_webui_port: None: no Open WebUI.
        origins: pages beside its own that may speak to it.
        model: as Ollama knows it; loaded again when Ollama was started again.
        given: models that were given to an adopted Ollama, which loses them at ``down``.
    """

    ollama_url: str
    ollama_adopted: bool
    ollama_environment: Mapping[str, str]
    open_webui_port: int | None
    origins: tuple[str, ...] = ()
    model: str | None = None
    given: tuple[str, ...] = ()

    @property
    def open_webui_url(self) -> str | None:
        """Where Open WebUI shall be."""
        return None if self.open_webui_port is None else f"http://127.0.0.1:{self.open_webui_port}"


@dataclass(frozen=True)
class Service:
    """One service of a node.

    Attributes:
        name: ``ollama`` or ``open-webui``.
        url: its address on loopback.
        adopted: it is not ours.
        state: ``waiting`` is the pause before it is started again.
        pid: of its first process, which leads a process group; None while there is none.
        created_s: when that process was made, in seconds since 1970, by which it is told from
            another one that got its number later.
        started_monotonic_s: when the last start began.
        ready_monotonic_s: when it answered, or None.
        restarts: how often it was started again.
        problem: what ended it the last time.
    """

    name: str
    url: str
    adopted: bool
    state: State = "starting"
    pid: int | None = None
    created_s: float | None = None
    started_monotonic_s: float | None = None
    ready_monotonic_s: float | None = None
    restarts: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Node:
    """A node that is up, or what a dead one left."""

    supervisor_pid: int
    started_utc: str
    services: tuple[Service, ...]

    def service(self, name: str) -> Service | None:
        """Return one of the services, if the node has it."""
        return next((one for one in self.services if one.name == name), None)

    def with_service(self, changed: Service) -> Node:
        """Return the node with one service in another state."""
        return replace(
            self,
            services=tuple(changed if one.name == changed.name else one for one in self.services),
        )


def node_folder() -> Path:
    """Return where the node of this user keeps its state; it may not be there."""
    return state_dir() / "node"


def read_node(folder: Path) -> Node | None:
    """Return the node that is up, or None where no supervisor lives."""
    return read_last_node(folder) if is_supervised(folder) else None


def is_supervised(folder: Path) -> bool:
    """Whether a supervisor lives."""
    try:
        with (folder / LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    return False


@contextmanager
def supervising(folder: Path) -> Iterator[None]:
    """Hold the lock that says that the node is up.

    Raises:
        ShoestringError: another supervisor holds it.
    """
    with (folder / LOCK).open("ab") as lock:
        deadline_s = time.monotonic() + LOOKERS_S
        pause = threading.Event()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline_s:
                    raise ShoestringError(
                        f"another node is up in {folder}: shoestring status"
                    ) from error
                pause.wait(0.01)
            else:
                break
        yield


@contextmanager
def changing(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the one right to bring the node up or down.

    Raises:
        MissingError: the folder cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / CHANGE_LOCK).open("ab")
    except OSError as error:
        raise MissingError(
            f"cannot keep a node in {folder}: {error.strerror}; set SHOESTRING_STATE to a folder "
            "that you can write"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting: another shoestring up or down is at work")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_last_node(folder: Path) -> Node | None:
    """Return what the last supervisor wrote, alive or dead; None where there is nothing whole."""
    said = _read(folder / NODE)
    try:
        services = tuple(Service(**one) for one in said["services"])
        return Node(**{**said, "services": services})
    except (KeyError, TypeError):
        return None


def write_node(folder: Path, node: Node) -> None:
    """Write down what runs."""
    write_whole(folder / NODE, json.dumps(asdict(node), indent=2) + "\n")


def read_wanted(folder: Path) -> Wanted | None:
    """Return what the last ``up`` asked for; None where there is nothing whole."""
    said = _read(folder / WANTED)
    try:
        lists = {name: tuple(said[name]) for name in ("origins", "given")}
        return Wanted(**{**said, **lists})
    except (KeyError, TypeError):
        return None


def write_wanted(folder: Path, wanted: Wanted) -> None:
    """Write down what shall run."""
    write_whole(folder / WANTED, json.dumps(asdict(wanted), indent=2) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent or damaged one is empty: then nothing is known."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
