"""A model of fewer bits, made by llama.cpp's own ``llama-quantize``.

The tool decides the type of each tensor and does the arithmetic; this module sees to what it
leaves open. A dry run says beforehand how large the file will be, so that a full disk is found
before an hour of work. The file is made in a folder of its own beside its place,
``NAME.partial-XXXXXXXX/``, and moved there by one ``os.replace`` when its header was read and says
what was asked for: tensors, shapes, file type. So the name is absent, or the file is whole.

Bits per weight = 8 · bytes of all tensors / number of weights; keys and vocabulary do not count.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.digests import file_sha256
from shoestring.errors import BadModelError, BadValueError, MissingError, ShoestringError
from shoestring.models.downloads import sync
from shoestring.models.facts import facts_of
from shoestring.models.header import read_header
from shoestring.models.progress import MEGABYTE
from shoestring.quality.tool import PROGRAM, last_words, run_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoestring.models.header import Header
    from shoestring.quality.tool import Kind

MEBIBYTE = 1 << 20
ROUNDING_BYTES = MEBIBYTE
"""The dry run tells a size in MiB with two decimals, without the header's alignment."""
COPY = "COPY"
"""The type that llama-quantize takes for: change nothing."""
EXACT = re.compile(r"B?F\d+|I\d+")
"""Types of tensors from which nothing was taken away yet."""
_TENSOR = re.compile(r"^\[ *\d+/ *\d+\] (\S+) ")
_SIZE = re.compile(r"quant size *= *([\d.]+) MiB")
_NEEDS_MATRIX = re.compile(r"require an imatrix")


@dataclass(frozen=True)
class Quantised:
    """A quantised file that is here, whole and of the type that was asked for.

    Attributes:
        path: of the new file.
        kind: its type, for example ``Q4_K_M``.
        sha256: of the new file.
        source_kind: type of the file that it was made of, or None where that does not say.
        source_bytes: size of that file.
        file_bytes: size of the new file.
        parameters: number of weights.
        source_bits_per_weight: before.
        bits_per_weight: after.
        tensors: how many of each type, the commonest first.
        tensor_bytes: what each type takes, largest first.
        seconds: the tool took.
    """

    path: Path
    kind: str
    sha256: str
    source_kind: str | None
    source_bytes: int
    file_bytes: int
    parameters: int
    source_bits_per_weight: float
    bits_per_weight: float
    tensors: Mapping[str, int]
    tensor_bytes: Mapping[str, int]
    seconds: float


def check_exact(source: Path, header: Header) -> None:
    """Refuse a file that has lost bits already.

    Raises:
        BadModelError: it has, and which types its tensors have.
    """
    lossy = sorted({t.type_name for t in header.tensors if not EXACT.fullmatch(t.type_name)})
    if lossy:
        raise BadModelError(
            f"{source} is quantised already ({', '.join(lossy)}): give the F16, BF16 or F32 file; "
            "--allow-requantize takes it all the same, and the errors of both roundings add up"
        )


def quantise(
    source: Path,
    kind: Kind,
    out: Path,
    *,
    program: Path,
    threads: int,
    requantise: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    free_bytes: Callable[[Path], int],
) -> Quantised:
    """Make a quantised file of a GGUF file.

    Args:
        source: a whole GGUF file.
        kind: what to make.
        out: where; a file that lies there is replaced when the new one is whole.
        program: of llama-quantize.
        threads: how many compute.
        requantise: take a source that is quantised already.
        progress: called with bytes of the source that are done, and those of all its tensors.
        free_bytes: free space on the disk of a folder.

    Raises:
        BadModelError: the source is no whole GGUF, is quantised already, or cannot be read by
            llama.cpp.
        BadValueError: the type cannot be made without more than the source.
        MissingError: the disk is too small, or the folder cannot be written.
        ShoestringError: the tool failed, or made something else.
    """
    before = read_header(source)
    if not before.tensors:
        raise BadModelError(f"{source} holds no tensors: give a whole model")
    if not requantise and kind.name != COPY:
        check_exact(source, before)
    needed = _size_beforehand(source, before, kind, program)
    if (free := free_bytes(out.parent)) < needed:
        raise MissingError(
            f"not enough space in {out.parent} for {out.name}: {needed / MEGABYTE:.1f} MB needed, "
            f"{free / MEGABYTE:.1f} MB free; free some, or give --out on another disk"
        )
    flags = ["--allow-requantize"] if requantise else []
    begun_s = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.partial-") as folder:
            made = Path(folder) / out.name
            words = [*flags, str(source), str(made), kind.name, str(threads)]
            _make(program, words, _count_bytes(before, progress), out, free_bytes)
            seconds = time.monotonic() - begun_s
            after = _verify(made, kind, before)
            sha256 = file_sha256(made)
            sync(made)
            made.replace(out)
        sync(out.parent)
    except OSError as error:
        raise MissingError(
            f"cannot write {out}: {error.strerror}; name another file with --out"
        ) from error
    return _describe(out, kind, sha256, before, after, seconds)


def _make(
    program: Path,
    words: list[str],
    on_line: Callable[[str], None],
    out: Path,
    free_bytes: Callable[[Path], int],
) -> None:
    """Run the tool; it does not tell a full disk from a file that it cannot read."""
    try:
        run_tool(program, words, on_line)
    except BadModelError as error:
        if free_bytes(out.parent) >= MEBIBYTE:
            raise
        raise MissingError(
            f"the disk of {out.parent} is full: free some, or give --out on another disk; "
            "nothing was kept"
        ) from error


def _size_beforehand(source: Path, before: Header, kind: Kind, program: Path) -> int:
    """Ask the tool how large the file will be; it computes nothing for that."""
    lines = run_tool(program, ["--dry-run", str(source), kind.name])
    if any(map(_NEEDS_MATRIX.search, lines)):
        raise BadValueError(
            f"type {kind.name} needs an importance matrix, which is not made here: take a larger "
            "type, or call llama-quantize --imatrix yourself"
        )
    sizes = [found for line in lines if (found := _SIZE.search(line))]
    if not sizes:
        raise ShoestringError(f"{program} --dry-run tells no size: {last_words(lines)}")
    head_bytes = before.file_bytes - sum(tensor.data_bytes for tensor in before.tensors)
    return math.ceil(float(sizes[-1][1]) * MEBIBYTE) + head_bytes + ROUNDING_BYTES


def _count_bytes(before: Header, progress: Callable[[int, int], None]) -> Callable[[str], None]:
    """Return what turns the tool's lines, one a finished tensor, into bytes that are done."""
    sizes = {tensor.name: tensor.data_bytes for tensor in before.tensors}
    total_bytes, done_bytes = sum(sizes.values()), 0

    def take(line: str) -> None:
        nonlocal done_bytes
        if (found := _TENSOR.match(line)) is not None:
            done_bytes += sizes.get(found[1], 0)
            progress(done_bytes, total_bytes)

    return take


def _verify(made: Path, kind: Kind, before: Header) -> Header:
    """Read the header of what was made, and compare it with what was asked for."""
    after = read_header(made)
    wrong = None
    if {t.name: t.shape for t in after.tensors} != {t.name: t.shape for t in before.tensors}:
        wrong = "its tensors are not those of the source"
    found = after.values.get("general.file_type")
    if kind.number is not None and found != kind.number:
        wrong = f"its general.file_type is {found}, not {kind.number}"
    if wrong is not None:
        raise ShoestringError(f"{PROGRAM} did not make {kind.name}: {wrong}; nothing was kept")
    return after


def _describe(
    out: Path, kind: Kind, sha256: str, before: Header, after: Header, seconds: float
) -> Quantised:
    old, new = facts_of(before), facts_of(after)
    return Quantised(
        path=out,
        kind=kind.name if kind.number is not None else new.quantisation or kind.name,
        sha256=sha256,
        source_kind=old.quantisation,
        source_bytes=old.file_bytes,
        file_bytes=new.file_bytes,
        parameters=new.parameters,
        source_bits_per_weight=8 * old.tensor_bytes / old.parameters,
        bits_per_weight=8 * new.tensor_bytes / new.parameters,
        tensors=dict(Counter(t.type_name for t in after.tensors).most_common()),
        tensor_bytes=new.tensor_bytes_by_type,
        seconds=seconds,
    )
