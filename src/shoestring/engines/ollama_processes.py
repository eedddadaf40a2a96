"""Which processes of Ollama are on this machine: a server to adopt, and the runner behind it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from shoestring.engines.ollama_api import OllamaApi
from shoestring.errors import MissingError

DEFAULT_URL = "http://127.0.0.1:11434"


def running_url() -> str | None:
    """Return where an Ollama is running: at ``OLLAMA_HOST`` or its default port; or None."""
    host = os.environ.get("OLLAMA_HOST") or DEFAULT_URL
    url = host if "//" in host else f"http://{host}"
    if urlsplit(url).port is None:
        url += ":11434"
    url = url.replace("//0.0.0.0:", "//127.0.0.1:")
    api = OllamaApi(url)
    try:
        api.version()
    except MissingError:
        return None
    finally:
        api.close()
    return url


def find_server() -> int | None:
    """Return the process id of the one ``ollama serve`` that can be seen, else None."""
    found = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[1:] == ["serve"]
        and Path(process.info["cmdline"][0]).name == "ollama"
    ]
    return found[0] if len(found) == 1 else None


def find_runner(server: int | None) -> str | None:
    """Return the address of the process that computes for a server, where it can be seen.

    Args:
        server: process id of ``ollama serve``, or None where it is not known.
    """
    if server is None:
        return None
    try:
        for child in psutil.Process(server).children(recursive=True):
            words = child.cmdline()
            if "--port" in words:
                return f"http://127.0.0.1:{int(words[words.index('--port') + 1])}"
    except (psutil.Error, ValueError, IndexError):
        # Not ours to see, or gone: then nobody counts tokens.
        return None
    return None
