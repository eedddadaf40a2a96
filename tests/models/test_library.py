"""What Ollama shows of a model, where it shows too little."""

import pytest

from shoestring.errors import BadModelError
from shoestring.models.library import header_of_shown, weights_sha256

SHOWN = {"model_info": {"general.architecture": "llama"}, "tensors": []}


@pytest.mark.parametrize(
    ("shown", "size"), [({}, 1), (SHOWN | {"tensors": 7}, 1), (SHOWN, None), (SHOWN, 0)]
)
def test_what_ollama_does_not_say_is_not_made_up(shown, size):
    """Without the header or the size there are no facts, and no size of 0."""
    with pytest.raises(BadModelError, match="does not say what m is"):
        header_of_shown("m", shown, size)
    assert header_of_shown("m", SHOWN, 5).file_bytes == 5


def test_weights_that_are_not_shown_have_no_hash():
    """Their file is named by its hash, or the hash is unknown."""
    blob = "/models/blobs/sha256-" + "ab" * 32
    assert weights_sha256({"modelfile": f"# made\nFROM {blob}\n"}) == "ab" * 32
    assert weights_sha256({"modelfile": "FROM other"}) is None
    assert weights_sha256({}) is None
