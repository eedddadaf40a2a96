"""``shoestring swarm node``: this machine's layers for peers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from shoestring.errors import BadValueError, MissingError
from shoestring.swarm.cli_words import PORT, say

if TYPE_CHECKING:
    from shoestring.hardware.devices import Device
    from shoestring.swarm.home import Home
    from shoestring.swarm.node import Offer
    from shoestring.swarm.worker_settings import WorkerSettings

SPARE_BYTES: Final = 512 << 20
SHARE: Final = 10
"""Of a device's memory a node gives a tenth, unless its owner says otherwise."""
EXAMPLES: Final = """\b
Examples:
  shoestring swarm node                                for peers on this machine: a try
  shoestring swarm node --host :: --memory 8GiB        on every address, announced on the network
  shoestring swarm node --host :: --no-announce        peers were told the address
  shoestring swarm node --host :: --always             a machine that does nothing else
  shoestring swarm node --price-in 2000 --price-out 9000    not for nothing (docs/swarm-receipts.md)

It pauses on battery, and while other work keeps the machine busy: no session begins, and those that
are go on at other peers, if their users have some in reserve.
"""


@click.command(epilog=EXAMPLES)
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Listen here; :: is every address of this machine.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True,
              help="0 takes a free one.")  # fmt: skip
@click.option("--device", "name", help="cpu or gpu0, gpu1, ...  [default: the first GPU, else cpu]")
@click.option("--memory", help=f"For a session, as 8GiB.  [default: a {SHARE}th of the device's]")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True),
              help="Of a session's model at most this, as 0.1.  [default: no cap]")  # fmt: skip
@click.option("--store", help="Weights to keep for the next time, as 20GiB; 0B keeps none.  "
              "[default: 20GiB, or a tenth of the disk's free space]")  # fmt: skip
@click.option("--price-in", type=click.IntRange(min=0), default=0, show_default=True,
              help="Micro-credits a million tokens of prompts and layer; also of each position "
              "beyond the first of a step.")  # fmt: skip
@click.option("--price-out", type=click.IntRange(min=0), default=0, show_default=True,
              help="The same, of answers: one token of each step.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 1024), help="[default: half of the cores]")
@click.option("--allow-weaker", is_flag=True,
              help="Serve also where the worker cannot be kept from network or files.")  # fmt: skip
@click.option("--always", is_flag=True,
              help="Serve also on battery and while the machine is busy.")  # fmt: skip
@click.option("--announce/--no-announce", default=None,
              help="Tell the local network.  [default: where others reach --host]")  # fmt: skip
def node(
    *,
    host: str,
    port: int,
    name: str | None,
    memory: str | None,
    share: float | None,
    store: str | None,
    price_in: int,
    price_out: int,
    threads: int | None,
    allow_weaker: bool,
    always: bool,
    announce: bool | None,
) -> None:
    """Serve layers to peers that may use this machine, until Ctrl-C."""
    from shoestring.hardware.quantities import parse_size
    from shoestring.report.plan_machine import find_devices
    from shoestring.swarm.home import Home
    from shoestring.swarm.proof.agreeing import Price

    is_told = _is_told(host) if announce is None else announce
    found, _ = find_devices((), say)
    device = _chosen(found, name)
    settings, offer = _worker(device, memory, threads, allow_weaker=allow_weaker)
    offer = replace(offer, share=share, price=Price(price_in, price_out))
    asyncio.run(
        _serve(
            Home(),
            settings,
            offer,
            host=host,
            port=port,
            is_told=is_told,
            always=always,
            store_bytes=None if store is None else parse_size(store),
        )
    )


async def _serve(
    home: Home,
    settings: WorkerSettings,
    offer: Offer,
    *,
    host: str,
    port: int,
    is_told: bool,
    always: bool,
    store_bytes: int | None,
) -> None:
    """Serve until told to end, announced on the local network or not, the owner first or not."""
    from shoestring.swarm.discovery import announce
    from shoestring.swarm.owner import Machine, Owner
    from shoestring.swarm.serving import serve_node

    own_id = home.identity().id
    announcing: set[asyncio.Task[None]] = set()

    def ready(real_port: int) -> None:
        say(f"serving {offer.device.title} on {host} port {real_port}; this node is {own_id}")
        if is_told:
            announcing.add(asyncio.create_task(announce(own_id, host, real_port, say=say)))

    async with AsyncExitStack() as stack:
        owner = None
        if not always:
            device = offer.device
            card = int(device.name.removeprefix("gpu")) if device.kind == "gpu" else None
            machine = stack.enter_context(closing(Machine(card)))
            owner = await stack.enter_async_context(Owner(machine.read, say=say))
        try:
            await serve_node(
                home, settings, offer, host=host, port=port, store_bytes=store_bytes, owner=owner,
                ready=ready, say=say,
            )  # fmt: skip
        finally:
            for task in announcing:
                task.cancel()
            await asyncio.gather(*announcing, return_exceptions=True)


def _is_told(host: str) -> bool:
    """Tell whether the local network is told of a node that listens on a host."""
    from shoestring.swarm.discovery import is_loopback

    try:
        return not is_loopback(host)
    except OSError as error:
        raise MissingError(
            f"--host {host}: {error.strerror}; give an address of this machine"
        ) from error


def _chosen(found: tuple[Device, ...], name: str | None) -> Device:
    """Return the device that is to be served."""
    if not found:
        raise MissingError("no device was found whose memory is known")
    if name is None:
        return found[0]
    for device in found:
        if device.name == name:
            return device
    known = ", ".join(device.name for device in found)
    raise BadValueError(f"--device {name}: not here; there are {known}")


def _worker(
    device: Device, memory: str | None, threads: int | None, *, allow_weaker: bool
) -> tuple[WorkerSettings, Offer]:
    from shoestring.digests import file_sha256
    from shoestring.engines.discovery import check_installed, find_program
    from shoestring.hardware.cores import usable_cores
    from shoestring.hardware.quantities import parse_size, spell_size
    from shoestring.swarm.firewall import Rules
    from shoestring.swarm.node import Offer
    from shoestring.swarm.worker_settings import WorkerSettings

    check_installed("llama-server")
    program = find_program("ggml-rpc-server")
    if program is None:
        raise MissingError("ggml-rpc-server is missing: shoestring engines install llama.cpp")
    given_bytes = device.memory_bytes // SHARE if memory is None else parse_size(memory)
    if not 0 < given_bytes <= device.memory_bytes:
        free = spell_size(device.memory_bytes)
        raise BadValueError(f"--memory {memory}: {device.name} has {free} free; give at most that")
    is_gpu = device.kind == "gpu"
    digest = file_sha256(program)
    threads = threads or max(1, usable_cores() // 2)
    settings = WorkerSettings(
        program, digest, threads,
        # Its buffers are the firewall's to count; the rest is work memory and the program.
        memory_bytes=None if is_gpu else given_bytes + given_bytes // 4 + SPARE_BYTES,
        cpu_share=min(1.0, threads / usable_cores()),
        device=f"CUDA{device.name.removeprefix('gpu')}" if is_gpu else None,
        allow_weaker=allow_weaker,
    )  # fmt: skip
    rules = Rules(
        memory_bytes=given_bytes,
        device_memory_bytes=given_bytes,
        row_padding=512 if is_gpu else 0,
    )
    return settings, Offer(rules, digest, device, threads)
