"""A replica as a process: listens, drains at SIGTERM, reads its files again at SIGHUP."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from shoestring.errors import BadValueError
from shoestring.gateway.app import make_app
from shoestring.gateway.keeping import kept_up
from shoestring.gateway.listening import bounded_protocol, server_options
from shoestring.gateway.logs import configure
from shoestring.gateway.service import open_gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shoestring.gateway.service import Gateway
    from shoestring.gateway.settings import Settings

SPARE_FILES = 256
"""Beside two for each connection: the client's and the engine's."""
DRAIN_MARGIN_S = 5.0
"""After ``drain_s`` every answer has been told to end; then nothing is waited for any more."""


def serve(settings: Settings, config: Path | None, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: checked.
        config: the file that they came from; its aliases are read again when it changes.
        ready: told the address once requests are taken.

    Raises:
        BadValueError: the port is taken, or a part of the settings cannot be used.
    """
    configure(settings.logs.level, prompts=settings.logs.prompts)
    _allow_files(2 * settings.server.connections + SPARE_FILES)
    with _listener(settings.server.host, settings.server.port) as listener:
        uvloop.run(_serve(settings, config, listener, ready))


async def _serve(
    settings: Settings, config: Path | None, listener: socket.socket, ready: Callable[[str], None]
) -> None:
    async with open_gateway(settings) as gateway, kept_up(gateway, config) as keeper:
        bounds = (
            settings.server.head_timeout_s,
            settings.server.max_head_bytes,
            settings.server.stall_s,
        )
        server = _Server(
            uvicorn.Config(
                make_app(gateway),
                timeout_graceful_shutdown=round(settings.server.drain_s + DRAIN_MARGIN_S),
                **server_options(bounded_protocol(*bounds), settings.server.connections),
            )
        )
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, keeper.reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _end, gateway, server)
        _listen(listener, settings.server.connections)
        gc.collect()
        gc.freeze()  # what is there now stays: looking through it would stop all answers for 50 ms
        ready(_address(listener))
        await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: who ends it drains it first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _end(gateway: Gateway, server: uvicorn.Server) -> None:
    """Let what runs end; asked twice, end at once."""
    server.force_exit = gateway.draining
    gateway.drain(0.0 if gateway.draining else gateway.settings.server.drain_s)
    server.should_exit = True


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _listen(listener: socket.socket, connections: int) -> None:
    """Take connections from now on; two that start at once may both be bound."""
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(connections)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: Exception) -> BadValueError:
    return BadValueError(f"cannot listen on {host} port {port}: {error}")


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _allow_files(wanted: int) -> None:
    """Raise the number of open files as far as this user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
