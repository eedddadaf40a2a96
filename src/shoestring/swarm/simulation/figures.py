"""Figures of many answers: shares, quantiles, and how they went on by simulated time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoestring.swarm.simulation.demand import Demand
    from shoestring.swarm.simulation.scenario import Scenario
    from shoestring.swarm.simulation.tally import Tally

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

COLUMNS: Final = ("number", "paid", "tokens", "ttft_s", "tpot_s", "hops", "near", "saved")
QUANTILES: Final = {"p10": 0.1, "median": 0.5, "p90": 0.9, "p99": 0.99}
FEWEST: Final = {"p10": 64, "median": 1, "p90": 64, "p99": 662}
"""Samples without which a quantile is none (docs/metrics.md)."""
PER_MILLION: Final = 1_000_000
DIGITS: Final = 6


class Answers:
    """Columns of all answers that were begun."""

    def __init__(self, tally: Tally, demand: Demand) -> None:
        table = np.array(tally.rows, dtype=np.float64).reshape(-1, len(COLUMNS))
        self.of = dict(zip(COLUMNS, table.T, strict=True))
        self.number = self.of["number"].astype(np.int64)
        self.wrong, self.lost = np.array(tally.wrong, bool), np.array(tally.lost, bool)
        self.refused = np.array(sorted(tally.reasons), dtype=np.int64)
        self.why = [tally.reasons[number] for number in self.refused.tolist()]
        self.demand = demand

    def described(self, mine: Bools, refused: int) -> dict[str, Any]:
        """Return figures of some answers, and of so many requests beside them without a route."""
        whole = mine & ~self.lost
        tokens, paid = float(self.of["tokens"][mine].sum()), float(self.of["paid"][mine].sum())
        hops = float(self.of["hops"][mine].sum())
        asked, begun = int(mine.sum()) + refused, int(mine.sum())
        return {
            "asked": asked,
            "served_share": ratio(int(whole.sum()), asked),
            "wrong_share": ratio(int(self.wrong[mine].sum()), begun),
            "request_micro": quantiles(self.of["paid"][whole]),
            "million_tokens_micro": ratio(paid * PER_MILLION, tokens),
            "ttft_s": quantiles(self.of["ttft_s"][whole]),
            "tpot_s": quantiles(self.of["tpot_s"][whole]),
            "hops": ratio(hops, begun),
            "near_share": ratio(float(self.of["near"][mine].sum()), hops),
        }

    def by(self, column: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
        """Return figures by a column of the demand."""
        return {
            name: self.described(
                column[self.number] == number, int((column[self.refused] == number).sum())
            )
            for number, name in enumerate(names)
        }


def quantiles(values: Floats) -> dict[str, float | None]:
    """Return the mean and some quantiles; null where there are too few values."""
    known = values[np.isfinite(values)]
    found: dict[str, float | None] = {"mean": float(known.mean()) if len(known) else None}
    for name, share in QUANTILES.items():
        found[name] = float(np.quantile(known, share)) if len(known) >= FEWEST[name] else None
    return found


def rounded(value: Any) -> Any:
    """Return figures with six significant digits, whole numbers as they are."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return value


def series(scenario: Scenario, tally: Tally, answers: Answers) -> dict[str, Any]:
    """Return figures by simulated time, of requests by when they were asked."""
    bins = len(tally.there_by_bin)
    at = (answers.demand.at_s // scenario.bin_s).astype(np.int64)
    mine = at[answers.number]
    asked = np.bincount(mine, minlength=bins) + np.bincount(at[answers.refused], minlength=bins)
    paid = np.bincount(mine, weights=answers.of["paid"], minlength=bins)
    tokens = np.bincount(mine, weights=answers.of["tokens"], minlength=bins)
    order = np.argsort(mine, kind="stable")
    edges = np.searchsorted(mine[order], np.arange(bins + 1))
    ttft_s, tpot_s = answers.of["ttft_s"][order], answers.of["tpot_s"][order]
    spans = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    return {
        "bin_s": scenario.bin_s,
        "asked": asked.tolist(),
        "unserved": np.bincount(at[answers.refused], minlength=bins).tolist(),
        "nodes": np.cumsum(tally.there_by_bin).tolist(),
        "paid_micro": np.rint(paid).astype(np.int64).tolist(),
        "tokens": tokens.astype(np.int64).tolist(),
        "ttft_median_s": [_median(ttft_s[first:end]) for first, end in spans],
        "tpot_median_s": [_median(tpot_s[first:end]) for first, end in spans],
    }


def ratio(of: float, all_: float) -> float | None:
    """Return a share, or a mean; None: of nothing."""
    return of / all_ if all_ else None


def _median(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
