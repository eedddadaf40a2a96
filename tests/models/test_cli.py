import json

import pytest
from click.testing import CliRunner

from shoestring.errors import BadModelError, BadValueError, MissingError
from shoestring.models.catalogue import CATALOGUE
from shoestring.models.cli import models


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command with an empty cache; errors pass through as they are."""
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path / "cache"))

    def call(*args: str) -> str:
        return CliRunner().invoke(models, args, catch_exceptions=False).stdout

    return call


def test_list_names_what_can_be_fetched(run):
    """Each model of the catalogue stands there with its state, for people and for programs."""
    assert "pypi:gemma3-270m" in run("list")
    (row,) = json.loads(run("list", "--json"))["models"]
    assert (row["name"], row["cached"], row["path"]) == ("pypi:gemma3-270m", False, None)
    assert row["file_bytes"] == CATALOGUE["gemma3-270m"].file_bytes


def test_show_fetches_nothing(run, tmp_path):
    """A model that is not here shows how to get it, and no cache is made."""
    assert "shoestring models get pypi:gemma3-270m" in run("show", "pypi:gemma3-270m")
    answer = json.loads(run("show", "pypi:gemma3-270m", "--json"))
    assert (answer["facts"], answer["path"]) == (None, None)
    assert not (tmp_path / "cache").exists()


def test_show_describes_a_local_file(run, tmp_path):
    """Facts of a file are printed one a line, unknown ones as a dash."""
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    facts = json.loads(run("show", f"file:{tmp_path}/m.gguf", "--json"))["facts"]
    assert (facts["architecture"], facts["layers"], facts["heads"]) == ("llama", 3, None)
    lines = run("show", f"file:{tmp_path}/m.gguf").splitlines()
    assert ["layers", "3"] in [line.split() for line in lines]
    assert ["heads", "-"] in [line.split() for line in lines]


def test_a_wrong_name_is_an_error_of_the_user(run):
    """A misspelt model is refused, whichever the command."""
    for command in ("show", "get"):
        with pytest.raises(BadModelError, match="did you mean"):
            run(command, "pypi:gema3-270m")


def test_a_cache_that_cannot_be_looked_into_is_one_clear_line(run, monkeypatch):
    """Each command names the variable, whatever the system says of the folder."""
    for cache, kind in (("x" * 300, MissingError), ("~nosuch/x", BadValueError)):
        monkeypatch.setenv("SHOESTRING_CACHE", cache)
        for words in (["list"], ["show", "pypi:gemma3-270m"], ["get", "pypi:gemma3-270m"]):
            with pytest.raises(kind, match="SHOESTRING_CACHE"):
                run(*words)


def test_every_command_teaches_by_an_example():
    """The help of each command shows how it is typed."""
    for name in ("list", "show", "get"):
        assert (
            f"Example: shoestring models {name}"
            in CliRunner().invoke(models, [name, "--help"]).output
        )


@pytest.mark.engine
def test_get_prints_the_path_alone():
    """What a script reads from stdout is the path of a file, or one JSON object."""
    from pathlib import Path

    runner = CliRunner()
    plain = runner.invoke(models, ["get", "pypi:gemma3-270m"], catch_exceptions=False)
    assert Path(plain.stdout.strip()).is_file()
    answer = runner.invoke(models, ["get", "pypi:gemma3-270m", "--json"], catch_exceptions=False)
    assert json.loads(answer.stdout)["sha256"] == CATALOGUE["gemma3-270m"].sha256
