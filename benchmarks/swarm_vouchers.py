"""What does a voucher cost, and may it be signed for each token?

One is signed and taken many times over: the signature alone, as x402's package makes and checks it,
and all that a payer and a payee do for an answer, with their files written and synced to disk. Each
is told in seconds of this process's computing and in seconds that passed, which are more where the
machine has other work. The package is imported in processes of their own: its users wait for that
once.

    python benchmarks/swarm_vouchers.py [--times 200] [--imports 5] [--json-out FILE]

The bar: what a voucher an answer makes both ends compute is below 50 ms. A voucher a token is not
meant; receipts are signed by ed25519, and what that costs is measured elsewhere.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from results import write_result
from shoestring.swarm.vouchers.channels import open_channel
from shoestring.swarm.vouchers.forms import read_object, read_payload
from shoestring.swarm.vouchers.keys import load_evm_key
from shoestring.swarm.vouchers.payouts import Payout
from shoestring.swarm.vouchers.purse import Purse
from shoestring.swarm.vouchers.till import Till, check_signature

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

NETWORK: Final = "eip155:84532"
TOKEN: Final = "0x" + "70" * 20
BAR_S: Final = 0.05
IMPORT: Final = """
import json, time
clocks = time.process_time, time.perf_counter
begun = [clock() for clock in clocks]
import shoestring.swarm.vouchers.till
print(json.dumps([clock() - at for clock, at in zip(clocks, begun)]))
"""
Both = tuple[float, float]
"""Seconds computed, and passed."""
PACKAGES: Final = ("x402", "eth-account", "eth-keys")


def main() -> None:
    """Measure, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--times", type=int, default=200)
    arguments.add_argument("--imports", type=int, default=5)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-vouchers.json")
    )
    given = arguments.parse_args()
    if given.times < 2 or given.imports < 2:
        arguments.error("--times, --imports: at least 2")
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), given.times)
    seconds["import"] = summary([imported() for _ in range(given.imports)])
    both = sum(seconds[end]["computed"]["median"] for end in ("payer_an_answer", "payee_an_answer"))
    figures = {
        "how": {"times": given.times, "imports": given.imports,
                "packages": {name: version(name) for name in PACKAGES}},
        "bars": [{"bar": "a voucher an answer, both ends, computed, median, s", "value": both,
                  "sense": "below", "limit": BAR_S, "met": both < BAR_S}],
        "seconds": seconds,
    }  # fmt: skip
    write_result(given.json_out, "swarm-vouchers", figures)


def measure(folder: Path, times: int) -> dict[str, dict[str, dict[str, float]]]:
    """Sign and take so many vouchers, each a micro-credit above the one before."""
    payer, payee = load_evm_key(folder / "payer.key"), load_evm_key(folder / "payee.key")
    channel = open_channel(
        payer.address, payee.address, token=TOKEN, network=NETWORK, deposit=times
    )
    purse, till = Purse(folder / "signed", payer), Till(folder / "held")
    purse.open(channel)
    till.admit(channel.config, times, Payout(payee.address, TOKEN, NETWORK))

    def pay(amount: int) -> bytes:
        return json.dumps(purse.sign(channel.id, amount).to_dict()).encode()

    def take(text: bytes, amount: int) -> None:
        till.take(read_payload(read_object(text, "voucher")), amount)

    taken: dict[str, list[Both]] = {
        name: [] for name in ("sign", "recover", "payer_an_answer", "payee_an_answer")
    }
    for amount in range(1, times + 1):
        voucher = timed(taken["sign"], payer.sign_voucher, channel.id, amount, NETWORK)
        timed(taken["recover"], check_signature, channel, amount, voucher.signature)
        text = timed(taken["payer_an_answer"], pay, amount)
        timed(taken["payee_an_answer"], take, text, amount)
        if amount % 50 == 0:
            print(f"{amount} of {times}", file=sys.stderr)
    return {name: summary(found) for name, found in taken.items()}


def timed(into: list[Both], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do something, and note how long it took."""
    computed_s, passed_s = time.process_time(), time.perf_counter()
    made = work(*args, **kwargs)
    into.append((time.process_time() - computed_s, time.perf_counter() - passed_s))
    return made


def imported() -> Both:
    """Return how long a new process imports what a payee needs."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
    )
    computed_s, passed_s = json.loads(done.stdout)
    return computed_s, passed_s


def summary(found: list[Both]) -> dict[str, dict[str, float]]:
    """Return the least, the median and the most of each clock."""
    return {
        name: {"least": min(values), "median": statistics.median(values), "most": max(values)}
        for name, values in zip(("computed", "passed"), zip(*found, strict=True), strict=True)
    }


if __name__ == "__main__":
    main()
