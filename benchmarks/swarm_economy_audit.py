"""A node that begins to cheat in the middle of its work, and its audits, on the time axis.

A real llama-server over a real worker behind a relay that cheats from one moment on, wrong in a
share of its answers; windows are drawn and run again as in the product, while the user goes on
asking. Times are of one monotonic clock, from the first answer on.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from shoestring.swarm import node as nodes
from shoestring.swarm.audit.evidence import read
from shoestring.swarm.audit.sampling import Chance, windows_until
from shoestring.swarm.proof.agreeing import FREE, Price
from shoestring.swarm.proof.receipts import amount
from shoestring.testing.audit_lab import ASKED, ask_all, audit_lab, tiny_model
from shoestring.testing.cheating_worker import Honest, Overcounting, Perturbed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.swarm.wire import Frame
    from shoestring.testing.audit_lab import AuditLab

SHARE: Final = 0.25
"""Of windows, that are audited."""
WRONG: Final = 0.15
"""Of its answers, once it cheats."""
EPSILON: Final = 1e-3
HONEST_ANSWERS: Final = 70
ANSWERS: Final = 8
TOKENS: Final = 32
STEPS: Final = 8
SEED: Final = 4
PRICE: Final = Price(300_000, 2_000_000)


class Stamped(list[Any]):
    """A list that knows when each came, on the monotonic clock."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []

    def append(self, one: Any) -> None:
        """Keep it with its time."""
        self.at_s.append(time.monotonic())
        super().append(one)


class Watched(Honest):
    """A relay that notes when its worker answered, and cheats after so many answers.

    Args:
        noted: gets time, whether this answer was changed.
    """

    def __init__(self, noted: list[tuple[float, bool]]) -> None:
        draws = random.Random(SEED)
        self._noted, self._answers = noted, 0
        self._cheat = Perturbed(EPSILON, lambda: draws.random() < WRONG)

    def answer(self, frame: Frame, data: bytes) -> bytes:
        """Return it, changed or not."""
        self._answers += 1
        told = self._cheat.answer(frame, data) if self._answers > HONEST_ANSWERS else data
        self._noted.append((time.monotonic(), told != data))
        return told


class Draws:
    """Draws windows by a seed, and notes when each began."""

    def __init__(self) -> None:
        self.at_s: list[float] = []
        self._random = random.Random(SEED)

    def __call__(self) -> float:
        """Return the next number."""
        self.at_s.append(time.monotonic())
        return self._random.random()


def audit(folder: Path) -> dict[str, Any]:
    """Let one node cheat until it is found, beside an honest one that takes its place."""
    model = tiny_model(folder)
    noted: list[list[tuple[float, bool]]] = [[], []]
    draws = Draws()
    chance = Chance(SHARE, draws)
    makers: list[Callable[[], Any]] = [lambda: Watched(noted[0]), lambda: Noting(noted[1])]

    async def scenario() -> AuditLab:
        async with audit_lab(
            folder / "audit", model, makers, spares=1, others=1, chance=chance, steps=STEPS,
            price=PRICE,
        ) as lab:  # fmt: skip
            lab.said, lab.signed = Stamped(), Stamped()
            asked = [ASKED | {"n_predict": TOKENS, "prompt": f"{ASKED['prompt']} {number}"}
                     for number in range(ANSWERS)]  # fmt: skip
            await asyncio.to_thread(lab.answers, asked, lambda: None)
            assert lab.auditor is not None, "it stands"
            await lab.auditor.idle()
        return lab

    lab = asyncio.run(scenario())
    return told_audit(folder / "audit", lab, noted, draws, chance)


class Noting(Honest):
    """An honest relay that notes when its worker answered.

    Args:
        noted: gets time, and that nothing was changed.
    """

    def __init__(self, noted: list[tuple[float, bool]]) -> None:
        self._noted = noted

    def answer(self, frame: Frame, data: bytes) -> bytes:
        """Return it."""
        self._noted.append((time.monotonic(), False))
        return super().answer(frame, data)


def told_audit(
    folder: Path, lab: AuditLab, noted: list[list[tuple[float, bool]]], draws: Draws, chance: Chance
) -> dict[str, Any]:
    """Return all that happened, in seconds since the first answer."""
    begun_s = noted[0][0][0]
    names = {lab.id(number): f"node{number}" for number in range(3)}
    assert isinstance(lab.said, Stamped), "it was put there"
    assert isinstance(lab.signed, Stamped), "it was put there"
    joined_s = min(
        (one.at_s for one in lab.events if (one.what, one.who) == ("joined", "node1")),
        default=float("inf"),
    )
    # Before that it answers as an auditor.
    noted[1] = [(at_s, wrong) for at_s, wrong in noted[1] if at_s >= joined_s]
    evidence = [read(path) for path in sorted((folder / "evidence").iterdir())]
    wrong_s = [at_s for at_s, is_wrong in noted[0] if is_wrong]
    began = [at_s - begun_s for at_s in draws.at_s]
    excluded = lab.standing.excluded()
    owed = {one.receipt.terms.node: amount(one.receipt) for one in lab.signed}
    payable = lab.standing.payable(owed)
    return {
        "how": {"model": lab.model.name, "audited_share": SHARE, "wrong_share_of_answers": WRONG,
                "wrong_by": EPSILON, "window_steps": STEPS, "answers": ANSWERS,
                "tokens": TOKENS, "seed": SEED},
        "answered": {f"node{number}": [[round(at_s - begun_s, 4), is_wrong]
                                       for at_s, is_wrong in its]
                     for number, its in enumerate(noted)},
        "cheats_from_s": None if not wrong_s else wrong_s[0] - begun_s,
        "windows": [{"at_s": round(at_s, 4), "drawn": drawn}
                    for at_s, drawn in zip(began, replayed(len(began)), strict=True)],
        "judged": [{"at_s": round(at_s - begun_s, 4), "what": what, "who": who, "why": why}
                   for at_s, (what, who, why) in zip(lab.said.at_s, lab.said, strict=True)],
        "events": [{"at_s": round(one.at_s - begun_s, 4), "what": one.what, "who": one.who,
                    "why": one.why} for one in lab.events if one.at_s >= begun_s],
        "signed": [{"at_s": round(at_s - begun_s, 4),
                    "node": names[one.receipt.terms.node],
                    "window": one.receipt.window, "micro": amount(one.receipt)}
                   for at_s, one in zip(lab.signed.at_s, lab.signed, strict=True)],
        "excluded": sorted(names[peer] for peer in excluded),
        "evidence": [{"node": names[one.node], "first": one.names[one.first],
                      "signed_by_node": one.signed_by_node()} for one in evidence],
        "owed_micro": {names[peer]: micro for peer, micro in owed.items()},
        "payable_micro": {names[peer]: micro for peer, micro in payable.items()},
        "trust": {names[peer]: one.trust(time.time())
                  for peer, one in lab.measured.all().items()},
        "drawn": chance.drawn,
        "windows_until_found": {f"{likely:g}": windows_until(likely, SHARE, wrong_of_windows())
                                for likely in (0.5, 0.95, 0.99)},
        "wrong_share_of_windows": wrong_of_windows(),
    }  # fmt: skip


def replayed(count: int) -> list[bool]:
    """Return which of so many windows the seed draws."""
    again = random.Random(SEED)
    return [again.random() < SHARE for _ in range(count)]


def wrong_of_windows() -> float:
    """Return the share of windows with a wrong answer; a window is half of what goes unsigned."""
    return float(1 - (1 - WRONG) ** (STEPS / 2))


def count_wrongly(folder: Path) -> dict[str, Any]:
    """Let a node count one token more than it computed; no window is audited."""
    model = tiny_model(folder)

    async def scenario() -> AuditLab:
        # One that is paid would end the session then, and the answer with it.
        async with audit_lab(
            folder / "count", model, chance=Chance(0.0), price=FREE, audits=False
        ) as lab:
            await ask_all(lab)
        return lab

    with patch.object(nodes, "Earner", Overcounting):
        lab = asyncio.run(scenario())
    return {"signed": len(lab.signed), "disputes": [why for _, why in lab.of("disputes")]}
