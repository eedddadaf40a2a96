"""Suites: what is asked, how often, at what concurrency, and how long we wait for it.

A suite is a TOML file; the built-in ones are in ``measure/suites/``. Lengths are in tokens, by the
tokenizer of the engine that is measured. Every block holds every case, in an order shuffled by the
seed, so that a drift of the machine falls on all cases alike; intervals are over blocks.

A mistake in a suite names the file, the line, the value and the mend.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

PROMPT_KINDS = ("chat", "document")
MAX_REQUESTS = 100_000


@dataclass(frozen=True)
class Case:
    """One kind of request.

    Attributes:
        name: unique within the suite.
        prompt: ``chat`` (a short question) or ``document`` (a long text and a task on it).
        prompt_tokens: length of the prompt.
        output_tokens: length of the answer.
        concurrency: how many such requests are in flight at once (closed loop).
        requests_per_block: how many in each block.
    """

    name: str
    prompt: str
    prompt_tokens: int
    output_tokens: int
    concurrency: int
    requests_per_block: int


@dataclass(frozen=True)
class Deadlines:
    """Longest waits, in seconds: a request, a silence within one, the whole suite."""

    request_s: float = 120.0
    stall_s: float = 60.0
    suite_s: float = 3600.0


@dataclass(frozen=True)
class WarmUp:
    """Warm up until the last three decode times a token agree within ``tolerance``."""

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
    """A checked suite."""

    name: str
    description: str
    sha256: str
    blocks: int
    seed: int
    cases: tuple[Case, ...]
    deadlines: Deadlines
    warmup: WarmUp
    limits: Limits

    def to_json(self) -> dict[str, Any]:
        """Return the suite as the run's record holds it."""
        return {**asdict(self), "cases": [asdict(case) for case in self.cases]}

    @property
    def max_concurrency(self) -> int:
        """The most requests that are ever in flight."""
        return max(case.concurrency for case in self.cases)

    @property
    def max_context(self) -> int:
        """Tokens of context that the largest case needs, with room for a chat template."""
        return max(case.prompt_tokens + case.output_tokens for case in self.cases) + 64


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
    """Parse and check a suite; ``file`` names it in errors."""
    return _Parser(data, file).suite()


class _Parser:
    """Checks a suite table by table and knows the line of each key."""

    def __init__(self, data: bytes, file: str) -> None:
        self._file = file
        self._sha256 = hashlib.sha256(data).hexdigest()
        try:
            self._text = data.decode("utf-8")
            self._table: dict[str, Any] = tomllib.loads(self._text)
        except UnicodeDecodeError as error:
            raise BadValueError(f"{file}: not UTF-8 text: {error.reason}") from error
        except RecursionError as error:
            raise BadValueError(f"{file}: not a suite: it is nested without end") from error
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"line (\d+)", str(error))
            where = f"{file}, line {place[1]}" if place else f"{file}, at its end"
            raise BadValueError(f"{where}: not TOML: {error}") from error

    def suite(self) -> Suite:
        top = {"name", "description", "blocks", "seed", "case", "deadlines", "warmup", "limits"}
        self._refuse_unknown(self._table, top, "", 0)
        cases = self._table.get("case")
        if not isinstance(cases, list) or not cases:
            raise BadValueError(f"{self._file}: it has no [[case]]; give at least one")
        suite = Suite(
            name=self._name(self._table, "", 0),
            description=self._text_value(self._table, "description", "", 0),
            sha256=self._sha256,
            blocks=self._integer(self._table, "blocks", "", 0, 1, 1000),
            seed=self._integer(self._table, "seed", "", 0, 0, 2**31 - 1),
            cases=tuple(self._case(case, index) for index, case in enumerate(cases)),
            deadlines=self._numbers(Deadlines, "deadlines", 86_400.0),
            warmup=self._warmup(),
            limits=self._numbers(Limits, "limits", 86_400.0),
        )
        self._check_whole(suite)
        return suite

    def _case(self, table: dict[str, Any], index: int) -> Case:
        names = {field.name for field in fields(Case)}
        self._refuse_unknown(table, names, "case", index)
        kind = self._text_value(table, "prompt", "case", index)
        if kind not in PROMPT_KINDS:
            self._fail("prompt", "case", index, f"is {kind!r}: give {' or '.join(PROMPT_KINDS)}")
        return Case(
            name=self._name(table, "case", index),
            prompt=kind,
            prompt_tokens=self._integer(table, "prompt_tokens", "case", index, 16, 1_000_000),
            output_tokens=self._integer(table, "output_tokens", "case", index, 1, 100_000),
            concurrency=self._integer(table, "concurrency", "case", index, 1, 1024),
            requests_per_block=self._integer(table, "requests_per_block", "case", index, 1, 10_000),
        )

    def _warmup(self) -> WarmUp:
        table = self._table.get("warmup", {})
        self._refuse_unknown(table, {field.name for field in fields(WarmUp)}, "warmup", 0)
        standard = WarmUp()
        table = {"minimum": standard.minimum, "maximum": standard.maximum, **table}
        minimum = self._integer(table, "minimum", "warmup", 0, 1, 1000)
        maximum = self._integer(table, "maximum", "warmup", 0, minimum, 1000)
        tolerance = table.get("tolerance", standard.tolerance)
        number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
        if not number or not 0 < tolerance <= 1:
            self._fail(
                "tolerance", "warmup", 0, f"is {tolerance!r}: give a number above 0, up to 1"
            )
        return WarmUp(minimum, maximum, float(tolerance))

    def _numbers(self, kind: type[Any], section: str, highest: float) -> Any:
        """Read a table of positive numbers into a dataclass."""
        table = self._table.get(section, {})
        self._refuse_unknown(table, {field.name for field in fields(kind)}, section, 0)
        for key, value in table.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value <= highest:
                self._fail(
                    key, section, 0, f"is {value!r}: give a number above 0, up to {highest:g}"
                )
        return kind(**{key: float(value) for key, value in table.items()})

    def _check_whole(self, suite: Suite) -> None:
        names = [case.name for case in suite.cases]
        for index, name in enumerate(names):
            if name in names[:index]:
                self._fail("name", "case", index, f"is {name!r} a second time: names are unique")
            if suite.cases[index].requests_per_block < suite.cases[index].concurrency:
                self._fail("requests_per_block", "case", index, "is less than concurrency: give "
                           "as many at least, or that concurrency never comes about")  # fmt: skip
        total = suite.blocks * sum(case.requests_per_block for case in suite.cases)
        if total > MAX_REQUESTS:
            raise BadValueError(f"{self._file}: {total} requests; at most {MAX_REQUESTS}")

    def _name(self, table: dict[str, Any], section: str, index: int) -> str:
        name = self._text_value(table, "name", section, index)
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
            self._fail("name", section, index, f"is {name!r}: use a-z, 0-9 and -, at most 40")
        return name

    def _text_value(self, table: dict[str, Any], key: str, section: str, index: int) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip():
            self._fail(key, section, index, "is missing: give a text")
        return value

    def _integer(
        self, table: dict[str, Any], key: str, section: str, index: int, low: int, high: int
    ) -> int:
        value = table.get(key)
        if value is None:
            self._fail(key, section, index, f"is missing: give a number from {low} to {high}")
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._fail(key, section, index, f"is {value!r}: give a number from {low} to {high}")
        return value

    def _refuse_unknown(self, table: Any, known: set[str], section: str, index: int) -> None:
        if not isinstance(table, dict):
            self._fail(section, "", 0, f"is {table!r}: it must be a table, [{section}]")
        for key in table:
            if key not in known:
                self._fail(key, section, index, f"is unknown: known are {', '.join(sorted(known))}")

    def _fail(self, key: str, section: str, index: int, what: str) -> NoReturn:
        line = _line_of(self._text, key, section, index)
        raise BadValueError(f"{self._file}, line {line}: {key} {what}")


def _line_of(text: str, key: str, section: str, index: int) -> int:
    """Find the line of a key in the ``index``-th table of a section, or that table's own line."""
    inside, table_line, seen = not section, 1, -1
    for number, line in enumerate(text.splitlines(), start=1):
        head = re.match(r"\s*\[+\s*([\w.-]+)\s*\]+", line)
        if head:
            seen += head[1] == section
            inside = bool(section) and head[1] == section and seen == index
            if inside or (not section and head[1] == key):
                table_line = number
        elif inside and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line):
            return number
    return table_line
