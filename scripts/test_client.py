"""Ask a running gateway everything once, and say what works.

    python scripts/test_client.py --base-url http://127.0.0.1:8000 --key-file key.txt
    python scripts/test_client.py ... --metrics-key-file scrape.txt   # metrics, too

The second note's ``test_client.py``, mended: it also asks what must be refused, and its status is 1
where anything fails. What the engine or the key does not have is skipped, with the reason.
"""  # noqa: INP001 - a script

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import requests

from shoestring.engines.events import read_stream
from shoestring.engines.ollama_stream import read_ollama_stream

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 120.0
MAX_TOKENS = 16
PROMPT = "Say hello."
DETAIL_CHARACTERS = 160
NOBODYS_MODEL = "no-such-model"


class FailedError(Exception):
    """The gateway did not do what it shall; the message says what it did."""


class SkippedError(Exception):
    """There is nothing to check; the message says why."""


@dataclass(frozen=True)
class Result:
    """What came of one check."""

    check: str
    result: Literal["pass", "FAIL", "skip"]
    detail: str


class Client:
    """The checks, each a method that says in one line what it saw.

    Args:
        base_url: of the gateway, with or without ``/v1``.
        key: with scope ``inference``.
        metrics_key: with scope ``metrics``; None: only that others are kept out is checked.
        model: what to ask; None: the first that the gateway lists.
    """

    def __init__(
        self, base_url: str, key: str, metrics_key: str | None = None, model: str | None = None
    ) -> None:
        self._base_url = base_url.rstrip("/").removesuffix("/v1")
        self._key, self._metrics_key, self._model = key, metrics_key, model
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a netrc stands between

    def checks(self) -> dict[str, Callable[[], str]]:
        """Return all checks by their names, in order."""
        return {
            "health": self.health,
            "no key is refused": lambda: self.refused_key(None),
            "a wrong key is refused": lambda: self.refused_key(f"{self._key[:-4]}AAAA"),
            "models": self.models,
            "chat": self.chat,
            "chat, streamed": self.chat_stream,
            "completion": self.completion,
            "embeddings": self.embeddings,
            "generate": self.generate,
            "Ollama's chat, streamed": self.ollama_chat,
            "Ollama's list": self.ollama_list,
            "headers of limits": self.limits,
            "a body that is no JSON is refused": lambda: self.refused_body(b"{", 400),
            "an unknown model is refused": lambda: self.refused_body(
                {"model": NOBODYS_MODEL, "messages": self._messages}, 404
            ),
            "metrics": self.metrics,
        }

    def health(self) -> str:
        """It answers without a key, and tells nothing else."""
        said = self._object(self._ask("GET", "/health", key=None))
        if said.keys() != {"status"}:
            raise FailedError(f"says more than its status: {sorted(said)}")
        return str(said["status"])

    def refused_key(self, key: str | None) -> str:
        """Nothing is answered without a good key."""
        return self._refusal(self._ask("GET", "/v1/models", key=key), 401)

    def models(self) -> str:
        """It lists what this key may ask for."""
        names = [model["id"] for model in self._object(self._ask("GET", "/v1/models"))["data"]]
        if not names:
            raise FailedError("none: no engine answers, or the key may use no model")
        self._model = self._model or names[0]
        return ", ".join(names)

    def chat(self) -> str:
        """A conversation is answered as a whole, and counted."""
        said = self._object(self._post("/v1/chat/completions", {"messages": self._messages}))
        text = said["choices"][0]["message"]["content"]
        return f"{text!r}, {said['usage']['completion_tokens']} tokens"

    def chat_stream(self) -> str:
        """A conversation is answered in parts, with an end and its usage."""
        body = {"messages": self._messages, "stream": True,
                "stream_options": {"include_usage": True}}  # fmt: skip
        answer = self._post("/v1/chat/completions", body)
        self._good(answer)
        reading = read_stream([(0, answer.content)])
        if reading.failure is not None:
            raise FailedError(reading.failure.detail)
        if reading.events[-1].kind != "done" or reading.usage is None:
            raise FailedError(f"{len(reading.events)} parts without [DONE] or without usage")
        return f"{len(reading.events)} parts, {reading.usage.completion_tokens} tokens"

    def completion(self) -> str:
        """A text is gone on with."""
        said = self._object(self._post("/v1/completions", {"prompt": PROMPT}))
        return repr(said["choices"][0]["text"])

    def embeddings(self) -> str:
        """A text becomes a vector, where the engine can do that."""
        answer = self._ask("POST", "/v1/embeddings", {"model": self._model, "input": PROMPT})
        if answer.status_code != HTTPStatus.OK:
            raise SkippedError(self._refusal(answer, answer.status_code))
        return f"{len(self._object(answer)['data'][0]['embedding'])} numbers"

    def generate(self) -> str:
        """The note's own way."""
        body = {"prompt": PROMPT, "model": self._model, "max_new_tokens": MAX_TOKENS}
        said = self._object(self._ask("POST", "/generate", body))
        return repr(said["generated_text"])

    def ollama_chat(self) -> str:
        """Ollama's clients are answered in Ollama's way."""
        body = {"model": self._model, "messages": self._messages,
                "options": {"num_predict": MAX_TOKENS}}  # fmt: skip
        answer = self._ask("POST", "/api/chat", body)
        self._good(answer)
        reading = read_ollama_stream([(0, answer.content)], shared_tokens=None)
        if reading.failure is not None or not reading.ended:
            raise FailedError(reading.failure.detail if reading.failure else "no last line")
        return f"{len(reading.events)} lines"

    def ollama_list(self) -> str:
        """Ollama's clients find the models."""
        names = [m["name"] for m in self._object(self._ask("GET", "/api/tags"))["models"]]
        if not names:
            raise FailedError("none")
        return ", ".join(names)

    def limits(self) -> str:
        """A key with limits is told what is left of them."""
        answer = self._post("/v1/chat/completions", {"messages": self._messages})
        found = {name.lower().removeprefix("x-ratelimit-"): value
                 for name, value in answer.headers.items()
                 if name.lower().startswith("x-ratelimit-")}  # fmt: skip
        if not found:
            raise SkippedError("this key has no limits")
        return ", ".join(f"{name} {value}" for name, value in sorted(found.items()))

    def refused_body(self, body: bytes | dict[str, Any], status: int) -> str:
        """What cannot be answered is refused clearly."""
        return self._refusal(self._ask("POST", "/v1/chat/completions", body), status)

    def metrics(self) -> str:
        """Clients' keys are kept out; the scrape's gets what Prometheus reads."""
        if self._metrics_key is None:
            answer = self._ask("GET", "/metrics")
            if answer.status_code == HTTPStatus.OK:
                return "open to this key"
            return f"closed to this key: {self._refusal(answer, 403)}"
        text = self._good(self._ask("GET", "/metrics", key=self._metrics_key)).text
        names = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ")}
        if not any(name.startswith("shoestring_gateway_") for name in names):
            raise FailedError(f"none of the gateway's own among {len(names)}")
        return f"{len(names)} metrics"

    @property
    def _messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": PROMPT}]

    def _post(self, path: str, body: dict[str, Any]) -> requests.Response:
        return self._ask("POST", path, {"model": self._model, "max_tokens": MAX_TOKENS, **body})

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        key: str | None = "",
    ) -> requests.Response:
        """Ask; ``key`` is the client's own where nothing is said, and None is none at all."""
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self._key}"
        data = json.dumps(body) if isinstance(body, dict) else body
        url = self._base_url + path
        return self._session.request(method, url, data=data, headers=headers, timeout=LIMIT_S)

    def _good(self, answer: requests.Response) -> requests.Response:
        if answer.status_code != HTTPStatus.OK:
            raise FailedError(f"HTTP {answer.status_code}: {answer.text}")
        return answer

    def _object(self, answer: requests.Response) -> dict[str, Any]:
        said = self._good(answer).json()
        if not isinstance(said, dict):
            raise FailedError(f"no JSON object: {answer.text}")
        return said

    def _refusal(self, answer: requests.Response, status: int) -> str:
        """Return the message of an error in OpenAI's shape."""
        if answer.status_code != status:
            raise FailedError(f"HTTP {answer.status_code} instead of {status}: {answer.text}")
        error = answer.json().get("error")
        if not isinstance(error, dict) or not {"message", "type", "code"} <= error.keys():
            raise FailedError(f"no error as OpenAI words it: {answer.text}")
        return f"HTTP {status}: {error['message']}"


def run_checks(client: Client) -> list[Result]:
    """Make all checks; one that fails does not keep the others back."""
    results = []
    for name, check in client.checks().items():
        try:
            results.append(Result(name, "pass", check()))
        except SkippedError as skipped:
            results.append(Result(name, "skip", str(skipped)))
        except (FailedError, requests.RequestException) as failed:
            results.append(Result(name, "FAIL", str(failed)))
        except (KeyError, IndexError, TypeError, ValueError) as lacks:
            results.append(Result(name, "FAIL", f"{type(lacks).__name__}: {lacks}"))
    return results


def main() -> int:
    """Check, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", required=True, help="http://HOST:PORT")
    parser.add_argument("--key-file", type=Path, required=True, help="holds a key for inference")
    parser.add_argument("--metrics-key-file", type=Path, help="holds a key with scope metrics")
    parser.add_argument("--model", help="default: the first that the gateway lists")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    key, scrape = (
        None if path is None else read_key(parser, path)
        for path in (given.key_file, given.metrics_key_file)
    )  # fmt: skip
    assert key is not None
    results = run_checks(Client(given.base_url, key, scrape, given.model))
    if given.json:
        print(json.dumps({"checks": [asdict(result) for result in results]}))
    else:
        for one in results:
            detail = " ".join(one.detail.split())
            print(f"{one.result:5} {one.check:36} {detail[:DETAIL_CHARACTERS]}")
    return 1 if any(one.result == "FAIL" for one in results) else 0


def read_key(parser: argparse.ArgumentParser, path: Path) -> str:
    """Return the key in a file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"cannot read {path}: {error}")


if __name__ == "__main__":
    sys.exit(main())
