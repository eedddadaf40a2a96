"""Synthetic models in the real engine: they load, and greedy decoding wanders."""

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shoestring.engines.launch import free_port
from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import lay_out, write_model
from shoestring.testing.engines import need_program

TOKENS = 300
DISTINCT = 200


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """Serve a model on loopback and yield the address."""
    port = free_port()
    options = ["--port", str(port), "-c", "512", "-t", "2", "-np", "1", "--no-warmup"]
    with subprocess.Popen(
        [need_program("llama-server"), "-m", path, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            lines = []
            for line in server.stderr:
                lines.append(line)
                if "listening on" in line:
                    break
            else:
                pytest.fail("the server ended:\n" + "".join(lines[-20:]))
            threading.Thread(target=server.stderr.read, daemon=True).start()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def decode_greedily(address: str) -> dict:
    """Ask for an answer in which each token is the likeliest one."""
    body = {
        "prompt": "The quick brown fox jumps over the lazy dog.",
        "n_predict": TOKENS,
        "temperature": 0,
        "return_tokens": True,
    }
    request = urllib.request.Request(
        f"{address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


# Between them, every architecture and every type that the quantisations use
@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("llama-3.2-1b", "q4_k_m"),
        ("qwen2.5-0.5b", "q5_k_s"),  # narrow columns: Q5_1
        ("tipo-100m", "q4_k_m"),  # narrow columns: Q5_0
        ("qwen3-0.6b", "q2_k"),
        ("phi-3-mini", "q3_k_m"),
        ("gemma-3-1b", "q5_k_m"),
        ("mixtral-8x7b", "q4_0"),
        ("tinyllama-1.1b", "f16"),
    ],
)
def test_greedy_decoding_wanders(name, quant, tmp_path):
    """300 likeliest tokens in a row hold at least 200 different ones, and the answer goes on.

    Two layers, few words: whole models wander more. Narrow ones (576 columns) need their layers.
    """
    need_program("llama-server")
    shape = SHAPES[name]
    shape = replace(shape, layers=2, vocabulary=8000, feed_forward=shape.feed_forward // 256 * 32)
    path = tmp_path / "shape.gguf"
    with path.open("wb") as out:
        write_model(lay_out(shape, quant), out)
    with serving(path) as address:
        answer = decode_greedily(address)
    assert (answer["stop_type"], len(answer["tokens"])) == ("limit", TOKENS)
    assert len(set(answer["tokens"])) >= DISTINCT
    assert answer["tokens_evaluated"] < 25  # 44 characters are not 44 tokens
    assert len(answer["content"]) > TOKENS  # each token is text
