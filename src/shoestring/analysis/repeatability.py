"""How repeatable is a figure from session to session, beside its spread within one?

One-way random effects: value j of session i is ``y_ij = mu + a_i + e_ij``, where ``a_i`` is what a
whole session has in common (how the machine was that time, where the model came to lie in memory)
and ``e_ij`` is the single request's own. Of k sessions with n_i values, N in all::

    MSW = sum_i sum_j (y_ij - mean_i)^2 / (N - k)              mean square within sessions
    MSB = sum_i n_i (mean_i - mean)^2 / (k - 1)                mean square between sessions
    n0  = (N - sum_i n_i^2 / N) / (k - 1)                      values a session; n, if all have n

    within-session sd   = sqrt(MSW)
    between-session sd  = sqrt(max(0, (MSB - MSW) / n0))
    intraclass correlation = between^2 / (between^2 + within^2)

``mean`` is that of all values, to which both deviations are also given as shares. The correlation
is 0 where a session says nothing about its requests, and 1 where it says all. An MSB below MSW
means that no more lies between the sessions than chance puts there: the deviation is then 0.

Source: Searle, Casella and McCulloch, Variance Components (1992), chapter 3 (analysis of variance
estimators, unbalanced data); the correlation is ICC(1) of Shrout and Fleiss, Psychological Bulletin
86 (1979), 420-428.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from shoestring.analysis.samples import by_case, measured_samples, metric_blocks
from shoestring.analysis.stats import mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.measure.records import Run

METRICS = ("ttft_s", "decode_tokens_per_s")
TOO_FEW_SESSIONS = "fewer than two sessions have values: nothing lies between them"
ONE_VALUE_EACH = "no session has two values: what lies within one is not known"


@dataclass(frozen=True)
class Repeatability:
    """The variation of one figure, in its own unit and as shares of its mean.

    Attributes:
        sessions: with values.
        values: in all of them.
        mean: of all values; None of nothing.
        within_sd: standard deviation within a session.
        between_sd: standard deviation between sessions.
        within_share: ``within_sd / |mean|``.
        between_share: ``between_sd / |mean|``.
        intraclass_correlation: the share of the variance that lies between sessions, 0..1.
        reason: why one of these is None; else None.
    """

    sessions: int
    values: int
    mean: float | None
    within_sd: float | None = None
    between_sd: float | None = None
    within_share: float | None = None
    between_share: float | None = None
    intraclass_correlation: float | None = None
    reason: str | None = None


def repeatability(sessions: Sequence[Sequence[float]]) -> Repeatability:
    """Part the variation of a figure into that within sessions and that between them.

    Args:
        sessions: the values of each; one without values tells nothing and is left out.
    """
    filled = [values for values in sessions if len(values)]
    count = sum(map(len, filled))
    centre = mean([value for values in filled for value in values])
    known = Repeatability(len(filled), count, centre)
    if len(filled) < 2:  # noqa: PLR2004 - a single session has no other
        return _without(known, TOO_FEW_SESSIONS)
    if count == len(filled):
        return _without(known, ONE_VALUE_EACH)
    assert centre is not None
    within, between = _variances(filled, centre)
    spread = within + between
    shares = (
        {"reason": "the mean is 0: there are no shares of it"}
        if centre == 0
        else {
            "within_share": math.sqrt(within) / abs(centre),
            "between_share": math.sqrt(between) / abs(centre),
        }
    )
    return Repeatability(**{
        **asdict(known),
        **shares,
        "within_sd": math.sqrt(within),
        "between_sd": math.sqrt(between),
        # Without any spread no share of it lies between the sessions.
        "intraclass_correlation": between / spread if spread > 0 else 0.0,
    })  # fmt: skip


def session_repeatability(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Say for each case and metric how repeatable runs of one suite are; a run is a session.

    Returns:
        A dictionary a case and metric: ``case``, ``concurrency``, ``metric``, ``sessions`` (the
        values of each run, in their order) and ``repeatability`` (:class:`Repeatability`). Failed
        requests and warm-ups have no values.
    """
    cases = [by_case(run, measured_samples(run)) for run in runs]
    names = dict.fromkeys(name for one in cases for name in one)
    rows = []
    for name in names:
        for metric in METRICS:
            values = [
                [value for block in metric_blocks(one.get(name, []), metric) for value in block]
                for one in cases
            ]
            rows.append({
                "case": name[0],
                "concurrency": name[1],
                "metric": metric,
                "sessions": values,
                "repeatability": asdict(repeatability(values)),
            })  # fmt: skip
    return rows


def _variances(sessions: Sequence[Sequence[float]], centre: float) -> tuple[float, float]:
    """Return the variance within sessions and that between them."""
    count = sum(map(len, sessions))
    means = [math.fsum(values) / len(values) for values in sessions]
    pairs = list(zip(sessions, means, strict=True))
    inside = math.fsum((value - own) ** 2 for values, own in pairs for value in values)
    outside = math.fsum(len(values) * (own - centre) ** 2 for values, own in pairs)
    within = inside / (count - len(sessions))
    squares = sum(len(values) ** 2 for values in sessions)
    alike = (count - squares / count) / (len(sessions) - 1)
    between = (outside / (len(sessions) - 1) - within) / alike
    return within, max(0.0, between)


def _without(known: Repeatability, reason: str) -> Repeatability:
    return Repeatability(known.sessions, known.values, known.mean, reason=reason)
