"""What the gateway is told: one TOML file, every setting of it, checked before anything starts.

Secrets are not in it: keys of clients lie in a file of their own, keys of engines and the address
of Redis may come from named environment variables. Sizes are bytes, durations seconds.
"""

from __future__ import annotations

import os
import re
import tomllib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shoestring.errors import BadValueError
from shoestring.paths import state_dir

_PLAIN = re.compile(r"[!-~]+")
_PASSWORD = re.compile(r"//[^/]*@")
Kind = Literal["ollama", "llama-server", "openai"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/+-]{0,199}$")]
Count = Annotated[int, Field(ge=1, le=10**12)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=1, le=2**40)]


class Section(BaseModel):
    """A part of the file: unknown names are refused, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(Section):
    """How clients are heard.

    ``trusted_proxies`` alone may say for whom they ask. ``stall_s`` is how long a client may not
    read, ``drain_s`` how long answers may go on once the gateway shall end.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    connections: int = Field(default=4096, ge=1, le=65_536)
    max_head_bytes: Bytes = 32 * 2**10
    max_body_bytes: Bytes = 2 * 2**20
    max_prompt_bytes: Bytes = 2**20
    max_answer_bytes: Bytes = 16 * 2**20
    max_answer_tokens: Count = 32_768
    head_timeout_s: Seconds = 10.0
    body_timeout_s: Seconds = 30.0
    stall_s: Seconds = 30.0
    drain_s: Seconds = 30.0
    dashboard: bool = True
    control_tokens: Literal["plain", "refuse", "as-sent"] = "plain"


class EngineSettings(Section):
    """One engine: an Ollama, a llama-server, or any other OpenAI-compatible server.

    ``slots`` is how many requests it works on at once, ``idle_s`` how long it may send nothing,
    ``digest`` says which weights it serves where it does not say so itself (Ollama does).
    """

    name: Name
    kind: Kind = "openai"
    url: str
    slots: int = Field(default=1, ge=1, le=4096)
    key_env: str | None = None
    models: tuple[ModelId, ...] = ()
    digest: str | None = Field(default=None, max_length=128)
    idle_s: Seconds = 300.0

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ValueError("no password belongs in it: use key_env")
        # The port is read here so that a wrong one is refused here.
        known = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        if not known or parts.query or parts.fragment or not _PLAIN.fullmatch(url):
            raise ValueError("give http://HOST:PORT")
        return url.rstrip("/").removesuffix("/v1")

    def key(self) -> str | None:
        """Return the engine's own key out of the environment.

        Raises:
            BadValueError: the variable is not set.
        """
        if self.key_env is None:
            return None
        return _from_environment(self.key_env, f"engines.{self.name}.key_env")


class Target(Section):
    """One place that may answer for an alias; ``variant`` names it in answers and metrics."""

    engine: Name
    model: ModelId
    variant: Name | None = None
    weight: float = Field(default=1.0, ge=0, le=1e6)


class Alias(Section):
    """A name that clients ask for; each key sticks to one target as long as that is up."""

    targets: tuple[Target, ...] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _told_apart(self) -> Alias:
        names = [variant_of(target) for target in self.targets]
        if len(set(names)) < len(names):
            raise ValueError("two targets have the same variant: name them apart")
        if not any(target.weight for target in self.targets):
            raise ValueError("all weights are 0: give one target a weight")
        return self


class AddressLimits(Section):
    """Of one client address (IPv6: one /64), whatever keys it uses."""

    requests_per_minute: Count | None = None
    concurrent: Count | None = None


class LimitSettings(Section):
    """Of each key that has none of its own; None: no limit.

    ``assumed_answer_tokens`` is set aside for a request that names no maximum.
    """

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None
    budget_tokens: Count | None = None
    budget_period: Literal["day", "month", "ever"] = "month"
    assumed_answer_tokens: Count = 512
    address: AddressLimits = AddressLimits()


class QueueSettings(Section):
    """How many may wait for an engine, and how long a request may take, waiting included."""

    waiting: int = Field(default=64, ge=0, le=100_000)
    waiting_per_key: int = Field(default=16, ge=0, le=100_000)
    deadline_s: Seconds = 600.0


class CacheSettings(Section):
    """Answers of deterministic requests, kept; ``shared``: also across keys."""

    enabled: bool = False
    max_bytes: Bytes = 64 * 2**20
    max_entry_bytes: Bytes = 2**20
    ttl_s: Seconds = 3600.0
    shared: bool = False


class RedisSettings(Section):
    """Where replicas count together; absent: each counts for itself.

    A Redis that does not answer within ``patience_s`` is lost: one in another place needs more.
    """

    url: str | None = None
    url_env: str | None = None
    prefix: Name = "shoestring"
    patience_s: Seconds = 0.075

    def address(self) -> str | None:
        """Return Redis' URL, or None without one.

        Raises:
            BadValueError: the variable is not set.
        """
        if self.url_env is not None:
            return _from_environment(self.url_env, "redis.url_env")
        return self.url


class LogSettings(Section):
    """What is logged; ``prompts`` writes what users ask, so it is off."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    prompts: bool = False


class KeySettings(Section):
    """Where the keys of clients are."""

    file: Path = Field(default_factory=lambda: state_dir() / "gateway" / "keys.json")


class Settings(Section):
    """All of it."""

    server: ServerSettings = ServerSettings()
    engines: tuple[EngineSettings, ...] = Field(min_length=1, max_length=64)
    aliases: dict[ModelId, Alias] = {}
    limits: LimitSettings = LimitSettings()
    queue: QueueSettings = QueueSettings()
    cache: CacheSettings = CacheSettings()
    redis: RedisSettings = RedisSettings()
    logs: LogSettings = LogSettings()
    keys: KeySettings = Field(default_factory=KeySettings)

    @model_validator(mode="after")
    def _engines_known(self) -> Settings:
        names = [engine.name for engine in self.engines]
        if len(set(names)) < len(names):
            raise ValueError("two engines have the same name")
        for alias, meant in self.aliases.items():
            for target in meant.targets:
                if target.engine not in names:
                    raise ValueError(
                        f"alias {alias} names engine {target.engine!r}; there are {names}"
                    )
        return self


def variant_of(target: Target) -> str:
    """Return how a target is named in answers and metrics."""
    return target.variant or name_variant(target.engine, target.model)


def name_variant(engine: str, model: str) -> str:
    """Return the variant of a target that has no name of its own."""
    return _NO_NAME.sub("-", f"{engine}.{model}")


_NO_NAME = re.compile(r"[^A-Za-z0-9._-]")


def load_settings(path: Path) -> Settings:
    """Read the file.

    Raises:
        BadValueError: it cannot be read, is no TOML, or holds something that cannot be used.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadValueError(f"cannot read --config {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadValueError(f"--config {path} is no TOML: {error}") from error
    return make_settings(data, f"--config {path}")


def make_settings(data: dict[str, Any], source: str) -> Settings:
    """Check settings.

    Args:
        data: as read from TOML.
        source: named in the message.

    Raises:
        BadValueError: one line says which setting, what it was, and what is allowed.
    """
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        value = first.get("input")
        given = f" (got {value!r:.80})" if isinstance(value, str | int | float | bool) else ""
        given = _PASSWORD.sub("//...@", given)
        said = first["msg"].removeprefix("Value error, ")
        raise BadValueError(f"{source}: {where}: {said}{given}") from error


def _from_environment(variable: str, setting: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise BadValueError(f"{setting} names the variable {variable}, which is not set")
    if not _PLAIN.fullmatch(value):
        raise BadValueError(
            f"{setting} names the variable {variable}, which holds a blank, the end of a line, "
            "or what is not ASCII: set it to the secret alone"
        )
    return value
