"""What is to be quantised, and where the result lies."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadModelError, BadValueError, UserError
from shoestring.quality.sources import Source, check_place, find_source
from shoestring.quality.tool import Kind

Q8 = Kind("Q8_0", 7)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model-f16.gguf", "model-q8_0.gguf"),
        ("Model.BF16.gguf", "Model-q8_0.gguf"),
        ("model_fp32.gguf", "model-q8_0.gguf"),
        ("llama-3.1-8b.gguf", "llama-3.1-8b-q8_0.gguf"),
        ("f16.gguf", "f16-q8_0.gguf"),
    ],
)
def test_the_name_of_a_result(name, expected, tmp_path):
    """It bears the type where the source bore that of its floats."""
    (tmp_path / name).touch()

    assert find_source(str(tmp_path / name), cache=tmp_path).place(Q8) == tmp_path / expected


def test_a_folder_gives_its_name(tmp_path):
    """A checkpoint's result lies beside the folder, with dots of its version kept."""
    folder = tmp_path / "Llama-3.2-1B"
    folder.mkdir()

    source = find_source(f"file:{folder}", cache=tmp_path)

    assert source.is_folder
    assert source.place(Q8) == tmp_path / "Llama-3.2-1B-q8_0.gguf"


def test_the_current_folder_has_a_name(tmp_path, monkeypatch):
    """A dot is the folder that it stands for."""
    folder = tmp_path / "model"
    folder.mkdir()
    monkeypatch.chdir(folder)

    assert find_source(".", cache=tmp_path).place(Q8) == tmp_path / "model-q8_0.gguf"


def test_what_lies_in_the_cache_gives_a_file_in_the_current_folder(tmp_path):
    """The cache holds what the package made itself, under the very name that a result has."""
    source = find_source("shape:tipo-100m/1:q4_0", cache=tmp_path)

    assert source.path.is_relative_to(tmp_path)
    assert source.place(Q8).parent == Path()


def test_what_is_not_there_is_one_line(tmp_path):
    """A wrong path, a wrong name and Ollama's names end in one clear line."""
    for text in (str(tmp_path / "no.gguf"), "file:no.gguf", "gemma", "pypi:gemma", "ollama:x"):
        with pytest.raises(BadModelError) as caught:
            find_source(text, cache=tmp_path)
        assert len(str(caught.value).splitlines()) == 1


@given(st.text(max_size=300))
def test_any_text_is_a_source_or_a_mistake(text):
    """No path or name, however odd, ends in a traceback."""
    try:
        source = find_source(f"file:/nowhere/{text}", cache=Path("/nowhere"))
    except UserError:
        return
    assert source.path.exists()


def make_source(path: Path) -> Source:
    """A file that is there."""
    path.touch()
    return Source(str(path), path, is_folder=False, beside=path.parent)


def test_a_place_that_is_taken_needs_force(tmp_path):
    """Nothing is overwritten unawares, and the source itself never."""
    source, out = make_source(tmp_path / "a.gguf"), tmp_path / "b.gguf"
    out.touch()

    with pytest.raises(BadValueError, match="exists: name another file with --out, or give --f"):
        check_place(out, source, force=False)
    check_place(out, source, force=True)
    with pytest.raises(BadValueError, match="is the source itself"):
        check_place(source.path, source, force=True)


def test_a_place_has_to_be_a_file_in_a_folder(tmp_path):
    """A folder, and a file in a folder that is not there, are refused."""
    source = make_source(tmp_path / "a.gguf")

    with pytest.raises(BadValueError, match="is a folder"):
        check_place(tmp_path, source, force=True)
    with pytest.raises(BadValueError, match="does not exist; make it first"):
        check_place(tmp_path / "no" / "b.gguf", source, force=True)
