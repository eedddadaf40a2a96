"""What is special to KoboldCpp: its clock, its queue, its older streams, and how it is started."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines.koboldcpp import KoboldCppEngine, LastGeneration, read_kobold_stream
from shoestring.engines.offload import Offload
from shoestring.engines.opening import choose_engine, open_engine
from shoestring.engines.protocol import Prompt
from shoestring.errors import EngineLostError, MissingError
from shoestring.testing.contract import CHECKS, is_gone_after_stopping
from shoestring.testing.kobold_server import KoboldServer, running_koboldcpp
from shoestring.testing.vllm_server import running_vllm

# Of `koboldcpp.py` 1.76 and of a state of 2026: flags that both know.
PUBLISHED = {
    "--model", "--host", "--port", "--contextsize", "--threads", "--multiuser", "--skiplauncher",
    "--quiet",
}  # fmt: skip
BACKENDS = {None: set(), 0: {"--usecpu", "--gpulayers"}, 12: {"--usecuda", "--gpulayers"}}
PROGRAM = """#!{python}
import argparse, os, signal, threading
from shoestring.testing.kobold_server import KoboldServer
from shoestring.testing.model_server import serving
parser = argparse.ArgumentParser()
for flag in ("--model", "--host", "--contextsize", "--threads", "--multiuser"):
    parser.add_argument(flag, required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--skiplauncher", action="store_true", required=True)
parser.add_argument("--quiet", action="store_true", required=True)
asked = parser.parse_args()
open(asked.model).close()
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
with serving(KoboldServer(key=os.environ["KCPP_PASSWORD"]), asked.port):
    ended.wait()
"""


@pytest.fixture
def server():
    """A KoboldCpp as it is started by default: one is decoded, others wait."""
    with running_koboldcpp() as running:
        yield running


@pytest.fixture
def engine(server):
    """The adapter of that server."""
    with KoboldCppEngine("words", base_url=server.base_url) as opened:
        yield opened


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program `koboldcpp` on PATH that takes the published flags and serves the API."""
    path = tmp_path / "koboldcpp"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return path


def ask(engine, tokens=12, text="a b c d"):
    """Send one prompt of fixed length."""
    return engine.generate(Prompt(text, tokens, fixed_length=True))


def side_by_side(server: KoboldServer, engine: KoboldCppEngine, lengths: list[int]) -> dict:
    """Ask for answers of these lengths at once; none is begun before all are asked for."""
    server.gate.clear()
    made, asked = {}, len(server.asked) + len(lengths)
    threads = [
        threading.Thread(target=lambda n=n: made.setdefault(n, ask(engine, n))) for n in lengths
    ]
    for thread in threads:
        thread.start()
    server.wait_for_asked(asked)
    server.gate.set()
    for thread in threads:
        thread.join()
    return made


def test_the_clock_of_the_engine_is_read(engine):
    """Decode is `last_eval` ms for each of `last_token_count`; prefill is not told."""
    made = ask(engine)
    assert made.failure is None
    assert made.native is not None
    assert made.native.decode_tokens == 12
    assert made.native.decode_s == pytest.approx(12 * (4.0 + 1 / 1024) / 1000)
    assert made.native.prompt_s is None
    assert made.native.prompt_tokens is None


def test_every_lone_request_has_its_own_clock(engine):
    """One after the other each gets the timings of itself."""
    natives = [ask(engine, tokens).native for tokens in (5, 6, 7)]
    assert [native and native.decode_tokens for native in natives] == [5, 6, 7]


def test_no_request_gets_the_clock_of_another(server, engine):
    """Side by side the first to end cannot tell, and no timing is another request's."""
    made = side_by_side(server, engine, [10, 20, 30])
    assert [one.failure for one in made.values()] == [None] * 3
    told = {n: one.native for n, one in made.items() if one.native is not None}
    assert len(told) < 3
    assert all(native.decode_tokens == n for n, native in told.items())


def test_the_request_of_another_client_hides_the_clock_once(server, engine):
    """What somebody else asked for in between is seen by the count of generations."""
    assert ask(engine).native is not None
    KoboldCppEngine("words", base_url=server.base_url).generate(Prompt("a", 3))
    assert ask(engine).native is None
    assert ask(engine).native is not None


def test_a_busy_server_is_a_failure_with_its_words():
    """Without a queue the second request is refused with 503, and that is a row."""
    with running_koboldcpp(waiting=0) as server:
        engine = KoboldCppEngine("words", base_url=server.base_url)
        made = side_by_side(server, engine, [10, 11])
    good = [one for one in made.values() if one.failure is None]
    (bad,) = (one for one in made.values() if one.failure is not None)
    assert len(good) == 1
    assert bad.http_status == 503
    assert bad.failure.reason == "http_error"
    assert "Server is busy" in bad.failure.detail
    assert bad.native is None


def test_fixed_length_goes_past_the_end(server, engine):
    """KoboldCpp's field bans the end, and only where a fixed length is asked for."""
    fixed = ask(engine, 80)
    free = engine.generate(Prompt("a", 80))
    assert (fixed.usage.completion_tokens, fixed.finish_reason) == (80, "length")
    assert (free.usage.completion_tokens, free.finish_reason) == (64, "stop")
    assert [body.get("ban_eos_token") for _, body in server.asked] == [True, None]


def test_chat_and_completions_go_to_their_endpoints(server):
    """Chat is sent as messages, for the template; completions as one text; a schema with both."""
    for endpoint in ("chat", "completions"):
        engine = KoboldCppEngine("words", base_url=server.base_url, endpoint=endpoint)
        engine.generate(Prompt("a b", 4, seed=7, schema={"type": "object"}))
    (chat, said), (completions, text) = server.asked
    assert (chat, said["messages"]) == (
        "/v1/chat/completions", [{"role": "user", "content": "a b"}],
    )  # fmt: skip
    assert (completions, text["prompt"]) == ("/v1/completions", "a b")
    assert said["temperature"] == 0
    assert said["seed"] == 7
    assert said["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_version_and_counts_come_from_its_own_api(engine):
    """The version names the program; a count has the token that begins every prompt."""
    assert engine.version() == "koboldcpp 1.122.1"
    assert engine.count_tokens("one two three") == 4


def test_another_server_is_no_koboldcpp():
    """The engine is not guessed: another server is refused with the mend."""
    with running_vllm() as other, pytest.raises(MissingError, match="--engine openai"):
        KoboldCppEngine("words", base_url=other.base_url).start()


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_refused_key_is_said_before_anything_is_sent(key, monkeypatch):
    """A protected KoboldCpp needs SHOESTRING_API_KEY."""
    if key:
        monkeypatch.setenv("SHOESTRING_API_KEY", key)
    with (
        running_koboldcpp(key="right") as server,
        pytest.raises(MissingError, match="SHOESTRING_API_KEY"),
    ):
        KoboldCppEngine("words", base_url=server.base_url).start()


def test_the_key_opens_a_protected_server(monkeypatch):
    """The key goes with questions and requests alike."""
    monkeypatch.setenv("SHOESTRING_API_KEY", "right")
    with (
        running_koboldcpp(key="right") as server,
        KoboldCppEngine("words", base_url=server.base_url) as engine,
    ):
        assert ask(engine).failure is None


def test_an_old_version_answers_without_usage_and_clock():
    """Version 1.76: no usage, so nobody counted and no timing can be held against it."""
    with (
        running_koboldcpp(old=True, version="1.76") as server,
        KoboldCppEngine("words", base_url=server.base_url) as engine,
    ):
        made = ask(engine)
    assert (made.failure, made.finish_reason) == (None, "length")
    assert len(made.text.split()) == 12
    assert made.usage is None
    assert made.native is None


@pytest.mark.parametrize(
    ("reason", "failure", "ended"),
    [("null", None, False), ("length", None, True), ("error", "stream_error", True)],
)
def test_reasons_that_are_none(reason, failure, ended):
    """The text `null` is no end; `error` is one, and a failure."""
    chunk = {"choices": [{"delta": {"content": "a"}, "finish_reason": reason}]}
    reading = read_kobold_stream([(1, b"data: %s\n\n" % json.dumps(chunk).encode())], perf=None)
    assert (reading.failure and reading.failure.reason) == failure
    assert reading.ended is ended


def test_a_server_that_goes_away_in_the_middle_breaks_the_exchange(server, engine):
    """The connection's end looks like the stream's: the harness must see that it is none."""
    prompt = Prompt("a b", 10_000, fixed_length=True)
    recording = engine.record(prompt, on_sent=server.closing.set)
    assert recording.broken
    failure = recording.read().failure
    assert failure is not None
    assert failure.reason == "reset"


BEFORE = {"total_gens": 1, "idle": 1, "queue": 0, "last_process": 2.0, "last_eval": 4.0,
          "last_token_count": 2, "last_input_count": 3}  # fmt: skip
OURS = BEFORE | {"total_gens": 2, "last_eval": 4.5}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
STREAM = [(1, b"data: %s\n\n" % json.dumps(USAGE).encode())]


@pytest.mark.parametrize(
    ("perf", "told"),
    [
        (OURS, True),
        (OURS | {"idle": 0}, False),  # another is decoded
        (OURS | {"queue": 1}, False),  # another will be, at any moment
        (OURS | {"total_gens": 3}, False),  # two ended since
        (OURS | {"total_gens": 1}, False),  # none did
        (OURS | {"last_input_count": 4}, False),  # a prompt of another length
        (OURS | {"last_eval": 4.0}, False),  # counted and not timed: the clock stands
        (OURS | {"last_token_count": 0}, False),  # nothing was decoded
        ({}, False),  # no answer
    ],
)
def test_a_clock_that_may_be_anothers_is_not_taken(perf, told):
    """Each sign alone is enough to leave the timings unknown."""
    last = LastGeneration()
    last.take(BEFORE)
    native = read_kobold_stream(STREAM, perf=last.take(perf)).native
    assert (native is not None) is told


anything = st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3)


@given(st.lists(st.dictionaries(st.sampled_from(sorted(OURS)), anything), max_size=6))
def test_no_answer_of_perf_is_a_crash_or_a_made_up_timing(answers):
    """Whatever the server says of itself, a timing is there only where all of it fits."""
    last = LastGeneration()
    for before, said in zip([{}, *answers], answers, strict=False):
        native = read_kobold_stream(STREAM, perf=last.take(said)).native
        if native is not None:
            assert said["total_gens"] == before["total_gens"] + 1
            assert (said["idle"], said["queue"], said["last_input_count"]) == (1, 0, 3)
            assert native.decode_tokens == said["last_token_count"] > 0


@pytest.mark.parametrize("layers", [None, 0, 12])
def test_the_command_uses_published_flags_and_no_secret(layers):
    """Only flags that a published version knows; the key is not among the words."""
    engine = KoboldCppEngine(
        "m", path=Path("m.gguf"), context=64, parallel=3, offload=Offload(gpu_layers=layers)
    )
    words = engine.command(Path("/bin/koboldcpp"), 5002)
    flags = {word for word in words if word.startswith("--")}
    assert flags == PUBLISHED | BACKENDS[layers]
    assert words[words.index("--contextsize") + 1] == "256"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert engine._api_key not in words


def test_our_own_server_is_started_asked_and_ended(program, tmp_path):
    """The program on PATH is started with its key in the environment, and ends with us."""
    model = tmp_path / "m.gguf"
    model.touch()
    engine = KoboldCppEngine("m", path=model, parallel=2, log_path=tmp_path / "log")
    with engine as opened:
        assert program.is_file()
        assert opened.pid is not None
        assert [span.name for span in opened.spans()] == ["load model"]
        assert set(opened.options) == {"context", "parallel", "threads", "gpu_layers", "endpoint"}
        assert ask(opened).native is not None
        for check in CHECKS:
            check(opened)
        is_gone_after_stopping(opened)


@pytest.mark.usefixtures("program")
def test_a_model_that_it_cannot_load_is_its_death(tmp_path):
    """The server's end is told with where its log is."""
    engine = KoboldCppEngine("m", path=tmp_path / "none.gguf", log_path=tmp_path / "log")
    with pytest.raises(EngineLostError, match="koboldcpp died with status 1; its log is"):
        engine.__enter__()
    assert engine.pid is None


def test_a_missing_program_is_said_with_its_mend(monkeypatch):
    """Nobody looks for a download: the mend says where it is had."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="releases page of LostRuins/koboldcpp"):
        KoboldCppEngine("m", path=Path("m.gguf")).start()


def test_it_is_chosen_by_name_with_and_without_an_address(server):
    """An address adopts; without one the harness starts its own."""
    assert choose_engine("koboldcpp", "pypi:x", None) == "koboldcpp"
    with open_engine("words", engine="koboldcpp", base_url=server.base_url) as engine:
        assert engine.name == "koboldcpp"
        assert engine.pid is None
        assert engine.options == {"endpoint": "chat"}


def test_a_whole_run(server, tmp_path):
    """`shoestring run smoke` measures an adopted KoboldCpp and records what it said."""
    done = subprocess.run(
        [sys.executable, "-c", "from shoestring.cli import main; main()", "run", "smoke",
         "--engine", "koboldcpp", "--base-url", server.base_url, "--model", "words",
         "--requests", "5", "--out", str(tmp_path), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = Path(json.loads(done.stdout)["path"])
    rows = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    measured = [row for row in rows if row["phase"] == "measure"]
    assert [row["status"] for row in measured] == ["ok"] * 5
    assert all(row["usage"]["completion_tokens"] == 48 for row in measured)
    assert any(row["native"] for row in measured)
    assert "koboldcpp 1.122.1" in "".join(p.read_text() for p in folder.glob("*.json*"))
