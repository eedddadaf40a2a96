"""The two ends of a session at a node: the client's link, and the connection to the worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoestring.swarm.session import Session

HIGH_BYTES = 1 << 20
"""Of one side's buffer; above it the other side is not read."""


class Side(asyncio.Protocol):
    """One end of a session: what it sends is taken by ``take``, its end by ``gone``."""

    def __init__(self, session: Session, *, is_client: bool) -> None:
        self._session = session
        self._is_client = is_client
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        transport.set_write_buffer_limits(high=HIGH_BYTES)  # type: ignore[attr-defined]
        self.transport = transport  # type: ignore[assignment]  # of asyncio, of uvloop: no base

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        if self._is_client:
            self._session.take_requests(data)
        else:
            self._session.take_answers(data)

    def pause_writing(self) -> None:
        """Of asyncio: it does not read."""
        self._session.hold(not_reading=self)

    def resume_writing(self) -> None:
        """Of asyncio: it reads again."""
        self._session.go_on(reading=self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        who = "the client" if self._is_client else "the worker"
        how = "hung up" if exc is None else f"is gone ({type(exc).__name__})"
        self._session.end(f"{who} {how}")
