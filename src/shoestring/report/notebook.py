"""Finding and executing notebooks.

Papermill runs a notebook in a fresh kernel and saves it as it goes. Two of its habits are mended
here. It takes unknown parameters (``parameters.check_parameters`` refuses them first), and what it
saves after a killed kernel or a timeout looks like success, so nothing here ever reads success out
of a notebook: the call returns or raises, and a run is complete only if its own manifest says so.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring import errors
from shoestring.errors import BadValueError, InterruptedRunError, ShoestringError
from shoestring.report.parameters import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_AUTOSAVE_S = 10
_JUPYTER_FOLDERS = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")
# The kernel's own log tells of its transport and of being interrupted: nothing for the user.
_QUIET_KERNEL = "--log-level=CRITICAL"


def find_notebook(name: str) -> Path:
    """Return the path of a notebook: a file, or the name of one that comes with the package.

    Raises:
        BadValueError: there is none of that name; the message names those that there are.
    """
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    package = Path(__file__).parents[1]
    # An installed wheel carries the notebooks; in a checkout they stand beside src/.
    folders = (package / "notebooks", package.parents[1] / "notebooks")
    known = {path.stem: path for folder in folders for path in sorted(folder.glob("*.ipynb"))}
    stem = name.removesuffix(".ipynb")
    if stem not in known:
        raise BadValueError(
            f"no notebook {name!r}{nearest(stem, known)}; known: {', '.join(known) or 'none'}"
        )
    return known[stem]


def execute_notebook(path: Path, out: Path, parameters: dict[str, Any], *, progress: bool) -> None:
    """Execute a notebook in a fresh kernel, in the working folder of the caller.

    Args:
        path: the notebook; it is not changed.
        out: the executed copy, saved every ten seconds and at the end, also of a failure.
        parameters: checked values.
        progress: show what the cells print, on stderr.

    Raises:
        ShoestringError: a cell failed or the kernel died; the line is the cell's own. An error
            of this package comes back as its own class.
        InterruptedRunError: SIGINT or SIGTERM came; the kernel was interrupted and ended.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    out.parent.mkdir(parents=True, exist_ok=True)
    log = sys.stderr if progress else None
    try:
        with _home_untouched(), _termination_as_interrupt():
            papermill.execute_notebook(
                str(path), str(out), parameters=parameters,
                kernel_name="python3", language="python", progress_bar=False, log_output=False,
                stdout_file=log, stderr_file=log,
                autosave_cell_every=_AUTOSAVE_S, extra_arguments=[_QUIET_KERNEL],
            )  # fmt: skip
    except PapermillExecutionError as error:
        raise _own_error(path, error.ename, error.evalue) from error
    except DeadKernelError as error:
        raise ShoestringError(
            f"{path.name}: the kernel died, most likely for want of memory; take a smaller model, "
            "or resume the run"
        ) from error
    except KeyboardInterrupt as error:
        raise InterruptedRunError(f"{path.name} was stopped; its run can be resumed") from error


def _own_error(path: Path, name: str, value: str) -> ShoestringError:
    line = (value.strip().splitlines() or ["no message"])[-1]
    own = getattr(errors, name, None)
    if isinstance(own, type) and issubclass(own, ShoestringError):
        return own(line)
    return ShoestringError(f"{path.name}: {name}: {line}")


@contextmanager
def _home_untouched() -> Iterator[None]:
    """Give Jupyter a folder that is removed again, instead of the user's home.

    It keeps there the keys of the kernel's connection and a history. What the user has set stays.
    """
    with tempfile.TemporaryDirectory(prefix="shoestring-") as scratch:
        ours = {name: scratch for name in _JUPYTER_FOLDERS if name not in os.environ}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name in ours:
                del os.environ[name]


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that the kernel is ended on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
