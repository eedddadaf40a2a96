"""The gateway's settings: one TOML file, checked whole, each mistake told in one line."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.gateway.settings import (
    EngineSettings,
    RedisSettings,
    Settings,
    load_settings,
    make_settings,
    name_variant,
    variant_of,
)
from shoestring.testing.gateway import toml_text

ENGINE = {"name": "one", "url": "http://127.0.0.1:8080"}
GOOD: dict[str, Any] = {
    "engines": [ENGINE],
    "aliases": {"chat": {"targets": [{"engine": "one", "model": "m:latest"}]}},
}


def mistake(data: dict[str, Any]) -> str:
    """What is said of settings that must not be taken."""
    with pytest.raises(BadValueError) as refused:
        make_settings(data, "--config x.toml")
    return str(refused.value)


def with_target(**changes: Any) -> dict[str, Any]:
    """Settings whose alias has a second target."""
    first = GOOD["aliases"]["chat"]["targets"][0]
    return {**GOOD, "aliases": {"chat": {"targets": [first, {**first, **changes}]}}}


def test_a_file_is_read(tmp_path: Path):
    """What it says, and for the rest what is usual."""
    path = tmp_path / "gateway.toml"
    path.write_text(toml_text({**GOOD, "server": {"port": 9}}))
    settings = load_settings(path)
    assert (settings.server.port, settings.server.host) == (9, "127.0.0.1")
    assert settings.engines[0].url == "http://127.0.0.1:8080"
    assert settings.cache.enabled is False
    assert settings.logs.prompts is False
    assert settings.server.control_tokens == "plain"


@pytest.mark.parametrize("written", [b"[", b"\xff\xfe", b"a = ", b"engines = 5"])
def test_a_file_that_is_none_is_named(tmp_path: Path, written: bytes):
    """With its path, whatever is wrong with it."""
    path = tmp_path / "gateway.toml"
    path.write_bytes(written)
    with pytest.raises(BadValueError, match=r"gateway\.toml"):
        load_settings(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    """Nor a folder in its place."""
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(BadValueError, match=str(path)):
            load_settings(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "engines"),
        ({"engines": []}, "engines"),
        ({**GOOD, "enginse": []}, "enginse"),
        ({**GOOD, "server": {"prot": 1}}, "server.prot"),
        ({**GOOD, "server": {"port": 70_000}}, "server.port"),
        ({**GOOD, "server": {"trusted_proxies": ["10.0.0.1/8"]}}, "trusted_proxies"),
        ({**GOOD, "server": {"drain_s": float("nan")}}, "drain_s"),
        ({**GOOD, "server": {"stall_s": float("inf")}}, "stall_s"),
        ({**GOOD, "server": {"control_tokens": "off"}}, "control_tokens"),
        ({**GOOD, "queue": {"waiting": -1}}, "queue.waiting"),
        ({**GOOD, "limits": {"address": {"concurrent": 0}}}, "limits.address.concurrent"),
        ({**GOOD, "logs": {"level": "loud"}}, "logs.level"),
        ({**GOOD, "redis": {"prefix": "a b"}}, "redis.prefix"),
        ({**GOOD, "aliases": {"a b": GOOD["aliases"]["chat"]}}, "aliases"),
        ({**GOOD, "aliases": {"chat": {"targets": []}}}, "aliases.chat.targets"),
        (with_target(), "same variant"),
        (with_target(engine="two"), "'two'"),
        ({"engines": [ENGINE, ENGINE]}, "same name"),
        ({"engines": [{**ENGINE, "slots": 0}]}, "slots"),
        ({"engines": [{**ENGINE, "name": "a/b"}]}, "name"),
        ({"engines": [{**ENGINE, "kind": "vllm"}]}, "kind"),
    ],
)
def test_a_mistake_is_told_in_one_line(data: dict[str, Any], said: str):
    """Which file, which setting, and what is allowed."""
    line = mistake(data)
    assert line.startswith("--config x.toml: ")
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8080", "ftp://x", "file:///etc/passwd", "http://", "http://u:p@x", "//x",
            "http://x:port", "http://x:99999", "http://x\r\nHost: y", "http://x/a b", "http://x?a=b",
            "http://x#a", "http://\u00fc\u2100.example"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str):
    """Before anything starts, and without a password in the message."""
    line = mistake({"engines": [{**ENGINE, "url": url}]})
    assert "url" in line
    assert "u:p" not in line


@pytest.mark.parametrize(
    ("url", "kept"),
    [("http://x:1/", "http://x:1"), ("http://x/v1", "http://x"), ("http://x/v1/", "http://x"),
     ("https://x/engine/v1", "https://x/engine"), ("http://[::1]:8080", "http://[::1]:8080")],
)  # fmt: skip
def test_an_address_is_kept_without_its_end(url: str, kept: str):
    """People copy it with /v1 or without."""
    assert EngineSettings(name="one", url=url).url == kept


def test_weights_share(tmp_path: Path):
    """One target may get nothing, not all of them."""
    make_settings(with_target(variant="b", weight=0), str(tmp_path))
    first = {"engine": "one", "model": "m", "weight": 0}
    assert "weights are 0" in mistake({**GOOD, "aliases": {"chat": {"targets": [first]}}})


@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*Settings.model_fields, "name", "url", "targets"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_any_data_is_taken_or_told(data: Any):
    """Never another error."""
    try:
        make_settings(data if isinstance(data, dict) else {"engines": data}, "x")
    except BadValueError as error:
        said = str(error)
    else:
        said = "x"
    assert said.startswith("x")


@given(engine=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
       model=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,40}", fullmatch=True))  # fmt: skip
def test_a_variants_name_is_a_plain_word(engine: str, model: str):
    """It stands in headers, labels and names of models."""
    assert not set(name_variant(engine, model)) & set(":/+@ ")


def test_a_variant_may_have_its_own_name():
    """Else it is made of engine and model."""
    targets = make_settings(with_target(variant="b"), "x").aliases["chat"].targets
    assert [variant_of(target) for target in targets] == ["one.m-latest", "b"]


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    """A variable that is named and not set is told; none named is none."""
    engine = EngineSettings(name="one", url="http://x", key_env="ENGINE_KEY")
    redis = RedisSettings(url="redis://x", url_env="REDIS_ADDRESS")
    with pytest.raises(BadValueError, match=r"engines\.one\.key_env names the variable ENGINE_KEY"):
        engine.key()
    with pytest.raises(BadValueError, match="REDIS_ADDRESS"):
        redis.address()
    for odd in ("k\n", "k\r\nHost: y", "k k", "\u00fc"):
        monkeypatch.setenv("ENGINE_KEY", odd)
        with pytest.raises(BadValueError, match="ENGINE_KEY"):
            engine.key()
    monkeypatch.setenv("ENGINE_KEY", "k")
    monkeypatch.setenv("REDIS_ADDRESS", "redis://y")
    assert (engine.key(), redis.address()) == ("k", "redis://y")
    assert EngineSettings(name="one", url="http://x").key() is None
    assert RedisSettings(url="redis://x").address() == "redis://x"


def test_settings_do_not_change():
    """They are read once; aliases change as a whole."""
    settings = make_settings(GOOD, "x")
    with pytest.raises(ValueError, match="frozen"):
        settings.server = settings.server  # type: ignore[misc]
