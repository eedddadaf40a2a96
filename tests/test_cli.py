"""The command line: one clear line for a mistake, the right exit status, help that teaches."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from shoestring.cli import COMMANDS, cli
from shoestring.testing.synthetic import write_synthetic_run

TINY = str(Path(__file__).parent / "data" / "tiny.toml")


def call(*words: str, **options) -> subprocess.CompletedProcess:
    """Run the command line as a user does."""
    code = "from shoestring.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, **options
    )


def test_help_names_every_command():
    """The first page shows each command with what it does, and imports none of them."""
    done = call("--help")

    assert done.returncode == 0
    assert all(f"{name} " in done.stdout and text[:30] in done.stdout
               for name, (_, text) in COMMANDS.items())  # fmt: skip
    code = (
        "import sys; from shoestring.cli import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'matplotlib', 'requests', 'psutil', 'gguf', 'papermill'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches(name):
    """Each command's help says what it does, and each option and argument what it is."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    parts = command.commands.values() if isinstance(command, click.Group) else [command]

    for part in parts:
        assert part.help
        options = [p for p in part.params if isinstance(p, click.Option) and p.name != "help"]
        assert all(option.help for option in options), part.name
    assert call(name, "--help").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "smok"], "unknown suite 'smok': give chat, code, cold-start, concurrency"),
        (["run", "smoke", "--model", "pypi:gema3-270m"], "pypi:gemma3-270m"),
        (["run", "smoke", "--engine", "vroom"], "unknown engine 'vroom'"),
        (["run", "smoke", "--requests", "0"], "--requests"),
        (["run", "smoke", "--base-url", "nowhere"], "base URL 'nowhere'"),
        (["run", "smoke", "--model", "m", "--base-url", "http://127.0.0.1:9"], "no server answers"),
        (["run", "smoke", "--model", "file:/dev/null"], "/dev/null"),
        (["report", "nowhere"], "nowhere"),
        (["compare", "nowhere", "nowhere"], "nowhere"),
        (["models", "show", "file:nowhere.gguf"], "nowhere.gguf"),
        (["notebook", "01_measure", "-p", "sute", "smoke"], "sute"),
        (["notebook", "99_nothing"], "99_nothing"),
        (["nonsense"], "nonsense"),
    ],
)
def test_mistakes_are_one_clear_line(words, message, tmp_path):
    """A user's mistake is named on stderr without a traceback, exit 2, and nothing is written."""
    done = call(*words, cwd=tmp_path)

    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if "Error" in line]) == 1
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_a_suite_with_an_error_names_the_line(tmp_path):
    """The line of a mistake in a suite file reaches the user."""
    suite = tmp_path / "mine.toml"
    suite.write_text('name = "mine"\nblocks = "five"\n')

    done = call("run", str(suite))

    assert done.returncode == 2
    assert "mine.toml" in done.stderr


def test_json_is_one_object_and_nothing_else(tmp_path, truth_url):
    """With --json stdout is one object: run's, report's, compare's, doctor's and models'."""
    model = ["--base-url", truth_url, "--model", "truth-ttft2-itl1-n8"]
    run = json.loads(call("run", TINY, *model, "--out", str(tmp_path), "--json").stdout)
    other = str(write_synthetic_run(tmp_path / "other"))

    assert set(run) == {"run_id", "path", "status"}
    assert json.loads(call("report", run["path"], "--json").stdout)["status"] == "complete"
    assert json.loads(call("compare", other, other, "--json").stdout)
    assert set(json.loads(call("doctor", "--json").stdout)["engines"]) >= {"embedded", "ollama"}
    assert json.loads(call("models", "list", "--json").stdout)


def test_the_key_reaches_no_record(tmp_path, truth_url, monkeypatch):
    """The API key stands in no file of a run and in nothing that is printed."""
    monkeypatch.setenv("SHOESTRING_API_KEY", "sk-very-secret-key")
    done = call("run", TINY, "--base-url", truth_url, "--requests", "3",
                "--model", "truth-ttft2-itl1-n8", "--out", str(tmp_path))  # fmt: skip

    assert done.returncode == 0
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"secret" not in written + done.stdout.encode() + done.stderr.encode()
