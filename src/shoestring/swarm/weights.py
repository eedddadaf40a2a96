"""The weights of the model's file: known again when llama-server sends them.

A weight that lies in the file needs no copy in a journal, and its SHA-256 says to a node what it
is, which may have it already (TAKE).
"""

from __future__ import annotations

import hashlib
import mmap
from typing import TYPE_CHECKING

from shoestring.models.header import read_header

if TYPE_CHECKING:
    from pathlib import Path

LEAST_BYTES = 4_096
"""Of a weight that is worth a question; norms are smaller."""


class Weight:
    """One tensor of the model's file.

    Attributes:
        data: its bytes, mapped.
    """

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self._sha256: bytes | None = None

    @property
    def sha256(self) -> bytes:
        """Of its bytes."""
        # functools' cached_property has one lock for all weights: who asks for one would wait for
        # a thread that hashes another. Hashed twice at the same time it is the same.
        if self._sha256 is None:
            self._sha256 = hashlib.sha256(self.data).digest()
        return self._sha256


class Weights:
    """The tensors of a model, by name.

    Args:
        path: of its GGUF file.

    Raises:
        BadModelError: it is none.
    """

    def __init__(self, path: Path) -> None:
        header = read_header(path)
        with path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._found: dict[str, Weight] = {}
        for tensor in header.tensors:
            if tensor.data_bytes >= LEAST_BYTES:
                start = header.data_start_bytes + tensor.offset_bytes
                self._found[tensor.name] = Weight(mapped[start : start + tensor.data_bytes])

    def find(self, name: str, size: int) -> Weight | None:
        """Return the tensor of this name if it has so many bytes."""
        found = self._found.get(name)
        return found if found is not None and len(found.data) == size else None
