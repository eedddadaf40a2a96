"""Ollama's build with a Go that plays a part, and the commands around the installer."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shoestring.engines.discovery import find_engines, find_program
from shoestring.engines.install import ollama
from shoestring.engines.install.answers import why_not_pinned
from shoestring.engines.install.pins import find_pin, find_pinned_program, load_pins
from shoestring.engines.install.steps import Site
from shoestring.errors import BadValueError, MissingError, ShoestringError
from shoestring.testing.engines import REQUIRE, need_program

PROGRAMS = [Path(path).name for pin in load_pins().values() for path in pin.programs]
# Writes the module's folder, then "builds" a script that says what Go was told.
GO = """#!/bin/sh
case "$1" in
version) echo go version {version} linux/amd64 ;;
mod) mkdir -p module; echo "go: finding"; printf '{{\\n"Sum": "{h1}",\\n"Dir": "%s"\\n}}\\n' "$PWD/module" ;;
build)
  while [ "$1" != -o ]; do shift; done
  mkdir -p "$(dirname "$2")"
  printf '#!/bin/sh\\necho "%s" "%s"\\n' "client version is 0.32.15" "$PWD $GOFLAGS $GOPATH" > "$2"
  chmod +x "$2" ;;
esac
"""  # noqa: E501 - a script


@pytest.fixture
def site(tmp_path):
    """Where Ollama is being made."""
    cache = tmp_path / "engines"
    site = Site(
        load_pins()["ollama"], cache / "x" / "made", cache / "x" / "scratch", cache / "log",
        lambda _line: None,
    )  # fmt: skip
    site.folder.mkdir(parents=True)
    site.scratch.mkdir()
    return site


@pytest.fixture
def put_go(tmp_path, monkeypatch):
    """Return what puts a Go of some version, which finds some hash, first on PATH."""

    def put(version: str = "go1.26.1", h1: str = load_pins()["ollama"].source["h1"]) -> None:
        tools = tmp_path / "tools"
        tools.mkdir()
        (tools / "go").write_text(GO.format(version=version, h1=h1))
        (tools / "go").chmod(0o755)
        monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
        for name in ("GOPATH", "GOMODCACHE", "GOCACHE", "GOFLAGS"):
            monkeypatch.delenv(name, raising=False)

    return put


def test_ollama_is_built_in_the_pinned_module(site, put_go):
    """In the module's own folder, with Go's caches in the scratch folder; helpers are linked."""
    put_go()
    assert ollama.from_source(site) == site.pin.source["h1"]
    assert why_not_pinned(site.folder, site.pin) is None
    said = subprocess.run([site.folder / "bin/ollama"], capture_output=True, text=True, check=True)
    assert f"{site.scratch}/module -modcacherw {site.scratch}/go" in said.stdout
    link = (site.folder / "lib/ollama/llama-server").readlink()
    # From lib/ollama/ of the engine's folder, to the folder beside that one.
    assert Path(os.path.normpath("engines/ollama/lib/ollama" / link)) == (
        load_pins()["llama.cpp"].folder(Path()) / "bin/llama-server"
    )


def test_a_users_own_go_folders_are_used(site, put_go, monkeypatch, tmp_path):
    """Where the user placed the modules, they are not fetched twice."""
    put_go()
    monkeypatch.setenv("GOPATH", str(tmp_path / "own"))
    monkeypatch.setenv("GOFLAGS", "-v")
    ollama.from_source(site)
    said = subprocess.run([site.folder / "bin/ollama"], capture_output=True, text=True, check=True)
    assert f"-v -modcacherw {tmp_path / 'own'}" in said.stdout


def test_a_module_that_is_not_the_pinned_one_is_refused(site, put_go):
    """Nothing is built of it."""
    put_go(h1="h1:other")
    with pytest.raises(
        MissingError, match=r"refused: its hash is h1:other, not the pinned h1:lnCy"
    ):
        ollama.from_source(site)
    assert not (site.folder / "bin").exists()


@pytest.mark.parametrize("version", ["go1.19.8", "go1.25.9", "nothing", "go0.99"])
def test_an_old_go_is_refused(site, put_go, version):
    """With the version that is there, and what brings a newer one."""
    put_go(version=version)
    with pytest.raises(MissingError, match=rf"go 1\.26 or newer is needed.*{version}.*go\.dev/dl"):
        ollama.from_source(site)


def test_without_go_the_mend_is_named(site, monkeypatch, tmp_path):
    """A machine with no Go at all."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"go 1\.26 or newer is missing: get it from go\.dev/dl"):
        ollama.from_source(site)


def test_a_child_that_fails_says_why_and_where_its_log_is(site):
    """Its last line of an error, not the last line at all."""
    script = "echo fine; echo 'fatal error: no foo.h'; echo stopping; exit 3"
    with pytest.raises(ShoestringError) as caught:
        site.run(("sh", "-c", script), mend="install foo")
    assert str(caught.value) == (
        "ollama 0.32.15 was not made: sh failed (fatal error: no foo.h); install foo; "
        f"the log is {site.log}"
    )
    assert "stopping" in site.log.read_text()


def test_an_unstamped_build_is_known_by_its_module(tmp_path):
    """A bare `go install` says 0.0.0; the binary's own note of its module is believed instead."""
    pin = load_pins()["ollama"]
    program = tmp_path / "bin" / "ollama"
    program.parent.mkdir()
    for note, problem in ((pin.source["h1"], None), ("h1:x", "says 'client version is 0.0.0'")):
        program.write_text(f"#!/bin/sh\necho client version is 0.0.0\n# {note}\n")
        program.chmod(0o755)
        found = why_not_pinned(tmp_path, pin)
        assert found is None if problem is None else problem in found


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_real_programs_start(name):
    """Each that is here answers; those of the cache are the pinned ones."""
    program = need_program(name)
    pin = find_pin(name)
    assert why_not_pinned(program.parents[1], pin) is None or not program.is_relative_to(
        pin.folder(program.parents[2].parent)
    )


def test_a_missing_engine_skips_or_fails(tmp_path, monkeypatch):
    """With the command that brings it; in CI it fails, unless nothing could bring it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path))
    monkeypatch.delenv(REQUIRE, raising=False)
    mend = "llama-bench is missing.*: shoestring engines install llama.cpp"
    with pytest.raises(pytest.skip.Exception, match=mend):
        need_program("llama-bench")
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match=mend):
        need_program("llama-bench")
    with pytest.raises(pytest.skip.Exception, match="koboldcpp is missing: download it"):
        need_program("koboldcpp")


def test_the_users_own_program_comes_before_the_pinned_one(tmp_path, monkeypatch):
    """PATH, then the cache, then nothing; doctor says where and what would bring it."""
    pinned = load_pins()["ollama"].folder(tmp_path) / "bin" / "ollama"
    own = tmp_path / "own" / "ollama"
    for program in (pinned, own):
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\necho version 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(own.parent))
    assert find_program("ollama") == own
    own.unlink()
    assert find_program("ollama") == pinned
    monkeypatch.setenv("PATH", f"{own.parent}:/usr/bin:/bin")
    found = find_engines()
    assert (found["ollama"].path, found["ollama"].mend) == (str(pinned), None)
    assert found["llama-server"].mend == "shoestring engines install llama-server"
    pinned.chmod(0o644)  # not to be started
    assert find_program("ollama") is None


def test_names_of_engines_and_of_their_programs():
    """Both name an engine; others are refused with what there is."""
    assert find_pin("ollama").name == "ollama"
    assert find_pin("llama-bench") == find_pin("llama.cpp")
    with pytest.raises(BadValueError, match=r"no engine 'vllm' .* llama\.cpp, ollama"):
        find_pin("vllm")
    assert find_pinned_program("vllm", Path("none")) is None


def test_every_pin_has_its_hash():
    """Of the archives and the sources, in the form in which it is compared."""
    for pin in load_pins().values():
        assert pin.releases
        hashes = [release.sha256 for release in pin.releases.values()]
        assert all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes)
        assert all(pin.version in r.address or pin.source["build"] in r.address
                   for r in pin.releases.values())  # fmt: skip
    assert re.fullmatch("[0-9a-f]{64}", load_pins()["llama.cpp"].source["sha256"])


def test_the_list_of_engines_as_json(tmp_path):
    """One object; what is not there has nulls."""
    done = subprocess.run(
        [Path(sys.executable).with_name("shoestring"), "engines", "list", "--json"],
        env=os.environ | {"SHOESTRING_CACHE": str(tmp_path)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    engines = json.loads(done.stdout)["engines"]
    assert list(engines) == ["llama.cpp", "ollama"]
    assert engines["ollama"] == {
        "version": "0.32.15", "installed": False, "how": None, "source": None,
        "installed_at": None, "folder": str(tmp_path / "engines/ollama-0.32.15"),
        "programs": ["bin/ollama"],
    }  # fmt: skip
