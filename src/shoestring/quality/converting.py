"""Safetensors to GGUF, by llama.cpp's own ``convert_hf_to_gguf.py``.

The script needs torch and transformers in versions of its own, so it runs in an environment that
uv makes from a lock with hashes, in the cache, when the first folder is converted. The script
itself comes out of the source that the engine is built from (``engines/install``): a model is
converted by the very commit that serves it. The note in the environment is written last: one
without it, or of another lock or source, is made anew.

Nothing is rounded: F32 stays F32, BF16 stays BF16. No network is used, and no code of the model's
own is run: a folder that asks for it (``auto_map``) is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.engines.install.llama_cpp import fetch_source
from shoestring.engines.install.pins import Pin, find_pin
from shoestring.engines.install.steps import Site, follow
from shoestring.errors import BadModelError, MissingError
from shoestring.models.downloads import check_space, locked, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTE = "shoestring.json"
PYTHON = ">=3.11,<3.14"
SCRIPT = "convert_hf_to_gguf.py"
PARTS = (SCRIPT, "conversion", "gguf-py")
"""What of llama.cpp's source the conversion needs."""
SPACE_BYTES = 8_000_000_000
"""The environment, and the wheels beside it while they are unpacked."""
MOST_HEADER_BYTES = 100_000_000  # as the safetensors library itself allows
OUTTYPES = {"F64": "f32", "F32": "f32", "BF16": "bf16", "F16": "f16"}
"""The type of the file that keeps every bit of weights stored so (all but those of F64)."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": "", "HF_TOKEN": ""}
KEPT_LINES = 50
SHOWN = 200
_WRITTEN = re.compile(r"Writing:\s+(\d+)%")


@dataclass(frozen=True)
class Checkpoint:
    """A folder of safetensors, as its own headers describe it.

    Attributes:
        folder: in the layout of Hugging Face: ``config.json``, weights, tokenizer.
        outtype: of the script: the type that keeps every bit.
        weights_bytes: of all files of weights.
    """

    folder: Path
    outtype: str
    weights_bytes: int


def read_checkpoint(folder: Path) -> Checkpoint:
    """Look at a folder before anything is installed for it.

    Raises:
        BadModelError: it is no whole model in safetensors, or wants its own code to be run.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise BadModelError(
            f"{folder} is no model in safetensors: config.json and *.safetensors are needed there"
        )
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in _read_object(folder / name):
            raise BadModelError(
                f"{folder / name} asks for Python code of the model's own (auto_map), which is not "
                "run here: give a GGUF file of the model"
            )
    missing = _parts(folder) - {file.name for file in files}
    if missing:
        raise BadModelError(f"{folder} lacks {min(missing)}: fetch the whole model")
    stored = {kind for file in files for kind in _stored_types(file)}
    outtypes = {OUTTYPES[kind] for kind in stored if kind in OUTTYPES}
    if not outtypes:
        raise BadModelError(
            f"{folder} stores its weights as {', '.join(sorted(stored)) or 'nothing'}: "
            "give the model in F32, BF16 or F16"
        )
    outtype = outtypes.pop() if len(outtypes) == 1 else "f32"  # which holds both 16-bit types
    return Checkpoint(folder, outtype, sum(file.stat().st_size for file in files))


def convert(
    checkpoint: Checkpoint,
    out: Path,
    *,
    cache: Path,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Write the GGUF file of a checkpoint.

    Args:
        checkpoint: from :func:`read_checkpoint`.
        out: the file; what a failure leaves there is of no use.
        cache: the cache folder, in which the environment lies.
        say: given lines for the user.
        progress: called with bytes done and in all, in steps of a hundredth.

    Raises:
        BadModelError: the script does not take the model.
        MissingError: the environment cannot be made.
    """
    python, source = install_converter(cache, say)
    kept: deque[str] = deque(maxlen=KEPT_LINES)

    def take(line: str) -> None:
        kept.append(line)
        if (found := _WRITTEN.search(line)) is not None:
            progress(int(found[1]) * checkpoint.weights_bytes // 100, checkpoint.weights_bytes)

    words = [
        str(python), str(source / SCRIPT), str(checkpoint.folder.resolve()),
        "--outfile", str(out.resolve()), "--outtype", checkpoint.outtype,
    ]  # fmt: skip
    status = follow(words, source, OFFLINE, take)
    if status != 0:
        said = [line.strip() for line in kept if line.strip()] or [f"exit status {status}"]
        raise BadModelError(
            f"{checkpoint.folder}: {SCRIPT} failed ({said[-1][:SHOWN]!a}): check that "
            "llama.cpp knows this architecture, and that its tokenizer's files are there"
        )


def install_converter(cache: Path, say: Callable[[str], None]) -> tuple[Path, Path]:
    """Make the environment, unless it is there and whole.

    Returns:
        Its Python, and the folder of the script.

    Raises:
        MissingError: the network or space is missing.
        ShoestringError: it could not be made; the message says where the log is.
    """
    pin = find_pin("llama.cpp")
    folder = converter_folder(cache)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder, say):
            if not is_installed(cache):
                say(f"installing llama.cpp's converter into {folder} (torch: gigabytes, once)")
                _make(folder, pin, say)
    except OSError as error:
        raise MissingError(
            f"cannot keep the converter in {folder.parent}: {error.strerror}; free some space or "
            "set SHOESTRING_CACHE to a folder that you can write"
        ) from error
    return folder / "bin" / "python", folder / "llama.cpp"


def converter_folder(cache: Path) -> Path:
    """Return where the environment lies, whether or not it is there."""
    return cache / f"converter-{find_pin('llama.cpp').version}"


def is_installed(cache: Path) -> bool:
    """Whether the environment is there, made to its end, of this lock and source, with Python."""
    folder = converter_folder(cache)
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    needed = (folder / "bin" / "python", folder / "llama.cpp" / SCRIPT)
    return bool(note == _note()) and all(path.is_file() for path in needed)


def _make(folder: Path, pin: Pin, say: Callable[[str], None]) -> None:
    free = shutil.disk_usage(folder.parent).free
    check_space("llama.cpp's converter", folder.parent, needed=SPACE_BYTES, free=free)
    shutil.rmtree(folder, ignore_errors=True)
    log = folder.with_name(f"{folder.name}.log")
    log.write_text("")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.partial-") as temp:
        named = replace(pin, name="the converter of llama.cpp")
        site = Site(pin=named, folder=folder, scratch=Path(temp), log=log, say=say)
        source = fetch_source(site)
        # `--no-config`: an override of the user's own would make another environment of this lock.
        _uv(site, "venv", "--no-config", "--quiet", "--python", PYTHON, str(folder))
        with resources.as_file(resources.files(__package__) / "converter.lock") as lock:
            _uv(
                site, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"),
                "--no-deps", "--require-hashes", "--only-binary", ":all:",
                "--requirements", str(lock),
            )  # fmt: skip
        (folder / "llama.cpp").mkdir()
        for part in PARTS:
            shutil.move(source / part, folder / "llama.cpp" / part)
    write_whole(folder / NOTE, json.dumps(_note(), indent=2) + "\n")


def _uv(site: Site, *words: str) -> None:
    mend = "check the network and UV_INDEX_URL, then try again"
    site.run((sys.executable, "-P", "-m", "uv", *words), mend=mend)


def _note() -> dict[str, str]:
    lock = (resources.files(__package__) / "converter.lock").read_bytes()
    source = find_pin("llama.cpp").source["sha256"]
    return {"lock_sha256": hashlib.sha256(lock).hexdigest(), "source_sha256": source}


def _parts(folder: Path) -> set[str]:
    """Return the files of weights that the index of a model in several parts names."""
    weights = _read_object(folder / "model.safetensors.index.json").get("weight_map")
    return set(map(str, weights.values())) if isinstance(weights, dict) else set()


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BadModelError(f"{path} cannot be read as JSON: fetch it again") from error
    if not isinstance(found, dict):
        raise BadModelError(f"{path} holds no JSON object: fetch it again")
    return found


def _stored_types(file: Path) -> Iterator[str]:
    """Yield the type of each matrix; the script keeps what has one dimension in F32 anyway."""
    for entry in _read_tensors(file):
        if len(entry["shape"]) > 1:
            yield str(entry["dtype"])


def _read_tensors(file: Path) -> list[dict[str, Any]]:
    """Read the header of a safetensors file, and see that the file is whole.

    The file is: length of the header (8 bytes, little-endian), the header as JSON, the data.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as data:
            (header_bytes,) = struct.unpack("<Q", data.read(8))
            header = json.loads(data.read(min(header_bytes, MOST_HEADER_BYTES)))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        data_bytes = max((entry["data_offsets"][1] for entry in tensors), default=0)
        whole = 8 + header_bytes + data_bytes <= size and all("shape" in entry for entry in tensors)
    except (
        OSError,
        ValueError,
        RecursionError,
        struct.error,
        AttributeError,
        LookupError,
        TypeError,
    ) as error:
        raise BadModelError(f"{file} is no safetensors file: fetch it again") from error
    if not whole:
        raise BadModelError(f"{file} is cut: it has {size} bytes; fetch it again")
    return tensors
