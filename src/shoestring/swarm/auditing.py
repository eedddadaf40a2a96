"""A chain's auditor, as `swarm up` and `chat` have it, and who is excluded by it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from shoestring.swarm.audit.auditor import Auditor
from shoestring.swarm.audit.evidence import FOLDER
from shoestring.swarm.audit.running import There
from shoestring.swarm.audit.sampling import Chance
from shoestring.swarm.audit.standing import STANDING_FILE, Standing
from shoestring.swarm.market.measured import MEASURED_FILE, Measured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoestring.swarm.home import Home
    from shoestring.swarm.proof.paying import Paying
    from shoestring.swarm.proof.receipts import Signed
    from shoestring.swarm.survey import Seen

LEAST_NODES: Final = 2
"""One that computes, and one that may run it again."""
ROUTINE: Final = {"audited", "not audited", "put aside"}
"""`swarm audit show` says which share was reached."""


def standing_of(home: Home) -> Standing:
    """Return how nodes stood their audits, as it is kept."""
    return Standing(home.folder / STANDING_FILE)


def without_excluded(
    standing: Standing, seen: Sequence[Seen], say: Callable[[str], None]
) -> list[Seen]:
    """Return the peers that may have a part: layers, weights or audits.

    Raises:
        BadValueError: who is excluded cannot be read.
    """
    excluded = standing.excluded()
    for one in seen:
        if one.remote.address.id in excluded:
            say(f"{one.remote.name} was found to cheat: `shoestring swarm audit show` says how")
    return [one for one in seen if one.remote.address.id not in excluded]


def make_auditor(
    home: Home,
    share: float,
    seen: Sequence[Seen],
    paying: Paying,
    model_bytes: int,
    say: Callable[[str], None],
) -> Auditor | None:
    """Return who has windows run again; None: nobody is to, or there is nobody who could.

    Args:
        home: where all of it is kept.
        share: of windows.
        seen: peers that may be asked.
        paying: of their receipts.
        model_bytes: of the model.
        say: given a line for the user.
    """
    if not share or len(seen) < LEAST_NODES:
        return None

    def tell(what: str, who: str, why: str) -> None:
        if what not in ROUTINE:
            say(f"audit: {who}: {what}: {why}")

    kinds = {one.remote.address.id: one.numerics for one in seen}
    places = [
        There(
            home.identity(), one.remote, one.numerics, say,
            model_bytes=model_bytes, paying=paying,
        )
        for one in seen
    ]  # fmt: skip
    return Auditor(
        Chance(share), standing_of(home), home.folder / FOLDER, tell, places=places, kinds=kinds,
        measured=Measured(home.folder / MEASURED_FILE),
    )  # fmt: skip


def heard_by(paying: Paying, auditor: Auditor) -> Paying:
    """Return what a chain's sessions are paid by: an auditor hears of their receipts, too."""

    def keep(signed: Signed) -> None:
        paying.hand.keep(signed)
        auditor.keep(signed)

    return replace(paying, hand=replace(paying.hand, keep=keep))
