"""Synthetic models in the cache: made once, whole or not at all."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shoestring.errors import BadModelError, MissingError
from shoestring.models import shape_files, synthesis
from shoestring.models.fetch import resolve_model

NAME = "shape:smollm2-135m/1:q4_0"

# Another process that makes the model; it says when it has begun to write, and waits.
MAKER = """
import sys
from pathlib import Path
from shoestring.models.fetch import resolve_model

def progress(done, total):
    print("writing", flush=True)
    sys.stdin.readline()

file = resolve_model(sys.argv[1], cache=Path(sys.argv[2]), progress=progress)
print(file.sha256, flush=True)
"""


def names(cache: Path) -> set[str]:
    """List what lies in the folder of shapes."""
    return {path.name for path in (cache / "models" / "shapes").iterdir()}


def never(_done: int, _total: int) -> None:
    """Fail where nothing is to be made."""
    pytest.fail("the model was made again")


@pytest.fixture
def start_maker():
    """Start a process that makes the model, and end it after the test."""
    started: list[subprocess.Popen] = []

    def start(cache: Path) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", MAKER, NAME, str(cache)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:  # closes its pipes
            process.kill()


def test_a_model_is_made_once(tmp_path):
    """The second use makes nothing and knows the digest."""
    first = resolve_model(NAME, cache=tmp_path)
    assert (first.name, first.file_bytes) == (NAME, first.path.stat().st_size)
    assert resolve_model(NAME, cache=tmp_path, progress=never) == first
    assert names(tmp_path) == {
        "smollm2-135m-1-layers-q4_0.gguf",
        "smollm2-135m-1-layers-q4_0.gguf.json",
        "smollm2-135m-1-layers-q4_0.gguf.lock",
    }


def cut(path: Path) -> None:
    """Shorten the file."""
    os.truncate(path, 1000)


def touch(path: Path) -> None:
    """Somebody wrote into the file."""
    os.utime(path, ns=(1, 1))


def forget(path: Path) -> None:
    """Lose what is known of it."""
    Path(f"{path}.json").write_text("{")


def confuse(path: Path) -> None:
    """Replace what is known of it by something else."""
    Path(f"{path}.json").write_text("[]")


@pytest.mark.parametrize("damage", [cut, touch, forget, confuse])
def test_a_file_that_changed_is_made_again(tmp_path, damage: Callable[[Path], None]):
    """Size, time and the note beside the file must agree."""
    first = resolve_model(NAME, cache=tmp_path)
    damage(first.path)
    again = resolve_model(NAME, cache=tmp_path)
    assert again == first
    assert resolve_model(NAME, cache=tmp_path, progress=never) == first


def test_a_file_of_an_older_recipe_is_made_again(tmp_path, monkeypatch):
    """What this version would write otherwise is not taken from the cache."""
    first = resolve_model(NAME, cache=tmp_path)
    monkeypatch.setattr(synthesis, "RECIPE", synthesis.RECIPE + 1)
    steps: list[int] = []
    resolve_model(NAME, cache=tmp_path, progress=lambda done, _: steps.append(done))
    assert steps[-1] == first.file_bytes


def test_configs_with_other_numbers_are_other_files(tmp_path):
    """Two configs in folders of one name do not share a file."""
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "vocab_size": 512}
    config |= {"num_attention_heads": 2, "num_hidden_layers": 1}
    paths = []
    for width in (64, 128):
        folder = tmp_path / str(width) / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config | {"hidden_size": width}))
        name = f"shape:{folder}/config.json:q8_0"
        paths.append(resolve_model(name, cache=tmp_path).path)
    assert len(set(paths)) == 2
    assert all(path.name.startswith("model-") for path in paths)


def test_an_interrupted_maker_leaves_nothing(tmp_path, start_maker):
    """Ctrl-C while the file is written: no file, no part of one."""
    maker = start_maker(tmp_path)
    assert maker.stdout.readline() == "writing\n"
    maker.send_signal(signal.SIGINT)
    _, errors = maker.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert names(tmp_path) == {"smollm2-135m-1-layers-q4_0.gguf.lock"}


def test_what_a_killed_maker_left_goes_the_next_time(tmp_path, start_maker):
    """A part of a file is never taken for the file, and does not stay."""
    maker = start_maker(tmp_path)
    assert maker.stdout.readline() == "writing\n"
    maker.kill()
    maker.wait()
    assert "smollm2-135m-1-layers-q4_0.gguf.partial" in names(tmp_path)
    file = resolve_model(NAME, cache=tmp_path)
    assert file.path.is_file()
    assert not [name for name in names(tmp_path) if "partial" in name]


def test_a_second_maker_waits_for_the_first(tmp_path, start_maker):
    """Who comes second says so, waits, and makes nothing."""
    maker = start_maker(tmp_path)
    assert maker.stdout.readline() == "writing\n"
    said: list[str] = []

    def let_go(line: str) -> None:
        said.append(line)
        maker.stdin.close()  # every further wait of the maker ends at once

    file = resolve_model(NAME, cache=tmp_path, progress=never, say=let_go)
    assert "waiting" in said[0]
    assert maker.stdout.read().split()[-1] == file.sha256


def test_no_space_is_told_before_anything_is_written(tmp_path):
    """The error names both sizes."""
    with pytest.raises(MissingError, match=r"not enough space .* shape:smollm2.* 1\.0 MB free"):
        resolve_model(NAME, cache=tmp_path, free_bytes=lambda _: 1_000_000)
    assert names(tmp_path) == {"smollm2-135m-1-layers-q4_0.gguf.lock"}


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    """A file where the cache's folder should be."""
    (tmp_path / "models").write_text("")
    with pytest.raises(MissingError, match="cannot keep models in"):
        resolve_model(NAME, cache=tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to write to")
def test_a_disk_that_fills_up_is_one_line(tmp_path, monkeypatch):
    """The system's own error of a full disk, in the middle of the data."""

    def fill(model, _out, progress):
        with Path("/dev/full").open("wb") as full:
            return synthesis.write_model(model, full, progress)

    monkeypatch.setattr(shape_files, "write_model", fill)
    with pytest.raises(MissingError, match="is full"):
        resolve_model(NAME, cache=tmp_path)
    assert names(tmp_path) == {"smollm2-135m-1-layers-q4_0.gguf.lock"}


def test_ollama_models_are_left_to_ollama(tmp_path):
    """The error names the engine that pulls them."""
    with pytest.raises(BadModelError, match="--engine ollama"):
        resolve_model("ollama:qwen2.5:7b", cache=tmp_path)
