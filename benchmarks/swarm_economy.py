"""One walk through the swarm's economy, with real nodes: sold, signed, refused, booked, audited.

1. *Sold.* Two nodes with prices, processes of their own on hosts of the laboratory, answer a stock
   llama-server. Receipts are read from both ends' disks and compared.
2. *Refused.* Each bit of a receipt is flipped; parties, strangers, and both together forge.
3. *Booked.* The bill before is held, the one after captured, the rest released; what is wrong is
   tried, and the book verified, whole and changed.
4. *Market.* Signed quotes of a few dozen seeded sellers: routes from the cheapest to the fastest,
   and why each seller was not taken.
5. *Audited.* A node begins to cheat while it works, until it is found and replaced; another counts
   wrongly.

    python benchmarks/swarm_economy.py [--model pypi:gemma3-270m] [--answers 2] [--tokens 64]
                                       [--rtt-ms 2] [--sellers 36] [--seed 1] [--json-out FILE]

Needs what the laboratory needs; ``--rtt-ms 0`` is on loopback. The bars: receipts are the same at
both ends, no changed bit and no forgery is taken that fewer than both parties could make, the cheat
is excluded with evidence that it signed. The status is 1 where one is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from swarm_economy_audit import audit, count_wrongly
from swarm_economy_book import book_it
from swarm_economy_market import trade
from swarm_economy_receipts import PRICES, sell, told_bills, told_receipts
from swarm_economy_refused import flip_all, forge

from results import write_result
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir


def main() -> int:
    """Walk, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default="pypi:gemma3-270m")
    arguments.add_argument("--answers", type=int, default=2)
    arguments.add_argument("--tokens", type=int, default=64, help="of each answer")
    arguments.add_argument("--rtt-ms", type=float, default=2.0)
    arguments.add_argument("--sellers", type=int, default=36)
    arguments.add_argument("--seed", type=int, default=1, help="of the market")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-economy.json")
    )
    given = arguments.parse_args()
    if given.answers < 1 or given.tokens < 64 or given.rtt_ms < 0 or given.sellers < 8:
        arguments.error("--answers: at least 1; --tokens: 64; --rtt-ms: 0; --sellers: 8")
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        found = walk(given, Path(name))
    figures = {
        "how": {"model": given.model, "answers": given.answers, "tokens": given.tokens,
                "rtt_s": given.rtt_ms / 1e3, "nodes": len(PRICES), "sellers": given.sellers,
                "seconds": time.monotonic() - begun_s},
        "bars": judge(found), **found,
    }  # fmt: skip
    write_result(given.json_out, "swarm-economy", figures)
    return 0 if all(bar["met"] for bar in figures["bars"]) else 1


def walk(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Do all five, one after the other."""
    say("sold")
    sold = sell(
        folder, resolve_model(given.model, cache=cache_dir()).path,
        answers=given.answers, tokens=given.tokens, rtt_s=given.rtt_ms / 1e3 or None,
    )  # fmt: skip
    found: dict[str, Any] = {"receipts": told_receipts(sold), "bills": told_bills(sold)}
    say("refused")
    found |= {"flipped": flip_all(sold.mine[0][-1]), "forged": forge(folder, sold)}
    say("booked")
    found["ledger"] = book_it(folder, sold)
    say("market")
    found["market"] = trade(folder, given.sellers, given.seed)
    say("audited")
    found["audit"] = audit(folder)
    found["wrong_count"] = count_wrongly(folder)
    return found


def judge(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Say which bars are met."""
    sessions, audited = found["receipts"]["sessions"], found["audit"]
    taken = sum(row["flipped"] - row["refused"] for row in found["flipped"])
    forged = sum(one["reason"] is None for one in found["forged"] if one["who"] != "both")
    proven = sum(one["signed_by_node"] for one in audited["evidence"])
    honest = set(audited["excluded"]) - {"node0"}
    rows = [
        ("sessions whose receipts differ at the two ends",
         sum(not one["same_at_both_ends"] for one in sessions), 0),
        ("changed bits of a receipt that are taken", taken, 0),
        ("forgeries of fewer than both parties that are taken", forged, 0),
        ("receipts signed for a node that counts wrongly", found["wrong_count"]["signed"], 0),
        ("honest nodes excluded", len(honest), 0),
        ("cheats that are not excluded with evidence they signed",
         int(audited["excluded"] != ["node0"] or not proven), 0),
        ("books that verify, though changed",
         int(found["ledger"]["changed"]["fault"] is None), 0),
    ]  # fmt: skip
    return [
        {"bar": bar, "value": value, "sense": "at most", "limit": limit, "met": value <= limit}
        for bar, value, limit in rows
    ]


def say(what: str) -> None:
    """Tell who waits what is done now."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
