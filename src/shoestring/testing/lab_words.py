"""What the lab and its users say to each other: JSON objects, one a line, with open files beside.

Each connection is one question and one answer. A descriptor goes with the first byte of its line.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadValueError, MissingError, ShoestringError
from shoestring.testing.faults import NotAllowedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CONTROL = "control"
"""The socket's name in the lab's folder."""
CHUNK_BYTES = 1 << 16
MOST_FILES = 200
"""The kernel takes 253 with one message."""
LIMIT_S = 60.0
ERRORS: Mapping[str, type[ShoestringError]] = {
    kind.__name__: kind for kind in (BadValueError, MissingError, NotAllowedError, ShoestringError)
}


def send_word(
    connection: socket.socket, word: Mapping[str, Any], files: Sequence[int] = ()
) -> None:
    """Send one object, and descriptors with it."""
    line = json.dumps(word).encode() + b"\n"
    if files:
        socket.send_fds(connection, [line[:1]], files)
        line = line[1:]
    connection.sendall(line)


def receive_word(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive one object and its descriptors, which are then ours to close.

    Raises:
        ConnectionError: the other side went away in the middle, or said something else.
    """
    line, files = b"", list[int]()
    while not line.endswith(b"\n"):
        data, came, _, _ = socket.recv_fds(
            connection, CHUNK_BYTES, MOST_FILES, socket.MSG_CMSG_CLOEXEC
        )
        files += came
        if not data:
            close_all(files)
            raise ConnectionResetError("the line is not whole")
        line += data
    try:
        return json.loads(line), files
    except ValueError as error:
        close_all(files)
        raise ConnectionResetError("the line is no JSON") from error


def close_all(files: Sequence[int]) -> None:
    """Close descriptors."""
    for file in files:
        os.close(file)


def ask(
    folder: Path, question: Mapping[str, Any], files: Sequence[int] = ()
) -> tuple[dict[str, Any], list[int]]:
    """Ask the lab of a folder; return its answer and the descriptors that came with it.

    Raises:
        ShoestringError: there is no lab any more, or what it says went wrong.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT_S)
        try:
            connect(connection, folder)
            send_word(connection, question, files)
            answer, came = receive_word(connection)
        except OSError as error:
            raise ShoestringError(f"the lab in {folder} does not answer: {error}") from error
    if "error" in answer:
        close_all(came)
        raise ERRORS[answer["kind"]](answer["error"])
    return answer, came


def connect(connection: socket.socket, folder: Path) -> None:
    """Connect to a lab, however long its folder's path: a socket's may have 107 bytes."""
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{place}/{CONTROL}")
    finally:
        os.close(place)


def listen(folder: Path) -> socket.socket:
    """Return the socket on which the lab of a folder is asked; likewise."""
    listener = socket.socket(socket.AF_UNIX)
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{place}/{CONTROL}")
    finally:
        os.close(place)
    listener.listen(64)
    return listener
