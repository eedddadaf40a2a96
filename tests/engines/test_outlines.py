"""What a model's name leads to: an outline, and a file where there is one; nothing is fetched."""

import re
from dataclasses import replace

import pytest

from shoestring.engines.launch import free_port
from shoestring.engines.ollama import OllamaEngine
from shoestring.engines.outlines import find_model
from shoestring.errors import BadModelError, MissingError
from shoestring.models.header import read_header
from shoestring.models.outline import outline_of_header, outline_of_shape
from shoestring.models.shape_files import fetch_shape
from shoestring.paths import cache_dir
from shoestring.testing.engines import need_program

SHAPE = "tipo-100m/1:q8_0"


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A cache that holds nothing yet."""
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path))
    return tmp_path


def make_shape(cache):
    """Make the synthetic model in a cache; return its path."""
    made = fetch_shape(
        SHAPE, cache=cache, progress=lambda *_: None, free_bytes=lambda _: 1 << 40, say=print
    )
    return made.path


@pytest.mark.parametrize("text", [SHAPE, f"shape:{SHAPE}"])
def test_a_shape_needs_no_scheme_and_no_file(text, empty_cache):
    """It is outlined by its name alone; its file is told once it is made."""
    found = find_model(text)
    assert (found.name, found.path) == (f"shape:{SHAPE}", None)
    assert found.outline == outline_of_shape(SHAPE)
    assert not [*empty_cache.iterdir()]
    path = make_shape(empty_cache)
    assert find_model(text).path == path


def test_a_file_is_outlined_by_its_header(tmp_path):
    """And its path is the one that was given."""
    path = make_shape(tmp_path)
    found = find_model(f"file:{path}")
    assert (found.name, found.path) == (f"file:{path}", path)
    assert found.outline.tensors == outline_of_shape(SHAPE).tensors


def test_a_model_of_the_catalogue_is_found_in_the_cache(small_model):
    """By the header of its file there."""
    found = find_model("pypi:gemma3-270m")
    assert (found.name, found.path) == ("pypi:gemma3-270m", small_model.path)
    assert found.outline == outline_of_header(read_header(small_model.path))


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("pypi:gemma3-270m", "fetch it with shoestring models get pypi:gemma3-270m"),
        ("hf:a/b/c.gguf",
         "fetch it with shoestring models get hf:a/b/c.gguf, and plan the path that this prints"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_here_is_named_with_what_brings_it(text, mend):
    """One line, and nothing is fetched."""
    with pytest.raises(MissingError) as told:
        find_model(text)
    assert str(told.value) == f"{text} is not here: {mend}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file:no-such.gguf", "no-such.gguf"),
        ("llama-3.1-8b:q99", "q99"),
        ("llama-9000b:q4_0", "unknown model 'llama-9000b:q4_0'"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(text, said):
    """It names what was given."""
    with pytest.raises(BadModelError, match=re.escape(said)) as told:
        find_model(text)
    assert "\n" not in str(told.value)


def test_no_ollama_is_started_to_tell_of_its_models(monkeypatch):
    """Where none runs, the line says so."""
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    with pytest.raises(MissingError) as told:
        find_model("ollama:qwen2.5:7b")
    assert str(told.value) == (
        "ollama:qwen2.5:7b: no Ollama is running that would know it: start ollama serve"
    )


@pytest.mark.engine
def test_a_running_ollama_tells_what_the_header_of_the_file_does(small_model, monkeypatch):
    """All that decides memory but the rules of the tokenizer, which it does not show."""
    need_program("ollama")
    with OllamaEngine(small_model, store=cache_dir() / "ollama", endpoint="completions") as engine:
        monkeypatch.setenv("OLLAMA_HOST", engine._address.url)
        found = find_model(f"ollama:{engine.model_id}")
        with pytest.raises(BadModelError, match="is not in Ollama's library here: ollama pull"):
            find_model("ollama:no-such-model-of-ours")
    read = outline_of_header(read_header(small_model.path))
    assert found.path is None
    assert set(found.outline.tensors) == set(read.tensors)
    # Ollama keeps no name of the file's, and writes a number of 32 bits in its shortest form.
    beside = {"name": read.shape.name, "norm_epsilon": read.shape.norm_epsilon}
    assert replace(found.outline.shape, **beside) == read.shape
    assert found.outline.quantisation == read.quantisation
