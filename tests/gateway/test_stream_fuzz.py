"""A gateway before an engine that answers wrongly in every way that a seed gives it."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from shoestring.gateway.engines import EngineLink
from shoestring.gateway.settings import EngineSettings, Kind, QueueSettings
from shoestring.testing.fuzz_engine import MODEL, fuzz_engine, make_reply, plain_text
from shoestring.testing.gateway import RunningGateway, running_gateway

SEEDS = range(700)
LOOK_SEEDS = range(300)
CALM_SEEDS = range(120)
MUST_ANSWER_S = 60.0
CHAT = "/v1/chat/completions"
WAYS = [
    (CHAT, True), (CHAT, False), ("/v1/completions", True), ("/v1/completions", False),
    ("/v1/embeddings", False), ("/api/chat", True), ("/api/chat", False), ("/api/generate", True),
    ("/api/generate", False), ("/api/embed", False), ("/generate", False),
]  # fmt: skip
ENGINES = ("open", "own")
Answer = requests.Response | requests.RequestException


@contextmanager
def gateway_with_odd_engines(folder: Path, *, idle_s: float) -> Iterator[RunningGateway]:
    """A gateway whose engines, one of each kind, are the odd one."""
    with fuzz_engine() as url:
        engines = [
            {"name": name, "kind": kind, "url": url, "slots": 16, "idle_s": idle_s}
            for name, kind in zip(ENGINES, ("openai", "ollama"), strict=True)
        ]
        aliases = {name: {"targets": [{"engine": name, "model": MODEL}]} for name in ENGINES}
        with running_gateway(folder, {"engines": engines, "aliases": aliases}) as running:
            yield running


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[RunningGateway]:
    """It soon gives up an engine that stalls."""
    with gateway_with_odd_engines(tmp_path, idle_s=0.5) as running:
        yield running


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[RunningGateway]:
    """It waits for an engine that a busy machine holds up."""
    with gateway_with_odd_engines(tmp_path, idle_s=MUST_ANSWER_S) as running:
        yield running


def body_for(path: str, engine: str, text: str, *, stream: bool) -> dict[str, Any]:
    """A question whose text tells the engine what to do."""
    if path == "/generate":
        return {"model": engine, "prompt": text}
    asked = {
        "messages": [{"role": "user", "content": text}],
        "prompt": text,
        "input": text,
    }
    name = {"chat": "messages", "completions": "messages" if path == CHAT else "prompt",
            "generate": "prompt"}.get(path.rpartition("/")[2], "input")  # fmt: skip
    streams = {} if name == "input" else {"stream": stream}
    return {"model": engine, name: asked[name], **streams}


def ask(gateway: RunningGateway, seed: int, word: str) -> Answer:
    """One question of a seed, and its answer or what broke it."""
    path, stream = WAYS[seed % len(WAYS)]
    engine = ENGINES[seed // len(WAYS) % len(ENGINES)]
    with requests.Session() as web:
        web.trust_env = False
        try:
            return web.post(
                gateway.url + path,
                json=body_for(path, engine, f"{word}-{seed}", stream=stream),
                headers=gateway.headers,
                timeout=MUST_ANSWER_S,
            )
        except requests.RequestException as error:
            return error


def what_is_wrong(answer: Answer) -> str | None:
    """Why an answer is neither whole nor a clear error; None: it is one of them."""
    if isinstance(answer, requests.RequestException):
        return str(answer)
    try:
        return whole_or_refused(answer)
    except (ValueError, LookupError) as error:
        return f"{error!r}: {answer.content[-200:]!r}"


def whole_or_refused(response: requests.Response) -> str | None:
    """The same of one that came; what cannot be read is an error."""
    text = response.content
    if response.status_code != 200:
        known = 400 <= response.status_code < 500 or response.status_code in {502, 503, 504}
        return None if known and response.json()["error"] else f"HTTP {response.status_code}"
    kind = response.headers["content-type"]
    if kind == "application/json":
        answer = json.loads(text, parse_constant=no_number)
        return None if isinstance(answer, dict) else "no object"
    if kind == "application/x-ndjson":
        last = json.loads(text.splitlines()[-1])
        return None if last.get("done") is True or last.get("error") else "no last line"
    events = [event for event in text.split(b"\n\n") if event.strip()]
    if events[-1].endswith(b"[DONE]"):
        return None
    return None if json.loads(events[-1].removeprefix(b"data: ")).get("error") else "no last event"


def no_number(text: str) -> float:
    """Refuse what JSON has not."""
    raise ValueError(f"{text} is no JSON")


def all_of(gateway: RunningGateway, seeds: range, word: str) -> list[tuple[int, Answer]]:
    """The answers to all seeds, some asked at the same time."""
    with ThreadPoolExecutor(8) as pool:
        return list(zip(seeds, pool.map(lambda seed: ask(gateway, seed, word), seeds), strict=True))


def words_of(response: requests.Response) -> str:
    """The text of an answer, whichever API gave it."""
    kind = response.headers["content-type"]
    if kind == "text/event-stream":
        lines = [line[5:].strip() for line in response.content.splitlines() if line[:5] == b"data:"]
        parts = [json.loads(line) for line in lines if line != b"[DONE]"]
    else:
        parts = [json.loads(line) for line in response.content.splitlines() if line.strip()]
    return "".join(map(words_of_part, parts))


def words_of_part(part: dict[str, Any]) -> str:
    """The text of one part."""
    choice = next(iter(part.get("choices") or [part]))
    said = choice.get("delta") or choice.get("message") or choice
    return "".join(said.get(name) or "" for name in ("content", "text", "response",
                                                     "generated_text"))  # fmt: skip


def test_the_engine_can_be_asked_again():
    """A seed is one answer: what was found can be found again."""
    asked = b'{"stream":true,"prompt":"fuzz-%d"}'
    first, second = (
        [make_reply("/v1/completions", asked % seed) for seed in range(200)] for _ in range(2)
    )
    assert first == second
    assert len({reply.pieces for reply in first}) > 150


def test_an_odd_way_of_sending_changes_no_answer(patient: RunningGateway):
    """Cut at every byte, in chunks of any size, with CRLF or comments: the words are the same."""
    for seed, response in all_of(patient, CALM_SEEDS, "calm"):
        assert isinstance(response, requests.Response), (seed, response)
        assert response.status_code == 200, (seed, response.text[:300])
        if "embed" not in WAYS[seed % len(WAYS)][0]:
            assert words_of(response) == plain_text(), (seed, response.text)


def test_an_odd_list_of_models_is_a_state_and_no_error():
    """A look at an engine never raises; what it finds can be shown and counted."""

    async def look(url: str, kind: Kind) -> EngineLink:
        link = EngineLink(EngineSettings(name="odd", kind=kind, url=url), QueueSettings())
        await link.look()
        return link

    async def all_looks(url: str) -> list[EngineLink]:
        kinds: tuple[Kind, ...] = ("ollama", "llama-server", "openai")
        return await asyncio.gather(
            *(look(f"{url}/odd-{seed}", kinds[seed % 3]) for seed in LOOK_SEEDS)
        )

    with fuzz_engine() as url:
        links = asyncio.run(all_looks(url))
    assert {link.state for link in links} == {"healthy", "down"}
    for link in links:
        json.dumps([served.details for served in link.models.values()], allow_nan=False).encode()
        assert link.memory_bytes is None or 0 < float(link.memory_bytes) < 2**60


def test_a_wrong_answer_is_told_and_breaks_nothing(impatient: RunningGateway):
    """Every request ends whole or with a clear error; nothing fails inside; it goes on after."""
    wrong = {}
    for seed, response in all_of(impatient, SEEDS, "fuzz"):
        said = what_is_wrong(response)
        if said is not None:
            wrong[seed] = (said, WAYS[seed % len(WAYS)])
    log = impatient.log.read_text(encoding="utf-8")
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]
    assert not wrong
    assert all(line["level"] != "error" for line in impatient.lines())
    for seed in range(2 * len(WAYS)):
        assert what_is_wrong(ask(impatient, seed, "plain")) is None
