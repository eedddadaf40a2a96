"""Is the model on the GPU? Asserted by two witnesses, never assumed.

On rented machines the GPU is there and the model runs on the CPU all the same: a driver too old
for the libraries, a variable left over, a model too large. Then every figure would be one of
the wrong machine. Two witnesses are heard:

- Ollama's ``/api/ps``: ``size_vram`` of ``size`` bytes are on GPUs (what is loaded, KV cache and
  compute buffers included; parsed by Ollama from the runner's log).
- the driver: how much more VRAM is in use than before the load; where a model was in VRAM before,
  how much is in use at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shoestring.errors import ShoestringError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Verdict = Literal["no gpu", "gpu", "offload", "cpu", "unknown"]
GROWN_SHARE = 0.5
"""Of what Ollama says is in VRAM, the driver must have seen so much come."""


@dataclass(frozen=True)
class GpuUse:
    """Where a loaded model is.

    Attributes:
        verdict: ``gpu``: all of it; ``offload``: a part; ``cpu``: none though there is a GPU.
        gpus: names of the GPUs that there are.
        model_bytes: what Ollama holds for the model, or None where it does not say.
        vram_bytes: of these, on GPUs.
        vram_grown_bytes: what the driver saw come; None where it does not say, or where a model
            was there before.
        why: one line.
    """

    verdict: Verdict
    gpus: tuple[str, ...]
    model_bytes: int | None
    vram_bytes: int | None
    vram_grown_bytes: int | None
    why: str


def judge_gpu_use(
    gpus: Sequence[Mapping[str, Any]],
    loaded: Mapping[str, Any] | None,
    before_bytes: Mapping[int, int | None] | None,
    after_bytes: Mapping[int, int | None],
) -> GpuUse:
    """Say where the model is.

    Args:
        gpus: as ``hardware.gpus`` lists them.
        loaded: what ``/api/ps`` says of the model, or None.
        before_bytes: VRAM in use on each GPU before the model was loaded; None where Ollama held
            a model there already, so that nothing new need have come.
        after_bytes: after.
    """
    names = tuple(str(gpu["name"]) for gpu in gpus)
    size = int((loaded or {}).get("size") or 0) or None
    vram = int(loaded.get("size_vram") or 0) if loaded is not None and size is not None else None
    grown = None if before_bytes is None else _grown(before_bytes, after_bytes)
    used = _grown(dict.fromkeys(after_bytes, 0), after_bytes) if grown is None else grown

    def verdict(word: Verdict, why: str) -> GpuUse:
        return GpuUse(word, names, size, vram, grown, why)

    if not gpus:
        return verdict("no gpu", "no GPU is here: the model runs on the CPU")
    if size is None or vram is None:
        return verdict("unknown", "Ollama does not say how much it holds for the model")
    if vram == 0:
        return verdict("cpu", "Ollama holds nothing of the model in VRAM")
    if used is not None and used < GROWN_SHARE * vram:
        seen = f"the driver saw {used} come" if grown is not None else f"the driver says {used}"
        return verdict("cpu", f"Ollama says that {vram} bytes are in VRAM, {seen}")
    if vram < size:
        return verdict("offload", f"{vram} of {size} bytes are in VRAM, the rest is in RAM")
    return verdict("gpu", f"all {size} bytes are in VRAM")


def require_gpu(use: GpuUse) -> None:
    """Refuse a model that is on the CPU though there is a GPU, or of which nobody knows.

    Raises:
        ShoestringError: it is; says what can be done.
    """
    if use.verdict in ("cpu", "unknown"):
        raise ShoestringError(
            f"there is a GPU ({', '.join(use.gpus)}) and the model is not seen there: {use.why}; "
            "look for 'cuda' in ollama.log (driver 550 or newer, 570 for a P100; no "
            "CUDA_VISIBLE_DEVICES or ROCR_VISIBLE_DEVICES), or give --allow-cpu"
        )


def _grown(before: Mapping[int, int | None], after: Mapping[int, int | None]) -> int | None:
    pairs = [(before.get(index), used) for index, used in after.items()]
    if not pairs:
        return None
    grown = 0
    for was, used in pairs:
        if was is None or used is None:
            return None
        grown += used - was
    return grown
