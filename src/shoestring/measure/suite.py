"""Suites: what is asked, how often, at what load, and how long we wait for it.

A suite is a TOML file; the built-in ones are in ``measure/suites/`` and described in
``docs/suites.md``. Lengths are in tokens, by the tokenizer of the engine that is measured. Every
block holds every case, in an order shuffled by the seed, so that a drift of the machine falls on
all cases alike; intervals are over blocks.

A mistake in a suite names the file, the line, the value and the mend.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from shoestring.errors import BadValueError
from shoestring.measure.suite_file import SuiteFile, Table

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Arrival = Literal["closed", "constant", "poisson"]

PROMPT_KINDS = {
    "chat": 16,
    "document": 16,
    "code": 192,
    "structured": 192,
    "dialogue": 64,
    "rag": 192,
    "reasoning": 192,
}
"""What can be asked, and the fewest tokens that it takes; of a dialogue, for each turn."""

ENDS_EARLY = ("structured", "reasoning")
"""Answers whose end means something: they are not drawn out to a fixed length."""

MAX_REQUESTS = 100_000
MAX_TURNS = 16
TEMPLATE_TOKENS = 64
"""Room for a chat template around a prompt."""
MESSAGE_TOKENS = 16
"""Room for it around each earlier text of a dialogue."""


@dataclass(frozen=True)
class Case:
    """One kind of request.

    Attributes:
        name: unique within the suite.
        prompt: what is asked, one of ``PROMPT_KINDS``.
        prompt_tokens: length of the prompt; of a dialogue, with all its turns: the earlier
            requests of a conversation are beginnings of the last.
        output_tokens: length of the answer, or its limit where it may end early.
        concurrency: how many such requests are in flight at once; the most in an open loop.
        requests_per_block: how many in each block.
        arrival: ``closed`` (the next leaves when the last has ended), or an open loop: at a
            ``constant`` rate, or at the random moments of a ``poisson`` process.
        rate_per_s: requests a second of an open loop.
        turns: of each conversation of a dialogue.
        thinking: of a reasoning prompt: ask the model to think, or not to; None leaves it alone.
        fixed_length: ask the engine to go on after its end-of-text, so that an early stop is a
            fault; else an answer may end where it likes.
    """

    name: str
    prompt: str
    prompt_tokens: int
    output_tokens: int
    concurrency: int
    requests_per_block: int
    arrival: Arrival = "closed"
    rate_per_s: float | None = None
    turns: int | None = None
    thinking: bool | None = None
    fixed_length: bool = True

    @property
    def context(self) -> int:
        """Tokens of context that a request needs, with room for a chat template."""
        earlier = 2 * ((self.turns or 1) - 1)
        template = TEMPLATE_TOKENS + MESSAGE_TOKENS * earlier
        return self.prompt_tokens + self.output_tokens + template


@dataclass(frozen=True)
class Deadlines:
    """Longest waits, in seconds: a request, a silence within one, the whole suite."""

    request_s: float = 120.0
    stall_s: float = 60.0
    suite_s: float = 3600.0


@dataclass(frozen=True)
class WarmUp:
    """Warm up until the last three decode times a token agree within ``tolerance``.

    A ``minimum`` of 0 is no warm-up at all; then ``maximum`` is 0 as well.
    """

    minimum: int = 3
    maximum: int = 12
    tolerance: float = 0.1


@dataclass(frozen=True)
class Limits:
    """What a good answer may take; goodput counts the requests that meet all of them."""

    ttft_s: float = 2.0
    tpot_s: float = 0.2


@dataclass(frozen=True)
class Suite:
    """A checked suite.

    ``fresh_engine`` makes every block a session of its own: the engine is started for it, and its
    requests are the first that it sees.
    """

    name: str
    description: str
    sha256: str
    blocks: int
    seed: int
    cases: tuple[Case, ...]
    deadlines: Deadlines
    warmup: WarmUp
    limits: Limits
    fresh_engine: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the suite as the run's record holds it."""
        return {**asdict(self), "cases": [asdict(case) for case in self.cases]}

    @property
    def max_concurrency(self) -> int:
        """The most requests that are ever in flight."""
        return max(case.concurrency for case in self.cases)

    @property
    def max_context(self) -> int:
        """Tokens of context that the largest case needs."""
        return max(case.context for case in self.cases)


def builtin_suites() -> dict[str, Traversable]:
    """Return the suites in the package by name."""
    folder = files("shoestring.measure") / "suites"
    found = {file.name.removesuffix(".toml"): file for file in folder.iterdir()}
    return dict(sorted(found.items()))


def load_suite(name: str) -> Suite:
    """Load a built-in suite by name, or any by the path of its TOML file.

    Raises:
        BadValueError: there is no such suite, or it has an error.
    """
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise BadValueError(f"suite file {name} does not exist")
        return parse_suite(path.read_bytes(), str(path))
    known = builtin_suites()
    if name not in known:
        raise BadValueError(
            f"unknown suite {name!r}: give {', '.join(known)}, or the path of a TOML file"
        )
    return parse_suite(known[name].read_bytes(), f"{name}.toml")


def parse_suite(data: bytes, file: str) -> Suite:
    """Parse and check a suite; ``file`` names it in errors.

    Raises:
        BadValueError: naming the line.
    """
    source = SuiteFile(data, file)
    top = source.top({field.name for field in fields(Suite)} - {"sha256", "cases"} | {"case"})
    suite = Suite(
        name=top.name(),
        description=top.text("description"),
        sha256=source.sha256,
        blocks=top.integer("blocks", 1, 1000),
        seed=top.integer("seed", 0, 2**31 - 1),
        cases=_cases(source),
        deadlines=_numbers(source, Deadlines, "deadlines"),
        warmup=_warmup(source),
        limits=_numbers(source, Limits, "limits"),
        fresh_engine=top.flag("fresh_engine", default=False),
    )
    if suite.fresh_engine and suite.warmup.maximum:
        top.fail("fresh_engine", "is true: then nothing is warm; give [warmup] minimum = 0")
    total = suite.blocks * sum(case.requests_per_block for case in suite.cases)
    if total > MAX_REQUESTS:
        raise BadValueError(f"{file}: {total} requests; at most {MAX_REQUESTS}")
    return suite


def _cases(source: SuiteFile) -> tuple[Case, ...]:
    tables = source.tables("case", [field.name for field in fields(Case)])
    cases = [_case(table) for table in tables]
    names = [case.name for case in cases]
    for number, name in enumerate(names):
        if name in names[:number]:
            tables[number].fail("name", f"is {name!r} a second time: names are unique")
    return tuple(cases)


def _case(table: Table) -> Case:
    kind = table.choice("prompt", PROMPT_KINDS)
    turns = _turns(table, kind)
    arrival, rate_per_s = _arrival(table)
    case = Case(
        name=table.name(),
        prompt=kind,
        prompt_tokens=table.integer("prompt_tokens", PROMPT_KINDS[kind] * (turns or 1), 1_000_000),
        output_tokens=table.integer("output_tokens", 1, 100_000),
        concurrency=table.integer("concurrency", 1, 1024),
        requests_per_block=table.integer("requests_per_block", 1, 10_000),
        arrival=arrival,
        rate_per_s=rate_per_s,
        turns=turns,
        thinking=_thinking(table, kind),
        fixed_length=table.flag("fixed_length", default=kind not in ENDS_EARLY),
    )
    if arrival == "closed" and case.requests_per_block < case.concurrency:
        table.fail("requests_per_block", "is less than concurrency: give as many at least, or "
                   "that concurrency never comes about")  # fmt: skip
    if turns is not None and case.requests_per_block % turns:
        table.fail("requests_per_block", f"is {case.requests_per_block}: give a multiple of turns, "
                   f"{turns}, so that every conversation is whole")  # fmt: skip
    if turns is not None and arrival != "closed":
        table.fail("arrival", f"is {arrival!r}: the turns of a dialogue would overtake each other: "
                   "leave it out")  # fmt: skip
    if turns is not None and case.concurrency > 1:
        table.fail("concurrency", f"is {case.concurrency}: the turns of a dialogue would overtake "
                   "each other: give 1")  # fmt: skip
    return case


def _arrival(table: Table) -> tuple[Arrival, float | None]:
    """Read how requests arrive; the rate of an open loop has no default, it is its load."""
    kinds: tuple[Arrival, ...] = get_args(Arrival)
    arrival = table.choice("arrival", kinds, default="closed")
    if arrival == "closed":
        table.refuse("rate_per_s", "a closed loop has none, give arrival or")
        return "closed", None
    return kinds[kinds.index(arrival)], table.number("rate_per_s", 10_000)


def _turns(table: Table, kind: str) -> int | None:
    if kind != "dialogue":
        table.refuse("turns", "only a dialogue has turns")
        return None
    return table.integer("turns", 2, MAX_TURNS)


def _thinking(table: Table, kind: str) -> bool | None:
    if kind != "reasoning":
        table.refuse("thinking", "only a reasoning prompt is thought about")
    return table.flag("thinking", default=False) if "thinking" in table.values else None


def _warmup(source: SuiteFile) -> WarmUp:
    table = source.table("warmup", [field.name for field in fields(WarmUp)])
    standard = WarmUp()
    minimum = table.integer("minimum", 0, 1000, standard.minimum)
    if minimum == 0:
        maximum = table.integer("maximum", 0, 0, 0)
    else:
        maximum = table.integer("maximum", minimum, 1000, standard.maximum)
    return WarmUp(minimum, maximum, table.number("tolerance", 1, standard.tolerance))


def _numbers(source: SuiteFile, kind: type[Any], section: str) -> Any:
    """Read a table of positive numbers into a dataclass."""
    table = source.table(section, [field.name for field in fields(kind)])
    return kind(**{key: table.number(key, 86_400) for key in table.values})
