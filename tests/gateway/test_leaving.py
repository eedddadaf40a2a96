"""Clients that leave or do not read: the engine's work ends, its slot is free, others go on."""

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from shoestring.testing.gateway import RunningGateway, running_gateway
from shoestring.truth.process import running_server

CHAT = "/v1/chat/completions"
MUST_END_S = 60.0
ENDLESS = range(4000, 5000)
"""Answers of so many tokens take minutes: whoever sees one end has seen it being ended."""
SHARED = range(300, 310)
STALLED = 20
STALLED_BYTES = 4 * 2**20
"""Held for each client that does not read, of an endless answer that comes as fast as memory: what
was read from the engine, its copies on the way, and what the allocator does not give back."""
KEPT = {"enabled": True, "max_bytes": 4 * 2**20, "max_entry_bytes": 2**18}
numbers = {"endless": iter(ENDLESS), "shared": iter(SHARED)}


@dataclass(frozen=True)
class Bench:
    """A gateway, and what its engine says of each answer that it began."""

    gateway: RunningGateway
    log: Path
    flood: "Flood"

    def answers(self, model: str) -> list[dict[str, Any]]:
        """What the engine has logged of a model's answers; each ended, one way or the other."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        told = [json.loads(line) for line in lines if line.endswith("\n")]
        return [one for one in told if one["model"] == model]

    def figure(self, name: str, engine: str) -> float:
        """A gauge of an engine, as Prometheus would read it."""
        answer = requests.get(f"{self.gateway.url}/metrics", headers=self.gateway.headers)
        found = re.search(
            rf'^shoestring_gateway_{name}{{engine="{engine}"}} (\S+)$', answer.text, re.MULTILINE
        )
        assert found is not None, answer.text
        return float(found[1])


class Flood(ThreadingHTTPServer):
    """An engine whose answers never end and come as fast as they are taken."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FloodHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.ended = threading.Semaphore(0)
        self.writing = threading.Event()


class FloodHandler(BaseHTTPRequestHandler):
    """One request to it."""

    protocol_version = "HTTP/1.1"
    server: Flood

    def do_GET(self) -> None:
        """List its model."""
        self._head("application/json")
        self.wfile.write(b'{"data":[{"id":"flood"}]}')

    def do_POST(self) -> None:
        """Answer until the connection breaks."""
        self._head("text/event-stream")
        event = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"w" * 8000)
        try:
            while True:
                self.wfile.write(event)
                self.server.writing.set()
        except OSError:
            self.server.ended.release()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _head(self, content_type: str) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Connection", "close")
        self.end_headers()


@pytest.fixture(scope="module")
def flood() -> Iterator[Flood]:
    """The endless engine."""
    with Flood() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Line:
    """A client on a bare socket, which does only what it is told."""

    def __init__(
        self,
        bench: Bench,
        model: str,
        *,
        buffer_bytes: int | None = None,
        content: str = "hello",
        **more: Any,
    ) -> None:
        address = bench.gateway.url.removeprefix("http://").split(":")
        messages = [{"role": "user", "content": content}]
        body = json.dumps({"model": model, "messages": messages, **more})
        self.request_id = f"line-{next(REQUESTS)}"
        self.seen = b""
        self._socket = socket.socket()
        self._socket.settimeout(MUST_END_S)
        if buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._socket.connect((address[0], int(address[1])))
        self._socket.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bench.gateway.key}\r\n"
            f"X-Request-ID: {self.request_id}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        self._socket.sendall(body.encode())

    def read_until(self, mark: bytes) -> bytes:
        """Read on until this stands in what was sent, and return all of it."""
        while mark not in self.seen:
            part = self._socket.recv(65_536)
            assert part, self.seen[-500:]
            self.seen += part
        return self.seen

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


REQUESTS = count()


def until(look: Callable[[], Any], wanted: Any) -> None:
    """Look until it is so."""
    end = time.monotonic() + MUST_END_S
    while (found := look()) != wanted:
        assert time.monotonic() < end, found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, flood: Flood) -> Iterator[Bench]:
    """One engine that works on one request at a time, one that works on many."""
    folder = tmp_path_factory.mktemp("leaving")
    models = {f"truth-ttft5-itl50-n{n}": f"endless-{n}" for n in ENDLESS}
    models |= {f"truth-ttft5-itl20-n{n}": f"shared-{n}" for n in SHARED}
    models["truth-ttft1-itl1-n8"] = "fast"
    with running_server(log=folder / "truth.log") as truth:
        engines = [
            {"name": name, "url": truth.base_url, "slots": slots, "digest": "truth"}
            for name, slots in (("narrow", 1), ("wide", 64))
        ]
        engines.append({"name": "flood", "url": flood.url, "slots": 64, "digest": "flood"})
        aliases = {
            f"{engine['name']}-{name}": {"targets": [{"engine": engine["name"], "model": model}]}
            for engine in engines[:2]
            for model, name in models.items()
        }
        settings = {"engines": engines, "aliases": aliases, "cache": KEPT,
                    "server": {"stall_s": 2.0}}  # fmt: skip
        with running_gateway(folder, settings) as gateway:
            yield Bench(gateway, folder / "truth.log", flood)


def endless() -> tuple[str, str]:
    """The name and the engine's model of an answer that no other test asks for."""
    number = next(numbers["endless"])
    return f"endless-{number}", f"truth-ttft5-itl50-n{number}"


def ended_early(bench: Bench, model: str) -> bool:
    """Whether the engine has ended the model's only answer before it was whole."""
    return [one["finished"] for one in bench.answers(model)] == [False]


def answers_fast(bench: Bench, web: requests.Session, engine: str) -> bool:
    """Whether the engine's slot can be had."""
    body = {"model": f"{engine}-fast", "messages": [{"role": "user", "content": "hello"}]}
    answer = web.post(bench.gateway.url + CHAT, json=body, headers=bench.gateway.headers)
    return answer.status_code == 200


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_ends_the_work(bench: Bench, web: requests.Session, *, stream: bool, kept: bool):
    """Streamed or not, to be kept or not: the engine stops, and the slot is the next one's."""
    name, model = endless()
    client = Line(bench, f"narrow-{name}", stream=stream, temperature=0 if kept else 1)
    until(lambda: bench.figure("engine_active_requests", "narrow"), 1)
    if stream:
        client.read_until(b"w0 ")
    client.close()
    until(lambda: ended_early(bench, model), True)
    assert answers_fast(bench, web, "narrow")
    noted = bench.gateway.noted(client.request_id)
    assert (noted["status"], noted["failure"]) == (499, "client_left")
    charged = noted["charged_input_tokens"], noted["charged_output_tokens"]
    if stream and not kept:
        assert min(charged) > 0
    else:  # nobody saw how much the engine made, or it was not yet ended
        assert charged == (None, None) or min(charged) > 0


def test_who_leaves_after_a_long_question_is_noticed(bench: Bench):
    """The server stops reading above 64 kB of a body, and has to go on to see an end."""
    name, model = endless()
    client = Line(bench, f"narrow-{name}", stream=True, content="a " * 50_000)
    client.read_until(b"w0 ")
    client.close()
    until(lambda: ended_early(bench, model), True)


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_the_queue_is_never_asked_for(
    bench: Bench, web: requests.Session, *, stream: bool
):
    """The engine does not hear of it, and who has the slot keeps it."""
    (first, _), (second, unheard) = endless(), endless()
    working = Line(bench, f"narrow-{first}", stream=True)
    working.read_until(b"w0 ")
    waiting = Line(bench, f"narrow-{second}", stream=stream)
    until(lambda: bench.figure("queue_waiting", "narrow"), 1)
    waiting.close()
    until(lambda: bench.figure("queue_waiting", "narrow"), 0)
    working.seen = b""
    working.read_until(b"data:")
    working.close()
    assert answers_fast(bench, web, "narrow")
    assert bench.answers(unheard) == []
    noted = bench.gateway.noted(waiting.request_id)
    assert (noted["failure"], noted["output_tokens"]) == ("client_left", None)
    assert (noted["charged_input_tokens"], noted["charged_output_tokens"]) == (0, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_shared_work_goes_on_for_who_stays(bench: Bench, *, stream: bool):
    """The one who asked first leaves; the other gets the whole answer of the same work."""
    number = next(numbers["shared"])
    asked = {"model": f"wide-shared-{number}", "temperature": 0, "stream": stream}
    first = Line(bench, **asked)
    until(lambda: bench.figure("engine_active_requests", "wide"), 1)
    second = Line(bench, **asked)
    if stream:
        second.read_until(b"w0 ")
    else:
        until(lambda: joined_and_waits(bench), True)
    first.close()
    whole = second.read_until(b"[DONE]" if stream else f'"completion_tokens":{number}'.encode())
    assert b"x-cache: joined" in whole
    assert f"w{number - 1} ".encode() in whole
    second.close()
    model = f"truth-ttft5-itl20-n{number}"
    until(lambda: [one["finished"] for one in bench.answers(model)], [True])
    assert bench.gateway.noted(first.request_id)["failure"] == "client_left"


def joined_and_waits(bench: Bench) -> bool:
    """Whether two requests are being answered, by one request to the engine."""
    answer = requests.get(f"{bench.gateway.url}/metrics", headers=bench.gateway.headers)
    begun = re.findall(r"^shoestring_gateway_active_requests{.*} (\S+)$", answer.text, re.MULTILINE)
    return sum(map(float, begun)) == 2


def test_shared_work_ends_with_the_last(bench: Bench):
    """As long as one listens the engine works, and not after."""
    name, model = endless()
    lines = [Line(bench, f"wide-{name}", temperature=0, stream=True) for _ in range(3)]
    for line in lines:
        line.read_until(b"w0 ")
    for line in lines[:-1]:
        line.close()
        assert bench.gateway.noted(line.request_id)["failure"] == "client_left"
        lines[-1].seen = b""
        lines[-1].read_until(b"data:")
    assert bench.answers(model) == []
    lines[-1].close()
    until(lambda: ended_early(bench, model), True)
    until(lambda: bench.figure("engine_active_requests", "wide"), 0)


@pytest.mark.parametrize("kept", [False, True])
def test_who_does_not_read_is_cut_off(bench: Bench, web: requests.Session, *, kept: bool):
    """Their answers end, little of them is held, and others are answered meanwhile."""
    process = psutil.Process(bench.gateway.process.pid)
    assert answers_fast(bench, web, "wide")
    before_bytes = most_bytes = process.memory_info().rss
    with ExitStack() as stack:
        lines = [
            stack.enter_context(closing(Line(bench, "flood", stream=True, buffer_bytes=4096,
                                             seed=number, temperature=0 if kept else 1)))
            for number in range(STALLED)
        ]  # fmt: skip
        for _ in lines:
            while not bench.flood.ended.acquire(timeout=0.05):
                assert answers_fast(bench, web, "wide")
                most_bytes = max(most_bytes, process.memory_info().rss)
        assert most_bytes - before_bytes < STALLED * STALLED_BYTES
        for line in lines:
            noted = bench.gateway.noted(line.request_id)
            # One that reads a shared answer may be lost before: the others' part of it runs ahead.
            assert noted["failure"] in (
                {"client_stalled", "engine_cut"} if kept else {"client_stalled"}
            )
    until(lambda: bench.figure("engine_active_requests", "flood"), 0)


def test_the_end_waits_for_no_reader(flood: Flood, tmp_path: Path):
    """Asked twice to end, a gateway drops who does not read, and says of nothing that it failed."""
    settings = {
        "engines": [{"name": "flood", "url": flood.url}],
        "server": {"stall_s": 3600.0, "drain_s": 3600.0},
    }
    with running_gateway(tmp_path, settings) as gateway:
        bench = Bench(gateway, tmp_path, flood)
        with closing(Line(bench, "flood", stream=True, buffer_bytes=4096)):
            while flood.writing.wait(0.5):  # until all on the way there is full
                flood.writing.clear()
            for number in (signal.SIGTERM, signal.SIGINT):
                gateway.process.send_signal(number)
            assert gateway.process.wait(MUST_END_S) == 0
        assert flood.ended.acquire(timeout=MUST_END_S)
        assert "Traceback" not in gateway.log.read_text("utf-8")
