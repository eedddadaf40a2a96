"""Which run goes on with ``--resume``: a cut one of the same kind, and its partners with it.

The runs of a comparison are one group: they were made in turn, and each names the others in its
``interleaved_with``. So they go on together or not at all, and a run that was made by itself is
nobody's partner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from shoestring.engines.ollama_processes import is_loopback
from shoestring.errors import BadRunError
from shoestring.measure import records
from shoestring.measure.records import read_object, read_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shoestring.measure.progress import RunProgress


THREADS: Final = frozenset({"threads", "num_thread"})
LOOPBACK: Final = "loopback"


def find_cut_runs(
    out: Path, configs: Sequence[dict[str, Any]], progress: RunProgress
) -> list[Path] | None:
    """Return the run to go on with for each config, in their order; None where there is none.

    Args:
        out: a run itself, or a folder in which the newest group counts that is not complete.
        configs: what is to be measured: of one engine, or of several in turn.
        progress: told what was passed over.

    Raises:
        BadRunError: ``out`` is a run of something else, or its partners are not beside it.
    """
    if (out / records.CONFIG).is_file():
        differing = _least_differences(out, configs)
        if differing:
            raise BadRunError(
                f"{out} is a run with another {', '.join(differing)}: resume it with its own"
            )
        return _group(out, configs)
    for folder in sorted(out.iterdir(), reverse=True) if out.is_dir() else []:
        if not (folder / records.CONFIG).is_file():
            continue
        try:
            if not _least_differences(folder, configs):
                group = _group(folder, configs)
                if not all(map(is_complete, group)):
                    for each in group:
                        read_run(each)  # else a damaged one would be found each time
                    return group
        except BadRunError as error:
            progress.step(f"passed over: {error}")
    progress.step(f"no cut run of this suite, model and engine in {out}: beginning a new one")
    return None


def is_complete(folder: Path) -> bool:
    """Whether the manifest of a run says that every planned request has its row."""
    manifest = folder / records.MANIFEST
    return manifest.is_file() and read_object(manifest)["status"] == "complete"


def _group(folder: Path, configs: Sequence[dict[str, Any]]) -> list[Path]:
    """Return the run of each config: the one in the folder, or a partner that it names."""
    partners = read_object(folder / records.CONFIG).get("interleaved_with") or []
    near = [folder, *(folder.parent / name for name in partners)]
    there = [path for path in near if (path / records.CONFIG).is_file()]
    group = []
    for config in configs:
        found = [path for path in there if not _differences(path, config)]
        if not found:
            raise BadRunError(
                f"{folder} was made in turn with a run of {config['engine']['name']} that does "
                "not lie beside it: bring it there"
            )
        group += found
    return group


def _least_differences(folder: Path, configs: Sequence[dict[str, Any]]) -> list[str]:
    """Name what keeps a run from being one of these; nothing where it is one."""
    partners = read_object(folder / records.CONFIG).get("interleaved_with") or []
    if len(partners) + 1 != len(configs):
        return ["number of engines"]
    return min((_differences(folder, config) for config in configs), key=len)


def _differences(folder: Path, ours: dict[str, Any]) -> list[str]:
    """Name what would make rows of the two unlike.

    Run id, date, salt, deadlines, the folder of a model file, the number of threads and the port
    of a server of this machine may differ.
    """
    theirs = read_object(folder / records.CONFIG)
    parts = ("suite", "model", "engine", "requests")
    return [part for part in parts if _bearing(theirs, part) != _bearing(ours, part)]


def _bearing(config: dict[str, Any], part: str) -> Any:
    """Return a part of a config without what another machine may have otherwise."""
    value = config[part]
    if part == "model" and value["name"].startswith("file:") and value.get("sha256"):
        # On another machine the same bytes lie in another folder.
        return {**value, "name": "file:"}
    if part == "engine":
        # Threads follow the cores of each session, which its machine names and its report compares.
        given = value.get("options") or {}
        options = {name: v for name, v in given.items() if name not in THREADS}
        return {**value, "base_url": _bearing_url(value.get("base_url")), "options": options}
    return {**value, "deadlines": None} if part == "suite" else value


def _bearing_url(url: str | None) -> str | None:
    """Return an address; those of this machine are alike, for any free port may be taken."""
    if url is None:
        return None
    near = is_loopback(urlsplit(url).hostname or "")
    return LOOPBACK if near else url
