"""How much was let through: what the engine saw of each key, in moving windows.

The known-truth server's log has a line an answer; those that it could not write, because it was
killed, clients know by the stamps in their chunks. Both name an answer by the moment at which the
server had the request. Gateways count a request when they let it in and the server sees it a
little later, so windows here are shorter than a minute by ``JITTER_S``: what still exceeds a limit
in such a window exceeded it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gateway_asks import AT_ONCE, MODELS, PROMPT_WORDS, REQUESTS_A_MINUTE, TOKENS_A_MINUTE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gateway_asks import Asked
    from load import Answer

LIMITED = ("requests", "tokens", "concurrent")
MINUTE_S, JITTER_S = 60.0, 0.5
MOST_TOKENS_A_REQUEST = 40 + 2 * PROMPT_WORDS
Span = tuple[int, int]


@dataclass(frozen=True)
class Sighting:
    """One request at the engine: when it came, when its last token left, its tokens; ns."""

    received_ns: int
    last_ns: int
    tokens: int


class Sightings:
    """What the engine saw of the keys with limits."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], Sighting] = {}

    def note(self, asked: Asked, answer: Answer) -> None:
        """Take what a client saw of an answer."""
        if asked.key not in LIMITED or answer.status != HTTPStatus.OK:
            return
        for truth in answer.read().truth:
            at = asked.key, int(truth["received_ns"])
            before = self._seen.get(at, Sighting(at[1], at[1], PROMPT_WORDS))
            last_ns = max(before.last_ns, int(truth["sent_ns"]))
            self._seen[at] = Sighting(at[1], last_ns, before.tokens + int(truth["tokens"]))

    def by_key(self, log: Path) -> dict[str, list[Sighting]]:
        """Return all of them in order; the server's own line takes the place of a client's."""
        keys = {MODELS[key]: key for key in LIMITED}
        seen = dict(self._seen)
        for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
            key, sent_ns, received_ns = (
                keys.get(line["model"]), line["token_sent_ns"], line["received_ns"],
            )  # fmt: skip
            if key is not None:
                last_ns = sent_ns[-1] if sent_ns else received_ns
                tokens = PROMPT_WORDS + len(sent_ns)
                seen[key, received_ns] = Sighting(received_ns, last_ns, tokens)
        return {
            key: [sighting for at, sighting in sorted(seen.items()) if at[0] == key]
            for key in LIMITED
        }


def describe_limits(
    seen: dict[str, list[Sighting]], outages: Sequence[Span], origin_ns: int
) -> dict[str, dict[str, Any]]:
    """Return for each limit the most that was let through, and whether that is too much.

    One request too many is allowed; of tokens, those of one request.

    Args:
        seen: by key.
        outages: of Redis. ``most_redis_up`` leaves out the windows that touch one of them or the
            minute after it.
        origin_ns: from when ``most_from_s`` runs, the beginning of the window with the most.
    """
    window_ns = int((MINUTE_S - JITTER_S) * 1e9)
    requests = _window_sums([(s.received_ns, 1) for s in seen["requests"]], window_ns)
    tokens = _window_sums([(s.received_ns, s.tokens) for s in seen["tokens"]], window_ns)
    limits = {
        "requests a minute": (REQUESTS_A_MINUTE, 1, requests, window_ns),
        "tokens a minute": (TOKENS_A_MINUTE, MOST_TOKENS_A_REQUEST, tokens, window_ns),
        "at once": (AT_ONCE, 1, _at_once(seen["concurrent"]), 0),
    }
    return {
        name: _limit(limit, allowed, sums, span_ns, outages, origin_ns)
        for name, (limit, allowed, sums, span_ns) in limits.items()
    }


def _limit(
    limit: int,
    allowed: int,
    sums: list[tuple[int, int]],
    window_ns: int,
    outages: Sequence[Span],
    origin_ns: int,
) -> dict[str, Any]:
    minute_ns = int(MINUTE_S * 1e9)
    undisturbed = [
        total
        for begun_ns, total in sums
        if not any(begun_ns < to + minute_ns and begun_ns + window_ns > at for at, to in outages)
    ]
    from_ns, most = max(sums, key=lambda one: one[1], default=(None, None))
    return {
        "limit": limit,
        "most": most,
        "most_from_s": None if from_ns is None else (from_ns - origin_ns) / 1e9,
        "most_redis_up": max(undisturbed, default=None),
        "allowed_above": allowed,
        "kept": None if most is None else most <= limit + allowed,
    }


def _window_sums(weights: list[tuple[int, int]], window_ns: int) -> list[tuple[int, int]]:
    """Return for each moment the sum of all weights from it on, within a window."""
    sums, end, total = [], 0, 0
    for begin, (begun_ns, weight) in enumerate(weights):
        while end < len(weights) and weights[end][0] < begun_ns + window_ns:
            total += weights[end][1]
            end += 1
        sums.append((begun_ns, total))
        total -= weight
        assert end > begin
    return sums


def _at_once(seen: list[Sighting]) -> list[tuple[int, int]]:
    """Return how many answers were under way whenever one began."""
    return [
        (one.received_ns, sum(o.received_ns <= one.received_ns < o.last_ns for o in seen))
        for one in seen
    ]
