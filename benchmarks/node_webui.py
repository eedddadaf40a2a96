"""What does Open WebUI cost: does it change what is measured beside it, and what does it add?

- ``beside``: blocks of one suite against the node's Ollama, in turn with Open WebUI on top (its
  administrator signed in, nobody typing) and without it; the node is brought up anew for each. The
  ratio with / without of the medians, with its bootstrap interval over blocks. The bar: the
  interval of decode tokens/s holds 1.
- ``through``: questions of one kind, in pairs, one to Open WebUI's API as its page asks it, one to
  Ollama's ``/api/chat``, first one first and then the other. Both go through the same client of
  ours. What Open WebUI adds to TTFT is the median of the differences; to tokens/s, of the ratios.

    python benchmarks/node_webui.py [--blocks 6] [--pairs 24] [--json-out FILE]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from results import write_result
from shoestring.analysis.metrics import timings
from shoestring.analysis.samples import by_case, measured_samples, metric_blocks
from shoestring.analysis.stats import MIN_BLOCKS, bootstrap_median_ci, bootstrap_ratio_ci
from shoestring.engines.ollama import OllamaEngine
from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.protocol import Prompt
from shoestring.measure.prompting import make_prompt
from shoestring.measure.runner import run_suite
from shoestring.measure.suite import load_suite
from shoestring.testing.node_process import MODEL, SUITE, Place, api_token, node_up, sign_in

if TYPE_CHECKING:
    from shoestring.analysis.metrics import RequestMetrics
    from shoestring.engines.protocol import Engine
    from shoestring.measure.records import Run
    from shoestring.testing.node_process import Up

METRICS = ("ttft_s", "decode_tokens_per_s")
BAR = "decode_tokens_per_s"
REQUESTS = 10
"""Of a block; they are one block for the interval, for they share one start of the node."""


def main() -> None:
    """Take all blocks and pairs and write both answers."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=6, help="with Open WebUI, and without")
    arguments.add_argument("--pairs", type=int, default=24, help="of questions")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/node-webui.json")
    )
    given = arguments.parse_args()
    if min(given.blocks, given.pairs) < MIN_BLOCKS:
        arguments.error(f"--blocks and --pairs: at least {MIN_BLOCKS}, or there is no interval")
    with tempfile.TemporaryDirectory() as temporary:
        place = Place(Path(temporary) / "state")
        blocks = take_blocks(place, given.blocks, Path(temporary) / "runs")
        with node_up(place) as up:
            pairs = take_pairs(place, up, given.pairs)
    beside = compare_blocks(blocks)
    figures: dict[str, Any] = {
        "model": MODEL, "requests_a_block": REQUESTS,
        "bars": {"decode tokens/s with / without Open WebUI": judge(beside)},
        "beside": beside, "through": compare_pairs(pairs),
        "blocks": blocks, "pairs": pairs,
    }  # fmt: skip
    write_result(given.json_out, "node-webui", figures)
    for name, bar in figures["bars"].items():
        print(f"{'met' if bar['met'] else 'missed':7} {name}: {bar['ci95']}")


def take_blocks(place: Place, count: int, out: Path) -> list[dict[str, Any]]:
    """Measure so many blocks of each kind, first one first and then the other."""
    blocks = []
    for number in range(count):
        kinds = (True, False) if number % 2 else (False, True)
        for open_webui in kinds:
            load = os.getloadavg()[0]
            with node_up(place, open_webui=open_webui) as up, ExitStack() as stack:
                if open_webui:
                    stack.enter_context(sign_in(place))
                run = run_suite(SUITE, model=up.model, base_url=place.ollama_url, out=out,
                                requests=REQUESTS)  # fmt: skip
            blocks.append({
                "block": number + 1, "open_webui": open_webui, "run_id": run.run_id,
                "load_average_1min": load, "values": block_values(run),
            })  # fmt: skip
            print(blocks[-1], flush=True)
    return blocks


def block_values(run: Run) -> dict[str, dict[str, list[float]]]:
    """Return the values of a run by case and metric; all of it is one block."""
    cases = by_case(run, measured_samples(run))
    return {
        name: {
            metric: [value for block in metric_blocks(samples, metric) for value in block]
            for metric in METRICS
        }
        for (name, _), samples in cases.items()
    }


def compare_blocks(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ratio with / without Open WebUI for each case and metric."""
    rows = []
    for case in blocks[0]["values"]:
        for metric in METRICS:
            with_it, without = (
                [one["values"][case][metric] for one in blocks if one["open_webui"] is wanted]
                for wanted in (True, False)
            )
            ci95 = bootstrap_ratio_ci(with_it, without)
            medians = [median(value for block in side for value in block)
                       for side in (with_it, without)]  # fmt: skip
            rows.append({
                "case": case, "metric": metric, "with": medians[0], "without": medians[1],
                "ratio": medians[0] / medians[1], "ci95": ci95,
                "one_is_inside": None if ci95 is None else ci95[0] <= 1 <= ci95[1],
            })  # fmt: skip
    return rows


def judge(beside: list[dict[str, Any]]) -> dict[str, Any]:
    """Say whether the bar is met in every case; one without an interval does not meet it."""
    rows = [row for row in beside if row["metric"] == BAR]
    return {
        "met": all(row["one_is_inside"] is True for row in rows),
        "ci95": {row["case"]: row["ci95"] for row in rows},
    }


class _AsThePage(OllamaEngine):
    """Asks Ollama without settings of our own, as Open WebUI does: others would load it anew."""

    def _request(self, prompt: Prompt) -> tuple[str, dict[str, Any]]:
        path, body = super()._request(prompt)
        body["options"] = {k: v for k, v in body["options"].items() if k not in self._model_options}
        return path, body


def take_pairs(place: Place, up: Up, count: int) -> list[dict[str, Any]]:
    """Ask so many questions of each kind, the order turning from pair to pair."""
    case = load_suite(SUITE).cases[0]
    model = up.said["model"]["name"]
    with ExitStack() as stack:
        page = stack.enter_context(sign_in(place))
        shown = next(name for name in page.models() if name.startswith(model))
        direct = stack.enter_context(_AsThePage(model, base_url=place.ollama_url))
        # Made now: counting tokens later would load the model with settings of ours.
        texts = [make_prompt(case, f"pair-{number}", 1, direct.count_tokens).text
                 for number in range(2 * (count + 1))]  # fmt: skip
        through = stack.enter_context(
            OpenAIEngine(f"{place.webui_url}/api", shown, api_key=api_token(place))
        )
        engines: dict[str, Engine] = {"through": through, "direct": direct}
        pairs = []
        for number in range(count + 1):
            names = ("through", "direct") if number % 2 else ("direct", "through")
            asked = {
                name: ask(engines[name], texts[2 * number + position], case.output_tokens)
                for position, name in enumerate(names)
            }
            if number:  # the first pair finds the model not loaded as it will be from now on
                pairs.append({"pair": number, "first": names[0], **asked})
        return pairs


def ask(engine: Engine, text: str, tokens: int) -> dict[str, Any]:
    """Ask one question; return what the client saw.

    Raises:
        SystemExit: it was not answered.
    """
    made = engine.generate(Prompt(text, tokens))
    if made.failure is not None:
        raise SystemExit(f"{engine.name}: {made.failure.detail}")
    return figures_of(timings(made))


def figures_of(made: RequestMetrics) -> dict[str, Any]:
    """Name what is compared; the counts show that both were asked the same.

    What Ollama waited for its model, which it tells only where it is asked directly, shows that
    nobody's settings had it loaded anew.
    """
    return {
        "ttft_s": made.ttft_s,
        "decode_tokens_per_s": made.decode_tokens_per_s,
        "prompt_tokens": made.prompt_tokens,
        "output_tokens": made.output_tokens,
        "engine_load_s": made.native_load_s,
    }


def compare_pairs(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what Open WebUI adds to TTFT, and its share of the tokens/s, pair by pair."""
    added_s = [one["through"]["ttft_s"] - one["direct"]["ttft_s"] for one in pairs]
    rates = [(one["through"][BAR], one["direct"][BAR]) for one in pairs]
    ratios = [through / direct for through, direct in rates if through and direct]
    return {
        "pairs": len(pairs),
        "ttft_s": {side: median(one[side]["ttft_s"] for one in pairs)
                   for side in ("through", "direct")},
        "added_ttft_s": {"median": median(added_s), "min": min(added_s), "max": max(added_s),
                         "ci95": bootstrap_median_ci([[value] for value in added_s])},
        "decode_ratio": {"pairs": len(ratios), "median": median(ratios) if ratios else None,
                         "ci95": bootstrap_median_ci([[value] for value in ratios])},
    }  # fmt: skip


if __name__ == "__main__":
    main()
