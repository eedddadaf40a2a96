"""The command line at its edges: names that no system takes, and a reader that goes away."""

import os
import subprocess
import sys

import pytest

MAIN = [sys.executable, "-c", "from shoestring.cli import main; main()"]
# Only what is still in a buffer makes a noise at the end.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize(
    ("words", "environ", "message"),
    [
        (["run", "smoke", "--model", "x" * 300], {}, "unknown model 'xxx"),
        (["run", "smoke", "--model", "a\x01b"], {}, "'a\\x01b' holds characters"),
        (["run", "smoke", "--model", b"\xff"], {}, "holds characters that cannot be printed"),
        (["run", "smoke", "--model", "file:~nosuch/x.gguf"], {}, "no such home folder"),
        (["models", "show", "file:~nosuch/x.gguf"], {}, "no such home folder"),
        (["models", "get", "file:" + "x" * 300], {}, "File name too long"),
        (["models", "list"], {"SHOESTRING_CACHE": "~nosuch/x"}, "SHOESTRING_CACHE is '~nosuch/x'"),
        (["run", "smoke"], {"SHOESTRING_CACHE": "~nosuch/x"}, "SHOESTRING_CACHE is '~nosuch/x'"),
        (["models", "list"], {"SHOESTRING_CACHE": "x" * 300}, "set SHOESTRING_CACHE"),
    ],
)  # fmt: skip
def test_names_that_no_system_takes_are_one_clear_line(words, environ, message, tmp_path):
    """What cannot be a path or a model is the user's mistake, without a traceback."""
    done = subprocess.run(
        [*MAIN, *words], cwd=tmp_path, env=os.environ | environ, capture_output=True, check=False
    )
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 2, lines
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert message in lines[0]
    assert not done.stdout


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["doctor"], ["doctor", "--json"], ["models", "list"]]
)
def test_a_reader_that_goes_away_ends_us_quietly(words):
    """`shoestring ... | true` says nothing and has the status of any tool that SIGPIPE ends."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*MAIN, *words], stdout=writing, stderr=subprocess.PIPE, env=BUFFERED, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_reader_that_goes_away_before_an_error_ends_us_quietly():
    """Also where stderr is the closed pipe (2>&1 | true)."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*MAIN, "nonsense"], stdout=writing, stderr=writing, env=BUFFERED, check=False
        )
    finally:
        os.close(writing)
    assert done.returncode == 141


def test_output_that_was_closed_is_no_failure():
    """With stdout closed (>&-) the command still does its work."""
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" >&-', "sh", *MAIN, "models", "list"],
        stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
