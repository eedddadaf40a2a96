"""The rule for types against llama.cpp's own tool, at full depth, on files without data."""

import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.models.quantising import BASE_TYPES, choose_type
from shoestring.models.shapes import SHAPES, Shape
from shoestring.models.synthesis import lay_out
from shoestring.models.vocabulary import SMALLEST
from shoestring.testing.engines import need_program

LINE = re.compile(
    r"^\[ *\d+/ *\d+\] (?P<name>\S+) .*?type = +(?P<old>\w+), .*?"
    r"size = +(?P<before>\S+) MiB(?: -> +(?P<after>\S+) MiB \((?P<new>\w+)\))?$",
    re.MULTILINE,
)
MEBIBYTE = 1 << 20

# Each line of the rule is reached: plain, eight experts, 70B, fused, narrow columns, tied output,
# many heads to one value.
FULL_DEPTH = (
    "llama-2-7b",
    "llama-3.1-8b",
    "llama-3.2-1b",
    "llama-3.1-70b",
    "mixtral-8x7b",
    "qwen2.5-0.5b",
    "qwen2.5-72b",
    "qwen3-8b",
    "phi-3-mini",
    "gemma-3-4b",
    "yi-34b",
    "tipo-100m",
)


def small_vocabulary(name: str) -> Shape:
    """Return a shape whose header is short: types do not depend on how many tokens there are."""
    return replace(SHAPES[name], vocabulary=SMALLEST)


def write_hollow(shape: Shape, path: Path) -> None:
    """Write a file of the right size whose data are a hole."""
    model = lay_out(shape, "f16")
    with path.open("wb") as file:
        file.write(model.head)
        file.truncate(model.header.file_bytes)


def ask_llama_cpp(tool: str, path: Path, quant: str) -> dict[str, tuple[str, float]]:
    """Return each tensor's type, and its size in MiB, as llama-quantize would write it."""
    done = subprocess.run(
        [tool, "--dry-run", path, quant.upper(), "1"], capture_output=True, text=True, check=True
    )
    return {
        found["name"]: (
            (found["new"] or found["old"]).upper(),
            float(found["after"] or found["before"]),
        )
        for found in LINE.finditer(done.stdout + done.stderr)
    }


def compare(shape: Shape, path: Path, quants: Iterable[str]) -> None:
    """Compare the types and sizes of all tensors with those of the tool."""
    tool = str(need_program("llama-quantize"))
    write_hollow(shape, path)
    for quant in quants:
        ours = lay_out(shape, quant).header.tensors
        theirs = ask_llama_cpp(tool, path, quant)
        assert {t.name: t.type_name for t in ours} == {n: kind for n, (kind, _) in theirs.items()}
        for tensor in ours:  # two decimals are printed
            mebibytes = theirs[tensor.name][1]
            assert tensor.data_bytes / MEBIBYTE == pytest.approx(mebibytes, abs=0.006)


@pytest.mark.parametrize("name", FULL_DEPTH)
def test_types_are_those_of_llama_quantize(name, tmp_path):
    """Every tensor of every quantisation has the type and the size that llama.cpp gives it."""
    compare(small_vocabulary(name), tmp_path / "hollow.gguf", set(BASE_TYPES) - {"f16"})


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["llama", "qwen2", "qwen3", "phi3", "gemma3"]),
    st.integers(1, 90),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([0, 0, 4, 8]),
    st.booleans(),
    st.sampled_from(sorted(set(BASE_TYPES) - {"f16", "f32"})),
)
def test_types_of_any_shape_are_those_of_llama_quantize(
    architecture, layers, sharing, blocks, experts, tied, quant
):
    """Depth, shared heads, experts and odd widths decide as in llama.cpp, in any combination."""
    shape = Shape(
        name="any",
        architecture=architecture,
        layers=layers,
        width=2 * sharing * 32,
        feed_forward=blocks * 64,
        heads=2 * sharing,
        kv_heads=2,
        head_dim=32,
        vocabulary=SMALLEST,
        context=64,
        tied=tied,
        experts=experts if architecture == "llama" else 0,
        experts_used=2 if experts and architecture == "llama" else 0,
    )
    with tempfile.TemporaryDirectory() as folder:
        compare(shape, Path(folder) / "hollow.gguf", [quant])


def test_columns_that_fill_no_block_stay_half_floats():
    """A width that does not divide by 32 is kept as F16, as llama.cpp does."""
    shape = small_vocabulary("llama-2-7b")
    assert choose_type("blk.0.ffn_up.weight", 48, 2, shape, "q4_k_m") == "F16"
    assert choose_type("blk.0.ffn_up.weight", 64, 2, shape, "q4_k_m") == "Q5_0"
