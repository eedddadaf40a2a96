"""An engine that answers wrongly, in ways that a seed decides: to see that a gateway bears it.

It speaks bytes, not HTTP, so that it can send what no library would. A question that holds
``fuzz-SEED`` gets the answer of that seed; ``calm-SEED`` one that is only cut, framed and sent
oddly and means the same; any other a plain one. The same seed always gives the same bytes.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL = "odd"
WORDS = ("One ", "two ", "\u00fcber ", "vier ", "f\u00fcnf ", "\U0001f984.")
INPUT_TOKENS = 7
BIG_BYTES = 2**21
SOCKET_TIMEOUT_S = 120.0
Shape = Literal["events", "lines", "whole"]
Ending = Literal["close", "reset", "stall"]
_SEED = re.compile(rb"(fuzz|calm)-(\d{1,9})")
_ODD_MODELS: tuple[Any, ...] = (
    [{"name": 5, "size": "x"}], [{"id": {}, "digest": []}], [{"name": "m", "size": 10**400}],
    [{"id": "m", "size": -5}],
)  # fmt: skip
_ODD_PATH = re.compile(r"/odd-(\d{1,9})/")
_OTHER_STATUS = (
    "100 Continue", "101 Switching Protocols", "103 Early Hints", "204 No Content", "206 Partial",
    "301 Moved", "302 Found", "304 Not Modified", "307 Temporary", "308 Permanent", "400 Bad",
    "401 Unauthorized", "403 Forbidden", "404 Not Found", "413 Large", "418 Teapot", "422 Not",
    "429 Many", "500 Error", "502 Bad", "503 Busy", "504 Late", "599 Odd", "999 None", "0 Zero",
    "-1 Less", "abc", "", "200",
)  # fmt: skip
_ODD_VALUES: tuple[Any, ...] = (
    None, True, 5, -1, 1.5, 10**300, "x", "", [], [5], ["x"], [None], [[]], {}, {"x": 1},
    "\ud800", {"message": "\udfff"}, [{"message": 5}], [{"delta": "x"}],
    [{"delta": {"content": 5}}],
    [{"function": 5}], [{"message": {"tool_calls": [5], "content": "x"}}],
    [{"message": {"tool_calls": 5}}], [{"function": {"arguments": 5}}], [{"embedding": 5}],
)  # fmt: skip
_ODD_JSON = (
    b"", b"{", b"nul", b"[]", b"5", b"null", b'"x"', b"{}", b'{"a":NaN}', b'{"a":1e999}',
    b'{"a":-Infinity}', b"\xff\xfe", b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b"\0",
    b"[" * 5000, b'{"a":' * 900 + b"1" + b"}" * 900, b'{"error":{"message":"it broke"}}',
    b'{"error":"it broke"}', b'{"error":{"message":"\\ud800"}}', b'{"error":5}', b"[DONE]",
    b'{"usage":{"prompt_tokens":' + b"9" * 4000 + b',"completion_tokens":-1}}',
    b'{"timings":{"prompt_ms":1e308,"predicted_ms":1e999}}', b'{"done":true}', b"9" * 5000,
)  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """All that the engine sends to one request.

    Attributes:
        pieces: each in a packet of its own, as far as the network lets it.
        ending: of the connection; ``stall`` says no more until the other side closes.
    """

    pieces: tuple[bytes, ...]
    ending: Ending


def plain_text() -> str:
    """Return the text of every answer that is not spoilt."""
    return "".join(WORDS)


def make_reply(path: str, asked: bytes) -> Reply:
    """Return what is sent for a question.

    Args:
        path: that was asked.
        asked: the body.
    """
    found = _SEED.search(asked)
    shape, parts = _good(path, stream=_wants_stream(path, asked))
    if found is None:
        body = _framed(shape, parts, Random(0), odd=False)
        return Reply((_head(shape, f"Content-Length: {len(body)}") + body,), "close")
    draw = Random(int(found[2]))
    if found[1] == b"calm":
        return _calm(draw, shape, parts)
    return _spoilt(draw, shape, parts)


def _calm(draw: Random, shape: Shape, parts: list[bytes]) -> Reply:
    """Return a right answer, sent in an odd way."""
    body = _framed(shape, parts, draw, odd=True)
    return Reply(_pieces(draw, _message(draw, shape, body)), "close")


def _spoilt(draw: Random, shape: Shape, parts: list[bytes]) -> Reply:
    """Return a wrong answer: its parts, its bytes, its head, its ending, or several of them."""
    ending: Ending = draw.choices(("close", "reset", "stall"), (20, 4, 1))[0]
    for harm in draw.choices(_PART_HARMS, k=draw.choice((0, 1, 1, 2))):
        parts = harm(draw, parts)
    body = _framed(shape, parts, draw, odd=draw.choice((True, False)))
    if draw.random() < 0.3:  # noqa: PLR2004 - so often that most answers have one harm or two
        body = draw.choice(_BYTE_HARMS)(draw, body)
    message = _message(draw, shape, body)
    if draw.random() < 0.3:  # noqa: PLR2004
        message = _with_odd_head(draw, shape, body)
    if draw.random() < 0.3:  # noqa: PLR2004
        message = draw.choice(_BYTE_HARMS)(draw, message)
    return Reply(_pieces(draw, message), ending)


def _good(path: str, *, stream: bool) -> tuple[Shape, list[bytes]]:
    """Return the parts of the right answer."""
    if path == "/api/embed":
        vectors = {"model": MODEL, "embeddings": [[0.5, -1.0]], "prompt_eval_count": INPUT_TOKENS}
        return "whole", [_json(vectors)]
    if path == "/v1/embeddings":
        data = [{"index": 0, "embedding": [0.5, -1.0]}]
        return "whole", [_json({"data": data, "usage": {"prompt_tokens": INPUT_TOKENS}})]
    if path.startswith("/api/"):
        lines = [_ollama(path, word) for word in WORDS] if stream else []
        counts = {"prompt_eval_count": INPUT_TOKENS, "eval_count": len(WORDS)}
        last = _ollama(path, "" if stream else plain_text())
        lines.append({**last, "done": True, "done_reason": "stop", **counts})
        return ("lines" if stream else "whole"), [_json(line) for line in lines]
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": len(WORDS)}
    if not stream:
        return "whole", [
            _json({"choices": [_choice(path, plain_text(), "message")], "usage": usage})
        ]
    events = [_json({"choices": [_choice(path, word, "delta")]}) for word in WORDS]
    return "events", [*events, _json({"choices": [], "usage": usage}), b"[DONE]"]


def _choice(path: str, text: str, name: str) -> dict[str, Any]:
    said = {name: {"content": text}} if "chat" in path else {"text": text}
    return {"index": 0, **said, "finish_reason": None}


def _ollama(path: str, text: str) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": text}}
    return {"model": MODEL, **(said if "chat" in path else {"response": text}), "done": False}


def _wants_stream(path: str, asked: bytes) -> bool:
    try:
        wanted = json.loads(asked).get("stream")
    except (ValueError, AttributeError):
        wanted = None
    return wanted is True or (wanted is None and path.startswith("/api/"))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _framed(shape: Shape, parts: list[bytes], draw: Random, *, odd: bool) -> bytes:
    """Join parts to a body; oddly: with what readers have to skip."""
    if shape == "whole":
        return b"".join(parts)
    if shape == "lines":
        ends = draw.choice((b"\n", b"\r\n", b"\n\n")) if odd else b"\n"
        return b"".join(part + ends for part in parts)
    begins = draw.choice((b"data: ", b"data:", b"event: message\ndata: ", b": hi\n\ndata: ",
                          b"id: 1\ndata: ")) if odd else b"data: "  # fmt: skip
    text = b"".join(begins + part + b"\n\n" for part in parts)
    return text.replace(b"\n", b"\r\n") if odd and draw.random() < 0.5 else text  # noqa: PLR2004


def _head(shape: Shape, *more: str, status: str = "200 OK") -> bytes:
    kind = {"events": "text/event-stream", "lines": "application/x-ndjson",
            "whole": "application/json"}[shape]  # fmt: skip
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *more)
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def _message(draw: Random, shape: Shape, body: bytes) -> bytes:
    """Return a right HTTP message, its length told in one of three ways, or with another behind."""
    way = draw.randrange(5)
    if way == 0:
        return _head(shape) + body
    early = draw.choice((b"", b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"))
    if way == 1:
        return early + _head(shape, f"Content-Length: {len(body)}") + body
    message = early + _head(shape, "Transfer-Encoding: chunked") + _chunked(draw, body)
    if way == 2:  # noqa: PLR2004 - one of five
        return message
    another = _head(shape, "Content-Length: 6") + b"{}\n\n{}"
    return (message + another).replace(b"Connection: close", b"Connection: keep-alive")


def _chunked(draw: Random, body: bytes) -> bytes:
    step = draw.choice((1, 7, 100, 10**6)) if len(body) < BIG_BYTES // 8 else 10**6
    chunks = (body[at : at + step] for at in range(0, len(body), step))
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def _with_odd_head(draw: Random, shape: Shape, body: bytes) -> bytes:
    """Return a message whose head does not fit, or is none."""
    chunks = _chunked(draw, body)
    size = draw.choice((0, 1, len(body) - 1, len(body) + 1, 10**18, -5))
    chunk_size = draw.choice((b"zz", b"-1", b"ffffffffffffffffff", b"", b"5;x=y"))
    return draw.choice((
        _head(shape, status=draw.choice(_OTHER_STATUS)) + body,
        _head(shape, f"Content-Length: {len(body)}", status=draw.choice(_OTHER_STATUS)) + body,
        _head(shape, "Location: /again", status=draw.choice(("302 Found", "307 T"))),
        _head(shape, "Location: file:///etc/passwd", status="302 Found"),
        b"HTTP/1.1 100 Continue\r\n\r\n" * draw.choice((1, 50)) + _head(shape) + body,
        _head(shape, f"Content-Length: {size}") + body,
        _head(shape, "Content-Length: 1", "Content-Length: 2") + body,
        _head(shape, "Transfer-Encoding: chunked", "Content-Length: 3") + chunks,
        _head(shape, "Transfer-Encoding: chunked") + body,
        _head(shape, "Transfer-Encoding: chunked") + chunk_size + b"\r\n" + chunks,
        _head(shape, "Transfer-Encoding: chunked") + chunks.removesuffix(b"0\r\n\r\n"),
        _head(shape, "Transfer-Encoding: chunked") + chunks + b"HTTP/1.1 200 OK\r\n\r\nmore",
        _head(shape, f"Content-Encoding: {draw.choice(('gzip', 'br', 'deflate', 'x'))}") + body,
        _head(shape, "X-Long: " + "x" * 100_000) + body,
        _head(shape, "X-Bad\x01: \xff", "no colon", ": none") + body,
        _head(shape).replace(b"HTTP/1.1", draw.choice((b"HTTP/1.0", b"HTTP/0.9", b"HTTP/3", b"X")))
        + body,
        body,
        b"",
    ))  # fmt: skip


def _odd_field(draw: Random, parts: list[bytes]) -> list[bytes]:
    """Give a part's field, or one inside it, a value of another kind."""
    at = draw.randrange(len(parts) or 1)
    try:
        part = json.loads(parts[at])
    except (ValueError, IndexError, RecursionError):
        return parts
    names = ("choices", "usage", "timings", "message", "data", "error", "done", "embeddings")
    if isinstance(part, dict):
        part[draw.choice(names)] = draw.choice(_ODD_VALUES)
    return [*parts[:at], json.dumps(part).encode(), *parts[at + 1 :]]


def _odd_look(draw: Random, parts: list[bytes]) -> list[bytes]:
    """Give what describes the models another kind, or something in it."""
    told = json.loads(parts[0])
    name = draw.choice(("data", "models", "template", "chat_template"))
    told[name] = draw.choice(_ODD_VALUES + _ODD_MODELS)
    return [json.dumps(told).encode()]


def _odd_part(draw: Random, parts: list[bytes]) -> list[bytes]:
    """Put something else in, or in a part's place."""
    at = draw.randrange(len(parts) + 1)
    return [*parts[:at], draw.choice(_ODD_JSON), *parts[at + draw.randrange(2) :]]


def _big_part(draw: Random, parts: list[bytes]) -> list[bytes]:
    at = draw.randrange(len(parts) + 1)
    return [*parts[:at], _json({"choices": [{"delta": {"content": "x" * BIG_BYTES}}]}), *parts[at:]]


def _without_end(draw: Random, parts: list[bytes]) -> list[bytes]:
    return parts[: -draw.randrange(1, len(parts) + 2)]


def _shuffled(draw: Random, parts: list[bytes]) -> list[bytes]:
    return draw.sample(parts, len(parts))


def _more_behind(draw: Random, parts: list[bytes]) -> list[bytes]:
    return [*parts, draw.choice(_ODD_JSON), *draw.choices(parts or [b""], k=2)]


def _cut(draw: Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _flipped(draw: Random, data: bytes) -> bytes:
    spoilt = bytearray(data)
    for _ in range(draw.randrange(1, 5) if data else 0):
        spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
    return bytes(spoilt)


def _stuffed(draw: Random, data: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    bytes_more = draw.choice(
        (b"\0", b"\xff", b"\n\n", b"\r", b"\xef\xbb\xbf", b"}{", b"\n", b"data:")
    )
    return data[:at] + bytes_more + data[at:]


def _holed(draw: Random, data: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + data[at + draw.randrange(1, 40) :]


_PART_HARMS: tuple[Callable[[Random, list[bytes]], list[bytes]], ...] = (
    _odd_field, _odd_field, _odd_part, _odd_part, _big_part, _without_end, _shuffled, _more_behind,
)  # fmt: skip
_BYTE_HARMS: tuple[Callable[[Random, bytes], bytes], ...] = (_cut, _flipped, _stuffed, _holed)


def _pieces(draw: Random, message: bytes) -> tuple[bytes, ...]:
    """Cut a message for the wire: not at all, anywhere, or at every byte."""
    way = draw.randrange(4)
    if way == 0 or not message:
        return (message,)
    if way == 1 and len(message) < 4096:  # noqa: PLR2004 - a packet a byte takes time
        return tuple(message[at : at + 1] for at in range(len(message)))
    cuts = sorted(draw.randrange(len(message) + 1) for _ in range(draw.randrange(1, 20)))
    return tuple(message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True))


@contextmanager
def fuzz_engine() -> Iterator[str]:
    """Serve on a free loopback port until the block ends; gives the URL without a path."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listening: socket.socket) -> None:
    lines: list[threading.Thread] = []
    with suppress(OSError):  # the block has ended
        while True:
            line, _ = listening.accept()
            lines.append(threading.Thread(target=_answer, args=(line,)))
            lines[-1].start()
    for thread in lines:
        thread.join()


def _answer(line: socket.socket) -> None:
    with line, suppress(OSError):  # a gateway that has seen enough hangs up
        line.settimeout(SOCKET_TIMEOUT_S)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        method, path, asked = _read(line)
        looks = method == "GET" or path.endswith("/api/show")
        reply = _listed(path) if looks else make_reply(path, asked)
        for piece in reply.pieces:
            line.sendall(piece)
        if reply.ending == "reset":
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        while reply.ending == "stall" and line.recv(4096):
            pass


def _read(line: socket.socket) -> tuple[str, str, bytes]:
    """Return method, path and body of the one request of a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(line)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    while length is not None and len(body) < int(length[1]):
        body += _more(line)
    method, path, _ = head.decode("latin-1").split(" ", 2)
    return method, path, body


def _more(line: socket.socket) -> bytes:
    data = line.recv(65_536)
    if not data:
        raise ConnectionResetError("it hung up")
    return data


def _listed(path: str) -> Reply:
    """Return what a look is answered: right, unless the path begins with ``/odd-SEED``."""
    listed = [{"id": MODEL, "name": MODEL, "digest": "d", "size": 9}]
    body = _json({"data": listed, "models": listed, "chat_template": "<x>", "template": "<y>"})
    odd = _ODD_PATH.match(path)
    if odd is not None:
        draw = Random(int(odd[1]))
        return _spoilt(draw, "whole", _odd_look(draw, [body]))
    return Reply((_head("whole", f"Content-Length: {len(body)}") + body,), "close")
