"""Tables of what is bought and what is audited: routes, requests, reasons, verdicts, the bound."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from shoestring.report.economy_tables import AUDIT, ECONOMY, ROUTING, answer_in_words
from shoestring.report.service_tables import not_measured, sourced
from shoestring.report.tabular import Column
from shoestring.report.units import number, seconds

if TYPE_CHECKING:
    from shoestring.report.service_tables import Figures
    from shoestring.report.tabular import Table, Value

WITHIN: Final = "cheapest within a time per token"
"""Of the requests, the one whose reasons are shown."""
VERDICTS: Final = {"audited": "the same", "cheats": "a cheat"}


def front_table(figures: Figures | None) -> Table:
    """Return the routes from the cheapest to the fastest."""
    columns = (
        Column("micro", "Price (micro-credits)"),
        Column("tpot_s", "A token (ms)", 1e3),
        Column("ttft_s", "First token (s)"),
        Column("hops", "Nodes (layers)"),
    )
    rows = [
        (one["micro"], one["tpot_s"], one["ttft_s"], hops_in_words(one))
        for one in (figures["market"]["front"] if figures else [])
    ]
    title = "From the cheapest to the fastest"
    if figures is not None:
        market = figures["market"]
        title += (
            f": {market['layers']} layers of {len(market['sellers'])} sellers, "
            f"{market['prompt_tokens']} tokens in, {market['output_tokens']} out, predicted"
        )
    return sourced(ECONOMY, "economy_front", title, columns, rows, figures)


def requests_table(figures: Figures | None) -> Table:
    """Return what was asked for within which limits, and what was found."""
    columns = (
        Column("asked", "Asked for"),
        Column("limits", "Limits"),
        Column("micro", "Price (micro-credits)"),
        Column("tpot_s", "A token (ms)", 1e3),
        Column("hops", "Nodes (layers), or why there is no route"),
        Column("above", "Another could be better by (%)", 100.0),
    )
    rows: list[tuple[Value, ...]] = []
    for one in figures["market"]["asked"] if figures else []:
        route = one["route"]
        if route is None:
            rows.append((one["asked"], _limits(one), None, None, one["none_because"], None))
            continue
        rows.append(
            (one["asked"], _limits(one), route["micro"], route["tpot_s"], hops_in_words(route),
             route["above"])
        )  # fmt: skip
    return sourced(ECONOMY, "economy_requests", "Requests and routes", columns, rows, figures)


def reasons_table(figures: Figures | None) -> Table:
    """Return why sellers have no part of the route within a time per token, by kind."""
    columns = (
        Column("reason", "Reason"),
        Column("nodes", "Nodes"),
        Column("example", "For example"),
    )
    asked = figures["market"]["asked"] if figures else []
    reasons: dict[str, str] = next(
        (one["not_taken"] for one in asked if one["asked"] == WITHIN), {}
    )
    kinds: dict[str, list[str]] = {}
    for node, why in reasons.items():
        kind = re.match(r"dominated|[^:]+", why)
        kinds.setdefault(kind[0] if kind else why, []).append(f"{node}: {why}")
    rows = [
        (kind, len(lines), lines[0])
        for kind, lines in sorted(kinds.items(), key=lambda item: -len(item[1]))
    ]
    title = f"Who has no part of the route that is {WITHIN}"
    return sourced(ECONOMY, "economy_reasons", title, columns, rows, figures)


def quotes_table(figures: Figures | None) -> Table:
    """Return which quotes are refused."""
    columns = (Column("what", "A quote"), Column("reason", "Answer"))
    rows = [
        (one["what"], answer_in_words(one["reason"], None))
        for one in (figures["market"]["quotes_refused"] if figures else [])
    ]  # fmt: skip
    return sourced(ECONOMY, "economy_quotes", "Quotes that do not hold", columns, rows, figures)


def routing_table(figures: Figures | None) -> Table:
    """Return what a route over thousands of sellers takes, and how good it is."""
    columns = (
        Column("way", "Way"),
        Column("kind", "Asked for"),
        Column("requests", "Requests"),
        Column("none", "Without a route"),
        Column("median_s", "Processor, median (ms)", 1e3),
        Column("worst_s", "Worst (ms)", 1e3),
        Column("above", "Another could be better by, median (%)", 100.0),
        Column("hops", "Nodes, median"),
    )
    rows = [
        (one["way"], one["kind"], one["requests"], one["without_route"],
         one["processor_s"]["median"], one["processor_s"]["worst"],
         one["above"] and one["above"]["median"], one["hops"] and one["hops"]["median"])
        for one in (figures["kinds"] if figures else [])
    ]  # fmt: skip
    title = "A route over thousands"
    if figures is not None:
        how = figures["how"]
        title += f": {number(how['sellers'])} sellers, {number(how['layers'])} layers"
    return sourced(ROUTING, "economy_routing", title, columns, rows, figures)


def judged_table(figures: Figures | None) -> Table:
    """Return the audits of the node that came to cheat, the last one the verdict."""
    columns = (
        Column("at_s", "At (s)"),
        Column("who", "Who"),
        Column("what", "Verdict"),
        Column("why", "Because"),
    )
    found = figures["audit"] if figures else {"judged": [], "excluded": []}
    rows = [
        (one["at_s"], one["who"], VERDICTS.get(one["what"], one["what"]), one["why"])
        for one in found["judged"]
        if one["who"] in found["excluded"]
    ]
    title = "Audits of the node that came to cheat"
    return sourced(ECONOMY, "economy_judged", title, columns, rows, figures)


def audit_facts(figures: Figures | None) -> list[tuple[str, str]]:
    """Return what the audits on the time axis came to, and the wrong count."""
    if figures is None:
        return [("audits", not_measured(ECONOMY))]
    found, count = figures["audit"], figures["wrong_count"]
    how = found["how"]
    verdict = next((one["at_s"] for one in found["judged"] if one["what"] == "cheats"), None)
    begun_s = found["cheats_from_s"]
    after_s = None if verdict is None or begun_s is None else verdict - begun_s
    bound = ", ".join(f"{number(100 * float(likely))} %: {windows}"
                      for likely, windows in found["windows_until_found"].items())  # fmt: skip
    signed = sum(one["signed_by_node"] for one in found["evidence"])
    paid = ", ".join(f"{node} {number(found['payable_micro'].get(node, 0))} of {number(micro)}"
                     for node, micro in found["owed_micro"].items())  # fmt: skip
    return [
        ("windows audited", f"a share of {how['audited_share']}, drawn by a seed here"),
        ("wrong answers, by a share of their size",
         f"a share of {how['wrong_share_of_answers']}, by {how['wrong_by']}"),
        ("so wrong windows", f"{number(100 * found['wrong_share_of_windows'])} %"),
        ("windows until it is found, by the bound", bound),
        ("found after its first wrong answer", seconds(after_s)),
        ("excluded", ", ".join(found["excluded"]) or "nobody"),
        ("evidence that the node signed itself",
         f"{number(signed)} of {number(len(found['evidence']))}"),
        ("payable, of what receipts say (micro-credits)", paid),
        ("trust afterwards", ", ".join(f"{node} {number(trust)}"
                                       for node, trust in sorted(found["trust"].items()))),
        ("a node that counts a token too many", f"{number(count['signed'])} receipts signed; "
         + ("; ".join(count["disputes"]) or "no dispute")),
    ]  # fmt: skip


def cheats_table(figures: Figures | None) -> Table:
    """Return for each kind of cheat what audits of all its windows find."""
    columns = (
        Column("kind", "Cheat"),
        Column("model", "Model"),
        Column("windows", "Windows"),
        Column("wrong", "Wrong"),
        Column("found", "Found"),
        Column("false", "Right, but called wrong"),
        Column("apart", "Answers off by, median of their size"),
        Column("tolerance", "Windows found by tolerance alone (%)", 100.0),
    )
    rows: list[tuple[Value, ...]] = []
    for one in figures["cheats"] if figures else []:
        apart = one["answers_apart"]
        differing = apart["windows_differing"]
        rows.append(
            (one["kind"], one["model"].partition("-")[0], one["windows"], one["wrong"],
             one["found"], one["right_but_called_wrong"],
             apart["relative"] and apart["relative"]["median"],
             apart["windows_beyond_the_tolerance"] / differing if differing else None)
        )  # fmt: skip
    return sourced(AUDIT, "economy_cheats", "Cheats, every window audited", columns, rows, figures)


def honest_facts(figures: Figures | None) -> list[tuple[str, str]]:
    """Return how honest nodes fared."""
    if figures is None:
        return [("honest nodes", not_measured(AUDIT))]
    honest = figures["honest"]
    whole, again = honest["whole"], honest["again"]
    return [
        ("audits of honest nodes", number(honest["audits"])),
        ("of them whole, each in a fresh worker at another node",
         f"{number(whole['audits'])}, {number(whole['excluded'])} excluded"),
        ("of them real windows run again",
         f"{number(again['audits'])}, {number(again['differing'])} differing"),
    ]  # fmt: skip


def hops_in_words(route: Figures) -> str:
    """Return a route's nodes with how many layers each computes."""
    return ", ".join(f"{hop['node']} ({hop['layers']})" for hop in route["hops"])


def _limits(one: Figures) -> str:
    said = []
    if one["max_micro"] is not None:
        said.append(f"at most {number(one['max_micro'])} micro-credits")
    if one["max_tpot_s"] is not None:
        said.append(f"at most {seconds(one['max_tpot_s'])} a token")
    if one["least_trust"]:
        said.append(f"trust of {one['least_trust']} or more")
    return ", ".join(said) or "none"
