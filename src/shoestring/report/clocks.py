"""Figures of who says what: the clocks of client, engine and hardware, the cache, the reasoning.

A row is a case. What is drawn are the medians of the summary, with their intervals where there
are five blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from shoestring.report.drawing import Drawing, labelled
from shoestring.report.style import (
    COLUMN_IN,
    INK,
    MUTED,
    PAGE_IN,
    PAPER,
    SERIES,
    new_figure,
    styled,
)
from shoestring.report.units import number, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from shoestring.measure.records import Run

Cases = dict[str, dict[str, Any]]

_PARTS = (("load_s", "load", SERIES[4]), ("prompt_s", "prefill", SERIES[0]))
_RESIDUAL = ("residual", SERIES[1])


def three_clocks(run: Run) -> Drawing:
    """Draw TTFT and decode rate as client and engine tell them, and what the hardware did.

    Left, the bar is what the engine tells of a request (load, prefill), then the residual, up to
    the client's TTFT; a narrow residual means that the two clocks agree.
    """
    from shoestring.analysis.summary import summarise

    cases = _cases(run, summarise(run)["cases"])
    if not any(case["native"]["prompt_s"]["n"] for case in cases.values()):
        return Drawing.missing("the engine tells no timings of its own, or no request was answered")
    hardware = _hardware(cases)
    texts = [_clock_words(label, case) for label, case in cases.items()]
    with styled():
        figure = new_figure(PAGE_IN, 0.95 + 0.3 * len(cases))
        widths = [1.9, 1.2, 0.8] if hardware else [1.9, 1.2]
        panels = figure.subplots(1, len(widths), sharey=True, width_ratios=widths)
        ends_s = [_ttft_bar(panels[0], row, case) for row, case in enumerate(cases.values())]
        for row, case in enumerate(cases.values()):
            _pair(panels[1], row, case)
        if hardware:
            _hardware_bars(panels[2], cases, *hardware)
        panels[0].set_xlim(0, max(ends_s) * 1e3 * 1.65)  # room for the words at the longest bar
        panels[0].set_xlabel("time to first token (ms)")
        panels[1].set_xlim(0, panels[1].get_xlim()[1] * 1.05)
        panels[1].set_xlabel("decode, a request (tokens/s)")
        case_axis(panels, list(cases))
        _clock_legend(panels, cases)
    return Drawing(figure, "Medians. " + "; ".join(texts) + ".")


def cached_share(run: Run) -> Drawing:
    """Draw the share of the prompt that came from the engine's prefix cache, a bar a case."""
    from shoestring.analysis.summary import summarise

    cases = _cases(run, summarise(run)["cases"])
    shares = {label: case["cached_share"] for label, case in cases.items()}
    if all(share is None for share in shares.values()):
        return Drawing.missing("the engine does not tell what came from its prefix cache")
    told = [
        f"{label} {'not told' if share is None else f'{number(share * 100)} %'}"
        for label, share in shares.items()
    ]
    if not any(shares.values()):
        return Drawing.missing(f"no prompt token came from the prefix cache: {'; '.join(told)}")
    with styled():
        figure = new_figure(COLUMN_IN, 0.6 + 0.23 * len(shares))
        axes = figure.add_subplot()
        for row, share in enumerate(shares.values()):
            percent = (share or 0) * 100
            axes.barh(row, percent, height=0.6, color=SERIES[0], alpha=0.85)
            said = "not told" if share is None else f"{number(percent)} %"
            _at_end(axes, percent, row, said)
        axes.set_xlim(0, max((share or 0) * 100 for share in shares.values()) * 1.3)
        axes.set_xlabel("prompt tokens from the prefix cache (%)")
        case_axis([axes], list(shares))
    return Drawing(figure, f"Prompt tokens from the prefix cache: {'; '.join(told)}.")


def reasoning(run: Run) -> Drawing:
    """Draw the wait for the first reasoning and for the first answer token, a row a case."""
    from shoestring.analysis.summary import summarise

    cases = {
        label: case
        for label, case in _cases(run, summarise(run)["cases"]).items()
        if case["metrics"]["first_reasoning_s"]["n"]
    }
    if not cases:
        return Drawing.missing("no answer came with reasoning")
    texts = []
    with styled():
        figure = new_figure(COLUMN_IN, 0.85 + 0.3 * len(cases))
        axes = figure.add_subplot()
        for row, (label, case) in enumerate(cases.items()):
            first, answer = (
                case["metrics"][name] for name in ("first_reasoning_s", "first_answer_s")
            )
            share = case["metrics"]["reasoning_share"]["median"]
            if answer["median"] is not None:
                pair = [first["median"], answer["median"]]
                axes.plot(pair, [row, row], color=MUTED, linewidth=2, zorder=1)
                _dot(axes, answer, row, SERIES[0], "o")
            _dot(axes, first, row, SERIES[1], "s")
            said = f"{number(share * 100)} % of the text is reasoning"
            axes.annotate(
                said, (first["median"], row), (0, 7), textcoords="offset points", fontsize=6.5
            )
            after = "none" if answer["median"] is None else seconds(answer["median"])
            texts.append(
                f"{label}: first reasoning {seconds(first['median'])}, first answer {after}, {said}"
            )
        axes.margins(x=0.15)
        axes.set_xlim(0, None)
        axes.set_xlabel("since the request was meant to leave (s)")
        case_axis([axes], list(cases))
        handles = [
            _mark("s", SERIES[1], "first reasoning"), _mark("o", SERIES[0], "first answer"),
        ]  # fmt: skip
        _legend(axes, handles, columns=2)
    return Drawing(figure, "; ".join(texts) + ".")


def _cases(run: Run, cases: list[dict[str, Any]]) -> Cases:
    """The cases that were answered, by their labels."""
    found = labelled(run, cases)
    return {
        label: case
        for label, case in found.items()
        if case["metrics"]["ttft_s"]["median"] is not None
    }


def _ttft_bar(axes: Axes, row: int, case: dict[str, Any]) -> float:
    """Stack what the engine tells from the left; the residual reaches to the client's TTFT.

    Returns:
        Where the bar and its interval end, in seconds.
    """
    ttft, residual = case["metrics"]["ttft_s"], case["residual_s"]["median"]
    left_s = 0.0
    for name, _, colour in _PARTS:
        part_s = case["native"][name]["median"] or 0.0
        axes.barh(row, part_s * 1e3, left=left_s * 1e3, height=0.5, color=colour, alpha=0.8)
        left_s += part_s
    rest_s = ttft["median"] - left_s
    if residual is not None and rest_s > 0:
        axes.barh(row, rest_s * 1e3, left=left_s * 1e3, height=0.5, color=_RESIDUAL[1], alpha=0.8)
    _dot(axes, ttft, row, INK, "d", scale=1e3)
    high_s = max(ttft["median"], left_s, (ttft["ci95"] or [0, 0])[1])
    said = f"residual {seconds(residual)}" if residual is not None else "engine tells nothing"
    _at_end(axes, high_s * 1e3, row, f"{seconds(ttft['median'])}, {said}")
    return float(high_s)


def _pair(axes: Axes, row: int, case: dict[str, Any]) -> None:
    """Put the engine's rate a little above the row's middle and the client's a little below."""
    for metric, shift, colour, marker in (
        (case["native"]["decode_tokens_per_s"], -0.13, SERIES[0], "s"),
        (case["metrics"]["decode_tokens_per_s"], 0.13, INK, "d"),
    ):
        if metric["median"] is not None:
            _dot(axes, metric, row + shift, colour, marker)


def _hardware(cases: Cases) -> tuple[str, str] | None:
    """Choose the third clock: power where a GPU tells it, else the busy cores of the engine."""
    for name, heading in (("gpu_power_w", "GPU power (W)"), ("engine_cores", "engine, busy cores")):
        if any(case["hardware"][name] is not None for case in cases.values()):
            return name, heading
    return None


def _hardware_bars(axes: Axes, cases: Cases, name: str, heading: str) -> None:
    values = [case["hardware"][name] for case in cases.values()]
    for row, value in enumerate(values):
        if value is not None:
            axes.barh(row, value, height=0.5, color=SERIES[2], alpha=0.8)
            _at_end(axes, value, row, number(value))
    axes.set_xlim(0, max(value for value in values if value is not None) * 1.4 or 1)
    axes.set_xlabel(heading)


def _clock_words(label: str, case: dict[str, Any]) -> str:
    native, metrics = case["native"], case["metrics"]
    parts = [
        f"{name} {seconds(native[key]['median'])}"
        for key, name, _ in _PARTS
        if native[key]["median"] is not None
    ]
    return (
        f"{label}: TTFT {seconds(metrics['ttft_s']['median'])}, of which the engine tells "
        f"{' and '.join(parts) or 'nothing'}, residual {seconds(case['residual_s']['median'])}; "
        f"decode {number(metrics['decode_tokens_per_s']['median'])} tokens/s by the client, "
        f"{number(native['decode_tokens_per_s']['median'])} by the engine"
    )


def _clock_legend(panels: Sequence[Axes], cases: Cases) -> None:
    parts = [
        (name, colour)
        for key, name, colour in _PARTS
        if any(case["native"][key]["n"] for case in cases.values())
    ]
    handles: list[Any] = [
        Patch(facecolor=colour, alpha=0.8, label=f"engine: {name}") for name, colour in parts
    ]
    handles += [Patch(facecolor=_RESIDUAL[1], alpha=0.8, label=_RESIDUAL[0])]
    _legend(panels[0], [*handles, _mark("d", INK, "client")], columns=4)
    _legend(panels[1], [_mark("s", SERIES[0], "engine"), _mark("d", INK, "client")], columns=2)


def case_axis(panels: Sequence[Axes], labels: list[str]) -> None:
    """Name the rows of the panels, from the top down."""
    for axes in panels:
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)


def _dot(
    axes: Axes, metric: dict[str, Any], row: float, colour: str, marker: str, scale: float = 1.0
) -> None:
    median = metric["median"] * scale
    if metric["ci95"] is not None:
        low, high = (end * scale for end in metric["ci95"])
        bars = [[max(0.0, median - low)], [max(0.0, high - median)]]
        axes.errorbar(median, row, xerr=bars, color=colour, capsize=2, linewidth=1, zorder=4)
    axes.plot(
        median, row, color=colour, marker=marker, markersize=4.5, linestyle="none", zorder=5,
        markeredgecolor=PAPER, markeredgewidth=0.5,
    )  # fmt: skip


def _at_end(axes: Axes, value: float, row: float, text: str) -> None:
    axes.annotate(text, (value, row), (4, 0), textcoords="offset points", va="center", fontsize=6.5)


def _mark(marker: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, markersize=4, linestyle="none", label=label)


def _legend(axes: Axes, handles: list[Any], *, columns: int) -> None:
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns,
        borderaxespad=0.2, handlelength=1.2, handletextpad=0.4, columnspacing=1.0, borderpad=0,
    )  # fmt: skip
