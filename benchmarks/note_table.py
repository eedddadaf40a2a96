"""The note's table: its own stack beside llama-server with the same shape, in turn.

The note served KBlueLeaf/TIPO-100M by transformers on the CPU in fp32. Each row of its table is
taken here for that stack (``note_service/``, in an environment of its own, random weights in the
model's shape) and for llama-server with ``shape:tipo-100m`` in f32, f16, q8_0 and q4_k_m. Both get
the same tokens and answer with exactly as many, greedily, one request at a time.

Of the note's stack there are two rows. The model publishes ``use_cache`` false, so that each token
computes the whole text before it again: that is what a service gets which loads it as the note
says. The other row switches the cache on, so that engines are compared and not that setting.

A block is a start of one server and its requests; in each round every stack has one block, and the
order moves on by one from round to round.

- ``load_s``: what the note calls load time: tokenizer and weights in its own process; of
  llama-server all from the start of its process. ``ready_s``: of both, start of the process to its
  first healthy answer.
- ``rss_bytes``: resident set after the requests; ``peak_rss_bytes``: the kernel's VmHWM;
  ``imported_rss_bytes``: what the note's service held before it loaded anything. Torch's wheel for
  Linux on x86-64 is a CUDA build, whose linked libraries are in there; the note ran on Windows,
  where it is a CPU build. So compare RSS less what was imported, not RSS alone.
- ``request_s``: by the client's clock, whole answers. The note does not say how many tokens its
  7.89 s are for, so they are not compared with ours.
- a success is an answer with exactly the tokens that were asked for.

    python benchmarks/note_table.py [--blocks 5] [--requests 5] [--prompt-tokens 32]
        [--answer-tokens 100] [--json-out FILE]
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import requests
from note_arithmetic import NAME, NOTE, judge
from note_parts import SERVICE, install, make_model

from results import write_result
from shoestring.analysis.stats import bootstrap_median_ci, wilson_interval
from shoestring.engines.discovery import MENDS, find_program
from shoestring.engines.install.answers import ask
from shoestring.engines.llama_server import server_words
from shoestring.engines.offload import Offload
from shoestring.hardware.cores import usable_cores
from shoestring.hardware.processes import ProcessTree, peak_resident_bytes
from shoestring.models.facts import read_facts
from shoestring.models.fetch import resolve_model
from shoestring.models.shapes import SHAPES
from shoestring.paths import cache_dir
from shoestring.testing.live_server import live_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.testing.live_server import LiveServer

QUANTS = ("f32", "f16", "q8_0", "q4_k_m")
PUBLISHED, CACHED = "transformers fp32, as published", "transformers fp32, with a cache"
SEED = 1
FIRST_WORD = 300
"""Tokens before it stand for control characters and bytes in the made-up vocabulary."""
MEBIBYTE = 1 << 20
ROWS = (
    "load_s", "ready_s", "imported_rss_bytes", "rss_bytes", "peak_rss_bytes", "weights_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class Load:
    """What each block asks.

    Attributes:
        requests: one after the other.
        prompt_tokens: of each; no two prompts are alike.
        answer_tokens: of each answer.
    """

    requests: int
    prompt_tokens: int
    answer_tokens: int

    def prompts(self, block: int) -> list[list[int]]:
        """Return the prompts of a round, the same for each stack."""
        numbers = random.Random(SEED + block)
        words = range(FIRST_WORD, SHAPES[NAME].vocabulary)
        return [numbers.choices(words, k=self.prompt_tokens) for _ in range(self.requests)]


def main() -> None:
    """Take all blocks, judge the note's arithmetic, and write both."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--blocks", type=int, default=5, help="of each stack")
    arguments.add_argument("--requests", type=int, default=5, help="of a block")
    arguments.add_argument("--prompt-tokens", type=int, default=32)
    arguments.add_argument("--answer-tokens", type=int, default=100)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/note-table.json")
    )
    given = arguments.parse_args()
    if min(given.blocks, given.requests, given.prompt_tokens, given.answer_tokens) < 1:
        arguments.error("each number: at least 1")
    if given.prompt_tokens + given.answer_tokens > SHAPES[NAME].context:
        arguments.error(f"prompt and answer: at most {SHAPES[NAME].context} tokens together")
    if (program := find_program("llama-server")) is None:
        arguments.error(f"llama-server is missing: {MENDS['llama-server']}")
    load = Load(given.requests, given.prompt_tokens, given.answer_tokens)
    python = install()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(python, Path(folder))
        stacks: dict[str, Callable[[int], dict[str, Any]]] = {
            PUBLISHED: partial(note_block, python, model, load, cached=False),
            CACHED: partial(note_block, python, model, load, cached=True),
        }
        for quant in QUANTS:
            path = resolve_model(f"shape:{NAME}:{quant}", cache=cache_dir()).path
            stacks[f"llama-server {quant}"] = partial(our_block, program, path, load)
        blocks = take_blocks(stacks, given.blocks)
    figures: dict[str, Any] = {
        "note": NOTE, "arithmetic": judge(), "requests_a_block": load.requests,
        "prompt_tokens": load.prompt_tokens, "answer_tokens": load.answer_tokens,
        "llama_server": next((s for s in ask(str(program), "--version").lines if "version" in s),
                             None),
        "summary": {name: summarise(name, blocks) for name in stacks}, "blocks": blocks,
    }  # fmt: skip
    write_result(given.json_out, "note-table", figures)
    print_table(figures["summary"])
    for claim in figures["arithmetic"]["claims"]:
        print(f"{'holds' if claim['holds'] else 'wrong':7} {claim['claim']}: {claim['why']}")


def take_blocks(
    stacks: dict[str, Callable[[int], dict[str, Any]]], count: int
) -> list[dict[str, Any]]:
    """Take so many blocks of each stack, in turn; each round begins with another one."""
    names = list(stacks)
    blocks = []
    for number in range(count):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            block = {"stack": name, "block": number, **stacks[name](number)}
            print(f"block {number}, {name}: {mean_s(block):.2f} s", file=sys.stderr, flush=True)
            blocks.append(block)
    return blocks


def note_block(
    python: Path,
    model: Path,
    load: Load,
    number: int,
    *,
    cached: bool,
) -> dict[str, Any]:
    """Start the note's service, send it a round, and end it."""
    key = secrets.token_urlsafe()
    environment = {
        "NOTE_MODEL": str(model), "NOTE_KEY": key, "NOTE_USE_CACHE": str(int(cached)),
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
    }  # fmt: skip
    begun_s = time.monotonic()
    with live_server(
        lambda port: [str(python), str(SERVICE / "serve.py"), str(port)], environment=environment
    ) as server:
        ready_s = time.monotonic() - begun_s
        said = server.session.get(f"{server.address}/health", timeout=server.limit_s).json()

        def answer(prompt: list[int]) -> int:
            asked = {
                "prompt": " ".join(f"t{word}" for word in prompt),
                "max_new_tokens": load.answer_tokens,
            }
            reply = server.session.post(
                f"{server.address}/generate", json=asked, timeout=server.limit_s,
                headers={"Authorization": f"Bearer {key}"},
            )  # fmt: skip
            reply.raise_for_status()
            return int(reply.json()["tokens"])

        return {
            "load_s": said["load_s"], "ready_s": ready_s, "weights_bytes": said["weights_bytes"],
            "requests": [one_request(answer, prompt, load) for prompt in load.prompts(number)],
            **resident(server), "imported_rss_bytes": said["imported_rss_bytes"], "service": said,
        }  # fmt: skip


def our_block(program: Path, path: Path, load: Load, number: int) -> dict[str, Any]:
    """Start llama-server, send it a round, and end it."""
    context = SHAPES[NAME].context

    def command(port: int) -> list[str]:
        offload = Offload(threads=usable_cores())
        words = server_words(
            str(program), str(path), port, context=context, parallel=1, offload=offload
        )
        return [*words, "--no-webui", "--offline"]

    begun_s = time.monotonic()
    with live_server(command) as server:
        ready_s = time.monotonic() - begun_s

        def answer(prompt: list[int]) -> int:
            asked = {
                "prompt": prompt, "n_predict": load.answer_tokens, "temperature": 0,
                "ignore_eos": True, "cache_prompt": False,
            }  # fmt: skip
            return int(server.complete(asked)["tokens_predicted"])

        return {
            "load_s": ready_s, "ready_s": ready_s, "weights_bytes": read_facts(path).tensor_bytes,
            "requests": [one_request(answer, prompt, load) for prompt in load.prompts(number)],
            **resident(server), "imported_rss_bytes": None, "service": None,
        }  # fmt: skip


def one_request(
    answer: Callable[[list[int]], int], prompt: list[int], load: Load
) -> dict[str, Any]:
    """Time one answer; a failure is data."""
    begun_s = time.monotonic()
    tokens, failure = None, None
    try:
        tokens = answer(prompt)
    except requests.RequestException as error:
        failure = f"{type(error).__name__}: {error}"[:200]
    seconds = time.monotonic() - begun_s
    ok = tokens == load.answer_tokens
    return {"request_s": seconds, "tokens": tokens, "ok": ok, "failure": failure}


def resident(server: LiveServer) -> dict[str, int | None]:
    """Return what the server holds now, and the most that it ever held."""
    use = ProcessTree(server.pid).read()
    return {
        "rss_bytes": None if use is None else use.resident_bytes,
        "peak_rss_bytes": peak_resident_bytes(server.pid),
    }


def mean_s(block: dict[str, Any]) -> float:
    """Return the mean time of a block's requests."""
    return float(mean(one["request_s"] for one in block["requests"]))


def summarise(name: str, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one column of the table: medians over blocks, times of the successful requests."""
    mine = [block for block in blocks if block["stack"] == name]
    asked = [one for block in mine for one in block["requests"]]
    times = [[one["request_s"] for one in block["requests"] if one["ok"]] for block in mine]
    pooled = [seconds for block in times for seconds in block]
    known = {row: [block[row] for block in mine if block[row] is not None] for row in ROWS}
    return {
        **{row: median(values) if values else None for row, values in known.items()},
        "mean_request_s": mean(pooled) if pooled else None,
        "median_request_s": {
            "value": median(pooled) if pooled else None, "ci95": bootstrap_median_ci(times),
        },
        "successful": {
            "ok": len(pooled), "of": len(asked), "ci95": wilson_interval(len(pooled), len(asked)),
        },
    }  # fmt: skip


def print_table(summary: dict[str, dict[str, Any]]) -> None:
    """Print the note's table, one column a stack; times in seconds, sizes in MiB."""
    titles = f"{'load':>8}{'ready':>8}{'RSS':>9}{'less imports':>14}{'size':>9}{'mean':>9}{'ok':>8}"
    print(f"{'':34}{titles}")
    print(f"{'the note, as printed':34}{NOTE['load_s']:>8}{'-':>8}{NOTE['rss_mb']:>9}{'-':>14}"
          f"{NOTE['size_mb']:>9}{NOTE['mean_inference_s']:>9}{NOTE['successful']:>8}")  # fmt: skip
    for name, column in summary.items():
        cells = [
            shown(column["load_s"], 8, 2), shown(column["ready_s"], 8, 2),
            shown(column["rss_bytes"], 9, 1, MEBIBYTE),
            shown(loaded_bytes(column), 14, 1, MEBIBYTE),
            shown(column["weights_bytes"], 9, 2, MEBIBYTE),
            shown(column["mean_request_s"], 9, 3),
        ]  # fmt: skip
        share = f"{column['successful']['ok']}/{column['successful']['of']}"
        print(f"{name:34}{''.join(cells)}{share:>8}")


def loaded_bytes(column: dict[str, Any]) -> float | None:
    """Return what came after the imports; None where nobody imported anything."""
    rss, imported = column["rss_bytes"], column["imported_rss_bytes"]
    return None if rss is None or imported is None else rss - imported


def shown(value: float | None, width: int, digits: int, unit: int = 1) -> str:
    """Write a number right-aligned; what is missing is a dash."""
    return f"{'-':>{width}}" if value is None else f"{value / unit:>{width}.{digits}f}"


if __name__ == "__main__":
    main()
