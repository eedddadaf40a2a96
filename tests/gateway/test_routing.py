"""Which engine answers: keys stick to targets by weight, and a dead engine's place is taken."""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines.launch import Launched, start_on_free_port
from shoestring.gateway.engines import EngineLink, Served
from shoestring.gateway.errors import Refusal
from shoestring.gateway.keys import Key, KeyLimits
from shoestring.gateway.keys_file import create_key
from shoestring.gateway.routing import Router
from shoestring.gateway.settings import Alias, EngineSettings, QueueSettings, Target
from shoestring.testing.gateway import RunningGateway, running_gateway
from shoestring.truth.process import COMMAND

CHAT = "/v1/chat/completions"
MUST_END_S = 60.0
START_S = 30.0
KEYS = 2000


def key(number: int = 0, models: tuple[str, ...] = ()) -> Key:
    """One of many keys."""
    return Key(id=f"key{number:07}", name="k", scopes=frozenset({"inference"}), models=models,
               limits=KeyLimits(), created_utc="2026-11-01T00:00:00Z", expires_utc=None,
               revoked_utc=None, secret_sha256="0" * 64)  # fmt: skip


def link(name: str, *models: str) -> EngineLink:
    """An engine that nobody asks."""
    engine = EngineLink(EngineSettings(name=name, url="http://x"), QueueSettings())
    engine.models = {model: Served(digest=f"{name}-{model}") for model in models}
    return engine


def router(weights: dict[str, float], *, alias: str = "best") -> Router:
    """One alias with a target for each weight, each on an engine of its own."""
    targets = tuple(
        Target(engine=name, model="m", variant=name, weight=weight)
        for name, weight in weights.items()
    )
    return Router([link(name, "m") for name in weights], {alias: Alias(targets=targets)})


def first(made: Router, number: int, name: str = "best") -> str:
    """The variant that a key gets."""
    return made.routes(name, key(number))[0].variant


weight = st.floats(min_value=0.1, max_value=10)
some_weights = st.dictionaries(st.sampled_from("abcdefgh"), weight, min_size=1, max_size=6)


def test_weights_hold_over_many_keys():
    """1 : 2 : 5, each within five standard deviations of what chance gives."""
    weights = {"a": 1.0, "b": 2.0, "c": 5.0}
    got = Counter(first(router(weights), number) for number in range(KEYS))
    for name, one in weights.items():
        share = one / sum(weights.values())
        spread = (KEYS * share * (1 - share)) ** 0.5
        assert abs(got[name] - KEYS * share) < 5 * spread


def test_no_key_comes_to_a_target_without_weight():
    """It is there for when the others are down, and for who asks for it by name."""
    made = router({"a": 1.0, "b": 0.0})
    assert {first(made, number) for number in range(100)} == {"a"}
    assert [route.variant for route in made.routes("best", key())] == ["a", "b"]
    assert first(made, 0, "best@b") == "b"


def test_a_model_that_an_alias_is_for_is_not_listed_beside_it():
    """Unless the key may not use the alias."""
    made = Router(
        [link("one", "m", "other"), link("two", "m")],
        {"best": Alias(targets=(Target(engine="one", model="m"),))},
    )
    assert made.names_for(key()) == ["best", "other", "m"]  # the m of two
    assert made.names_for(key(models=("m", "other"))) == ["m", "other"]
    del made.engines["two"]
    assert made.names_for(key()) == ["best", "other"]
    assert made.routes("m", key())


@given(some_weights, st.sampled_from("abcdefgh"), weight, st.integers(0, 200))
def test_a_changed_target_moves_no_key_between_the_others(
    weights: dict[str, float], name: str, new: float, number: int
):
    """Whoever is not with the changed target afterwards is where it was, or was with that one."""
    before = first(router(weights), number)
    after = first(router({**weights, name: new}), number)
    if new >= weights.get(name, 0):
        assert after in {before, name}
    else:
        assert before in {after, name}


@given(some_weights, st.integers(0, 200))
def test_a_target_that_goes_takes_only_its_own_keys(weights: dict[str, float], number: int):
    """All others stay; its keys go where they would have gone without it.

    The same holds for one that is down, only that it is asked last: it may be back.
    """
    made = router(weights)
    variants = [route.variant for route in made.routes("best", key(number))]
    rest = {name: one for name, one in weights.items() if name != variants[0]}
    if rest:
        assert first(router(rest), number) == variants[1]
    made.engines[variants[0]].went_down("gone")
    assert [route.variant for route in made.routes("best", key(number))] == [
        *variants[1:],
        variants[0],
    ]


@given(some_weights, st.integers(0, 200), st.randoms())
def test_the_order_in_the_file_decides_nothing(weights: dict[str, float], number: int, random: Any):
    """Replicas whose files list targets in another order send a key to the same one."""
    names = list(weights)
    random.shuffle(names)
    assert first(router(weights), number) == first(router({n: weights[n] for n in names}), number)


def test_a_key_is_not_always_the_last():
    """Another alias is another draw: no key has the weak variant of everything."""
    weights = {"a": 1.0, "b": 1.0}
    one, other = router(weights), router(weights, alias="other")
    same = sum(first(one, n) == first(other, n, "other") for n in range(KEYS))
    assert 0.4 * KEYS < same < 0.6 * KEYS


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("best", {"a.m", "b.other"}),
        ("best@a.m", {"a.m"}),
        ("best@b.other", {"b.other"}),
        ("m", {"a.m", "b.m"}),
        ("a/m", {"a.m"}),
        ("b/m", {"b.m"}),
        ("tagged", {"b.tagged-latest"}),
        ("b/tagged:latest", {"b.tagged-latest"}),
        *((name, set()) for name in ("best@", "best@c", "m@a.m", "@a.m", "", "a/", "/m", "c/m",
                                     "BEST", "best@a.m@a.m", "a/b/m")),
    ],
)  # fmt: skip
def test_a_name_means_what_is_listed(name: str, found: set[str]):
    """An alias, one variant of it, a model, or a model of one engine; nothing else."""
    targets = (Target(engine="a", model="m"), Target(engine="b", model="other"))
    engines = [link("a", "m"), link("b", "m", "other", "tagged:latest")]
    made = Router(engines, {"best": Alias(targets=targets)})
    assert made.knows(name) == bool(found)
    if found:
        assert {route.variant for route in made.routes(name, key())} == found
        with pytest.raises(Refusal, match="not here"):
            made.routes(name, replace(key(), models=("nothing",)))
    else:
        with pytest.raises(Refusal, match="not here"):
            made.routes(name, key())


class TruthEngine:
    """A known-truth server that can be killed and comes back on the same port."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._server: Launched | None = None
        self.url = ""
        start_on_free_port(self._start)

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()

    def restart(self) -> None:
        """Start it again where it was."""
        self._start(int(self.url.rpartition(":")[2]))

    def stop(self) -> None:
        """End it, if it runs."""
        if self._server is not None:
            self._server.stop()

    def _start(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command = [*COMMAND, "--port", str(port)]
        self._server = Launched("truth", command, environment={}, log_path=self._log)
        try:
            self._server.wait_until(self._answers, START_S)
        except BaseException:
            self._server.stop()
            raise

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=START_S).status_code == 200
        except requests.ConnectionError:
            return False  # not yet


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[dict[str, TruthEngine]]:
    """Two of them."""
    made = {name: TruthEngine(tmp_path / f"{name}.log") for name in ("one", "two")}
    yield made
    for engine in made.values():
        engine.stop()


@pytest.fixture
def gateway(tmp_path: Path, engines: dict[str, TruthEngine]) -> Iterator[RunningGateway]:
    """A gateway before both, with one alias for each schedule."""
    models = {"fast": "truth-ttft5-itl2-n8", "endless": "truth-ttft5-itl50-n4000"}
    aliases = {
        alias: {"targets": [{"engine": e, "model": model, "variant": f"by-{e}"} for e in engines]}
        for alias, model in models.items()
    }
    told = [{"name": name, "url": engine.url, "slots": 8} for name, engine in engines.items()]
    with running_gateway(tmp_path, {"engines": told, "aliases": aliases}) as running:
        yield running


def ask(gateway: RunningGateway, web: requests.Session, model: str, **more: Any):
    """Ask with the gateway's own key, or another."""
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    arguments: dict[str, Any] = {"headers": gateway.headers, "timeout": MUST_END_S, **more}
    return web.post(gateway.url + CHAT, json=body, **arguments)


def until(look: Callable[[], Any], wanted: Any) -> None:
    """Look until it is so."""
    end = time.monotonic() + MUST_END_S
    while (found := look()) != wanted:
        assert time.monotonic() < end, found


def up(gateway: RunningGateway, web: requests.Session) -> dict[str, str]:
    """Which engines the metrics say are up."""
    text = web.get(f"{gateway.url}/metrics", headers=gateway.headers).text
    return dict(
        re.findall(r'^shoestring_gateway_engine_up{engine="(\w+)"} (\S+)$', text, re.MULTILINE)
    )


def test_a_dead_engines_place_is_taken(
    gateway: RunningGateway, engines: dict[str, TruthEngine], web: requests.Session
):
    """Its requests go to the other without an error; both dead is 503; one back is used again."""
    own = ask(gateway, web, "fast").headers["x-shoestring-engine"]
    (other,) = engines.keys() - {own}
    assert {ask(gateway, web, "fast").headers["x-shoestring-variant"] for _ in range(3)} == {
        f"by-{own}"
    }
    engines[own].kill()
    for _ in range(3):
        answer = ask(gateway, web, "fast")
        assert answer.status_code == 200
        assert answer.headers["x-shoestring-engine"] == other
        assert answer.json()["choices"][0]["message"]["content"] == "w0 w1 w2 w3 w4 w5 w6 w7 "
    assert up(gateway, web) == {own: "0.0", other: "1.0"}
    addressed = ask(gateway, web, f"fast@by-{own}")
    assert addressed.status_code == 503

    engines[other].kill()
    answer = ask(gateway, web, "fast")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_engine")
    assert int(answer.headers["retry-after"]) >= 1
    assert web.get(f"{gateway.url}/health").status_code == 503

    engines[own].restart()
    until(lambda: ask(gateway, web, "fast").status_code, 200)
    until(lambda: up(gateway, web), {own: "1.0", other: "0.0"})
    assert ask(gateway, web, "fast").headers["x-shoestring-engine"] == own


def test_an_engine_that_dies_in_the_middle_is_told_of(
    gateway: RunningGateway, engines: dict[str, TruthEngine], web: requests.Session
):
    """What went out cannot be taken back: the stream ends with an error, not in silence."""
    body = {"model": "endless", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with web.post(
        gateway.url + CHAT, json=body, headers=gateway.headers, stream=True, timeout=MUST_END_S
    ) as answer:
        parts = answer.iter_content(None)
        assert b"w0 " in next(parts)
        engines[answer.headers["x-shoestring-engine"]].kill()
        assert b'"code": "engine_cut"' in b"".join(parts).splitlines()[-2]
    assert ask(gateway, web, "fast").status_code == 200


def test_keys_stick_each_to_its_own(gateway: RunningGateway, web: requests.Session):
    """Some keys get one variant, some the other, and each always the same."""
    headers = []
    for number in range(8):
        _, presented = create_key(gateway.keys_file, f"key-{number}")
        headers.append({"Authorization": f"Bearer {presented}"})
    models = f"{gateway.url}/v1/models"
    until(lambda: [web.get(models, headers=one).status_code for one in headers], [200] * 8)
    got = [
        {ask(gateway, web, "fast", headers=one).headers["x-shoestring-variant"] for _ in range(3)}
        for one in headers
    ]
    assert all(len(variants) == 1 for variants in got)
    for variant in ("by-one", "by-two"):
        named = ask(gateway, web, f"fast@{variant}")
        assert named.headers["x-shoestring-variant"] == variant


@pytest.mark.parametrize(
    "said", [b'{"data":null}', b'{"data":7}', b"[]", b'{"data":[{"id":null},"x",{}]}', b"<html>"]
)
def test_an_engine_that_says_nonsense_is_down_or_empty(said: bytes):
    """Looking at it never fails, or nothing would be looked at any more."""
    assert look_at(said) in {("down", ()), ("healthy", ())}


def look_at(said: bytes) -> tuple[str, tuple[str, ...]]:
    """Look once at an engine that answers this, and return its state and models."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + said)
        writer.close()
        await writer.wait_closed()

    async def look() -> tuple[str, tuple[str, ...]]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            settings = EngineSettings(name="x", url=f"http://127.0.0.1:{port}")
            engine = EngineLink(settings, QueueSettings())
            await engine.look()
            return engine.state, tuple(engine.models)

    return asyncio.run(look())
