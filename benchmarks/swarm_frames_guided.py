"""Puts mutated frames to a session, guided by which edges of the code they reach (atheris).

A part of ``swarm_frames.py``, which starts it anew for each seed and reads what it writes: counts
as JSON, again and again, and each input that is a fault.

    python benchmarks/swarm_frames_guided.py WORK_FOLDER SEED INPUTS
"""

from __future__ import annotations

import os
import sys
import traceback
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Final

import atheris

GUIDING: Final = ["shoestring.swarm"]
"""What is looked at: all of it that a session needs; what judges is imported after it."""
with atheris.instrument_imports(include=GUIDING):
    from shoestring.swarm import session  # noqa: F401 - with all that it needs

from swarm_frames_run import CORPUS, Run  # noqa: E402

from shoestring.testing.rpc_fuzz import FRAME_BYTES, changed, seeds_of  # noqa: E402

MEMORY_MB: Final = 2_048
OURS: Final = 0.5
"""Of the inputs: changed frame by frame; the others byte by byte, as libFuzzer does."""


def main() -> None:
    """Fuzz; libFuzzer ends the process."""
    folder, seed, inputs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    run = Run(folder, seed, inputs, f"guided by coverage, atheris {version('atheris')}")

    def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() >= OURS:
            return bytes(atheris.Mutate(data, most_bytes))
        try:
            return changed(rng, run.spots, data)[:most_bytes]
        except Exception:  # noqa: BLE001 - whatever it is, libFuzzer would stand still
            traceback.print_exc()
            os._exit(1)

    corpus, crashes = folder / CORPUS, folder / "crashes"
    for place in (corpus, crashes):
        place.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds_of(run.spots)):
        (corpus / f"recorded-{number}").write_bytes(data)
    run.known = {sha256(place.read_bytes()).digest() for place in corpus.iterdir()}
    words = [
        sys.argv[0], str(corpus), f"-seed={seed}", f"-runs={inputs}", f"-max_len={FRAME_BYTES}",
        f"-artifact_prefix={crashes}/{seed}-", "-timeout=0", f"-rss_limit_mb={MEMORY_MB}",
        "-len_control=0", "-print_final_stats=1", "-reload=0",
    ]  # fmt: skip
    atheris.Setup(words, run.put, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
