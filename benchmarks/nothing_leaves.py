"""Does anything leave the machine while a node works? Attempts to reach outside, counted.

Two parts, each sealed by :mod:`shoestring.testing.sealed`:

- ``instrument``: a program that attempts a known number of each kind, and one that speaks on
  loopback only; the counts must be exact, else the rest means nothing.
- ``thread``: ``shoestring up``, a chat through Open WebUI's API and one through its page in
  Chromium, ``shoestring run``, ``shoestring report``, ``shoestring down``; the goal is none.

    python benchmarks/nothing_leaves.py [--no-page] [--json-out FILE]

Status 1 where a count is not the goal. What is needed is installed before (``shoestring up`` once).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from results import write_result
from shoestring.testing.sealed import run_sealed

SUITE = Path(__file__).parents[1] / "tests" / "data" / "tiny.toml"
KNOWN = """
import socket
def connect(family, *to):
    with socket.socket(family) as one:
        try:
            one.connect(to)
        except ConnectionRefusedError:
            pass
for _ in range(5):
    connect(socket.AF_INET, "203.0.113.7", 80)
for _ in range(3):
    connect(socket.AF_INET6, "2001:db8::7", 443)
for number in range(4):
    socket.getaddrinfo(f"name{number}.example", 443)
for _ in range(2):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("203.0.113.9", 123))
"""
KNOWN_COUNTS = {"tcp": 8, "dns": 4, "udp": 2}
LOOPBACK = """
import socket
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.create_server((address, 0), family=family) as server:
        for _ in range(100):
            with socket.create_connection(server.getsockname()[:2]):
                server.accept()[0].close()
"""


def main() -> int:
    """Prove the instrument, go the thread, write both."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--no-page", action="store_true", help="without Chromium")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/nothing-leaves.json")
    )
    given = arguments.parse_args()
    instrument = prove_instrument()
    thread = go_thread(page=not given.no_page)
    bars = {
        "instrument is exact": instrument["exact"],
        "thread works": thread["status"] == 0,
        "nothing was lost": thread["lost_packets"] == 0,
        "nothing is attempted": thread["attempts"] == 0,
    }
    write_result(
        given.json_out, "nothing-leaves", {"instrument": instrument, "thread": thread, "bars": bars}
    )
    for name, met in bars.items():
        print(f"{'met' if met else 'MISSED':6} {name}")
    return 0 if all(bars.values()) else 1


def prove_instrument() -> dict[str, Any]:
    """Count what is known."""
    known = run_sealed([sys.executable, "-I", "-c", KNOWN])
    loopback = run_sealed([sys.executable, "-I", "-c", LOOPBACK])
    counts: dict[str, int] = {}
    for row in known["by"]:
        counts[row["kind"]] = counts.get(row["kind"], 0) + row["count"]
    exact = counts == KNOWN_COUNTS and loopback["attempts"] == 0
    exact = exact and known["status"] == loopback["status"] == 0
    return {"attempted": KNOWN_COUNTS, "counted": counts,
            "counted_on_loopback": loopback["attempts"], "exact": exact}  # fmt: skip


def go_thread(*, page: bool) -> dict[str, Any]:
    """Go the whole thread of a node; return what it attempted and what came of it."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "said.json").open("w+") as said:
        node = [sys.executable, "-P", "-m", "shoestring.testing.sealed_node", str(SUITE),
                "--out", folder, *(["--page"] if page else [])]  # fmt: skip
        result = run_sealed(node, stdout=said)
        said.seek(0)
        return {**result, **(_shown(json.load(said)) if result["status"] == 0 else {})}


def _shown(said: dict[str, Any]) -> dict[str, Any]:
    """Return of what the thread said what a reader wants to know."""
    report, page = said["report"], said["page"]
    return {
        "steps_s": said["steps_s"],
        "answered_through_api": bool(said["answer"]),
        "page": page and {"answered": bool(page["answer"]),
                          "requests_refused": page["requests_refused"]},
        "run": {"status": report["status"], "requests": report["requests"]},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
