"""Which GPUs a process that uses CUDA would see: the rules of ``CUDA_VISIBLE_DEVICES``.

The variable lists indices or UUIDs (or their unique beginnings); the first entry that names no
GPU ends the list, so ``-1`` hides all. CUDA counts the fastest GPU as 0 unless
``CUDA_DEVICE_ORDER=PCI_BUS_ID`` is set, while NVML counts by the slots. Where unlike GPUs make the
two orders differ, an index does not say which GPU is meant, and none is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"


def visible_gpus(
    environ: Mapping[str, str], uuids: Sequence[str | None], names: Sequence[str | None]
) -> tuple[tuple[int, ...], str | None]:
    """Choose among the GPUs of the machine.

    Args:
        environ: environment variables.
        uuids: of each GPU, in NVML's order.
        names: of each GPU's model, likewise.

    Returns:
        NVML's indices, in the order of the variable, and why there are none (else None).
    """
    value = environ.get(VARIABLE)
    if value is None:
        return tuple(range(len(uuids))), None
    chosen: dict[int, bool] = {}  # index of the GPU, and whether it was named by its number
    for entry in (part.strip() for part in value.split(",")):
        index = _index(entry, uuids)
        if index is None:
            break
        chosen.setdefault(index, entry.isdecimal())
    if not chosen:
        return (), f"{VARIABLE}={value!r} names none of the {len(uuids)} GPUs here"
    unlike = len(set(names)) > 1 and len(chosen) < len(uuids)
    if unlike and any(chosen.values()) and environ.get(ORDER) != "PCI_BUS_ID":
        return (), (
            f"{VARIABLE}={value!r} counts in CUDA's own order, and the GPUs are unlike; "
            f"set {ORDER}=PCI_BUS_ID or name them by UUID"
        )
    return tuple(chosen), None


def _index(entry: str, uuids: Sequence[str | None]) -> int | None:
    if entry.isdecimal() and entry.isascii():
        return int(entry) if int(entry) < len(uuids) else None
    if not entry.startswith("GPU-"):
        return None
    found = [n for n, uuid in enumerate(uuids) if uuid is not None and uuid.startswith(entry)]
    return found[0] if len(found) == 1 else None
