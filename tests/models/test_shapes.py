"""The list of shapes against published counts, and shapes out of a model's own config.json."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadModelError
from shoestring.models.quantising import BASE_TYPES
from shoestring.models.shape_configs import ARCHITECTURES, read_config
from shoestring.models.shape_names import load_shape, parse_shape_name
from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import describe_shape, lay_out

# As the models' own pages give them; for TIPO and Gemma 3 4B see the comments.
PARAMETERS = {
    "tipo-100m": 100_382_080,  # at two bytes: the 191.46 MiB that the note on CPU service measured
    "smollm2-135m": 134_515_008,
    "tinyllama-1.1b": 1_100_048_384,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_248_023_552,
    "ministral-8b": 8_019_808_256,
    "falcon3-7b": 7_455_550_464,
    "mixtral-8x7b": 46_702_792_704,
    "yi-34b": 34_388_917_248,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "phi-3-mini": 3_821_079_552,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 3_880_263_168,  # with the rows for images, as its GGUF has them
}

LLAMA_CONFIG = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500_000.0,
    "rope_scaling": {"factor": 32.0, "rope_type": "llama3"},
    "tie_word_embeddings": True,
}


@pytest.fixture
def write_config(tmp_path):
    """Write a config.json and return its path as a string."""

    def write(config) -> str:
        path = tmp_path / "my model" / "config.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return str(path)

    return write


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_shape_has_as_many_parameters_as_the_model(name):
    """The tensors make the published number; Llama 3's frequency factors are no parameters."""
    model = lay_out(SHAPES[name], "f16")
    factors = sum(t.shape[0] for t in model.header.tensors if t.name == "rope_freqs.weight")
    assert model.facts.parameters - factors == PARAMETERS[name]


def test_the_size_of_a_quantised_model_is_that_of_the_real_file():
    """The weights of Llama 3.1 8B in Q4_K_M take what the file that people download takes."""
    # 4,920,734,272 bytes with its own vocabulary and template, of which 7.8 MB are header
    facts = describe_shape("llama-3.1-8b:q4_k_m").facts
    assert facts.tensor_bytes == pytest.approx(4_912_900_000, rel=1e-4)
    assert (facts.layers, facts.heads, facts.kv_heads, facts.head_dim) == (32, 32, 8, 128)
    assert (facts.vocabulary_size, facts.context_length) == (128_256, 131_072)
    assert (facts.quantisation, facts.chat_template) == ("Q4_K_M", False)


def test_a_config_gives_the_shape_of_the_list(write_config):
    """A config.json with the numbers of Llama 3.2 1B makes the same tensors."""
    ours = describe_shape(f"{write_config(LLAMA_CONFIG)}:q4_k_m")
    listed = describe_shape("llama-3.2-1b:q4_k_m")
    assert ours.header.tensors == listed.header.tensors
    assert ours.shape.name == "my-model"
    assert describe_shape(f"{write_config(LLAMA_CONFIG)}/3:q4_k_m").facts.layers == 3


def test_a_config_with_a_text_part_is_read(write_config):
    """Gemma 3 keeps its numbers in text_config and leaves out those that are the usual ones."""
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    path = write_config({"model_type": "gemma3", "text_config": text})
    listed = describe_shape("gemma-3-4b:q8_0")
    assert describe_shape(f"{path}:q8_0").header.tensors == listed.header.tensors


def test_experts_come_from_the_config(write_config):
    """A Mixtral config that leaves out what is usual has eight experts."""
    config = LLAMA_CONFIG | {"model_type": "mixtral"}
    shape = read_config(Path(write_config(config)))
    assert (shape.experts, shape.experts_used, shape.architecture) == (8, 2, "llama")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mamba"}, "'mamba'.*llama, mistral"),
        ({"hidden_size": None}, "hidden_size is 'None'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is '0'"),
        ({"vocab_size": True}, "vocab_size is 'True'"),
        ({"vocab_size": 100}, "from 512"),
        ({"num_hidden_layers": 600}, "600 layers"),
        ({"num_key_value_heads": 5}, "cannot share"),
        ({"rope_theta": "big"}, "rope_theta is 'big'"),
        ({"attention_bias": True}, "attention_bias is set"),
        ({"model_type": "qwen2", "head_dim": 32}, "do not make the width"),
        ("{", "no JSON file"),
        ("[]", "no JSON object"),
    ],
)
def test_a_config_that_cannot_be_used_names_the_field(write_config, change, said):
    """The one-line error names the field and its value."""
    config = change if isinstance(change, str) else LLAMA_CONFIG | change
    with pytest.raises(BadModelError, match=said) as caught:
        describe_shape(f"{write_config(config)}:q8_0")
    assert "\n" not in str(caught.value)


def test_a_config_that_is_not_there_is_the_users_mistake(tmp_path):
    """A missing config.json and too many layers of a config are told when it is read."""
    with pytest.raises(BadModelError, match="cannot read"):
        describe_shape(f"{tmp_path}/config.json:q8_0")
    with pytest.raises(BadModelError, match="no such home folder"):
        describe_shape("~nosuch/config.json:q8_0")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_CONFIG))
    with pytest.raises(BadModelError, match="16 layers; ask for 1 to 16"):
        describe_shape(f"{path}/17:q8_0")


@given(
    st.dictionaries(
        st.sampled_from([*LLAMA_CONFIG, "num_local_experts", "text_config"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()),
    ),
    st.sampled_from(sorted(ARCHITECTURES)),
)
def test_no_config_breaks_the_reader(tmp_path_factory, changes, kind):
    """Whatever stands in a config, it gives a shape or one line."""
    path = tmp_path_factory.getbasetemp() / "any-config.json"
    path.write_text(json.dumps(LLAMA_CONFIG | changes | {"model_type": kind}))
    with suppress(BadModelError):
        read_config(path)


@given(st.sampled_from(sorted(SHAPES)), st.sampled_from(sorted(BASE_TYPES)), st.data())
def test_names_are_parsed_to_what_they_say(name, quant, data):
    """Any shape, any number of its layers and any quantisation, in either case of letters."""
    most = SHAPES[name].layers
    layers = data.draw(st.none() | st.integers(1, most))
    depth = "" if layers is None else f"/{layers}"
    parsed = parse_shape_name(f"{name}{depth}:{data.draw(st.sampled_from([quant, quant.upper()]))}")
    assert (parsed.base, parsed.layers, parsed.quant) == (name, layers, quant)
    assert load_shape(parsed).layers == (layers or most)
