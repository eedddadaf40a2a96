"""Where an Ollama is looked for, and what its models are called; no Ollama is needed for that."""

import subprocess
import sys
from contextlib import suppress
from urllib.parse import urlsplit

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines.ollama_api import shown_name
from shoestring.engines.ollama_processes import find_runner, parse_host
from shoestring.errors import BadValueError
from shoestring.testing.kobold_server import running_koboldcpp

SHA256 = "ab" * 32


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("box", "http://box:11434"),
        (":5000", "http://127.0.0.1:5000"),
        (" '0.0.0.0' ", "http://127.0.0.1:11434"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("[::]:5000", "http://127.0.0.1:5000"),
        ("[::1]", "http://[::1]:11434"),
        ("http://localhost/", "http://localhost:80"),
        ("https://box", "https://box:443"),
        ("http://box:5000/ollama", "http://box:5000/ollama"),
    ],
)
def test_a_host_is_read_as_ollama_reads_it(text, url):
    """Every part may be left out; where a server listens on all addresses, this one is asked."""
    assert parse_host(text).url == url


@pytest.mark.parametrize(
    "text", ["127.0.0.1:abc", "box:70000", "box:0", "ftp://box", "a b", "[::1", "u:pass@box:1"]
)
def test_a_host_that_is_none_is_one_clear_line(text):
    """It names the variable and the form; a password is not repeated."""
    with pytest.raises(BadValueError, match=r"^OLLAMA_HOST is .*: give HOST:PORT$") as caught:
        parse_host(text)
    assert "\n" not in str(caught.value)
    assert "pass@" not in str(caught.value)


@given(st.text() | st.text(alphabet="htps:/[].01@ab?#", max_size=12))
def test_any_host_is_an_address_or_refused(text):
    """Nothing else is raised, and what comes out can be asked."""
    with suppress(BadValueError):
        assert urlsplit(parse_host(text).url).port


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("qwen2.5:7b", "qwen2.5:7b"),
        ("Qwen2.5", "qwen2.5:latest"),
        ("library/qwen2.5:7B", "qwen2.5:7b"),
        ("registry.ollama.ai/library/qwen2.5", "qwen2.5:latest"),
        ("registry.ollama.ai/me/m:1", "me/m:1"),
        ("127.0.0.1:443/library/m", "127.0.0.1:443/library/m:latest"),
    ],
)
def test_a_name_is_compared_as_ollama_shows_it(name, shown):
    """Ollama leaves out its own registry and names, and minds no capitals."""
    assert shown_name(name) == shown


def test_a_runner_is_taken_only_if_it_tokenises(truth_url):
    """Ollama's own runners have the model and a port, too, and no ``/tokenize``."""
    with running_koboldcpp() as other:
        for url, taken in ((truth_url, truth_url), (other.base_url, None)):
            words = ["--model", f"/blobs/sha256-{SHA256}", "--port", str(urlsplit(url).port)]
            with subprocess.Popen(
                [sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE
            ) as runner:
                assert find_runner(psutil.Process().pid, SHA256) == taken
                assert find_runner(psutil.Process().pid, "cd" * 32) is None
                runner.communicate(b"\n")
