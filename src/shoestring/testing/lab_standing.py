"""The lab that ``shoestring lab up`` leaves running: one a user, in ``lab/`` of the state folder.

Whether it lives is said by the lock on its folder, which the kernel takes back; so nothing is left
beside the folder, and nothing at all after :func:`take_down`.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError, MissingError
from shoestring.paths import state_dir
from shoestring.testing.lab import KEEPER_PID, Lab, begin, end, hold, is_held, remove_rest
from shoestring.testing.lab_keeper import STAY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shoestring.testing.lab_plan import LabPlan


def lab_folder() -> Path:
    """Return the folder of the lab that outlives its command."""
    return state_dir() / "lab"


def bring_up(plan: LabPlan) -> Lab:
    """Bring the lab up and let it go on without us.

    Raises:
        BadValueError: one is up.
        ShoestringError: as for :func:`shoestring.testing.lab.lab`; nothing is left.
    """
    folder = lab_folder()
    with _changing(folder):
        if is_held(folder):
            raise BadValueError("a lab is up: shoestring lab down")
        remove_rest(folder)
        folder.mkdir(mode=0o700)
        held = hold(folder)
        try:
            keeper = begin(plan, folder, held)
            try:
                running = Lab(folder)
                assert keeper.stdin is not None
                keeper.stdin.write(STAY)
            except BaseException:  # Ctrl-C, too
                end(keeper)
                raise
        except BaseException:
            os.close(held)
            remove_rest(folder)
            raise
        os.close(held)
        return running


def standing() -> Lab | None:
    """Return the lab that is up, or None."""
    folder = lab_folder()
    return Lab(folder) if is_held(folder) else None


def required() -> Lab:
    """Return the lab that is up.

    Raises:
        MissingError: none is.
    """
    running = standing()
    if running is None:
        raise MissingError("no lab is up: shoestring lab up")
    return running


def take_down() -> bool:
    """End the lab and remove all that is left of it, or of a dead one; say whether one was up."""
    folder = lab_folder()
    with _changing(folder):
        was_up = is_held(folder)
        if was_up:
            with suppress(ProcessLookupError):  # killed just now; process 1 is on its way
                os.kill(int((folder / KEEPER_PID).read_text()), signal.SIGTERM)
            with suppress(FileNotFoundError):  # the keeper was faster
                os.close(hold(folder))
        remove_rest(folder)
    return was_up


@contextmanager
def _changing(folder: Path) -> Iterator[None]:
    """Hold the one right to bring the lab up or down: a lock on the folder above, no file."""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = hold(folder.parent)
    except OSError as error:
        raise MissingError(
            f"cannot keep a lab in {folder}: {error.strerror}; set SHOESTRING_STATE to a folder "
            "that you can write"
        ) from error
    try:
        yield
    finally:
        os.close(lock)
