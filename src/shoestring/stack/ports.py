"""On which ports a node listens: the usual ones, else the next free."""

from __future__ import annotations

from shoestring.engines.launch import is_free
from shoestring.errors import BadValueError, MissingError

TRIED = 50
HIGHEST = 65_535


def choose_port(asked: int | None, usual: int, option: str) -> int:
    """Return the port that was asked for, else the usual one or the next free one.

    Args:
        asked: by the user; None: the usual one or the next free.
        usual: where its users look first.
        option: of the command line, for the error.

    Raises:
        BadValueError: the port that was asked for is taken.
        MissingError: neither the usual one nor the next ones are free.
    """
    if asked is not None:
        if not is_free(asked):
            raise BadValueError(
                f"{option} {asked}: another program listens there; give another port, or leave "
                f"{option} out for the next free one"
            )
        return asked
    for port in range(usual, min(usual + TRIED, HIGHEST + 1)):
        if is_free(port):
            return port
    raise MissingError(f"no port from {usual} to {usual + TRIED - 1} is free: give {option}")
