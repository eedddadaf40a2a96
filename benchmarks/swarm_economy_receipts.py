"""A chain of nodes that sell layers: receipts of both ends, the bill before and after.

Nodes are processes of their own, each with its price and its folder; the user is this process. What
a node keeps is read from its own disk.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING, Any, Final

from swarm_hosts import running_swarm
from swarm_user import PROMPT, READY_LIMIT_S, Told, llama_server

from shoestring.digests import file_sha256
from shoestring.swarm.home import Home
from shoestring.swarm.ledger.bills import Leg, Line, as_json, bill_after, bill_before
from shoestring.swarm.proof.agreeing import Asked, Price
from shoestring.swarm.proof.books import check_stages
from shoestring.swarm.proof.keeping import FOLDER, ReceiptFiles
from shoestring.swarm.proof.paying import Paying
from shoestring.swarm.proof.receipts import Hand, amount
from shoestring.swarm.spares import Need, Spares
from shoestring.swarm.stage import HOST, standing_stages
from shoestring.swarm.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from swarm_hosts import Node, Swarm

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.ledger.bills import Bill
    from shoestring.swarm.proof.receipts import Signed
    from shoestring.testing.live_server import LiveServer

PRICES: Final = (Price(200_000, 900_000), Price(300_000, 1_400_000))
"""Of each node: micro-credits a million tokens and layer."""
BLOCKS: Final = 18
"""Of gemma-3-270m; its output counts as one more layer."""
MEMORY_BYTES: Final = 1 << 30
OWN_TOKENS: Final = 2
"""Positions that llama-server computes once it has loaded, before anybody asks."""
BATCHES: Final = 3
"""Of one prompt, at most: llama-server computes its end apart, to come back to it; each batch gives
out a position."""
EXAMPLE: Final = 2
"""Of a session's receipts; those before are of llama-server's start and the prompt."""
Chain = list["Signed"]


class Sold:
    """What was sold.

    Attributes:
        user: who paid.
        nodes: their keys, in the order of their layers.
        mine: receipts that the user keeps, by node.
        theirs: those that each node keeps itself.
        before: the bill before the answers.
        after: the bill after them.
        texts: the answers.
        events: that were told of the stages.
    """

    def __init__(self, user: Identity, nodes: Sequence[Identity]) -> None:
        self.user, self.nodes = user, list(nodes)
        self.mine: list[Chain] = []
        self.theirs: list[Chain] = []
        self.texts: list[str] = []
        self.events: list[str] = []
        self.before: Bill | None = None
        self.after: Bill | None = None


def sell(folder: Path, model: Path, *, answers: int, tokens: int, rtt_s: float | None) -> Sold:
    """Let two nodes with prices answer, one session each.

    Args:
        folder: for what the user keeps.
        model: a GGUF file of so many blocks.
        answers: one after the other.
        tokens: of each.
        rtt_s: as of :func:`swarm_hosts.running_swarm`.
    """
    with running_swarm(len(PRICES), rtt_s=rtt_s) as swarm:
        for node, price in zip(swarm.nodes, PRICES, strict=True):
            node.end()
            node.flags = (*node.flags, "--price-in", str(price.price_in),
                          "--price-out", str(price.price_out))  # fmt: skip
            node.start()
        keys = [Home(node.folder / "swarm").identity() for node in swarm.nodes]
        sold = Sold(swarm.identity, keys)
        asyncio.run(ask(swarm, sold, folder, model, answers, tokens))
        sold.theirs = [chain_of(kept_by(node), key) for node, key in zip(swarm.nodes, keys,
                                                                        strict=True)]  # fmt: skip
    mine = ReceiptFiles(folder / FOLDER, print)
    sold.mine = [chain_of(mine, key) for key in keys]
    sold.after = bill_after([line_of(chain) for chain in sold.mine])
    return sold


async def ask(
    swarm: Swarm, sold: Sold, folder: Path, model: Path, answers: int, tokens: int
) -> None:
    """Ask, each window signed by both; the bill before is made from the prompt's tokens."""
    told = Told()
    asked = {"prompt": PROMPT, "n_predict": tokens, "temperature": 0, "ignore_eos": True,
             "cache_prompt": False}  # fmt: skip
    most = Price(max(one.price_in for one in PRICES), max(one.price_out for one in PRICES))
    with closing(ReceiptFiles(folder / FOLDER, print)) as files:
        hand = Hand(swarm.identity, files.keep)
        paying = Paying(Asked(most=most, model=file_sha256(model)), hand)
        async with AsyncExitStack() as stack:
            stages = await stack.enter_async_context(
                standing_stages(
                    swarm.identity, [[node.remote] for node in swarm.nodes], Spares(),
                    Weights(model), needs=[Need(MEMORY_BYTES)] * len(swarm.nodes), tell=told,
                    paying=paying,
                )
            )  # fmt: skip
            ports = [f"{HOST}:{stage.port}" for stage in stages]
            server = await stack.enter_async_context(llama_server(ports, model, folder / "log"))
            for stage in stages:
                await told.until_ready(stage, 1)
            prompt_tokens = await asyncio.to_thread(count_tokens, server)
            legs = [Leg(key.id, layers, one.price_in, one.price_out)
                    for key, layers, one in zip(sold.nodes, layers_of_each(), PRICES,
                                                strict=True)]  # fmt: skip
            sold.before = bill_before(
                legs,
                most_in=OWN_TOKENS + answers * prompt_tokens,
                most_out=OWN_TOKENS + answers * (tokens + BATCHES),
            )
            for _ in range(answers):
                said = await asyncio.to_thread(server.complete, asked)
                sold.texts.append(str(said["content"]))
    sold.events = [f"{one.what}: {one.who}" for one in told.events]


def count_tokens(server: LiveServer) -> int:
    """Return how many positions the prompt has, the one at its beginning included."""
    asked = {"content": PROMPT, "add_special": True}
    answer = server.session.post(f"{server.address}/tokenize", json=asked, timeout=READY_LIMIT_S)
    answer.raise_for_status()
    return len(answer.json()["tokens"])


def layers_of_each() -> tuple[int, int]:
    """Return how many layers ``-ts 1,1`` lays on each of two devices; it deals the output, too."""
    first = (BLOCKS + 2) // 2
    return first, BLOCKS - first


def kept_by(node: Node) -> ReceiptFiles:
    """Return the receipts in a node's own folder."""
    return ReceiptFiles(node.folder / "swarm" / FOLDER, print)


def chain_of(files: ReceiptFiles, node: Identity) -> Chain:
    """Return the receipts of a node's one session that has any."""
    chains = [files.read(path) for path in files.sessions()]
    (found,) = (one for one in chains if one[0].receipt.terms.node == node.id)
    return found


def line_of(chain: Chain) -> Line:
    """Return a session's line of the bill: its last receipt's figures."""
    last = chain[-1].receipt
    return Line(
        last.terms.node, last.layers.count, last.figures.tokens_in, last.figures.tokens_out,
        last.terms.price_in, last.terms.price_out,
    )  # fmt: skip


def told_receipts(sold: Sold) -> dict[str, Any]:
    """Return what both ends signed, for JSON."""
    sessions = []
    for number, (mine, theirs) in enumerate(zip(sold.mine, sold.theirs, strict=True), start=1):
        last = mine[-1].receipt
        sessions.append(
            {
                "node": f"node{number}", "peer": last.terms.node, "session": last.terms.session,
                "layers": [last.layers.first, last.layers.last, last.layers.head],
                "price_in": last.terms.price_in, "price_out": last.terms.price_out,
                "same_at_both_ends": [one.line for one in mine] == [one.line for one in theirs],
                "kept_by_user": len(mine), "kept_by_node": len(theirs),
                "windows": [told_window(one) for one in mine],
            }
        )  # fmt: skip
    return {
        "user": sold.user.id, "same_text": len(set(sold.texts)) == 1,
        "windows_compared": check_stages(sold.mine), "sessions": sessions,
        "example": {"line": sold.mine[0][EXAMPLE].line.decode(),
                    "bytes": len(sold.mine[0][EXAMPLE].line)},
    }  # fmt: skip


def told_window(signed: Signed) -> dict[str, Any]:
    """Return one receipt's figures and roots."""
    one = signed.receipt
    return {
        "window": one.window, "step": one.step, "steps": one.figures.steps,
        "micro": amount(one),
        "tokens_in": one.figures.tokens_in, "tokens_out": one.figures.tokens_out,
        "frames": one.figures.frames, "bytes_in": one.figures.bytes_in,
        "bytes_out": one.figures.bytes_out, "in_root": one.in_root, "out_root": one.out_root,
        "prev": one.prev, "digest": one.digest,
    }  # fmt: skip


def told_bills(sold: Sold) -> dict[str, Any]:
    """Return both bills, for JSON."""
    assert sold.before is not None, "it was made"
    assert sold.after is not None, "it was made"
    return {"before": as_json(sold.before), "after": as_json(sold.after)}
