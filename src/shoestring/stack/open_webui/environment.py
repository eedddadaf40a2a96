"""Open WebUI's own Python environment in the cache, made by uv from a lock with hashes.

It needs a Python below 3.13 and other versions of what this package uses, so it never shares ours.
``left_out.txt`` says what is not installed, and why. The note in the environment bears the hash of
the lock and is written last: an environment without it, or of another lock, is made anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections import deque
from importlib import resources
from typing import TYPE_CHECKING

from shoestring.errors import MissingError
from shoestring.models.downloads import check_space, locked, write_whole
from shoestring.stack.uv_program import find_uv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PYTHON = ">=3.11,<3.13"
NOTE = "shoestring.json"
SPACE_BYTES = 2_500_000_000
"""The environment, and the wheels beside it while they are unpacked."""
SHOWN = 200
"""Characters of what uv said last, in an error."""


def pinned_version() -> str:
    """Return the version of Open WebUI that the lock names."""
    found = re.search(r"^open-webui==(\S+)", _lock(), re.MULTILINE)
    assert found is not None
    return found[1]


def install_open_webui(cache: Path, say: Callable[[str], None]) -> None:
    """Make the environment, unless it is there and whole.

    Args:
        cache: the cache folder (:func:`shoestring.paths.cache_dir`).
        say: given lines for the user.

    Raises:
        MissingError: uv, a Python below 3.13, the network or space is missing.
    """
    folder = environment_folder(cache)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder, say):
            if not is_installed(cache):
                say(f"installing Open WebUI {pinned_version()} into {folder} (1.2 GB, once)")
                _make(folder)
    except OSError as error:
        raise MissingError(
            f"cannot keep Open WebUI in {folder.parent}: {error.strerror}; free some space or set "
            "SHOESTRING_CACHE to a folder that you can write"
        ) from error


def environment_folder(cache: Path) -> Path:
    """Return where the environment lies, whether or not it is there."""
    return cache / f"open-webui-{pinned_version()}"


def is_installed(cache: Path) -> bool:
    """Whether the environment is there, made to its end, of this very lock, with its Python."""
    folder = environment_folder(cache)
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    # Its Python is a link: whoever removes or hides that version leaves a program without one.
    programs = [folder / "bin" / name for name in ("python", "open-webui")]
    return note == _note() and all(program.is_file() for program in programs)


def _make(folder: Path) -> None:
    free = shutil.disk_usage(folder.parent).free
    check_space("Open WebUI", folder.parent, needed=SPACE_BYTES, free=free)
    shutil.rmtree(folder, ignore_errors=True)
    # `--no-config`: an override of the user's own would make another environment of this lock.
    _uv("venv", "--no-config", "--quiet", "--python", PYTHON, str(folder),
        mend=f"give uv a Python {PYTHON}: apt-get install python3.12 python3.12-venv")  # fmt: skip
    with resources.as_file(resources.files(__package__) / "requirements.lock") as lock:
        _uv("pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "--no-deps",
            "--require-hashes", "--only-binary", ":all:", "--compile-bytecode",
            "--requirements", str(lock),
            mend="check the network and UV_INDEX_URL, then try again")  # fmt: skip
    write_whole(folder / NOTE, json.dumps(_note(), indent=2) + "\n")


def _uv(*words: str, mend: str) -> None:
    """Run uv to its end; Ctrl-C reaches it, for it is in our process group."""
    done = subprocess.run((find_uv(), *words), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingError(
            f"Open WebUI was not installed: uv says {_last(done.stderr.splitlines())}; {mend}"
        )


def _last(lines: Sequence[str]) -> str:
    said = deque((line.strip() for line in lines if line.strip()), maxlen=2)
    return ascii(" ".join(said)[:SHOWN]) if said else "nothing"


def _note() -> dict[str, str]:
    lock = _lock().encode()
    return {"open-webui": pinned_version(), "lock_sha256": hashlib.sha256(lock).hexdigest()}


def _lock() -> str:
    return (resources.files(__package__) / "requirements.lock").read_text(encoding="utf-8")
