"""What Ollama shows of a model, where it shows too little."""

import pytest

from shoestring.errors import BadModelError
from shoestring.models.library import header_of_shown, weights_sha256
from shoestring.models.outline import outline_of_header, outline_of_shape
from shoestring.models.synthesis import describe_shape

SHOWN = {"model_info": {"general.architecture": "llama"}, "tensors": []}


@pytest.mark.parametrize(
    ("shown", "size"), [({}, 1), (SHOWN | {"tensors": 7}, 1), (SHOWN, None), (SHOWN, 0)]
)
def test_what_ollama_does_not_say_is_not_made_up(shown, size):
    """Without the header or the size there are no facts, and no size of 0."""
    with pytest.raises(BadModelError, match="does not say what m is"):
        header_of_shown("m", shown, size)
    assert header_of_shown("m", SHOWN, 5).file_bytes == 5


def shown_of(name, *, embedded=True):
    """Return what Ollama shows of a model without `verbose`: its lists are null."""
    header = describe_shape(name).header
    absent = f"{header.values['general.architecture']}.vocab_size"
    info = {key: value for key, value in header.values.items() if key != absent}
    return {
        "model_info": info | dict.fromkeys(key for key in header.lengths if key not in info),
        "tensors": [
            {"name": tensor.name, "type": tensor.type_name, "shape": list(tensor.shape)}
            for tensor in header.tensors
            if embedded or not tensor.name.startswith("token_embd.")
        ],
    }


def test_a_vocabulary_that_ollama_does_not_count_is_that_of_the_embedding():
    """Qwen's files have no key for it, and Ollama shows no tokens."""
    name = "qwen2.5-0.5b/2:q4_k_m"
    shown = shown_of(name)
    assert shown["model_info"]["tokenizer.ggml.tokens"] is None
    assert "qwen2.vocab_size" not in shown["model_info"]
    outline, named = outline_of_header(header_of_shown("m", shown, 1 << 30)), outline_of_shape(name)
    assert outline.shape.vocabulary == named.shape.vocabulary == 151_936
    assert outline.tensors == named.tensors
    assert outline.merges == 0


def test_a_vocabulary_that_nothing_counts_is_named():
    """No embedding, no key: the one-line error says which is missing."""
    header = header_of_shown("m", shown_of("qwen2.5-0.5b/1:q8_0", embedded=False), 1 << 30)
    with pytest.raises(BadModelError, match=r"qwen2\.vocab_size is missing"):
        outline_of_header(header)


def test_weights_that_are_not_shown_have_no_hash():
    """Their file is named by its hash, or the hash is unknown."""
    blob = "/models/blobs/sha256-" + "ab" * 32
    assert weights_sha256({"modelfile": f"# made\nFROM {blob}\n"}) == "ab" * 32
    assert weights_sha256({"modelfile": "FROM other"}) is None
    assert weights_sha256({}) is None
