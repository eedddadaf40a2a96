"""Synthetic files: what they promise beforehand is what they are."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from shoestring.models.blocks import SPREAD, make_blocks, make_floats
from shoestring.models.facts import read_facts
from shoestring.models.header import read_header
from shoestring.models.layouts import rope_factors
from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import POOL_BLOCKS, Synthetic, lay_out, write_model
from shoestring.models.vocabulary import END, SMALLEST, build_vocabulary

TYPES = ("Q8_0", "Q4_0", "Q5_0", "Q5_1", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")


def tiny(name: str, quant: str, **changes) -> Synthetic:
    """Lay out one layer of a model, with few tokens."""
    changes = {"layers": 1, "vocabulary": 2000, "width": 256, "feed_forward": 512} | changes
    return lay_out(replace(SHAPES[name], **changes), quant)


def written(model: Synthetic) -> bytes:
    """Return the whole file."""
    out = io.BytesIO()
    write_model(model, out)
    return out.getvalue()


def weights(model: Synthetic, data: bytes, name: str) -> np.ndarray:
    """Return a tensor of a file as floats, one row a line."""
    (tensor,) = (t for t in model.header.tensors if t.name == name)
    start = len(model.head) + tensor.offset_bytes
    raw = np.frombuffer(data, np.uint8)[start : start + tensor.data_bytes]
    rows = raw.reshape(tensor.shape[1], -1)
    return dequantize(rows, GGMLQuantizationType[tensor.type_name])


@pytest.mark.parametrize("name", TYPES)
def test_random_blocks_have_mean_zero_and_one_spread(name):
    """A block type's weights average to zero, else all rows would point the same way."""
    kind = GGMLQuantizationType[name]
    values = dequantize(make_blocks(name, 20_000, GGML_QUANT_SIZES[kind][1]), kind)
    assert abs(values.mean()) < SPREAD / 200
    assert values.std() == pytest.approx(SPREAD, rel=0.04)
    assert not (values[0] == values[1]).all()


@pytest.mark.parametrize("name", ["F32", "F16"])
def test_random_floats_have_mean_zero_and_one_spread(name):
    """The same of types without blocks."""
    values = make_floats(name, 500_000).astype(np.float64)
    assert abs(values.mean()) < SPREAD / 200
    assert values.std() == pytest.approx(SPREAD, rel=0.01)


@pytest.mark.parametrize("name", sorted({s.architecture: s.name for s in SHAPES.values()}.values()))
@pytest.mark.parametrize("quant", ["q4_k_m", "q2_k", "f16"])
def test_the_file_is_what_was_said_beforehand(name, quant, tmp_path):
    """Header, facts, size and digest are known before the file and true of it."""
    model = tiny(name, quant)
    path = tmp_path / "m.gguf"
    steps = []
    with path.open("wb") as out:
        sha256 = write_model(model, out, lambda done, total: steps.append((done, total)))
    assert read_header(path) == model.header
    assert read_facts(path) == model.facts
    assert path.stat().st_size == model.header.file_bytes
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert steps[-1] == (model.header.file_bytes, model.header.file_bytes)
    assert sorted(steps) == steps


@pytest.mark.parametrize(
    ("name", "quant", "sha256"),
    [
        (
            "llama-3.2-1b",
            "q4_k_m",
            "b289eeee2dbab824655628149dde312f5ab882977619a76ea77ccfdbc07bb926",
        ),
        ("qwen2.5-0.5b", "f16", "2f60128f65529086ef00f2e6f3a6380da6ab0b36816c3d0ab2db914e18a06a58"),
    ],
)
def test_the_same_name_gives_the_same_bytes(name, quant, sha256):
    """Random means seeded: the bytes are those of every other machine."""
    # If these change, raise RECIPE in synthesis.py, so that cached files are made anew.
    assert hashlib.sha256(written(tiny(name, quant))).hexdigest() == sha256


def test_no_row_is_like_another():
    """Rows that repeat would give equal logits, and narrow where decoding can go."""
    model = tiny("llama-2-7b", "q4_k_m", vocabulary=32_000)
    rows = weights(model, written(model), "token_embd.weight")
    assert len(np.unique(rows, axis=0)) == 32_000


def test_a_pool_is_longer_than_any_tensor_has_rows():
    """A prime number of blocks above the rows: a row starts where no other did."""
    most = max(shape.vocabulary for shape in SHAPES.values())
    assert most < POOL_BLOCKS
    assert all(POOL_BLOCKS % n for n in range(2, int(POOL_BLOCKS**0.5) + 1))


@pytest.mark.parametrize(
    ("name", "output"),
    [("llama-2-7b", "output.weight"), ("llama-3.2-1b", "token_embd.weight")],
)
def test_the_token_that_ends_an_answer_is_never_likeliest(name, output):
    """Its row of the output is zero, and no other row is."""
    model = tiny(name, "q6_k")
    empty = ~weights(model, written(model), output).any(axis=1)
    assert np.flatnonzero(empty).tolist() == [END]


def test_llama_3_stretches_low_frequencies_only():
    """The factors go from 1 to the factor of the model, as the published file of 3.1 has them."""
    factors = rope_factors(SHAPES["llama-3.1-8b"])
    assert (len(factors), factors[0], factors[-1]) == (64, 1.0, 8.0)
    assert factors == sorted(factors)
    assert rope_factors(SHAPES["llama-3.2-1b"])[-1] == 32.0


@pytest.mark.parametrize("size", [SMALLEST, 32_000, 262_208])
def test_a_vocabulary_has_as_many_different_tokens_as_asked(size):
    """Tokens differ: engines keep them in a table by their text."""
    tokens, scores, kinds = build_vocabulary(size)
    found, position = set(), 0
    while position < len(tokens):
        length = int.from_bytes(tokens[position : position + 8], "little")
        position += 8
        found.add(tokens[position : position + length].decode())
        position += length
    assert len(found) == size
    assert (len(scores), len(kinds)) == (4 * size, 4 * size)


def test_the_name_in_the_file_says_that_it_is_synthetic():
    """Nobody takes the file for the model; and llama.cpp does not look for Phi-3's tokens."""
    assert "synthetic" in tiny("llama-3.2-1b", "q8_0").facts.name
    assert "random weights" in tiny("llama-3.2-1b", "q8_0").facts.name
    assert "phi-3" not in tiny("phi-3-mini", "q8_0").facts.name
