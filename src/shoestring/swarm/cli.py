"""``shoestring swarm``: peers that compute layers for each other."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from shoestring.errors import BadValueError, EngineLostError, MissingError

if TYPE_CHECKING:
    from shoestring.engines.protocol import Engine
    from shoestring.hardware.devices import Device
    from shoestring.swarm.chain import Chain
    from shoestring.swarm.node import Offer
    from shoestring.swarm.peers import Right
    from shoestring.swarm.worker_settings import WorkerSettings

PORT: Final = 7433
HOUR_S: Final = 3600.0
LOOK_S: Final = 1.0
SPARE_BYTES: Final = 512 << 20
SHARE: Final = 10
"""Of a device's memory a node gives a tenth, unless its owner says otherwise."""
RIGHTS: Final[dict[str, tuple[Right, ...]]] = {
    "use": ("use",),
    "serve": ("serve",),
    "both": ("serve", "use"),
}
EXAMPLES = """\b
Examples (on a machine that serves, and on one that uses it):
  shoestring swarm invite --name ana --address 192.168.1.20    prints an invitation, once
  shoestring swarm node --host :: --memory 8GiB                serves until Ctrl-C
\b
  shoestring swarm join --name lab < invitation.txt            here; what was pasted is no argument
  shoestring swarm peers                                       who answers, how far, with what
  shoestring swarm up shape:llama-3.2-1b:q4_k_m                one base URL over all of them
"""
JSON_OPTION = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."
)


@click.group(epilog=EXAMPLES)
def swarm() -> None:
    """Compute a model's layers on peers' machines, over links that know each other.

    A node lets in whom its owner invited, and nobody else. Each session gets a stock worker of
    llama.cpp in a room without network and files, behind a firewall that reads every frame.
    """
    if find_spec("cryptography") is None:
        raise MissingError("the swarm needs cryptography: pip install 'shoestring[swarm]'")


@swarm.command("id")
def show_id() -> None:
    """Print this node's key, by which peers know it; it is made at the first time."""
    from shoestring.swarm.home import Home

    click.echo(Home().identity().id)


@swarm.command()
@click.option("--name", required=True, help="What the peer will be called here.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    required=True,
    metavar="HOST[:PORT]",
    help=f"Where it reaches this node, again for more; the port is {PORT} unless given.",
)
@click.option(
    "--may",
    type=click.Choice(list(RIGHTS)),
    default="use",
    show_default=True,
    help="use: it may use this machine; serve: we may use its.",
)
@click.option("--hours", type=click.FloatRange(0.01, 8760), default=24.0, show_default=True,
              help="How long it opens.")  # fmt: skip
def invite(name: str, addresses: tuple[str, ...], may: str, hours: float) -> None:
    """Invite one peer: prints a text that lets it in once. Hand it over as you would a key."""
    from shoestring.swarm.home import Home

    home = Home()
    made = home.invitations().make(
        home.identity().id,
        name=name,
        addresses=[place if ":" in place else f"{place}:{PORT}" for place in addresses],
        rights=RIGHTS[may],
        lasts_s=hours * HOUR_S,
    )
    click.echo(made.text())
    _say(f"{name} may join with it once, within {hours:g} h, while `shoestring swarm node` runs")


@swarm.command()
@click.option("--name", required=True, help="What the inviter will be called here.")
@click.option("--address", "addresses", multiple=True, metavar="HOST:PORT",
              help="Where this node listens, if it serves.")  # fmt: skip
def join(name: str, addresses: tuple[str, ...]) -> None:
    """Use an invitation, read from standard input."""
    from shoestring.swarm.home import Home
    from shoestring.swarm.invitations import read_invitation
    from shoestring.swarm.joining import join as join_by

    if sys.stdin.isatty():
        _say("paste the invitation, then Enter:")
    invitation = read_invitation(sys.stdin.readline())
    home = Home()
    peer = asyncio.run(
        join_by(home.identity(), invitation, home.peers(_say), name=name, addresses=addresses)
    )
    _say(f"joined {peer.name} ({peer.id}): {', '.join(peer.rights)}")


@swarm.command()
@click.argument("peer", metavar="ID|NAME")
def remove(peer: str) -> None:
    """End what a peer may do; its links end within a second."""
    from shoestring.swarm.home import Home

    removed = Home().peers(_say).remove(peer)
    _say(f"{removed.name} ({removed.id}) is removed")


@swarm.command()
@JSON_OPTION
def peers(*, as_json: bool) -> None:
    """Greet all peers: who answers, how far away it is, and what it offers."""
    from shoestring.report.tabular import Column, Table, plain_text
    from shoestring.swarm.home import Home
    from shoestring.swarm.survey import survey

    home = Home()
    known = home.peers(_say).active()
    seen, failed = asyncio.run(survey(home.identity(), known))
    if as_json:
        answered = [
            {"name": one.remote.name, "id": one.remote.address.id,
             "rtt_s": one.device.link_latency_s, "memory_bytes": one.device.memory_bytes,
             "title": one.device.title, "free": one.free}
            for one in seen
        ]  # fmt: skip
        silent = [{"name": name, "error": str(error)} for name, error in failed.items()]
        click.echo(json.dumps({"peers": answered, "silent": silent}))
        return
    columns = (Column("name", "Peer"), Column("rtt", "Round trip (ms)", 1e3),
               Column("memory", "Memory (GiB)", 1 / (1 << 30)), Column("title", "Device"),
               Column("free", "Free sessions"))  # fmt: skip
    rows = tuple(
        (one.remote.name, one.device.link_latency_s, one.device.memory_bytes, one.device.title,
         one.free)
        for one in seen
    )  # fmt: skip
    click.echo(plain_text(Table("peers", "Peers that answer", columns, rows, "No peer answers.")))
    for name, error in failed.items():
        _say(f"{name}: {error}")


@swarm.command()
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Listen here; :: is every address of this machine.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True,
              help="0 takes a free one.")  # fmt: skip
@click.option("--device", "name", help="cpu or gpu0, gpu1, ...  [default: the first GPU, else cpu]")
@click.option("--memory", help=f"For a session, as 8GiB.  [default: a {SHARE}th of the device's]")
@click.option("--threads", type=click.IntRange(1, 1024), help="[default: half of the cores]")
@click.option("--allow-weaker", is_flag=True,
              help="Serve also where the worker cannot be kept from network or files.")  # fmt: skip
def node(
    *,
    host: str,
    port: int,
    name: str | None,
    memory: str | None,
    threads: int | None,
    allow_weaker: bool,
) -> None:
    """Serve layers to peers that may use this machine, until Ctrl-C."""
    from shoestring.report.plan_machine import find_devices
    from shoestring.swarm.home import Home
    from shoestring.swarm.serving import serve_node

    found, _ = find_devices((), _say)
    device = _chosen(found, name)
    settings, offer = _worker(device, memory, threads, allow_weaker=allow_weaker)
    home = Home()

    def ready(real_port: int) -> None:
        where = f"{host} port {real_port}"
        _say(f"serving {device.title} on {where}; this node is {home.identity().id}")

    asyncio.run(serve_node(home, settings, offer, host=host, port=port, ready=ready, say=_say))


@swarm.command()
@click.argument("model")
@click.option("--context", type=click.IntRange(256, 1_048_576), default=4096, show_default=True,
              help="Tokens of each request.")  # fmt: skip
@click.option("--parallel", type=click.IntRange(1, 64), default=1, show_default=True,
              help="Requests at once.")  # fmt: skip
@click.option(
    "--peer-layers",
    type=click.IntRange(0, 1000),
    metavar="N",
    help="So many layers on cards and peers, the output counted.  [default: the fastest]",
)
@click.option("--log", "log_path", type=click.Path(path_type=Path, dir_okay=False),
              help="Where llama-server writes.")  # fmt: skip
@JSON_OPTION
def up(*, model: str, as_json: bool, **given: Any) -> None:
    """Lay MODEL over this machine and peers, and serve it on loopback until Ctrl-C.

    Prints the base URL (OpenAI's API) for `shoestring run --base-url`, a gateway, or any client,
    and the key that it takes, made for this time.
    """
    asyncio.run(_up(model, as_json=as_json, **given))


async def _up(
    model: str,
    *,
    as_json: bool,
    context: int,
    parallel: int,
    peer_layers: int | None,
    log_path: Path | None,
) -> None:
    from shoestring.engines.outlines import find_model
    from shoestring.report.plan_machine import find_devices
    from shoestring.swarm.chain import plan_chain, running_chain
    from shoestring.swarm.home import Home
    from shoestring.swarm.survey import survey

    home = Home()
    found = find_model(model)
    own, constants = find_devices((), _say)
    seen, failed = await survey(home.identity(), home.peers(_say).active())
    for name, error in failed.items():
        _say(f"{name}: {error}")
    chain = plan_chain(
        found, own, [one for one in seen if one.free], constants,
        context=context, parallel=parallel, peer_layers=peer_layers,
    )  # fmt: skip
    _say(_described(chain))
    async with running_chain(
        found.name, chain, home.identity(), say=_say, log_path=log_path
    ) as engine:
        url, key = engine.address()
        if as_json:
            click.echo(json.dumps({"base_url": f"{url}/v1", "api_key": key}))
        else:
            click.echo(f"{url}/v1\nSHOESTRING_API_KEY={key}")
        await _until_told_or_lost(engine)


async def _until_told_or_lost(engine: Engine) -> None:
    """Wait for the user.

    Raises:
        EngineLostError: llama-server has ended, as it does when a peer is gone.
    """
    from shoestring.swarm.serving import until_told

    told = asyncio.create_task(until_told())
    try:
        while not told.done():
            await asyncio.wait({told}, timeout=LOOK_S)
            how = None if told.done() else engine.lost()
            if how is not None:
                raise EngineLostError(f"{how}: start it again, without the peer that is gone")
    finally:
        told.cancel()


def _described(chain: Chain) -> str:
    parts = [
        f"{placed.name}: layers {placed.layers[0]} to {placed.layers[1] - 1}"
        for placed in chain.plan.placed
        if placed.layers[1] > placed.layers[0]
    ]
    return "; ".join(parts)


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


def _say(line: str) -> None:
    click.echo(line, err=True)
