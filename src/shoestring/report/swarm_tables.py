"""Tables of the swarm: round trips, what is added part by part, losses.

From plain data, as ``swarm-*.json`` hold it. Each title ends with the file, the day and the
machine; a table whose file is missing says so.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from shoestring.report.service_tables import estimate, median_of, not_measured, sourced
from shoestring.report.swarm_law import fit_lines
from shoestring.report.tabular import Column
from shoestring.report.units import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoestring.report.service_tables import Figures
    from shoestring.report.tabular import Table, Value

SCALING: Final = "swarm-scaling"
PARTS: Final = "swarm-parts"
OVERHEAD: Final = "swarm-overhead"
CHAIN: Final = "swarm-chain"
FAULTS: Final = "swarm-faults"
TIMELINE: Final = "swarm-timeline"
EXAMPLES: Final = "swarm-examples"
LOADS: Final = "swarm-loads"
BENCHMARKS: Final = (SCALING, PARTS, OVERHEAD, CHAIN, FAULTS, TIMELINE, EXAMPLES, LOADS)
ARMS: Final = {"raw": "raw RPC", "star": "ours, star", "chain": "ours, chain"}
FAULT_WORDS: Final = {
    "killed": "node killed",
    "worker": "worker killed",
    "frozen": "node frozen",
    "cut": "cable pulled",
}
KIBIBYTE: Final = 1024


def scaling_table(figures: Figures | None) -> Table:
    """Return a token's time at each round trip, and the round trips fitted and by the law."""
    rows = figures["rows"] if figures else []
    delays = sorted({row["rtt_s"] for row in rows})
    columns = (
        Column("peers", "Peers"),
        Column("arm", "Way"),
        *(Column(f"token_s_{number(at * 1e3)}ms", f"A token at {number(at * 1e3)} ms (ms)", 1e3)
          for at in delays),
        Column("round_trips", "Round trips a token, fitted", estimate=True),
        Column("ought", "By the law"),
        Column("base_s", "Without any (ms)", 1e3, estimate=True),
    )  # fmt: skip
    shown: list[tuple[Value, ...]] = []
    for line in fit_lines(rows):
        at = dict(line.points)
        shown.append(
            (line.peers, ARMS[line.arm], *(at.get(delay) for delay in delays),
             line.round_trips, line.ought, line.base_s)
        )  # fmt: skip
    return sourced(SCALING, "swarm_scaling", "A token's time, medians", columns, shown, figures)


def predicted_table(figures: Figures | None) -> Table:
    """Return the planner's prediction beside the star that was measured."""
    columns = (
        Column("peers", "Peers"),
        Column("rtt_s", "Round trip set (ms)", 1e3),
        Column("greeted_rtt_s", "Greeted over the link (ms)", 1e3),
        Column("predicted_s", "Predicted (ms)", 1e3, estimate=True),
        Column("star_s", "Star, measured (ms)", 1e3, estimate=True),
        Column("error", "Off by (%)", 100.0),
    )
    rows: list[tuple[Value, ...]] = []
    for row in figures["rows"] if figures else []:
        said, star = row["predicted"], median_of(row["token_s"].get("star", []))
        predicted = estimate(said["token_s"], _interval(said))
        error = None
        if said["token_s"] is not None and star.median:
            error = said["token_s"] / star.median - 1
        rows.append(
            (row["peers"], row["rtt_s"], row["greeted_rtt_s"], predicted, star, error)
        )  # fmt: skip
    return sourced(SCALING, "swarm_predicted", "The planner beside it", columns, rows, figures)


def overhead_table(figures: Figures | None) -> Table:
    """Return what ours adds to a token beside raw RPC, by pairs."""
    columns = (
        Column("remotes", "Peers"),
        Column("rtt_s", "Round trip (ms)", 1e3),
        Column("raw_token_s", "Raw RPC (ms)", 1e3),
        Column("ours_token_s", "Ours (ms)", 1e3),
        Column("added_s", "Added a token and peer (ms)", 1e3, estimate=True),
        Column("ratio", "Speed by raw RPC's", estimate=True),
    )
    rows = [
        (case["remotes"], case["rtt_s"], case["raw_token_s"], case["ours_token_s"],
         _told(case["added_s_a_remote"]), _told(case["ratio"]))
        for case in (figures["cases"] if figures else [])
    ]  # fmt: skip
    return sourced(OVERHEAD, "swarm_overhead", "Ours beside raw RPC, pair by pair", columns, rows,
                  figures)  # fmt: skip


def processor_table(figures: Figures | None) -> Table:
    """Return processor time a token of each process, and bytes of the link."""
    columns = (
        Column("what", "A token's"),
        Column("raw", "Raw RPC", estimate=True),
        Column("ours", "Ours", estimate=True),
    )
    rows: list[tuple[Value, ...]] = []
    if figures is not None:
        raw, ours = (figures["processor"][arm] for arm in ("raw", "ours"))
        rows += [
            (f"processor time, {name} (ms)", _milliseconds(raw.get(name)),
             _milliseconds(ours.get(name)))
            for name in ours
        ]  # fmt: skip
        link = figures["link"]
        kib = [estimate(link[arm]["bytes"], None, 1 / KIBIBYTE) for arm in ("raw", "ours")]
        rows.append(("bytes on the link, both ways (KiB)", *kib))
    return sourced(PARTS, "swarm_processor", "Who works for a token", columns, rows, figures)


def work_table(figures: Figures | None) -> Table:
    """Return what our side does with a token's frames, each part by itself."""
    columns = (Column("part", "Part"), Column("work_s", "A token (ms)", 1e3))
    work = figures["work"] if figures else {}
    rows = sorted(((name, one["s"]) for name, one in work.items()), key=lambda row: -row[1])
    return sourced(PARTS, "swarm_work", "What is done with its frames, in memory", columns, rows,
                  figures)  # fmt: skip


def frames_table(figures: Figures | None) -> Table:
    """Return what llama-server says to the last of two devices for a token, by kind."""
    columns = (
        Column("model", "Model"),
        Column("kind", "Kind"),
        Column("frames", "Frames"),
        Column("data_bytes", "Data (bytes)"),
        Column("wording_bytes", "Wording (bytes)"),
    )
    rows = [
        (one["model"], kind, its["frames"], its["data_bytes"], its["wording_bytes"])
        for one in (figures["frames"] if figures else [])
        for kind, its in one["last"].items()
    ]
    title = "A token on the wire of the last of two devices"
    return sourced(PARTS, "swarm_frames", title, columns, rows, figures)


def rounds_table(figures: Figures | None) -> Table:
    """Return of each round shown on the time axis how long its user waited."""
    columns = (
        Column("mode", "Stage"),
        Column("fault", "Fault"),
        Column("calm_gap_s", "Longest gap undisturbed (ms)", 1e3),
        Column("gap_s", "With the fault (ms)", 1e3),
        Column("bar_s", "Bar (ms)", 1e3),
        Column("noticed_s", "Noticed after (ms)", 1e3),
        Column("wrong", "Text and next answer"),
    )
    rows: list[tuple[Value, ...]] = []
    for one in figures["rounds"] if figures else []:
        lost = [event["at_s"] for event in one["events"] if event["what"] == "lost"]
        noticed = lost[0] - one["struck_s"] if lost and one["struck_s"] is not None else None
        assert figures is not None
        rows.append(
            (one["mode"], FAULT_WORDS[one["fault"]], longest_gap_s(one["calm_s"]),
             longest_gap_s(one["hit_s"]), figures["bars"][one["mode"]], noticed,
             "; ".join(one["wrong"]) or "the same")
        )  # fmt: skip
    return sourced(TIMELINE, "swarm_rounds", "The rounds above", columns, rows, figures)


def gaps_table(figures: Figures | None) -> Table:
    """Return the longest gaps of the whole campaign of losses."""
    columns = (
        Column("mode", "Stage"),
        Column("fault", "Fault"),
        Column("weights", "Who takes over"),
        Column("rounds", "Rounds"),
        Column("median_s", "Longest gap, median (ms)", 1e3),
        Column("max_s", "Most (ms)", 1e3),
        Column("calm_median_s", "Undisturbed, median (ms)", 1e3),
    )
    rows = [
        (one["mode"], FAULT_WORDS[one["fault"]],
         "is sent the weights" if one["cold"] else "has the weights", one["rounds"],
         one["median_s"], one["max_s"], one["calm_median_s"])
        for one in (figures["gaps"] if figures else [])
    ]  # fmt: skip
    title = "The campaign"
    if figures is not None:
        title += f": {len(figures['rounds'])} losses, {len(figures['wrong'])} wrong"
    return sourced(FAULTS, "swarm_gaps", title, columns, rows, figures)


def loads_table(figures: Figures | None) -> Table:
    """Return what a model costs the wire, the first time and again."""
    columns = (
        Column("model", "Model"),
        Column("file_bytes", "File (MB)", 1e-6),
        Column("first_bytes", "First load (MB)", 1e-6),
        Column("second_bytes", "Second (MB)", 1e-6),
        Column("share", "Second by first (%)", 100.0),
    )
    rows = []
    for one in figures["models"] if figures else []:
        first, second = (load["wire_bytes"] for load in one["loads"][:2])
        rows.append((one["model"], one["file_bytes"], first, second, second / first))
    return sourced(LOADS, "swarm_loads", "Weights on the wire", columns, rows, figures)


def longest_gap_s(stamps_s: Sequence[float]) -> float | None:
    """Return the longest time between two tokens; None below two."""
    return max((after - before for before, after in pairwise(stamps_s)), default=None)


def text_facts(figures: Figures | None) -> list[tuple[str, str]]:
    """Say whether all ways gave the same text, where times of them are shown beside each other."""
    if figures is None:
        return [("texts of all ways", not_measured(SCALING))]
    others = [f"{row['peers']} peers at {number(row['rtt_s'] * 1e3)} ms"
              for row in figures["rows"] if not row["same_text"]]  # fmt: skip
    return [("texts of all ways", f"not the same: {'; '.join(others)}" if others else "the same")]


def prediction_facts(figures: Figures | None) -> list[tuple[str, str]]:
    """Say why there is no prediction, where there is none; nothing where there is."""
    reasons = {row["predicted"].get("why") for row in (figures["rows"] if figures else [])}
    return [("no prediction", str(why)) for why in sorted(reasons - {None})]


def _milliseconds(values: Sequence[float] | None) -> Any:
    return None if values is None else median_of([1e3 * value for value in values])


def _interval(said: Mapping[str, Any]) -> tuple[float, float] | None:
    return None if said["token_s"] is None else (said["low_s"], said["high_s"])


def _told(said: Mapping[str, Any]) -> Any:
    return estimate(said["median"], said["ci95"])
