import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoestring.engines.discovery import find_engines

FIND = """
import json
from dataclasses import asdict
from shoestring.engines.discovery import find_engines
print(json.dumps({name: asdict(found) for name, found in find_engines().items()}))
"""


def put_program(folder: Path, name: str, script: str) -> None:
    """Write a program of the user's."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def find_in_child(folder: Path, **environ: str) -> dict:
    """Look for engines as a process that stands in a folder, with other variables."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", FIND], cwd=folder, env=os.environ | environ,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("lines", "version"),
    [
        (["version: 4589 (eb7c)", "built with cc 13.3.0 for x86_64"], "version: 4589 (eb7c)"),
        (["ggml_cuda_init: found 1 CUDA devices:", "version: 4589", "built with cc 13"],
         "version: 4589"),
        (["Warning: could not connect", "Warning: client version is 0.5.1"],
         "Warning: client version is 0.5.1"),
        (["hello", "llama b4589", "built with cc 13"], "llama b4589"),
        (["hello"], None),
    ],
)  # fmt: skip
def test_the_version_is_the_line_that_tells_it(tmp_path, monkeypatch, lines, version):
    """Neither devices before it nor compilers after it are taken for the version."""
    words = "\n".join(f"echo '{line}' >&2" for line in lines)
    put_program(tmp_path, "llama-server", words)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = find_engines()["llama-server"]
    assert (found.found, found.version, found.mend) == (True, version, None)


def test_a_program_that_does_not_start_is_not_ready(tmp_path, monkeypatch):
    """A program whose library is missing is there, but cannot be used: the reason is given."""
    put_program(tmp_path, "llama-server", "echo 'libx.so: cannot open shared object' >&2; exit 127")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = find_engines()["llama-server"]
    assert (found.found, found.version) == (False, None)
    assert "does not start (libx.so: cannot open shared object): install it anew" in found.mend


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ImportError('libcuda.so.1 is missing')", "libcuda.so.1 is missing"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "Illegal instruction"),
    ],
)
def test_a_wheel_that_cannot_be_imported_is_not_ready(tmp_path, source, reason):
    """That the package lies there is not enough: it is imported, where it may crash."""
    (tmp_path / "xllamacpp.py").write_text(source)
    found = find_in_child(tmp_path, PYTHONPATH=str(tmp_path))["embedded"]
    assert (found["found"], found["version"]) == (False, None)
    assert reason in found["mend"]
    assert found["mend"].endswith("): python -m pip install xllamacpp --force-reinstall")
    assert "\n" not in found["mend"]


def test_a_file_of_the_current_folder_is_not_the_engine(tmp_path):
    """What the user has under the engine's name where they stand is not imported."""
    (tmp_path / "xllamacpp.py").write_text("raise RuntimeError('shadowed')")
    (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")
    found = find_in_child(tmp_path)["embedded"]
    assert found["found"]
    assert found["version"][0].isdigit()
