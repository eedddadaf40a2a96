"""A suite's TOML, read key by key: every mistake names file, line, value and mend."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class SuiteFile:
    """The text of a suite, its hash, and the tables in it; ``file`` names it in errors.

    Raises:
        BadValueError: it is not TOML.
    """

    def __init__(self, data: bytes, file: str) -> None:
        self.file = file
        self.sha256 = hashlib.sha256(data).hexdigest()
        try:
            self.text = data.decode("utf-8")
            self._table: dict[str, Any] = tomllib.loads(self.text)
        except UnicodeDecodeError as error:
            raise BadValueError(f"{file}: not UTF-8 text: {error.reason}") from error
        except RecursionError as error:
            raise BadValueError(f"{file}: not a suite: it is nested without end") from error
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"line (\d+)", str(error))
            where = f"{file}, line {place[1]}" if place else f"{file}, at its end"
            raise BadValueError(f"{where}: not TOML: {error}") from error

    def top(self, known: Iterable[str]) -> Table:
        """Return what stands before the first table; see :meth:`table`."""
        return self._checked(self._table, "", 0, known)

    def table(self, section: str, known: Iterable[str]) -> Table:
        """Return a table, empty where it is left out; keys other than the known are refused."""
        return self._checked(self._table.get(section, {}), section, 0, known)

    def tables(self, section: str, known: Iterable[str]) -> list[Table]:
        """Return the tables of a list, of which there must be one at least."""
        found = self._table.get(section)
        if not isinstance(found, list) or not found:
            raise BadValueError(f"{self.file}: it has no [[{section}]]; give at least one")
        names = list(known)
        return [self._checked(values, section, index, names) for index, values in enumerate(found)]

    def _checked(self, values: Any, section: str, index: int, known: Iterable[str]) -> Table:
        if not isinstance(values, dict):
            Table(self, {}, "", 0).fail(section, f"is {values!r}: it must be a table, [{section}]")
        table = Table(self, values, section, index)
        names = sorted(known)
        for key in values:
            if key not in names:
                table.fail(key, f"is unknown: known are {', '.join(names)}")
        return table


@dataclass(frozen=True)
class Table:
    """One table of a suite: the ``index``-th of its section.

    Every method reads one key and checks it. ``default`` is what is meant where the key is left
    out; without a default the key must be there.
    """

    source: SuiteFile
    values: dict[str, Any]
    section: str
    index: int

    def name(self) -> str:
        """Return the table's name: small letters, digits and hyphens."""
        name = self.text("name")
        if not NAME.fullmatch(name):
            self.fail("name", f"is {name!r}: use a-z, 0-9 and -, at most 40")
        return name

    def text(self, key: str) -> str:
        """Return a text that is not empty."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            self.fail(key, "is missing: give a text")
        return value

    def choice(self, key: str, choices: Iterable[str], default: str | None = None) -> str:
        """Return one of several words."""
        names = list(choices)
        value = self.text(key) if default is None else self.values.get(key, default)
        if value not in names:
            self.fail(key, f"is {value!r}: give {', '.join(names[:-1])} or {names[-1]}")
        return str(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, f"is {value!r}: give true or false")
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Return a whole number within bounds."""
        value = self.values.get(key, default)
        if value is None:
            self.fail(key, f"is missing: give a number from {low} to {high}")
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.fail(key, f"is {value!r}: give a number from {low} to {high}")
        return value

    def number(self, key: str, highest: float, default: float | None = None) -> float:
        """Return a number above 0."""
        value = self.values.get(key, default)
        wanted = f"give a number above 0, up to {highest:g}"
        if value is None:
            self.fail(key, f"is missing: {wanted}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value <= highest:
            self.fail(key, f"is {value!r}: {wanted}")
        return float(value)

    def refuse(self, key: str, why: str) -> None:
        """Refuse a key that has no meaning here."""
        if key in self.values:
            self.fail(key, f"is {self.values[key]!r}: {why}: leave it out")

    def fail(self, key: str, what: str) -> NoReturn:
        """Raise the error of a key, with its line."""
        line = _line_of(self.source.text, key, self.section, self.index)
        raise BadValueError(f"{self.source.file}, line {line}: {key} {what}")


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
