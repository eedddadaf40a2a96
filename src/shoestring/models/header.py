r"""The header of a GGUF file, read fast and within bounds.

A GGUF file is ``magic, version, counts | key-value pairs | tensor infos | padding | data``, all
little-endian. The ``gguf`` package's reader builds an array for each of the 262,144 tokens of
Gemma's vocabulary, which took 13.6 s on 2 cores; facts and wholeness need none of them. So this
reader walks over long arrays and keeps only their lengths (0.1 s on the same file). Type numbers
and block sizes still come from the ``gguf`` package.

A file is whole if it reaches to the end of the data of its last tensor::

    end = data_start + max(offset + elements / block_elements * block_bytes)

Every count is bounded and every step is checked against the size of the file, so that a hostile
file costs no more than a large one.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
PREFIX_BYTES = 24  # magic, version, number of tensors, number of key-value pairs
ALIGNMENT_BYTES = 32  # unless general.alignment says otherwise
KEPT_ELEMENTS = 4096  # arrays of numbers up to this length are kept (heads of each layer)
MOST_DIMENSIONS = 4  # of a tensor, as in ggml
MOST_ENTRIES = 1 << 20  # tensors, and pairs: the largest models have some thousands
MOST_ELEMENTS = 1 << 24  # of an array, and bytes of a string: vocabularies stay below 2**19
STRING, ARRAY = 8, 9
SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
UINT32, UINT64 = SCALARS[4], SCALARS[10]


@dataclass(frozen=True)
class Tensor:
    """One tensor's entry.

    Attributes:
        name: for example ``blk.0.attn_q.weight``.
        shape: elements, the fastest dimension first.
        type_name: of its blocks, for example ``Q4_K``.
        offset_bytes: from the start of the data.
        data_bytes: how much it takes.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset_bytes: int
    data_bytes: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says about itself.

    Attributes:
        version: of the format, 2 or 3.
        values: scalars, strings, and short arrays of numbers (as tuples).
        lengths: elements of each array, long ones included.
        tensors: in the order of the file.
        end_bytes: where the data of the last tensor end.
        file_bytes: how large the file is.
    """

    version: int
    values: Mapping[str, Any]
    lengths: Mapping[str, int]
    tensors: tuple[Tensor, ...]
    end_bytes: int
    file_bytes: int

    @property
    def data_start_bytes(self) -> int:
        """Where the offsets of tensors begin, in the file."""
        ends = (tensor.offset_bytes + tensor.data_bytes for tensor in self.tensors)
        return self.end_bytes - max(ends, default=0)


class _Cut(Exception):  # noqa: N818 - a signal between the functions of this module
    """The header goes on after the end of the file."""


class _Damaged(Exception):  # noqa: N818 - likewise
    """A field has a value that no writer gives it."""


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file and check that the file is whole.

    Raises:
        BadModelError: the file is not there, is no GGUF, is cut, is damaged, or holds only a part
            of a model.
    """
    try:
        with path.open("rb") as file:
            file_bytes = file.seek(0, 2)
            file.seek(0)
            _check_prefix(path, file.read(PREFIX_BYTES), file_bytes)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = _parse(_Cursor(data, file_bytes))
    except OSError as error:
        raise BadModelError(explain_unreadable(path, error)) from error
    except _Cut as error:
        raise BadModelError(
            f"{path} is cut inside its header: it has {file_bytes} bytes; fetch it again"
        ) from error
    except _Damaged as error:
        raise BadModelError(f"{path} is a damaged GGUF: {error}; fetch it again") from error
    if file_bytes < header.end_bytes:
        raise BadModelError(
            f"{path} is cut: it should have {header.end_bytes} bytes, has {file_bytes}; "
            "fetch it again"
        )
    _check_one_part(path, header.values.get("split.count"))
    return header


def parse_header(data: bytes, file_bytes: int) -> Header:
    """Read a header that is in memory, of a file of so many bytes that need not exist.

    Args:
        data: the file up to its first tensor's data, made by this package.
        file_bytes: what the whole file would have.
    """
    return _parse(_Cursor(data, file_bytes))


def explain_unreadable(path: Path, error: OSError) -> str:
    """Say in one line that the system does not let a model file be read."""
    return (
        f"cannot read the model file {path}: {error.strerror}; check the path and its permissions"
    )


def _check_one_part(path: Path, parts: Any) -> None:
    """Refuse one part of a split model: its facts would be those of the part."""
    if isinstance(parts, int) and parts > 1:
        raise BadModelError(
            f"{path} is one of {parts} parts of a split model: merge them with "
            "llama-gguf-split --merge FIRST-PART WHOLE.gguf and give the whole file"
        )


def _check_prefix(path: Path, prefix: bytes, file_bytes: int) -> None:
    if not prefix.startswith(MAGIC):
        raise BadModelError(f"{path} is no GGUF file: it does not begin with the letters GGUF")
    if len(prefix) < PREFIX_BYTES:
        raise BadModelError(f"{path} is cut: it has only {file_bytes} bytes; fetch it again")
    version = UINT32.unpack_from(prefix, 4)[0]
    if version not in VERSIONS:
        raise BadModelError(
            f"{path} has GGUF version {version}; versions 2 and 3 (little-endian) can be read: "
            "convert it again with a current llama.cpp"
        )


def _parse(cursor: _Cursor) -> Header:
    cursor.skip(4)
    version = cursor.scalar(UINT32)
    tensor_count = cursor.count(MOST_ENTRIES)
    pair_count = cursor.count(MOST_ENTRIES)
    values: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    for _ in range(pair_count):
        key = cursor.string()
        kind = cursor.scalar(UINT32)
        if kind == ARRAY:
            lengths[key], kept = _read_array(cursor)
            if kept is not None:
                values[key] = kept
        else:
            values[key] = cursor.string() if kind == STRING else cursor.scalar(_scalar(kind))
    tensors = tuple(_read_tensor(cursor) for _ in range(tensor_count))
    alignment = values.get("general.alignment", ALIGNMENT_BYTES)
    if not isinstance(alignment, int) or alignment < 1:
        raise _Damaged(f"general.alignment is {alignment}")
    data_start = -(-cursor.position // alignment) * alignment
    ends = [data_start + t.offset_bytes + t.data_bytes for t in tensors]
    end_bytes = max(ends, default=cursor.position)
    return Header(version, values, lengths, tensors, end_bytes, cursor.size)


def _read_array(cursor: _Cursor) -> tuple[int, tuple[Any, ...] | None]:
    """Return an array's length, and its elements where they are few numbers."""
    kind = cursor.scalar(UINT32)
    if kind == STRING:
        count = cursor.count(MOST_ELEMENTS)
        cursor.skip_strings(count)
        return count, None
    form = _scalar(kind)
    count = cursor.count(MOST_ELEMENTS)
    if count > KEPT_ELEMENTS:
        cursor.skip(count * form.size)
        return count, None
    return count, tuple(cursor.scalar(form) for _ in range(count))


def _read_tensor(cursor: _Cursor) -> Tensor:
    name = cursor.string()
    dimensions = cursor.scalar(UINT32)
    if dimensions > MOST_DIMENSIONS:
        raise _Damaged(f"tensor {name[:64]!a} has {dimensions} dimensions")
    shape = tuple(int(cursor.scalar(UINT64)) for _ in range(dimensions))
    type_name, block_elements, block_bytes = _tensor_type(cursor.scalar(UINT32))
    offset_bytes = cursor.scalar(UINT64)
    blocks, rest = divmod(math.prod(shape), block_elements)
    if rest:
        raise _Damaged(f"tensor {name[:64]!a} is not made of whole {type_name} blocks")
    return Tensor(name, shape, type_name, offset_bytes, blocks * block_bytes)


def _tensor_type(number: int) -> tuple[str, int, int]:
    """Return name, elements a block and bytes a block of a ggml type."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(number)
    except ValueError as error:
        raise _Damaged(
            f"tensor type {number} is unknown (if the file is newer than the gguf package: "
            "pip install --upgrade gguf)"
        ) from error
    block_elements, block_bytes = GGML_QUANT_SIZES[kind]
    return str(kind.name), int(block_elements), int(block_bytes)


def _scalar(kind: int) -> struct.Struct:
    if kind not in SCALARS:
        raise _Damaged(f"value type {kind} is unknown")
    return SCALARS[kind]


class _Cursor:
    """A position in the file that never passes its end."""

    def __init__(self, data: mmap.mmap | bytes, size: int) -> None:
        self._data = data
        self.size = size
        self.position = 0

    def skip(self, count_bytes: int) -> int:
        """Step over some bytes; return where they began."""
        start = self.position
        if count_bytes > self.size - start:
            raise _Cut
        self.position = start + count_bytes
        return start

    def scalar(self, form: struct.Struct) -> Any:
        """Read one number."""
        return form.unpack_from(self._data, self.skip(form.size))[0]

    def count(self, most: int) -> int:
        """Read a number of things, within what a real file has."""
        number = int(self.scalar(UINT64))
        if number > most:
            raise _Damaged(f"it counts {number} things where {most} is the most")
        return number

    def string(self) -> str:
        """Read a string; bytes that are not UTF-8 are replaced."""
        length = self.count(MOST_ELEMENTS)
        start = self.skip(length)
        return self._data[start : start + length].decode("utf-8", "replace")

    def skip_strings(self, count: int) -> None:
        """Step over strings: the hot loop, once for each token of the vocabulary."""
        data, position, last = self._data, self.position, self.size - UINT64.size
        unpack, width = UINT64.unpack_from, UINT64.size
        for _ in range(count):
            if position > last:
                raise _Cut
            position += width + unpack(data, position)[0]
        self.position = position
        self.skip(0)
