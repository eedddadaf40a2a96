"""Limits, queue and cache through HTTP: of one replica, and of two that share a Redis."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from shoestring.gateway.keys import KeyLimits
from shoestring.gateway.keys_file import create_key
from shoestring.testing.gateway import RunningGateway, running_gateway
from shoestring.testing.redis_server import RedisServer, running_redis
from shoestring.truth.process import running_server

CHAT = "/v1/chat/completions"
MUST_END_S = 60.0
ENDLESS = "truth-ttft5-itl50-n4000"
REDIS_UP = "shoestring_gateway_redis_up"


@dataclass(frozen=True)
class Bench:
    """Two replicas, their Redis, and what their engine has answered."""

    replicas: tuple[RunningGateway, RunningGateway]
    redis: RedisServer
    log: Path

    def answered(self, model: str | None = None) -> list[str]:
        """The models whose answers the engine has ended, in order."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        models = [json.loads(line)["model"] for line in lines]
        return [one for one in models if model in {None, one}]


def settings(truth_url: str, **more: Any) -> dict[str, Any]:
    """Aliases by how many tokens they answer, on an engine with one slot or with many."""
    engines = [
        {"name": name, "url": truth_url, "slots": slots, "digest": "truth"}
        for name, slots in (("narrow", 1), ("wide", 64))
    ]
    models = {f"n{n}": f"truth-ttft5-itl2-n{n}" for n in range(1, 33)}
    models |= {"endless": ENDLESS, "slow": "truth-ttft1500-itl1-n40",
               "error": "truth-ttft5-itl2-n8+error3"}  # fmt: skip
    aliases = {
        f"{engine['name']}-{name}": {"targets": [{"engine": engine["name"], "model": model}]}
        for engine in engines
        for name, model in models.items()
    }
    return {"engines": engines, "aliases": aliases, **more}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Both replicas have the same keys, and bounds that tests can reach."""
    folder = tmp_path_factory.mktemp("replicas")
    log = folder / "truth.log"
    with (
        running_redis() as redis,
        running_server(log=log) as truth,
        ExitStack() as stack,
    ):
        told = settings(
            truth.base_url,
            redis={"url": redis.url, "patience_s": 20.0},
            cache={"enabled": True},
            queue={"waiting": 5, "waiting_per_key": 4},
            server={"trusted_proxies": ["127.0.0.0/8"]},
        )
        one, two = (
            stack.enter_context(
                running_gateway(folder / name, told, keys_file=folder / "keys.json")
            )
            for name in ("one", "two")
        )
        yield Bench((one, two), redis, log)


def until(look: Callable[[], Any], wanted: Any) -> None:
    """Look until it is so."""
    end = time.monotonic() + MUST_END_S
    while (found := look()) != wanted:
        assert time.monotonic() < end, found


def ask(
    gateway: RunningGateway,
    model: str,
    *,
    key: str = "",
    headers: dict[str, str] | None = None,
    stream: bool = False,
    **more: Any,
) -> requests.Response:
    """Ask for an answer; a stream has begun when this returns."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    with requests.Session() as session:
        session.trust_env = False
        return session.post(
            gateway.url + CHAT,
            json=body | more,
            headers={"Authorization": f"Bearer {key or gateway.key}", **(headers or {})},
            stream=stream,
            timeout=MUST_END_S,
        )


def new_key(*gateways: RunningGateway, **limits: Any) -> str:
    """Make a key, and wait until it is known."""
    key, presented = create_key(gateways[0].keys_file, "limited", limits=KeyLimits(**limits))
    headers = {"Authorization": f"Bearer {presented}"}
    for gateway in gateways:
        until(lambda: requests.get(f"{gateway.url}/v1/models", headers=headers).status_code, 200)  # noqa: B023 - it is called here
    assert key.id in presented
    return presented


def code(answer: requests.Response) -> tuple[int, str]:
    """The status of a refusal, and its word."""
    return answer.status_code, answer.json()["error"]["code"]


def figure(gateway: RunningGateway, name: str) -> float:
    """A figure as Prometheus would read it."""
    text = requests.get(f"{gateway.url}/metrics", headers=gateway.headers).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


def waiting(gateway: RunningGateway) -> float:
    """How many wait for the narrow engine."""
    return figure(gateway, 'shoestring_gateway_queue_waiting{engine="narrow"}')


@contextmanager
def holding(gateway: RunningGateway, model: str, key: str = "", **more: Any) -> Iterator[None]:
    """Have an answer that does not end, for the block."""
    with closing(ask(gateway, model, key=key, stream=True, **more)) as answer:
        parts = answer.iter_content(None)  # kept: with it the connection would be closed
        assert b"w0 " in next(parts)
        yield


def test_requests_are_counted_and_said(bench: Bench):
    """Each answer tells what is left; the one too many is told when to ask again."""
    gateway = bench.replicas[0]
    key = new_key(gateway, requests_per_minute=3)
    left = []
    for _ in range(3):
        answer = ask(gateway, "wide-n1", key=key)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        left.append(answer.headers["x-ratelimit-remaining-requests"])
    assert left == ["2", "1", "0"]
    refused = ask(gateway, "wide-n1", key=key)
    assert code(refused) == (429, "rate_limit")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert ask(gateway, "wide-n1").status_code == 200  # another key is no worse for it


def test_tokens_are_settled_to_what_was_used(bench: Bench):
    """What was set aside for the longest answer is given back after a short one."""
    gateway = bench.replicas[0]
    key = new_key(gateway, tokens_per_minute=1000)
    used = ask(gateway, "wide-n8", key=key, max_tokens=900).json()["usage"]["total_tokens"]
    second = ask(gateway, "wide-n8", key=key, max_tokens=900)
    assert second.status_code == 200
    set_aside = 900 + 3  # the prompt is estimated: "user" and "hello", 4 bytes to the token
    assert int(second.headers["x-ratelimit-remaining-tokens"]) == 1000 - used - set_aside
    refused = ask(gateway, "wide-n8", key=key, max_tokens=1000)
    assert code(refused) == (429, "token_limit")
    with holding(gateway, "wide-endless", key, max_tokens=900):
        assert code(ask(gateway, "wide-n8", key=key, max_tokens=900)) == (429, "token_limit")
    # Who leaves gives back what was not made.
    until(lambda: ask(gateway, "wide-n8", key=key, max_tokens=700).status_code, 200)


def test_so_many_run_at_a_time(bench: Bench):
    """One more is refused on either replica; one that ends makes room."""
    key = new_key(*bench.replicas, concurrent=2)
    one, two = bench.replicas
    with holding(one, "wide-endless", key):
        with holding(two, "wide-endless", key):
            for gateway in bench.replicas:
                assert code(ask(gateway, "wide-n1", key=key)) == (429, "concurrency")
        until(lambda: ask(one, "wide-n1", key=key).status_code, 200)
    until(lambda: ask(two, "wide-n1", key=key).status_code, 200)


def test_a_budget_is_spent_on_all_replicas(bench: Bench):
    """What one counted the other knows."""
    key = new_key(*bench.replicas, budget_tokens=30)
    one, two = bench.replicas
    assert ask(one, "wide-n16", key=key, max_tokens=16).status_code == 200
    assert code(ask(two, "wide-n16", key=key, max_tokens=16)) == (429, "budget")
    assert ask(two, "wide-n8", key=key, max_tokens=8).status_code == 200


@pytest.mark.parametrize("limit", [1, 7, 20])
def test_two_replicas_admit_no_more_than_the_limit(bench: Bench, limit: int):
    """Three times as many at once, on both: so many get through."""
    key = new_key(*bench.replicas, requests_per_minute=limit)
    with ThreadPoolExecutor(12) as threads:
        asked = [
            threads.submit(ask, bench.replicas[number % 2], "wide-n1", key=key)
            for number in range(3 * limit)
        ]
        got = Counter(answer.result().status_code for answer in asked)
    assert got == {200: limit, 429: 2 * limit}


def test_without_redis_requests_go_on(bench: Bench):
    """Who has no limit is answered, who has one gets nothing that others may have had.

    The metrics say so, and with its return all is as before.
    """
    one, two = bench.replicas
    free = new_key(*bench.replicas)
    key = new_key(*bench.replicas, requests_per_minute=10)
    assert ask(one, "wide-n1", key=key).status_code == 200
    bench.redis.kill()
    for gateway in bench.replicas:
        answer = ask(gateway, "wide-n2", key=free, temperature=0)
        assert answer.status_code == 200
        until(lambda: figure(gateway, REDIS_UP), 0)  # noqa: B023 - it is called here
    refused = [ask(gateway, "wide-n1", key=key) for gateway in bench.replicas]
    assert [code(answer) for answer in refused] == [(429, "rate_limit")] * 2
    assert all(0 < int(answer.headers["retry-after"]) <= 60 for answer in refused)
    bench.redis.restart()
    for gateway in bench.replicas:
        until(lambda: figure(gateway, REDIS_UP), 1)  # noqa: B023 - it is called here
    fresh = new_key(*bench.replicas, requests_per_minute=1)
    assert ask(one, "wide-n1", key=fresh).status_code == 200
    assert code(ask(two, "wide-n1", key=fresh)) == (429, "rate_limit")
    until(lambda: kept_by_both(bench), True)


def kept_by_both(bench: Bench) -> bool:
    """Whether the answer that one replica gives is found by the other."""
    number = len(bench.answered())
    uses = [
        ask(gateway, "wide-n3", temperature=0, seed=number, key=bench.replicas[0].key).headers[
            "x-cache"
        ]
        for gateway in bench.replicas
    ]
    return uses == ["miss", "hit"]


def whole(answer: requests.Response) -> requests.Response:
    """Read an answer to its end."""
    assert answer.content
    return answer


@pytest.mark.parametrize("stream", [False, True])
def test_what_one_replica_made_the_other_has(bench: Bench, *, stream: bool):
    """The engine is asked once, and both give the same bytes."""
    one, two = bench.replicas
    first, second = (
        whole(ask(gateway, "wide-n20", key=one.key, temperature=0, stream=stream))
        for gateway in bench.replicas
    )
    assert second.content == first.content
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert second.headers["x-shoestring-variant"] == first.headers["x-shoestring-variant"]
    other = ask(one, "wide-n20", key=two.key, temperature=0, stream=stream)
    assert (other.headers["x-cache"], len(other.content) > 0) == ("miss", True)


@pytest.mark.parametrize("stream", [False, True])
def test_who_asks_the_same_at_once_shares_the_work(bench: Bench, *, stream: bool):
    """Twenty ask; the engine answers once; all get all of it, and one has paid."""
    gateway = bench.replicas[0]
    before = len(bench.answered())
    with ThreadPoolExecutor(20) as threads:
        asked = [
            threads.submit(ask, gateway, "wide-slow", temperature=0, stream=stream)
            for _ in range(20)
        ]
        answers = [one.result() for one in asked]
        texts = {answer.content for answer in answers}
    uses = Counter(answer.headers["x-cache"] for answer in answers)
    assert len(texts) == 1
    assert b"w39 " in texts.pop()
    assert uses["miss"] == 1
    assert len(bench.answered()) == before + 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_shared_failure_is_told_as_it_was(bench: Bench, *, stream: bool):
    """With the cache on, a client learns the same of an engine's failure as without."""
    gateway = bench.replicas[0]
    alone, shared = (
        ask(gateway, "wide-error", temperature=temperature, stream=stream) for temperature in (1, 0)
    )
    ends = [
        json.loads(answer.content.decode().strip().rpartition("\n\n")[2].removeprefix("data: "))
        for answer in (alone, shared)
    ]
    assert [answer.headers["x-cache"] for answer in (alone, shared)] == ["bypass", "miss"]
    assert ends[0]["error"]["code"] == "engine_error"
    assert ends[1] == ends[0]
    assert alone.status_code == shared.status_code


def test_turns_go_round(bench: Bench):
    """One key has four waiting; another's only request is the second to be worked for."""
    gateway = bench.replicas[0]
    greedy, modest = new_key(gateway), new_key(gateway)
    with ThreadPoolExecutor(8) as threads, closing(ExitStack()) as held:
        held.enter_context(holding(gateway, "narrow-endless"))
        before = len(bench.answered())
        asked = []
        for number in range(1, 5):
            asked.append(threads.submit(ask, gateway, f"narrow-n{number}", key=greedy))
            until(lambda: waiting(gateway), len(asked))
        asked.append(threads.submit(ask, gateway, "narrow-n9", key=modest))
        until(lambda: waiting(gateway), 5)
        held.close()
        assert [one.result().status_code for one in asked] == [200] * 5
        order = [model.rpartition("-")[2] for model in bench.answered()[before:]]
    assert order[0].startswith("n4000")
    assert order[1:] == ["n1", "n9", "n2", "n3", "n4"]


def test_the_queue_is_bounded(bench: Bench):
    """429 beyond a key's share; where all is full, who has most waiting makes room; else 503."""
    gateway = bench.replicas[0]
    greedy, modest, late = new_key(gateway), new_key(gateway), new_key(gateway)
    with ThreadPoolExecutor(8) as threads, holding(gateway, "narrow-endless"):

        def queue(key: str, expected: int) -> Any:
            asked = threads.submit(
                ask, gateway, "narrow-n1", key=key, headers={"X-Deadline-S": "20"}
            )
            until(lambda: waiting(gateway), expected)
            return asked

        all_asked = [queue(greedy, number) for number in range(1, 5)]
        refused = ask(gateway, "narrow-n1", key=greedy)
        assert code(refused) == (429, "queue_full_key")
        assert int(refused.headers["retry-after"]) >= 1
        all_asked += [queue(modest, 5), queue(modest, 5)]
        moved = all_asked[3].result()
        assert code(moved) == (503, "queue_full")
        assert int(moved.headers["retry-after"]) >= 1
        all_asked.append(queue(late, 5))
        assert code(all_asked[2].result()) == (503, "queue_full")
        refused = ask(gateway, "narrow-n1", key=modest)
        assert code(refused) == (503, "queue_full")
    statuses = [asked.result().status_code for asked in all_asked]
    assert statuses == [200, 200, 503, 503, 200, 200, 200]


def test_a_request_says_how_long_it_may_take(bench: Bench):
    """Waiting, working, in a stream: it is told that its time is over; nonsense is refused."""
    gateway = bench.replicas[0]
    soon, later = {"X-Deadline-S": "0.3"}, {"X-Deadline-S": "3"}
    whole = ask(gateway, "narrow-endless", headers=later)
    assert code(whole) == (504, "deadline")
    parts = ask(gateway, "narrow-endless", headers=later, stream=True).content
    assert json.loads(parts.split(b"\n\n")[-2].removeprefix(b"data: "))["error"]["code"] == (
        "deadline"
    )
    with holding(gateway, "narrow-endless"):
        late = ask(gateway, "narrow-n1", headers=soon)
        assert code(late) in {(503, "deadline"), (504, "deadline")}
    for nonsense in ("0", "-1", "nan", "inf", "soon", ""):
        refused = ask(gateway, "wide-n1", headers={"X-Deadline-S": nonsense})
        assert code(refused) == (400, "bad_value")
    assert ask(gateway, "narrow-n1").status_code == 200


def test_no_request_may_take_longer_than_the_settings_say(truth_url: str, tmp_path: Path):
    """Whatever the client says."""
    told = settings(truth_url, queue={"deadline_s": 2.0})
    with running_gateway(tmp_path, told) as gateway:
        for headers in ({}, {"X-Deadline-S": "3600"}):
            assert code(ask(gateway, "wide-endless", headers=headers)) == (504, "deadline")
        assert gateway.end() == 0


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9, 127.0.0.5", "203.0.113.9"),
        ("2001:db8::7:1", "2001:db8::/64"),
        ("nonsense", "127.0.0.1"),
    ],
)
def test_a_trusted_proxy_says_for_whom_it_asks(bench: Bench, forwarded: str, address: str):
    """The last address that no trusted proxy has is the client's."""
    gateway = bench.replicas[0]
    headers = {"X-Forwarded-For": forwarded}
    request_id = ask(gateway, "wide-n1", headers=headers).headers["x-request-id"]
    assert gateway.noted(request_id)["address"] == address
