"""What llama.cpp takes to compute one batch: its compute buffer, and what of it is ever written.

The buffer holds the results of all steps of the model's graph, and a result's place is taken again
once nothing needs it. So its size is that of the worst moment, and it is found as llama.cpp finds
it: the steps of a batch are written down, and their results laid out in a row.

A process is charged only for pages that it writes. A short request writes less of the buffer than
was reserved: the mask of attention is as wide as the cells that are filled, and the input for
pictures is never written. Beside the buffer the processor has a place of work for its matrices'
inputs, which it first brings into the form that their type wants.

Source: ``ggml_graph_plan`` in ``ggml/src/ggml-cpu/ggml-cpu.c`` of llama.cpp (the work). All sizes
are in bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoestring.plan.compute_graph import HALF, WORD, Batch, list_steps
from shoestring.plan.kv_cache import cells_of_stream, cells_of_window, whole_cells
from shoestring.plan.places import lay_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoestring.models.outline import Outline, TensorSize
    from shoestring.models.shapes import Shape
    from shoestring.plan.memory import Settings

INPUT_TYPES: Mapping[str, tuple[int, int]] = {
    "F32": (1, 0),
    "F16": (1, 2),
    "BF16": (1, 2),
    **dict.fromkeys(("Q8_0", "Q5_0", "Q4_0", "IQ4_NL", "MXFP4"), (32, 34)),
    **dict.fromkeys(("Q5_1", "Q4_1"), (32, 36)),
}
"""Elements and bytes of a block of what a matrix of that type is multiplied with.

Any other type, those of K and IQ, wants blocks of :data:`WIDE`."""
WIDE = (256, 292)
TILE_BYTES = 512 << 10
"""Each thread's place to unpack tiles of a matrix with blocks of 256 that is not rearranged."""

HEAP_BYTES = 32 << 20
"""The place of work grows with each batch; up to so many bytes glibc takes it from its heap."""
LEFT_BYTES = 16 << 20
"""What then stays in the heap of an earlier place: 13 to 18 MiB in three models, measured here."""


def largest_batch(shape: Shape, settings: Settings) -> Batch:
    """Return the batch that llama.cpp reserves for."""
    cells, streams = cells_of_stream(settings), settings.parallel
    tokens = min(cells * streams, settings.batch, settings.ubatch)
    return Batch(
        tokens=-(-tokens // streams) * streams,
        cells=cells,
        window=cells_of_window(shape, settings),
        outputs=min(tokens, settings.outputs or streams),
    )


def batches_of_request(shape: Shape, settings: Settings, filled: int) -> list[Batch]:
    """Return the batches of a single request by which the work is the largest: two, or one.

    The last whole one looks back at what was filled until then, the rest of the request at all.

    Args:
        shape: of the model.
        settings: of the engine.
        filled: tokens of the request.
    """
    largest = largest_batch(shape, settings)
    whole = filled // largest.tokens * largest.tokens
    return [
        Batch(
            tokens=tokens,
            cells=min(largest.cells, whole_cells(seen)),
            window=min(largest.window, whole_cells(seen)),
            outputs=1,
            pictured=False,
        )
        for tokens, seen in ((min(largest.tokens, whole), whole), (filled - whole, filled))
        if tokens
    ]


def compute_buffer(shape: Shape, settings: Settings) -> int:
    """Return the bytes that llama.cpp reserves for a batch."""
    steps = list_steps(shape, settings, largest_batch(shape, settings))
    return max(start + step.size_bytes for start, step in zip(lay_out(steps), steps, strict=True))


def touched_buffer(shape: Shape, settings: Settings, filled: int) -> int:
    """Return the bytes of that buffer which a single request of so many tokens ever writes."""
    starts = lay_out(list_steps(shape, settings, largest_batch(shape, settings)))
    batches = batches_of_request(shape, settings, filled)
    places = [
        (start, step.size_bytes)
        for batch in batches
        for start, step in zip(starts, list_steps(shape, settings, batch), strict=True)
    ]
    end = total = 0
    for start, size in sorted(places):
        total += max(0, start + size - max(start, end))
        end = max(end, start + size)
    return total


def work_buffer(outline: Outline, settings: Settings, filled: int) -> int:
    """Return what the processor takes to bring a matrix's input into the form of its type.

    Args:
        outline: of the model.
        settings: of the engine.
        filled: tokens of the longest request.
    """
    shape = outline.shape
    batches = batches_of_request(shape, settings, filled)
    tokens = max(batch.tokens for batch in batches)
    sizes = [_input_bytes(tensor, shape, settings, tokens) for tensor in outline.tensors]
    if not settings.flash_attention:  # the scores are what values of 16 bits are multiplied with
        pairs = max(batch.tokens * batch.cells for batch in batches)
        scores_bytes = shape.heads * pairs * HALF
        sizes.append(scores_bytes + (LEFT_BYTES if scores_bytes > HEAP_BYTES else 0))
    return max(sizes)


def _input_bytes(tensor: TensorSize, shape: Shape, settings: Settings, tokens: int) -> int:
    """Return what a matrix's input takes in the form of its type."""
    if len(tensor.dimensions) == 1:
        return 0
    inputs = tensor.dimensions[0]
    if tensor.name.startswith("blk."):  # else it is for a token whose logits are asked for
        inputs *= tokens
    if tensor.name.endswith("ffn_down_exps.weight"):
        inputs *= shape.experts_used
    elements, block_bytes = INPUT_TYPES.get(tensor.type_name, WIDE)
    size_bytes = inputs * block_bytes // elements
    if "_exps." in tensor.name:  # beside it the lists of the tokens that each expert gets
        size_bytes += shape.experts * shape.experts_used * tokens * WORD
    if (elements, block_bytes) == WIDE and tensor.type_name not in settings.repacked:
        size_bytes += settings.threads * TILE_BYTES
    return size_bytes
