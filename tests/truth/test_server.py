"""Endpoints, bounds, many clients, and the life of the process."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from shoestring.errors import ShoestringError
from shoestring.truth.asks import MAX_BODY_BYTES, MAX_HEAD_BYTES
from shoestring.truth.process import running_server
from shoestring.truth.schedule import parse_schedule
from shoestring.truth.server import _send, make_loop

CHAT = "/v1/chat/completions"
MODEL = "truth-ttft0-itl0-n1"


def post(truth, path: str, value: object) -> tuple[int, dict[str, object]]:
    """Post JSON and return status and JSON."""
    reply = truth.call("POST", path, json.dumps(value).encode())
    return reply.status, json.loads(reply.body)


def test_health_and_models_answer(truth) -> None:
    """A client that asks whether the server lives, and for a model, is told."""
    assert json.loads(truth.call("GET", "/health").body) == {"status": "ok"}
    (model,) = json.loads(truth.call("GET", "/v1/models?limit=1").body)["data"]
    assert parse_schedule(model["id"]).tokens == 32


def test_words_become_tokens_and_come_back(truth) -> None:
    """A token is a word; the same word is the same token."""
    _, found = post(truth, "/tokenize", {"content": "one two\n one  drei"})
    tokens = found["tokens"]
    assert len(tokens) == 4
    assert tokens[0] == tokens[2]
    assert post(truth, "/detokenize", {"tokens": tokens}) == (200, {"content": "one two one drei"})


def test_half_a_character_is_a_word_too(truth) -> None:
    """A lone surrogate, which JSON allows and UTF-8 does not, comes back as it was."""
    _, found = post(truth, "/tokenize", {"content": "\ud800"})
    assert post(truth, "/detokenize", found) == (200, {"content": "\ud800"})


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/nothing", "{}", 404),
        (CHAT, "{", 400),
        (CHAT, "[]", 400),
        (CHAT, "[" * 100_000, 400),
        (CHAT, "{}", 400),
        (CHAT, '{"model": "gpt-4", "messages": [{"content": "a"}]}', 400),
        (CHAT, f'{{"model": "{MODEL}"}}', 400),
        (CHAT, f'{{"model": "{MODEL}", "messages": [1]}}', 400),
        (CHAT, f'{{"model": "{MODEL}", "messages": [{{"content": "a"}}], "stream": 1}}', 400),
        (CHAT, f'{{"model": "{MODEL}", "messages": [{{"content": "a"}}], "max_tokens": 0}}', 400),
        (
            CHAT,
            f'{{"model": "{MODEL}", "messages": [{{"content": "a"}}], "max_tokens": true}}',
            400,
        ),
        ("/v1/completions", f'{{"model": "{MODEL}", "prompt": {{}}}}', 400),
        ("/v1/completions", f'{{"model": "{MODEL}+role", "prompt": "a"}}', 400),
        ("/tokenize", '{"content": 1}', 400),
        ("/detokenize", '{"tokens": [-1]}', 400),
        ("/detokenize", '{"tokens": [99999999]}', 400),
        ("/health", "{}", 405),
    ],
)
def test_a_bad_request_is_refused(truth, path, body, status) -> None:
    """The status and an error object come back, and the server goes on."""
    reply = truth.call("POST", path, body.encode())
    assert reply.status == status
    error = json.loads(reply.body)["error"]
    assert error["code"] == status
    assert error["message"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nX: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (b"y" * (MAX_HEAD_BYTES + 1), 431),
    ],
)
def test_a_bad_head_is_refused(truth, read, head, status) -> None:
    """What is not HTTP, or too long, is told so."""
    with truth.connect() as connection:
        connection.sendall(head)
        assert read(connection).status == status


def test_an_oversized_body_is_refused_and_the_answer_arrives(truth) -> None:
    """The client that still sends can read why it was refused."""
    reply = truth.call("POST", CHAT, b" " * (MAX_BODY_BYTES + 1))
    assert reply.status == 413


def test_a_request_may_come_in_pieces(truth, read) -> None:
    """Only the last byte of the body makes the request whole."""
    body = json.dumps({"model": MODEL, "prompt": "ä"}, ensure_ascii=False).encode()
    data = f"POST /v1/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with truth.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            connection.sendall(bytes([byte]))
        assert read(connection).status == 200


def test_a_waiting_client_is_told_to_continue(truth, read) -> None:
    """``Expect: 100-continue`` is met before the body is sent."""
    body = b'{"content": "a"}'
    head = f"POST /tokenize HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with truth.connect() as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read(connection).status == 200


def test_prompts_are_counted_in_all_their_forms(truth) -> None:
    """Messages, their parts, texts and lists of tokens count as their words or tokens."""
    parts = [{"type": "text", "text": "a b"}, {"type": "image_url"}]
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": parts}]
    _, value = post(truth, CHAT, {"model": MODEL, "messages": messages})
    assert value["usage"]["prompt_tokens"] == 3
    _, value = post(truth, "/v1/completions", {"model": MODEL, "prompt": [5, 6, 7, 8]})
    assert value["usage"]["prompt_tokens"] == 4


def test_many_clients_are_served_at_once(truth) -> None:
    """32 streams that overlap are all whole."""
    with ThreadPoolExecutor(32) as pool:
        models = ["truth-ttft20-itl1-n20"] * 32
        replies = list(pool.map(truth.ask, models))
    assert [reply.body.count(b'"index":19') for reply in replies] == [1] * 32
    assert all(b"[DONE]" in reply.body for reply in replies)


def test_what_the_kernel_does_not_take_is_sent_later() -> None:
    """More bytes than a socket buffer holds arrive whole; the loop is free meanwhile."""

    async def send_and_read(data: bytes) -> bytes:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.settimeout(20)
            sending = asyncio.create_task(_send(ours, data))
            received = b""
            while len(received) < len(data):
                received += await asyncio.to_thread(theirs.recv, 1 << 20)
            await sending
            return received

    data = bytes(range(256)) * (1 << 15)
    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(send_and_read(data)) == data


def test_a_client_that_does_not_read_holds_nobody_up(truth) -> None:
    """Others are served meanwhile, and the slow client still gets everything."""
    body = json.dumps({"model": "truth-ttft0-itl0-n20000", "prompt": "a", "stream": True}).encode()
    with truth.send("POST", "/v1/completions", body) as slow:
        assert truth.ask(MODEL).status == 200
        data = b""
        while piece := slow.recv(1 << 20):
            data += piece
    assert data.count(b"data: {") == 20_001
    assert data.endswith(b"0\r\n\r\n")


def test_the_process_ends_with_the_block() -> None:
    """Behind the block nobody listens."""
    with running_server() as server:
        address = urlsplit(server.base_url)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port))


def test_a_server_that_cannot_start_says_why() -> None:
    """The reason of the process reaches the caller."""
    with (
        pytest.raises(ShoestringError, match="cannot run on --cpu 99999"),
        running_server(cpu=99999),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number, tmp_path) -> None:
    """Open answers are logged as unfinished, and the exit status is 0."""
    log = tmp_path / "log.jsonl"
    command = [sys.executable, "-m", "shoestring.truth", "--log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        address = urlsplit(json.loads(process.stdout.readline())["base_url"])
        with socket.create_connection((address.hostname, address.port)) as connection:
            body = json.dumps({"model": f"{MODEL}+stall1", "prompt": "a", "stream": True}).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            data = b""
            while b'"w0 "' not in data:
                data += connection.recv(65536)
            process.send_signal(number)
            assert process.wait(20) == 0
    assert json.loads(log.read_text())["finished"] is False


def test_a_used_port_is_a_users_mistake() -> None:
    """One clear line, and exit status 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "shoestring.truth", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in done.stderr


def test_a_killed_parent_leaves_no_orphan() -> None:
    """The server's connections break when the process that started it is killed."""
    code = (
        "from shoestring.truth.process import running_server\n"
        "with running_server() as server:\n"
        "    print(server.base_url, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        address = urlsplit(parent.stdout.readline().decode().strip())
        with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
            parent.kill()
            assert connection.recv(1) == b""
