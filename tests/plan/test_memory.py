"""Predicted memory against llama.cpp's own sums, published figures, and a run of ours."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import describe_shape
from shoestring.plan.candidates import CANDIDATES
from shoestring.plan.machines import CATALOGUE
from shoestring.plan.memory import cache_by_layer, compute_buffer, describe_demand
from shoestring.plan.placement import place
from shoestring.testing.engines import need_program

MEBIBYTE = 1 << 20
RUN = Path(__file__).parents[2] / "results" / "runs" / "20261121T171757Z-large-02cfe7"


def fit_params(name: str, context: int, folder: Path) -> list[int]:
    """Return what llama.cpp says that model, context and work take, in MiB; data are a hole."""
    model = describe_shape(name)
    path = folder / "hollow.gguf"
    with path.open("wb") as file:
        file.write(model.head)
        file.truncate(model.header.file_bytes)
    tool = need_program("llama-fit-params")
    words = [str(tool), "-m", str(path), "-c", str(context), "-np", "1", "-fitp", "on"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    (host,) = [line.split() for line in said.splitlines() if line.startswith("Host ")]
    return [int(part) for part in host[1:]]


@pytest.mark.parametrize("context", [2048, 32_768])
@pytest.mark.parametrize("shape", sorted({one.shape for one in CANDIDATES}))
def test_a_prediction_is_what_llama_cpp_sums_up_itself(shape, context, tmp_path):
    """Weights that stay mapped, KV cache and compute buffer agree to a MiB, for every model."""
    demand = describe_demand(f"{shape}:q4_k_m", context)
    mapped = demand.file_bytes - sum(demand.repacked_bytes)
    ours = (mapped, sum(demand.cache_bytes), demand.compute_bytes)

    theirs = fit_params(f"{shape}:q4_k_m", context, tmp_path)
    assert theirs == pytest.approx([part / MEBIBYTE for part in ours], abs=1.0)


@pytest.mark.parametrize("quant", ["q4_0", "q5_k_m", "q8_0", "f16"])
def test_what_is_repacked_depends_on_the_type(quant, tmp_path):
    """Of the types without a rearranged form nothing is copied: llama.cpp maps all of it."""
    demand = describe_demand(f"qwen2.5-7b:{quant}", 2048)
    mapped = demand.file_bytes - sum(demand.repacked_bytes)

    (model, *_) = fit_params(f"qwen2.5-7b:{quant}", 2048, tmp_path)
    assert model == pytest.approx(mapped / MEBIBYTE, abs=1.0)


def test_a_t4_held_what_is_predicted_for_it():
    """Ollama on Kaggle: 4,156.00 MiB on the T4, 281.81 in RAM, 1,024 of cache, 560 to work in."""
    demand = describe_demand("llama-3.1-8b:q4_0", 8192, flash_attention=False)

    assert (sum(demand.layer_bytes) + demand.output_bytes) / MEBIBYTE == pytest.approx(
        4156.0, abs=0.01
    )
    assert demand.embedding_bytes / MEBIBYTE == pytest.approx(281.81, abs=0.01)
    assert sum(demand.cache_bytes) == 1024 * MEBIBYTE
    assert demand.compute_bytes == 560 * MEBIBYTE


def test_two_t4s_held_the_cache_that_is_predicted_for_them():
    """Qwen3-32B on two T4s: 2,048 MiB of cache at 8,192 tokens."""
    assert sum(cache_by_layer(SHAPES["qwen3-32b"], 8192)) == 2048 * MEBIBYTE


def test_a_measured_peak_is_near_the_bound():
    """An 8B on two cores peaked at 8.67 GB; the prediction is within three per cent of it."""
    config = json.loads((RUN / "config.json").read_text())
    (session,) = json.loads((RUN / "environment.json").read_text())["sessions"]
    context = config["engine"]["options"]["context"]
    demand = describe_demand(config["model"]["name"].removeprefix("shape:"), context)

    (cpu,) = [machine for machine in CATALOGUE if not machine.gpu_bytes]
    assert place(demand, cpu).host_bytes == pytest.approx(
        session["memory"]["ram_peak_bytes"], rel=0.03
    )


def test_local_layers_keep_a_window():
    """Of Gemma 3's layers five of six keep 1,024 tokens and a batch, the sixth all."""
    layers = cache_by_layer(SHAPES["gemma-3-12b"], 32_768)
    row = 2 * 8 * 256 * 2

    assert layers[:6] == (row * (1024 + 512),) * 5 + (row * 32_768,)
    assert cache_by_layer(SHAPES["gemma-3-12b"], 512)[0] == row * 512


@given(
    st.sampled_from(sorted(SHAPES)),
    st.integers(1, 1 << 17),
    st.integers(1, 8),
    st.sampled_from(["f16", "q8_0", "q4_0"]),
)
def test_more_tokens_never_take_less(name, context, parallel, kind):
    """Cache and buffer grow with context and requests; narrow types take their share of f16."""
    shape = SHAPES[name]
    now = sum(cache_by_layer(shape, context, parallel=parallel, cache_type=kind))
    wide = sum(cache_by_layer(shape, context, parallel=parallel))

    assert now <= sum(cache_by_layer(shape, context + 1, parallel=parallel, cache_type=kind))
    assert now <= sum(cache_by_layer(shape, context, parallel=parallel + 1, cache_type=kind))
    assert now * 32 == wide // 2 * {"f16": 64, "q8_0": 34, "q4_0": 18}[kind]
    assert compute_buffer(shape, context) <= compute_buffer(shape, context + 1)
    assert compute_buffer(shape, context) <= compute_buffer(shape, context, flash_attention=False)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(SHAPES)), st.sampled_from(["q4_k_m", "q8_0", "f16"]))
def test_every_weight_is_somewhere_once(name, quant):
    """The pieces make the file's weights, but for Llama 3's table of frequencies."""
    tensors = describe_shape(f"{name}/1:{quant}").header.tensors
    demand = describe_demand(f"{name}/1:{quant}", 512)
    table = sum(tensor.data_bytes for tensor in tensors if tensor.name == "rope_freqs.weight")

    assert demand.file_bytes + table == sum(tensor.data_bytes for tensor in tensors)
