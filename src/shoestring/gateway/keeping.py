"""Keeps a running gateway up to date: its engines, its keys and aliases, and its charts."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.gateway.bins import Gauges
from shoestring.gateway.logs import log
from shoestring.gateway.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from shoestring.gateway.service import Gateway

LOOK_S = 5.0
"""Between two looks at the engines; a request that fails tells sooner."""
WATCH_S = 1.0
"""Between two looks at the files."""


class Keeper:
    """Looks at what changes outside.

    Args:
        gateway: that is kept up to date.
        config: the file that its settings came from; None: there is none.
    """

    def __init__(self, gateway: Gateway, config: Path | None) -> None:
        self._gateway = gateway
        self._config = config
        self._config_mtime_ns = _mtime_ns(config)

    def reload(self) -> None:
        """Read again what changed: keys, and the aliases of the settings."""
        self._gateway.keys.reload()
        self._reload_aliases()

    async def look(self) -> None:
        """Look at engines and files until cancelled."""
        async with asyncio.TaskGroup() as group:
            for engine in self._gateway.router.engines.values():
                group.create_task(_every(LOOK_S, engine.look))
            group.create_task(_every(WATCH_S, self._watch))

    async def _watch(self) -> None:
        gateway = self._gateway
        self.reload()
        gateway.activity.sample(
            Gauges(
                sum(engine.slots.waiting for engine in gateway.router.engines.values()),
                gateway.active,
                gateway.model_memory_bytes(),
                gateway.gateway_memory_bytes(),
            )
        )

    def _reload_aliases(self) -> None:
        mtime_ns = _mtime_ns(self._config)
        if self._config is None or mtime_ns == self._config_mtime_ns:
            return
        self._config_mtime_ns = mtime_ns
        try:
            new = load_settings(self._config)
        except BadValueError as error:
            log.error("settings not taken", error=str(error))
            return
        gateway = self._gateway
        taken = gateway.settings.model_copy(update={"aliases": new.aliases})
        if taken != new:
            log.warning("only aliases are taken from changed settings", mend="start it again")
        gateway.router.aliases = dict(new.aliases)
        gateway.settings = taken
        log.info("aliases taken", aliases=list(new.aliases))


@asynccontextmanager
async def kept_up(gateway: Gateway, config: Path | None) -> AsyncIterator[Keeper]:
    """Keep a gateway up to date inside the block."""
    keeper = Keeper(gateway, config)
    looking = asyncio.create_task(keeper.look())
    try:
        yield keeper
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)  # a beat, not a wait for something
        try:
            await work()
        except Exception:  # noqa: BLE001 - whatever it was, the next beat must come all the same
            log.exception("keeping up failed")


def _mtime_ns(path: Path | None) -> int | None:
    if path is None:
        return None
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None  # gone for now; what was read holds on
