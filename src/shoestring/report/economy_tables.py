"""Tables of the swarm's economy: receipts of both ends, what was refused, bills, the book.

From plain data, as ``swarm-economy.json`` holds it. Each title ends with the file, the day and the
machine; a table whose file is missing says so. Amounts are whole micro-credits.
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from shoestring.report.service_tables import not_measured, sourced
from shoestring.report.tabular import Column
from shoestring.report.units import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoestring.report.service_tables import Figures
    from shoestring.report.tabular import Table, Value

ECONOMY: Final = "swarm-economy"
RECEIPTS: Final = "swarm-receipts"
AUDIT: Final = "swarm-audit"
LEDGER: Final = "swarm-ledger"
ROUTING: Final = "swarm-routing"
VOUCHERS: Final = "swarm-vouchers"
SIMULATION: Final = "swarm-simulation"
BENCHMARKS: Final = (ECONOMY, RECEIPTS, AUDIT, LEDGER, ROUTING, VOUCHERS, SIMULATION)
PEER: Final = re.compile(r"\b[a-z2-7]{52}\b")
DIGEST: Final = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{128}\b")
SHOWN: Final = 10
"""Characters of a digest."""
EMPTY: Final = hashlib.sha256().hexdigest()
"""The root of nothing."""


def sessions_table(figures: Figures | None) -> Table:
    """Return each node's session, and whether both ends keep the same of it."""
    columns = (
        Column("node", "Node"),
        Column("layers", "Layers"),
        Column("price_in", "Price in"),
        Column("price_out", "Price out"),
        Column("by_user", "Receipts at the user"),
        Column("by_node", "At the node"),
        Column("same", "Byte by byte"),
        Column("tokens_in", "Tokens in"),
        Column("tokens_out", "Tokens out"),
        Column("owed_micro", "Owed (micro-credits)"),
    )
    rows: list[tuple[Value, ...]] = []
    for one in _sessions(figures):
        last = one["windows"][-1]
        rows.append(
            (one["node"], layers_in_words(*one["layers"]), one["price_in"], one["price_out"],
             one["kept_by_user"], one["kept_by_node"],
             "the same" if one["same_at_both_ends"] else "differ",
             last["tokens_in"], last["tokens_out"], last["micro"])
        )  # fmt: skip
    title = "Sessions; prices in micro-credits a million tokens and layer"
    return sourced(ECONOMY, "economy_sessions", title, columns, rows, figures)


def windows_table(figures: Figures | None) -> Table:
    """Return the windows that begin and end at the same steps at both nodes, and their roots."""
    columns = (
        Column("steps", "Steps"),
        Column("tokens_in", "Tokens in"),
        Column("tokens_out", "Tokens out"),
        Column("owed_first", "Owed to the first node"),
        Column("owed_last", "To the last"),
        Column("out_root", "The first gave out"),
        Column("in_root", "The last was given"),
        Column("prev", "Names the one before"),
        Column("digest", "Is itself"),
    )
    rows: list[tuple[Value, ...]] = []
    sessions = _sessions(figures)
    if sessions:
        others = _by_steps(sessions[-1]["windows"])
        for span, one in _by_steps(sessions[0]["windows"]).items():
            other = others.get(span)
            rows.append(
                (one["steps"], one["tokens_in"], one["tokens_out"], one["micro"],
                 other["micro"] if other else None, short(one["out_root"]),
                 short(other["in_root"]) if other else "", short(one["prev"]),
                 short(one["digest"]))
            )  # fmt: skip
    title = "Receipts of the first node; figures are of the session, roots of the window"
    return sourced(ECONOMY, "economy_windows", title, columns, rows, figures)


def receipt_facts(figures: Figures | None) -> list[tuple[str, str]]:
    """Return one receipt as it is kept, field by field."""
    if figures is None:
        return [("a receipt", not_measured(ECONOMY))]
    example = figures["receipts"]["example"]
    facts = [(path, _in_short(value, figures))
             for path, value in _leaves(json.loads(example["line"]))]  # fmt: skip
    return [*facts, ("bytes of the line", number(example["bytes"]))]


def flipped_table(figures: Figures | None) -> Table:
    """Return for each field of a receipt what became of its changed bits."""
    columns = (
        Column("field", "Field"),
        Column("flipped", "Bits flipped"),
        Column("refused", "Refused"),
        Column("by", "By"),
    )
    rows = [
        (one["field"], one["flipped"], one["refused"],
         ", ".join(f"{kind} {number(count)}" for kind, count in _largest(one["by"])))
        for one in (figures["flipped"] if figures else [])
    ]  # fmt: skip
    title = "Each bit of a receipt flipped, one at a time"
    if figures is not None:
        both = [sum(one[what] for one in figures["flipped"]) for what in ("refused", "flipped")]
        title += f": {number(both[0])} of {number(both[1])} refused"
    return sourced(ECONOMY, "economy_flipped", title, columns, rows, figures)


def forged_table(figures: Figures | None) -> Table:
    """Return who tried what with receipts, and what was said to it."""
    columns = (Column("who", "Who"), Column("what", "Does what"), Column("reason", "Answer"))
    rows = [
        (one["who"], one["what"], answer_in_words(one["reason"], figures))
        for one in (figures["forged"] if figures else [])
    ]
    title = "Forged, moved, claimed twice"
    return sourced(ECONOMY, "economy_forged", title, columns, rows, figures)


def bill_table(figures: Figures | None) -> Table:
    """Return what each node could have got at most, and what it got."""
    columns = (
        Column("node", "Node"),
        Column("layers", "Layers"),
        Column("most_in", "Tokens in, at most"),
        Column("most_out", "Tokens out, at most"),
        Column("held_micro", "Held before (micro-credits)"),
        Column("tokens_in", "Tokens in"),
        Column("tokens_out", "Tokens out"),
        Column("paid_micro", "Paid after (micro-credits)"),
    )
    rows: list[tuple[Value, ...]] = []
    if figures is not None:
        before, after = (figures["bills"][when] for when in ("before", "after"))
        for most, did in zip(before["lines"], after["lines"], strict=True):
            rows.append(
                (named(did["node"], figures), did["layers"], most["tokens_in"], most["tokens_out"],
                 most["micro"], did["tokens_in"], did["tokens_out"], did["micro"])
            )  # fmt: skip
        rows.append(
            ("together", None, None, None, before["micro"], None, None, after["micro"])
        )  # fmt: skip
    return sourced(ECONOMY, "economy_bill", "The bill before and after", columns, rows, figures)


def entries_table(figures: Figures | None) -> Table:
    """Return the entries of the book, each with what it moves."""
    columns = (
        Column("number", "Entry"),
        Column("kind", "Kind"),
        Column("from", "From"),
        Column("to", "To"),
        Column("micro", "Micro-credits"),
        Column("previous", "Names the one before"),
        Column("sha256", "Is itself"),
    )
    rows: list[tuple[Value, ...]] = []
    for one in figures["ledger"]["entries"] if figures else []:
        gives = [account for account, micro in one["postings"] if micro < 0]
        gets = [f"{account} {number(micro)}" if len(one["postings"]) > 2 else account  # noqa: PLR2004
                for account, micro in one["postings"] if micro >= 0]  # fmt: skip
        moved = sum(micro for _, micro in one["postings"] if micro > 0)
        rows.append(
            (one["number"], one["kind"], ", ".join(gives), ", ".join(gets), moved,
             short(one["previous"]), short(one["sha256"]))
        )  # fmt: skip
    return sourced(ECONOMY, "economy_entries", "The book", columns, rows, figures)


def book_table(figures: Figures | None) -> Table:
    """Return what the book did not take."""
    columns = (Column("what", "What was tried"), Column("reason", "Answer"))
    rows = [
        (one["what"], answer_in_words(one["reason"], figures))
        for one in (figures["ledger"]["refused"] if figures else [])
    ]
    return sourced(ECONOMY, "economy_book", "Refused by the book", columns, rows, figures)


def book_facts(figures: Figures | None) -> list[tuple[str, str]]:
    """Return balances, and what verifying the book found, whole and changed."""
    if figures is None:
        return [("the book", not_measured(ECONOMY))]
    ledger = figures["ledger"]
    facts = [(f"{who} has", f"{number(micro)} micro-credits")
             for who, micro in ledger["balances"].items()]  # fmt: skip
    for what, name in (("the book", "verified"), ("with an entry changed on disk", "changed")):
        fault = ledger[name]["fault"]
        said = f"{ledger[name]['entries']} entries are right"
        if fault is not None:
            where = "beside the entries" if fault["entry"] is None else f"entry {fault['entry']}"
            said += f"; then {where}: {fault['what']}"
        facts.append((what, said))
    return facts


def named(text: str, figures: Figures | None) -> str:
    """Return a text with names for peer ids, and digests cut short."""
    names = {}
    if figures is not None:
        names = {one["peer"]: one["node"] for one in _sessions(figures)}
        names[figures["receipts"]["user"]] = "the user"
    text = PEER.sub(lambda found: names.get(found[0], f"{found[0][:SHOWN]}..."), text)
    return DIGEST.sub(lambda found: short(found[0]), text)


def short(digest: str) -> str:
    """Return the beginning of a digest."""
    return "nothing" if digest == EMPTY else f"{digest[:SHOWN]}..."


def layers_in_words(first: int | None, last: int | None, head: bool) -> str:  # noqa: FBT001 - as kept
    """Return layers as people say them."""
    blocks = [] if first is None else [f"{first} to {last}"]
    return ", ".join([*blocks, *(["output"] if head else [])]) or "none"


def _by_steps(windows: Sequence[Figures]) -> dict[tuple[int, int], Figures]:
    """Return windows by the steps after which the one before and they themselves were closed."""
    steps = [0, *(one["step"] for one in windows)]
    return dict(zip(pairwise(steps), windows, strict=True))


def _sessions(figures: Figures | None) -> list[Any]:
    return [] if figures is None else list(figures["receipts"]["sessions"])


def answer_in_words(reason: str | None, figures: Figures | None) -> str:
    """Return what was said to a try; None: nothing refused it."""
    return "taken: nothing shows it" if reason is None else f"refused: {named(reason, figures)}"


def _largest(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda one: -one[1])


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for name, its in value.items():
        yield from _leaves(its, f"{path}.{name}" if path else name)


def _in_short(value: Any, figures: Figures) -> str:
    return named(value, figures) if isinstance(value, str) else json.dumps(value)
