"""The installer with tiny engines: real archives, pip, CMake and compiler; no network."""

import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from backports.zstd import tarfile
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines.install import llama_cpp
from shoestring.engines.install.answers import why_not_pinned
from shoestring.engines.install.installer import install_engine
from shoestring.engines.install.marker import NAME, read_marker, write_marker
from shoestring.engines.install.pins import Pin, Probe, Release, platform_key
from shoestring.engines.install.steps import Site
from shoestring.errors import MissingError, ShoestringError
from shoestring.hardware.gpus import Gpus

SCRIPT = b"#!/bin/sh\necho tool version 7 >&2\n"
CMAKE = """
cmake_minimum_required(VERSION 3.10)
project(tiny C)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_executable(tool tool.c)
target_compile_definitions(tool PRIVATE BUILD="${LLAMA_BUILD_NUMBER}-${LLAMA_BUILD_COMMIT}")
"""
TOOL = '#include <stdio.h>\nint main(void) { return puts("tool version 7 " BUILD) < 0; }\n'
# A build that never ends; it says so through a FIFO, with the number of its process.
ENDLESS = """
cmake_minimum_required(VERSION 3.10)
project(tiny NONE)
add_custom_target(tool COMMAND sh -c "echo $$ > FIFO && exec sleep 600" VERBATIM)
"""
BACKEND = """
from pathlib import Path
def prepare_metadata_for_build_wheel(folder, settings=None):
    info = Path(folder, "tiny_cpp-1.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-cpp\\nVersion: 1\\n")
    return info.name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
INSTALL = """
import json, sys
from pathlib import Path
from shoestring.engines.install.installer import install_engine
from shoestring.engines.install.pins import Pin, Probe, Release
fields = json.loads(sys.argv[1])
fields["programs"] = {path: Probe(**probe) for path, probe in fields["programs"].items()}
install_engine(Pin(**fields), Path(sys.argv[2]), say=print, from_source=True)
"""


def pack(path: Path, members: dict[str, bytes]) -> str:
    """Write an archive with programs in it; return its SHA-256."""
    with tarfile.open(path, "w:zst" if path.suffix == ".zst" else "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def shop(tmp_path):
    """A vendor's folder, served on loopback."""
    folder = tmp_path / "shop"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_address():
    """An address where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/tool.tar.gz"


@pytest.fixture
def tiny_source(tmp_path, monkeypatch):
    """Return what makes a source distribution, which the real pip finds without a network."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(llama_cpp, "find_nvcc", lambda: None)

    def make(cmake: str = CMAKE, tool: str = TOOL) -> Pin:
        files = {"vendor/CMakeLists.txt": cmake, "vendor/tool.c": tool, "backend.py": BACKEND,
                 "pyproject.toml": PYPROJECT,
                 "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-cpp\nVersion: 1\n"}  # fmt: skip
        members = {f"tiny_cpp-1/{name}": text.encode() for name, text in files.items()}
        sha256 = pack(index / "tiny_cpp-1.tar.gz", members)
        source = {"package": "tiny-cpp", "sha256": sha256, "folder": "tiny_cpp-1/vendor",
                  "build": "42", "commit": "abc"}  # fmt: skip
        return Pin("llama.cpp", "1", {"bin/tool": Probe("--version", "Version 7")}, source, {})

    return make


def vendored(shop, members: dict[str, bytes], name: str = "tool.tar.gz") -> Pin:
    """Return the pin of an engine that a vendor offers, and no source has."""
    folder, address = shop
    release = Release(f"{address}/{name}", pack(folder / name, members))
    programs = {"bin/tool": Probe("--version", "Version 7")}
    return Pin("ollama", "1", programs, {"go": "99.0", "module": "m", "h1": "h1:x"},
               {platform_key(): release})  # fmt: skip


def left(cache: Path) -> set[str]:
    """Return what lies among the engines, locks and logs aside."""
    names = {path.name for path in (cache / "engines").iterdir()}
    return {name for name in names if not name.endswith((".lock", ".log"))}


def forget_files(folder: Path) -> None:
    """Make the note list no file."""
    note = json.loads((folder / NAME).read_text())
    (folder / NAME).write_text(json.dumps(note | {"files": {}}))


@pytest.fixture
def said():
    """What the user was told."""
    return []


@pytest.mark.parametrize("name", ["tool.tar.gz", "tool.tar.zst"])
def test_the_vendors_archive_is_unpacked_and_noted(shop, tmp_path, monkeypatch, said, name):
    """Programs, a note with every hash, nothing else, no tar or zstd; a second call asks nobody."""
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    pin = vendored(shop, {"bin/tool": SCRIPT, "lib/x": b"x"}, name)
    marker = install_engine(pin, tmp_path, say=said.append)
    folder = tmp_path / "engines" / "ollama-1"
    (release,) = pin.releases.values()
    assert (folder / "bin" / "tool").read_bytes() == SCRIPT
    assert (marker.how, marker.source) == ("vendor", f"sha256:{release.sha256}")
    assert set(marker.files) == {"bin/tool", "lib/x"}
    assert left(tmp_path) == {"ollama-1"}

    (shop[0] / name).unlink()
    said.clear()
    assert install_engine(pin, tmp_path, say=said.append) == marker
    assert said == ["ollama 1: there and whole (vendor)"]


@pytest.fixture
def unpacked(tmp_path):
    """Return what unpacks an archive made of some members, and gives the folder."""

    def unpack(members, only="", *, strip=0, cut=0) -> Path:
        archive, folder = tmp_path / "tool.tar.zst", tmp_path / "folder"
        with tarfile.open(archive, "w:zst") as packed:
            for member, content in members:
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
        archive.write_bytes(archive.read_bytes()[: -cut or None])
        folder.mkdir()
        pin = Pin("x", "1", {}, {}, {})
        Site(pin, folder, tmp_path, tmp_path / "log", print).unpack(
            archive, folder, only, strip=strip
        )
        return folder

    return unpack


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A program, or a link, as an archive has it."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.uid, made.gid = kind, link, 0o755, 12345, 12345
    return made


def test_links_and_modes_survive_unpacking(unpacked):
    """Soft and hard links lead where they led, without the leading folder; owners are not kept."""
    folder = unpacked(
        [(member("./v1/lib/x.so.1"), b"x"), (member("v1/lib/x.so", tarfile.SYMTYPE, "x.so.1"), b""),
         (member("v1/hard", tarfile.LNKTYPE, "v1/lib/x.so.1"), b""), (member("v2/no"), b"")],
        "v1", strip=1,
    )  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["hard", "lib"]
    assert str((folder / "lib/x.so").readlink()) == "x.so.1"
    assert (folder / "hard").samefile(folder / "lib/x.so.1")
    assert (folder / "hard").stat().st_mode & 0o777 == 0o755
    assert (folder / "hard").stat().st_uid == os.getuid()


@pytest.mark.parametrize(
    ("members", "cut", "fault"),
    [
        ([(member("../escaped"), b"x")], 0, "refused, a member leads outside"),
        (
            [(member("lib", tarfile.SYMTYPE, ".."), b""), (member("lib/escaped"), b"x")],
            0,
            "refused, a member leads outside",
        ),
        ([(member("tool"), os.urandom(100_000))], 50_000, "damaged"),
    ],
    ids=["outside", "link", "cut"],
)
def test_an_archive_that_cannot_be_trusted_is_one_line(unpacked, tmp_path, members, cut, fault):
    """Nothing lands outside the folder, and a cut archive is no shorter engine."""
    with pytest.raises(ShoestringError, match=rf"^x 1: tool.tar.zst is {fault}: ") as caught:
        unpacked(members, cut=cut)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "escaped").exists()


def test_an_archive_that_is_not_the_pinned_one_is_refused(shop, tiny_source, tmp_path, said):
    """Its hash is said, nothing of it is unpacked, and the source is built."""
    release = vendored(shop, {"bin/tool": SCRIPT}).releases[platform_key()]
    pin = replace(tiny_source(), releases={platform_key(): replace(release, sha256="0" * 64)})
    assert install_engine(pin, tmp_path, say=said.append).how == "source"
    reason = f"its sha256 is {release.sha256}, not the pinned {'0' * 64}; building from the source"
    assert any("was refused" in line and reason in line for line in said)
    assert left(tmp_path) == {"llama.cpp-1"}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (b"#!/bin/sh\necho version 8\n", "bin/tool says 'version 8', not 'Version 7'"),
        (b"\x7fELF of another machine", "bin/tool does not start (Exec format error)"),
        (b"#!/bin/sh\nkill -ILL $$\n", "ended by signal 4, Illegal instruction"),
        (b"#!/bin/sh\nexit 3\n", "bin/tool says 'exit status 3', not 'Version 7'"),
        (b"", "bin/tool does not start (Exec format error)"),
        (None, "bin/tool is missing"),
    ],
)
def test_a_program_that_is_not_the_pinned_one(tmp_path, script, reason):
    """An older C library or processor, another version, or no program: the reason is said."""
    program = tmp_path / "bin" / "tool"
    program.parent.mkdir()
    if script is not None:
        program.write_bytes(script)
        program.chmod(0o755)
    pin = Pin("x", "1", {"bin/tool": Probe("--version", "Version 7")}, {"h1": "h1:x"}, {})
    assert reason in why_not_pinned(tmp_path, pin)


def test_a_release_that_does_not_run_here_is_not_taken(shop, tiny_source, tmp_path, said):
    """The source is built, and nothing of the release is kept."""
    release = vendored(shop, {"x/tool": b"#!/bin/sh\nexit 1\n", "x/so": b""})
    pin = replace(tiny_source(), releases=release.releases)
    marker = install_engine(pin, tmp_path, say=said.append)
    assert any("not the pinned engine: bin/tool says" in line for line in said)
    assert (marker.how, set(marker.files)) == ("source", {"bin/tool"})


def test_a_gpu_that_stays_idle_is_said(shop, tmp_path, monkeypatch, said):
    """The vendor's archive is for the CPU; without nvcc it is taken, and one line says so."""
    monkeypatch.setattr(llama_cpp, "find_nvcc", lambda: None)
    monkeypatch.setattr(llama_cpp, "list_gpus", lambda: Gpus(({"name": "T4"},), None))
    pin = replace(vendored(shop, {"x/tool": SCRIPT}), name="llama.cpp")
    assert install_engine(pin, tmp_path, say=said.append).how == "vendor"
    assert [line for line in said if "no nvcc: this is for the CPU only" in line]


def test_without_the_vendor_the_source_is_built(tiny_source, closed_address, tmp_path, said):
    """The real pip, CMake and compiler make it, with the vendor's build number in it."""
    release = Release(closed_address, "0" * 64)
    pin = replace(tiny_source(), releases={platform_key(): release})
    marker = install_engine(pin, tmp_path, say=said.append)
    program = tmp_path / "engines" / "llama.cpp-1" / "bin" / "tool"
    answer = subprocess.run([program], capture_output=True, text=True, check=True)
    assert answer.stdout == "tool version 7 42-abc\n"
    assert (marker.how, marker.source) == ("source", f"sha256:{pin.source['sha256']}")
    assert any("cannot be reached (ConnectionError); building from the source" in x for x in said)
    assert "llama.cpp 1: 100 % built" in said
    assert left(tmp_path) == {"llama.cpp-1"}
    assert read_marker(program.parents[1]) == marker


@pytest.mark.parametrize("missing", ["cmake", "ninja"])
def test_build_tools_that_are_missing(tiny_source, tmp_path, monkeypatch, said, missing):
    """Make stands in for Ninja; without CMake its wheel is asked for, and the mend is named."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cmake", "make", "c++", "cc", "sh", "uname", "as", "ld"):
        if name != missing and (found := llama_cpp.shutil.which(name)):
            (tools / name).symlink_to(found)
    pin = tiny_source()
    monkeypatch.setenv("PATH", str(tools))
    if missing == "ninja":
        assert install_engine(pin, tmp_path, say=said.append, from_source=True).how == "source"
        assert "llama.cpp 1: 100 % built" in said
        return
    with pytest.raises(ShoestringError, match="apt-get install cmake ninja-build") as caught:
        install_engine(pin, tmp_path, say=said.append, from_source=True)
    assert "getting their wheels" in said[0]
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == set()


def test_a_machine_without_a_compiler_is_told_what_brings_one(tiny_source, tmp_path, monkeypatch):
    """Before anything is downloaded."""
    pin = tiny_source()
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(MissingError, match=r"c\+\+ or g\+\+ .* is missing: .*build-essential"):
        install_engine(pin, tmp_path, say=lambda _line: None, from_source=True)
    assert left(tmp_path) == set()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": {"sha256": "0" * 64}}, "HASHES"),
        ({"tool": "int main(void) { return nothing; }"}, "error: .nothing. undeclared"),
        ({"version": "2"}, "No matching distribution found"),
    ],
    ids=["hash", "code", "version"],
)
def test_a_build_that_fails_leaves_nothing(tiny_source, tmp_path, change, reason):
    """One line names the log, which has the reason; an engine that was there stays."""
    pin = tiny_source(tool=change.get("tool", TOOL))
    pin = replace(
        pin,
        version=change.get("version", "1"),
        source={**pin.source, **change.get("source", {})},
    )
    old = pin.folder(tmp_path) / "bin" / "tool"
    old.parent.mkdir(parents=True)
    old.write_text("not the pinned one")
    with pytest.raises(ShoestringError) as caught:
        install_engine(pin, tmp_path, say=lambda _line: None, from_source=True)
    log = tmp_path / "engines" / f"llama.cpp-{pin.version}.log"
    assert f"the log is {log}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert re.search(reason, log.read_text() + str(caught.value))
    assert left(tmp_path) == {f"llama.cpp-{pin.version}"}
    assert old.read_text() == "not the pinned one"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing(shop, tiny_source, tmp_path, number):
    """Ctrl-C ends the whole tree of the build; what a kill leaves, the next call removes."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pin = tiny_source(cmake=ENDLESS.replace("FIFO", str(fifo)))
    installer = subprocess.Popen(
        [sys.executable, "-c", INSTALL, json.dumps(asdict(pin)), str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    building = psutil.Process(int(fifo.read_text()))
    installer.send_signal(number)
    _, errors = installer.communicate(timeout=60)
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
        building.wait(timeout=20)
        assert left(tmp_path) == set()
        return
    assert left(tmp_path) == {f"llama.cpp-1.partial-{installer.pid}"}
    os.killpg(os.getpgid(building.pid), signal.SIGKILL)
    building.wait(timeout=20)
    released = replace(vendored(shop, {"x/tool": SCRIPT}), name="llama.cpp")
    install_engine(released, tmp_path, say=lambda _line: None)
    assert left(tmp_path) == {"llama.cpp-1"}


def test_a_folder_made_by_hand_is_adopted_if_it_answers(tiny_source, tmp_path, said):
    """Its programs are started; only then it is noted, as adopted and of unknown source."""
    pin = tiny_source()
    program = pin.folder(tmp_path) / "bin" / "tool"
    program.parent.mkdir(parents=True)
    program.write_bytes(SCRIPT)
    program.chmod(0o755)
    marker = install_engine(pin, tmp_path, say=said.append)
    assert (marker.how, marker.source, set(marker.files)) == ("adopted", None, {"bin/tool"})
    assert program.read_bytes() == SCRIPT
    assert len(said) == 1


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / "bin/tool").write_bytes(SCRIPT + b"#"), "bin/tool was changed"),
        (lambda folder: (folder / "lib").unlink(), "lib is missing"),
        (lambda folder: (folder / "bin/tool").unlink(), "bin/tool is missing"),
        (forget_files, f"bin/tool is not in {NAME}"),
    ],
)
def test_a_damaged_engine_is_made_anew(shop, tmp_path, said, damage, problem):
    """A changed or missing file, a broken link, or a note that lists nothing."""
    pin = vendored(shop, {"bin/tool": SCRIPT})
    folder = pin.folder(tmp_path)
    install_engine(pin, tmp_path, say=said.append)
    (folder / "lib").symlink_to("bin/tool")
    write_marker(folder, pin, how="vendor", source=None)
    damage(folder)
    said.clear()
    assert install_engine(pin, tmp_path, say=said.append).how == "vendor"
    assert said[0] == f"ollama 1: {problem}; making it anew"
    assert (folder / "bin" / "tool").read_bytes() == SCRIPT
    assert left(tmp_path) == {"ollama-1"}


@given(st.one_of(st.text(), st.recursive(st.none() | st.text(), st.lists).map(json.dumps)))
def test_a_note_that_cannot_be_understood_is_none(tmp_path_factory, text):
    """Whatever stands in it."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / NAME).write_text(text, encoding="utf-8", errors="surrogatepass")
    assert read_marker(folder) is None


def test_no_place_for_engines_is_one_line(tiny_source, tmp_path):
    """A file where the cache should be."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(MissingError, match=r"cannot keep engines in .*set SHOESTRING_CACHE"):
        install_engine(tiny_source(), tmp_path / "cache", say=lambda _line: None)
