"""Ollama: one that runs at a base URL is adopted, else one of our own is started on a free port.

It is asked by its native API, whose last line holds the engine's own durations. A model from
Ollama's library is pulled where it is missing; a GGUF file is given to it under a name that comes
from its hash, and taken back from an adopted one. Loading begins by unloading: then the load is a
real one, and no earlier run has left this run's prompts in the runner's cache.
Sources: ``docs/api.md`` and ``docs/faq.md`` of Ollama.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from shoestring.engines.discovery import MENDS, find_program
from shoestring.engines.http_engine import HttpEngine
from shoestring.engines.launch import NOBODYS_URL, Launched, start_on_free_port
from shoestring.engines.offload import Offload
from shoestring.engines.ollama_api import OllamaApi
from shoestring.engines.ollama_modelfile import model_options, server_variables
from shoestring.engines.ollama_processes import count_by_runner, find_runner, find_server
from shoestring.engines.ollama_stream import read_ollama_stream
from shoestring.engines.prefixes import SharedPrefixes
from shoestring.engines.protocol import EngineMemory, Span
from shoestring.engines.transport import parse_base_url
from shoestring.errors import EngineLostError, MissingError
from shoestring.hardware.cores import usable_cores
from shoestring.models.facts import facts_of
from shoestring.models.library import header_of_shown, weights_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from shoestring.engines.events import Reading
    from shoestring.engines.http_engine import Reader
    from shoestring.engines.openai import Endpoint
    from shoestring.engines.protocol import Prompt
    from shoestring.models.facts import ModelFacts
    from shoestring.models.fetch import ModelFile

START_LIMIT_S = 60.0
FOR_EVER, NOT_AT_ALL = -1, 0
RUNNER_TRIES = 4
"""So often a runner that is gone is asked for again, a second later each time."""
ADOPTED_KEEP_ALIVE = "30m"
"""Longer than between two requests; and then the model of a killed run leaves memory."""


class OllamaEngine(HttpEngine):
    """A model in Ollama.

    Args:
        model: what Ollama shall load: a name of its library, or a file to be given to it.
        base_url: of a running Ollama that is adopted; None: start our own.
        context: tokens of context for each of ``parallel`` slots.
        parallel: how many requests are decoded at once; of our own server only.
        offload: where the model's parts go; threads that are left open are the cores that this
            process may use; an adopted server is only told what are parameters of a model.
        endpoint: ``completions`` sends the prompt raw, ``chat`` through the model's template.
        store: where our own server keeps models; None: where the user's Ollama keeps them.
        log_path: where our own server's log goes; None drops it.
        pulled: called with bytes done and bytes in all while a model is pulled.

    Raises:
        BadValueError: Ollama cannot be told what the offload says.
    """

    name = "ollama"
    stream_type = "application/x-ndjson"
    health_path: ClassVar[str] = "/api/version"

    def __init__(
        self,
        model: str | ModelFile,
        *,
        base_url: str | None = None,
        context: int = 2048,
        parallel: int = 1,
        offload: Offload = Offload(),  # noqa: B008 - frozen
        endpoint: Endpoint = "chat",
        store: Path | None = None,
        log_path: Path | None = None,
        pulled: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        name = model if isinstance(model, str) else f"shoestring-{model.sha256[:12]}"
        super().__init__(base_url or NOBODYS_URL, name)
        self.endpoint: Endpoint = endpoint
        self._file = None if isinstance(model, str) else model
        self._adopted = base_url is not None
        self._keep_alive: int | str = ADOPTED_KEEP_ALIVE if self._adopted else FOR_EVER
        self._created = False
        self._parallel = parallel
        self._decided = offload.decided()
        offload = replace(offload, threads=offload.threads or usable_cores())
        self._model_options = model_options(context, offload)
        self._variables = server_variables(context, parallel, offload)
        self._store = store
        self._log_path = log_path
        self._pulled = pulled
        self._launched: Launched | None = None
        self._adopted_pid: int | None = None
        self._api: OllamaApi | None = None
        self._spans: list[Span] = []
        self._origin_s = 0.0
        self._shared = SharedPrefixes()
        self._tokens_of: dict[str, int | None] = {}
        self._runner: str | None = None
        self._version: str | None = None

    @property
    def pid(self) -> int | None:
        """Our own server's process id; an adopted one's where it can be seen on this machine."""
        launched = self._launched  # read once: another thread may end it
        return launched.pid if launched is not None else self._adopted_pid

    @property
    def options(self) -> dict[str, Any]:
        """Context, threads, endpoint; slots of our own server, for an adopted one has its own."""
        return {
            **self._model_options,
            **self._decided,
            "parallel": None if self._adopted else self._parallel,
            "endpoint": self.endpoint,
            "adopted": self._adopted,
        }

    def start(self) -> None:
        """Look for the running Ollama, or start our own.

        Raises:
            MissingError: it does not run, or none is installed.
            EngineLostError: ours died at once, or does not answer.
        """
        self._origin_s = time.monotonic()
        self._spans = []
        if not self._adopted:
            start_on_free_port(self._launch)
        self._api = OllamaApi(self._address.url)
        self._version = self._api.version()
        self._adopted_pid = find_server(self._address) if self._adopted else None
        self._note("start process")

    def load(self) -> None:
        """Bring the model to Ollama where it is missing, then load it anew.

        Raises:
            BadModelError: Ollama does not know the model, or cannot use it.
        """
        self.bring()
        self._note("bring model")
        self.unload()
        self._load_model()
        self._note("load model")
        self._runner = self._find_runner()

    def bring(self) -> None:
        """Have the model in Ollama: give it the file, or pull what it lacks from its library.

        Raises:
            BadModelError: Ollama does not know the model, or does not take the file.
        """
        api = self._asked_api()
        missing = api.listed(self.model_id) is None
        if self._file is not None:
            self._created |= missing
            api.create(self.model_id, self._file.path, self._file.sha256)
        elif missing:
            api.pull(self.model_id, self._pulled)

    def describe(self) -> tuple[ModelFacts, str | None]:
        """Return the facts of the model that was brought, and the SHA-256 of its weights.

        Raises:
            BadModelError: Ollama does not say what it is.
        """
        api = self._asked_api()
        shown, listed = api.show(self.model_id), api.listed(self.model_id) or {}
        header = header_of_shown(self.model_id, shown, listed.get("size"))
        return facts_of(header), weights_sha256(shown)

    def unload(self) -> None:
        """Have the model leave memory, and wait until it has.

        Raises:
            EngineLostError: it stays.
        """
        api = self._asked_api()
        self._shared, self._tokens_of, self._runner = SharedPrefixes(), {}, None
        if api.loaded(self.model_id) is None:
            return
        api.keep(self.model_id, NOT_AT_ALL, {})
        deadline_s = time.monotonic() + START_LIMIT_S
        pause = threading.Event()
        while api.loaded(self.model_id) is not None:
            if time.monotonic() > deadline_s:
                raise EngineLostError(f"Ollama does not unload {self.model_id}: is it in use?")
            pause.wait(0.05)

    def stop(self) -> None:
        """End our own server; an adopted one only loses the model, and what it was given."""
        launched, self._launched = self._launched, None
        if launched is not None:
            launched.stop()
        api, self._api = self._api, None
        if api is None:
            return
        try:
            if self._adopted:
                self._leave(api)
        finally:
            api.close()

    def spans(self) -> list[Span]:
        """Return the steps of the start: process, bringing the model, loading it."""
        return list(self._spans)

    def version(self) -> str | None:
        """Return what the server says it is."""
        return f"ollama {self._version}" if self._version else None

    def lost(self) -> str | None:
        """Say how our own server died, once it has."""
        launched = self._launched
        return launched.death() if launched is not None else None

    def memory(self) -> EngineMemory | None:
        """Return what ``/api/ps`` says; the 0 of some CPU-only builds says nothing."""
        said = self._asked_api().loaded(self.model_id)
        if said is None or not said.get("size"):
            return None
        vram = said.get("size_vram")
        return EngineMemory(int(said["size"]), None if vram is None else int(vram))

    def count_tokens(self, text: str) -> int | None:
        """Count by the runner, where it can; Ollama itself does not tokenise.

        Ollama replaces a runner that died: then the model is loaded again and the new one asked.

        Raises:
            MissingError: it counted before and does not any more.
        """
        if self._runner is None:
            return None
        tokens = count_by_runner(self._runner, text)
        pause = threading.Event()
        for attempt in range(RUNNER_TRIES):
            if tokens is not None:
                return tokens
            pause.wait(attempt)  # Ollama may not have noticed yet that its runner is gone
            self._load_model()
            if self._adopted:  # it may have been started again: then it is another process
                self._adopted_pid = find_server(self._address)
            self._runner = self._find_runner() or self._runner
            tokens = count_by_runner(self._runner, text)
        if tokens is None:
            raise MissingError(
                f"the runner of {self.model_id} counted tokens before and does not any more: "
                "look at Ollama, then go on with --resume"
            )
        return tokens

    def _request(self, prompt: Prompt) -> tuple[str, dict[str, Any]]:
        options: dict[str, Any] = {
            **self._model_options,
            "num_predict": prompt.max_tokens,
            "temperature": prompt.temperature,
        }
        if prompt.seed is not None:
            options["seed"] = prompt.seed
        body: dict[str, Any] = {
            "model": self.model_id,
            "options": options,
            "keep_alive": self._keep_alive,
            "stream": True,
        }
        if prompt.schema is not None:
            body["format"] = prompt.schema
        if prompt.thinking is not None:
            body["think"] = prompt.thinking
        if self.endpoint == "completions":
            return "/api/generate", {**body, "prompt": prompt.whole_text, "raw": True}
        return "/api/chat", {**body, "messages": prompt.messages}

    def _reader(self, prompt: Prompt) -> Reader:
        common = self._shared.add(prompt.whole_text)
        return partial(self._read, common)

    def _read(self, common: str | None, arrivals: Iterable[tuple[int, bytes]]) -> Reading:
        return read_ollama_stream(arrivals, shared_tokens=self._shared_tokens(common))

    def _shared_tokens(self, common: str | None) -> int | None:
        """Count the tokens of what the prompt shares with an earlier one; None where unknown."""
        if self.endpoint == "chat":
            return None  # what the template puts before the text is not known here
        if common is None:
            return 0
        runner, counted = self._runner, self._tokens_of  # read once: unloading puts new ones there
        if runner is None:
            return None
        if common not in counted:
            counted[common] = count_by_runner(runner, common)
        return counted[common]

    def _load_model(self) -> None:
        self._asked_api().keep(self.model_id, self._keep_alive, self._model_options)

    def _find_runner(self) -> str | None:
        return find_runner(self.pid, weights_sha256(self._asked_api().show(self.model_id)))

    def _leave(self, api: OllamaApi) -> None:
        """Leave an adopted server as it was, but for what was pulled and what was in memory."""
        if api.loaded(self.model_id) is not None:
            api.keep(self.model_id, NOT_AT_ALL, {})
        if self._created:
            api.delete(self.model_id)
            self._created = False

    def _launch(self, port: int) -> None:
        program = find_program("ollama")
        if program is None:
            raise MissingError(f"engine ollama neither runs nor is installed: {MENDS['ollama']}")
        url = f"http://127.0.0.1:{port}"
        environment = {
            **self._variables,
            "OLLAMA_HOST": url,
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_NO_CLOUD": "1",
            "OLLAMA_NOPRUNE": "1",
        }
        if self._store is not None:
            environment["OLLAMA_MODELS"] = str(self._store)
        self._launched = Launched(
            "ollama", [str(program), "serve"], environment=environment, log_path=self._log_path
        )
        self._address = parse_base_url(url)
        try:
            self._launched.wait_until(self.healthy, START_LIMIT_S)
        except EngineLostError:
            self.stop()
            raise

    def _asked_api(self) -> OllamaApi:
        if self._api is None:
            raise MissingError("Ollama was not started: start comes first")
        return self._api

    def _note(self, step: str) -> None:
        begun_s = self._spans[-1].end_s if self._spans else 0.0
        self._spans.append(Span(step, begun_s, time.monotonic() - self._origin_s))
