"""A chain whose windows are audited, over real workers of which some may cheat, in one process."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from shoestring.digests import file_sha256
from shoestring.engines.discovery import find_program
from shoestring.hardware.devices import Device
from shoestring.models.fetch import resolve_model
from shoestring.swarm.addresses import PeerAddress
from shoestring.swarm.audit.attesting import UPTIME_FILE, Attestations, Attestor
from shoestring.swarm.audit.auditor import Auditor
from shoestring.swarm.audit.running import Here, There
from shoestring.swarm.audit.sampling import Chance
from shoestring.swarm.audit.standing import Standing
from shoestring.swarm.crossing import Crossings
from shoestring.swarm.firewall import Rules
from shoestring.swarm.identity import load_identity
from shoestring.swarm.listening import Listener
from shoestring.swarm.market.measured import Measured
from shoestring.swarm.node import Node, Offer
from shoestring.swarm.peers import Peer, Peers
from shoestring.swarm.proof.agreeing import Asked, Price
from shoestring.swarm.proof.keeping import ReceiptFiles
from shoestring.swarm.proof.paying import Paying
from shoestring.swarm.proof.receipts import Hand
from shoestring.swarm.remote import Remote
from shoestring.swarm.spares import Need, Spare, Spares
from shoestring.swarm.stage import HOST, standing_stages
from shoestring.swarm.weights import Weights
from shoestring.swarm.worker_pool import WorkerPool
from shoestring.swarm.worker_settings import WorkerSettings
from shoestring.testing.cheating_worker import CheatingPool, Honest
from shoestring.testing.live_server import live_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from shoestring.swarm.audit.running import Place
    from shoestring.swarm.audit.windows import Recording
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.proof.receipts import Signed
    from shoestring.swarm.stage import Event, Stage
    from shoestring.testing.cheating_worker import Cheat

GIB = 1 << 30
RULES = Rules(memory_bytes=4 * GIB, device_memory_bytes=4 * GIB)
DEVICE = Device("cpu", "cpu", "a processor", 8 * GIB, 20e9, None, None, 0.0, None, "a test")
PRICE = Price(price_in=3_000, price_out=20_000)
KIND = "one class"
LAYERS = 5
"""The last ones of a model without its output, so many at the stages."""
ASKED = {
    "prompt": "Once upon a time there was a ship. " * 4, "n_predict": 8, "temperature": 0,
    "cache_prompt": False, "ignore_eos": True,
}  # fmt: skip


TINY = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 2_048,
    "max_position_embeddings": 1_024, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    "tie_word_embeddings": False,
}  # fmt: skip
"""A shape whose step takes a millisecond or two."""


def tiny_model(folder: Path) -> Path:
    """Make a model of random weights that computes as a large one does, in 4 MB."""
    (folder / "tiny").mkdir(parents=True, exist_ok=True)
    config = folder / "tiny" / "config.json"
    config.write_text(json.dumps(TINY))
    return resolve_model(f"shape:{config}:q4_k_m", cache=folder / "tiny").path


@dataclass
class AuditLab:
    """What stands, and what became of it.

    Attributes:
        folder: of everything.
        model: a GGUF file.
        identity: the client's.
        remotes: the nodes.
        pool: of this machine's workers; None: it audits nothing.
        standing: of the nodes.
        measured: likewise.
        stages: of the chain.
        auditor: of it.
        recordings: windows that were to be run again.
        events: of the stages.
        said: by the auditor: what, of whom, why.
        signed: receipts.
    """

    folder: Path
    model: Path
    identity: Identity
    standing: Standing
    measured: Measured
    remotes: list[Remote] = field(default_factory=list)
    pool: WorkerPool | None = None
    stages: Sequence[Stage] = ()
    auditor: Auditor | None = None
    recordings: list[Recording] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    said: list[tuple[str, str, str]] = field(default_factory=list)
    signed: list[Signed] = field(default_factory=list)

    def of(self, what: str) -> list[tuple[str, str]]:
        """Return who and why, each time that this happened."""
        events = [(one.who, one.why) for one in self.events if one.what == what]
        return events + [(who, why) for named, who, why in self.said if named == what]

    def id(self, number: int) -> str:
        """Return a node's peer id."""
        return self.remotes[number].address.id

    def here(self, kind: str = KIND) -> Here:
        """Return this machine as a place to run a window again."""
        assert self.pool is not None, "this machine has room"
        return Here(self.identity, self.pool, RULES, kind)

    def answers(
        self, asked: Sequence[dict[str, Any]], after: Callable[[], None], *,
        layers: int = LAYERS, more: Sequence[str] = (),
    ) -> list[str]:  # fmt: skip
        """Return what one stock llama-server over the stages says; from a thread.

        Args:
            asked: one after the other.
            after: called after each, while the server stands.
            layers: that lie at the stages, the output counted as one.
            more: words for it.
        """
        ports = [stage.port for stage in self.stages]

        def command(port: int) -> Sequence[str]:
            return (
                str(find_program("llama-server")), "-m", str(self.model), "--host", HOST,
                "--port", str(port), "--rpc", ",".join(f"{HOST}:{one}" for one in ports),
                "--device", ",".join(f"RPC{number}" for number in range(len(ports))),
                "-ngl", str(layers), "-c", "512", "-np", "1", "-t", "1", "--fit", "off", *more,
            )  # fmt: skip

        with live_server(command, log_path=self.folder / "llama-server.log") as server:
            said = []
            for one in asked:
                said.append(str(server.complete(one)["content"]))
                after()
            return said


@asynccontextmanager
async def audit_lab(
    folder: Path,
    model: Path,
    cheats: Sequence[Callable[[], Cheat]] = (),
    *,
    stages: int = 1,
    spares: int = 0,
    others: int = 1,
    here: bool = True,
    chance: Chance | None = None,
    steps: int = 8,
    kinds: Sequence[str] = (),
    threads: Sequence[int] = (),
    price: Price = PRICE,
    expels: bool = True,
    audits: bool = True,
    waiting: int = 64,
    **settings: Any,
) -> AsyncIterator[AuditLab]:
    """Let nodes serve, stages stand, and windows be audited while the block lasts.

    Args:
        folder: for everything.
        model: a GGUF file.
        cheats: makes a cheat for each session of node 0, 1, ...; those left out are honest.
        stages: how many, of nodes 0, 1, ...
        spares: nodes after them.
        others: nodes after these; all nodes may run a window again.
        here: this machine may, too.
        chance: that windows are audited; None: all.
        steps: that a node computes without a signature; twice a window.
        kinds: numerics class of each node.
        threads: of each node's workers.
        price: of all.
        expels: a cheat is.
        audits: windows that are recorded are run again.
        waiting: as of :class:`Auditor`.
        settings: of the stages.
    """
    lab = AuditLab(
        folder, model, load_identity(folder / "client" / "identity.key"),
        Standing(folder / "audits.json"), Measured(folder / "measured.json"),
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        for number in range(stages + spares + others):
            make = cheats[number] if number < len(cheats) else Honest
            count = threads[number] if number < len(threads) else 1
            lab.remotes.append(
                await stack.enter_async_context(_selling(lab, number, make, price, count))
            )
        if here:
            lab.pool = await stack.enter_async_context(WorkerPool(worker_settings()))
        files = stack.enter_context(closing(ReceiptFiles(folder / "receipts", print)))
        its = dict(zip((one.address.id for one in lab.remotes), kinds, strict=False))
        asked = Asked(most=price, window_steps=steps)

        def keep(signed: Signed) -> None:
            files.keep(signed)
            lab.signed.append(signed)
            auditor.keep(signed)

        places: list[Place] = [
            There(
                lab.identity, one, its.get(one.address.id, KIND), print,
                paying=Paying(asked, Hand(lab.identity, files.keep)),
            )
            for one in lab.remotes
        ]  # fmt: skip
        auditor = await stack.enter_async_context(
            _Watched(
                chance or Chance(1.0), lab.standing, folder / "evidence",
                lambda *said: lab.said.append(said), places=places,
                here=lab.here() if here else None,
                kinds={one.address.id: KIND for one in lab.remotes} | its,
                measured=lab.measured, most_waiting=waiting,
            )
        )  # fmt: skip
        auditor.lab, auditor.audits = lab, audits
        lab.auditor = auditor
        first = lab.remotes[stages : stages + spares]
        lab.stages = await stack.enter_async_context(
            standing_stages(
                lab.identity, [[one] for one in lab.remotes[:stages]],
                Spares(Spare(one, GIB) for one in first), Weights(model),
                needs=[Need(GIB)] * stages, tell=lab.events.append,
                paying=Paying(asked, Hand(lab.identity, keep)), auditor=auditor, **settings,
            )
        )  # fmt: skip
        if not expels:
            auditor.stages = ()
        yield lab


def worker_settings(threads: int = 1) -> WorkerSettings:
    """Return what a worker of the pinned engine is started with."""
    program = find_program("ggml-rpc-server")
    assert program is not None, "the engine is installed"
    return WorkerSettings(program, file_sha256(program), threads=threads)


class _Watched(Auditor):
    """Tells the laboratory what it takes up, and may only do that."""

    lab: AuditLab
    audits = True

    def _take(self, recording: Recording) -> None:
        if recording.is_drawn or recording.differs:
            self.lab.recordings.append(recording)
        if self.audits:
            super()._take(recording)
        else:
            self.drop(recording)


@asynccontextmanager
async def _selling(
    lab: AuditLab, number: int, make: Callable[[], Cheat], price: Price, threads: int
) -> AsyncIterator[Remote]:
    """Let one node serve at a price."""
    home, name = lab.folder / f"node{number}", f"node{number}"
    identity = load_identity(home / "identity.key")
    peers = Peers(home / "peers.json", say=print)
    peers.admit(
        Peer(lab.identity.id, "the client", lab.identity.certificate, (), ("use",), time.time())
    )
    settings = worker_settings(threads)
    offer = Offer(RULES, settings.sha256, DEVICE, threads=threads, price=price)
    said: list[str] = []
    async with WorkerPool(settings) as pool:
        cheating = cast("WorkerPool", CheatingPool(pool, make))
        node = Node(peers, cheating, offer, hand=Hand(identity, lambda _: None), say=said.append)
        async with Listener(
            identity, peers, on_link=node.answer, host="127.0.0.1", say=said.append
        ) as listener:
            node.attestor = Attestor(identity, Attestations(home / UPTIME_FILE))
            node.crossings = Crossings(identity, listener.admit_for, listener.end_admission)
            address = PeerAddress(identity.id, "127.0.0.1", listener.port)
            yield Remote(name, address, identity.certificate)


async def ask_all(
    lab: AuditLab, asked: Sequence[dict[str, Any]] = (ASKED, ASKED), **how: Any
) -> list[str]:
    """Ask one after the other, each once the windows before it are audited."""
    assert lab.auditor is not None, "it stands"
    idle, loop = lab.auditor.idle, asyncio.get_running_loop()

    def wait() -> None:
        asyncio.run_coroutine_threadsafe(idle(), loop).result()

    said = await asyncio.to_thread(lambda: lab.answers(asked, wait, **how))
    await idle()
    return said
