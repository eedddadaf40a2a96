"""Synthetic models in the real engine: they load, and greedy decoding wanders."""

from dataclasses import replace

import pytest

from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import lay_out, write_model
from shoestring.testing.engines import need_program
from shoestring.testing.greedy import decode_greedily

TOKENS = 300
DISTINCT = 200


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
    program = need_program("llama-server")
    shape = SHAPES[name]
    shape = replace(shape, layers=2, vocabulary=8000, feed_forward=shape.feed_forward // 256 * 32)
    path = tmp_path / "shape.gguf"
    with path.open("wb") as out:
        write_model(lay_out(shape, quant), out)
    answer = decode_greedily(program, path, TOKENS)
    assert (answer["stop_type"], len(answer["tokens"])) == ("limit", TOKENS)
    assert len(set(answer["tokens"])) >= DISTINCT
    assert answer["tokens_evaluated"] < 25  # 44 characters are not 44 tokens
    assert len(answer["content"]) > TOKENS  # each token is text
