"""llama.cpp's own server, asked as OpenAI servers are.

Sources: the server's README, ``--help`` and ``--list-devices`` (tools/server in llama.cpp).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from shoestring.engines.discovery import check_installed, find_program
from shoestring.engines.install.answers import ask
from shoestring.engines.offload import check_split, flag_words
from shoestring.engines.served import ServedEngine
from shoestring.errors import MissingError

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.engines.offload import Offload

OUTPUT_IN_RAM: Final = r"^(output|token_embd)\.=CPU"
"""The matrix, which may be the embedding's, and what is added to it: all logits would go there."""
LISTED: Final = re.compile(r"\s*(\S+): (.+) \(\d+ MiB, \d+ MiB free\)")
LIST_TIMEOUT_S: Final = 60.0
"""Drivers of GPUs may have to be woken, one after the other."""


class LlamaServerEngine(ServedEngine):
    """A GGUF file served by llama-server in a process of its own.

    Args:
        path: the GGUF file.
        model_id: how the model is named in requests and records.
        settings: those of :class:`ServedEngine`.
    """

    name = "llama-server"
    health_path = "/health"
    key_variable = "LLAMA_API_KEY"

    def __init__(self, path: Path, model_id: str, **settings: Any) -> None:
        super().__init__(path, model_id, fixed_length_field="ignore_eos", **settings)

    def command(self, program: Path, port: int) -> list[str]:
        """Return the command line that starts the server.

        Raises:
            BadValueError: llama.cpp cannot be told what the offload says.
        """
        words = server_words(
            str(program),
            str(self._path),
            port,
            context=self._context,
            parallel=self._parallel,
            offload=self._offload,
        )
        return [*words, "--alias", self.model_id, "--no-webui", "--offline"]

    def version(self) -> str | None:
        """Return the build that the server names in ``/props``."""
        said = self._ask("GET", "/props").parsed()
        build = said.get("build_info") if isinstance(said, dict) else None
        return f"llama-server {build}" if build else None


def list_devices() -> tuple[tuple[str, str], ...]:
    """Ask the llama-server that would be started what it knows beside the processor.

    Returns:
        Name and title of each device, ``CUDA0`` and ``NVIDIA GeForce RTX 3090``: none of a server
        that was built for the processor alone, whatever is in the machine.

    Raises:
        MissingError: it is not installed, or does not say it.
    """
    check_installed(LlamaServerEngine.name)
    program = find_program(LlamaServerEngine.name)
    answer = ask(str(program), "--list-devices", timeout_s=LIST_TIMEOUT_S)
    if answer.failure:
        raise MissingError(
            f"{program} does not list its devices ({answer.failure}): install it anew"
        )
    found = (LISTED.fullmatch(line) for line in answer.lines)
    return tuple((one[1], one[2]) for one in found if one is not None)


def server_words(
    program: str, path: str, port: int, *, context: int, parallel: int, offload: Offload
) -> list[str]:
    """Return the words that start llama-server on loopback.

    Args:
        program: its path or name.
        path: of the GGUF file.
        port: where it shall listen.
        context: tokens of context for each request.
        parallel: how many requests it takes at once.
        offload: where the model's parts go.

    Raises:
        BadValueError: llama.cpp cannot be told what the offload says.
    """
    check_split(offload)
    keys, values = offload.cache_types or (None, None)
    attention = {None: None, True: "on", False: "off"}[offload.flash_attention]
    flags = flag_words(
        ("--model", path),
        ("--host", "127.0.0.1"),
        ("--port", port),
        # llama.cpp shares one context among its slots.
        ("-c", context * parallel),
        ("--parallel", parallel),
        ("--threads", offload.threads),
        ("-b", offload.batch),
        ("-ub", offload.ubatch),
        # Before --device: which devices the servers have is known from here on.
        ("--rpc", ",".join(offload.rpc)),
        ("--device", ",".join(offload.devices)),
        ("-ngl", offload.gpu_layers),
        ("--tensor-split", ",".join(offload.shares)),
        ("--n-cpu-moe", offload.experts_in_ram or None),
        ("--override-tensor", OUTPUT_IN_RAM if offload.output_in_ram else None),
        ("-fa", attention),
        ("--cache-type-k", keys),
        ("--cache-type-v", values),
        ("--cache-ram", offload.prompt_cache_mib),
        ("--fit", None if offload.fit else "off"),
    )
    return [program, *flags]
