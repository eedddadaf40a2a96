"""From one generation to one line of ``requests.jsonl``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoestring.engines.protocol import Generation
    from shoestring.measure.prompting import PromptText
    from shoestring.measure.records import Row
    from shoestring.measure.schedule import Planned


def make_row(
    planned: Planned,
    generation: Generation,
    *,
    session: int,
    phase: str,
    origin_ns: int,
    prompt: PromptText,
    max_tokens: int,
) -> Row:
    """Return the row of a request; its times count from the session's origin."""
    return {
        "id": planned.id,
        "session": session,
        "phase": phase,
        "block": planned.block,
        "case": planned.case,
        "concurrency": planned.concurrency,
        "arrival_s": planned.arrival_s,
        "prompt_sha256": prompt.sha256,
        "prompt_tokens_counted": prompt.tokens,
        "max_tokens": max_tokens,
        **describe_generation(generation, origin_ns),
    }


def describe_generation(generation: Generation, origin_ns: int) -> Row:
    """Return the part of a row that comes from the engine's stream."""

    def since(t_ns: int | None) -> int | None:
        return None if t_ns is None else t_ns - origin_ns

    failure = generation.failure
    return {
        "intended_ns": since(generation.intended_ns),
        "sent_ns": since(generation.sent_ns),
        "headers_ns": since(generation.headers_ns),
        "end_ns": since(generation.end_ns),
        "connect_s": generation.connect_s,
        "status": "failed" if failure else "ok",
        "failure": asdict(failure) if failure else None,
        "http_status": generation.http_status,
        "events": [[since(e.t_ns), e.kind, e.size_bytes] for e in generation.events],
        "finish_reason": generation.finish_reason,
        "usage": asdict(generation.usage) if generation.usage else None,
        "native": asdict(generation.native) if generation.native else None,
        "answer": generation.text,
        "reasoning": generation.reasoning,
    }
