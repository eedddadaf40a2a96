"""llama.cpp's own server, asked as OpenAI servers are.

Sources: the server's README and ``--help`` (tools/server in llama.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.engines.served import ServedEngine

if TYPE_CHECKING:
    from pathlib import Path


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
        """Return the command line that starts the server."""
        words = [
            str(program), "--model", str(self._path), "--alias", self.model_id,
            "--host", "127.0.0.1", "--port", str(port),
            # llama.cpp shares one context among its slots.
            "--ctx-size", str(self._context * self._parallel),
            "--parallel", str(self._parallel), "--threads", str(self._threads),
            "--no-webui", "--offline",
        ]  # fmt: skip
        if self._gpu_layers is not None:
            words += ["--n-gpu-layers", str(self._gpu_layers)]
        return words

    def version(self) -> str | None:
        """Return the build that the server names in ``/props``."""
        said = self._ask("GET", "/props").parsed()
        build = said.get("build_info") if isinstance(said, dict) else None
        return f"llama-server {build}" if build else None
