"""A run under attack beside the same one without it: what the attack changed, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from shoestring.report.tabular import Column, Table
from shoestring.swarm.ledger.amounts import CREDIT
from shoestring.swarm.simulation.attacks import WAR_BEGINS, WAR_TURNS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Outcome = dict[str, Any]
Line = tuple[str, str, "Callable[[Outcome], float | None]"]
GROUPS: Final = {"eclipse-pinned": "eclipse"}
"""Attacks of another attack's group."""


def as_table(runs: Mapping[str, Outcome]) -> Table:
    """Return what runs came to, for readers.

    Args:
        runs: outcomes by their headings; the last one's attack says which lines are shown.
    """
    attack = list(runs.values())[-1]["scenario"]["attack"]
    lines = [*EVERY, *(_attack_lines(attack) if attack else ())]
    rows = tuple(
        (what, unit, *(of(outcome) for outcome in runs.values())) for what, unit, of in lines
    )
    partial = any(outcome["partial"] for outcome in runs.values())
    title = "A simulated pool" + (": partial, it was stopped" if partial else "")
    heads = (Column("what", "What"), Column("unit", "Unit"))
    return Table(
        "simulation", title, (*heads, *(Column(name, name) for name in runs)), rows
    )  # fmt: skip


def gain(outcome: Outcome, attack: str) -> float:
    """Return the credits that would-be attackers got of others, for answers and out of rewards."""
    group = outcome["groups"][GROUPS.get(attack, attack)]
    own = outcome["paid_to_itself_micro"] if attack == "collusion" else 0
    return float(group["answers_micro"] + group["rewards_micro"] - own) / CREDIT


def _figure(*path: str, scale: float = 1.0) -> Callable[[Outcome], float | None]:
    def of(outcome: Outcome) -> float | None:
        found: Any = outcome
        for name in path:
            found = found[name]
        return None if found is None else found * scale

    return of


PERCENT: Final = 100.0
CREDITS: Final = 1 / CREDIT
EVERY: Final[tuple[Line, ...]] = (
    ("requests", "", _figure("all", "asked")),
    ("served", "%", _figure("all", "served_share", scale=PERCENT)),
    ("wrong answers", "%", _figure("all", "wrong_share", scale=PERCENT)),
    ("a request, median", "credits", _figure("all", "request_micro", "median", scale=CREDITS)),
    ("a million tokens", "credits", _figure("all", "million_tokens_micro", scale=CREDITS)),
    ("first token, median", "s", _figure("all", "ttft_s", "median")),
    ("first token, p99", "s", _figure("all", "ttft_s", "p99")),
    ("a token, median", "s", _figure("all", "tpot_s", "median")),
    ("a token, p99", "s", _figure("all", "tpot_s", "p99")),
    ("nodes an answer", "", _figure("all", "hops")),
    ("nodes of the asker's network, asked from one", "%",
     _figure("by_place", "in a local network", "near_share", scale=PERCENT)),
    ("nodes that left and were replaced", "", _figure("saved_nodes")),
    ("Gini, nodes", "", _figure("income", "gini_nodes")),
    ("Jain, nodes", "", _figure("income", "jain_nodes")),
    ("Gini, owners", "", _figure("income", "gini_owners")),
    ("entries of the book", "", _figure("ledger", "entries")),
    ("sum of the book", "micro-credits", _figure("ledger", "sum_micro")),
)  # fmt: skip


def _attack_lines(attack: str) -> tuple[Line, ...]:
    group = GROUPS.get(attack, attack)
    lines: tuple[Line, ...] = (
        ("attackers: nodes", "", _figure("groups", group, "nodes")),
        ("attackers: got of others", "credits", lambda outcome: gain(outcome, attack)),
        ("attackers: of it rewards", "credits",
         _figure("groups", group, "rewards_micro", scale=CREDITS)),
        ("all others: got", "credits", lambda outcome: CREDITS * (
            outcome["groups"][group]["others_answers_micro"]
            + outcome["groups"][group]["others_rewards_micro"]
        )),
    )  # fmt: skip
    if group == "price-war":
        lines += (
            ("a million tokens, during the war", "credits",
             lambda one: _price_within(one, WAR_BEGINS, WAR_TURNS)),
            ("a million tokens, after it", "credits",
             lambda one: _price_within(one, WAR_TURNS, 1.0)),
        )  # fmt: skip
    if group == "eclipse":
        lines += (
            ("eclipsed: served", "%", _figure("victims", "served_share", scale=PERCENT)),
            ("eclipsed: a million tokens", "credits",
             _figure("victims", "million_tokens_micro", scale=CREDITS)),
            ("eclipsed: first token, median", "s", _figure("victims", "ttft_s", "median")),
        )  # fmt: skip
    if group in ("lazy", "sybil"):
        lines += (
            ("cheats that served", "", lambda one: _cheats(one, "cheats")),
            ("of them found", "", lambda one: _cheats(one, "found")),
            ("honest nodes excluded by false alarms", "", _figure("audits", "honest_excluded")),
            ("taken back", "credits", _figure("ledger", "refunded_micro", scale=CREDITS)),
            ("names taken on again", "", _figure("identities_again")),
        )
    return lines


def _price_within(outcome: Outcome, begins: float, ends: float) -> float | None:
    """Return what a million tokens cost of all that was asked in a part of the time, in credits."""
    series = outcome["series"]
    bins = len(series["paid_micro"])
    part = slice(round(begins * bins), round(ends * bins))
    rows = list(zip(series["paid_micro"][part], series["tokens"][part], strict=True))
    tokens = sum(of for _, of in rows)
    return sum(paid for paid, _ in rows) / tokens if tokens else None


def _cheats(outcome: Outcome, what: str) -> float:
    return float(sum(one[what] for one in outcome["audits"]["cheats"].values()))
