"""What a batch takes: the buffer as llama-server told it, and places that do not overlap."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.models.outline import outline_of_shape
from shoestring.models.shapes import SHAPES
from shoestring.plan.compute_buffers import compute_buffer, largest_batch, touched_buffer
from shoestring.plan.compute_graph import list_steps
from shoestring.plan.kv_cache import CACHE_BLOCKS, cache_by_layer
from shoestring.plan.memory import Settings
from shoestring.plan.places import lay_out

MEBIBYTE = 1 << 20
NARROW = {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}
ASKED = st.builds(
    Settings,
    context=st.integers(1, 1 << 17),
    parallel=st.integers(1, 8),
    cache_type_k=st.sampled_from(sorted(CACHE_BLOCKS)),
    ubatch=st.integers(1, 1024),
    flash_attention=st.booleans(),
)


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        ("tinyllama-1.1b/2", {"context": 32_768}, 81.01),
        ("tinyllama-1.1b/2", {"context": 2048, "ubatch": 128}, 12.75),
        ("llama-3.2-1b", {"context": 2048, "parallel": 4}, 66.01),
        ("llama-3.2-1b", {"context": 8192, **NARROW}, 68.04),
        ("llama-3.2-1b", {"context": 8192, "flash_attention": False}, 550.01),
        ("qwen2.5-7b/2", {"context": 16_384}, 155.01),
        ("qwen3-0.6b/8", {"context": 4096, **NARROW}, 30.09),
        ("qwen3-0.6b/8", {"context": 2048, "flash_attention": False}, 86.01),
        ("phi-3-mini/4", {"context": 4096}, 70.01),
        ("phi-3-mini/3", {"context": 4096, "flash_attention": False}, 294.01),
        ("mixtral-8x7b/2", {"context": 4096}, 204.01),
        ("mixtral-8x7b/2", {"context": 2048, "flash_attention": False}, 200.04),
        ("gemma-3-270m", {"context": 32_768}, 50.77),
        ("gemma-3-4b/7", {"context": 8192, **NARROW}, 93.05),
        ("gemma-3-4b/7", {"context": 4096, "parallel": 4}, 84.52),
    ],
)
def test_the_buffer_is_the_one_that_a_server_told(name, asked, told):
    """Compute buffers of llama-server of llama.cpp 0.3.36, in MiB, with two decimals."""
    compute = compute_buffer(outline_of_shape(f"{name}:q8_0").shape, Settings(**asked))
    assert compute / MEBIBYTE == pytest.approx(told, abs=0.05)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-3-4b", "mixtral-8x7b", "phi-3-mini"])
def test_flash_attention_spares_the_scores(name):
    """Without it, the scores of 512 tokens at 8,192 cells lie in the buffer, four bytes each."""
    shape, asked = SHAPES[name], Settings(context=8192)
    scores = shape.heads * 512 * 8192 * 4
    spared = compute_buffer(shape, replace(asked, flash_attention=False)) - scores
    assert 0 < spared < compute_buffer(shape, asked)


@settings(deadline=None)
@given(st.sampled_from(sorted(SHAPES)), ASKED)
def test_more_tokens_never_take_less(name, asked):
    """Cache and buffer grow with context and requests, and no more is touched than reserved.

    The buffer alone may shrink a little: larger results can happen to leave smaller gaps.
    """
    shape = SHAPES[name]
    longer = replace(asked, context=asked.context + 4096)
    wider = replace(asked, parallel=asked.parallel + 1)
    cache, compute = sum(cache_by_layer(shape, asked)), compute_buffer(shape, asked)

    assert cache <= sum(cache_by_layer(shape, replace(asked, context=asked.context + 1)))
    assert cache + compute < sum(cache_by_layer(shape, longer)) + compute_buffer(shape, longer)
    assert cache < sum(cache_by_layer(shape, wider))
    assert touched_buffer(shape, asked, asked.context) <= compute
    assert touched_buffer(shape, asked, 1) <= touched_buffer(shape, asked, 2)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(SHAPES)), ASKED)
def test_no_result_lies_on_another_that_is_still_needed(name, asked):
    """Two results share a byte only if the first was used up before, or became the second."""
    steps = list_steps(SHAPES[name], asked, largest_batch(SHAPES[name], asked))
    starts = lay_out(steps)
    last = list(range(len(steps)))
    for number, step in enumerate(steps):
        for source in step.sources:
            last[source] = number
    last = [len(steps) if one.kept else end for one, end in zip(steps, last, strict=True)]
    for number, step in enumerate(steps):
        for before in range(number):
            if last[before] < number or (last[before] == number and step.in_place):
                continue
            apart = (
                starts[before] + steps[before].size_bytes <= starts[number]
                or starts[number] + step.size_bytes <= starts[before]
            )
            assert apart, (before, number)
