"""The schedule of an answer, read from the name of the model.

``truth-ttft50-itl10-n32+role+stall5:200`` means: the first token 50 ms after the whole request was
received, then one each 10 ms, 32 in all; a role-only chunk first; 200 ms of silence after 5 tokens.

Token ``i`` (from 0) is due at ``received + ttft + i·itl``, plus the stall where ``i >= K``.
Times are milliseconds in the name (decimals allowed, down to a nanosecond) and nanoseconds inside.
Counts named K are always "after K tokens", so K = 0 means before the first one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from shoestring.errors import BadValueError

EXAMPLE = "truth-ttft50-itl10-n32"
MAX_TOKENS = 100_000
MAX_COUNT = 10_000
NS_PER_MS = 1_000_000

_MS = r"(\d{1,7}(?:\.\d{1,6})?)"
_COUNT = r"(\d{1,6})"
_BASE = re.compile(rf"truth-ttft{_MS}-itl{_MS}-n{_COUNT}", re.ASCII)
_ARGUMENTS = {
    "": "",
    "K": _COUNT,
    "MS": _MS,
    "STATUS": r"([45]\d\d)",
    "K[:MS]": rf"{_COUNT}(?::{_MS})?",
}


@dataclass(frozen=True)
class Behaviour:
    """One thing that can be appended to the name with ``+``.

    Attributes:
        name: its word, also the field of :class:`Schedule`.
        argument: what follows the word: nothing, K, MS, STATUS or K[:MS].
        effect: what is then seen on the wire.
    """

    name: str
    argument: str
    effect: str

    @property
    def syntax(self) -> str:
        """The word with its argument, as the documentation shows it."""
        return f"{self.name}{self.argument}"


BEHAVIOURS = (
    Behaviour("role", "", "a first chunk with the role and no text, sent at once (chat only)"),
    Behaviour("empty", "K", "K chunks with empty text, spread evenly before the first token"),
    Behaviour("reasoning", "K", "the first K tokens come as `reasoning_content` (chat only)"),
    Behaviour("pack", "K", "K tokens a chunk, sent when the first of them is due"),
    Behaviour("coalesce", "K", "K events a write, held back until the last of them is due"),
    Behaviour("utf8", "", "each text has a 4-byte character cut in two: two writes, 1 ms apart"),
    Behaviour("keepalive", "", "an SSE comment half-way between two chunks of tokens"),
    Behaviour("nousage", "", "no usage, even where it was asked for"),
    Behaviour("usageinfinish", "", "usage in the finish chunk, asked for or not"),
    Behaviour("nofinal", "", "no finish reason, no usage, no `[DONE]`; a clean end of the body"),
    Behaviour("error", "K", "after K tokens an error object under HTTP 200; the body ends"),
    Behaviour("badjson", "K", "after K tokens a data line that is not JSON; the stream goes on"),
    Behaviour("stall", "K[:MS]", "after K tokens silence for MS, or until the client leaves"),
    Behaviour("reset", "K", "after K tokens the connection is reset (RST)"),
    Behaviour("slowheaders", "MS", "the response head leaves MS after the request was received"),
    Behaviour("falsekeepalive", "", "the head promises keep-alive; the server closes all the same"),
    Behaviour("http", "STATUS", "this HTTP status (400 to 599) with an error object, at once"),
)  # fmt: skip
_BY_NAME = {behaviour.name: behaviour for behaviour in BEHAVIOURS}
_ENDS = ("nofinal", "error", "reset", "http")
_CONFLICTS = (("nousage", "usageinfinish"), ("utf8", "coalesce"))
_AFTER_TOKENS = ("reasoning", "error", "badjson", "stall", "reset")


@dataclass(frozen=True)
class Schedule:
    """When each token is due, and what else happens; one field a behaviour.

    A count of None means that the fault does not happen. ``stall`` without ``stall_ns`` lasts until
    the client leaves. ``pack`` and ``coalesce`` are 1 where nothing was said.
    """

    ttft_ns: int
    itl_ns: int
    tokens: int
    role: bool = False
    empty: int = 0
    reasoning: int = 0
    pack: int = 1
    coalesce: int = 1
    utf8: bool = False
    keepalive: bool = False
    nousage: bool = False
    usageinfinish: bool = False
    nofinal: bool = False
    error: int | None = None
    badjson: int | None = None
    stall: int | None = None
    stall_ns: int | None = None
    reset: int | None = None
    slowheaders: int = 0
    falsekeepalive: bool = False
    http: int | None = None

    def due_ns(self, index: int) -> int:
        """Return when token ``index`` is due, in nanoseconds after the request was received."""
        return self.ttft_ns + index * self.itl_ns + self._stalled_ns(index)

    def end_due_ns(self, tokens: int) -> int:
        """Return when what follows ``tokens`` tokens is due: with the last of them."""
        return self.ttft_ns + max(tokens - 1, 0) * self.itl_ns + self._stalled_ns(tokens)

    def ending(self, tokens: int) -> tuple[int, str]:
        """Return after how many of ``tokens`` tokens the answer ends, and by what.

        That is the first of ``stall`` (an endless one), ``reset`` and ``error`` that is reached;
        else ``nofinal``, or ``length`` for an answer that ends as it should.
        """
        stall = self.stall if self.stall_ns is None else None
        faults = ((stall, "stall"), (self.reset, "reset"), (self.error, "error"))
        reached = [(count, name) for count, name in faults if count is not None and count <= tokens]
        whole = (tokens, "nofinal" if self.nofinal else "length")
        return min(reached, key=lambda fault: fault[0], default=whole)

    def _stalled_ns(self, sent_tokens: int) -> int:
        if self.stall is None or self.stall_ns is None or sent_tokens < self.stall:
            return 0
        return self.stall_ns


def parse_schedule(model: str) -> Schedule:
    """Read a schedule from the name of a model.

    Raises:
        BadValueError: the name does not follow the grammar; the message names the wrong part.
    """
    base, *parts = model.split("+")
    match = _BASE.fullmatch(base)
    if match is None:
        raise BadValueError(
            f"{base[:80]!r} is no schedule: write it like {EXAMPLE} (ms, ms, tokens)"
        )
    tokens = int(match[3])
    if not 1 <= tokens <= MAX_TOKENS:
        raise BadValueError(f"n{match[3]} is out of range: give 1 to {MAX_TOKENS} tokens")
    values: dict[str, int | bool | None] = {}
    for part in parts:
        name, found = _parse_behaviour(part)
        if name in values:
            raise BadValueError(f"+{part[:80]} gives {name} a second time: give it once")
        values.update(found)
    _check_values(values, tokens)
    return Schedule(_ns(match[1]), _ns(match[2]), tokens, **values)  # type: ignore[arg-type]  # names and kinds stand in BEHAVIOURS


def format_schedule(schedule: Schedule) -> str:
    """Write the name that gives this schedule; the inverse of :func:`parse_schedule`."""
    base = f"truth-ttft{_ms(schedule.ttft_ns)}-itl{_ms(schedule.itl_ns)}-n{schedule.tokens}"
    parts = [base]
    for behaviour in BEHAVIOURS:
        value = getattr(schedule, behaviour.name)
        if value == getattr(Schedule, behaviour.name):
            continue
        argument = {"": "", "MS": _ms(value)}.get(behaviour.argument, str(value))
        if behaviour.argument == "K[:MS]" and schedule.stall_ns is not None:
            argument += f":{_ms(schedule.stall_ns)}"
        parts.append(f"{behaviour.name}{argument}")
    return "+".join(parts)


def behaviour_table() -> str:
    """Return the Markdown table of all behaviours that the documentation holds."""
    rows = [f"| `+{behaviour.syntax}` | {behaviour.effect} |" for behaviour in BEHAVIOURS]
    return "\n".join(["| appended | on the wire |", "|---|---|", *rows])


def _parse_behaviour(part: str) -> tuple[str, dict[str, int | bool | None]]:
    shown = repr(f"+{part[:80]}")
    for behaviour in BEHAVIOURS:
        pattern = behaviour.name + _ARGUMENTS[behaviour.argument]
        match = re.fullmatch(pattern, part, re.ASCII)
        if match is None:
            continue
        name, kind = behaviour.name, behaviour.argument
        if kind == "":
            return name, {name: True}
        if kind == "MS":
            return name, {name: _ns(match[1])}
        if kind == "K[:MS]":
            return name, {name: int(match[1]), f"{name}_ns": _ns(match[2]) if match[2] else None}
        return name, {name: int(match[1])}
    for behaviour in BEHAVIOURS:
        if part.startswith(behaviour.name):
            raise BadValueError(f"{shown} is wrong: write it as +{behaviour.syntax}")
    known = ", ".join(behaviour.syntax for behaviour in BEHAVIOURS)
    raise BadValueError(f"{shown} is unknown: append {known}")


def _check_values(values: dict[str, int | bool | None], tokens: int) -> None:
    for group in (*_CONFLICTS, _ENDS):
        given = [name for name in group if name in values]
        if len(given) > 1:
            raise BadValueError(f"+{' and +'.join(given)} contradict each other: give one of them")
    for name, value in values.items():
        if name in _AFTER_TOKENS and value is not None and value > tokens:
            raise BadValueError(f"+{name}{value} is never reached: the answer has n{tokens} tokens")
        if (
            name in ("empty", "pack", "coalesce", "reasoning")
            and not 1 <= (value or 0) <= MAX_COUNT
        ):
            raise BadValueError(f"+{name}{value} is out of range: give 1 to {MAX_COUNT}")


def _ns(milliseconds: str) -> int:
    return int(Decimal(milliseconds) * NS_PER_MS)


def _ms(nanoseconds: int) -> str:
    whole, rest = divmod(nanoseconds, NS_PER_MS)
    return f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)
