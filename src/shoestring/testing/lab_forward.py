"""A port outside a lab that leads to a server on one of its hosts.

The listening socket was opened outside and stays there; the connections are made where this process
is: in the host. So the way does not go through the lab's net.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from asyncio import StreamReader, StreamWriter

CHUNK_BYTES = 1 << 18


async def serve_forward(listener: socket.socket, address: str, port: int) -> None:
    """Lead each connection to the server, for ever; where there is none it ends at once."""

    async def lead(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(address, port)
        except OSError:  # nobody there; the outside sees the end
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, back))
                both.create_task(_pump(there, writer))
        except* ConnectionError:  # one end is gone, so the other shall go
            writer.transport.abort()
            back.transport.abort()
        finally:
            writer.close()
            back.close()

    server = await asyncio.start_server(lead, sock=listener)
    await server.serve_forever()


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
