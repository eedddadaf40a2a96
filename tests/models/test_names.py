from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadModelError
from shoestring.models.names import ModelName, parse_model_name


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("pypi:gemma3-270m", ModelName("pypi", "gemma3-270m")),
        ("file:models/a b.gguf", ModelName("file", "models/a b.gguf")),
        ("file:C:/x.gguf", ModelName("file", "C:/x.gguf")),
    ],
)
def test_known_names_are_parsed_and_print_as_they_were_typed(text, parsed):
    """A known scheme is split from the rest, and the parsed name prints as the text."""
    assert parse_model_name(text) == parsed
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text", ["pypi:gema3-270m", "gemma3-270m", "gemma3_270m", "PYPI:gemma3-270m", "pypi:gemma3"]
)
def test_a_near_miss_is_answered_with_the_nearest_name(text):
    """A misspelt name gets the name that was probably meant."""
    with pytest.raises(BadModelError, match="did you mean pypi:gemma3-270m"):
        parse_model_name(text)


@pytest.mark.parametrize(
    "text", ["ollama:qwen2.5:7b", "hf:o/r/f.gguf", "shape:llama-3.1-8b:q4_k_m"]
)
def test_schemes_of_other_versions_name_base_url(text):
    """A scheme that this version does not run says so, and what to use instead."""
    with pytest.raises(BadModelError, match="--base-url"):
        parse_model_name(text)


def test_a_bare_path_of_a_file_is_answered_with_file(tmp_path: Path):
    """Who forgot the scheme before a path is told to add it."""
    path = tmp_path / "some.gguf"
    path.touch()
    with pytest.raises(BadModelError, match="did you mean file:"):
        parse_model_name(str(path))


@pytest.mark.parametrize(
    "text", ["", "file:", "pypi:", "nonsense", "x" * 5000, "pypi:a\nb", "file:\x00"]
)
def test_anything_else_is_refused_in_one_short_line(text):
    """The error of a hopeless name is one line of bounded length."""
    with pytest.raises(BadModelError) as caught:
        parse_model_name(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["x" * 300, "/" + "x" * 300, "a/" * 2000])
def test_a_name_that_is_too_long_for_a_path_is_only_unknown(text):
    """The hint for a forgotten file: never breaks on what the system takes for no path."""
    with pytest.raises(BadModelError, match="unknown model"):
        parse_model_name(text)


@pytest.mark.parametrize("text", ["pypi:a\nb", "file:\x00", "\udcff", "file:a\u202e.gguf"])
def test_a_name_that_cannot_be_printed_says_so(text):
    """The error names the one thing that is wrong, in characters that can be printed."""
    with pytest.raises(BadModelError, match="cannot be printed") as caught:
        parse_model_name(text)
    assert str(caught.value).isprintable()


def test_the_home_of_nobody_is_a_mistake(monkeypatch):
    """A tilde is the user's home; that of a user who does not exist is refused."""
    monkeypatch.setenv("HOME", "/some/home")
    assert parse_model_name("file:~/x.gguf").path == Path("/some/home/x.gguf")
    with pytest.raises(BadModelError, match=r"'file:~nosuch/x\.gguf': no such home folder"):
        _ = parse_model_name("file:~nosuch/x.gguf").path


@given(st.text())
def test_no_text_breaks_the_parser(text):
    """Any text is parsed to itself or refused; nothing else is raised."""
    with suppress(BadModelError):
        assert str(parse_model_name(text)) == text
