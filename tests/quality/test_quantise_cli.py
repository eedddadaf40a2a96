"""``shoestring quantise`` as a user calls it."""

import json
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from shoestring.errors import BadModelError, BadValueError
from shoestring.models.header import read_header
from shoestring.quality.cli import quantise

COMMAND = (
    sys.executable, "-c",
    "from shoestring.cli import main; main()", "quantise",
)  # fmt: skip


@pytest.fixture
def hanging(quantiser, tmp_path, monkeypatch):
    """A llama-quantize on PATH that stops half-way: a line, half a file, and no end."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "llama-quantize"
    program.write_text(
        f'#!/bin/sh\ncase "$1" in --*) exec {quantiser.program} "$@";; esac\n'
        'echo half > "$2"\necho "[   1/  20] token_embd.weight - done"\nsleep 600 & wait\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return program


@pytest.mark.usefixtures("quantiser")
def test_json_is_one_object_and_the_progress_goes_to_stderr(tiny_f16, tmp_path):
    """A script gets every figure; a person sees how far it is."""
    out = tmp_path / "made.gguf"

    done = CliRunner().invoke(quantise, [str(tiny_f16), "q4_k_m", "--out", str(out), "--json"])

    assert done.exit_code == 0, done.exception
    made = json.loads(done.stdout)
    assert made["path"] == str(out)
    assert made["file_bytes"] == out.stat().st_size
    assert made["kind"] == "Q4_K_M"
    assert sum(made["tensors"].values()) == len(read_header(out).tensors)
    assert "made.gguf: 100 %" in done.stderr


@pytest.mark.usefixtures("quantiser")
def test_people_read_sizes_bits_and_types(tiny_f16, tmp_path):
    """What it was, what it is, and of what tensors."""
    out = tmp_path / "made.gguf"

    done = CliRunner().invoke(quantise, [f"file:{tiny_f16}", "q8_0", "--out", str(out)])

    assert done.exit_code == 0, done.exception
    for part in (str(out), "F16 -> Q8_0", "bits per weight  16.", " -> 8.5", "Q8_0", "sha256"):
        assert part in done.stdout


@pytest.mark.usefixtures("quantiser")
def test_mistakes_are_told_before_anything_is_made(tiny_f16, tmp_path):
    """An unknown type, an unknown source and a place that is taken."""
    taken = tmp_path / "taken.gguf"
    taken.touch()
    call = CliRunner().invoke

    assert isinstance(call(quantise, [str(tiny_f16), "q4"]).exception, BadValueError)
    assert isinstance(call(quantise, ["no.gguf", "q4_0"]).exception, BadModelError)
    done = call(quantise, [str(tiny_f16), "q4_0", "--out", str(taken)])

    assert isinstance(done.exception, BadValueError)
    assert taken.stat().st_size == 0


@pytest.mark.usefixtures("hanging")
def test_ctrl_c_leaves_nothing(tiny_f16, tmp_path):
    """The tool is ended, half a file is removed, and the status is that of an interruption."""
    out = tmp_path / "out"
    out.mkdir()
    with subprocess.Popen(
        [*COMMAND, str(tiny_f16), "q4_k_m", "--out", str(out / "made.gguf")],
        stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stderr is not None
        assert any("made.gguf: " in line for line in child.stderr)  # it has begun
        assert list(out.glob("*/made.gguf"))
        child.send_signal(signal.SIGINT)
        assert "interrupted" in child.stderr.read()
    assert child.returncode == 130
    assert list(out.iterdir()) == []
