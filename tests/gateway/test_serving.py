"""A replica as a process: how it ends, how it takes changed files, what it does not start with."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from shoestring.errors import UserError
from shoestring.gateway.cli import serve
from shoestring.gateway.keys_file import create_key
from shoestring.gateway.service import open_gateway
from shoestring.gateway.settings import make_settings
from shoestring.testing.gateway import COMMAND, RunningGateway, running_gateway, toml_text

CHAT = "/v1/chat/completions"
MUST_END_S = 60.0
MODELS = {
    "fast": "truth-ttft5-itl2-n8",
    "short": "truth-ttft5-itl20-n300",
    "endless": "truth-ttft5-itl50-n4000",
}


def settings(truth_url: str, **more: Any) -> dict[str, Any]:
    """One engine that works on two requests at a time, under three names."""
    aliases = {
        name: {"targets": [{"engine": "truth", "model": model}]} for name, model in MODELS.items()
    }
    engines = [{"name": "truth", "url": truth_url, "slots": 2}]
    return {"engines": engines, "aliases": aliases, **more}


def until(look: Callable[[], Any], wanted: Any) -> None:
    """Look until it is so."""
    end = time.monotonic() + MUST_END_S
    while (found := look()) != wanted:
        assert time.monotonic() < end, found


def ask(gateway: RunningGateway, model: str, *, stream: bool = False) -> requests.Response:
    """Ask for an answer; a stream has begun when this returns."""
    with requests.Session() as session:
        session.trust_env = False
        return session.post(
            gateway.url + CHAT,
            json={"model": model, "messages": [{"role": "user", "content": "x"}], "stream": stream},
            headers=gateway.headers,
            stream=stream,
            timeout=MUST_END_S,
        )


@contextmanager
def streaming(gateway: RunningGateway, model: str) -> Iterator[Iterator[bytes]]:
    """Begin a stream; gives what comes after its first words."""
    with closing(ask(gateway, model, stream=True)) as answer:
        parts = answer.iter_content(None)
        assert b"w0 " in next(parts)
        yield parts


def last_event(parts: Iterator[bytes]) -> Any:
    """Read to the end, and return what came last."""
    event = b"".join(parts).decode().strip().rpartition("\n\n")[2].removeprefix("data: ")
    return event if event == "[DONE]" else json.loads(event)


def events(gateway: RunningGateway, event: str) -> list[dict[str, Any]]:
    """What its log says of one kind of event."""
    return [line for line in gateway.lines() if line["event"] == event]


def figure(gateway: RunningGateway, web: requests.Session, name: str) -> float:
    """A figure without labels, or of the only engine, as Prometheus would read it."""
    text = web.get(f"{gateway.url}/metrics", headers=gateway.headers).text
    found = re.search(rf"^shoestring_gateway_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


def test_running_answers_end_whole(truth_url: str, tmp_path: Path, web: requests.Session):
    """At SIGTERM what runs goes on to its end, nothing new begins, and the exit is a success."""
    with running_gateway(tmp_path, settings(truth_url)) as gateway:
        with ThreadPoolExecutor() as threads, streaming(gateway, "short") as parts:
            whole = threads.submit(ask, gateway, "short")
            until(lambda: figure(gateway, web, "engine_active_requests"), 2)
            gateway.process.send_signal(signal.SIGTERM)
            until(lambda: len(events(gateway, "draining")), 1)
            assert is_refused(gateway)
            assert last_event(parts) == "[DONE]"
            assert whole.result().status_code == 200
        assert gateway.end() == 0


def is_refused(gateway: RunningGateway) -> bool:
    """Whether a new request is told that this replica ends, or finds nobody."""
    try:
        answer = ask(gateway, "fast")
    except requests.ConnectionError:
        return True
    return (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")


def test_an_answer_that_takes_too_long_is_told_so(
    truth_url: str, tmp_path: Path, web: requests.Session
):
    """After ``drain_s`` streams end with an error; who has nothing yet, queued or not, gets 503."""
    drain = {"drain_s": 1.0}
    with running_gateway(tmp_path, settings(truth_url, server=drain)) as gateway:
        with ThreadPoolExecutor() as threads, streaming(gateway, "endless") as parts:
            working = threads.submit(ask, gateway, "endless")
            until(lambda: figure(gateway, web, "engine_active_requests"), 2)
            waiting = threads.submit(ask, gateway, "endless")
            until(lambda: figure(gateway, web, "queue_waiting"), 1)
            gateway.process.send_signal(signal.SIGTERM)
            assert last_event(parts)["error"]["code"] == "draining"
            for answer in (working.result(), waiting.result()):
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
                assert int(answer.headers["retry-after"]) >= 1
        assert gateway.end() == 0
        failures = [line["failure"] for line in events(gateway, "request")]
        assert failures == ["draining"] * 3


def test_asked_twice_it_ends_at_once(truth_url: str, tmp_path: Path):
    """The second signal waits for no answer."""
    drain = {"drain_s": 3600.0}
    with running_gateway(tmp_path, settings(truth_url, server=drain)) as gateway:
        with streaming(gateway, "endless") as parts:
            gateway.process.send_signal(signal.SIGTERM)
            until(lambda: len(events(gateway, "draining")), 1)
            gateway.process.send_signal(signal.SIGINT)
            assert last_event(parts)["error"]["code"] == "draining"
        assert gateway.process.wait(MUST_END_S) == 0
        assert "Traceback" not in gateway.log.read_text("utf-8")


def test_a_request_that_is_being_ended_is_no_hindrance(truth_url: str, tmp_path: Path):
    """Its time is over and it tidies up: the time of the others is cut all the same."""
    create_key(tmp_path / "keys.json", "one")
    told = {**settings(truth_url), "keys": {"file": str(tmp_path / "keys.json")}}

    async def end_two() -> None:
        async with open_gateway(make_settings(told, "test")) as gateway:
            tidying, tidy = asyncio.Event(), asyncio.Event()

            async def late() -> None:
                async with gateway.until(gateway.clock()):
                    try:
                        await asyncio.Event().wait()
                    finally:
                        tidying.set()
                        await tidy.wait()

            async def in_time() -> None:
                async with gateway.until(gateway.clock() + 3600):
                    await asyncio.Event().wait()

            requests = asyncio.gather(late(), in_time(), return_exceptions=True)
            await tidying.wait()
            gateway.drain(0.0)
            tidy.set()
            assert list(map(type, await requests)) == [TimeoutError, TimeoutError]

    asyncio.run(end_two())


def test_an_idle_connection_does_not_hold_it(truth_url: str, tmp_path: Path, web: requests.Session):
    """A client that keeps its connection for later loses it."""
    with running_gateway(tmp_path, settings(truth_url)) as gateway:
        assert web.get(f"{gateway.url}/health").status_code == 200
        assert gateway.end() == 0


@pytest.fixture(scope="module")
def watching(truth_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway whose files tests change and put back."""
    with running_gateway(tmp_path_factory.mktemp("watching"), settings(truth_url)) as gateway:
        yield gateway


def config_of(gateway: RunningGateway) -> Path:
    """Its settings."""
    return gateway.log.with_name("gateway.toml")


def test_aliases_are_taken_while_it_runs(watching: RunningGateway):
    """A new one answers, one that is gone does not, and running streams go on."""
    config, before = config_of(watching), config_of(watching).read_text("utf-8")
    with streaming(watching, "endless") as parts:
        config.write_text(before.replace('"fast"', '"quick"').replace("endless", "gone"), "utf-8")
        until(lambda: ask(watching, "quick").status_code, 200)
        assert ask(watching, "fast").status_code == 404
        assert b"data:" in next(parts)
    config.write_text(before, "utf-8")
    until(lambda: ask(watching, "fast").status_code, 200)
    assert ask(watching, "quick").status_code == 404


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [("[", "", "no TOML"), ("slots", "slot", "slot"),
     ('"engine" = "truth"', '"engine" = "t"', "'t'")],
)  # fmt: skip
def test_broken_settings_change_nothing(watching: RunningGateway, old: str, new: str, says: str):
    """What was read before holds, and the log says once what is wrong."""
    config, before = config_of(watching), config_of(watching).read_text("utf-8")
    told = len(events(watching, "settings not taken"))
    broken = before.replace(old, new)
    assert broken != before
    config.write_text(broken, "utf-8")
    until(lambda: len(events(watching, "settings not taken")), told + 1)
    assert says in events(watching, "settings not taken")[-1]["error"]
    for _ in range(2):  # each signal has the file looked at again
        watching.process.send_signal(signal.SIGHUP)
        assert ask(watching, "fast").status_code == 200
    taken = len(events(watching, "aliases taken"))
    config.write_text(before, "utf-8")
    until(lambda: len(events(watching, "aliases taken")), taken + 1)
    assert len(events(watching, "settings not taken")) == told + 1


def test_what_cannot_change_while_it_runs_is_said(watching: RunningGateway):
    """Other settings wait for a restart, and the log says so."""
    config, before = config_of(watching), config_of(watching).read_text("utf-8")
    config.write_text(before.replace('"slots" = 2', '"slots" = 3'), "utf-8")
    until(lambda: [line["mend"] for line in watching.lines() if "mend" in line], ["start it again"])
    config.write_text(before, "utf-8")
    taken = len(events(watching, "aliases taken"))
    until(lambda: len(events(watching, "aliases taken")) > taken - 1, True)


def test_a_broken_file_of_keys_changes_nothing(watching: RunningGateway, web: requests.Session):
    """Keys go on opening what they opened; the log and a metric say so once; mended, it is read."""
    before = watching.keys_file.read_bytes()
    errors = figure(watching, web, "key_file_errors_total")
    watching.keys_file.write_bytes(before[:-20])
    until(lambda: figure(watching, web, "key_file_errors_total"), errors + 1)
    for _ in range(2):
        watching.process.send_signal(signal.SIGHUP)
        assert ask(watching, "fast").status_code == 200
    assert figure(watching, web, "key_file_errors_total") == errors + 1
    watching.keys_file.write_bytes(before)
    _, presented = create_key(watching.keys_file, "later")
    headers = {"Authorization": f"Bearer {presented}"}
    models = f"{watching.url}/v1/models"
    until(lambda: web.get(models, headers=headers).status_code, 200)
    assert figure(watching, web, "key_file_errors_total") == errors + 1


def refusal_of(config: Path) -> str:
    """Start a gateway that cannot start, and return the one line that it says."""
    done = subprocess.run(
        [*COMMAND, "serve", "--config", str(config), "--json"],
        capture_output=True,
        text=True,
        timeout=MUST_END_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def mistake_in(config: Path) -> str:
    """Let the command read its settings here, and return the line with which it exits."""
    error = CliRunner().invoke(serve, ["--config", str(config)]).exception
    assert isinstance(error, UserError)
    line = str(error)
    assert line.isprintable()
    return line


NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"server": {"prot": 1}}, ["server.prot", "not permitted"]),
        ({"server": {"port": 99999}}, ["server.port", "65535", "99999"]),
        ({"engines": [{"name": "a", "url": "127.0.0.1:11434"}]}, ["url", "http://HOST:PORT"]),
        ({"engines": [{"name": "a", "url": "http://u:p@h"}]}, ["url", "key_env"]),
        ({"engines": []}, ["engines", "at least 1"]),
        ({"aliases": {"x": {"targets": [{"engine": "b", "model": "m"}]}}}, ["alias x", "'b'"]),
        ({"aliases": {"x": {"targets": []}}}, ["aliases.x.targets", "at least 1"]),
    ],
)  # fmt: skip
def test_wrong_settings_are_named_in_one_line(
    tmp_path: Path, change: dict[str, Any], says: list[str]
):
    """Which setting, what it was, what is allowed."""
    line = mistake_in(written(tmp_path, change))
    assert all(word in line for word in says), line


def written(folder: Path, change: dict[str, Any]) -> Path:
    """Settings that are right but for a change, and a key."""
    create_key(folder / "keys.json", "one")
    right = {
        "server": {"port": 0},
        "engines": [{"name": "a", "url": NOBODY}],
        "keys": {"file": str(folder / "keys.json")},
    }
    config = folder / "gateway.toml"
    config.write_text(toml_text({**right, **change}), "utf-8")
    return config


def test_a_missing_file_is_named(tmp_path: Path):
    """The path, and that it cannot be read."""
    assert "nowhere.toml" in mistake_in(tmp_path / "nowhere.toml")


def test_without_keys_it_does_not_start(tmp_path: Path):
    """Nobody could ask; the line says how a key is made."""
    config = written(tmp_path, {"keys": {"file": str(tmp_path / "none.json")}})
    assert "shoestring keys create" in mistake_in(config)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"engines": [{"name": "a", "url": NOBODY, "slot": 1}]}, "engines.0.slot"),
        ({"engines": [{"name": "a", "url": NOBODY, "key_env": "SHOE_NONE"}]}, "SHOE_NONE"),
        ({"redis": {"url": "http://127.0.0.1"}}, "redis://HOST:PORT"),
        ({"server": {"host": "203.0.113.77"}}, "203.0.113.77"),
    ],
)
def test_it_exits_with_one_line(tmp_path: Path, change: dict[str, Any], says: str):
    """Also where a mistake shows only once the parts are made; exit status 2, no traceback."""
    assert says in refusal_of(written(tmp_path, change))


def test_a_port_that_is_taken_is_named(tmp_path: Path):
    """Somebody listens there already."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in refusal_of(written(tmp_path, {"server": {"port": port}}))


def test_a_port_that_is_taken_meanwhile_is_named(tmp_path: Path):
    """Two that start at once may both have the address, but only one can listen."""
    with socket.create_server(("127.0.0.1", 0)) as engine, socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rival.bind(("127.0.0.1", 0))
        port = rival.getsockname()[1]
        url = f"http://127.0.0.1:{engine.getsockname()[1]}"
        change = {"server": {"port": port}, "engines": [{"name": "a", "url": url}]}
        config = written(tmp_path, change)

        def listen_when_the_engine_is_asked() -> None:
            connection, _ = engine.accept()
            rival.listen()
            connection.close()

        with ThreadPoolExecutor() as threads:
            listening = threads.submit(listen_when_the_engine_is_asked)
            said = refusal_of(config)
            listening.result()
    assert f"port {port}" in said
