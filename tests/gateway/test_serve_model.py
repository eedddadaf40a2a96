"""`shoestring serve --model`: a gateway with an engine of its own, from start to end."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from shoestring.gateway.keys_file import create_key
from shoestring.testing.engines import need_program
from shoestring.testing.gateway import COMMAND, STOP_TIMEOUT_S

MODEL = "pypi:gemma3-270m"
MAX_WORKER_BYTES = 150 * 2**20
SECRET = re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])")
"""Any key of an engine of ours: 32 bytes, URL-safe."""
GREEDY: dict[str, Any] = {"max_tokens": 6, "temperature": 0}
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("small_model")]


@contextmanager
def serving(folder: Path, engine: str) -> Iterator[tuple[str, str, psutil.Popen, Path]]:
    """A gateway with an engine of its own: address, key, process, log."""
    keys_file, log = folder / "keys.json", folder / "gateway.log"
    _, key = create_key(keys_file, "anna", scopes=("inference",))
    words = ["serve", "--model", MODEL, "--engine", engine, "--slots", "2", "--context", "512",
             "--port", "0", "--keys", str(keys_file), "--json"]  # fmt: skip
    with log.open("wb") as said:
        # A session of its own, so that a signal to the group reaches what Ctrl-C would reach.
        process = psutil.Popen(
            [*COMMAND, *words], stdout=subprocess.PIPE, stderr=said, start_new_session=True
        )
    with process:
        try:
            line = process.stdout.readline()
            assert line, log.read_text("utf-8")[-500:]
            yield json.loads(line)["base_url"], key, process, log
        finally:
            if process.is_running():
                process.terminate()
            process.wait(STOP_TIMEOUT_S)


@pytest.mark.parametrize(
    ("engine", "number"),
    [("embedded", signal.SIGINT), ("llama-server", signal.SIGTERM), ("ollama", signal.SIGINT)],
)
def test_an_engine_of_its_own_lives_and_ends_with_the_gateway(
    tmp_path: Path, engine: str, number: signal.Signals
):
    """It answers for its one model; its key is nobody's to see; one signal ends all processes."""
    if engine != "embedded":
        need_program(engine)
    with (
        serving(tmp_path, engine) as (url, key, process, log),
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client,
    ):
        (model,) = [model.id for model in client.models.list()]
        whole = client.chat.completions.create(model=model, messages=HELLO, **GREEDY)
        stream = client.chat.completions.create(model=model, messages=HELLO, stream=True, **GREEDY)
        parts = [part.choices[0].delta.content or "" for part in stream if part.choices]
        text = client.completions.create(model=model, prompt="The sea", **GREEDY)

        assert whole.choices[0].message.content == "".join(parts)
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 6
        assert text.choices[0].text
        assert process.memory_info().rss < MAX_WORKER_BYTES

        engines = process.children(recursive=True)  # not before: Ollama starts its runners anew
        seen = [word for one in [process, *engines] for word in one.cmdline()]
        os.killpg(process.pid, number)
        assert process.wait(STOP_TIMEOUT_S) == 0
        _, alive = psutil.wait_procs(engines, timeout=0)
        assert engines
        assert not alive
        seen.append(log.read_text("utf-8"))
        assert not [word for word in seen if SECRET.search(word.replace(key, ""))]


def test_its_engine_takes_nobody_but_the_gateway(tmp_path: Path):
    """It asks for the key that the gateway has, which stands in no line that others can read."""
    need_program("llama-server")
    with serving(tmp_path, "llama-server") as (_, _, process, log):
        engine = process.children(recursive=True)[-1]
        own_key = engine.environ()["LLAMA_API_KEY"]
        words = engine.cmdline()
        url = f"http://127.0.0.1:{words[words.index('--port') + 1]}/v1"
        with (
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.chat.completions.create(model=MODEL, messages=HELLO)
        assert SECRET.fullmatch(own_key)
        assert own_key not in log.read_text("utf-8") + " ".join(words)


def test_a_gateway_that_is_killed_leaves_no_engine(tmp_path: Path):
    """Whatever ends the gateway, its engine ends, too."""
    need_program("llama-server")
    with serving(tmp_path, "llama-server") as (_, _, process, _):
        engines = process.children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(engines, timeout=STOP_TIMEOUT_S)
        assert not alive
