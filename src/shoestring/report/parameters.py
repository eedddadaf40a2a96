"""The parameters of a notebook: read from its cell, and checked before anything is started.

A parameter is a literal in the cell tagged ``parameters``; the comment behind it is its help::

    engine = "auto"  # embedded, openai, auto

Papermill takes any name and only logs that it does not know it, so names are refused here first.
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN: Final = (str, int, float, bool)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a notebook: its default, a plain literal, and what it means."""

    name: str
    default: str | float | bool
    help: str


def notebook_parameters(path: Path) -> dict[str, Parameter]:
    """Read the parameters of a notebook, in their order.

    Raises:
        BadValueError: it is no notebook, or its cell holds something else than literals.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = [
            "".join(cell["source"])
            for cell in cells
            if "parameters" in cell.get("metadata", {}).get("tags", [])
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadValueError(f"{path} is not a notebook: {error}") from error
    return parse_parameters(sources[0], path.name) if sources else {}


def parse_parameters(source: str, where: str) -> dict[str, Parameter]:
    """Parse the source of a parameters cell.

    Raises:
        BadValueError: it is not Python, or a line is not ``name = literal``.
    """
    try:
        statements = ast.parse(source).body
        comments = {
            token.start[0]: token.string.lstrip("# ").strip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise BadValueError(f"{where}: the parameters cell is not Python: {reason}") from error
    parameters = {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=default)):
                pass
            case _:
                default, name = None, ""
        if not isinstance(default, _PLAIN):
            line = ast.unparse(statement)
            raise BadValueError(f"{where}: the parameters cell may only hold literals, not: {line}")
        parameters[name] = Parameter(name, default, comments.get(statement.lineno, ""))
    return parameters


def check_parameters(path: Path, given: Mapping[str, str]) -> dict[str, Any]:
    """Turn values typed by a user into those of the notebook's own types.

    Raises:
        BadValueError: a name is unknown (the message names the nearest) or a value is of another
            type than the default.
    """
    known = notebook_parameters(path)
    values = {}
    for name, text in given.items():
        if name not in known:
            raise BadValueError(
                f"{path.name} has no parameter {name!r}{nearest(name, known)}; "
                f"it has {', '.join(known)}"
            )
        values[name] = _typed(name, text, known[name].default)
    return values


def check(*, model: str, engine: str, suite: str, base_url: str, run: str, out: str) -> None:
    """Refuse values of the measuring notebook that cannot be used, before anything is started.

    Raises:
        BadValueError: a value cannot be used; one line, with the mend.
        BadModelError: the model's name is unknown.
        BadRunError: ``run`` is no run folder.
    """
    given = {
        "model": model, "engine": engine, "suite": suite, "base_url": base_url, "run": run,
        "out": out,
    }  # fmt: skip
    for name, value in given.items():
        if not isinstance(value, str):
            raise BadValueError(f"{name} = {value!r} is not text: put it in quotes")
    if run:
        from shoestring.measure.records import read_run

        read_run(Path(run))
        return
    if not out:
        raise BadValueError('out = "" is no folder: name the one that shall hold the run')
    if Path(out).exists() and not Path(out).is_dir():
        raise BadValueError(f"out = {out!r} is a file: name a folder")
    _check_measuring(model, engine, suite, base_url)


def nearest(name: str, known: Mapping[str, object]) -> str:
    """Return "; did you mean ...?" for a name that is nearly a known one, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_measuring(model: str, engine: str, suite: str, base_url: str) -> None:
    from shoestring.engines.opening import choose_engine
    from shoestring.engines.transport import parse_base_url
    from shoestring.measure.suite import load_suite
    from shoestring.models.names import parse_model_name

    load_suite(suite)
    choose_engine(engine, model, base_url or None)
    if base_url:
        parse_base_url(base_url)
    else:
        parse_model_name(model)


def _typed(name: str, text: str, default: str | float | bool) -> Any:  # noqa: FBT001 - a value
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, _PLAIN[1:]):
        raise BadValueError(f"{name} = {text!r} is not of the kind of its default, {default!r}")
    return type(default)(value)
