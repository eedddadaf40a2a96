"""The steps of a batch through a model, as llama.cpp takes them: which results, of what size.

Only what has a place in memory is written down: inputs first, the mask of attention among them (2
bytes for each pair of token and cell), then layer by layer. Norms, rotations in place and sums
change a result that is there. Layers repeat one another, so the last few stand for all.

Sources in llama.cpp: ``src/llama-graph.cpp``, ``src/llama-kv-cache.cpp`` (inputs), and for the
architectures that differ ``src/models/{llama,qwen2,qwen3,gemma3,phi3}.cpp``; any other is taken
for one like llama. All sizes are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.plan.kv_cache import CACHE_BLOCKS, is_local
from shoestring.plan.places import Step

if TYPE_CHECKING:
    from shoestring.models.shapes import Shape
    from shoestring.plan.kv_cache import CacheType
    from shoestring.plan.memory import Settings

FLOAT, HALF, WORD = 4, 2, 8
LAYERS = 8
"""The last so many layers stand for all: of six of Gemma 3 one is of its own kind."""
ROTATION = 64
"""A head is rotated by so many elements at least; keys by as many as divide it evenly."""


@dataclass(frozen=True)
class Batch:
    """What a batch looks like, by which its graph is as large as it is.

    Attributes:
        tokens: of the batch, of all requests together.
        cells: of a stream that layers which see everything look at.
        window: the same of layers with a window.
        outputs: tokens whose logits are asked for.
        pictured: whether the input for pictures is written.
    """

    tokens: int
    cells: int
    window: int
    outputs: int
    pictured: bool = True


def list_steps(shape: Shape, settings: Settings, batch: Batch) -> list[Step]:
    """Write down the steps of a batch, in the order in which llama.cpp takes them."""
    graph = _Graph(shape, settings, batch)
    hidden = graph.add(graph.stream_bytes)  # the embeddings of the tokens
    for layer in range(max(0, shape.layers - LAYERS), shape.layers):
        hidden = graph.add_layer(hidden, layer)
    graph.add(batch.outputs * shape.vocabulary * FLOAT, graph.change(hidden), kept=True)
    return graph.steps


@dataclass(frozen=True)
class _Inputs:
    """What attention in a layer needs beside its tokens, by the numbers of the steps.

    Attributes:
        cells: how many it looks at.
        mask: which token sees which cell.
        indices: where values go, if each element is told.
        keys: the rotation of queries and keys, if any.
        values: the rotation of values and of what they are mixed to, if any.
    """

    cells: int
    mask: int
    indices: tuple[int, ...]
    keys: int | None
    values: int | None


class _Graph:
    """Steps as they are written down; ``add`` and ``change`` return the number of a result."""

    def __init__(self, shape: Shape, settings: Settings, batch: Batch) -> None:
        self.steps: list[Step] = []
        self._shape, self._settings, self._batch = shape, settings, batch
        floats = batch.tokens * FLOAT
        self.stream_bytes = floats * shape.width
        self._queries_bytes = floats * shape.heads * shape.head_dim
        self._keys_bytes = floats * shape.kv_heads * shape.head_dim
        self.add(self.stream_bytes if batch.pictured else 0, kept=True)
        self._whole = self._window = self._add_inputs(batch.cells)
        if any(is_local(shape, layer) for layer in range(shape.layers)):
            self._window = self._add_inputs(batch.window)

    def _add_inputs(self, cells: int) -> _Inputs:
        """Add what the layers need that look at so many cells."""
        settings, head_dim = self._settings, self._shape.head_dim
        widest = head_dim & -head_dim  # the largest power of two that divides it
        indices: tuple[int, ...] = ()
        if not settings.flash_attention:  # values lie across, so each element has an index
            indices = (self.add(self._keys_bytes // FLOAT * WORD),)
        bytes_of_pair = HALF if settings.flash_attention else FLOAT
        return _Inputs(
            cells=cells,
            mask=self.add(cells * self._batch.tokens * bytes_of_pair),
            indices=indices,
            keys=self._add_rotation(settings.cache_type_k, widest),
            values=self._add_rotation(settings.cache_type_v, min(widest, ROTATION)),
        )

    def _add_rotation(self, kind: CacheType, width: int) -> int | None:
        """Add the matrix by which llama.cpp spreads outliers before a cache of narrow types."""
        if CACHE_BLOCKS[kind][0] == 1 or width < ROTATION:
            return None
        return self.add(width * width * FLOAT)

    def add(self, size_bytes: int, *sources: int, kept: bool = False) -> int:
        """Add a step whose result needs a place of its own."""
        self.steps.append(Step(size_bytes, sources, kept=kept))
        return len(self.steps) - 1

    def change(self, source: int, *others: int) -> int:
        """Add a step whose result may take the place of its first source."""
        self.steps.append(Step(self.steps[source].size_bytes, (source, *others), in_place=True))
        return len(self.steps) - 1

    def add_layer(self, hidden: int, layer: int) -> int:
        """Add attention and the feed-forward block; norms and sums change what is there."""
        attended = self._add_attention(self.change(hidden), layer)
        tokens = self._batch.tokens
        if layer == self._shape.layers - 1:  # only the tokens whose logits are asked for go on
            tokens = self._batch.outputs
            size_bytes = tokens * self._shape.width * FLOAT
            attended, hidden = self.add(size_bytes, attended), self.add(size_bytes, hidden)
        between = self.change(attended, hidden)
        block = self._add_experts if self._shape.experts else self._add_block
        return self.change(block(self.change(between), tokens), between)

    def _add_attention(self, normed: int, layer: int) -> int:
        inputs = self._window if is_local(self._shape, layer) else self._whole
        queries, keys, values = self._add_queries(normed, inputs)
        for held in (keys, values):
            self.add(0, held, *inputs.indices)  # its result lies in the KV cache
        if self._settings.flash_attention:
            mixed = self.add(self._queries_bytes, queries, inputs.mask)
        else:
            pairs = inputs.cells * self._batch.tokens * self._shape.heads
            scores = self.change(self.add(pairs * FLOAT, queries), inputs.mask)
            mixed = self.add(self._queries_bytes, self.add(self._queries_bytes, scores))
        return self.add(self.stream_bytes, self._spread(mixed, inputs.values))

    def _add_queries(self, normed: int, inputs: _Inputs) -> tuple[int, int, int]:
        """Add queries, values and keys, in this order.

        A view is never worked on in place: queries and keys are turned into places of their own.
        """
        queries, keys = self._queries_bytes, self._keys_bytes
        if self._shape.architecture == "phi3":  # all in one
            whole = self.add(queries + 2 * keys, normed)
            turned = self._spread(self.add(queries, whole), inputs.keys)
            # Values lie across without flash attention, for which they are copied.
            copied = whole if self._settings.flash_attention else self.add(keys, whole)
            values = self._spread(copied, inputs.values, keys)
            return turned, self._spread(self.add(keys, whole), inputs.keys), values
        turned = self._spread(self.add(queries, self.add(queries, normed)), inputs.keys)
        values = self._spread(self.add(keys, normed), inputs.values)
        rotated = self.add(keys, self.add(keys, normed))
        return turned, self._spread(rotated, inputs.keys), values

    def _spread(self, source: int, rotation: int | None, size_bytes: int | None = None) -> int:
        """Add the product with a rotation, where there is one."""
        if rotation is None:
            return source
        return self.add(size_bytes or self.steps[source].size_bytes, source, rotation)

    def _add_block(self, normed: int, tokens: int) -> int:
        inner = tokens * self._shape.feed_forward * FLOAT
        if self._shape.architecture == "phi3":  # gate and up in one
            active = self.add(inner, self.add(2 * inner, normed))
        else:
            active = self.add(inner, self.add(inner, normed), self.add(inner, normed))
        return self.add(tokens * self._shape.width * FLOAT, active)

    def _add_experts(self, normed: int, tokens: int) -> int:
        shape, used = self._shape, self._shape.experts_used
        scores = self.change(self.add(tokens * shape.experts * FLOAT, normed))
        picked = self.add(tokens * shape.experts * FLOAT, scores)
        weights = self.add(tokens * used * FLOAT, scores, picked)
        inner = used * tokens * shape.feed_forward * FLOAT
        gate, up = self.add(inner, normed, picked), self.add(inner, normed, picked)
        stream = tokens * shape.width * FLOAT
        each = self.add(used * stream, self.add(inner, gate, up), picked)
        each = self.change(each, weights)
        total = self.add(stream, *[each] * min(used, 2))
        for _ in range(used - 2):
            total = self.change(total, each)
        return total
