"""The embedded engine: a real llama.cpp in a process of its own."""

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from shoestring.engines.embedded import EmbeddedEngine
from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.opening import Subject, make_engine, open_engine
from shoestring.engines.protocol import Prompt
from shoestring.errors import BadValueError, MissingError, ShoestringError
from shoestring.models.facts import read_facts

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def engine(small_model):  # noqa: ARG001 - it has fetched the model
    """One engine for the tests that only ask."""
    with open_engine("pypi:gemma3-270m", context=512, parallel=2) as running:
        yield running


def test_answers_with_all_its_timings(engine):
    """An answer has its tokens, its own clock and a finish reason."""
    answer = engine.generate(Prompt("The sea is salt because", 12, fixed_length=True))

    assert answer.failure is None
    assert answer.usage is not None
    assert answer.native is not None
    assert (12, "length") == (answer.usage.completion_tokens, answer.finish_reason)
    assert answer.native.decode_tokens == 12
    assert answer.native.decode_s > 0


def test_greedy_answers_repeat(engine):
    """The same greedy prompt gives the same text."""
    texts = {engine.generate(Prompt("One, two, three,", 8)).text for _ in range(2)}

    assert 1 == len(texts)


def test_counts_tokens_as_the_answer_does(engine):
    """The tokenizer's count is the usage's prompt_tokens."""
    prompt = "A clock which runs fast is harder to mend than one that stops."
    answer = engine.generate(Prompt(prompt, 1))

    assert answer.usage is not None
    assert answer.usage.prompt_tokens == engine.count_tokens(prompt)


def test_is_closed_to_others(engine):
    """Nobody without the key of this harness gets an answer, and only loopback listens."""
    url = engine._address.url
    with pytest.raises(MissingError, match="refused the key"):
        OpenAIEngine(url, "m", api_key="guess").start()
    listening = [c for c in psutil.Process(engine.pid).net_connections() if c.status == "LISTEN"]

    assert {"127.0.0.1"} == {connection.laddr.ip for connection in listening}


def test_unload_gives_memory_back_and_load_brings_it_again(small_model):
    """An unloaded engine is small, and answers once it is loaded again."""
    subject = Subject("m", "embedded", file=small_model, facts=read_facts(small_model.path))
    with make_engine(subject, context=256) as engine:
        assert engine.pid is not None
        loaded = psutil.Process(engine.pid).memory_info().rss
        engine.unload()
        assert psutil.Process(engine.pid).memory_info().rss < loaded - 50_000_000
        engine.load()
        assert engine.generate(Prompt("Hello", 2)).failure is None


@pytest.mark.usefixtures("small_model")
def test_a_killed_engine_fails_the_request_and_not_the_harness():
    """The harness outlives its engine: the next request fails, with its reason."""
    with open_engine("pypi:gemma3-270m", context=256) as engine:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOWAIT)  # it is the engine's to reap
        failure = engine.generate(Prompt("Hello", 2)).failure
        healthy, said = engine.healthy(), [engine.lost(), engine.lost()]

    assert failure is not None
    assert failure.reason in ("connect", "reset")
    assert not healthy
    assert said[0] == said[1]  # who asks second is told, too
    assert "died by signal 9" in said[0]


@pytest.mark.usefixtures("small_model")
def test_the_engine_does_not_outlive_a_killed_harness():
    """SIGKILL of the harness ends the engine as well: nothing is left behind."""
    code = (
        "import shoestring, sys, time\n"
        "engine = shoestring.open_engine('pypi:gemma3-270m', context=256).__enter__()\n"
        "print(engine.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as harness:
        assert harness.stdout is not None
        engine = psutil.Process(int(harness.stdout.readline()))
        harness.kill()
        harness.wait()
        gone, _ = psutil.wait_procs([engine], timeout=10)

    assert gone or engine.status() == psutil.STATUS_ZOMBIE


def test_a_file_that_cannot_be_loaded_is_one_line(tmp_path, small_model):
    """A model that the engine refuses ends in one clear error, and leaves no process."""
    broken = tmp_path / "broken.gguf"
    data = bytearray(small_model.path.read_bytes()[:4096])
    broken.write_bytes(data)
    engine = EmbeddedEngine(broken, "broken", log_path=tmp_path / "engine.log")

    with pytest.raises(ShoestringError, match="embedded engine") as caught, engine:
        pass

    assert "\n" not in str(caught.value)
    assert engine.pid is None


def test_more_context_than_the_model_has(small_model):
    """A suite that needs more context than the model was trained for is refused at once."""
    subject = Subject("m", "embedded", file=small_model, facts=read_facts(small_model.path))
    with pytest.raises(BadValueError, match="context of 32768"):
        make_engine(subject, context=40_000)


@pytest.mark.parametrize(
    ("engine_name", "base_url", "words"),
    [
        ("vroom", None, "unknown engine 'vroom'"),
        ("openai", None, "--base-url"),
        ("embedded", "http://127.0.0.1:1", "no base URL"),
    ],
)
def test_engines_that_do_not_go_together(engine_name, base_url, words):
    """A wrong engine or one that does not go with the base URL is named with the mend."""
    with pytest.raises(BadValueError, match=words):
        open_engine("pypi:gemma3-270m", engine=engine_name, base_url=base_url)


def test_two_engines_take_two_ports(engine):
    """Ports are free ones: a second engine never collides with the first."""
    with open_engine("pypi:gemma3-270m", context=256) as other:
        assert isinstance(other, EmbeddedEngine)
        assert engine._address.port != other._address.port
        with socket.create_connection(("127.0.0.1", other._address.port)):
            pass
