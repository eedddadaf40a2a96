"""The child process of the embedded engine: llama.cpp's own HTTP server on a random loopback port.

Run as ``python -m shoestring.engines.embedded_server`` by :mod:`shoestring.engines.embedded` only.
Commands come as JSON lines on standard input, ``{"load": {...}}`` and ``{"unload": {}}``; each is
answered by one JSON line on standard output. The end of standard input ends the process: that is
how it learns that its parent is gone, however the parent went.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Serve until standard input ends."""
    replies = _private_stdout()
    import xllamacpp

    replies.write(json.dumps({"state": "imported"}) + "\n")
    server: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        server = None  # frees the model that was there
        answer = {"state": "unloaded"}
        if "load" in command:
            try:
                server = xllamacpp.Server(_parameters(xllamacpp, command["load"]))
                answer = {"state": "loaded", "base_url": server.listening_address}
            except (RuntimeError, ValueError, OSError) as error:
                answer = {"state": "failed", "error": " ".join(str(error).split())}
        replies.write(json.dumps(answer) + "\n")
    # llama.cpp's worker threads may be in the middle of an answer that nobody will read.
    os._exit(0)


def _private_stdout() -> Any:
    """Keep standard output for our replies; what the library prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return replies


def _parameters(xllamacpp: Any, config: dict[str, Any]) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = config["model_path"]
    parameters.model_alias = [config["alias"]]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [config["api_key"]]
    # llama.cpp shares one context among its slots.
    parameters.n_ctx = config["context"] * config["parallel"]
    parameters.n_parallel = config["parallel"]
    parameters.cpuparams.n_threads = config["threads"]
    parameters.cpuparams_batch.n_threads = config["threads"]
    parameters.ui = False
    parameters.offline = True
    return parameters


if __name__ == "__main__":
    main()
