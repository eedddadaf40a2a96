"""The steps that recipes share: a child whose words go to a log, tools that must be there.

Children run in a session of their own, so that Ctrl-C comes to us and we end them whole: a build
is a tree of processes, and one that lives on would write into a folder that is being removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from shoestring.errors import MissingError, ShoestringError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from backports.zstd.tarfile import TarFile, TarInfo

    from shoestring.engines.install.pins import Pin

TERMINATE_S = 5.0
KEPT_LINES = 200
SHOWN = 160  # characters of a line that says why


@dataclass(frozen=True)
class Site:
    """Where one engine is being made.

    Attributes:
        pin: what is made.
        folder: what becomes the engine's folder; empty at first.
        scratch: for what is not kept; gone afterwards, whatever happens.
        log: gets everything that the children say.
        say: given lines for the user.
    """

    pin: Pin
    folder: Path
    scratch: Path
    log: Path
    say: Callable[[str], None]

    @property
    def label(self) -> str:
        """Return what the user reads at the start of a line."""
        return f"{self.pin.name} {self.pin.version}"

    def run(
        self,
        command: Sequence[str],
        *,
        mend: str,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] = lambda _line: None,
    ) -> list[str]:
        """Run a child to its end; return its last lines.

        Args:
            command: its words.
            mend: what the user can do if it fails.
            cwd: where it stands; the scratch folder by default.
            environ: on top of the user's environment.
            on_line: given each line.

        Raises:
            ShoestringError: it failed; one line says why, and where the log is.
        """
        kept: deque[str] = deque(maxlen=KEPT_LINES)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()

            def take(line: str) -> None:
                print(line, file=log)
                kept.append(line)
                on_line(line)

            status = follow(command, cwd or self.scratch, environ or {}, take)
        if status != 0:
            raise ShoestringError(
                f"{self.label} was not made: {os.path.basename(command[0])} failed "  # noqa: PTH119
                f"({_reason(kept, status)}); {mend}; the log is {self.log}"
            )
        return list(kept)

    def unpack(self, archive: Path, folder: Path, only: str = "", *, strip: int = 0) -> None:
        """Unpack a tar archive, packed by gzip or zstd, into a folder that is there.

        No tool is asked: Kaggle and Colab have no zstd. Owners are not kept, and nothing is
        written outside the folder.

        Args:
            archive: its hash was found right.
            folder: what it holds goes there.
            only: the one folder of the archive that is wanted; all of it by default.
            strip: how many leading folders of the archive's paths are left out.

        Raises:
            ShoestringError: it is damaged, or holds what may not be unpacked.
        """
        # The standard library's, as of Python 3.14, which knows zstd; here for older ones, too.
        from backports.zstd import ZstdError, tarfile

        try:
            with tarfile.open(archive, "r|*") as packed:
                packed.extractall(folder, members=_chosen(packed, only, strip), filter="data")
        except tarfile.FilterError as error:
            raise ShoestringError(
                f"{self.label}: {archive.name} is refused, a member leads outside: {error}"
            ) from error
        except (tarfile.TarError, ZstdError, EOFError) as error:
            raise ShoestringError(f"{self.label}: {archive.name} is damaged: {error}") from error

    def pip(self, *words: str, mend: str) -> None:
        """Run the user's own pip: their index, proxy and certificates hold."""
        command = (
            sys.executable, "-P", "-m", "pip", *words, "--no-cache-dir", "--no-input",
            "--disable-pip-version-check", "--progress-bar", "off",
        )  # fmt: skip
        self.run(command, mend=mend, environ={"TMPDIR": str(self.scratch)})


def _chosen(packed: TarFile, only: str, strip: int) -> Iterator[TarInfo]:
    """Give the wanted members, one by one as they pass, under their new names."""
    wanted = PurePosixPath(only).parts
    for member in packed:
        parts = PurePosixPath(member.name).parts
        if parts[: len(wanted)] != wanted or len(parts) <= strip:
            continue
        member.name = "/".join(parts[strip:])
        if member.islnk():  # a hard link names a member of the archive, not a file beside it
            member.linkname = "/".join(PurePosixPath(member.linkname).parts[strip:])
        yield member


def need_tool(*names: str, mend: str) -> str:
    """Return the path of the first of some tools that is there.

    Raises:
        MissingError: none is; the line says what brings one.
    """
    for name in names:
        if path := shutil.which(name):
            return path
    raise MissingError(f"{' or '.join(names)} is missing: {mend}")


def follow(
    command: Sequence[str], cwd: Path, environ: Mapping[str, str], take: Callable[[str], None]
) -> int:
    """Run a program, hand on each line that it says, and return its exit status."""
    with subprocess.Popen(
        command, cwd=cwd, env={**os.environ, "LC_ALL": "C.UTF-8", **environ},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace", start_new_session=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        try:
            for line in child.stdout:
                take(line.rstrip("\n"))
            return child.wait()
        except BaseException:
            _end_group(child)
            raise


def _end_group(child: subprocess.Popen[str]) -> None:
    """End a child and all that it started; its session bears its own id."""
    for number, patience_s in ((signal.SIGTERM, TERMINATE_S), (signal.SIGKILL, None)):
        try:
            os.killpg(child.pid, number)
            child.wait(patience_s)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _reason(lines: Sequence[str] | deque[str], status: int) -> str:
    if status < 0:
        return f"ended by signal {-status}, {signal.strsignal(-status)}"
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if "error" in line.lower()]
    return (errors or said or [f"exit status {status}"])[-1][:SHOWN]
