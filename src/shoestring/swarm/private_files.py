"""Files of a node that only their owner may read: made once, or replaced whole under a lock."""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from shoestring.errors import BadValueError
from shoestring.models.downloads import locked, sync
from shoestring.paths import state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

T = TypeVar("T")

OTHERS: Final = 0o077  # what the group and everybody else may do
OWNER_ONLY: Final = 0o600
VERSION: Final = 1


class OwnersFile:
    """A file of records that its owner alone may read; each call reads it anew, as each is rare.

    Args:
        path: the file; it may come later.
        now: seconds since 1970.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now


def swarm_dir() -> Path:
    """Return the folder of the node's identity, peers and invitations; it is not made here."""
    return state_dir() / "swarm"


def read_private(path: Path) -> bytes | None:
    """Return what a file holds; None: there is none.

    Raises:
        BadValueError: it cannot be read, or others than its owner can.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & OTHERS:
                raise BadValueError(
                    f"{path} is open to others than its owner: chmod 600 {path}, "
                    "or remove it if somebody may have read it"
                )
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadValueError(
            f"cannot read {path}: {error.strerror}; run as its owner or set SHOESTRING_STATE"
        ) from error


def make_once(path: Path, content: bytes) -> None:
    """Make a file, whole or not at all, where there is none; of two makers the first one wins.

    Raises:
        BadValueError: it cannot be made.
    """
    with _explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name) as new:  # of mode 0600
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
            with suppress(FileExistsError):
                os.link(new.name, path)
        sync(path.parent)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Hold the one right to change a file; others wait, for milliseconds.

    Raises:
        BadValueError: the file cannot be changed.
    """
    with _explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path, _wait_silently):
            yield


def replace_private(path: Path, content: bytes) -> None:
    """Put a file in the old one's place at once; called inside :func:`changing`."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # of a process that died; the lock is ours
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, OWNER_ONLY)  # whatever the umask
        file.write(content)
    sync(new)
    new.replace(path)
    sync(path.parent)


def read_records(path: Path, make: Callable[[dict[str, Any]], T], *, mend: str) -> list[T]:
    """Return what a file of records holds, each made from its JSON; no file: none.

    Args:
        path: the file.
        make: raises one of Python's own errors, or BadValueError, of a record that is none.
        mend: what to do with a damaged file, for the message.

    Raises:
        BadValueError: the file is damaged, of another version, or cannot be read.
    """
    text = read_private(path)
    if text is None:
        return []
    try:
        whole = json.loads(text)
        _check_version(whole["version"])
        return [make(record) for record in whole["records"]]
    except (ValueError, KeyError, TypeError, AttributeError, BadValueError) as error:
        why = str(error) if isinstance(error, BadValueError) else type(error).__name__
        raise BadValueError(f"{path} is damaged ({why}): {mend}") from error


def write_records(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Put a file of records in the old one's place; called inside :func:`changing`."""
    text = json.dumps({"version": VERSION, "records": list(records)}, indent=1)
    replace_private(path, text.encode() + b"\n")


def _check_version(version: Any) -> None:
    if version != VERSION:
        raise BadValueError(f"version {version!a:.20}; this is version {VERSION}")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadValueError(
            f"cannot write {path}: {error.strerror}; run as its owner or set SHOESTRING_STATE"
        ) from error


def _wait_silently(_line: str) -> None:
    """Say nothing: nobody waits long enough to wonder."""
