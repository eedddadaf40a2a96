"""From what a user asks for to a quantised file: found, converted where needed, quantised."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.errors import MissingError
from shoestring.hardware.cores import usable_cores
from shoestring.models.progress import MEGABYTE
from shoestring.quality.converting import convert, read_checkpoint
from shoestring.quality.quantise import quantise
from shoestring.quality.sources import check_place, find_source
from shoestring.quality.tool import find_quantiser

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.models.progress import ProgressBar
    from shoestring.quality.converting import Checkpoint
    from shoestring.quality.quantise import Quantised


@dataclass(frozen=True)
class Wish:
    """What a user asks for.

    Attributes:
        source: a path or a model's name.
        kind: of the file, in capitals or not.
        out: where; None: beside the source (:meth:`shoestring.quality.sources.Source.place`).
        threads: how many compute; None: all cores that this process may use.
        force: replace a file that lies there.
        requantise: take a source that is quantised already.
    """

    source: str
    kind: str
    out: Path | None = None
    threads: int | None = None
    force: bool = False
    requantise: bool = False


def make(
    wish: Wish,
    *,
    cache: Path,
    bar: Callable[[str], ProgressBar],
    say: Callable[[str], None],
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> Quantised:
    """Make what is asked for; what can be refused is refused before any work.

    Args:
        wish: what.
        cache: the cache folder.
        bar: makes what shows how far a step is, given its label.
        say: given lines for the user.
        free_bytes: free space on the disk of a folder.

    Raises:
        UserError: the message says what cannot be had, and the mend.
        ShoestringError: a tool failed.
    """
    quantiser = find_quantiser()
    kind = quantiser.kind(wish.kind)
    with bar(wish.source) as shown:
        source = find_source(wish.source, cache=cache, progress=shown.update)
    out = wish.out or source.place(kind)
    check_place(out, source, force=wish.force)

    def take(path: Path) -> Quantised:
        with bar(f"{out.name}") as shown:
            return quantise(
                path, kind, out, program=quantiser.program, threads=wish.threads or usable_cores(),
                requantise=wish.requantise, progress=shown.update, free_bytes=free_bytes,
            )  # fmt: skip

    if not source.is_folder:
        return take(source.path)
    checkpoint = read_checkpoint(source.path)
    _check_room(checkpoint, out, free_bytes)
    # Beside the result: the disk that has to hold it anyway.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.partial-") as folder:
        whole = Path(folder) / f"{source.path.name}-{checkpoint.outtype}.gguf"
        with bar(f"{whole.name}") as shown:
            convert(checkpoint, whole, cache=cache, say=say, progress=shown.update)
        return take(whole)


def _check_room(checkpoint: Checkpoint, out: Path, free_bytes: Callable[[Path], int]) -> None:
    """See that the converted file fits; the result is looked at when it can be told."""
    free = free_bytes(out.parent)
    if free < checkpoint.weights_bytes:
        raise MissingError(
            f"not enough space in {out.parent} to convert {checkpoint.folder}: "
            f"{checkpoint.weights_bytes / MEGABYTE:.1f} MB needed, {free / MEGABYTE:.1f} MB free; "
            "free some, or give --out on another disk"
        )
