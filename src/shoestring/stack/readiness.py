"""Whether a node is usable: the model answers, on the GPU where there is one, and in Open WebUI."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from shoestring.engines.ollama import ADOPTED_KEEP_ALIVE, FOR_EVER
from shoestring.engines.ollama_api import OllamaApi, shown_name
from shoestring.errors import BadValueError, ShoestringError
from shoestring.hardware.gpus import list_gpus
from shoestring.models.facts import read_facts
from shoestring.models.library import weights_sha256
from shoestring.models.names import parse_model_name
from shoestring.models.progress import ProgressBar
from shoestring.stack.credentials import NAME as CREDENTIALS
from shoestring.stack.credentials import read_credentials
from shoestring.stack.gpu_use import GpuUse, judge_gpu_use
from shoestring.stack.node import OLLAMA, OPEN_WEBUI, write_wanted
from shoestring.stack.open_webui.client import OpenWebUi
from shoestring.stack.open_webui.environment import pinned_version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shoestring.engines.protocol import Span
    from shoestring.models.fetch import ModelFile
    from shoestring.stack.node import Node, Wanted
    from shoestring.stack.timeline import Timeline

PROMPT = "The capital of France is"
BASE_MODEL = {"template": "{{ .Prompt }}", "parameters": {"num_predict": 96}}
"""A model without a chat template goes on with what was typed, and does not know when to stop."""
ANSWER_TOKENS = 16
"""Enough to see a stream, and little enough for a slow machine."""


@dataclass(frozen=True)
class Ready:
    """A node that answers.

    Attributes:
        folder: the node's.
        node: what runs.
        asked: the model as it was asked for.
        model: as Ollama knows it.
        gpu: where the model is.
        cold_start: the steps of this call.
    """

    folder: Path
    node: Node
    asked: str
    model: str
    gpu: GpuUse
    cold_start: tuple[Span, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as ``shoestring up --json`` prints it."""
        ollama, webui = self.node.service(OLLAMA), self.node.service(OPEN_WEBUI)
        assert ollama is not None
        with OllamaApi(ollama.url) as api:
            version = api.version()
        return {
            "status": "ready",
            "folder": str(self.folder),
            "ollama": {
                "url": ollama.url,
                "pid": ollama.pid,
                "adopted": ollama.adopted,
                "version": version,
            },
            "open_webui": None
            if webui is None
            else {
                "url": webui.url,
                "pid": webui.pid,
                "version": pinned_version(),
                "user": read_credentials(self.folder).user,
                "password_file": str(self.folder / CREDENTIALS),
            },
            "model": {"asked": self.asked, "name": self.model},
            "gpu": asdict(self.gpu),
            "cold_start": [asdict(span) for span in self.cold_start],
        }


def name_in_ollama(model: str) -> str:
    """Return the name under which people find a model in Ollama and Open WebUI.

    ``ollama:NAME`` keeps its own; a file's comes from what the user typed.
    """
    parsed = parse_model_name(model)
    if parsed.scheme in ("ollama", "pypi"):
        return parsed.rest
    if parsed.scheme == "shape":
        name, _, quantisation = parsed.rest.rpartition(":")
        return _plain(f"shape-{name}") + f":{quantisation.lower()}"
    return _plain(parsed.path.stem if parsed.scheme == "file" else parsed.rest.rsplit("/", 1)[1])


def _plain(text: str) -> str:
    """Leave only what a name in Ollama may hold."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    return kept.removesuffix(".gguf").strip("._-").lower() or "model"


def load_model(
    model: str, file: ModelFile | None, wanted: Wanted, folder: Path, timeline: Timeline
) -> tuple[str, GpuUse]:
    """Bring the model to Ollama, load it, and have it say a token.

    Returns:
        Its name there, and where it is.

    Raises:
        BadModelError: Ollama does not have it, or cannot run it.
    """
    name = name_in_ollama(model)
    with OllamaApi(wanted.ollama_url) as api:
        if wanted.ollama_adopted and file is not None and api.listed(name) is None:
            # Noted first: whatever happens now, it is taken back at the end.
            wanted = replace(wanted, given=(*wanted.given, name))
            write_wanted(folder, wanted)
        with timeline.step("bring model to Ollama"):
            _bring(api, name, file, adopted=wanted.ollama_adopted)
        gpus = list_gpus().gpus
        before = None if api.vram_bytes() else _vram_bytes(gpus)
        with timeline.step("load model"):
            api.keep(name, ADOPTED_KEEP_ALIVE if wanted.ollama_adopted else FOR_EVER, {})
        write_wanted(folder, replace(wanted, model=name))
        with timeline.step("first token"):
            if api.count_generated(name, PROMPT, 1) < 1:
                raise ShoestringError(f"{name} was asked for a token and gave none; see ollama.log")
        use = judge_gpu_use(gpus, api.loaded(name), before, _vram_bytes(gpus))
    return name, use


def _bring(api: OllamaApi, name: str, file: ModelFile | None, *, adopted: bool) -> None:
    """Give Ollama the file, or have it pull the model; nothing where it has it already.

    Raises:
        BadValueError: an adopted Ollama has another model of that name, which is not ours to
            replace.
    """
    listed = api.listed(name) is not None
    if file is not None:
        other = listed and weights_sha256(api.show(name)) != file.sha256
        if other and adopted:
            raise BadValueError(
                f"the Ollama that runs has another model {name}: rename the file, or give "
                "--ollama-port for an Ollama of our own"
            )
        if other or not listed:
            instructed = read_facts(file.path).chat_template
            api.create(name, file.path, file.sha256, None if instructed else BASE_MODEL)
    elif not listed:
        with ProgressBar(f"pulling {name}") as bar:
            api.pull(name, bar.update)


def check_open_webui(wanted: Wanted, folder: Path, model: str, timeline: Timeline) -> None:
    """See that strangers are refused, sign in, and have the model answer there.

    Raises:
        ShoestringError: one of these fails; says which.
    """
    assert wanted.open_webui_url is not None
    with timeline.step("first answer in Open WebUI"), OpenWebUi(wanted.open_webui_url) as page:
        page.check_closed()
        page.sign_in(read_credentials(folder))
        wanted_name = shown_name(model)
        found = next((one for one in page.models() if shown_name(one) == wanted_name), None)
        if found is None:
            raise ShoestringError(f"Open WebUI does not show {model}; see open-webui.log")
        page.ask(found, PROMPT, max_tokens=ANSWER_TOKENS)


def _vram_bytes(gpus: Sequence[object]) -> dict[int, int | None]:
    """Return the VRAM in use on each GPU; nothing where there is none."""
    if not gpus:
        return {}
    from shoestring.hardware.nvml import GpuReader

    reader = GpuReader()
    try:
        return reader.used_bytes()
    finally:
        reader.close()
