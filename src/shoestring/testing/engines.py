"""Real engines in tests: a missing one skips the test with its mend, or fails it in CI."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NoReturn

from shoestring.engines.discovery import MENDS, find_program
from shoestring.engines.install.pins import load_pins
from shoestring.paths import cache_dir
from shoestring.stack.browser import PROGRAMS
from shoestring.stack.open_webui.environment import is_installed

if TYPE_CHECKING:
    from pathlib import Path

REQUIRE = "SHOESTRING_REQUIRE_ENGINES"


def need_program(name: str) -> Path:
    """Return the path of an engine's program, or end the test.

    Args:
        name: of the program, for example ``ollama`` or ``llama-bench``.

    Returns:
        The user's own on PATH, else the pinned one in the cache.
        Where there is none the test is skipped; it fails where ``SHOESTRING_REQUIRE_ENGINES=1``
        says that nothing may be skipped, if ``make engines`` would have brought the program.
    """
    import pytest

    program = find_program(name)
    if program is not None:
        return program
    engine = next((pin.name for pin in load_pins().values() if pin.path_of(name)), None)
    if engine is None:
        return pytest.skip(f"{name} is missing: {MENDS.get(name, 'put it on PATH')}")
    return end_test(name, f"shoestring engines install {engine}")


def need_open_webui() -> None:
    """End the test where Open WebUI's environment is not in the cache; as :func:`need_program`."""
    if not is_installed(cache_dir()):
        end_test("Open WebUI", "shoestring up, which installs it, then shoestring down")


def need_chromium() -> None:
    """End the test where no Chromium is on PATH; as :func:`need_program`."""
    if not any(map(shutil.which, PROGRAMS)):
        end_test("Chromium", "apt-get install chromium")


def end_test(name: str, mend: str) -> NoReturn:
    """Skip the test, or fail it where nothing may be missing."""
    import pytest

    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{name} is missing, and {REQUIRE}=1: {mend}", pytrace=False)
    pytest.skip(f"{name} is missing: {mend}")
