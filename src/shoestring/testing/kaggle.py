"""A session laid out like Kaggle's: its folders at their true paths, a bare Python, none of ours.

The command runs in a mount namespace with a root of its own that holds only what is bound into it:
the system's programs, a fresh Python environment, an empty home and ``/kaggle``. This repository
is not hidden there, it is absent, and the system cannot be written to. Its process namespace ends
whatever it leaves running.
What is not Kaggle's: the kernel, the processor, the Python's version and the system's libraries.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt", "/dev", "/sys")
WRITABLE = ("/dev",)
ABSENT = ("/usr/bin/zstd", "/usr/bin/lspci", "/usr/bin/lshw")
"""Programs that Kaggle's image lacks."""
NETWORK = ("PIP_", "UV_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http", "no_proxy")
"""Beginnings of the variables by which this machine finds its package index."""
WORKING = Path("/kaggle/working")
LIMIT_S = 1500.0


@dataclass(frozen=True)
class KaggleSession:
    """A root that is laid out like a session's.

    Attributes:
        root: an empty folder, which becomes ``/``.
        image: the Python environment that stands for the image's; it keeps its path.
        shared: caches and the like: their path in the session, and where they lie.
        inputs: what is attached below ``/kaggle/input``, read-only: its name, and where it lies.
    """

    root: Path
    image: Path
    shared: Mapping[Path, Path] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)

    @property
    def working(self) -> Path:
        """Where ``/kaggle/working`` lies outside."""
        return self.inside(WORKING)

    def inside(self, path: Path) -> Path:
        """Return where a path of the session lies outside."""
        return self.root / path.relative_to("/")

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the session, in ``/kaggle/working``; its words are one stream.

        Raises:
            subprocess.TimeoutExpired: it ran longer than any test may.
        """
        for folder in ("proc", "tmp", "root", "kaggle/working", "kaggle/input", "kaggle/lib"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        inner = f"cd {WORKING} && exec {shlex.join(command)}"
        enter = shlex.join((_chroot(), str(self.root), "/bin/sh", "-c", inner))
        script = [*self._mounts(), f"exec {enter}"]
        return subprocess.run(
            (*_unshare(), "sh", "-euc", "\n".join(script)), env=self._environ() | environ,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace", check=False, timeout=LIMIT_S,
        )  # fmt: skip

    def _mounts(self) -> list[str]:
        """Return the lines of a shell that fill the root; they hold in its namespace only."""
        base = Path(os.path.realpath(self.image / "bin" / "python")).parents[1]
        whole = {Path(path): Path(path) for path in (*SYSTEM, self.image, base)}
        lines = []
        for inside, outside in (whole | dict(self.shared)).items():
            bound = self._bound(outside, self.inside(inside))
            system = str(inside) in SYSTEM and str(inside) not in WRITABLE
            lines += [*bound, *([_read_only(self.inside(inside))] if bound and system else [])]
        for name, outside in self.inputs.items():
            inside = self.inside(Path("/kaggle/input", name))
            lines += [*self._bound(outside, inside), _read_only(inside)]
        for path in filter(os.path.exists, ABSENT):
            lines.append(f"mount --bind /dev/null {shlex.quote(str(self.root) + path)}")
        lines.append(f"mount -t proc proc {shlex.quote(str(self.root / 'proc'))}")
        return lines

    def _bound(self, outside: Path, inside: Path) -> list[str]:
        if Path("/usr") in outside.parents:
            return []  # it is there already
        if outside.is_symlink():  # /bin is usr/bin
            if not inside.is_symlink():
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.symlink_to(outside.readlink())
            return []
        if not outside.exists():
            return []
        inside.mkdir(parents=True, exist_ok=True)
        return [f"mount --rbind {shlex.quote(str(outside))} {shlex.quote(str(inside))}"]

    def _environ(self) -> dict[str, str]:
        """Return the variables of a session, and nothing of the user's but the way to packages."""
        network = {name: os.environ[name] for name in os.environ if name.startswith(NETWORK)}
        return network | {
            "PATH": f"{self.image}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "KAGGLE_KERNEL_RUN_TYPE": "Batch",
            "PYTHONPATH": "/kaggle/lib/kagglegym:/kaggle/lib",
            "MPLBACKEND": "module://ipykernel.pylab.backend_inline",
            "UV_SYSTEM_PYTHON": "true",
            "UV_CONSTRAINT": "/backend-container/containers/requirements.constraints",
        }


def why_no_session() -> str | None:
    """Say why this machine allows no mount namespace, or None if it does."""
    if shutil.which("unshare") is None:
        return "unshare is missing: apt-get install util-linux"
    done = subprocess.run((*_unshare(), "true"), capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip()


def _read_only(folder: Path) -> str:
    return f"mount -o remount,bind,ro {shlex.quote(str(folder))}"


def _chroot() -> str:
    """Return the program, which a user's PATH may leave out."""
    return shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin:/bin") or "chroot"


def _unshare() -> tuple[str, ...]:
    as_root = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    return ("unshare", *as_root, "--mount", "--propagation", "private", "--pid", "--fork",
            "--kill-child")  # fmt: skip
