import hashlib
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


def test_list_names_the_shapes(run):
    """Shapes and quantisations stand there briefly, for programs too."""
    assert "llama-3.1-8b" in run("list")
    shapes = json.loads(run("list", "--json"))["shapes"]
    assert "mixtral-8x7b" in shapes["names"]
    assert "q4_k_m" in shapes["quantisations"]


def test_a_shape_is_shown_without_being_made(run, tmp_path):
    """The facts of a synthetic model need no file; once it is made, its path is told."""
    answer = json.loads(run("show", "shape:llama-3.1-8b:q4_k_m", "--json"))
    assert (answer["path"], answer["facts"]["layers"]) == (None, 32)
    assert not (tmp_path / "cache").exists()
    path = run("get", "shape:smollm2-135m/1:q4_0").strip()
    assert json.loads(run("show", "shape:smollm2-135m/1:q4_0", "--json"))["path"] == path


def test_shape_lists_what_there_is(run):
    """Without a name: each shape with its parameters and its size."""
    rows = {line.split()[0]: line.split() for line in run("shape", "--quant", "q8_0").splitlines()}
    assert rows["llama-2-7b"][1:4] == ["6,738,415,616", "32", "4096"]
    listed = json.loads(run("shape", "--json"))["shapes"]
    assert listed["llama-2-7b"]["quantisation"] == "Q4_K_M"


def test_shape_shows_every_tensor(run):
    """Name, type, dimensions and bytes of each, for people and for programs."""
    lines = [line.split() for line in run("shape", "llama-3.2-1b/1").splitlines()]
    assert ["token_embd.weight", "Q6_K", "2048", "x", "128256", "215,470,080"] in lines
    tensors = json.loads(run("shape", "llama-3.2-1b/1", "--json"))["tensors"]
    assert tensors[0]["name"] == "token_embd.weight"
    assert tensors[0]["data_bytes"] == 215_470_080


def test_shape_makes_a_file_where_it_is_told(run, tmp_path):
    """The file of --out is the one that was described, and the cache stays out of it."""
    out = tmp_path / "m.gguf"
    words = ("shape", "smollm2-135m/1", "--quant", "q8_0", "--out", str(out), "--json")
    answer = json.loads(run(*words))
    assert answer["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert answer["facts"]["file_bytes"] == out.stat().st_size
    assert not (tmp_path / "cache").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_a_file_cannot_be_made_where_no_folder_is(run, tmp_path):
    """One line names the folder."""
    with pytest.raises(MissingError, match=r"nowhere/m\.gguf: No such file.*--out"):
        run("shape", "smollm2-135m/1", "--out", str(tmp_path / "nowhere" / "m.gguf"))


@pytest.mark.parametrize(
    ("name", "mend"),
    [("hf:o/r/f.gguf", "models get hf:o/r/f.gguf"), ("ollama:qwen2.5:7b", "ollama show")],
)
def test_what_is_elsewhere_cannot_be_shown(run, name, mend):
    """A model of the hub or of Ollama is not here; the error says what to do."""
    with pytest.raises(BadModelError, match=mend):
        run("show", name)


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
    for name in ("list", "show", "get", "shape"):
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
