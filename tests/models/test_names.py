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
        ("hf:o/r/f.gguf", ModelName("hf", "o/r/f.gguf")),
        ("hf:o/r@v1/folder/F.GGUF", ModelName("hf", "o/r@v1/folder/F.GGUF")),
        ("ollama:qwen2.5:7b", ModelName("ollama", "qwen2.5:7b")),
        ("ollama:127.0.0.1:443/me/m:1", ModelName("ollama", "127.0.0.1:443/me/m:1")),
        ("ollama:someone/model", ModelName("ollama", "someone/model")),
        ("shape:llama-3.1-8b:q4_k_m", ModelName("shape", "llama-3.1-8b:q4_k_m")),
        ("shape:llama-3.1-8b/2:Q4_K_M", ModelName("shape", "llama-3.1-8b/2:Q4_K_M")),
        ("shape:C:/a b/config.json:q8_0", ModelName("shape", "C:/a b/config.json:q8_0")),
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
    ("text", "said"),
    [
        ("shape:llama-3.1-8b", "shape:NAME:QUANT"),
        ("shape:", "shape:NAME:QUANT"),
        ("shape:llama-3.1-8:q4_k_m", "did you mean llama-3.1-8b.*tipo-100m.*config.json"),
        ("shape:nothing:q4_k_m", "unknown shape; Known are tipo-100m"),
        ("shape:llama-3.1-8b:q4", "unknown quantisation 'q4'; known are f32, f16, q8_0"),
        ("shape:llama-3.1-8b/33:q4_k_m", "has 32 layers; ask for 1 to 32"),
        ("shape:llama-3.1-8b/0:q4_k_m", "at least 1 layer"),
        ("shape:llama-3.1-8b/" + "9" * 300 + ":q4_k_m", "has 32 layers"),
        ("hf:o/f.gguf", "hf:OWNER/REPO/FILE.gguf"),
        ("hf:o/r/f.safetensors", "hf:OWNER/REPO/FILE.gguf"),
        ("hf:", "hf:OWNER/REPO/FILE.gguf"),
        ("ollama:", "ollama:NAME:TAG"),
        ("ollama:a b", "ollama:NAME:TAG"),
        ("ollama:a:b:c", "ollama:NAME:TAG"),
    ],
)
def test_a_wrong_name_of_a_scheme_is_told_what_is_right(text, said):
    """The error of each scheme lists what is known or shows the form, in one line."""
    with pytest.raises(BadModelError, match=said) as caught:
        parse_model_name(text)
    assert "\n" not in str(caught.value)


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


@given(st.sampled_from(["", "shape:", "hf:", "ollama:", "file:", "pypi:"]), st.text())
def test_no_text_breaks_the_parser(scheme, rest):
    """Any text is parsed to itself or refused; nothing else is raised."""
    text = scheme + rest
    with suppress(BadModelError):
        assert str(parse_model_name(text)) == text
