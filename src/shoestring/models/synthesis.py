"""A GGUF file with the true shapes of a model and random weights.

The header is made in memory first: it says all that a planner needs (names, shapes, types, bytes)
and is read by the same reader as a file's. The data are then streamed: for each type one pool of
random blocks is made (at most 60 MB), and each tensor takes a stretch of it, from a place of its
own and around its end. A pool has a prime number of blocks, more than any tensor has rows, so no
row of a tensor is like another. The same name gives the same bytes on every machine.

Memory: two or three pools. Time: that of writing and hashing the file; both are measured in
``docs/models.md``.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.models.facts import facts_of
from shoestring.models.header import ALIGNMENT_BYTES, ARRAY, MAGIC, STRING, UINT32, parse_header
from shoestring.models.layouts import list_keys, rope_factors
from shoestring.models.outline import tensors_of_shape
from shoestring.models.quantising import BASE_TYPES, BLOCK, FLOATS
from shoestring.models.shape_names import load_shape, parse_shape_name
from shoestring.models.vocabulary import BEGIN, END, UNKNOWN, build_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from shoestring.models.facts import ModelFacts
    from shoestring.models.header import Header, Tensor
    from shoestring.models.shapes import Shape

RECIPE = 1  # raised whenever the same name comes to mean other bytes
VERSION = 3  # of GGUF
POOL_BLOCKS = 262_217  # a prime above the largest vocabulary: 55 MB of Q6_K, 38 MB of Q4_K
LOUD = 16.0  # how much louder a block of Gemma 3 speaks than the norm before it listens
SHARP = 3.0  # scores of attention then spread by 9, without norms of queries and keys by 5
CHUNK_BYTES = 8_000_000  # written and hashed at once
UINT32_KIND, INT32_KIND, FLOAT32_KIND = 4, 5, 6  # value types of GGUF


@dataclass(frozen=True)
class Synthetic:
    """A synthetic model before a byte of its weights is made.

    Attributes:
        shape: what it has the dimensions of.
        quant: lower case, for example ``q4_k_m``.
        header: as the file's own will be read: keys, tensors with types and bytes, file size.
        head: the bytes of the header, up to the first tensor's data.
    """

    shape: Shape
    quant: str
    header: Header
    head: bytes

    @property
    def facts(self) -> ModelFacts:
        """What :func:`shoestring.models.facts.read_facts` will say of the file."""
        return facts_of(self.header)

    @property
    def recipe(self) -> str:
        """A digest of all that decides the bytes of the file."""
        return hashlib.sha256(b"%d\n" % RECIPE + self.head).hexdigest()


def describe_shape(name: str) -> Synthetic:
    """Say all about a synthetic model without making it (0.1 to 0.4 s).

    Args:
        name: what follows ``shape:``, for example ``llama-3.1-8b:q4_k_m``.

    Raises:
        BadModelError: the name is unknown, or its ``config.json`` cannot be used.
    """
    parsed = parse_shape_name(name)
    return lay_out(load_shape(parsed), parsed.quant)


def lay_out(shape: Shape, quant: str) -> Synthetic:
    """Lay out the file of a shape.

    Args:
        shape: the dimensions.
        quant: one of :data:`shoestring.models.quantising.BASE_TYPES`.
    """
    infos, data_bytes = _tensor_infos(shape, quant)
    pairs = [*_general(shape, quant), *_tokenizer(shape.vocabulary)]
    head = MAGIC + struct.pack("<IQQ", VERSION, len(infos), len(pairs)) + b"".join(pairs + infos)
    head += bytes(-len(head) % ALIGNMENT_BYTES)
    return Synthetic(shape, quant, parse_header(head, len(head) + data_bytes), head)


def write_model(
    model: Synthetic, out: BinaryIO, progress: Callable[[int, int], None] = lambda *_: None
) -> str:
    """Write the file and return its SHA-256; hashing goes on beside writing.

    Args:
        model: from :func:`describe_shape`.
        out: an empty file.
        progress: called with the bytes written and those in all.
    """
    digest, done = hashlib.sha256(), 0
    with ThreadPoolExecutor(1, "shape-hash") as hasher:
        hashed = hasher.submit(digest.update, model.head)
        out.write(model.head)
        done += len(model.head)
        for chunk in _chunks(model):
            hashed.result()  # never more than one chunk behind
            hashed = hasher.submit(digest.update, chunk)
            out.write(chunk)
            done += len(chunk)
            progress(done, model.header.file_bytes)
        hashed.result()
    return digest.hexdigest()


def _tensor_infos(shape: Shape, quant: str) -> tuple[list[bytes], int]:
    """Return the tensors' entries in the header, and what their data take with padding."""
    from gguf.constants import GGMLQuantizationType

    infos, offset = [], 0
    for tensor in tensors_of_shape(shape, quant):
        dimensions = tensor.dimensions
        infos.append(
            _string(tensor.name)
            + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
            + struct.pack("<IQ", GGMLQuantizationType[tensor.type_name].value, offset)
        )
        offset += tensor.data_bytes + -tensor.data_bytes % ALIGNMENT_BYTES
    return infos, offset


def _general(shape: Shape, quant: str) -> Iterator[bytes]:
    from gguf.constants import GGML_QUANT_VERSION, LlamaFileType

    prefix = "ALL" if quant == "f32" else "MOSTLY"
    yield _text_pair("general.architecture", shape.architecture)
    yield _text_pair("general.type", "model")
    yield _text_pair("general.name", _title(shape))
    yield _whole_pair("general.file_type", LlamaFileType[f"{prefix}_{quant.upper()}"].value)
    if BASE_TYPES[quant] not in FLOATS:
        yield _whole_pair("general.quantization_version", GGML_QUANT_VERSION)
    for key, value in list_keys(shape):
        if isinstance(value, str):
            yield _text_pair(key, value)
        elif isinstance(value, float):
            yield _pair(key, FLOAT32_KIND, struct.pack("<f", value))
        else:
            yield _whole_pair(key, value)


def _title(shape: Shape) -> str:
    """Return what the file calls itself, without the words by which llama.cpp knows Phi-3.

    It asks for special tokens where it finds them, which this vocabulary does not have.
    """
    name = re.sub(r"(?i)phi-?3", "phi 3", shape.name)
    return f"synthetic {name}, {shape.layers} layers, random weights"


def _tokenizer(size: int) -> Iterator[bytes]:
    tokens, scores, kinds = build_vocabulary(size)
    yield _text_pair("tokenizer.ggml.model", "llama")
    yield _text_pair("tokenizer.ggml.pre", "default")
    for key, kind, elements in (
        ("tokens", STRING, tokens),
        ("scores", FLOAT32_KIND, scores),
        ("token_type", INT32_KIND, kinds),
    ):
        array = struct.pack("<IQ", kind, size) + elements
        yield _pair(f"tokenizer.ggml.{key}", ARRAY, array)
    for key, token in (("bos", BEGIN), ("eos", END), ("unknown", UNKNOWN)):
        yield _whole_pair(f"tokenizer.ggml.{key}_token_id", token)


def _text_pair(key: str, value: str) -> bytes:
    return _pair(key, STRING, _string(value))


def _whole_pair(key: str, value: int) -> bytes:
    return _pair(key, UINT32_KIND, UINT32.pack(value))


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _string(key) + UINT32.pack(kind) + value


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _chunks(model: Synthetic) -> Iterator[memoryview]:
    """Yield the data of all tensors, each padded to the alignment."""
    pools = _Pools()
    for tensor in model.header.tensors:
        if tensor.name.endswith("_norm.weight"):
            yield _norm(tensor)
        elif tensor.name == "rope_freqs.weight":
            factors = rope_factors(model.shape)
            yield memoryview(struct.pack(f"<{len(factors)}f", *factors))
        else:
            yield from _weights(tensor, model.shape, pools)
        padding = -tensor.data_bytes % ALIGNMENT_BYTES
        if padding:
            yield memoryview(bytes(padding))


def _norm(tensor: Tensor) -> memoryview:
    """Return the weights of a norm: ones.

    Norms after a block (Gemma 3) get more: the embedding enters that model so large that it would
    drown what the blocks add, and since the output is tied to it, each token would predict itself.
    Norms of queries and keys (Gemma 3, Qwen 3) get more, so that attention looks at few tokens:
    an even mean over all would hardly change from token to token.
    """
    weight = 1.0
    if ".post_" in tensor.name:
        weight = LOUD
    elif tensor.name.endswith(("attn_q_norm.weight", "attn_k_norm.weight")):
        weight = SHARP
    return memoryview(struct.pack("<f", weight) * tensor.shape[0])


def _weights(tensor: Tensor, shape: Shape, pools: _Pools) -> Iterator[memoryview]:
    pool, block_bytes = pools.get(tensor.type_name)
    start = zlib.crc32(tensor.name.encode()) % POOL_BLOCKS * block_bytes
    if tensor.name != ("token_embd.weight" if shape.tied else "output.weight"):
        yield from _stretch(pool, start, tensor.data_bytes)
        return
    # The row of the token that ends an answer is zero: its logit is 0, never the largest, so
    # that greedy decoding goes on for as long as it is asked to.
    row_bytes = tensor.data_bytes // tensor.shape[1]
    before = END * row_bytes
    yield from _stretch(pool, start, before)
    yield memoryview(bytes(row_bytes))
    yield from _stretch(pool, start + before, tensor.data_bytes - before - row_bytes)


def _stretch(pool: memoryview, start: int, count: int) -> Iterator[memoryview]:
    """Yield ``count`` bytes of a pool from ``start`` on, around its end."""
    while count:
        start %= len(pool)
        chunk = pool[start : start + min(count, CHUNK_BYTES)]
        yield chunk
        start += len(chunk)
        count -= len(chunk)


class _Pools:
    """The random blocks of each type, made when they are first needed."""

    def __init__(self) -> None:
        self._pools: dict[str, tuple[memoryview, int]] = {}

    def get(self, type_name: str) -> tuple[memoryview, int]:
        """Return the pool of a type as bytes, and the size of its blocks."""
        if type_name not in self._pools:
            self._pools[type_name] = self._make(type_name)
        return self._pools[type_name]

    @staticmethod
    def _make(type_name: str) -> tuple[memoryview, int]:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        from shoestring.models.blocks import make_blocks, make_floats

        if type_name in FLOATS:
            weights = make_floats(type_name, POOL_BLOCKS * BLOCK)
            return weights.data.cast("B"), weights.itemsize * BLOCK
        block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]][1]
        blocks = make_blocks(type_name, POOL_BLOCKS, block_bytes)
        return blocks.reshape(-1).data, block_bytes
