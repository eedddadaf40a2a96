"""What Ollama is asked beside the timed requests: models, pulls, blobs, processes.

Source: ``docs/api.md`` of Ollama.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from shoestring.errors import BadModelError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import requests

TIMEOUT_S = 10.0
SILENCE_S = 600.0
"""Longest silence while a model is fetched, made or loaded."""
REGISTRY = "registry.ollama.ai/"


class OllamaApi:
    """The untimed side of one Ollama server.

    Args:
        url: ``http://HOST:PORT``.

    Every method raises MissingError where nobody answers or the server cannot do it.
    """

    def __init__(self, url: str) -> None:
        import requests

        self.url = url
        self._session: requests.Session = requests.Session()
        self._session.trust_env = False  # the timed path knows no proxy either

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close idle connections."""
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def get(self, path: str) -> dict[str, Any]:
        """Return the object that a GET of the API answers with."""
        return self._object(path, self._send("GET", path, timeout=TIMEOUT_S))

    def version(self) -> str:
        """Return the version that the server names."""
        return str(self.get("/api/version").get("version"))

    def listed(self, model: str) -> dict[str, Any] | None:
        """Return what ``/api/tags`` tells of the model, or None where the server lacks it."""
        return self._find(self.get("/api/tags"), model)

    def show(self, model: str) -> dict[str, Any]:
        """Return what ``/api/show`` tells of a model that the server has."""
        return self._object(
            "/api/show", self._send("POST", "/api/show", json={"model": model}, timeout=TIMEOUT_S)
        )

    def loaded(self, model: str) -> dict[str, Any] | None:
        """Return what ``/api/ps`` tells of the model, or None while it is not in memory."""
        return self._find(self.get("/api/ps"), model)

    def vram_bytes(self) -> int:
        """Return what all models in memory hold on GPUs, as ``/api/ps`` says."""
        models = self.get("/api/ps").get("models") or []
        return sum(int(model.get("size_vram") or 0) for model in models)

    def pull(self, model: str, progress: Callable[[int, int], None]) -> None:
        """Fetch a model from Ollama's library.

        Args:
            model: its name.
            progress: called with bytes done and bytes in all; not at all where it takes less than
                the 60 ms between two of Ollama's reports.

        Raises:
            BadModelError: the library does not have it.
        """
        done: dict[str, tuple[int, int]] = {}
        for said in self._stream("/api/pull", {"model": model}):
            if "error" in said:
                raise BadModelError(
                    f"Ollama cannot pull {model}: {said['error']}; check the name and the network"
                )
            if said.get("digest") and said.get("total"):
                done[said["digest"]] = (int(said.get("completed") or 0), int(said["total"]))
                progress(sum(d for d, _ in done.values()), sum(t for _, t in done.values()))
        if whole := sum(total for _, total in done.values()):
            progress(whole, whole)  # Ollama does not say that the last bytes are there

    def create(
        self, model: str, path: Path, sha256: str, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Make a model of a GGUF file; its bytes are sent only where the server lacks them.

        Args:
            model: the name that it gets.
            path: of the file.
            sha256: of the file.
            settings: ``template`` and ``parameters`` of the model; default: Ollama decides.

        Raises:
            BadModelError: the server does not take the file.
        """
        digest = f"sha256:{sha256}"
        held = self._send("HEAD", f"/api/blobs/{digest}", timeout=TIMEOUT_S)
        if held.status_code != HTTPStatus.OK:
            with path.open("rb") as file:
                sent = self._send("POST", f"/api/blobs/{digest}", data=file, timeout=SILENCE_S)
            if sent.status_code != HTTPStatus.CREATED:
                raise MissingError(f"{self.url} does not take {path.name}: {_why(sent)}")
        body = {"model": model, "files": {path.name: digest}, **(settings or {})}
        for said in self._stream("/api/create", body):
            if "error" in said:
                raise BadModelError(f"Ollama cannot use {path.name}: {said['error']}")

    def delete(self, model: str) -> None:
        """Take a model out of the server's store, and its weights, if no other model has them."""
        answer = self._send("DELETE", "/api/delete", json={"model": model}, timeout=TIMEOUT_S)
        if answer.status_code not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise MissingError(f"{self.url} keeps {model}: {_why(answer)}; run: ollama rm {model}")

    def keep(self, model: str, keep_alive: int | str, options: dict[str, Any]) -> None:
        """Load a model for a time ("30m"), for ever (-1), or have it leave memory (0).

        Raises:
            BadModelError: the server cannot load it.
        """
        body = {"model": model, "keep_alive": keep_alive, "options": options, "stream": False}
        answer = self._send("POST", "/api/generate", json=body, timeout=SILENCE_S)
        if answer.status_code != HTTPStatus.OK:
            raise BadModelError(f"Ollama cannot load {model}: {_why(answer)}")

    def count_generated(self, model: str, prompt: str, tokens: int) -> int:
        """Have a model go on with a text; return how many tokens came.

        Raises:
            BadModelError: the server cannot run it.
        """
        body = {
            "model": model, "prompt": prompt, "raw": True, "stream": False,
            "options": {"num_predict": tokens},
        }  # fmt: skip
        answer = self._send("POST", "/api/generate", json=body, timeout=SILENCE_S)
        if answer.status_code != HTTPStatus.OK:
            raise BadModelError(f"Ollama cannot run {model}: {_why(answer)}")
        return int(self._object("/api/generate", answer).get("eval_count") or 0)

    def _object(self, path: str, answer: requests.Response) -> dict[str, Any]:
        try:
            said = answer.json()
        except ValueError as error:
            raise MissingError(f"{self.url}{path} is not Ollama's: {_why(answer)}") from error
        if answer.status_code != HTTPStatus.OK or not isinstance(said, dict):
            raise MissingError(f"{self.url}{path} is not Ollama's: {_why(answer)}")
        return said

    def _stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self._send("POST", path, json=body, stream=True, timeout=SILENCE_S) as answer:
            try:
                for line in answer.iter_lines():
                    if line:
                        yield json.loads(line)
            except (OSError, ValueError) as error:
                raise MissingError(f"{self.url}{path} broke off: {error}; try again") from error

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            return self._session.request(method, self.url + path, **options)
        except OSError as error:  # what requests raises is one, too
            raise MissingError(
                f"Ollama does not answer at {self.url} ({type(error).__name__}): start it with "
                "`ollama serve`"
            ) from error

    @staticmethod
    def _find(said: dict[str, Any], model: str) -> dict[str, Any] | None:
        wanted, models = shown_name(model), said.get("models") or []
        return next((m for m in models if shown_name(str(m.get("name"))) == wanted), None)


def shown_name(name: str) -> str:
    """Return a model's name as Ollama shows it, in small letters, for comparing."""
    short = name.casefold().removeprefix(REGISTRY).removeprefix("library/")
    tagged = ":" in short.rpartition("/")[2]  # before that it is a registry's port
    return short if tagged else f"{short}:latest"


def _why(answer: requests.Response) -> str:
    try:
        said = answer.json()
    except ValueError:
        said = None
    text = said.get("error") if isinstance(said, dict) else answer.text
    return f"HTTP {answer.status_code} {' '.join(str(text).split())[:300]}"
