"""One raw row becomes the metrics of one request.

A row holds stamps of arrival, ``[t_ns, kind, bytes]``, and the counts that the engine sent.
Everything here is arithmetic on one row. Stamps in the order in which they come::

    intended   sent   headers   role   first text ... last text   finish   usage   done
       |--------------- ttft_s ------------|               |
       |                                   |--- decode ----|
       |-------------------- e2e_s ------------------------|

- TTFT runs from the *intended* send, so that a client that is late cannot look fast.
- "Text" is a non-empty answer or reasoning chunk. A chunk that only names the role is not text.
- n tokens have n - 1 gaps: TPOT = (last - first) / (n - 1), decode rate = (n - 1) / (last - first).
- Tokens are counted by the engine (``usage``, else its native timings). A chunk may hold several
  tokens or half of one, so the number of chunks is never taken for a number of tokens.
- What cannot be known is None. A failed request has no latencies: a cut answer is not a short one.

Times are seconds, rates are tokens per second.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from shoestring.measure.rows import describe_generation

if TYPE_CHECKING:
    from shoestring.engines.protocol import Generation
    from shoestring.measure.records import Row

NS_PER_S = 1e9
TEXT_KINDS = ("answer", "reasoning")


@dataclass(frozen=True)
class RequestMetrics:
    """The metrics of one request; formulas, units and other tools' names: ``docs/metrics.md``.

    Attributes:
        ttft_s: intended send to first non-empty answer or reasoning chunk.
        first_chunk_s: intended send to first data chunk of any kind (not a keep-alive comment).
        first_reasoning_s: intended send to first reasoning chunk.
        first_answer_s: intended send to first answer chunk.
        tpot_s: (last text - first text) / (output tokens - 1).
        e2e_s: intended send to last text.
        decode_tokens_per_s: (output tokens - 1) / (last text - first text).
        prefill_tokens_per_s: uncached prompt tokens / ttft_s; too low rather than too high.
        output_tokens: as the engine counted them, reasoning included.
        prompt_tokens: as the engine counted them, cached ones included.
        cached_tokens: prompt tokens that the engine took from its prefix cache.
        schedule_lag_s: intended send to sent.
        connect_s: what opening the connection took.
        native_prefill_tokens_per_s: uncached prompt tokens / the engine's own prompt time.
        native_decode_tokens_per_s: (n - 1) / the engine's own decode time, n its own count.
        early_stop: fewer tokens than asked for, and not for the limit's sake.
        token_discrepancy: output tokens in ``usage`` minus those in the native timings.
        residual_s: ttft_s minus the engine's own load and prompt times: queue, network, client.
        reasoning_share: bytes of reasoning / bytes of all text, as they arrived.
        native_prompt_s: prefill, as the engine says.
        native_load_s: what the request waited for the model, as the engine says.
        native_total_s: the whole request, as the engine says.
    """

    ttft_s: float | None
    first_chunk_s: float | None
    first_reasoning_s: float | None
    first_answer_s: float | None
    tpot_s: float | None
    e2e_s: float | None
    decode_tokens_per_s: float | None
    prefill_tokens_per_s: float | None
    output_tokens: int | None
    prompt_tokens: int | None
    cached_tokens: int | None
    schedule_lag_s: float | None
    connect_s: float | None
    native_prefill_tokens_per_s: float | None
    native_decode_tokens_per_s: float | None
    early_stop: bool | None
    token_discrepancy: int | None
    residual_s: float | None
    reasoning_share: float | None
    native_prompt_s: float | None
    native_load_s: float | None
    native_total_s: float | None


def request_metrics(row: Row) -> RequestMetrics:
    """Compute the metrics of one row of ``requests.jsonl``.

    A failed row keeps the counts that the engine sent; everything that is timed is None.
    """
    ok = row["status"] == "ok"
    times_ns = text_times_ns(row) if ok else []
    output_tokens = _count(row, "usage", "completion_tokens", "native", "decode_tokens")
    uncached = _uncached_tokens(row)
    ttft_s = _since_intended_s(row, times_ns[0]) if times_ns else None
    decode_s = (times_ns[-1] - times_ns[0]) / NS_PER_S if times_ns else None
    native_prompt_s = _said(row, "native", "prompt_s") if ok else None
    native_load_s = _said(row, "native", "load_s") if ok else None
    native_decode_s = _said(row, "native", "decode_s") if ok else None
    steps = _steps(output_tokens)
    native_steps = _steps(_said(row, "native", "decode_tokens"))
    sent_ns = row.get("sent_ns") if ok else None
    return RequestMetrics(
        ttft_s=ttft_s,
        first_chunk_s=_first_chunk_s(row) if ok else None,
        first_reasoning_s=_first_s(row, "reasoning") if ok else None,
        first_answer_s=_first_s(row, "answer") if ok else None,
        tpot_s=_ratio(decode_s, steps),
        e2e_s=_since_intended_s(row, times_ns[-1]) if times_ns else None,
        decode_tokens_per_s=_ratio(steps, decode_s),
        prefill_tokens_per_s=_ratio(uncached, ttft_s),
        output_tokens=output_tokens,
        prompt_tokens=_prompt_tokens(row),
        cached_tokens=_count(row, "usage", "cached_tokens", "native", "cached_tokens"),
        schedule_lag_s=None if sent_ns is None else _since_intended_s(row, sent_ns),
        connect_s=row.get("connect_s") if ok else None,
        native_prefill_tokens_per_s=_ratio(uncached, native_prompt_s),
        native_decode_tokens_per_s=_ratio(native_steps, native_decode_s),
        early_stop=_early_stop(row, output_tokens) if ok else None,
        token_discrepancy=_discrepancy(row),
        residual_s=_residual_s(ttft_s, native_load_s, native_prompt_s),
        reasoning_share=_reasoning_share(row) if ok else None,
        native_prompt_s=native_prompt_s,
        native_load_s=native_load_s,
        native_total_s=_said(row, "native", "total_s") if ok else None,
    )


def timings(generation: Generation) -> RequestMetrics:
    """Compute the metrics of one generation that was asked for outside a run."""
    return request_metrics(describe_generation(generation, generation.intended_ns))


def request_gaps_s(row: Row) -> list[float]:
    """Return the raw gaps between successive text chunks, in seconds.

    They are gaps between *chunks*: with one token a chunk they are the inter-token latency; where
    an engine packs several tokens into a chunk (speculative decoding, batching of its output)
    they are longer than that and fewer. A stall inside a request is one long gap here, and is
    lost in ``tpot_s``. A failed row and a row with one chunk have none.
    """
    if row["status"] != "ok":
        return []
    times_ns = text_times_ns(row)
    return [(b - a) / NS_PER_S for a, b in pairwise(times_ns)]


def text_times_ns(row: Row) -> list[int]:
    """Return when each non-empty answer or reasoning chunk arrived, on the session's clock."""
    return [t_ns for t_ns, kind, _ in row["events"] if kind in TEXT_KINDS]


def token_source(row: Row) -> str | None:
    """Say who counted the output tokens: ``usage``, ``native`` or None (nobody)."""
    if _said(row, "usage", "completion_tokens") is not None:
        return "usage"
    return None if _said(row, "native", "decode_tokens") is None else "native"


def _since_intended_s(row: Row, t_ns: int) -> float:
    return float((t_ns - row["intended_ns"]) / NS_PER_S)


def _first_s(row: Row, wanted: str) -> float | None:
    for t_ns, kind, _ in row["events"]:
        if kind == wanted:
            return _since_intended_s(row, t_ns)
    return None


def _first_chunk_s(row: Row) -> float | None:
    for t_ns, kind, _ in row["events"]:
        if kind != "comment":
            return _since_intended_s(row, t_ns)
    return None


def _said(row: Row, part: str, name: str) -> Any:
    return (row.get(part) or {}).get(name)


def _count(row: Row, part: str, name: str, other_part: str, other_name: str) -> int | None:
    value = _said(row, part, name)
    if value is None:
        value = _said(row, other_part, other_name)
    return None if value is None else int(value)


def _prompt_tokens(row: Row) -> int | None:
    # `usage` counts the whole prompt; the native count is of what was processed, without the cache.
    whole = _said(row, "usage", "prompt_tokens")
    if whole is not None:
        return int(whole)
    processed, cached = _said(row, "native", "prompt_tokens"), _said(row, "native", "cached_tokens")
    return None if processed is None or cached is None else int(processed + cached)


def _uncached_tokens(row: Row) -> int | None:
    whole = _said(row, "usage", "prompt_tokens")
    cached = _count(row, "usage", "cached_tokens", "native", "cached_tokens")
    if whole is not None and cached is not None:
        return int(whole - cached)
    # A whole count alone does not tell what was processed; a native count does.
    processed = _said(row, "native", "prompt_tokens")
    return None if processed is None else int(processed)


def _steps(tokens: int | None) -> int | None:
    return None if tokens is None else tokens - 1


def _ratio(above: float | None, below: float | None) -> float | None:
    # Nothing over something (no step, no uncached token, one chunk) is no rate of zero: it is none.
    if above is None or below is None or above <= 0 or below <= 0:
        return None
    return above / below


def _residual_s(ttft_s: float | None, load_s: float | None, prompt_s: float | None) -> float | None:
    if ttft_s is None or prompt_s is None:
        return None
    # Most engines load before they serve, and so tell of no load within a request.
    return ttft_s - (load_s or 0.0) - prompt_s


def _reasoning_share(row: Row) -> float | None:
    sizes = dict.fromkeys(TEXT_KINDS, 0)
    for _, kind, size_bytes in row["events"]:
        if kind in sizes:
            sizes[kind] += size_bytes
    whole = sum(sizes.values())
    return sizes["reasoning"] / whole if whole else None


def _early_stop(row: Row, tokens: int | None) -> bool | None:
    limit = row.get("max_tokens")
    if tokens is None or limit is None:
        return None
    return row.get("finish_reason") != "length" and tokens < int(limit)


def _discrepancy(row: Row) -> int | None:
    usage = _said(row, "usage", "completion_tokens")
    native = _said(row, "native", "decode_tokens")
    return None if usage is None or native is None else int(usage - native)
