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
    parameters.ui = False
    parameters.offline = True
    _place(xllamacpp, parameters, config["offload"])
    return parameters


def _place(xllamacpp: Any, parameters: Any, offload: dict[str, Any]) -> None:
    """Set what an :class:`~shoestring.engines.offload.Offload` decides; the rest stays as it is."""
    parameters.cpuparams.n_threads = offload["threads"]
    parameters.cpuparams_batch.n_threads = offload["threads"]
    cache_bytes = offload["prompt_cache_bytes"]
    for name, value in {
        "n_gpu_layers": offload["gpu_layers"],
        "n_batch": offload["batch"],
        "n_ubatch": offload["ubatch"],
        "cache_ram_mib": None if cache_bytes is None else cache_bytes >> 20,
    }.items():
        if value is not None:
            setattr(parameters, name, value)
    for name in ("cache_type_k", "cache_type_v"):
        kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{offload[name].upper()}")
        setattr(parameters, name, kind)
    if offload["flash_attention"] is not None:
        state = "ENABLED" if offload["flash_attention"] else "DISABLED"
        kinds = xllamacpp.llama_flash_attn_type
        parameters.flash_attn_type = getattr(kinds, f"LLAMA_FLASH_ATTN_TYPE_{state}")
    if offload["tensor_split"] is not None:
        # It has a place for each device that there could be.
        shares, places = offload["tensor_split"], len(parameters.tensor_split)
        parameters.tensor_split = [*shares, *[0.0] * (places - len(shares))]
    if offload["experts_in_ram"]:
        # What --n-cpu-moe of llama.cpp's programs stands for (common/common.h).
        parameters.tensor_buft_overrides = ",".join(
            rf"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
            for layer in range(offload["experts_in_ram"])
        )
    parameters.fit_params = offload["fit"]


if __name__ == "__main__":
    main()
