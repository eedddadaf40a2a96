"""What a model needs in memory at a context, part by part, before anything is started.

::

    weights    each tensor's blocks, by the layout and the types that the file has
    repacked   on processors a second copy of the tensors whose blocks llama.cpp rearranges
    KV cache   cells * heads of keys and values * width of a head * bytes, summed over layers
    compute    what one batch takes at its worst moment (``compute_buffers``)
    logits     of one token for each request

These are what an engine *reserves*: the sum is compared with what llama-server says that it has
allocated. What stays *resident* is compared with the peak of its process: of the compute buffer
only what is written, but also the program, its vocabulary, the work of the processor's matrices,
and what the server copies of sliding windows.

Mapped and repacked weights both count, in both sums: llama.cpp maps the file from the first to the
last tensor that it does not repack, which is nearly all of it, reads every page at the start, and
lets none go. The system can take those pages back where memory is short, and has to read them
again only if a tensor is used that was not repacked.

Not in it: what llama-server keeps of earlier prompts (``--cache-ram``, by default up to 8 GiB), and
drivers. Sources: ``src/llama-model-loader.cpp`` and ``ggml/src/ggml-cpu/repack.cpp`` of llama.cpp.
All sizes are in bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.models.header import ALIGNMENT_BYTES
from shoestring.plan.compute_buffers import compute_buffer, touched_buffer, work_buffer
from shoestring.plan.compute_graph import FLOAT
from shoestring.plan.kv_cache import (
    CACHE_BLOCKS,
    CacheType,
    cache_by_layer,
    cells_of_stream,
    checkpoint_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoestring.models.outline import Outline, TensorSize

REPACKED_BY: Mapping[str, frozenset[str]] = {
    "avx512": frozenset({"Q2_K", "Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
    "avx2": frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
    "neon": frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"}),
    "none": frozenset(),
}
"""Types that llama.cpp rearranges into memory of their own, by what a processor can do."""
REPACKED_ROWS = 8
"""Only matrices whose rows come in such groups are rearranged."""
MOST = 1 << 30  # of any number in settings: larger than any that means something

# What a process holds beside its buffers: measured here by VmHWM less all other parts, llama-server
# of llama.cpp 0.3.36 on Linux x86-64, 14 models.
PROGRAM_BYTES = 17_500 << 10
"""13.0 MiB of program and libraries, the rest is heap: 16.8 to 18.1 MiB in all."""
TOKEN_BYTES = 183
"""Of a vocabulary's token, in tables both ways: 44.0 MiB at 262,144 tokens, 5.6 at 32,000."""
MERGE_BYTES = 170
"""Of a rule that joins two pieces of words: 160 with the vocabulary of Llama 3, 179 with Qwen 2."""
TENSOR_BYTES = 8 << 10
"""Of a tensor, whose steps are lists in the graph: 2 MiB between 50 and 291 tensors."""
CELL_BYTES = 48
"""Of a cell of the KV cache, in the list of who uses it (``src/llama-kv-cells.h``)."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an engine is asked to hold and run a model.

    Attributes:
        context: tokens of each request, prompt and answer.
        parallel: requests at once, each with a context of its own.
        cache_type_k: of the keys in the KV cache.
        cache_type_v: of the values; narrower than 16 bits only with flash attention.
        flash_attention: without it the scores of a whole batch are held at once. ``auto`` of
            llama-server comes to true on processors and on all GPUs that it has kernels for.
        batch: tokens that the server hands over at once.
        ubatch: tokens that are computed at once.
        outputs: tokens of a batch whose logits may be asked for; None: one for each request, as
            llama-server does. Of an engine that is not known to, give a whole batch.
        mmap: whether the file is mapped; else each weight is read into memory of its own.
        repacked: types that the processor keeps in a rearranged copy, of :data:`REPACKED_BY`.
        threads: of the processor.
        filled: tokens of the longest request that is served, prompt and answer; None: one that
            fills its context. Only what stays resident depends on it.
    """

    context: int
    parallel: int = 1
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attention: bool = True
    batch: int = 2048
    ubatch: int = 512
    outputs: int | None = None
    mmap: bool = True
    repacked: frozenset[str] = REPACKED_BY["avx512"]
    threads: int = 2
    filled: int | None = None


@dataclass(frozen=True)
class Demand:
    """What a model needs, by the pieces that can lie in different places.

    Attributes:
        embedding_bytes: the rows of the tokens; they stay in RAM whatever is on GPUs.
        layer_bytes: weights of each layer.
        output_bytes: what turns the last layer into tokens; of a model that uses its embedding
            for that, a copy of it, which only a GPU needs.
        cache_bytes: KV cache of each layer.
        compute_bytes: for the work itself, on each device anew.
        repacked_bytes: of the copies that processors make of each layer and, last, of the output.
        tied: whether the output is the embedding.
        expert_bytes: the part of each layer's weights that are experts.
        mapped_bytes: of the file, from the first to the last tensor that is not repacked; without
            mapping, of the tensors that are not repacked.
        logits_bytes: of the tokens that are asked for.
        touched_bytes: of the compute buffer, what is ever written.
        work_bytes: in which a processor brings a matrix's input into the form of its type.
        checkpoint_bytes: what the server copies of sliding windows while it reads a prompt.
        program_bytes: the program with its libraries, vocabulary and lists.
    """

    embedding_bytes: int
    layer_bytes: tuple[int, ...]
    output_bytes: int
    cache_bytes: tuple[int, ...]
    compute_bytes: int
    repacked_bytes: tuple[int, ...]
    tied: bool
    expert_bytes: tuple[int, ...] = ()
    mapped_bytes: int = 0
    logits_bytes: int = 0
    touched_bytes: int = 0
    work_bytes: int = 0
    checkpoint_bytes: int = 0
    program_bytes: int = 0

    @property
    def file_bytes(self) -> int:
        """All weights, each once."""
        copied = self.embedding_bytes if self.tied else 0
        return self.embedding_bytes + sum(self.layer_bytes) + self.output_bytes - copied

    @property
    def on_gpus_bytes(self) -> int:
        """What lies on GPUs where the model is whole there, without buffers for the work."""
        return sum(self.layer_bytes) + self.output_bytes + sum(self.cache_bytes)

    @property
    def reserved_bytes(self) -> int:
        """What an engine says that it allocates where all is in RAM."""
        return self._held_bytes + self.compute_bytes

    @property
    def resident_bytes(self) -> int:
        """The peak of the process where all is in RAM, after one request (``Settings.filled``)."""
        return (
            self._held_bytes + self.touched_bytes + self.work_bytes
            + self.checkpoint_bytes + self.program_bytes
        )  # fmt: skip

    @property
    def _held_bytes(self) -> int:
        """Weights, cache and logits: reserved, and written from one end to the other."""
        weights = self.mapped_bytes + sum(self.repacked_bytes)
        return weights + sum(self.cache_bytes) + self.logits_bytes


def describe_demand(outline: Outline, settings: Settings) -> Demand:
    """Say what a model needs.

    Args:
        outline: of the model, from :mod:`shoestring.models.outline`.
        settings: of the engine.

    Raises:
        BadValueError: no engine takes such settings.
    """
    check_settings(settings)
    shape, tensors = outline.shape, outline.tensors
    whole = _parts(tensors)
    copies = _parts(tensor for tensor in tensors if is_repacked(tensor, settings))
    experts = _parts(tensor for tensor in tensors if "_exps." in tensor.name)
    layers = [f"blk.{layer}" for layer in range(shape.layers)]
    embedding, output = whole["token_embd"], whole["output"] + whole["output_norm"]
    filled = min(settings.filled or settings.context, settings.context)
    return Demand(
        embedding_bytes=embedding,
        # The factors of Llama 3's rotary embedding are no layer's; they are too small to matter.
        layer_bytes=tuple(whole[layer] for layer in layers),
        output_bytes=output + (embedding if shape.tied else 0),
        cache_bytes=cache_by_layer(shape, settings),
        compute_bytes=compute_buffer(shape, settings),
        # The rows of tokens are never copied; as an output the same tensor is one of its own.
        repacked_bytes=(
            *(copies[layer] for layer in layers),
            copies["token_embd" if shape.tied else "output"],
        ),
        tied=shape.tied,
        expert_bytes=tuple(experts[layer] for layer in layers),
        mapped_bytes=_mapped(outline, settings),
        logits_bytes=settings.parallel * shape.vocabulary * FLOAT,
        touched_bytes=touched_buffer(shape, settings, filled),
        work_bytes=work_buffer(outline, settings, filled),
        checkpoint_bytes=checkpoint_bytes(shape, settings, filled),
        program_bytes=_program(outline, settings),
    )


def check_settings(settings: Settings) -> None:
    """Refuse what no engine takes.

    Raises:
        BadValueError: a number is not positive, a type is unknown, or it needs flash attention.
    """
    for name in ("context", "parallel", "batch", "ubatch", "outputs", "threads", "filled"):
        value = getattr(settings, name)
        if value is not None and not 1 <= value <= MOST:
            raise BadValueError(f"{name} {value}: give a whole number from 1 to {MOST}")
    for kind in (settings.cache_type_k, settings.cache_type_v):
        if kind not in CACHE_BLOCKS:
            raise BadValueError(
                f"cache type {kind!a}: unknown; llama.cpp knows {', '.join(CACHE_BLOCKS)}"
            )
    if not settings.flash_attention and CACHE_BLOCKS[settings.cache_type_v][0] > 1:
        raise BadValueError(
            f"values of type {settings.cache_type_v} need flash attention; turn it on, "
            "or keep values as f16"
        )


def is_repacked(tensor: TensorSize, settings: Settings) -> bool:
    """Say whether a processor keeps a rearranged copy of a tensor."""
    dimensions = tensor.dimensions
    return (
        tensor.type_name in settings.repacked
        and len(dimensions) > 1
        and dimensions[1] % REPACKED_ROWS == 0
    )


def _mapped(outline: Outline, settings: Settings) -> int:
    """Return the bytes from the first to the last tensor that is not only repacked."""
    end = total = 0
    starts, ends = [], []
    for tensor in outline.tensors:
        start = end + -end % ALIGNMENT_BYTES
        end = start + tensor.data_bytes
        if tensor.name.startswith("token_embd.") or not is_repacked(tensor, settings):
            starts.append(start)
            ends.append(end)
            total += tensor.data_bytes
    return max(ends) - min(starts) if settings.mmap else total


def _program(outline: Outline, settings: Settings) -> int:
    return (
        PROGRAM_BYTES
        + TOKEN_BYTES * outline.shape.vocabulary
        + MERGE_BYTES * outline.merges
        + TENSOR_BYTES * len(outline.tensors)
        + CELL_BYTES * settings.parallel * cells_of_stream(settings)
    )


def _parts(tensors: Iterable[TensorSize]) -> Counter[str]:
    """Return the bytes of each part: ``blk.0``, ``token_embd``, ``output``, ``output_norm``."""
    parts: Counter[str] = Counter()
    for tensor in tensors:
        first, *rest = tensor.name.split(".", 2)
        parts[f"{first}.{rest[0]}" if first == "blk" else first] += tensor.data_bytes
    return parts
