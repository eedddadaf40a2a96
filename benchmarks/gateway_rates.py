"""How much passes through a gateway: tokens before a real engine, answers out of its cache.

Cached is what the known-truth server lists: an unlisted model has no digest, and so no answer of
it is ever kept.
``gateway_overhead.py`` runs both beside TTFT and says what is counted how.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

from gateway_servers import DIRECT, LITELLM, OURS, answers_at, gateways, note, question, turns
from load import CHAT, Site, closed_loop, run, until

from shoestring.analysis.stats import bootstrap_median_ci
from shoestring.engines.discovery import find_program
from shoestring.engines.launch import Launched, free_port
from shoestring.engines.llama_server import server_words
from shoestring.engines.offload import Offload
from shoestring.hardware.cores import usable_cores
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.truth.process import running_server
from shoestring.truth.schedule import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from load import Answer

SLOTS, OUTPUT_TOKENS, REQUESTS_A_SLOT = 4, 96, 2
REAL_LIMIT_S = 600.0
CACHED_CONCURRENCY = 8
QUESTIONS = 16
FILLS = 8
CACHED_TOKENS = 16
WORDS = "".join(f"w{number} " for number in range(CACHED_TOKENS))
KINDS = {"answers": False, "streams": True}
Figures = dict[str, Any]


def measure_throughput(blocks: int, names: Sequence[str], model: str, folder: Path) -> Figures:
    """Return output tokens a second of each arm before llama-server, and the ratios to direct."""
    served = model.rpartition(":")[2]
    seen: dict[str, list[float]] = defaultdict(list)
    with (
        llama_server(model, served, folder) as url,
        gateways(names, folder, url, served) as servers,
    ):
        sites = {DIRECT: Site(url), **{name: server.site for name, server in servers.items()}}
        draw = random.Random(1)
        for block, name in turns(blocks, names):
            note(f"throughput, block {block + 1}: {name}")
            for size in (SLOTS, SLOTS * REQUESTS_A_SLOT):  # the first do not count
                asks = [real_request(sites[name], served, draw) for _ in range(size)]
                answers = run(
                    closed_loop(
                        sites[name], asks.__getitem__, range(size), SLOTS, limit_s=REAL_LIMIT_S
                    )
                )
            seen[name].append(tokens_per_s(name, answers))
    return {
        "model": model,
        "slots": SLOTS,
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_per_s": seen,
        "ratio_to_direct": {
            name: ratio(seen[name], seen[DIRECT]) for name in names if name != DIRECT
        },
    }


def real_request(site: Site, model: str, draw: random.Random) -> bytes:
    """Return a question that no cache knows, whose answer has a fixed length."""
    text = f"{draw.randrange(10**6):06d} Tell a long story about a lighthouse and its keeper."
    body = {**question(model, text, stream=True), "max_tokens": OUTPUT_TOKENS}
    # llama-server promises to keep a connection and closes it after a stream, so all arms close.
    return site.post(CHAT, {**body, "temperature": 0, "ignore_eos": True}, last=True)


def tokens_per_s(name: str, answers: list[Answer]) -> float:
    """Return the output tokens of a block by its duration, first request to last byte."""
    made = [answer.read() for answer in answers]
    for one in made:
        if one.failure is not None:
            raise SystemExit(f"{name}: {one.failure.detail}")
    tokens = sum((one.usage and one.usage.completion_tokens) or 0 for one in made)
    begun_ns = min(one.intended_ns for one in made)
    return tokens / ((max(one.end_ns for one in made) - begun_ns) / 1e9)


def measure_cached(
    blocks: int, names: Sequence[str], seconds: float, folder: Path
) -> tuple[Figures, dict[str, int | None]]:
    """Return answers a second out of each cache, and the peak memory of each worker."""
    rates: dict[str, dict[str, list[float]]] = {kind: defaultdict(list) for kind in KINDS}
    shares: dict[str, list[float]] = defaultdict(list)
    not_right: dict[str, int] = defaultdict(int)
    asked: dict[str, int] = defaultdict(int)
    log = folder / "truth-cached.jsonl"
    with (
        running_server(log=log) as truth,
        gateways(names, folder, truth.base_url, EXAMPLE, cache=True) as servers,
    ):
        for name, server in servers.items():
            fill(name, server.site, log)
        for kind, block, name in (
            (k, b, n) for k in KINDS for b, n in turns(blocks, list(servers))
        ):
            note(f"cached {kind}, block {block + 1}: {name}")
            before = count_lines(log)
            answers, took_s, share = ask_cached(servers[name].site, seconds, stream=KINDS[kind])
            asked[name] += count_lines(log) - before
            right = sum(text_of(answer, stream=KINDS[kind]) == WORDS for answer in answers)
            rates[kind][name].append(right / took_s)
            shares[name].append(share)
            not_right[name] += len(answers) - right
        peaks = {name: server.peak_bytes() for name, server in servers.items()}
    figures = {
        "concurrency": CACHED_CONCURRENCY,
        "questions": QUESTIONS,
        "seconds_a_block": seconds,
        "answers_per_s": rates,
        "not_right": not_right,
        "engine_was_asked": asked,
        "client_cpu_share": {name: median(values) for name, values in shares.items()},
        "ratio_to_litellm": {
            kind: ratio(seen.get(OURS, []), seen.get(LITELLM, [])) for kind, seen in rates.items()
        },
    }
    return figures, peaks


def ask_cached(site: Site, seconds: float, *, stream: bool) -> tuple[list[Answer], float, float]:
    """Ask the same questions for a while; return answers, duration, our own share of a core."""
    asks = [site.post(CHAT, cached_question(n, stream=stream)) for n in range(QUESTIONS)]
    begun_s, used_s = time.monotonic(), time.process_time()
    loop = closed_loop(
        site, lambda number: asks[number % QUESTIONS], until(seconds), CACHED_CONCURRENCY
    )
    answers = run(loop)
    took_s = time.monotonic() - begun_s
    return answers, took_s, (time.process_time() - used_s) / took_s


def fill(name: str, site: Site, log: Path) -> None:
    """Ask each question in each way until the engine is asked none of them any more.

    A gateway that has just started may not know yet which weights its engine serves.
    """
    for _ in range(FILLS):
        before = count_lines(log)
        for stream in KINDS.values():
            asks = [site.post(CHAT, cached_question(n, stream=stream)) for n in range(QUESTIONS)]
            for answer in run(closed_loop(site, asks.__getitem__, range(QUESTIONS), 1)):
                if text_of(answer, stream=stream) != WORDS:
                    said = answer.exchange.failure or answer.body[:300]
                    raise SystemExit(f"{name}: {said!r}")
        if count_lines(log) == before:
            return
    raise SystemExit(f"{name}: after {FILLS} times its cache still lacks some of the questions")


def cached_question(number: int, *, stream: bool) -> Figures:
    """Return one of the deterministic questions."""
    text = f"question {number}"
    return {**question(EXAMPLE, text, stream=stream), "temperature": 0, "max_tokens": CACHED_TOKENS}


def text_of(answer: Answer, *, stream: bool) -> str | None:
    """Return the text of a whole answer; None where there is none."""
    if stream:
        made = answer.read()
        return None if made.failure else made.text
    said = answer.parsed() if answer.status == 200 else None
    return None if said is None else str(said["choices"][0]["message"]["content"])


def ratio(above: list[float], below: list[float]) -> Figures | None:
    """Return the ratios block by block: median, extremes, interval; None without either side."""
    ratios = [a / b for a, b in zip(above, below, strict=False) if b]
    if not ratios:
        return None
    return {
        "median": median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "ci95": bootstrap_median_ci([[value] for value in ratios]),
    }


def count_lines(log: Path) -> int:
    """Return how many answers the known-truth server has logged."""
    return len(log.read_text(encoding="utf-8").splitlines())


@contextmanager
def llama_server(model: str, served: str, folder: Path) -> Iterator[str]:
    """Run llama-server with as many slots as streams; ``served`` names the model there."""
    program, port = find_program("llama-server"), free_port()
    path = resolve_model(model, cache=cache_dir()).path
    offload = Offload(threads=usable_cores())
    words = server_words(
        str(program), str(path), port, context=512, parallel=SLOTS, offload=offload
    )
    launched = Launched(
        "llama-server", [*words, "--alias", served, "--no-webui", "--offline"],
        environment={}, log_path=folder / "llama-server.log",
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        launched.wait_until(lambda: answers_at(f"{url}/health"), 600)
        yield url
    finally:
        launched.stop()
