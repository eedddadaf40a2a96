"""What the tests of the deployment share: one payload, and programs that play a part."""

import os
import stat
import sys
from pathlib import Path

import pytest

from shoestring.stack.packaging import build_payload

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def payload():
    """The payload of this tree, built once."""
    return build_payload(ROOT)


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Return what puts a program first on PATH: it notes its words, then runs some Python."""
    folder, notes = tmp_path / "plays", tmp_path / "called"
    folder.mkdir()
    notes.touch()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def put(name: str, source: str = "") -> Path:
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\nimport sys\nwords = sys.argv[1:]\n"
            f"with open({str(notes)!r}, 'a') as notes:\n    print({name!r}, *words, file=notes)\n"
            f"{source}\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return notes

    return put
