"""What the gateway's benchmarks put before an engine: our gateway, and LiteLLM's proxy.

Both run as one worker in a process of their own, on loopback, behind one key, and end with us.
LiteLLM comes pinned by hash (``litellm.lock``; 1.82.7 and 1.82.8 were compromised) into an
environment of its own, and is set up as its page for production asks: production mode, errors
only in the log, no admin page, no telemetry, no list of prices from the network.
"""

from __future__ import annotations

import json
import secrets
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from load import Site
from peers import Peer

from shoestring.engines.launch import Launched, free_port
from shoestring.gateway.keys_file import create_key
from shoestring.hardware.processes import ProcessTree, peak_resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_LIMIT_S = 120.0
DIRECT, OURS, LITELLM = "direct", "shoestring", "litellm"
ENGINE_SLOTS = 64
"""Of the engine behind a gateway, where the engine's own are not what is measured."""


@dataclass(frozen=True)
class Server:
    """A server that listens.

    Attributes:
        site: where, and with which key.
        process: its own; ``process.pid`` is the root of its tree.
    """

    site: Site
    process: Launched

    def peak_bytes(self) -> int | None:
        """Return the largest resident set that it ever had, summed over its processes."""
        peaks = [peak_resident_bytes(pid) for pid in ProcessTree(self.process.pid).pids]
        known = [peak for peak in peaks if peak is not None]
        return sum(known) if known else None

    def resident_bytes(self) -> int | None:
        """Return its resident set now, summed over its processes."""
        used = ProcessTree(self.process.pid).read()
        return None if used is None else used.resident_bytes


def write_settings(path: Path, port: int, keys: Path, sections: str, server: str = "") -> None:
    """Write the gateway's settings.

    Args:
        path: gets them.
        port: where it shall listen.
        keys: the file of keys.
        sections: all but the keys and ``[server]``, as TOML.
        server: more lines of ``[server]``.
    """
    path.write_text(
        f"[keys]\nfile = {json.dumps(str(keys))}\n\n{sections}\n\n"
        f"[server]\nport = {port}\nmax_answer_tokens = 100000\n{server}\n",
        encoding="utf-8",
    )


def launch_gateway(settings: Path, port: int, log: Path) -> Launched:
    """Start a gateway by its settings, and wait until it answers."""
    program = str(Path(sys.executable).parent / "shoestring")
    launched = Launched(
        "the gateway",
        [program, "serve", "--config", str(settings)],
        environment={},
        log_path=log,
    )
    return _await(launched, f"http://127.0.0.1:{port}/health")


@contextmanager
def our_gateway(folder: Path, name: str, sections: str, server: str = "") -> Iterator[Server]:
    """Run a gateway of ours with one key.

    Args:
        folder: for its files.
        name: of these, unique in the folder.
        sections: its settings, as :func:`write_settings` takes them.
        server: likewise.
    """
    keys, settings, port = folder / f"{name}-keys.json", folder / f"{name}.toml", free_port()
    _, key = create_key(keys, name)
    write_settings(settings, port, keys, sections, server)
    launched = launch_gateway(settings, port, folder / f"{name}.log")
    try:
        yield Server(Site(f"http://127.0.0.1:{port}", key), launched)
    finally:
        launched.stop()


def engine_section(url: str, models: dict[str, str], *, slots: int = ENGINE_SLOTS) -> str:
    """Return the settings of one OpenAI-compatible engine, with a queue that never refuses.

    Args:
        url: of the engine.
        models: the engine's own names, by those that clients use.
        slots: requests that it works on at once.
    """
    aliases = "\n".join(
        f'[aliases."{alias}"]\ntargets = [{{engine = "engine", model = "{model}"}}]'
        for alias, model in models.items()
    )
    return (
        f'[[engines]]\nname = "engine"\nkind = "openai"\nurl = "{url}"\nslots = {slots}\n'
        f"{aliases}\n[queue]\nwaiting = 10000\nwaiting_per_key = 10000\n"
    )


@contextmanager
def litellm_proxy(
    folder: Path, name: str, engine_url: str, model: str, *, cache: bool
) -> Iterator[Server]:
    """Run LiteLLM's proxy before one OpenAI-compatible engine; install it first.

    Args:
        folder: for its files.
        name: of these, unique in the folder.
        engine_url: without ``/v1``.
        model: the engine's name for it, which is also the proxy's.
        cache: whether its in-memory cache is on.
    """
    key, port = f"sk-{secrets.token_urlsafe(16)}", free_port()
    target = {"model": f"openai/{model}", "api_base": f"{engine_url}/v1", "api_key": "none"}
    cached = {"cache": True, "cache_params": {"type": "local", "ttl": 3600}} if cache else {}
    config = folder / f"{name}.yaml"
    # JSON is YAML.
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": model, "litellm_params": target}],
                "litellm_settings": {"num_retries": 0, "request_timeout": 600, **cached},
                "general_settings": {"master_key": key},
            }
        ),
        encoding="utf-8",
    )
    launched = Launched(
        LITELLM,
        [
            str(PEER.environment / "bin" / LITELLM), "--config", str(config),
            "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1",
            "--telemetry", "False",
        ],
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "DISABLE_ADMIN_UI": "True",
        },
        log_path=folder / f"{name}.log",
    )  # fmt: skip
    try:
        _await(launched, f"http://127.0.0.1:{port}/health/liveliness")
        yield Server(Site(f"http://127.0.0.1:{port}", key), launched)
    finally:
        launched.stop()


@contextmanager
def gateways(
    names: Sequence[str], folder: Path, url: str, model: str, *, cache: bool = False
) -> Iterator[dict[str, Server]]:
    """Run those of the gateways that are named before one engine.

    Args:
        names: of :data:`OURS` and :data:`LITELLM`; others are passed over.
        folder: for their files; each pair of model and cache once.
        url: of the engine.
        model: as the engine and its clients name it.
        cache: whether theirs are on.
    """
    name = f"{model.partition(':')[0]}-{'cached' if cache else 'plain'}"
    section = engine_section(url, {model: model})
    if cache:
        section += "\n[cache]\nenabled = true\n"
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        if OURS in names:
            ours = our_gateway(folder, f"{OURS}-{name}", section)
            servers[OURS] = stack.enter_context(ours)
        if LITELLM in names:
            theirs = litellm_proxy(folder, f"{LITELLM}-{name}", url, model, cache=cache)
            servers[LITELLM] = stack.enter_context(theirs)
        yield servers


def turns(blocks: int, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield who is asked in which block; who is first turns from block to block."""
    for block in range(blocks):
        turn = block % len(names)
        yield from ((block, name) for name in (*names[turn:], *names[:turn]))


def question(model: str, text: str, *, stream: bool) -> dict[str, Any]:
    """Return the body of a chat request; a stream ends with its usage."""
    options = {"stream_options": {"include_usage": True}} if stream else {}
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "stream": stream, **options}


def note(line: str) -> None:
    """Say what goes on, on stderr."""
    print(line, file=sys.stderr, flush=True)


def answers_at(url: str) -> bool:
    """Whether a server answers there without an error of its own."""
    import requests

    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def _await(launched: Launched, url: str) -> Launched:
    try:
        launched.wait_until(lambda: answers_at(url), START_LIMIT_S, "look into its log")
    except BaseException:
        launched.stop()
        raise
    return launched


def _measures_nothing(*_: Any) -> NoReturn:
    raise AssertionError("a proxy measures nothing")


PEER = Peer(LITELLM, _measures_nothing, _measures_nothing, "it is a proxy, not a client")
"""Only its environment is used; install it before the first start."""
