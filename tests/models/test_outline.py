"""What a planner knows of a model, out of a name or of a real file's header."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadModelError
from shoestring.models.header import Header
from shoestring.models.outline import outline_of_header, outline_of_shape
from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import describe_shape

NAMES = ["llama-3.2-1b:q4_k_m", "qwen2.5-0.5b:q4_0", "qwen3-0.6b:q2_k", "phi-3-mini/2:f16",
         "gemma-3-1b:q8_0", "mixtral-8x7b/1:q4_k_m"]  # fmt: skip


def header_of(name: str, **changes: object) -> Header:
    """Return the header of a synthetic model, with some keys changed, or removed by None."""
    header = describe_shape(name).header
    values = {**header.values, **{key.replace("__", "."): new for key, new in changes.items()}}
    return replace(
        header, values={key: value for key, value in values.items() if value is not None}
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_name_and_its_file_have_the_same_outline(name):
    """All that decides memory and speed is the same, whether read from a header or not."""
    named, read = outline_of_shape(name), outline_of_header(header_of(name))

    assert read.tensors == named.tensors
    assert read.quantisation == named.quantisation
    assert read.file_bytes == describe_shape(name).facts.tensor_bytes
    forgotten = {"name": "", "rope_factor": None, "norm_epsilon": 0.0}  # the last is rounded
    assert replace(read.shape, **forgotten) == replace(named.shape, **forgotten)


def test_a_file_without_some_keys_is_read_as_llama_cpp_reads_it():
    """Heads of keys default to all heads, the width of a head to an even share."""
    outline = outline_of_header(
        header_of("llama-2-7b/1:q8_0", llama__attention__head_count_kv=None,
                  llama__attention__key_length=None, llama__attention__value_length=None)
    )  # fmt: skip
    assert (outline.shape.kv_heads, outline.shape.head_dim) == (32, 128)


def test_experts_have_a_width_of_their_own():
    """A file that states the width of experts is not taken for one of Mixtral's."""
    name = "mixtral-8x7b/1:q4_k_m"
    assert outline_of_header(header_of(name)).shape.feed_forward == 14_336
    own = header_of(name, llama__expert_feed_forward_length=768)
    assert outline_of_header(own).shape.feed_forward == 768


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("general__architecture", None, "general.architecture"),
        ("llama__block_count", None, "llama.block_count is missing"),
        ("llama__embedding_length", "wide", "llama.embedding_length is 'wide'"),
        ("llama__attention__head_count_kv", (8, 4), "llama.attention.head_count_kv differs"),
        ("llama__attention__value_length", 32, "llama.attention.value_length is not that of keys"),
        ("llama__attention__kv_lora_rank", 512, "llama.attention.kv_lora_rank means a compressed"),
        ("llama__ssm__state_size", 16, "llama.ssm.state_size means a state"),
        ("llama__rope__freq_base", "high", "llama.rope.freq_base is 'high'"),
        ("llama__block_count", 1 << 40, "llama.block_count is '1099511627776'"),
        ("llama__block_count", 4097, "is '4097'; a whole number from 1 to 4096 is needed"),
        ("llama__block_count", 16_000_000, "llama.block_count is '16000000'; a whole number"),
        ("llama__block_count", 2, r"is 2 and its tensors are not those of layers 0 to 1 \(1"),
        ("llama__block_count", 3000, "is 3000 and its tensors are not those of"),
    ],
)
def test_a_header_that_cannot_be_planned_names_the_key(key, value, said):
    """The one-line error names the model, the key and its value."""
    with pytest.raises(BadModelError, match=said) as caught:
        outline_of_header(header_of("llama-3.2-1b/1:q8_0", **{key: value}))
    assert "\n" not in str(caught.value)
    assert "synthetic llama-3.2-1b" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), 0),
        (("blk.1.attn_norm.weight", "blk.2.attn_norm.weight"), 2),
        (("blk.0.attn_norm.weight", "blk.00.attn_norm.weight"), 2),
        (("blk.0.attn_norm.weight", "blk.1.attn_norm.weight", "blk.x.attn_norm.weight"), 3),
        (("blk.0.attn_norm.weight", "blk.1.attn_norm.weight", "blk"), 3),
    ],
)
def test_layers_that_are_not_those_of_the_tensors_are_refused(names, found):
    """Whatever else the numbers are than just 0 and 1."""
    header = header_of("llama-3.2-1b/2:q8_0")
    assert outline_of_header(header).shape.layers == 2
    rest = [tensor for tensor in header.tensors if not tensor.name.startswith("blk.")]
    layers = [replace(header.tensors[0], name=name) for name in names]
    with pytest.raises(BadModelError, match=rf"is 2 and its .* \({found} layers found\)"):
        outline_of_header(replace(header, tensors=(*rest, *layers)))


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([
            "llama.block_count", "llama.embedding_length", "llama.attention.head_count",
            "llama.attention.key_length", "llama.expert_count", "llama.expert_used_count",
            "llama.attention.sliding_window", "llama.rope.freq_base", "general.architecture",
            "general.name",
        ]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text()
        | st.tuples(st.integers(), st.integers()),
    )
)  # fmt: skip
def test_no_header_breaks_the_outline(changes):
    """Whatever a header states, it gives an outline or one line."""
    header = header_of("llama-3.2-1b/1:q8_0")
    with suppress(BadModelError):
        outline_of_header(replace(header, values={**header.values, **changes}))


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(sorted(SHAPES)), st.sampled_from(["q4_k_m", "q8_0", "f16"]))
def test_the_parts_of_an_outline_make_its_file(name, quant):
    """Each tensor counts once."""
    outline = outline_of_shape(f"{name}/1:{quant}")
    assert outline.file_bytes == describe_shape(f"{name}/1:{quant}").facts.tensor_bytes
