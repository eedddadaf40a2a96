"""A model of two million weights in F16, and the real llama-quantize."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shoestring.models.shapes import SHAPES, Shape
from shoestring.models.synthesis import lay_out, write_model
from shoestring.models.vocabulary import SMALLEST
from shoestring.quality.tool import Quantiser, find_quantiser
from shoestring.testing.engines import need_program

Write = Callable[[Shape, str, Path], Path]


@pytest.fixture(scope="session")
def tiny() -> Shape:
    """A shape that is wide enough for the blocks of K types."""
    return replace(
        SHAPES["llama-2-7b"],
        name="tiny",
        layers=3,
        width=256,
        feed_forward=512,
        heads=4,
        kv_heads=4,
        head_dim=64,
        vocabulary=SMALLEST,
        context=128,
    )


@pytest.fixture(scope="session")
def write() -> Write:
    """What writes a synthetic model."""

    def write_shape(shape: Shape, quant: str, path: Path) -> Path:
        with path.open("wb") as file:
            write_model(lay_out(shape, quant), file)
        return path

    return write_shape


@pytest.fixture(scope="session")
def tiny_f16(tiny: Shape, write: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in F16; not to be changed."""
    return write(tiny, "f16", tmp_path_factory.mktemp("tiny") / "tiny-f16.gguf")


@pytest.fixture
def quantiser() -> Quantiser:
    """The real tool."""
    need_program("llama-quantize")
    return find_quantiser()
