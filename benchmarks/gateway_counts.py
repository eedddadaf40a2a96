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
    seen: dict[str, list[Sighting]], outages: Sequence[Span]
) -> dict[str, dict[str, Any]]:
    """Return for each limit the most that was let through, and by how much that is too much.

    ``most_redis_up`` leaves out the windows that touch an outage of Redis or the minute after it.
    One request too many is allowed; of tokens, those of one request.
    """
    minute_ns, away = int(MINUTE_S * 1e9), [(a, b + int(MINUTE_S * 1e9)) for a, b in outages]
    window_ns = minute_ns - int(JITTER_S * 1e9)
    requests = [(s.received_ns, 1) for s in seen["requests"]]
    tokens = [(s.received_ns, s.tokens) for s in seen["tokens"]]
    return {
        "requests a minute": _limit(
            REQUESTS_A_MINUTE, 1, _window_sums(requests, window_ns), window_ns, away
        ),
        "tokens a minute": _limit(
            TOKENS_A_MINUTE, MOST_TOKENS_A_REQUEST, _window_sums(tokens, window_ns), window_ns, away
        ),
        "at once": _limit(AT_ONCE, 1, _at_once(seen["concurrent"]), 0, away),
    }


def _limit(
    limit: int, allowed: int, sums: list[tuple[int, int]], window_ns: int, away: Sequence[Span]
) -> dict[str, Any]:
    undisturbed = [
        total
        for begun_ns, total in sums
        if not any(begun_ns < end and begun_ns + window_ns > start for start, end in away)
    ]
    most = max((total for _, total in sums), default=None)
    return {
        "limit": limit,
        "most": most,
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
