"""Which processes of Ollama are on this machine: a server to adopt, and the runner behind it.

A process is taken only where it is surely the one: figures of another would be wrong in silence.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from shoestring.engines.http_engine import Reply
from shoestring.engines.ollama_api import OllamaApi
from shoestring.engines.openai import read_token_count
from shoestring.engines.transport import Address, parse_base_url
from shoestring.errors import BadValueError, MissingError

PORTS = {"": 11434, "http": 80, "https": 443}
"""Where an ``OLLAMA_HOST`` without a port is, by its scheme."""
UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104  # nosec B104
"""What a server calls all of its addresses; nobody can be asked there."""
COUNT_TIMEOUT_S = 10.0


def running_url() -> str | None:
    """Return where an Ollama is running: at ``OLLAMA_HOST`` or its default port; or None.

    Raises:
        BadValueError: ``OLLAMA_HOST`` is no address.
    """
    address = parse_host(os.environ.get("OLLAMA_HOST", ""))
    with OllamaApi(address.url) as api:
        try:
            api.version()
        except MissingError:
            return None
    return address.url


def parse_host(text: str) -> Address:
    """Parse an ``OLLAMA_HOST`` as Ollama does (``envconfig.Host``): every part may be left out.

    Raises:
        BadValueError: it is no address. Ollama passes over a wrong port; here it is told.
    """
    scheme, _, rest = text.strip().strip("\"'").rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        port = PORTS.get(scheme, 0) if parts.port is None else parts.port
        host = parts.hostname or "127.0.0.1"
        host = "127.0.0.1" if host in UNSPECIFIED else f"[{host}]" if ":" in host else host
        user = "".join(parts.netloc.rpartition("@")[:2])  # refused in the next line
        return parse_base_url(f"{scheme or 'http'}://{user}{host}:{port}{parts.path}")
    except (ValueError, BadValueError) as error:
        shown = "an address with a user" if "@" in text else ascii(text[:80])
        raise BadValueError(f"OLLAMA_HOST is {shown}: give HOST:PORT") from error


def find_server(address: Address) -> int | None:
    """Return the process id of the ``ollama serve`` that listens at an address, else None.

    Another user's process does not show its sockets: then it is not known to be the one.
    """
    if not is_loopback(address.host):
        return None
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[1:] == ["serve"] and Path(words[0]).name == "ollama":
            try:
                sockets = process.net_connections("tcp")
            except psutil.Error:
                # Gone, or not ours to see.
                continue
            listening = (s for s in sockets if s.status == psutil.CONN_LISTEN)
            if address.port in (s.laddr.port for s in listening):
                return process.pid
    return None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its number or its usual name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_runner(server: int | None, sha256: str | None) -> str | None:
    """Return the address of the process that computes for a server, where it counts tokens.

    That is llama.cpp's server. Runners that are part of Ollama itself do not count.

    Args:
        server: process id of ``ollama serve``, or None where it is not known.
        sha256: of the model's weights, by which Ollama names their file.
    """
    if server is None or sha256 is None:
        return None
    try:
        for child in psutil.Process(server).children(recursive=True):
            words = child.cmdline()
            if "--port" in words and any(f"sha256-{sha256}" in word for word in words):
                url = f"http://127.0.0.1:{int(words[words.index('--port') + 1])}"
                return url if count_by_runner(url, "a") is not None else None
    except (psutil.Error, ValueError, IndexError):
        # Not ours to see, or gone: then nobody counts tokens.
        return None
    return None


def count_by_runner(url: str, text: str) -> int | None:
    """Count the tokens of a text, the one that begins every prompt among them; None: it cannot."""
    import requests

    asked = {"content": text, "add_special": True}
    try:
        with requests.Session() as session:
            session.trust_env = False
            reply = session.post(f"{url}/tokenize", json=asked, timeout=COUNT_TIMEOUT_S)
    except OSError:
        # The runner is gone; the caller looks for the next.
        return None
    return read_token_count(Reply(reply.status_code, None, reply.content))
