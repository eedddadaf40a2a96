"""On which ports a node listens: the usual ones, else the next free."""

from __future__ import annotations

import socket

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


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of loopback."""
    with socket.socket() as sock:
        # As servers do: what is left of old connections does not count.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            # Taken, or not ours to take (below 1024).
            return False
    return True
