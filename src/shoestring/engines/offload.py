"""What a plan decides, as engines need it; each engine's module spells it in its own words.

How llama.cpp counts, and with it KoboldCpp and Ollama (``load_tensors`` in ``src/llama-model.cpp``
of b11312): the output matrix is one layer more, after the last. So many layers *from the back* go
to GPUs, so 1 is the output alone and all of a model with 32 layers are 33. ``tensor_split`` shares
those out from the front, over the devices in their order; where its numbers add up to
``gpu_layers``, each device gets exactly as many layers as its number says.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Iterable

UNQUANTISED = ("f32", "f16", "bf16")
CACHE_TYPES = (*UNQUANTISED, "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""What ``--cache-type-k`` of llama-server takes."""
Backend = Literal["cuda", "vulkan", "metal"]
MOST_DEVICES = 15
"""llama.cpp refuses a split over 16 or more (``common/arg.cpp``)."""
DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.:\[\]-]*")
ENDPOINT = re.compile(r"[A-Za-z0-9_.-]+:[0-9]{1,5}|\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}")


@dataclass(frozen=True)
class Offload:
    """Where a model's parts go and how it computes; the default leaves all of it to the engine.

    Attributes:
        gpu_layers: layers on GPUs, the output counted as one; None: the engine decides.
        tensor_split: layers of each GPU in the engine's order; None: the engine decides.
        experts_in_ram: so many layers, from the first, leave their experts in RAM.
        output_in_ram: the output matrix is in RAM and computed there, wherever the last layers are;
            ``gpu_layers`` and ``tensor_split`` count it with those all the same.
        cache_type_k: type of the keys in the KV cache, one of :data:`CACHE_TYPES`.
        cache_type_v: type of the values; a quantised one needs flash attention.
        flash_attention: None: the engine decides.
        devices: names by which the engine knows its GPUs (``CUDA0``, ``RPC0``), in the order of
            their layers; empty: all, in the engine's own order; ``none`` alone: no GPU, which 0
            layers do not mean (llama.cpp sends large batches there all the same).
        rpc: servers of llama.cpp's RPC, ``HOST:PORT``; engines put them before local GPUs.
        threads: compute threads; None: the engine decides.
        batch: tokens that are taken from a prompt at once; None: the engine decides.
        ubatch: tokens that are computed at once, for which compute buffers are made.
        prompt_cache_bytes: RAM that the server may fill with the caches of earlier prompts, in
            whole MiB; None: the engine decides (llama-server: 8 GiB).
        fit: whether the engine may change what is left open until it fits in free memory.
        backend: what computes on the GPUs, for KoboldCpp, which has several in one program; None:
            it goes by the devices' names. Other engines have the one that they were built with.

    Raises:
        BadValueError: a value cannot be used; names it. What an engine cannot be told, its words
            refuse: another may take it.
    """

    gpu_layers: int | None = None
    tensor_split: tuple[float, ...] | None = None
    experts_in_ram: int = 0
    output_in_ram: bool = False
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    flash_attention: bool | None = None
    devices: tuple[str, ...] = ()
    rpc: tuple[str, ...] = ()
    threads: int | None = None
    batch: int | None = None
    ubatch: int | None = None
    prompt_cache_bytes: int | None = None
    fit: bool = True
    backend: Backend | None = None

    def __post_init__(self) -> None:
        """Check each value, then those that must go together."""
        for name, least in {
            "gpu_layers": 0, "experts_in_ram": 0, "threads": 1, "batch": 1, "ubatch": 1,
            "prompt_cache_bytes": 0,
        }.items():  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise BadValueError(f"{name} {value}: give {least} or more")
        if self.batch is not None and self.ubatch is not None and self.ubatch > self.batch:
            raise BadValueError(f"ubatch {self.ubatch} is more than batch {self.batch}: give less")
        if self.backend not in (None, *get_args(Backend)):
            known = ", ".join(get_args(Backend))
            raise BadValueError(f"backend {self.backend!r}: give one of {known}")
        self._check_cache()
        self._check_split()
        _check_names("device", self.devices, DEVICE, "CUDA0")
        _check_names("rpc", self.rpc, ENDPOINT, "127.0.0.1:50052")

    @property
    def cache_types(self) -> tuple[str, str] | None:
        """Types of keys and values, or None where both are what every engine takes by itself."""
        types = (self.cache_type_k, self.cache_type_v)
        return None if types == ("f16", "f16") else types

    @property
    def prompt_cache_mib(self) -> int | None:
        """MiB for earlier prompts; None where the engine decides."""
        return None if self.prompt_cache_bytes is None else self.prompt_cache_bytes >> 20

    @property
    def shares(self) -> tuple[str, ...]:
        """The tensor split in the shortest words; empty where the engine decides."""
        return tuple(f"{share:.9g}" for share in self.tensor_split or ())

    def decided(self) -> dict[str, Any]:
        """Return what was decided beside threads, as a record holds it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "threads"}
        nothing = Offload()
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value != getattr(nothing, name)
        }

    def _check_cache(self) -> None:
        for name in ("cache_type_k", "cache_type_v"):
            given = getattr(self, name)
            if given not in CACHE_TYPES:
                raise BadValueError(f"{name} {given!r}: give one of {', '.join(CACHE_TYPES)}")
        if self.cache_type_v not in UNQUANTISED and self.flash_attention is False:
            raise BadValueError(
                f"cache_type_v {self.cache_type_v} needs flash attention: turn it on, or give f16"
            )

    def _check_split(self) -> None:
        split = self.tensor_split
        if split is None:
            return
        given = ",".join(map(str, split))
        if not all(math.isfinite(share) and share >= 0 for share in split) or not any(split):
            raise BadValueError(f"tensor_split {given!r}: give layers of each GPU, such as 20,13")
        if self.devices and len(self.devices) != len(split):
            raise BadValueError(
                f"tensor_split {given} is for {len(split)} devices and {len(self.devices)} are "
                "named: give a share for each"
            )


def _check_names(what: str, given: Iterable[str], form: re.Pattern[str], example: str) -> None:
    """Refuse a name that would be taken for two, or for a flag."""
    for name in given:
        if not form.fullmatch(name):
            raise BadValueError(f"{what} {name!r}: give it as {example}")


def check_split(offload: Offload) -> None:
    """Refuse a split over more devices than llama.cpp takes, and with it every engine of ours.

    Raises:
        BadValueError: it is one; says over how many.
    """
    devices = len(offload.tensor_split or ())
    if devices > MOST_DEVICES:
        raise BadValueError(
            f"tensor_split over {devices} devices: llama.cpp takes {MOST_DEVICES} at most; give "
            "fewer devices"
        )


def flag_words(*flags: tuple[str, object]) -> list[str]:
    """Return flags with their values as words of a command line.

    Args:
        flags: name and value. A tuple is as many words; True stands for a flag without a value;
            with None, False, or nothing in text or tuple, the flag is left out.
    """
    words = []
    for flag, value in flags:
        if value is None or value is False or value in ("", ()):
            continue
        words.append(flag)
        if value is not True:
            words += map(str, value if isinstance(value, tuple) else (value,))
    return words
