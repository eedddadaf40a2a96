"""Predicted memory against llama.cpp's own sums, its server's peak, and published figures."""

import subprocess
from dataclasses import replace
from operator import truediv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.engines.llama_log import buffer_report
from shoestring.errors import BadValueError
from shoestring.hardware.processes import peak_resident_bytes
from shoestring.models.outline import outline_of_shape
from shoestring.models.shape_files import make_file
from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import describe_shape
from shoestring.plan.candidates import CANDIDATES
from shoestring.plan.kv_cache import cache_by_layer, checkpoint_bytes
from shoestring.plan.memory import REPACKED_BY, Settings, describe_demand, is_repacked
from shoestring.testing.engines import need_program
from shoestring.testing.live_server import live_server

MEBIBYTE = 1 << 20


def fit_params(name, context, folder) -> list[int]:
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
    """Weights that stay as they are, KV cache and compute buffer agree to a MiB, every model."""
    # That program maps nothing, and asks for the logits of a whole batch; the server does not.
    asked = Settings(context=context, mmap=False, outputs=512)
    demand = describe_demand(outline_of_shape(f"{shape}:q4_k_m"), asked)
    ours = (demand.mapped_bytes, sum(demand.cache_bytes), demand.compute_bytes)

    theirs = fit_params(f"{shape}:q4_k_m", context, tmp_path)
    assert theirs == pytest.approx([part / MEBIBYTE for part in ours], abs=1.0)


@pytest.mark.parametrize("quant", ["q4_0", "q5_k_m", "q8_0", "f16"])
def test_what_is_repacked_depends_on_the_type(quant, tmp_path):
    """Of the types without a rearranged form nothing is copied: llama.cpp keeps them as read."""
    asked = Settings(context=2048, mmap=False)
    demand = describe_demand(outline_of_shape(f"qwen2.5-7b:{quant}"), asked)

    (model, *_) = fit_params(f"qwen2.5-7b:{quant}", 2048, tmp_path)
    assert model == pytest.approx(demand.mapped_bytes / MEBIBYTE, abs=1.0)
    assert demand.mapped_bytes + sum(demand.repacked_bytes) == demand.file_bytes


def test_a_t4_held_what_is_predicted_for_it():
    """Ollama on Kaggle: 4,156.00 MiB on the T4, 281.81 in RAM, 1,024 of cache, 560 to work in."""
    asked = Settings(context=8192, flash_attention=False)
    demand = describe_demand(outline_of_shape("llama-3.1-8b:q4_0"), asked)

    assert (sum(demand.layer_bytes) + demand.output_bytes) / MEBIBYTE == pytest.approx(
        4156.0, abs=0.01
    )
    assert demand.embedding_bytes / MEBIBYTE == pytest.approx(281.81, abs=0.01)
    assert sum(demand.cache_bytes) == 1024 * MEBIBYTE
    # Its llama.cpp was older: it turned queries in place (8 MiB), and did not index values (4).
    assert demand.compute_bytes == (560 + 8 + 4) * MEBIBYTE


def test_two_t4s_held_the_cache_that_is_predicted_for_them():
    """Qwen3-32B on two T4s: 2,048 MiB of cache at 8,192 tokens."""
    assert sum(cache_by_layer(SHAPES["qwen3-32b"], Settings(context=8192))) == 2048 * MEBIBYTE


def test_local_layers_keep_a_window():
    """Of Gemma 3's layers five of six keep 1,024 tokens and a batch, the sixth all."""
    layers = cache_by_layer(SHAPES["gemma-3-12b"], Settings(context=32_768))
    row = 2 * 8 * 256 * 2

    assert layers[:6] == (row * (1024 + 512),) * 5 + (row * 32_768,)
    assert cache_by_layer(SHAPES["gemma-3-12b"], Settings(context=512))[0] == row * 512


def test_each_request_has_a_cache_of_its_own():
    """Four requests take four times the cache, their windows too."""
    one, four = Settings(context=2048), Settings(context=2048, parallel=4)
    for name in ("llama-3.2-1b", "gemma-3-1b"):
        assert sum(cache_by_layer(SHAPES[name], four)) == 4 * sum(cache_by_layer(SHAPES[name], one))


def test_experts_are_told_apart():
    """Nearly all of Mixtral's layers are experts; of a dense model nothing is."""
    mixtral = describe_demand(outline_of_shape("mixtral-8x7b:q4_k_m"), Settings(context=512))
    dense = describe_demand(outline_of_shape("llama-3.2-1b:q4_k_m"), Settings(context=512))

    shares = map(truediv, mixtral.expert_bytes, mixtral.layer_bytes)
    assert all(0.95 < share < 1 for share in shares)
    assert dense.expert_bytes == (0,) * 16


def test_without_mapping_no_weight_counts_twice():
    """Read into memory of its own, a repacked tensor is there once."""
    outline = outline_of_shape("llama-3.2-1b:q4_k_m")
    mapped = describe_demand(outline, Settings(context=512))
    read = describe_demand(outline, Settings(context=512, mmap=False))
    plain = describe_demand(outline, Settings(context=512, repacked=REPACKED_BY["none"]))

    assert read.mapped_bytes + sum(read.repacked_bytes) == pytest.approx(outline.file_bytes)
    assert mapped.reserved_bytes - read.reserved_bytes == pytest.approx(
        sum(mapped.repacked_bytes), rel=0.001
    )
    assert sum(plain.repacked_bytes) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flash_attention": False, "cache_type_v": "q8_0"}, "q8_0 need flash attention"),
        ({"context": 0}, "context 0"),
        ({"parallel": -1}, "parallel -1"),
        ({"cache_type_k": "q3_k"}, "'q3_k'"),
        ({"ubatch": 1 << 40}, "ubatch 1099511627776"),
    ],
)
def test_settings_that_no_engine_takes_are_refused(change, said):
    """In one line that names the value."""
    with pytest.raises(BadValueError, match=said) as caught:
        describe_demand(
            outline_of_shape("llama-3.2-1b:q8_0"), replace(Settings(context=512), **change)
        )
    assert "\n" not in str(caught.value)


def serve_once(name, asked, folder):
    """Serve one request that fills a context; return what was reserved, and the process's peak."""
    program = need_program("llama-server")
    path, log = folder / "model.gguf", folder / "log.txt"
    make_file(name, describe_shape(name), path, progress=lambda *_: None)

    def command(port):
        return [
            str(program), "--model", str(path), "--port", str(port),
            "--threads", str(asked.threads),
            "--ctx-size", str(asked.context * asked.parallel), "--parallel", str(asked.parallel),
            "--cache-type-k", asked.cache_type_k, "--cache-type-v", asked.cache_type_v,
            "--flash-attn", "on", "--cache-ram", "0", "--verbosity", "4", "--offline",
        ]  # fmt: skip

    prompt = [300 + number % 400 for number in range(asked.filled - 16)]
    with live_server(command, log_path=log) as server:
        server.complete({"prompt": prompt, "n_predict": 16, "ignore_eos": True})
        return sum(buffer_report(log.read_text()).values()), peak_resident_bytes(server.pid)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("tinyllama-1.1b/4:q4_k_m", Settings(context=4096, filled=600)),
        ("gemma-3-270m/7:q8_0", Settings(context=8192, filled=600)),
        ("qwen2.5-0.5b/6:q4_0", Settings(context=1024, parallel=2, cache_type_k="q8_0",
                                         cache_type_v="q4_0", filled=600)),
    ],
)  # fmt: skip
def test_a_server_holds_what_is_predicted(name, asked, tmp_path):
    """What llama-server says that it reserves, and the peak of its process, within 6 %."""
    reserved, peak = serve_once(name, asked, tmp_path)
    demand = describe_demand(outline_of_shape(name), asked)

    assert demand.reserved_bytes == pytest.approx(reserved, rel=0.06)
    assert demand.resident_bytes == pytest.approx(peak, rel=0.06)


def test_the_server_copies_windows_while_it_reads():
    """As it told of a prompt of 600 tokens: 11.0 MiB at 596 tokens, and 84 tokens before that."""
    shape, asked = SHAPES["gemma-3-1b"], Settings(context=8192)
    told = 11.006 * MEBIBYTE
    before = 22 * 84 * 1024  # layers with a window, tokens, bytes of a token

    assert checkpoint_bytes(shape, asked, 600) == pytest.approx(told + before, rel=0.001)
    assert checkpoint_bytes(SHAPES["llama-3.2-1b"], asked, 600) == 0


def test_what_a_vocabulary_takes_grows_with_its_rules():
    """With the 280,147 rules of Llama 3 a server's peak was 42.8 MiB higher than without."""
    bare = outline_of_shape("llama-3.2-1b/1:q8_0")
    real = replace(bare, merges=280_147)
    asked = Settings(context=1024)
    more = describe_demand(real, asked).resident_bytes - describe_demand(bare, asked).resident_bytes
    assert more == pytest.approx(42.8 * MEBIBYTE, rel=0.1)


def test_a_short_request_touches_less_than_is_reserved():
    """At 32,768 cells most of the mask stays untouched; with all cells filled, all of it is."""
    outline, asked = outline_of_shape("tinyllama-1.1b/2:q4_k_m"), Settings(context=32_768)
    short, full = (
        describe_demand(outline, replace(asked, filled=616)),
        describe_demand(outline, asked),
    )
    assert short.touched_bytes == pytest.approx(49.0 * MEBIBYTE, rel=0.02)  # as its peak showed
    untouched = 512 * (32_768 - 512) * 2
    # After the last use of the mask a result of 4 MiB may lie in its place.
    assert untouched - 4 * MEBIBYTE < full.touched_bytes - short.touched_bytes <= untouched
    assert short.reserved_bytes == full.reserved_bytes


def test_a_repacked_output_is_a_tensor_of_its_own():
    """Where the embedding is the output, too, and of a type that is rearranged, it is copied."""
    outline = outline_of_shape("llama-3.2-1b/1:q8_0")
    asked = Settings(context=512, repacked=REPACKED_BY["neon"])
    demand = describe_demand(outline, asked)
    assert demand.repacked_bytes[-1] == demand.embedding_bytes
    assert demand.mapped_bytes > demand.embedding_bytes
    odd = replace(outline.tensors[0], dimensions=(2048, 128_253))
    assert not is_repacked(odd, asked)


@given(st.sampled_from(sorted(SHAPES)), st.integers(1, 1 << 17), st.integers(1, 8))
def test_narrow_types_take_their_share(name, context, parallel):
    """A cache of q8_0 is 34 / 64 of one of f16, one of q4_0 18 / 64, keys and values apart."""
    f16, q8, q4, mixed = (
        sum(
            cache_by_layer(
                SHAPES[name],
                Settings(context=context, parallel=parallel, cache_type_k=k, cache_type_v=v),
            )
        )
        for k, v in (("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0"), ("q8_0", "q4_0"))
    )
    assert (q8 * 64, q4 * 64) == (f16 * 34, f16 * 18)
    assert 2 * mixed == q8 + q4


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(SHAPES)), st.sampled_from(["q4_k_m", "q8_0", "f16"]))
def test_every_weight_is_somewhere_once(name, quant):
    """The pieces make the file's weights, but for Llama 3's table of frequencies."""
    outline = outline_of_shape(f"{name}/1:{quant}")
    demand = describe_demand(outline, Settings(context=512))
    table = [one.data_bytes for one in outline.tensors if one.name == "rope_freqs.weight"]

    assert demand.file_bytes + sum(table) == outline.file_bytes
