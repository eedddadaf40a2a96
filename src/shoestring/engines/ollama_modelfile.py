"""What Ollama must be given so that it runs a plan: a Modelfile, and variables of its server.

It has a parameter for the number of layers on GPUs, and none for how they are shared out, for
experts in RAM, or for a KV cache whose keys and values differ. From the version on whose runner is
llama.cpp's own server, that server inherits Ollama's variables and reads these as ``LLAMA_ARG_…``;
an older Ollama passes over them.
Sources: ``parser/parser.go``, ``envconfig/config.go``, ``llm/llama_server.go`` and
``server/sched.go`` of Ollama 0.32.15.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from shoestring.engines.offload import UNQUANTISED, check_split
from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from shoestring.engines.offload import Offload

PLANNED_NAME = "shoestring-plan"
"""How the model is named in Ollama."""
HANDED_ON = "LLAMA_ARG_"
OWN = frozenset({"LLAMA_ARG_FIT"})
"""Of these the ones that Ollama's own help names."""


def model_options(context: int, offload: Offload) -> dict[str, int]:
    """Return Ollama's parameters of a model, as a Modelfile or a request gives them.

    ``num_batch`` is both of llama.cpp's batches: it is the one that compute buffers are made for.
    """
    options = {
        "num_ctx": context,
        "num_gpu": offload.gpu_layers,
        "num_batch": offload.ubatch,
        "num_thread": offload.threads,
    }
    return {name: value for name, value in options.items() if value is not None}


def modelfile(source: str, context: int, offload: Offload) -> str:
    """Return the Modelfile of a planned model.

    Args:
        source: path of a GGUF file (from the Modelfile's folder, where it is not absolute), or
            the name of a model that Ollama has.
        context: tokens of context for each request.
        offload: where the model's parts go.
    """
    # Quotes are taken off at both ends, and so are blanks outside of them.
    quoted = f'"{source}"' if source != source.strip() or source.startswith('"') else source
    lines = [f"FROM {quoted}"]
    lines += [
        f"PARAMETER {name} {value}" for name, value in model_options(context, offload).items()
    ]
    return "\n".join(lines) + "\n"


def server_variables(context: int, parallel: int, offload: Offload) -> dict[str, str]:
    """Return the variables that Ollama's server must be started with.

    Args:
        context: tokens of context for each request; for models without a Modelfile, too.
        parallel: how many requests are decoded at once.
        offload: where the model's parts go.

    Raises:
        BadValueError: Ollama cannot be told what the offload says.
    """
    if offload.rpc:
        raise BadValueError("ollama has no RPC: leave rpc out, or use llama-server")
    if offload.output_in_ram:
        raise BadValueError("ollama takes no output_in_ram: use llama-server")
    check_split(offload)
    keys, values = offload.cache_types or ("", "")
    cache_mib = offload.prompt_cache_mib
    attention = offload.flash_attention
    if attention is None and offload.cache_type_v not in UNQUANTISED:
        attention = True  # on some devices Ollama would turn it off, and the load would fail
    variables = {
        "OLLAMA_CONTEXT_LENGTH": str(context),
        "OLLAMA_NUM_PARALLEL": str(parallel),
        "OLLAMA_FLASH_ATTENTION": {None: "", True: "1", False: "0"}[attention],
        "OLLAMA_KV_CACHE_TYPE": keys if keys == values else "",
        # Without it a model that fits on one GPU goes there, whatever the split says.
        "OLLAMA_SCHED_SPREAD": "1" if len(offload.shares) > 1 else "",
        "LLAMA_ARG_FIT": "" if offload.fit else "off",
        "LLAMA_ARG_DEVICE": ",".join(offload.devices),
        "LLAMA_ARG_TENSOR_SPLIT": ",".join(offload.shares),
        "LLAMA_ARG_N_CPU_MOE": str(offload.experts_in_ram or ""),
        "LLAMA_ARG_CACHE_RAM": "" if cache_mib is None else str(cache_mib),
        "LLAMA_ARG_CACHE_TYPE_K": keys if keys != values else "",
        "LLAMA_ARG_CACHE_TYPE_V": values if keys != values else "",
    }
    return {name: value for name, value in variables.items() if value}


def ollama_lines(source: str, *, context: int, parallel: int, offload: Offload) -> str:
    """Return what to paste into a shell: the Modelfile, the server, the model.

    Args:
        source: as in :func:`modelfile`.
        context: tokens of context for each request.
        parallel: how many requests are decoded at once.
        offload: where the model's parts go.

    Raises:
        BadValueError: Ollama cannot be told what the offload says.
    """
    variables = server_variables(context, parallel, offload)
    handed_on = [n for n in variables if n.startswith(HANDED_ON) and n not in OWN]
    lines = ["cat > Modelfile <<'EOF'", modelfile(source, context, offload) + "EOF"]
    lines.append("# Stop an Ollama that runs already: variables are read when its server starts.")
    if handed_on:
        lines.append(
            f"# Ollama itself cannot be told {', '.join(handed_on)}: its runner reads them, where "
            "that is llama-server (as in Ollama 0.32); an older one ignores them."
        )
    serve = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    lines += [
        " ".join([*serve, "ollama serve & pid=$!"]),
        # Until it answers, or has ended: then the next line says that nobody answers.
        "while kill -0 $pid 2>/dev/null && ! ollama list >/dev/null 2>&1; do sleep 1; done",
        f"ollama create {PLANNED_NAME} -f Modelfile",
        f"ollama run {PLANNED_NAME}",
    ]
    return "\n".join(lines)
