"""One chain after another for what a user asked: over the peers that answer, and may be paid."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from shoestring.engines.llama_server import list_devices
from shoestring.engines.outlines import find_model
from shoestring.errors import BadValueError
from shoestring.report.plan_machine import find_devices
from shoestring.swarm.auditing import make_auditor, standing_of, without_excluded
from shoestring.swarm.bootstrap import LISTS_FILE, Lists
from shoestring.swarm.chain import plan_chain, running_chain
from shoestring.swarm.discovery import find_again
from shoestring.swarm.offering import legs_of, make_offers, quoted_prices
from shoestring.swarm.proof.agreeing import Asked
from shoestring.swarm.proof.paying import Paying
from shoestring.swarm.survey import survey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from shoestring.engines.protocol import Engine
    from shoestring.hardware.devices import Device
    from shoestring.swarm.chain import Chain
    from shoestring.swarm.home import Home
    from shoestring.swarm.ledger.bills import Leg
    from shoestring.swarm.proof.agreeing import Price
    from shoestring.swarm.proof.receipts import Hand
    from shoestring.swarm.stage import Event
    from shoestring.swarm.survey import Seen

FREE_S: Final = 10.0
"""How long nodes may take to end what was lost, before the next plan is made without them."""
AGAIN_S: Final = 0.5
GREET_AGAIN_S: Final = 3.0
"""For one whole greeting after a loss: open answers wait, and who was cut off never greets."""


@dataclass(frozen=True)
class Wanted:
    """What the user asked for.

    Attributes:
        model: its name.
        context: tokens of each request.
        parallel: requests at once.
        peer_layers: so many layers on cards and peers; None: the fastest.
        mirrors: so many more peers hold each part.
        log_path: where llama-server writes; None: nowhere.
        most: that a node may take; None: nothing, for there is no budget.
        audit_share: of windows that are run again elsewhere, where there is another node.
    """

    model: str
    context: int
    parallel: int
    peer_layers: int | None
    mirrors: int
    log_path: Path | None
    most: Price | None = None
    audit_share: float = 0.0


def usable_devices(
    here: Sequence[Device],
    say: Callable[[str], None],
    ask: Callable[[], Iterable[tuple[str, str]]] = list_devices,
) -> tuple[tuple[Device, ...], dict[str, str]]:
    """Return this machine's devices, and by which name llama-server knows each card of them.

    A card that it does not list is left out, as all are where it was built for the processor alone.

    Args:
        here: this machine's devices.
        say: told what is left out.
        ask: what llama-server lists, called where there is a card; of cards of one title the first
            is the first.

    Raises:
        MissingError: there is a card, and no llama-server that could be asked.
    """
    listed = [*ask()] if any(device.kind == "gpu" for device in here) else []
    usable, names = [], {}
    for device in here:
        if device.kind == "gpu":
            known = next((one for one in listed if one[1] == device.title), None)
            if known is None:
                say(
                    f"{device.name} ({device.title}) is left out: llama-server was not built for "
                    "it, or does not see it; llama-server --list-devices shows what it can use"
                )
                continue
            listed.remove(known)
            names[device.name] = known[0]
        usable.append(device)
    return tuple(usable), names


class Chains:
    """Makes one chain after another.

    Args:
        wanted: by the user.
        home: who this node is, and whom it knows.
        hand: that signs receipts of every session.
        tell: given what happens at stages.
        planned: told what each node of a plan asks, before anything of it begins.
        say: given a line for the user.
    """

    def __init__(
        self,
        wanted: Wanted,
        home: Home,
        hand: Hand,
        tell: Callable[[Event], None],
        planned: Callable[[list[Leg]], None],
        say: Callable[[str], None],
    ) -> None:
        self._wanted, self._home, self._tell, self._say = wanted, home, tell, say
        self._hand, self._planned = hand, planned
        self._found = find_model(wanted.model)
        here, self._constants = find_devices((), say)
        self._own, self._cards = usable_devices(here, say)
        self._chain: Chain | None = None

    async def plan_again(self) -> AbstractAsyncContextManager[Engine]:
        """Plan over the peers that answer now.

        Raises:
            BadValueError: it fits nowhere; at the first time also: not as it was asked for.
        """
        answered = await self._survey(patiently=self._chain is not None)
        standing = standing_of(self._home)
        seen = await asyncio.to_thread(without_excluded, standing, answered, self._say)
        quoted = quoted_prices(self._home, self._found.name)
        offers = make_offers(seen, quoted, self._wanted.most)
        for line in offers.left_out:
            self._say(line)
        self._chain = await asyncio.to_thread(self._plan, offers.seen)
        self._say(self.described())
        self._planned(legs_of(self._chain.parts))
        paying = Paying(Asked(), self._hand, offers.prices)
        auditor = make_auditor(
            self._home, self._wanted.audit_share, offers.seen, paying,
            self._found.outline.file_bytes, self._say,
        )  # fmt: skip
        return running_chain(
            self._found.name, self._chain, self._home.identity(),
            tell=self._tell, cards=self._cards, log_path=self._wanted.log_path,
            paying=paying, auditor=auditor,
        )  # fmt: skip

    def described(self) -> str:
        """Return which layers are where."""
        assert self._chain is not None, "a plan was made"
        parts = [
            f"{placed.name}: layers {placed.layers[0]} to {placed.layers[1] - 1}"
            for placed in self._chain.plan.placed
            if placed.layers[1] > placed.layers[0]
        ]
        spares = ", ".join(one.remote.name for one in self._chain.spares)
        return "; ".join(parts) + (f"; in reserve: {spares}" if spares else "")

    async def _survey(self, *, patiently: bool) -> list[Seen]:
        """Return the peers that could begin a session; after a loss their last ones are ending."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + FREE_S
        while True:
            known = self._home.peers(self._say).active()
            if patiently:
                seen, failed = await survey(self._home.identity(), known, greet_s=GREET_AGAIN_S)
            else:
                look = partial(find_again, lists=Lists(self._home.folder / LISTS_FILE))
                seen, failed = await survey(self._home.identity(), known, look=look)
            # Whose owner pauses, or who has no room for receipts, will not be free soon.
            is_free = all(one.free or one.why_not for one in seen)
            if not patiently or is_free or loop.time() > until_s:
                break
            await asyncio.sleep(AGAIN_S)
        for peer, error in failed.items():
            self._say(f"{peer.name}: {error}")
        for one in seen:
            if not one.free:
                self._say(f"{one.remote.name}: {one.why_not or 'it serves all that it can now'}")
        return [one for one in seen if one.free]

    def _plan(self, seen: Sequence[Seen]) -> Chain:
        """Plan as was asked for; once it stood so, with fewer mirrors and layers if need be."""
        wanted = self._wanted
        ways = [(wanted.peer_layers, wanted.mirrors)]
        if self._chain is not None:
            ways += [(wanted.peer_layers, count) for count in reversed(range(wanted.mirrors))]
            ways += [(None, 0)] if wanted.peer_layers is not None else []
        for way in ways[:-1]:
            try:
                return self._plan_so(seen, way)
            except BadValueError as error:
                self._say(f"not as before: {error}")
        return self._plan_so(seen, ways[-1])

    def _plan_so(self, seen: Sequence[Seen], way: tuple[int | None, int]) -> Chain:
        return plan_chain(
            self._found, self._own, seen, self._constants,
            context=self._wanted.context, parallel=self._wanted.parallel,
            peer_layers=way[0], mirrors=way[1],
        )  # fmt: skip
