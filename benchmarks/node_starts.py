"""How long does a node take to start, and where does the time go?

Each start is one ``shoestring up``, from the command to an answer in Open WebUI, step by step:

- ``from nothing``: empty cache and state. Open WebUI is installed, with an empty cache of wheels;
  the model is fetched. Building Ollama from source takes minutes that depend on the compiler and
  not on us, so the built one is copied into the new cache before the clock starts.
- ``cold``: all is installed; a new state folder, and nothing in the page cache.
- ``warm``: all is installed; the state folder of the start before, the page cache as it is.

Cold and warm starts take turns, so a drift of the machine falls on both. Beside the times: resident
memory of each service after the first answer, and what Open WebUI's environment takes on disk.

    python benchmarks/node_starts.py [--from-nothing 2] [--times 5] [--figures FOLDER]
                                     [--json-out FILE]
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from results import write_result
from shoestring.engines.discovery import MENDS
from shoestring.engines.install.pins import find_pin, find_pinned_program
from shoestring.paths import cache_dir
from shoestring.stack.open_webui.environment import environment_folder, pinned_version
from shoestring.testing.node_process import MODEL, Place, node_up, service_rss_bytes

FROM_NOTHING, COLD, WARM = "from nothing", "cold", "warm"
DROP = Path("/proc/sys/vm/drop_caches")
BAR_S = 60.0
"""With all installed, an answer in Open WebUI is there by then."""
BLOCK_BYTES = 512
"""The unit of ``st_blocks``, whatever the disk's own is."""


def main() -> None:
    """Make all starts and write them."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--from-nothing", type=int, default=2, help="so often; 0: not")
    arguments.add_argument("--times", type=int, default=5, help="cold and warm, each")
    arguments.add_argument("--figures", type=Path, help="draw the starts into this folder")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/node-starts.json")
    )
    given = arguments.parse_args()
    if given.times < 1 or given.from_nothing < 0:
        arguments.error("--times: at least 1; --from-nothing: at least 0")
    if find_pinned_program("ollama", cache_dir()) is None:
        arguments.error(f"Ollama is not in the cache: {MENDS['ollama']}")
    starts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(given.from_nothing):
            starts.append(from_nothing(folder / f"nothing-{number}"))
            shutil.rmtree(folder / f"nothing-{number}")
        warm = Place(folder / "warm")
        with node_up(warm):
            pass  # what is missing is installed, and the database made: no warm start yet
        for number in range(given.times):
            starts += [cold(folder / f"cold-{number}"), one_start(WARM, warm)]
    figures: dict[str, Any] = {
        "model": MODEL, "open_webui": pinned_version(), "bars": judge(starts),
        "environment_bytes": disk_bytes(environment_folder(cache_dir())),
        "summary": summarise(starts), "starts": starts,
    }  # fmt: skip
    write_result(given.json_out, "node-starts", figures)
    if given.figures is not None:
        draw(starts, given.figures)
    for name, bar in figures["bars"].items():
        print(f"{'met' if bar['met'] else 'missed':7} {name}: at most {bar['max_s']:.1f} s")


def from_nothing(folder: Path) -> dict[str, Any]:
    """Start a node where there is nothing but a built Ollama."""
    cache, wheels = folder / "cache", folder / "wheels"
    engine = find_pin("ollama")
    begun_s = time.monotonic()
    shutil.copytree(engine.folder(cache_dir()), engine.folder(cache), symlinks=True)
    copied_s = time.monotonic() - begun_s
    place = Place(folder / "state", cache, environment=(("UV_CACHE_DIR", str(wheels)),))
    return {
        **one_start(FROM_NOTHING, place),
        "installed_from": "Ollama: copied from the cache of this machine, built there before; Open "
        "WebUI: wheels from the registry, none cached; model: its wheel from the registry",
        "copied_s": copied_s,
        "environment_bytes": disk_bytes(environment_folder(cache)),
        "cache_bytes": disk_bytes(cache),
        "wheels_bytes": disk_bytes(wheels),
    }


def cold(state: Path) -> dict[str, Any]:
    """Start an installed node with a new state folder and without the page cache."""
    reason = drop_page_cache()
    start = one_start(COLD, Place(state))
    shutil.rmtree(state)
    return {**start, "page_cache_dropped": reason is None, "page_cache_reason": reason}


def one_start(kind: str, place: Place) -> dict[str, Any]:
    """Start a node, note what it took, and take it down."""
    load = os.getloadavg()[0]
    with node_up(place) as up:
        return {
            "kind": kind,
            "command_s": up.command_s,
            "services_ready_s": up.services_ready_s,
            "first_answer_s": up.first_answer_s,
            "spans": up.spans,
            "rss_bytes": service_rss_bytes(place),
            "load_average_1min": load,
        }


def drop_page_cache() -> str | None:
    """Have the kernel forget what it read from disk; return why it could not, or None."""
    os.sync()
    try:
        DROP.write_text("3", encoding="ascii")
    except OSError as error:
        return f"{DROP}: {error.strerror}"
    return None


def disk_bytes(folder: Path) -> int:
    """Return what a folder takes on disk; a file with several names counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        sizes[about.st_dev, about.st_ino] = about.st_blocks * BLOCK_BYTES
    return sum(sizes.values())


def summarise(starts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return for each kind the median and the extremes of the three times."""
    found = {}
    for kind in dict.fromkeys(one["kind"] for one in starts):
        mine = [one for one in starts if one["kind"] == kind]
        found[kind] = {"starts": len(mine)} | {
            name: {
                "median": median(one[name] for one in mine),
                "min": min(one[name] for one in mine),
                "max": max(one[name] for one in mine),
            }
            for name in ("command_s", "services_ready_s", "first_answer_s")
        }
    return found


def judge(starts: list[dict[str, Any]]) -> dict[str, Any]:
    """Say whether every start of an installed node met the bar."""
    latest_s = {
        kind: max(one["first_answer_s"] for one in starts if one["kind"] == kind)
        for kind in (COLD, WARM)
    }
    return {
        f"first answer in Open WebUI, {kind}": {
            "limit_s": BAR_S, "max_s": max_s, "met": max_s <= BAR_S,
        }
        for kind, max_s in latest_s.items()
    }  # fmt: skip


def draw(starts: list[dict[str, Any]], folder: Path) -> None:
    """Draw cold and warm starts beside each other."""
    from shoestring.report.node_figures import start_waterfall
    from shoestring.report.style import save_figure

    spans = {kind: [one["spans"] for one in starts if one["kind"] == kind] for kind in (COLD, WARM)}
    drawing = start_waterfall(spans)
    assert drawing.figure is not None
    save_figure(drawing.figure, folder / "node-starts")


if __name__ == "__main__":
    main()
