"""How does the package come onto a machine that has a Python with pip, and nothing of ours?

Standard library only: this file travels in the notebooks and scripts that
:mod:`shoestring.stack.packaging` builds, beside our wheel and its locks.

The package gets an environment of its own. Kaggle's and Colab's images hold hundreds of packages
that change from month to month; pinning ours among them would break theirs, and taking theirs
would measure with other versions on each day. In an environment of its own everything is what the
lock says, by hash, and the image stays as it was. So the notebook that measures also runs there,
in a kernel of that environment; what it shows is shown again in the notebook that called it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOCK, UV_LOCK = "requirements.lock", "requirements-uv.lock"
READY = "ready"
FOREIGN = (
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "MPLBACKEND", "VIRTUAL_ENV",
    # Colab points uv at its own Python and at constraints (colabtools#5237, uv#12724).
    "UV_SYSTEM_PYTHON", "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_OVERRIDE", "UV_PRERELEASE",
    "PIP_CONSTRAINT", "PIP_USER", "PIP_TARGET",
)  # fmt: skip
"""Variables of the image that would reach into our environment."""


PR_SET_PDEATHSIG = 1
LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def install(folder: Path) -> Path:
    """Make the environment, once, and put its programs first on PATH.

    Args:
        folder: where the payload lies; the environment is made in it.

    Returns:
        The environment's programs.

    Raises:
        subprocess.CalledProcessError: a step failed; what it said stands above.
    """
    environment, tools = folder / "environment", folder / "tools"
    programs = environment / "bin"
    for name in FOREIGN:
        os.environ.pop(name, None)
    if not (folder / READY).is_file():
        python = str(programs / "python")
        (wheel,) = folder.glob("*.whl")
        # uv alone comes by the image's pip, into a folder of ours: with `--target` nothing of the
        # image changes. `python -m venv` would not do: Colab's Python has no ensurepip.
        _step(
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--upgrade", "--target", str(tools), "--require-hashes", "-r", str(folder / UV_LOCK),
        )  # fmt: skip
        uv = str(tools / "bin" / "uv")
        _step(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment))
        _step(
            uv, "pip", "install", "--quiet", "--python", python, "--require-hashes",
            "-r", str(folder / LOCK),
        )  # fmt: skip
        _step(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", str(wheel))
        (folder / READY).touch()
    path = os.environ.get("PATH", os.defpath)
    if str(programs) not in path.split(os.pathsep):
        os.environ["PATH"] = f"{programs}{os.pathsep}{path}"
    return programs


def call(*words: str) -> int:
    """Run a program, show what it says as it says it, and return its exit status.

    An interrupt is handed on to it, once, so that it ends in order; on Linux it is asked to end
    when we are killed.
    """
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace", start_new_session=True,
        preexec_fn=_end_with_us if LIBC else None,  # noqa: PLW1509 - one system call, no lock
    ) as child:  # fmt: skip
        assert child.stdout is not None
        try:
            for line in child.stdout:
                print(line, end="", flush=True)
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
            print(child.stdout.read(), end="", flush=True)
            raise
        return child.wait()


def _end_with_us() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_notebook(name: str, given: Mapping[str, object], out: Path) -> Path:
    """Execute a notebook of the package in our environment, and show here what it shows.

    Args:
        name: of the notebook.
        given: its parameters.
        out: for the executed copy and the report.

    Returns:
        The report, one file that needs nothing else.

    Raises:
        RuntimeError: it failed; what it showed until then is shown, and its report is made.
    """
    copy, report = out / f"{name}.ipynb", out / f"{name}.html"
    copy.unlink(missing_ok=True)  # else an earlier one would be shown for one that never began
    words = [word for key, value in given.items() for word in ("-p", key, str(value))]
    status = call("shoestring", "notebook", name, "--out", str(copy), "--html", str(report), *words)
    if copy.is_file():
        show(copy)
    if status != 0:
        raise RuntimeError(f"{name} ended with status {status}; the lines above say why")
    return report


def show(copy: Path) -> None:
    """Show the prose, tables and figures of an executed notebook in the one that is running.

    What its cells printed was seen while it ran.
    """
    from IPython.display import Markdown, display, publish_display_data

    for cell in json.loads(copy.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            display(Markdown("".join(cell["source"])))
        for output in cell.get("outputs", ()):
            if "data" in output:
                data = {
                    kind: "".join(value) if isinstance(value, list) else value
                    for kind, value in output["data"].items()
                }
                publish_display_data(data, output["metadata"])


def _step(*words: str) -> None:
    if (status := call(*words)) != 0:
        raise subprocess.CalledProcessError(status, words)
