"""A real Ollama: what its models are, that a running one is adopted, and what it refuses."""

import io
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from shoestring.engines.launch import free_port
from shoestring.engines.ollama import OllamaEngine
from shoestring.engines.ollama_api import OllamaApi
from shoestring.engines.ollama_processes import find_runner, find_server
from shoestring.engines.opening import find_subject
from shoestring.engines.protocol import Prompt
from shoestring.errors import BadModelError, MissingError
from shoestring.measure.progress import RunProgress
from shoestring.measure.runner import run_suite
from shoestring.models.facts import read_facts
from shoestring.models.fetch import ModelFile
from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import lay_out, write_model
from shoestring.paths import cache_dir
from shoestring.testing.engines import need_program
from shoestring.testing.registry import running_registry

TINY = str(Path(__file__).parents[1] / "data" / "tiny.toml")
TINY_SHAPE = replace(SHAPES["tipo-100m"], layers=4, vocabulary=2000)
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def running(small_model):
    """An Ollama that has the small model, as a user's would."""
    need_program("ollama")
    with OllamaEngine(small_model, store=cache_dir() / "ollama", endpoint="completions") as engine:
        yield engine


@pytest.fixture
def url(running, monkeypatch) -> str:
    """Its address, where the harness looks for one."""
    address = running._address.url
    monkeypatch.setenv("OLLAMA_HOST", address)
    return address


@pytest.mark.usefixtures("url")
def test_a_library_model_is_known_as_its_file_is(running, small_model):
    """Facts and hash come from Ollama and are those of the GGUF file that it was given."""
    subject = find_subject(f"ollama:{running.model_id}")
    facts, said = read_facts(small_model.path), subject.facts

    assert subject.engine == "ollama"
    assert subject.sha256 == small_model.sha256
    for name in ("architecture", "parameters", "layers", "context_length", "embedding_length",
                 "heads", "kv_heads", "head_dim", "quantisation", "tensor_bytes",
                 "tensor_bytes_by_type", "chat_template"):  # fmt: skip
        assert getattr(said, name) == getattr(facts, name), name


def test_a_library_model_is_measured(running, small_model, url, tmp_path):
    """A running Ollama is adopted and left running; its durations stand beside our clock's."""
    run = run_suite(
        TINY, model=f"ollama:{running.model_id}", requests=4, out=tmp_path,
        progress=RunProgress(io.StringIO()),
    )  # fmt: skip

    assert run.complete
    assert run.config["model"]["sha256"] == small_model.sha256
    assert run.config["model"]["quantisation"] == "Q4_K_M"
    assert run.config["engine"]["name"] == "ollama"
    for row in run.measured:
        assert row["status"] == "ok"
        assert row["native"]["decode_tokens"] == row["usage"]["completion_tokens"]
        # from before the sending: Ollama may begin before our clock is read after it
        assert row["native"]["total_s"] <= (row["end_ns"] - row["intended_ns"]) / 1e9
    assert run.config["engine"]["base_url"] == url
    options = run.config["engine"]["options"]
    assert (options["adopted"], options["parallel"]) == (True, None)
    assert running.healthy()
    running.load()  # it was taken out of memory, as every engine is at the end


def test_an_adopted_ollama_is_left_as_it_was(running, url, tmp_path):
    """A file that it was given is taken back; what it had before stays, under any spelling."""
    path = tmp_path / "tiny.gguf"
    with path.open("wb") as file:
        sha256 = write_model(lay_out(TINY_SHAPE, "f16"), file)
    given = ModelFile("file:tiny.gguf", path, sha256, path.stat().st_size)
    api = OllamaApi(url)
    with OllamaEngine(given, base_url=url, endpoint="completions") as engine:
        assert engine.pid == running.pid
        assert engine.count_tokens("sea")
        assert int(api.loaded(engine.model_id)["expires_at"][:4]) < 2100  # not for ever
    assert api.listed(engine.model_id) is None
    assert api.listed(f"registry.ollama.ai/library/{running.model_id.upper()}") is not None
    api.close()


def test_only_the_processes_of_this_server_and_model_are_taken(running, small_model):
    """Another address, another machine's, another model's runner: nobody is taken."""
    address = running._address
    assert find_server(address) == running.pid
    assert find_server(replace(address, port=free_port())) is None
    assert find_server(replace(address, host="192.0.2.1")) is None
    running.load()
    assert find_runner(running.pid, small_model.sha256) is not None
    assert find_runner(running.pid, "0" * 64) is None


@pytest.mark.usefixtures("url")
def test_a_model_that_nobody_has_is_one_clear_error():
    """The library cannot be reached here, or does not know it: Ollama's words, and a mend."""
    with pytest.raises(BadModelError, match="Ollama cannot pull no-such-model-of-ours"):
        find_subject("ollama:no-such-model-of-ours")


def test_an_address_where_no_ollama_is(truth_url):
    """Another server is no Ollama."""
    with pytest.raises(MissingError, match="is not Ollama's"):
        find_subject("ollama:x", base_url=truth_url)


def test_a_model_is_pulled_with_progress(tmp_path, monkeypatch):
    """A registry's model is fetched once, byte for byte, and answers."""
    need_program("ollama")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing: the registry needs a certificate")
    content = io.BytesIO()
    sha256 = write_model(lay_out(TINY_SHAPE, "f16"), content)
    told = []
    heard = threading.Event()  # a pull of 50 MB may end before Ollama's first report

    def pulled(*bytes_: int) -> None:
        told.append(bytes_)
        heard.set()

    with running_registry({"small": content.getvalue()}, tmp_path, go_on=heard) as registry:
        monkeypatch.setenv("SSL_CERT_FILE", str(registry.certificate))
        with OllamaEngine(
            registry.name("small"), store=tmp_path / "store", endpoint="completions",
            pulled=pulled,
        ) as engine:  # fmt: skip
            facts, said = engine.describe()
            made = engine.generate(Prompt("sea", 4))
            before = len(registry.asked)
            engine.load()

            assert len(registry.asked) == before  # it is there: not asked for again
    assert said == sha256
    assert (facts.layers, facts.quantisation) == (4, "F16")
    assert made.failure is None
    assert told[-1] == (len(content.getvalue()),) * 2
    assert [done for done, _ in told] == sorted(done for done, _ in told)
